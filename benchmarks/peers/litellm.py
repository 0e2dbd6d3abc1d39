"""LiteLLM alone: `acompletion` for every turn, its own aiohttp transport with the connection limits
raised.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path


def main() -> None:
    """Hold the dialogues through `litellm.acompletion`."""
    from benchmarks.peers import gauge

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["AIOHTTP_CONNECTOR_LIMIT"] = os.environ["AIOHTTP_CONNECTOR_LIMIT_PER_HOST"] = str(
        gauge.CONNECTIONS
    )
    import litellm
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    litellm.telemetry = False

    def prepare(given: gauge.Task, closing: AsyncExitStack) -> gauge.Hold:
        # Cancelled in the middle of an entry, the log's worker can go on for ever.
        closing.push_async_callback(GLOBAL_LOGGING_WORKER.flush)

        async def ask(messages: list[dict[str, str]]) -> str:
            answer = await litellm.acompletion(
                model=f"openai/{gauge.MODEL}",
                messages=messages,
                temperature=gauge.TEMPERATURE,
                max_tokens=gauge.MAX_TOKENS,
                base_url=given.url,
                api_key="none",
            )
            return answer.choices[0].message.content or ""

        return gauge.talk(ask)

    gauge.work("litellm", "litellm", prepare)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
