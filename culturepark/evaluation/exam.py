"""An exam on a culture: what is asked, how far answers are from the people's, and the file in which
a human sits it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from culturepark.errors import InputError, nearest
from culturepark.records import Culture, Question, Record, stream
from culturepark.surveys import Figures, load_shipped
from culturepark.toml import parse_toml, read_text
from culturepark.workspace import Workspace

VSM = "vsm13"  # the pack whose answers make Hofstede's dimensions; it is sat whole
SCALE = (1, 5)  # of satisfaction
KEYS = ("culture", "pack", "satisfaction", "question")
ASKED = ("id", "text", "options", "answer")
HEAD = """\
How would most people from the {title} culture answer these questions?
Write the number of an option between the quotes of `answer`; leave them empty where you cannot say.
`satisfaction` is for the exam after a lesson: from 1 (not at all satisfied) to 5 (very satisfied)."""  # noqa: E501


# -------------------------------------------------------------- the people


class Target(Record):
    """What a people answers to a question: the mean and the most frequent of its answers, and the
    ends of its scale.
    """

    mean: float
    modal: int
    low: int
    high: int


def find_targets(
    workspace: Workspace, culture: str, pack: str, figures: Figures | None = None
) -> dict[str, Target]:
    """Return what the people of a culture answer, by question of a pack; those it has no figures of
    are left out.

    Figures are those of the survey that is given, else the shipped ones, each of the culture's
    countries weighing the same, else the pack's own `answers`.
    """
    card = workspace.culture(culture)
    return {
        q.id: t
        for q in workspace.scenario(pack).questions
        if (t := _find_target(card, q, figures or load_shipped())) is not None
    }


def _find_target(card: Culture, question: Question, figures: Figures) -> Target | None:
    shares = figures.pool(card.survey, question.id)
    if shares is None and card.name not in question.answers:
        return None
    codes, answers = (
        [o.code for o in question.options],
        shares.shares if shares else {question.answers[card.name]: 1.0},
    )
    if not set(answers) <= set(codes):
        odd = sorted(set(answers) - set(codes))
        raise InputError(
            f"question {question.id}: the {card.name} answers hold {odd}, no options of it"
        )
    modal = min(answers, key=lambda code: (-answers[code], code))
    return Target(
        mean=sum(c * s for c, s in answers.items()), modal=modal, low=min(codes), high=max(codes)
    )


def distance(answer: float, target: Mapping[str, Any]) -> float:
    """Return how far an answer is from the people's mean, in lengths of the scale: 0 at the mean,
    at most 1.

    >>> distance(3, {"mean": 1.5, "low": 1, "high": 4})
    0.5
    """
    return float(abs(answer - target["mean"]) / (target["high"] - target["low"]))


def split_questions(
    questions: Sequence[str], count: int, *purpose: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part questions at random into `count` that are examined and the rest, which may be taught;
    InputError where none is left.
    """
    if count >= len(questions):
        raise InputError(
            f"{count} exam questions: {len(questions)} have known answers, one at least is for the"
            " lesson"
        )
    drawn = stream("exam", *purpose).sample(sorted(questions), len(questions))
    return tuple(drawn[:count]), tuple(drawn[count:])


# ---------------------------------------------------------------- the file


class Sheet(Record):
    """A human's exam file as read; an answer that was left empty is None."""

    path: Path
    culture: str
    pack: str
    answers: dict[str, int | None]
    satisfaction: int | None = None


