"""The verb `tune hosted`: a corpus goes to a fine-tuning service, with its cost told first."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from culturepark.cli.flags import as_json, out_flag, workspace_flag
from culturepark.cli.progress import progress, say
from culturepark.cli.terminal import echo

if TYPE_CHECKING:
    from pathlib import Path

    from culturepark.training.hosted import Plan


@click.command()
@click.argument("corpus", metavar="CORPUS")
@click.option(
    "--model",
    "-m",
    metavar="NAME",
    help="What to tune: PROVIDER/NAME, for example openai/gpt-4.1-mini.",
)
@click.option("--method", type=click.Choice(["sft", "dpo"]), default="sft", show_default=True)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Passes over the rows.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Rows a step (default: the service's choice).",
)
@click.option("--lr", type=float, metavar="X", help="Multiplier of the service's learning rate.")
@click.option("--beta", type=float, metavar="X", help="How close dpo stays to the base model.")
@click.option("--seed", type=int, metavar="N", help="Seed of the training.")
@click.option(
    "--suffix",
    metavar="TEXT",
    help="Part of the tuned models' names (default: the run's or folder's).",
)
@click.option(
    "--price",
    type=float,
    metavar="USD",
    help="What a million training tokens cost; else the cost is unknown.",
)
@click.option(
    "--max-usd", type=float, metavar="USD", help="Send nothing that costs more than this, about."
)
@click.option("--yes", "-y", is_flag=True, help="Start without asking.")
@click.option("--base-url", metavar="URL", help="Address of an OpenAI-compatible service.")
@click.option("--cancel", is_flag=True, help="Stop the jobs that are under way instead.")
@click.option(
    "--name",
    default="hosted",
    show_default=True,
    metavar="NAME",
    help="What the models are kept under.",
)
@workspace_flag
@out_flag
@as_json
def hosted(
    corpus: str,
    workspace: str | None,
    out: str | None,
    name: str,
    cancel: bool,
    yes: bool,
    as_json: bool,
    model: str | None,
    suffix: str | None,
    **how: Any,
) -> None:
    """Tune a model on CORPUS at a service: a folder of OpenAI's JSONL, or a run that was exported
    to it.

    A corpus that was exported --by-culture makes a job and a model a culture. The cost is told
    first, and nothing is sent before you agree. A command that was stopped goes on when it is given
    again: no job is started, and paid for, twice.

    The key is the provider's in the environment (OPENAI_API_KEY, …). OpenAI's own service is closed
    to new users and ends on 2027-01-06; others speak its protocol.
    """
    from culturepark import api
    from culturepark.errors import RunFailed
    from culturepark.executor import pool
    from culturepark.training import hosted as work

    folder, place, title = api.sent(corpus, how["method"], name, workspace, out)
    if cancel:
        stopped = pool.work(work.cancel(place))
        say(
            {"out": str(place), "jobs": stopped},
            as_json,
            "\n".join(f"{c}: {status}" for c, status in stopped.items()),
        )
        return
    if model is None:
        raise click.UsageError(
            "--model says what to tune: PROVIDER/NAME, for example openai/gpt-4.1-mini"
        )
    made = work.plan(folder, model, suffix=title if suffix is None else suffix, **how)
    if work.pending(made, place):
        _agreed(made, yes)
    failed = None
    with progress(as_json):
        try:
            pool.work(work.tune(made, place, _aloud))
        except RunFailed as error:  # of some; what the others made is told all the same
            failed = error
    _end(made, work.manifests(place), place, as_json)
    if failed is not None:
        raise failed


def _agreed(made: Plan, yes: bool) -> None:
    """Show what will be sent and what it costs, and ask."""
    from culturepark.errors import InputError
    from culturepark.training.hosted.quote import told

    echo(told(made), err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(
            "nothing was sent: there is no terminal to ask on; --yes agrees to the above"
        )
    click.confirm("Upload these files and start training?", abort=True, err=True)


def _aloud(culture: str, text: str) -> None:
    echo(f"{culture}: {text}", err=True)


def _end(
    made: Plan, manifests: Mapping[str, Mapping[str, Any]], place: Path, as_json: bool
) -> None:
    """Print what was made, and how each model takes its seat."""
    from culturepark.training.hosted.quote import figures

    seats = {culture: _seat(made, culture, found["model"]) for culture, found in manifests.items()}
    lines = [
        f"{culture}: {found['model']}\n  {seats[culture]}" for culture, found in manifests.items()
    ]
    value = figures(made) | {"out": str(place), "models": dict(manifests), "seats": seats}
    say(value, as_json, "\n".join([*lines, f"{place}"]))


def _seat(made: Plan, culture: str, model: str) -> str:
    """Return the command that seats a tuned model; elsewhere than at the provider's own address its
    base plays the others.
    """
    from culturepark.providers import PROVIDERS
    from culturepark.training.rows import POOLED

    provider = made.model.partition("/")[0]
    there = "" if made.base_url == PROVIDERS.load(provider).url else f" --base-url {made.base_url}"
    if culture == POOLED:
        return f"culturepark run NAME --model {provider}/{model}{there}"
    base = f" --model {made.model}" if there else ""
    return f"culturepark run NAME{base} --seat {culture}={provider}/{model}{there}"
