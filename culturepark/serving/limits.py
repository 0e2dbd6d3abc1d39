"""What a server takes at most, and the word that it gives when a limit is reached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from time import monotonic
from typing import Any

from culturepark.errors import InputError
from culturepark.serving.problems import Problem

MIB = 2**20
OPTIONS = {
    "request": "--max-request",
    "file": "--max-file",
    "files": "--max-files",
    "idle": "--idle",
}
WATCHES = 4  # looks at each connection within the time that it may be idle


@dataclass(frozen=True)
class ServerLimits:
    """What a server takes at most: bytes of a request, of one file and of all files that it keeps;
    seconds of silence.

    `idle` is how long a connection may wait for its next request, a request take to arrive, and a
    caller not read its answer.
    """

    request: int = 32 * MIB
    file: int = 256 * MIB
    files: int = 1024 * MIB
    idle: float = 120.0

    def __post_init__(self) -> None:
        low = next((f.name for f in fields(self) if not getattr(self, f.name) > 0), None)
        if low is not None:
            raise InputError(f"limits: {low} is {getattr(self, low)}; give a number above 0")


class LimitMonitor:
    """Says once of each kind when a limit is reached, counts them all in `counts`, and closes
    connections that are idle.
    """

    def __init__(
        self,
        limits: ServerLimits,
        counts: dict[str, int],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.limits, self._counts = limits, counts
        self._tell = tell or logging.getLogger(__name__).warning
        self._waiting: dict[Any, float] = {}

    def reach(self, kind: str, message: str, param: str | None = None) -> Problem:
        """Count a limit that was reached and return the Problem that says so and names the option
        that raises it.

        Its status is 408 for time, 413 for size.
        """
        message = f"{message} The server's option {OPTIONS[kind]} raises this limit."
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] == 1:
            self._tell(f"{message} Further ones are counted at /counts.")
        late = kind == "idle"
        return Problem(
            408 if late else 413, message, code="timeout" if late else "too_large", param=param
        )

    @asynccontextmanager
    async def expect_arrival(self) -> AsyncIterator[None]:
        """Refuse a request of which the next part takes too long to arrive."""
        try:
            async with asyncio.timeout(self.limits.idle):
                yield
        except TimeoutError:
            message = f"A request did not arrive within {self.limits.idle:g} s."
            raise self.reach("idle", message) from None

    # ---------------------------------------------------------- connections

    def start_waiting(self, connection: Any) -> None:
        """Note that a connection waits for its next request from now on."""
        self._waiting[connection] = monotonic()

    def stop_waiting(self, connection: Any) -> None:
        """Note that a connection has sent a request, which is being answered."""
        self._waiting.pop(connection, None)

    async def close_idle_connections(self) -> None:
        """Close the connections that have waited too long, whatever they dribble meanwhile; goes on
        until cancelled.
        """
        while True:
            await asyncio.sleep(self.limits.idle / WATCHES)
            now = monotonic()
            for connection, since in list(self._waiting.items()):
                if now - since <= self.limits.idle:
                    continue
                del self._waiting[connection]
                if connection.transport is not None:
                    self.reach(
                        "idle",
                        f"A connection that sent no request for {self.limits.idle:g} s was closed.",
                    )
                    connection.transport.close()
