"""The command `tune hosted`: tunes at a fine-tuning service, after showing the cost."""

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


@click.command("hosted")
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
    help="Rows per step (default: the service's choice).",
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
    help="Price of a million training tokens; without it the cost is unknown.",
)
@click.option(
    "--max-usd",
    type=float,
    metavar="USD",
    help="Limit: send nothing that costs more than about this.",
)
@click.option("--yes", "-y", is_flag=True, help="Start without asking.")
@click.option("--base-url", metavar="URL", help="Address of an OpenAI-compatible service.")
@click.option("--cancel", is_flag=True, help="Stop the running jobs instead.")
@click.option(
    "--name",
    default="hosted",
    show_default=True,
    metavar="NAME",
    help="Name of the models' folder.",
)
@workspace_flag
@out_flag
@as_json
def tune_hosted(
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

    A corpus exported with --by-culture makes one job and one model per culture. The cost is shown
    first, and nothing is sent before you agree. Run a stopped command again to continue: no job is
    started, and paid for, twice.

    The key is the provider's in the environment (OPENAI_API_KEY, …). OpenAI's own service is closed
    to new users and ends on 2027-01-06; others speak its protocol.
    """
    from culturepark import api
    from culturepark.errors import RunFailed
    from culturepark.executor import pool
    from culturepark.training import hosted as work

    folder, place, title = api.locate_upload(corpus, how["method"], name, workspace, out)
    if cancel:
        statuses = pool.run_loop(work.cancel(place))
        say(
            {"out": str(place), "jobs": statuses},
            as_json,
            "\n".join(f"{c}: {status}" for c, status in statuses.items()),
        )
        return
    if model is None:
        raise click.UsageError(
            "--model says what to tune: PROVIDER/NAME, for example openai/gpt-4.1-mini"
        )
    plan = work.plan(folder, model, suffix=title if suffix is None else suffix, **how)
    if work.list_pending(plan, place):
        _confirm_upload(plan, yes)
    failure = None
    with progress(as_json):
        try:
            pool.run_loop(work.tune(plan, place, _print_event))
        except RunFailed as error:  # of some jobs; print the others' models first
            failure = error
    _print_models(plan, work.read_manifests(place), place, as_json)
    if failure is not None:
        raise failure


def _confirm_upload(plan: Plan, yes: bool) -> None:
    """Print what will be sent and what it costs, and ask for consent."""
    from culturepark.errors import InputError
    from culturepark.training.hosted.quote import format_plan

    echo(format_plan(plan), err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(
            "nothing was sent: there is no terminal to ask on; --yes agrees to the above"
        )
    click.confirm("Upload these files and start training?", abort=True, err=True)


def _print_event(culture: str, text: str) -> None:
    echo(f"{culture}: {text}", err=True)


def _print_models(
    plan: Plan, manifests: Mapping[str, Mapping[str, Any]], place: Path, as_json: bool
) -> None:
    """Print the models, and how each takes a seat in a run."""
    from culturepark.training.hosted.quote import describe_plan

    seats = {
        culture: _format_seat(plan, culture, manifest["model"])
        for culture, manifest in manifests.items()
    }
    lines = [
        f"{culture}: {manifest['model']}\n  {seats[culture]}"
        for culture, manifest in manifests.items()
    ]
    value = describe_plan(plan) | {"out": str(place), "models": dict(manifests), "seats": seats}
    say(value, as_json, "\n".join([*lines, f"{place}"]))


def _format_seat(plan: Plan, culture: str, model: str) -> str:
    """Return the command in which a tuned model takes a seat.

    At another address than the provider's own, the model's base takes the other seats.
    """
    from culturepark.providers import PROVIDERS
    from culturepark.training.rows import POOLED

    provider = plan.model.partition("/")[0]
    there = "" if plan.base_url == PROVIDERS.load(provider).url else f" --base-url {plan.base_url}"
    if culture == POOLED:
        return f"culturepark run NAME --model {provider}/{model}{there}"
    base = f" --model {plan.model}" if there else ""
    return f"culturepark run NAME{base} --seat {culture}={provider}/{model}{there}"
