"""Holds callers to a number of requests in any sixty seconds."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from culturepark.serving.problems import Problem

WINDOW = 60.0  # seconds


class RateLimit:
    """Lets `rpm` requests through in any sixty seconds; `clock` returns seconds."""

    def __init__(self, rpm: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rpm, self._clock = rpm, clock
        self._admitted: deque[float] = deque()

    def admit(self) -> dict[str, str]:
        """Let a request through and return the headers that say what is left; Problem 429 says when
        there is room again.
        """
        now = self._clock()
        while self._admitted and self._admitted[0] <= now - WINDOW:
            self._admitted.popleft()
        if len(self._admitted) >= self.rpm:
            wait = self._admitted[0] + WINDOW - now
            headers = {
                **self._build_headers(wait),
                "Retry-After": str(math.ceil(wait)),
                "retry-after-ms": str(math.ceil(wait * 1000)),
            }
            message = (
                f"Rate limit reached: {self.rpm} requests a minute. Please try again in"
                f" {wait:.3f}s."
            )
            raise Problem(429, message, code="rate_limit_exceeded", headers=headers)
        self._admitted.append(now)
        return self._build_headers(self._admitted[0] + WINDOW - now)

    def _build_headers(self, reset: float) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": str(self.rpm),
            "x-ratelimit-remaining-requests": str(self.rpm - len(self._admitted)),
            "x-ratelimit-reset-requests": f"{reset:.3f}s",
        }
