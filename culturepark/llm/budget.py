"""The budget of a run: what was spent, what calls in flight may still cost, and the hard limits."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from culturepark.errors import BudgetReached, ParkError

ROUNDING = 1e-12  # USD


class ReservationStore(Protocol):
    """Where reservations are written before a call is sent, so that they outlive a kill (the run's
    store).
    """

    def sum_spent(self) -> tuple[float, int]:
        """Return USD and tokens of all calls so far and of all reservations not yet settled."""
        ...

    def read_reservations(self) -> dict[str, tuple[int, float, int]]:
        """Return the reservations of calls that can still be answered: number, USD, tokens by
        key.
        """
        ...

    def reserve(self, usd: float, tokens: int, key: str) -> int:
        """Write a reservation at once and return its number."""
        ...

    def release(self, reservation: int) -> None:
        """Delete a reservation, in one transaction with what is written next."""
        ...

    def reduce(self, reservation: int, usd: float, tokens: int) -> None:
        """Reduce a reservation, in one transaction with what is written next."""
        ...


@dataclass
class Budget:
    """Reserves each call's worst-case cost before it is sent, and settles it by the actual cost.

    A call that would exceed a limit waits until calls in flight are settled, and raises
    BudgetReached if it still does not fit when none is left. So the final sum lies between the
    limit and the limit less the worst-case cost of the call that did not fit. A call that was lost,
    or in flight when the process was killed, may have been billed: its reservation stays.
    """

    store: ReservationStore
    max_usd: float | None = None
    max_tokens: int | None = None
    usd: float = 0.0
    tokens: int = 0
    _open: dict[int, tuple[float, int]] = field(default_factory=dict)
    _waiting: deque[tuple[float, int, str, asyncio.Future[int]]] = field(default_factory=deque)
    _reserved_usd: float = 0.0
    _reserved_tokens: int = 0
    _stopped: bool = False

    def __post_init__(self) -> None:
        self.usd, self.tokens = self.store.sum_spent()
        self._pending = self.store.read_reservations()

    async def reserve(self, usd: float, tokens: int, key: str = "") -> int:
        """Reserve what one call can cost at most; return the reservation's number.

        BudgetReached if it will never fit. `key` names a call that may be answered after this
        process has ended (in a batch): asked again, it takes over its own reservation.
        """
        if key in self._pending:
            number, before, counted = self._pending.pop(key)
            self.usd, self.tokens = max(0.0, self.usd - before), self.tokens - counted
            return self._enter(number, before, counted)
        if not self._waiting and not self._stopped and self._fits(usd, tokens):
            return self._reserve(usd, tokens, key)
        place: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((usd, tokens, key, place))
        self._admit_soon()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.settle(place.result(), 0.0, 0)
            raise

    def settle(
        self, reservation: int, usd: float, tokens: int, rest: tuple[float, int] = (0.0, 0)
    ) -> None:
        """Replace a reservation by the call's cost.

        `rest` (USD, tokens) stays reserved for what the provider did not count.
        """
        self._close(reservation)
        self.usd, self.tokens = self.usd + usd + rest[0], self.tokens + tokens + rest[1]
        self._admit_soon()
        if rest == (0.0, 0):
            self.store.release(reservation)
        else:
            self.store.reduce(reservation, *rest)

    def keep(self, reservation: int) -> None:
        """Count a reservation as spent for good: the call may have been billed."""
        usd, tokens = self._close(reservation)
        self.usd, self.tokens = self.usd + usd, self.tokens + tokens
        self._admit_soon()

    def _reserve(self, usd: float, tokens: int, key: str) -> int:
        return self._enter(self.store.reserve(usd, tokens, key), usd, tokens)

    def _enter(self, reservation: int, usd: float, tokens: int) -> int:
        self._open[reservation] = usd, tokens
        self._reserved_usd, self._reserved_tokens = (
            self._reserved_usd + usd,
            self._reserved_tokens + tokens,
        )
        return reservation

    def _close(self, reservation: int) -> tuple[float, int]:
        usd, tokens = self._open.pop(reservation)
        # With no call in flight nothing is reserved: rounding errors of 100,000 calls must not add
        # up.
        self._reserved_usd = self._reserved_usd - usd if self._open else 0.0
        self._reserved_tokens -= tokens
        return usd, tokens

    def _fits(self, usd: float, tokens: int) -> bool:
        money = (
            self.max_usd is None or self.usd + self._reserved_usd + usd <= self.max_usd + ROUNDING
        )
        return money and (
            self.max_tokens is None
            or self.tokens + self._reserved_tokens + tokens <= self.max_tokens
        )

    def _admit_soon(self) -> None:
        """Admit the waiting calls that fit once this round of the loop is over.

        Not earlier: the next admitted call commits, and a settled call must be written before that,
        or its cost could be lost. Nor is a call refused earlier: all that was settled in this round
        counts.
        """
        asyncio.get_running_loop().call_soon(self._admit_waiting)

    def _admit_waiting(self) -> None:
        while self._waiting:
            usd, tokens, key, place = self._waiting[0]
            if not place.done():
                if not self._stopped and self._fits(usd, tokens):
                    self._admit(usd, tokens, key, place)
                elif self._stopped or not self._open:
                    # From here on no call is admitted, though a smaller one might fit: the run
                    # ends, and would cancel it in flight.
                    self._stopped = True
                    place.set_exception(self._build_error(usd, tokens))
                else:
                    return
            self._waiting.popleft()

    def _admit(self, usd: float, tokens: int, key: str, place: asyncio.Future[int]) -> None:
        try:
            place.set_result(self._reserve(usd, tokens, key))
        except ParkError as error:  # the reservation could not be written
            place.set_exception(error)

    def _build_error(self, usd: float, tokens: int) -> BudgetReached:
        parts = []
        if self.max_usd is not None:
            parts.append(
                f"${self.usd:.4f} of ${self.max_usd:g} spent, the next call may cost ${usd:.4f}"
            )
        if self.max_tokens is not None:
            parts.append(
                f"{self.tokens:,} of {self.max_tokens:,} tokens used, the next call may take"
                f" {tokens:,}"
            )
        return BudgetReached(
            f"stopped by the budget: {'; '.join(parts)}. Nothing is lost: --resume with a higher"
            " --max-usd or --max-tokens goes on, and export writes what is refined so far."
        )
