"""What happens while a run works, as typed values: whoever shows it, a terminal or a page,
subscribes to them through one callable.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Work on the run in `folder` begins, or goes on."""

    folder: Path


@dataclass(frozen=True, slots=True)
class TurnWritten:
    """Turn `n` of a dialogue is kept; `usd` is what it cost, None where that is unknown."""

    dialogue: str
    n: int
    usd: float | None


@dataclass(frozen=True, slots=True)
class DialogueEnded:
    """A dialogue is held ("done"), or has failed; `reason` says why it is over."""

    dialogue: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class DialogueRefined:
    """A dialogue's opinions are extracted and judged, and `kept` passed; none where that failed."""

    dialogue: str
    opinions: int
    kept: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StageProgress:
    """How far a stage has come, sent twice a second: `dialogues` of those that it is for.

    `stage_calls` are the calls of this stage, `calls` and `failures` those since the process began;
    `tokens` and `usd` are the whole run's, `forecast` is what it will have cost when the stage
    ends. USD are None where no price is known, `forecast` too before it can be reckoned.
    """

    stage: ClassVar[str]
    dialogues: int
    of: int
    stage_calls: int
    calls: int
    failures: int
    tokens: int
    usd: float | None
    max_usd: float | None
    forecast: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulateProgress(StageProgress):
    """How far dialogues are held: `turns` of those that are still to be said, and how many
    dialogues failed.
    """

    stage = "simulate"
    turns: int
    of_turns: int
    failed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineProgress(StageProgress):
    """How far dialogues are refined: opinions extracted, and those of them that were kept."""

    stage = "refine"
    opinions: int
    kept: int


Event = RunStarted | TurnWritten | DialogueEnded | DialogueRefined | StageProgress
OnEvent = Callable[[Event], None]
Tell = Callable[[str, Mapping[str, Any]], None]  # a stage and its figures so far


def ignore_event(event: Event) -> None:
    """Show nothing."""


def subscribe(on_event: OnEvent, tell: Tell | None) -> OnEvent:
    """Return who is sent events; `tell`, which took a stage and its figures as a dict, is
    deprecated.
    """
    if tell is None:
        return on_event
    warnings.warn("tell is on_event now, which is sent typed events", DeprecationWarning, 3)

    def send(event: Event) -> None:
        on_event(event)
        if isinstance(event, StageProgress):
            tell(event.stage, asdict(event))

    return send
