"""What a person sees while a run works: a live bar on a terminal, plain lines elsewhere, and what goes wrong with endpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield a function to tell figures to: a live bar on a terminal, a plain line every few seconds elsewhere.

    What an endpoint does that people should know (down, up again, a parameter refused) is told on stderr in either case.
    """
    if quiet:
        with aloud(lambda line: click.echo(line, err=True)):
            yield lambda stage, figures: None
    elif sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        with aloud(lambda line: click.echo(line, err=True)):
            yield _lines()


@contextmanager
def aloud(say: Callable[[str], None]) -> Iterator[None]:
    """Pass on what is logged as a warning."""
    import logging

    from culturepark.models.secrets import redact

    class Aloud(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(redact(record.getMessage()))

    handler, log = Aloud(logging.WARNING), logging.getLogger("culturepark")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextmanager
def _bar() -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as bar, aloud(bar.console.print):
        tasks: dict[tuple[str, int], Any] = {}
        clock = Clock()

        def tell(stage: str, figures: Mapping[str, Any]) -> None:
            key = (stage, figures["of"])
            if key not in tasks:
                tasks[key] = bar.add_task(stage, total=figures["of"] or None, said="")
            bar.update(tasks[key], completed=figures["dialogues"], said=sentence(figures, clock.since(stage)))

        yield tell


class Clock:
    """Seconds since each stage began."""

    def __init__(self) -> None:
        from time import monotonic

        self.now, self.began, self.last = monotonic, dict[str, float](), 0.0

    def since(self, stage: str) -> float:
        """Return seconds since the first call for this stage."""
        return self.now() - self.began.setdefault(stage, self.now())


def _lines(every: float = 5.0) -> Callable[[str, Mapping[str, Any]], None]:
    clock = Clock()

    def tell(stage: str, figures: Mapping[str, Any]) -> None:
        seconds = clock.since(stage)
        finished = figures["dialogues"] >= figures["of"]
        if clock.now() - clock.last < every and not finished:
            return
        clock.last = clock.now()
        rate = figures["dialogues"] / seconds if seconds > 0.2 else 0.0
        left = f" · {(figures['of'] - figures['dialogues']) / rate:.0f} s left" if rate and not finished else ""
        click.echo(
            f"{stage}: {figures['dialogues']}/{figures['of']} dialogues · {sentence(figures, seconds)}{left}",
            err=True,
        )

    return tell


def sentence(figures: Mapping[str, Any], seconds: float) -> str:
    """Return what a stage has done so far, in words: work, pace, money and its forecast, failures."""
    main = "turns" if "turns" in figures else "kept"
    parts = [f"{figures[main]} {main}"]
    if seconds > 0.5:
        parts.append(f"{figures['calls'] / seconds:,.0f} calls/s")
    if figures["tokens"]:
        parts.append(f"{figures['tokens']:,} tokens")
    if figures["usd"] is not None:
        cap = f" of at most ${figures['max_usd']:g}" if figures.get("max_usd") else ""
        ahead = (
            f", about ${figures['forecast']:.2f} when this stage ends" if figures.get("forecast") is not None else ""
        )
        parts.append(f"${figures['usd']:.2f}{cap}{ahead}")
    parts.append(f"{figures['failures']} failed calls")
    return " · ".join(parts)


def say(value: Any, as_json: bool, text: str) -> None:
    """Print a result for machines or for people."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str) if as_json else text)
