"""Holds callers to a number of requests in any sixty seconds."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from culturepark.server.problems import Problem

WINDOW = 60.0  # seconds


class Limiter:
    """Lets `rpm` requests through in any sixty seconds; `clock` returns seconds."""

    def __init__(self, rpm: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rpm, self._clock = rpm, clock
        self._let: deque[float] = deque()

    def enter(self) -> dict[str, str]:
        """Let a request through and return the headers that say what is left; Problem 429 says when
        there is room again.
        """
        now = self._clock()
        while self._let and self._let[0] <= now - WINDOW:
            self._let.popleft()
        if len(self._let) >= self.rpm:
            wait = self._let[0] + WINDOW - now
            headers = {
                **self._headers(wait),
                "Retry-After": str(math.ceil(wait)),
                "retry-after-ms": str(math.ceil(wait * 1000)),
            }
            message = (
                f"Rate limit reached: {self.rpm} requests a minute. Please try again in"
                f" {wait:.3f}s."
            )
            raise Problem(429, message, code="rate_limit_exceeded", headers=headers)
        self._let.append(now)
        return self._headers(self._let[0] + WINDOW - now)

    def _headers(self, reset: float) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": str(self.rpm),
            "x-ratelimit-remaining-requests": str(self.rpm - len(self._let)),
            "x-ratelimit-reset-requests": f"{reset:.3f}s",
        }
