"""The floor: a bare aiohttp and orjson loop, what the wire itself costs."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path


def main() -> None:
    """Hold the dialogues over one session that does nothing but post bytes and read them."""
    import aiohttp
    import orjson

    from benchmarks.peers import gauge

    def prepare(given: gauge.Task, closing: AsyncExitStack) -> gauge.Hold:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max(gauge.CONNECTIONS, given.in_flight))
        )
        closing.push_async_callback(session.close)
        url, headers = f"{given.url}/chat/completions", {"Content-Type": "application/json"}

        async def ask(messages: list[dict[str, str]]) -> str:
            body = orjson.dumps(gauge.asked(messages))
            async with session.post(url, data=body, headers=headers) as answer:
                answer.raise_for_status()
                return str(orjson.loads(await answer.read())["choices"][0]["message"]["content"])

        return gauge.talk(ask)

    gauge.work("floor", "aiohttp", prepare)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