def write(
    path: Path,
    workspace: Workspace,
    culture: str,
    pack: str,
    count: int,
    figures: Figures | None = None,
) -> Path:
    """Write an exam file to fill in: `count` questions of the pack, for VSM 2013 all of it.
    InputError if the file exists.
    """
    import tomlkit

    card, asked = workspace.culture(culture), workspace.scenario(pack)
    if path.exists():
        raise InputError(f"{path} exists; nothing was written. Choose a new name.")
    known = (
        [q.id for q in asked.questions]
        if pack == VSM
        else [*find_targets(workspace, culture, pack, figures)]
    )
    chosen = known if pack == VSM else split_questions(known, count, culture)[0]
    made = tomlkit.document()
    for line in HEAD.format(title=card.title).splitlines():
        made.add(tomlkit.comment(line))
    made.update({"culture": culture, "pack": pack, "satisfaction": ""})
    made.add(tomlkit.nl())
    made["question"] = tomlkit.aot()
    for q in asked.questions:
        if q.id in chosen:
            row = {"id": q.id, "text": q.text, "options": [str(o) for o in q.options], "answer": ""}
            made["question"].append(tomlkit.item(row))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomlkit.dumps(made), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def read(path: Path, workspace: Workspace) -> Sheet:
    """Read an exam file; InputError names file and line of the first mistake."""
    text = read_text(path)
    held = parse_toml(text, str(path))
    _check_keys(held, KEYS, str(path))
    culture, pack = (_require_text(held, key, path) for key in ("culture", "pack"))
    known = {q.id: q for q in workspace.scenario(pack).questions}
    rows, lines = held.get("question", []), _find_lines(text)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: it has no [[question]]")
    answers: dict[str, int | None] = {}
    for n, row in enumerate(rows):
        where = f"{path}:{lines.get((n, 'answer'), lines.get((n, ''), 0))}"
        _check_keys(row, ASKED, where)
        if not isinstance(name := row.get("id"), str) or name not in known or name in answers:
            raise InputError(
                f"{where}: question {name!r} is"
                f" {'twice here' if name in answers else f'not in {pack}'}"
            )
        codes = [o.code for o in known[name].options]
        answers[name] = _read_number(row.get("answer", ""), codes, f"{where}: {name}: answer")
    where = f"{path}:{lines.get((-1, 'satisfaction'), 0)}: satisfaction"
    liked = _read_number(held.get("satisfaction", ""), range(SCALE[0], SCALE[1] + 1), where)
    return Sheet(
        path=path,
        culture=workspace.culture(culture).name,
        pack=pack,
        answers=answers,
        satisfaction=liked,
    )


def _require_text(held: Mapping[str, Any], key: str, path: Path) -> str:
    if not isinstance(held.get(key), str):
        raise InputError(f"{path}: it does not name its {key}")
    return str(held[key])


def _check_keys(held: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if odd := sorted(set(held) - set(known)):
        raise InputError(f"{where}: unknown key {odd[0]!r}. {nearest(odd[0], known)}")


def _read_number(value: Any, codes: Sequence[int], what: str) -> int | None:
    """Read an answer: a number, in quotes or not; None where it was left empty."""
    if isinstance(value, str) and not value.strip():
        return None
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,9}", text) or int(text) not in codes:
        raise InputError(f"{what}: {value!r} is no option; there are {', '.join(map(str, codes))}")
    return int(text)


def _find_lines(text: str) -> dict[tuple[int, str], int]:
    """Return the line of each key of each [[question]], counted from 0 (-1: before the first); key
    "" is its heading.
    """
    found: dict[tuple[int, str], int] = {}
    block = -1
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip().startswith("[[question]]"):
            block += 1
            found[block, ""] = number
        elif (key := re.match(r"\s*(\w+)\s*=", line)) is not None:
            found.setdefault((block, key[1]), number)
    return found


# ----------------------------------------------------------------- marking


class ExamMark(Record):
    """What exam files are worth: distances to the culture's people, on the questions that were
    answered in all of them.

    For VSM 2013 the distances are Euclidean, on the `dimensions` that the answers give and that are
    published; else `dimensions` is None, and they are means of `distance` over `compared`
    questions, from 0 to 1.
    """

    culture: str
    pack: str
    compared: int
    asked: int
    left_out: tuple[str, ...]
    before: float
    after: float | None = None
    gain: float | None = None
    satisfaction: int | None = None
    dimensions: int | None = None


