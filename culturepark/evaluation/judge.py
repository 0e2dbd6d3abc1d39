"""Has answers graded by a rubric, several times where that is wanted, and tells how far the grades
agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, StrictInt

from culturepark.errors import InputError
from culturepark.evaluation.types import Ask, Attempt, Benchmark, Item, Setup
from culturepark.llm import session
from culturepark.records import Request, Role, digest

OPTIONS = {"rubric": "", "scale": (1, 5), "judges": 1}
# facts of the question that are none of the judge's
ASKED_ONLY = ("options", "view", "labels", "open")


class Grade(BaseModel):
    """What a judge is to answer."""

    grade: StrictInt
    reason: str = ""


@dataclass(frozen=True)
class Panel:
    """How answers are judged: the role that judges, by what, on which scale, and how often it is
    asked.
    """

    role: Role
    rubric: str
    scale: tuple[int, int]
    judges: int


def build_panel(benchmark: Benchmark, setup: Setup, where: str) -> Panel:
    """Return who judges, from the card's options and its [judge], else agents/judge.toml;
    InputError for what cannot be.
    """
    rubric, judges = setup.options["rubric"], setup.options["judges"]
    if not isinstance(rubric, str) or not rubric.strip():
        raise InputError(
            f"{where}: options.rubric: missing; the judge is to be told what earns which grade"
        )
    if type(judges) is not int or judges < 1:
        raise InputError(f"{where}: options.judges: a whole number from 1, not {judges!r}")
    role = benchmark.asks(setup.workspace, "judge")
    if judges > 1 and role.temperature == 0:
        raise InputError(
            f"{where}: options.judges: {judges} judges at temperature 0 are one and always agree"
        )
    return Panel(role, rubric.strip(), read_scale(setup.options["scale"], where), judges)


def read_scale(given: Any, where: str) -> tuple[int, int]:
    """Return the worst and the best grade; InputError where they are no two whole numbers in this
    order.
    """
    if (
        not isinstance(given, (list, tuple))
        or [type(v) for v in given] != [int, int]
        or given[0] >= given[1]
    ):
        raise InputError(
            f"{where}: options.scale: worst and best grade, whole numbers such as [1, 5]; not"
            f" {given!r}"
        )
    return given[0], given[1]


def build_question(item: Item, said: str, panel: Panel, n: int) -> Request:
    """Return what the judge is asked for the n-th time.

    The answer stands between marks that it cannot hold, for they are made of its own hash; what it
    holds is never a template.
    """
    mark = digest(item.id, said, size=6)
    facts = {
        **{k: v for k, v in item.request.facts.items() if k not in ASKED_ONLY},
        "said": said,
        "mark": mark,
        "answer": f"<<{mark}>>\n{said}\n<<{mark}>>",
        "reference": list(item.gold),
        "rubric": panel.rubric,
        "scale": panel.scale,
    }
    return session.build_single_request(panel.role, facts, Grade, item.id, "judge", n)


async def grade_attempt(item: Item, made: Attempt, panel: Panel, ask: Ask) -> Attempt:
    """Have an answer graded; the score is the mean of the grades that were read, 0 the worst there
    is and 1 the best.

    In the attempt's facts `grades` has None where one could not be read, and `judge` the status of
    the first of these. Without any grade the attempt is unparsed: it was the judge who failed, and
    `reason` says so.
    """
    asked = [build_question(item, str(made.answer), panel, n) for n in range(panel.judges)]
    told = [
        await session.ask_until_readable(
            partial(ask, who="judge"), request, partial(_parse_grade, panel.scale)
        )
        for request in asked
    ]
    failed = [g for g, _ in told if isinstance(g, session.Failure)]
    grades = [g for g, _ in told if isinstance(g, Grade)]
    facts = {
        **made.facts,
        "grades": [g.grade if isinstance(g, Grade) else None for g, _ in told],
        "reasons": [g.reason for g in grades],
        "judge": failed[0].status if failed else "ok",
    }
    sent = [(f"judge's {m.role}", m.content) for m in asked[0].messages]
    talk = (*made.talk, *sent, *(("judge", reply.text) for _, reply in told))
    if not grades:
        why = {"status": "unparsed", "reason": f"judge: {failed[0].reason}", "answer": None}
        return made.model_copy(update={**why, "facts": facts, "talk": talk})
    low, high = panel.scale
    score = sum((g.grade - low) / (high - low) for g in grades) / len(grades)
    return made.model_copy(update={"score": score, "facts": facts, "talk": talk})


def _parse_grade(scale: tuple[int, int], text: str) -> Grade:
    made = session.parse_answer(text, Grade)
    if not scale[0] <= made.grade <= scale[1]:
        raise ValueError(f"grade: {made.grade} is beyond the scale from {scale[0]} to {scale[1]}")
    return made


# --------------------------------------------------------------- agreement


def spread(grades: Sequence[int]) -> tuple[float, float, float, float]:
    """Return what `alpha` sums over answers: disagreement within one, how many grades (two at
    least), their sum, their squares'.
    """
    m, total, squares = len(grades), sum(grades), sum(g * g for g in grades)
    return (m * squares - total**2) / (m - 1), m, total, squares


def alpha(sums: Any) -> Any:
    """Return Krippendorff's alpha for interval data from totals of `spread`, shape (..., 4); NaN
    where all grades are one.

    With m grades v of an answer and n of all answers, observed disagreement is 1/n · Σ_answers
    Σ_{i≠j}(vᵢ−vⱼ)² / (m−1), expected is 1/(n(n−1)) · Σ_{i≠j}(vᵢ−vⱼ)² over all grades, and
    Σ_{i≠j}(vᵢ−vⱼ)² = 2(mΣv² − (Σv)²). So alpha = 1 − observed/expected = 1 − (n−1) ·
    Σ_answers[(mΣv² − (Σv)²) / (m−1)] / (nΣv² − (Σv)²). Answers graded once are no part of it.
    Source: Krippendorff (2004), Content Analysis, 2nd ed., §11.3; Hayes & Krippendorff (2007), doi
    10.1080/19312450709336664.
    """
    import numpy as np

    within, n, total, squares = (sums[..., i] for i in range(4))
    apart = n * squares - total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(apart > 0, 1 - (n - 1) * within / apart, np.nan)
