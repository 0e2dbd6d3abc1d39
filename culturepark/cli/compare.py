"""The verb `compare`: models by benchmarks by cultures, with winners only where there are any."""

from __future__ import annotations

import click

from culturepark.cli.flags import as_json, out_flag, workspace_flag
from culturepark.cli.progress import say


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--name",
    metavar="NAME",
    help="Folder below outputs/ to write to (default: compare; one run's own evals/board).",
)
@click.option(
    "--against",
    metavar="MODEL",
    help="Compare every model with this one alone: fewer p-values to correct.",
)
@click.option(
    "--allow-code",
    "code",
    is_flag=True,
    help="Let results of kinds of your own be read by their code.",
)
@workspace_flag
@out_flag
@as_json
def compare(
    runs: tuple[str, ...],
    name: str | None,
    against: str | None,
    code: bool,
    workspace: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Hold every model evaluated in the runs RUN… against every other: leaderboard.html, .json,
    .tex and samples.

    A winner beats every other model that was asked alike, after Holm's correction over all
    comparisons shown; else nobody wins.
    """
    from culturepark.api.comparison import compare as work
    from culturepark.api.comparison import locate_comparison
    from culturepark.reports.leaderboard import format_comparison

    made = work(*runs, name=name, against=against, code=code, workspace=workspace, out=out)
    page = locate_comparison(*runs, name=name, workspace=workspace, out=out) / "leaderboard.html"
    say(made.model_dump(mode="json"), as_json, f"{format_comparison(made)}\n{page}")