def mark(
    workspace: Workspace,
    before: Sheet,
    after: Sheet | None = None,
    culture: str | None = None,
    figures: Figures | None = None,
) -> ExamMark:
    """Hold one exam, or the one before a lesson and the one after it, against the people of a
    culture (the file's own).

    InputError where the two are not the same exam, or share no answered question.
    """
    sheets = [before] if after is None else [before, after]
    _check_same_exam(sheets)
    whose = workspace.culture(culture or before.culture)
    both = [q for q in before.answers if all(s.answers[q] is not None for s in sheets)]
    if before.pack == VSM:
        far, dimensions = _measure_profiles(
            whose, [{q: float(s.answers[q] or 0) for q in both} for s in sheets]
        )
    else:
        known = find_targets(workspace, whose.name, before.pack, figures)
        both, dimensions = [q for q in both if q in known], None
        if not both:
            paths = " and ".join(str(s.path) for s in sheets)
            raise InputError(f"{paths}: no question is answered in {'both' if after else 'it'}")
        far = [
            fmean(distance(s.answers[q] or 0, known[q].model_dump()) for q in both) for s in sheets
        ]
    return ExamMark(
        culture=whose.name,
        pack=before.pack,
        compared=len(both),
        asked=len(before.answers),
        left_out=tuple(q for q in before.answers if q not in both),
        before=far[0],
        after=far[1] if after else None,
        gain=far[0] - far[1] if after else None,
        satisfaction=sheets[-1].satisfaction,
        dimensions=dimensions,
    )


def _check_same_exam(sheets: Sequence[Sheet]) -> None:
    first, last = sheets[0], sheets[-1]
    for key in ("culture", "pack"):
        if getattr(first, key) != getattr(last, key):
            there, here = getattr(last, key), getattr(first, key)
            raise InputError(
                f"{last.path} is an exam on the {key} {there!r}, {first.path} on {here!r}"
            )
    if odd := set(first.answers) ^ set(last.answers):
        only = ", ".join(sorted(odd))
        raise InputError(
            f"{first.path} and {last.path} do not ask the same: only one of them asks {only}"
        )


# ---------------------------------------------------------------- VSM 2013


def load_published(culture: Culture) -> dict[str, int]:
    """Return a culture's published dimensions by name; InputError where its card names no row of
    Hofstede's table with any.
    """
    from culturepark.evaluation.kinds import vsm

    held = vsm.load_published(culture)
    if not held:
        raise InputError(
            f"personas/{culture.name}/culture.toml: hofstede names no country or region with"
            " figures"
        )
    return held


def measure_distance(
    means: Mapping[str, Any], held: Mapping[str, int], constants: Mapping[str, float]
) -> Any:
    """Return the Euclidean distance of dimensions, made of item means (numbers or arrays), from the
    published ones that are held.

    A constant that is not given is zero. Source: VSM 2013 manual, through `kinds.vsm.score`.
    """
    from culturepark.evaluation.kinds import vsm

    return (
        sum(
            (vsm.score(d, means) + constants.get(d, 0.0) - figure) ** 2
            for d, figure in held.items()
        )
        ** 0.5
    )


def _measure_profiles(
    culture: Culture, answers: Sequence[Mapping[str, float]]
) -> tuple[list[float], int]:
    """Return the distance of each exam, all constants zero, and on how many dimensions: those whose
    items all are answered.
    """
    from culturepark.evaluation.kinds import vsm

    asked = {d: {item for _, *pair in terms for item in pair} for d, terms in vsm.FORMULAS.items()}
    held = {
        d: figure
        for d, figure in load_published(culture).items()
        if all(asked[d] <= set(means) for means in answers)
    }
    if not held:
        raise InputError(
            f"no dimension of {VSM} has all its questions answered; a dimension needs four of them"
        )
    return [float(measure_distance(means, held, {})) for means in answers], len(held)
