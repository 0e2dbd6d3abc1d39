"""The verb that puts benchmarks to models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from culturepark.cli.flags import (
    Sectioned,
    as_json,
    drive_flags,
    out_flag,
    read_flags,
    workspace_flag,
)
from culturepark.cli.progress import say
from culturepark.cli.terminal import echo


@click.command(cls=Sectioned)
@click.argument("run", metavar="RUN")
@click.argument("benchmarks", nargs=-1, metavar="BENCHMARK...")
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    metavar="NAME",
    help=(
        "A model, LABEL=NAME, replicas A,B, a folder of tuned models, or "
        "outputs/…/{culture}: each culture's own."
    ),
)
@click.option(
    "--cultures",
    "-c",
    multiple=True,
    metavar="A,B",
    help="Only these (default: all with survey figures).",
)
@click.option(
    "--data",
    "-d",
    multiple=True,
    metavar="FILE",
    help="What the benchmark reads: files or folders of your own.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "likelihood", "sample"]),
    default="auto",
    show_default=True,
    help="Read the model's own distribution over options, or sample answers.",
)
@click.option(
    "--respondents",
    type=click.Choice(["auto", "people", "personas"]),
    default="auto",
    show_default=True,
    help="Who answers: the culture's people, or its personas one by one.",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="Respondents a culture.",
)
@click.option(
    "--seeds",
    multiple=True,
    default=("0",),
    show_default=True,
    metavar="A,B",
    help="Ask everything once per seed.",
)
@click.option(
    "--orders",
    multiple=True,
    default=("0",),
    show_default=True,
    metavar="A,B",
    help="Ask everything once per order of the options: 0 as they are, 1 reversed.",
)
@click.option(
    "--wordings",
    multiple=True,
    default=("0",),
    show_default=True,
    metavar="A,B",
    help="Ask everything once per wording: 0 the card's prompt, 1 the first of its [[wordings]].",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="At most so many questions or texts a culture or data set.",
)
@click.option("--judge", metavar="NAME", help="The model that grades free answers.")
@click.option("--learner", metavar="NAME", help="The model that learns, in education.")
@click.option(
    "--survey",
    metavar="FILE",
    help="Your own WVS wave 7 release (default: the run's, else the shipped figures).",
)
@click.option(
    "--corpus",
    metavar="RUN",
    help="The run whose held-out questions are told apart (default: RUN).",
)
@click.option(
    "--option",
    "-o",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the benchmark's own (TOML value).",
)
@click.option(
    "--allow-code", "code", is_flag=True, help="Let a benchmark's file name Python code to be run."
)
@click.option(
    "--base-url", metavar="URL", help="Address of the first model's OpenAI-compatible endpoint."
)
@drive_flags
@workspace_flag
@out_flag
@as_json
def evaluate(
    run: str,
    benchmarks: tuple[str, ...],
    as_json: bool,
    options: tuple[str, ...],
    **flags: Any,
) -> None:
    """Put BENCHMARK… to models and keep the results in RUN (a run, or a new name).

    Benchmarks: vsm13, survey, opinions, moderation, hatecheck, education, reward, care, or a file
    of your own. What was asked is not asked again: the same command goes on where it stopped.
    `culturepark compare RUN` makes the table.
    """
    from culturepark import api
    from culturepark.errors import InputError, RunFailed

    if not benchmarks:
        known = "\n".join(f"  {name:12}{title}" for name, title in api.benchmarks().items())
        raise InputError(
            f"which benchmarks? There are:\n{known}\nor the path of a file of your own"
        )
    models = flags.pop("models")
    for axis in ("seeds", "orders", "wordings"):
        flags[axis] = ",".join(flags[axis])
    found = api.evaluate(
        run,
        benchmarks,
        models,
        options=dict(map(_parse_option, options)),
        tell=_print_progress(as_json),
        **read_flags(flags),
    )
    say(
        [f.model_dump(mode="json") for f in found], as_json, "\n\n".join(map(_format_result, found))
    )
    if silent := [f"{f.benchmark} · {f.model}" for f in found if not f.counts["ok"]]:
        raise RunFailed(f"no answer could be read at all: {', '.join(silent)}")


def _parse_option(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE: a TOML value, else the text as it is."""
    import tomllib

    name, found, value = text.partition("=")
    if not found or not name.strip():
        raise click.UsageError(f"--option {text!r}: write NAME=VALUE")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # no TOML value, or one that Python cannot hold
        return name.strip(), value.strip()


def _format_result(found: Any) -> str:
    """Return a result as text: headline figures by culture, the others over all, and what could not
    be read.
    """
    many = max((f.trainings for f in found.figures), default=1)
    whose = f"{many} trainings" if many > 1 else "these weights"
    head = (
        f"{found.benchmark} · {found.model} ({found.setup['method']}, {found.setup['respondents']};"
        f" {whose})"
    )
    shown = [
        (" ".join(filter(None, (f.name, f.subset))), f.culture or "all", f)
        for f in found.figures
        if (not f.subset and (f.headline or not f.culture)) or (f.headline and not f.culture)
    ]
    wide = max((24, *(len(name) + 2 for name, _, _ in shown)))
    beside = max((13, *(len(culture) + 2 for _, culture, _ in shown)))
    rows = [
        f"  {name:{wide}}{culture:{beside}}{_format_figure(f.value):>8}{_format_interval(f):>20}"
        f"{_format_spread(f):>9}  {f.n} {f.what}"
        for name, culture, f in shown
    ]
    notes = dict.fromkeys(
        f.note for f in found.figures if f.headline and not f.culture and not f.subset and f.note
    )
    warned = dict.fromkeys(f"warning: {f.warning}" for f in (found, *found.figures) if f.warning)
    bare = dict.fromkeys(
        f"{f.name}: {f.reason}"
        for f in found.figures
        if f.headline and not f.culture and not f.subset and f.reason
    )
    counts = ", ".join(f"{n} {status}" for status, n in found.counts.items())
    why = [f"  {n} × {reason}" for reason, n in found.reasons.items()]
    return "\n".join(
        [
            head,
            *rows,
            *(f"  {note}" for note in (*notes, *bare, *warned)),
            f"  answers: {counts}",
            *why,
        ]
    )


def _format_figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _format_interval(f: Any) -> str:
    return "" if f.low is None else f"[{f.low:.3f}, {f.high:.3f}]"


def _format_spread(f: Any) -> str:
    return "" if f.spread is None else f"±{f.spread:.3f}"


def _print_progress(quiet: bool) -> Callable[[str, Mapping[str, Any]], None]:
    """Tell progress on stderr: a line every few seconds and one a result."""
    from time import monotonic

    last = [0.0]

    def tell(stage: str, how: Mapping[str, Any]) -> None:
        if quiet or (stage == "ask" and monotonic() - last[0] < 3 and how["asked"] < how["of"]):
            return
        if stage == "spent":
            if how["tokens"]:
                money = "" if how["usd"] is None else f", ${how['usd']:.2f}"
                echo(
                    f"evaluations of {how['run']} so far: {how['tokens']:,} tokens{money}", err=True
                )
            return
        last[0] = monotonic()
        name = f"{how['benchmark']} · {how['model']}"
        if stage == "ask":
            failed = f" · {how['lost']} without an answer" if how["lost"] else ""
            echo(f"{name}: {how['asked']}/{how['of']}{failed}", err=True)
        elif stage == "kept":
            echo(f"{name}: was there", err=True)

    return tell
