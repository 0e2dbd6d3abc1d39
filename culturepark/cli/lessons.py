"""The verbs `chat` and `exam`: a human learns about a culture from its model, and sits an exam
before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from culturepark.cli.flags import Sectioned, as_json, survey_flag, workspace_flag
from culturepark.cli.progress import say
from culturepark.cli.terminal import echo

if TYPE_CHECKING:
    from culturepark.records import Reply


@click.command(cls=Sectioned)
@click.argument("model", metavar="MODEL")
@click.option("--culture", "-c", required=True, metavar="NAME", help="Whose person the model is.")
@click.option(
    "--save",
    metavar="FILE",
    help="Append the conversation to this JSONL file; one that is there goes on.",
)
@workspace_flag
def chat(model: str, culture: str, save: str | None, workspace: str | None) -> None:
    """Talk with MODEL as a person of a culture: embedded, PROVIDER/NAME, or the folder of a tuned
    model.

    Ctrl-D ends. What fails is told and not kept: ask again.
    """
    from culturepark.api import lessons

    talk = lessons.chat(model, culture, _read_lines(), _print_reply, save=save, workspace=workspace)
    echo(f"{len(talk) // 2} exchanges" + (f" in {save}" if save else ""), err=True)


def _read_lines() -> Iterator[str]:
    """Yield the lines of the terminal or pipe."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return


def _print_reply(reply: Reply) -> None:
    if reply.status == "ok":
        echo(reply.text)
    else:
        echo(f"no answer ({reply.status}): {reply.reason or 'no reason given'}", err=True)


@click.group()
def exam() -> None:
    """Sit an exam on a culture yourself, before a lesson and after it."""


@exam.command(cls=Sectioned)
@click.argument("file", metavar="FILE")
@click.option(
    "--culture", "-c", required=True, metavar="NAME", help="The culture that the exam is on."
)
@click.option(
    "--pack",
    default="world_values",
    show_default=True,
    metavar="NAME",
    help="Whose questions: a scenario, or vsm13.",
)
@click.option(
    "--questions", type=click.IntRange(1), metavar="N", help="How many of them (12; all of vsm13)."
)
@survey_flag
@workspace_flag
@as_json
def new(
    file: str,
    culture: str,
    pack: str,
    questions: int | None,
    survey: str | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Write the exam FILE to fill in; written again under another name it asks the same, for the
    exam after the lesson.
    """
    from culturepark.api import lessons

    made = lessons.exam(
        file, culture, pack=pack, questions=questions, survey=survey, workspace=workspace
    )
    say(
        {"exam": str(made)},
        as_json,
        f"{made}: fill in its answers, then: culturepark exam mark {made}",
    )


@exam.command(cls=Sectioned)
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER", required=False)
@click.option(
    "--culture",
    "-c",
    metavar="NAME",
    help="Hold the answers against these people instead of the exam's own.",
)
@survey_flag
@workspace_flag
@as_json
def mark(
    before: str,
    after: str | None,
    culture: str | None,
    survey: str | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Tell how far the answers in BEFORE are from the people's, and how much nearer AFTER came."""
    from culturepark.api import lessons

    found = lessons.mark(before, after, culture=culture, survey=survey, workspace=workspace)
    say(found.model_dump(), as_json, lessons.format_mark(found))
