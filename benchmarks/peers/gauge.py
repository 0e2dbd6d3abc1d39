"""What the peers' scripts share: their arguments, the two speakers, the clock, the check and the
line they print.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL, TEMPERATURE, MAX_TOKENS = "canned", 0.7, 256
CONNECTIONS = (
    1000  # every client that has a limit gets this one, so that none waits for a connection
)
OPENING = "The conversation begins."
NAMES = ("Yesenia", "Issam")
CARDS = ("personas/english-us/yesenia.toml", "personas/arabic/issam.toml")
RULES = """Speak as {name} only, in the first person, in English, two to five sentences a turn. Give reasons from your own life
and from the customs, norms and beliefs around you. Speak of "many" or "some" people, never of all. The question on the table:
How often would you say that voters are given bribes in your country's elections? You are the person of this card:
"""  # noqa: E501

Hold = Callable[
    [int], Awaitable[Sequence[str]]
]  # holds one dialogue of so many turns and returns what was said
Ask = Callable[[list[dict[str, str]]], Awaitable[str]]  # one chat completion


@dataclass(frozen=True)
class Task:
    """What a script is told to do: so many dialogues of so many turns, so many dialogues at
    once.
    """

    url: str
    dialogues: int
    turns: int
    in_flight: int


Prepare = Callable[[Task, AsyncExitStack], Hold]


@dataclass
class Clock:
    """Measures the wall and the CPU seconds (user and system, this process only) spent inside `with
    clock:`.
    """

    wall: float = 0.0
    cpu: float = 0.0
    _since: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self) -> Clock:
        self._since = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._since
        self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu


def task() -> Task:
    """Read the command line: URL DIALOGUES TURNS IN_FLIGHT, and what more the script itself
    reads.
    """
    if len(sys.argv) < 5:
        sys.exit(f"usage: {sys.argv[0]} URL DIALOGUES TURNS IN_FLIGHT")
    return Task(sys.argv[1], *map(int, sys.argv[2:5]))


def systems() -> tuple[str, str]:
    """Return the two speakers' system prompts: a few rules and a shipped persona card, about as
    long as CulturePark's own.
    """
    first, second = (
        RULES.format(name=n) + (ROOT / c).read_text("utf-8")
        for n, c in zip(NAMES, CARDS, strict=True)
    )
    return first, second


def asked(messages: list[dict[str, str]]) -> dict[str, Any]:
    """Return the parameters of one chat completion."""
    return {
        "model": MODEL,
        "messages": messages,
        "temperature": TEMPERATURE,
        "max_tokens": MAX_TOKENS,
    }


def talk(ask: Ask) -> Hold:
    """Return a plain dialogue over one completion: each speaker sees itself as assistant and the
    other as user.
    """
    system = systems()

    async def hold(turns: int) -> list[str]:
        said: list[str] = []
        for n in range(turns):
            opening = [] if n % 2 else [OPENING]
            seen = [*opening, *said]
            roles = ("user", "assistant")
            history = [{"role": roles[i % 2], "content": text} for i, text in enumerate(seen)]
            said.append(await ask([{"role": "system", "content": system[n % 2]}, *history]))
        return said

    return hold


def work(peer: str, package: str, prepare: Prepare) -> None:
    """Hold the task's dialogues through what `prepare` builds, `in_flight` at once, and print the
    figures.

    A first call, imports and the building of clients are not measured; what a client needs closed
    goes on the exit stack.
    """
    given, clock = task(), Clock()

    async def all_of_them() -> list[Sequence[str]]:
        async with AsyncExitStack() as closing:
            hold, gate = prepare(given, closing), asyncio.Semaphore(given.in_flight)

            async def one() -> Sequence[str]:
                async with gate:
                    return await hold(given.turns)

            await hold(1)
            with clock:
                return await asyncio.gather(*(one() for _ in range(given.dialogues)))

    tell(peer, package, asyncio.run(all_of_them()), given, clock)


def tell(
    peer: str,
    package: str,
    dialogues: Sequence[Sequence[str]],
    given: Task,
    clock: Clock,
    most: float | None = None,
) -> None:
    """Check that every dialogue was really held, then print the figures as one line of JSON; exit
    loudly if one was not.

    `most` is the peak in MB where it was taken before the dialogues were read back from disk.
    """
    lengths = sorted({len(said) for said in dialogues})
    if len(dialogues) != given.dialogues or lengths != [given.turns]:
        sys.exit(
            f"{peer}: asked for {given.dialogues} dialogues of {given.turns} turns; "
            f"got {len(dialogues)} of {lengths} turns"
        )
    # The server numbers its answers, so equal ones came from a cache, and blank ones from nowhere.
    different = {text for said in dialogues for text in said if text.strip()}
    turns = given.dialogues * given.turns
    if len(different) != turns:
        sys.exit(f"{peer}: {turns} turns hold only {len(different)} different replies")
    version = importlib.metadata.version(package)
    figures = {"wall": clock.wall, "cpu": clock.cpu, "peak_mb": most or peak()}
    print(json.dumps({"peer": peer, "version": version, "turns": turns, **figures}))


def peak() -> float:
    """Return this process's largest resident size in MB."""
    status = Path("/proc/self/status")
    if (
        status.exists()
    ):  # a child's ru_maxrss on Linux also counts the parent that it was forked from
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
