"""What a person sees while a run works: a live bar on a terminal, plain lines elsewhere, and what
goes wrong with endpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from culturepark.cli.output import json_text
from culturepark.cli.terminal import echo, printable

if TYPE_CHECKING:  # loaded where a run works: `culturepark --help` needs no events
    from culturepark.events import Event, OnEvent, StageProgress


def _say_on_stderr(line: str) -> None:
    echo(line, err=True)


@contextmanager
def progress(quiet: bool) -> Iterator[OnEvent]:
    """Yield who shows a run's events: a live bar on a terminal, a plain line every few seconds
    elsewhere, nothing where it is `quiet`.
    """
    if quiet:
        from culturepark.events import ignore_event

        yield ignore_event
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def aloud(say: Callable[[str], None] = _say_on_stderr) -> Iterator[None]:
    """Pass on what is logged as a warning or as progress; of several within each other, only the
    innermost does.

    So what an endpoint does that people should know (down, up again, a parameter refused) is told
    whatever the verb.
    """
    import logging

    class Aloud(logging.Handler):
        aloud = True

        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING or getattr(record, "progress", False):
                from culturepark.keys import redact

                say(printable(redact(record.getMessage())))

    log = logging.getLogger("culturepark")
    level, handlers = log.level, log.handlers[:]
    log.handlers = [*(h for h in handlers if not getattr(h, "aloud", False)), Aloud()]
    log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.setLevel(level)
        log.handlers = handlers


@contextmanager
def _bar() -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    from culturepark.events import StageProgress

    # Nothing here is markup: what endpoints and cards say is shown as it is.
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}", markup=False, table_column=Column(ratio=1)),
    )
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with (
        Progress(*columns, console=console, refresh_per_second=5, expand=True) as bar,
        aloud(bar.console.print),
    ):
        tasks: dict[tuple[str, int], Any] = {}
        clock = Clock()

        def show(event: Event) -> None:
            if not isinstance(event, StageProgress):
                return
            key = (event.stage, event.of)
            done, total = count_steps(event)
            if key not in tasks:
                tasks[key] = bar.add_task(event.stage, total=total or None, said="")
            said = f"{event.dialogues}/{event.of} dialogues · "
            said += describe_progress(event, clock.since(event.stage))
            bar.update(tasks[key], completed=done, total=total or None, said=said)

        yield show


class Clock:
    """Seconds since each stage began."""

    def __init__(self) -> None:
        from time import monotonic

        self.now, self.began, self.last = monotonic, dict[str, float](), float("-inf")

    def since(self, stage: str) -> float:
        """Return seconds since the first call for this stage."""
        return self.now() - self.began.setdefault(stage, self.now())


def count_steps(event: StageProgress) -> tuple[int, int]:
    """Return how far a stage has come, and how far it goes: in turns where it counts them, else in
    dialogues.
    """
    from culturepark.events import SimulateProgress

    if isinstance(event, SimulateProgress):
        return event.turns, event.of_turns
    return event.dialogues, event.of


def _lines(every: float = 5.0) -> OnEvent:
    """Write a line when a stage begins, every few seconds while it moves, and when it ends."""
    from culturepark.events import StageProgress

    clock = Clock()
    last: dict[str, str] = {}

    def show(event: Event) -> None:
        if not isinstance(event, StageProgress):
            return
        begins, seconds = event.stage not in clock.began, clock.since(event.stage)
        done, total = count_steps(event)
        finished = event.dialogues >= event.of
        if not begins and not finished and clock.now() - clock.last < every:
            return
        clock.last = clock.now()
        rate = done / seconds if seconds > 0.2 else 0.0
        left = f" · {(total - done) / rate:.0f} s left" if rate and not finished else ""
        text = (
            f"{event.stage}: {event.dialogues}/{event.of} dialogues ·"
            f" {describe_progress(event, seconds)}{left}"
        )
        if last.get(event.stage) != text:
            echo(text, err=True)
        last[event.stage] = text

    return show


def describe_progress(event: StageProgress, seconds: float) -> str:
    """Return what a stage has done so far, in words: work, pace, money and its forecast,
    failures.
    """
    from culturepark.events import RefineProgress, SimulateProgress

    parts = []
    if isinstance(event, SimulateProgress):
        parts.append(f"{event.turns} turns")
    if isinstance(event, RefineProgress):
        parts.append(f"{event.kept} kept")
    parts.append(f"{event.stage_calls} calls")
    if seconds > 0.5:
        parts[-1] += f" ({event.stage_calls / seconds:,.0f}/s)"
    if event.tokens:
        parts.append(f"{event.tokens:,} tokens")
    if event.usd is not None:
        cap = f" of at most ${event.max_usd:g}" if event.max_usd else ""
        ahead = event.forecast
        then = f", about ${ahead:.2f} when this stage ends" if ahead is not None else ""
        parts.append(f"${event.usd:.2f}{cap}{then}")
    parts.append(f"{event.failures} failed calls")
    return " · ".join(parts)


def say(value: Any, as_json: bool, text: str) -> None:
    """Print a result for machines or for people."""
    if as_json:
        click.echo(json_text(value))
    else:
        echo(text)
