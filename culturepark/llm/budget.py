"""Money and tokens: what a run has spent, what its calls in flight may still cost, and the caps
that are never passed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from culturepark.errors import BudgetReached, ParkError

ROUNDING = 1e-12  # USD


class Book(Protocol):
    """Where holds are written down before a call is sent, so that a kill cannot make them forgotten
    (the journal).
    """

    def spent(self) -> tuple[float, int]:
        """Return USD and tokens of all calls so far, and of all holds that were never settled."""
        ...

    def held(self) -> dict[str, tuple[int, float, int]]:
        """Return the holds of calls that can still be answered: number, USD and tokens by key."""
        ...

    def hold(self, usd: float, tokens: int, key: str) -> int:
        """Write a hold down at once and return its number."""
        ...

    def free(self, hold: int) -> None:
        """Forget a hold, together with whatever is written next."""
        ...

    def lower(self, hold: int, usd: float, tokens: int) -> None:
        """Lower a hold to what stays of it, together with whatever is written next."""
        ...


@dataclass
class Ledger:
    """Sets aside what a call can cost at most before it is sent, and puts in its place what it did
    cost.

    A call that would pass a cap waits until others in flight have told their real cost, and raises
    BudgetReached when none is left. So what is spent in the end lies between the cap and the cap
    less what the call that did not fit can cost. A call that was lost, or in flight when the
    process was killed, may have been billed: its hold stays.
    """

    book: Book
    max_usd: float | None = None
    max_tokens: int | None = None
    usd: float = 0.0
    tokens: int = 0
    _open: dict[int, tuple[float, int]] = field(default_factory=dict)
    _waiting: deque[tuple[float, int, str, asyncio.Future[int]]] = field(default_factory=deque)
    _held_usd: float = 0.0
    _held_tokens: int = 0
    _stopped: bool = False

    def __post_init__(self) -> None:
        self.usd, self.tokens = self.book.spent()
        self._pending = self.book.held()

    async def hold(self, usd: float, tokens: int, key: str = "") -> int:
        """Set aside what one call can cost at most; return the hold's number. BudgetReached if it
        never will fit.

        `key` names a call that may be answered although this process ends first (in a batch); asked
        again, it takes its own hold up.
        """
        if key in self._pending:
            number, before, counted = self._pending.pop(key)
            self.usd, self.tokens = max(0.0, self.usd - before), self.tokens - counted
            return self._enter(number, before, counted)
        if not self._waiting and not self._stopped and self._fits(usd, tokens):
            return self._take(usd, tokens, key)
        place: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((usd, tokens, key, place))
        self._wake_soon()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.settle(place.result(), 0.0, 0)
            raise

    def settle(
        self, hold: int, usd: float, tokens: int, rest: tuple[float, int] = (0.0, 0)
    ) -> None:
        """Put what a call cost in the place of its hold. `rest`, USD and tokens, stays held for
        what the provider did not count.
        """
        self._close(hold)
        self.usd, self.tokens = self.usd + usd + rest[0], self.tokens + tokens + rest[1]
        self._wake_soon()
        if rest == (0.0, 0):
            self.book.free(hold)
        else:
            self.book.lower(hold, *rest)

    def keep(self, hold: int) -> None:
        """Count a hold as spent for good: the call may have been billed, and nobody will tell."""
        usd, tokens = self._close(hold)
        self.usd, self.tokens = self.usd + usd, self.tokens + tokens
        self._wake_soon()

    def _take(self, usd: float, tokens: int, key: str) -> int:
        return self._enter(self.book.hold(usd, tokens, key), usd, tokens)

    def _enter(self, hold: int, usd: float, tokens: int) -> int:
        self._open[hold] = usd, tokens
        self._held_usd, self._held_tokens = self._held_usd + usd, self._held_tokens + tokens
        return hold

    def _close(self, hold: int) -> tuple[float, int]:
        usd, tokens = self._open.pop(hold)
        # With nothing in flight nothing is held: rounding must not pile up over a hundred thousand
        # calls.
        self._held_usd = self._held_usd - usd if self._open else 0.0
        self._held_tokens -= tokens
        return usd, tokens

    def _fits(self, usd: float, tokens: int) -> bool:
        money = self.max_usd is None or self.usd + self._held_usd + usd <= self.max_usd + ROUNDING
        return money and (
            self.max_tokens is None or self.tokens + self._held_tokens + tokens <= self.max_tokens
        )

    def _wake_soon(self) -> None:
        """Let in whoever fits once this round of the loop is over.

        Not before a call that was settled is itself written down: whoever is let in next commits,
        and a cost must never be lost between. Nor is anybody turned away before: what was settled
        in this round is counted then.
        """
        asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        while self._waiting:
            usd, tokens, key, place = self._waiting[0]
            if not place.done():
                if not self._stopped and self._fits(usd, tokens):
                    self._let_in(usd, tokens, key, place)
                elif self._stopped or not self._open:
                    # From here on nobody is let in, though a smaller call might fit: the run ends,
                    # and would cancel it in flight.
                    self._stopped = True
                    place.set_exception(self._reached(usd, tokens))
                else:
                    return
            self._waiting.popleft()

    def _let_in(self, usd: float, tokens: int, key: str, place: asyncio.Future[int]) -> None:
        try:
            place.set_result(self._take(usd, tokens, key))
        except ParkError as error:  # the hold could not be written down
            place.set_exception(error)

    def _reached(self, usd: float, tokens: int) -> BudgetReached:
        said = []
        if self.max_usd is not None:
            said.append(
                f"${self.usd:.4f} of ${self.max_usd:g} spent, the next call may cost ${usd:.4f}"
            )
        if self.max_tokens is not None:
            said.append(
                f"{self.tokens:,} of {self.max_tokens:,} tokens used, the next call may take"
                f" {tokens:,}"
            )
        return BudgetReached(
            f"stopped by the budget: {'; '.join(said)}. Nothing is lost: --resume with a higher"
            " --max-usd or --max-tokens goes on, and export writes what is refined so far."
        )
