"""As the paper's published code does it: one call at a time, and a new client for every call."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path


def main() -> None:
    """Hold the dialogues one after another through the synchronous openai client, whatever
    IN_FLIGHT says.
    """
    from openai import OpenAI

    from benchmarks.peers import gauge

    def prepare(given: gauge.Task, closing: AsyncExitStack) -> gauge.Hold:
        async def ask(messages: list[dict[str, str]]) -> str:
            client = OpenAI(base_url=given.url, api_key="none")
            answer = client.chat.completions.create(**gauge.asked(messages))
            return answer.choices[0].message.content or ""

        return gauge.talk(ask)

    gauge.work("published", "openai", prepare)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
