"""The openai SDK alone: one AsyncOpenAI for all dialogues, with its default HTTP client (up to
1,000 connections, 100 kept).
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path


def main() -> None:
    """Hold the dialogues through `chat.completions.create`."""
    from openai import AsyncOpenAI

    from benchmarks.peers import gauge

    def prepare(given: gauge.Task, closing: AsyncExitStack) -> gauge.Hold:
        client = AsyncOpenAI(base_url=given.url, api_key="none")
        closing.push_async_callback(client.close)

        async def ask(messages: list[dict[str, str]]) -> str:
            answer = await client.chat.completions.create(**gauge.asked(messages))
            return answer.choices[0].message.content or ""

        return gauge.talk(ask)

    gauge.work("openai", "openai", prepare)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
