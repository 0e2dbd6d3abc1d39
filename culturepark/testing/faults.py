"""Faults on demand: which request gets one, and what it does to the answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from culturepark.errors import InputError, nearest
from culturepark.serving.problems import Problem
from culturepark.testing.completions import replace_answer

ERRORS: dict[str, tuple[str, str | None, dict[str, str]]] = {  # message, code, headers
    "429": (
        "Rate limit reached (a fault on demand). Please try again in 1s.",
        "rate_limit_exceeded",
        {"Retry-After": "1"},
    ),
    "500": ("The server had an error while processing your request (a fault on demand).", None, {}),
    "503": ("The engine is currently overloaded (a fault on demand).", "overloaded", {}),
}
NETWORK = ("hang", "reset", "truncated", "drip")  # what happens to the answer on its way
TEXTS = ("schema", "notjson", "empty", "length", "refusal", "filter")  # what the answer itself says
KINDS = (*ERRORS, *NETWORK, *TEXTS, "expire")
PROSE = "Certainly! I would rather tell you about it in plain words, without any braces."
REFUSAL = "I'm sorry, but I can't help with that."
WRONG = '{"unexpected": [1, 2, 3], "note": "JSON of another shape than was asked for"}'


def check_shares(rates: Mapping[str, float]) -> dict[str, float]:
    """Return the shares of faults by kind; InputError for a kind or share that cannot be."""
    for kind, rate in rates.items():
        check_kind(kind)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise InputError(f"fault {kind}: the share {rate!r} is not a number from 0 to 1")
    if sum(rates.values()) > 1 + 1e-9:
        raise InputError(
            f"the shares of faults add up to {sum(rates.values()):.2f}; a request gets at most one"
        )
    return {kind: float(rate) for kind, rate in rates.items() if rate}


def check_kind(kind: str) -> str:
    """Return the kind; InputError names the nearest that there is."""
    if kind not in KINDS:
        raise InputError(f"no fault {kind!r}. {nearest(kind, KINDS)}")
    return kind


def build_problem(kind: str) -> Problem:
    """Return the error of a fault of ERRORS."""
    message, code, headers = ERRORS[kind]
    return Problem(int(kind), message, code=code, headers=headers)


@dataclass
class FaultSchedule:
    """The faults of one server: the n-th request gets the n-th draw, so a run meets the same ones
    again.
    """

    rates: dict[str, float]
    seed: int = 0

    def __post_init__(self) -> None:
        self._calls = {k: r for k, r in self.rates.items() if k != "expire"}
        self._requests, self._batches, self._tunes = (
            random.Random(f"{what} {self.seed}")  # noqa: S311
            for what in ("requests", "batches", "tunes")
        )

    def draw_for_request(self) -> str:
        """Return the next request's fault; empty for none."""
        return self._draw(self._requests)

    def draw_for_tuning(self) -> str:
        """Return the fault of the next request about fine-tuning; empty for none, or for one that
        only a model's text can have.
        """
        kind = self._draw(self._tunes)
        return "" if kind in TEXTS else kind

    def _draw(self, source: random.Random) -> str:
        if not self._calls:
            return ""
        drawn = source.random()
        for kind, rate in self._calls.items():
            if drawn < rate:
                return kind
            drawn -= rate
        return ""

    def draw_expiry(self) -> bool:
        """Say whether the next batch runs out of time."""
        return self._batches.random() < self.rates.get("expire", 0.0)


def spoil_completion(kind: str, completion: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat completion with a fault of TEXTS in it, its tokens counted anew."""
    said = completion["choices"][0]["message"].get("content") or ""
    if kind == "length":
        return replace_answer(completion, said[: max(1, len(said) // 2)], "length")
    if kind == "refusal":
        return replace_answer(completion, None, "stop", REFUSAL)
    if kind == "filter":
        return replace_answer(completion, "", "content_filter")
    return replace_answer(
        completion, {"schema": WRONG, "notjson": PROSE, "empty": ""}[kind], "stop"
    )
