"""What keeps one endpoint from being overrun: an adaptive limiter, token buckets, and a circuit
breaker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

from culturepark.errors import ModelError

log = logging.getLogger("culturepark")
CUT, WINDOW, LARGEST, TOLERATED, GAIN = 0.75, 20, 500, 0.1, 25
BROKEN, QUIET, FIRST_PAUSE, LONGEST_PAUSE = 10, 1.0, 5.0, 60.0
# seconds of patience with an endpoint that has never answered: its address is probably wrong
AT_FIRST = 30.0
UNREACHED = (
    3.0  # the same for one to which no connection has ever been made: it is probably not running
)
KNOCK = 1.0  # seconds at most between two attempts to reach such a one


@dataclass(frozen=True)
class Limits:
    """How hard an endpoint may be driven: calls at once, requests and tokens a minute, seconds a
    call may take, and seconds that a dead endpoint is waited for before the run stops.
    """

    concurrency: int = 200
    rpm: int | None = None
    tpm: int | None = None
    patience: float = 600.0


class TokenBucket:
    """A bucket that fills at `rate` a minute and holds what one second brings (at least one
    request).
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.capacity = max(rate / 60, 1.0)
        self.level, self._at = self.capacity, time.monotonic()

    def delay(self, amount: float) -> float:
        """Take `amount`; return the seconds until the bucket can bear it. More than it holds is let
        through when it is full.
        """
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self._at) * self.rate / 60)
        self._at = now
        self.level -= amount
        return max(0.0, (min(amount, self.capacity) - amount - self.level) * 60 / self.rate)

    def correct(self, taken: float, used: float) -> None:
        """Put right what was taken by what was really used."""
        self.level += taken - used


class ConcurrencyLimiter:
    """Lets a number of calls through at once, and adapts that number to what the endpoint bears.

    Additive increase, multiplicative decrease: when clearly more than a tenth (by two standard
    deviations) of the last outcomes, twenty or as many as are in flight, were 429, the width is cut
    to three quarters; stray ones change nothing, so it never starves. A round of answers (as
    many as the width, at least 25) without a cut widens it by a tenth, at least by one. After a
    cut, and while the breaker is open, nobody enters until the pause is over.
    """

    def __init__(self, limits: Limits, name: str) -> None:
        self.limits, self.name = limits, name
        self.width = float(limits.concurrency)
        self.in_flight = 0
        self.rpm = TokenBucket(limits.rpm) if limits.rpm else None
        self.tpm = TokenBucket(limits.tpm) if limits.tpm else None
        self.cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._recent: deque[bool] = deque(maxlen=LARGEST)
        self._successes = 0
        self._closed_until = self._cut_at = 0.0
        self._failures = 0  # in a row
        self._last_answer = time.monotonic()  # when there was an answer last
        self.answered = self.reached = False
        self._unreached_since: float | None = None
        self._down_since: float | None = None
        self._pause = FIRST_PAUSE
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, tokens: int) -> float:
        """Wait for a place; return when it was got (monotonic seconds)."""
        for bucket, amount in ((self.rpm, 1), (self.tpm, tokens)):
            if bucket and (wait := bucket.delay(amount)) > 0:
                await asyncio.sleep(wait)
        if self._is_full() or self._waiting:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            self._wake()
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self.leave()
                raise
        else:
            self.in_flight += 1
        return time.monotonic()

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        if self._waiting:
            self._wake()

    def _is_full(self) -> bool:
        room = (
            1 if self._down_since is not None else max(1, int(self.width))
        )  # a broken line is tried with one call
        return self.in_flight >= room or time.monotonic() < self._closed_until

    def _wake(self) -> None:
        """Let in whoever there is room for; come back when a pause ends."""
        while self._waiting and not self._is_full():
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)
        wait = self._closed_until - time.monotonic()
        if self._waiting and wait > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait + 0.001, self._reopen)

    def _reopen(self) -> None:
        self._timer = None
        self._wake()

    def _close(self, seconds: float) -> None:
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)

    # ------------------------------------------------------------- outcomes

    def note_success(self) -> None:
        """Note an answer."""
        if self._down_since is not None:
            log.warning("%s answers again", self.name, extra={"event": "endpoint_up"})
            self._down_since, self._pause, self._closed_until = None, FIRST_PAUSE, 0.0
            self._wake()
        self._failures, self._last_answer, self.answered, self.reached = (
            0,
            time.monotonic(),
            True,
            True,
        )
        self._recent.append(False)
        self._successes += 1
        if self._successes >= max(GAIN, self.width) and self.width < self.limits.concurrency:
            self._successes, self.width = (
                0,
                min(self.width + max(1.0, self.width / 10), float(self.limits.concurrency)),
            )

    def note_rate_limit(self, since: float, wait: float | None) -> None:
        """Note a 429 to a call that entered at `since`; those sent before the last cut say nothing
        new.
        """
        self.reached = True
        if since < self._cut_at:
            return
        self._recent.append(True)
        if (len(self._recent) < WINDOW and self.in_flight > 1) or sum(
            self._recent
        ) <= TOLERATED * len(self._recent):
            return
        # A limit in calls a minute is far below the width at first, so the width follows what is
        # really in flight.
        self.width = max(1.0, min(self.width, float(max(self.in_flight, 1))) * CUT)
        self._recent.clear()
        self._successes, self._cut_at, self.cuts = 0, time.monotonic(), self.cuts + 1
        self._close(wait or 0.0)
        log.info(
            "%s: too many requests; %d at once from now",
            self.name,
            int(self.width),
            extra={"event": "slower", "width": int(self.width)},
        )

    def note_failure(self, why: str, *, reached: bool = True) -> bool:
        """Note a broken call; say whether the line is down. ModelError once it has been down for
        longer than we wait.

        `reached` says whether there was a connection at all.
        """
        self._failures += 1
        now = time.monotonic()
        self.reached = self.reached or reached
        if not self.reached:
            self._unreached_since = self._unreached_since or now
            if now - self._unreached_since > min(UNREACHED, self.limits.patience):
                raise ModelError(
                    f"{self.name} has never answered:"
                    f" {why.rstrip('.')}{'' if why.endswith('?') else '.'} Nothing is lost: start"
                    " it again when it is there (a run with --resume)."
                )
        # Of many calls in flight, ten may well break in a row: it takes a while without any answer,
        # too.
        if self._failures < BROKEN or now - self._last_answer < QUIET:
            return False
        if self._down_since is None:
            self._down_since = now
        elif now - self._down_since > (
            self.limits.patience if self.answered else min(AT_FIRST, self.limits.patience)
        ):
            since = (
                f"been down for {now - self._down_since:.0f} s"
                if self.answered
                else "never answered"
            )
            raise ModelError(
                f"{self.name} has {since} ({why}). Nothing is lost: start it again when it is back"
                " (a run with --resume)."
            )
        if now >= self._closed_until:
            pause = self._pause if self.reached else min(self._pause, KNOCK)
            self._close(pause)
            log.warning(
                "%s is down: %d calls failed in a row (%s); trying again in %.0f s",
                self.name,
                self._failures,
                why,
                pause,
                extra={"event": "endpoint_down"},
            )
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return True
