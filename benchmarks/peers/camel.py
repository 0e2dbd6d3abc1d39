"""CAMEL: two ChatAgents a dialogue, each stepping (`astep`) on what the other said last; one model
backend for all.

Its SDK posts through the HTTP client that it offers for concurrency: with the default one a turn
costs a multiple.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any


def main() -> None:
    """Hold the dialogues between chat agents with their default memory."""
    os.environ["CAMEL_LOGGING_DISABLED"] = "true"
    from camel.agents import ChatAgent  # type: ignore[import-not-found]
    from camel.models import OpenAICompatibleModel  # type: ignore[import-not-found]
    from camel.utils import BaseTokenCounter  # type: ignore[import-not-found]
    from openai import AsyncOpenAI, DefaultAioHttpClient

    from benchmarks.peers import gauge

    class Quarters(BaseTokenCounter):  # type: ignore[misc]
        """Four letters a token: the default counter fetches its vocabulary from the network and
        costs more.
        """

        def count_tokens_from_messages(self, messages: list[dict[str, Any]]) -> int:
            return sum(len(str(m["content"])) for m in messages) // 4

        def encode(self, text: str) -> list[int]:
            return [0] * (len(text) // 4)

        def decode(self, token_ids: list[int]) -> str:
            raise NotImplementedError("this counter only counts")

    def prepare(given: gauge.Task, closing: AsyncExitStack) -> gauge.Hold:
        client = AsyncOpenAI(
            base_url=given.url, api_key="none", max_retries=3, http_client=DefaultAioHttpClient()
        )
        closing.push_async_callback(client.close)
        model = OpenAICompatibleModel(
            gauge.MODEL,
            {"temperature": gauge.TEMPERATURE, "max_tokens": gauge.MAX_TOKENS},
            api_key="none",
            url=given.url,
            token_counter=Quarters(),
            async_client=client,
        )
        systems = gauge.systems()

        async def hold(turns: int) -> list[str]:
            agents = [ChatAgent(system, model=model, token_limit=128_000) for system in systems]
            said, last = list[str](), gauge.OPENING
            for n in range(turns):
                response = await agents[n % 2].astep(last)
                last = response.msgs[0].content
                said.append(last)
            return said

        return hold

    gauge.work("camel", "camel-ai", prepare)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
