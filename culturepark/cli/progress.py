"""What a person sees while a run works: a live bar on a terminal, plain lines elsewhere, and what
goes wrong with endpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from culturepark.cli.output import json_text
from culturepark.cli.terminal import echo, printable


def _say_on_stderr(line: str) -> None:
    echo(line, err=True)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield a function to tell figures to: a live bar on a terminal, a plain line every few seconds
    elsewhere.
    """
    if quiet:
        yield lambda stage, figures: None
    elif sys.stderr.isatty():
        with _bar() as tell:
            yield tell
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
                from culturepark.secrets import redact

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
def _bar() -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

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

        def tell(stage: str, figures: Mapping[str, Any]) -> None:
            key = (stage, figures["of"])
            done, total = steps(figures)
            if key not in tasks:
                tasks[key] = bar.add_task(stage, total=total or None, said="")
            said = f"{figures['dialogues']}/{figures['of']} dialogues · "
            said += sentence(figures, clock.since(stage))
            bar.update(tasks[key], completed=done, total=total or None, said=said)

        yield tell


class Clock:
    """Seconds since each stage began."""

    def __init__(self) -> None:
        from time import monotonic

        self.now, self.began, self.last = monotonic, dict[str, float](), float("-inf")

    def since(self, stage: str) -> float:
        """Return seconds since the first call for this stage."""
        return self.now() - self.began.setdefault(stage, self.now())


def steps(figures: Mapping[str, Any]) -> tuple[int, int]:
    """Return how far a stage has come, and how far it goes: in turns where it counts them, else in
    dialogues.
    """
    if "of_turns" in figures:
        return figures["turns"], figures["of_turns"]
    return figures["dialogues"], figures["of"]


def _lines(every: float = 5.0) -> Callable[[str, Mapping[str, Any]], None]:
    """Write a line when a stage begins, every few seconds while it moves, and when it ends."""
    clock = Clock()
    last: dict[str, str] = {}

    def tell(stage: str, figures: Mapping[str, Any]) -> None:
        begins, seconds = stage not in clock.began, clock.since(stage)
        done, total = steps(figures)
        finished = figures["dialogues"] >= figures["of"]
        if not begins and not finished and clock.now() - clock.last < every:
            return
        clock.last = clock.now()
        rate = done / seconds if seconds > 0.2 else 0.0
        left = f" · {(total - done) / rate:.0f} s left" if rate and not finished else ""
        text = (
            f"{stage}: {figures['dialogues']}/{figures['of']} dialogues ·"
            f" {sentence(figures, seconds)}{left}"
        )
        if last.get(stage) != text:
            echo(text, err=True)
        last[stage] = text

    return tell


def sentence(figures: Mapping[str, Any], seconds: float) -> str:
    """Return what a stage has done so far, in words: work, pace, money and its forecast,
    failures.
    """
    main = "turns" if "turns" in figures else "kept"
    parts = [f"{figures[main]} {main}", f"{figures['stage_calls']} calls"]
    if seconds > 0.5:
        parts[-1] += f" ({figures['stage_calls'] / seconds:,.0f}/s)"
    if figures["tokens"]:
        parts.append(f"{figures['tokens']:,} tokens")
    if figures["usd"] is not None:
        cap = f" of at most ${figures['max_usd']:g}" if figures.get("max_usd") else ""
        ahead = figures.get("forecast")
        then = f", about ${ahead:.2f} when this stage ends" if ahead is not None else ""
        parts.append(f"${figures['usd']:.2f}{cap}{then}")
    parts.append(f"{figures['failures']} failed calls")
    return " · ".join(parts)


def say(value: Any, as_json: bool, text: str) -> None:
    """Print a result for machines or for people."""
    if as_json:
        click.echo(json_text(value))
    else:
        echo(text)
