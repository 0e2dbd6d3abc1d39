"""The verbs of a human who learns: talk with a culture's model (`chat`), sit an exam (`exam`) and
have it marked (`mark`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from culturepark import tables
from culturepark.api.runs import merge_settings
from culturepark.errors import InputError
from culturepark.evaluation import exam as exams
from culturepark.evaluation.exam import ExamMark
from culturepark.evaluation.kinds.education import Said, build_teacher_request
from culturepark.executor import pool
from culturepark.llm import Model
from culturepark.llm import load as load_model
from culturepark.llm.reasoning import separate_thoughts
from culturepark.records import Reply
from culturepark.surveys import Figures, load_survey
from culturepark.workspace import load

QUESTIONS = 12  # of an exam, unless told otherwise


def chat(
    model: Model | str,
    culture: str,
    heard: Iterable[str],
    tell: Callable[[Reply], None],
    *,
    save: str | Path | None = None,
    workspace: str | Path | None = None,
) -> tuple[Said, ...]:
    """Talk with a model as a person of a culture: each line that is heard is asked, and each reply,
    failed or not, is told.

    Returns the conversation. With `save` every exchange is appended to that JSONL file, and a
    conversation on the same culture that is there already goes on. A failed reply is no turn: what
    was asked then counts as not said.
    """
    found = load(workspace)
    role, card, path = (
        found.role("teacher"),
        found.culture(culture),
        Path(save).expanduser() if save else None,
    )
    asked = load_model(model) if isinstance(model, str) else model
    talk = _read_conversation(path, culture) if path else ()
    # One loop for the whole talk, run a reply at a time: between replies an interrupt is the
    # terminal's own.
    with asyncio.Runner(loop_factory=pool.loop_factory()) as runner:
        try:
            for line in filter(None, map(str.strip, heard)):
                reply = separate_thoughts(
                    runner.run(
                        asked.complete(
                            build_teacher_request(
                                role, card, talk, line, "chat", culture, len(talk)
                            )
                        )
                    )
                )
                tell(reply)
                if reply.status == "ok":
                    made: tuple[Said, ...] = (
                        {"who": "learner", "text": line},
                        {"who": "teacher", "text": reply.text},
                    )
                    _append(path, culture, asked.identity, made)
                    talk = (*talk, *made)
        finally:
            if (close := getattr(asked, "close", None)) is not None:
                runner.run(close())
    return talk


def _read_conversation(path: Path, culture: str) -> tuple[Said, ...]:
    """Return the conversation that a file holds; InputError names the line that is none of it."""
    if not path.exists():
        return ()
    talk: list[Said] = []
    for n, (line, row) in enumerate(tables.json_lines(path), 1):
        try:
            whose, turn = row["culture"], {"who": str(row["who"]), "text": str(row["text"])}
        except KeyError as error:
            raise InputError(f"{path}:{line}: no turn of a conversation") from error
        if whose != culture or turn["who"] != ("learner", "teacher")[n % 2 == 0]:
            raise InputError(
                f"{path}:{line}: it is not the {culture} conversation's next turn; choose another"
                " file"
            )
        talk.append(turn)
    if len(talk) % 2:
        raise InputError(
            f"{path}:{len(talk)}: the last question has no answer; take that line out to go on"
        )
    return tuple(talk)


def _append(path: Path | None, culture: str, model: str, turns: Iterable[Said]) -> None:
    if path is None:
        return
    rows = [{"culture": culture, "model": model, **turn} for turn in turns]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def exam(
    path: str | Path,
    culture: str,
    *,
    pack: str = "world_values",
    questions: int | None = None,
    survey: str | Path | None = None,
    workspace: str | Path | None = None,
) -> Path:
    """Write an exam file on a culture for a human to fill in, and return its path; InputError if
    there is a file already.
    """
    if pack == exams.VSM and questions is not None:
        raise InputError(f"{exams.VSM} is sat whole: its dimensions need every question")
    return exams.write(
        Path(path).expanduser(),
        load(workspace),
        culture,
        pack,
        questions or QUESTIONS,
        _load_figures(survey, workspace),
    )


def mark(
    before: str | Path,
    after: str | Path | None = None,
    *,
    culture: str | None = None,
    survey: str | Path | None = None,
    workspace: str | Path | None = None,
) -> ExamMark:
    """Mark one exam file, or the one before a lesson and the one after it, against the people of
    its culture (or another).
    """
    found = load(workspace)
    first = exams.read(Path(before).expanduser(), found)
    return exams.mark(
        found,
        first,
        exams.read(Path(after).expanduser(), found) if after else None,
        culture,
        _load_figures(survey, workspace),
    )


def _load_figures(survey: str | Path | None, workspace: str | Path | None) -> Figures:
    """Return what peoples answered: in a release that is given, else in the workspace's own, else
    the shipped figures.
    """
    return load_survey(
        str(survey) if survey is not None else merge_settings(None, workspace, {})[0].survey
    )


def format_mark(found: ExamMark) -> str:
    """Return a mark in words."""
    unit = "of the scale" if found.dimensions is None else f"over {found.dimensions} dimensions"
    lines = [f"{found.compared} of {found.asked} questions compared with {found.culture}"]
    if found.left_out:
        lines[0] += f"; left out: {', '.join(found.left_out)}"
    lines.append(f"distance before   {_format_figure(found.before, found)} {unit}")
    if found.after is not None and found.gain is not None:
        lines.append(f"distance after    {_format_figure(found.after, found)}")
        lines.append(
            f"gain              {'+' if found.gain > 0 else ''}{_format_figure(found.gain, found)}"
        )
        told = (
            f"{found.satisfaction} of {exams.SCALE[1]}"
            if found.satisfaction
            else "not given; write `satisfaction = 4` in the file after the lesson"
        )
        lines.append(f"satisfaction      {told}")
    if found.dimensions is not None:
        lines.append(
            "VSM 2013 compares groups; the dimensions of a single person's answers are only a hint."
        )
    return "\n".join(lines)


def _format_figure(value: float, found: ExamMark) -> str:
    return f"{value:.3f}" if found.dimensions is None else f"{value:.1f}"
