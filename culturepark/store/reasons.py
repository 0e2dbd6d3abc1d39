"""Why something failed, as it is written in the store: the one place that knows how it reads.

Reasons are registered as functions of SQL under their own names, so that they are grouped and
counted where they stand.
"""

from __future__ import annotations

import re
import sqlite3

REFINED = "ok"
FAILED = "failed: "
QUOTE = "; the model wrote:"  # what stands before the answer that could not be read
LONGEST = 300  # characters of a reason that is counted
_PLACE = re.compile(r"turn .*?\): ")


def write_outcome(failure: str) -> str:
    """Return how refining a dialogue ended, as it is kept: empty is no `failure`."""
    return FAILED + failure if failure else REFINED


def read_failure(outcome: str | None) -> str | None:
    """Return why a dialogue could not be refined; None where it was, or has not been tried."""
    failed = outcome is not None and outcome.startswith(FAILED)
    return outcome.removeprefix(FAILED) if outcome and failed else None


def strip_place(reason: str) -> str:
    """Return why a dialogue failed without the turn at which it did, "turn 3 (Anna): "."""
    place = _PLACE.match(reason)
    return reason[place.end() :] if place else reason


def name_cause(reason: str) -> str:
    """Return what is alike in reasons of one cause: no answer that was quoted, no long text."""
    return reason.partition(QUOTE)[0][:LONGEST]


def register_reasons(db: sqlite3.Connection) -> None:
    """Let SQL call these functions."""
    for function in (read_failure, strip_place, name_cause):
        db.create_function(function.__name__, 1, function, deterministic=True)
