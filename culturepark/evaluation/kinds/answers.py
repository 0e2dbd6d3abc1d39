"""One's own benchmark: questions, open or with options, scored against references, by a judge, or
by any function.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, nearest
from culturepark.evaluation import judge, notices, parsers
from culturepark.evaluation.ask import ask_once
from culturepark.evaluation.entries import FIELDS, QuestionRow, read_questions
from culturepark.evaluation.judge import Panel
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure, mean
from culturepark.evaluation.types import (
    Ask,
    Attempt,
    Benchmark,
    Item,
    Replica,
    Setup,
    Unparsed,
    Who,
)
from culturepark.llm import session
from culturepark.records import Culture, Record, digest
from culturepark.registry import PARSERS, SCORES
from culturepark.wording import UNSPACED

OPTIONS = {**judge.OPTIONS, **tables.OPTIONS, "cultures": {}, "more": (), "better": "high"}
Score = Callable[[Any, Item], Any]  # what was read, and what was asked → a number, or Unparsed


class UncardedCulture(Record):
    """A culture that has no card: its name is all that is known."""

    name: str
    title: str


# -------------------------------------------------------------------- plan


def plan(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield every question once a seed; InputError for what the card or a row says wrong, before
    anything is asked.
    """
    panel = _check_card(benchmark, setup)
    for entry in read_questions(benchmark, setup, referred=benchmark.score in SCORES):
        likely = setup.method == "likelihood" and bool(entry.question.options)
        for replica in setup.list_replicas(likely):
            item = _build_item(entry, replica, panel, benchmark, setup)
            if (
                panel
            ):  # a judge's prompt that cannot be rendered is found before answers are paid for
                judge.build_question(item, "", panel, 0)
            yield item


def _check_card(benchmark: Benchmark, setup: Setup) -> Panel | None:
    """Check what the card says; return who judges, None where nobody does."""
    where = f"benchmark {benchmark.name!r}"
    if benchmark.prompt is None and not benchmark.role:
        raise InputError(
            f'{where}: who asks? Write a [prompt], or name a role card: role = "respondent"'
        )
    short = {"parser": tuple(PARSERS), "score": (*SCORES, "judge")}
    for key, known in short.items():
        name = getattr(benchmark, key)
        if ":" not in name and name not in known:
            what = f"no {key} {name!r}" if name else "missing"
            raise InputError(
                f"{where}: {key}: {what}. {nearest(name, known)} Or package.module:name."
            )
    if odd := sorted(set(benchmark.fields) - set(FIELDS)):
        raise InputError(
            f"{where}: fields.{odd[0]}: unknown. {nearest(odd[0], FIELDS)} Further columns:"
            " options.more"
        )
    if (better := setup.options["better"]) not in ("high", "low"):
        raise InputError(f"{where}: options.better: {better!r} is neither high nor low")
    parsers.load(benchmark.parser)
    judge.read_scale(setup.options["scale"], where)
    if benchmark.score == "judge":
        return judge.build_panel(benchmark, setup, where)
    SCORES.load(benchmark.score)
    return None


def _build_item(
    entry: QuestionRow,
    replica: Replica,
    panel: Panel | None,
    benchmark: Benchmark,
    setup: Setup,
) -> Item:
    name = f"{entry.culture or 'any'}/{entry.id}/{replica.number}"
    options = replica.arrange(entry.question.options)
    question = entry.question.model_copy(update={"options": options})
    role = benchmark.asks(setup.workspace, wording=replica.wording)
    labels = [o.label for o in options]
    codes = [o.code for o in options] if benchmark.parser == "option" else labels
    facts = {
        **entry.more,
        "question": entry.question.text,
        "topic": entry.topic,
        "scale": list(setup.options["scale"]),
        **({"codes": codes, "labels": labels} if labels else {}),
        **({} if entry.of is None else {"of": entry.of}),
        **({"judge's card": digest(panel.role)} if panel else {}),
        **({"read": entry.read} if entry.read else {}),
    }
    shown = {
        **entry.more,
        **_list_choice(labels, benchmark),
        "question": question,
        "topic": entry.topic,
        "culture": _find_culture(entry.culture, setup),
        "me": None,
        "country": "",
        "numbered": benchmark.parser == "option",
    }
    request = session.build_single_request(role, shown, None, "answers", benchmark.name, name)
    if setup.method == "likelihood" and labels:
        request = replace(request, options=tuple(labels))
    return Item(
        id=name,
        culture=entry.culture,
        unit=entry.id,
        request=request,
        subset=entry.topic,
        seed=replica.number,
        gold=list(entry.reference),
        facts=facts,
        task=panel,
    )


def _list_choice(labels: Sequence[str], benchmark: Benchmark) -> dict[str, Any]:
    """Return the facts that say what there is to choose from, or that the question is open."""
    if not labels:
        return {"open": True}
    if benchmark.parser == "option":
        return {"options": list(range(1, len(labels) + 1)), "view": None}
    return {"labels": labels}


def _find_culture(culture: str, setup: Setup) -> Culture | UncardedCulture | None:
    known = setup.workspace.cultures.get(culture)
    return known or (
        UncardedCulture(name=culture, title=culture.replace("-", " ").title()) if culture else None
    )


# ------------------------------------------------------------------ scores


def normalise(text: Any) -> str:
    """Return a text without case, punctuation and doubled spaces, for comparing.

    >>> normalise("  “Nowruz”, of course! ")
    'nowruz of course'
    """
    folded = unicodedata.normalize("NFKC", str(text)).casefold().replace("i\u0307", "i")
    return " ".join("".join(map(_keep_character, folded)).split())


def _keep_character(character: str) -> str:
    """Return letters, marks, digits and symbols as they are, what only joins as nothing, and the
    rest as a space.
    """
    category = unicodedata.category(character)
    return character if category[0] in "LMNS" else "" if category == "Cf" else " "


def exact(answer: Any, item: Item) -> float:
    """Return 1 where the answer is any of the references, case and punctuation aside, else 0."""
    if "codes" in item.facts:
        return float(answer in item.gold)
    return float(normalise(answer) in map(normalise, item.gold))


def contains(answer: Any, item: Item) -> float:
    """Return 1 where any of the references stands in the answer as whole words (anywhere, in
    scripts without spaces), else 0.
    """
    return float(
        any(_is_within(normalise(reference), normalise(answer)) for reference in item.gold)
    )


def _is_within(part: str, whole: str) -> bool:
    if UNSPACED.search(part):
        return part in whole
    return bool(part) and re.search(rf"(?<!\S){re.escape(part)}(?!\S)", whole) is not None


# -------------------------------------------------------------------- hold


async def run(benchmark: Benchmark, item: Item, ask: Ask) -> Attempt:
    """Ask, read, and score: against the references, by a function, or by the judge."""
    made = await ask_once(benchmark, item, ask)
    if made.status != "ok":
        return made
    if benchmark.score == "judge":
        return await judge.grade_attempt(item, made, item.task, ask)
    if made.shares and benchmark.score == "exact":
        return made.model_copy(update={"score": _score_likeliest(made)})
    value = SCORES.load(benchmark.score)(made.answer, item)
    if isinstance(value, Unparsed):
        return made.model_copy(
            update={"status": "unparsed", "reason": f"score: {value.reason}", "answer": None}
        )
    if not isinstance(value, (int, float)) or not isfinite(value):
        raise InputError(
            f"score {benchmark.score!r} gave {value!r} for {item.id}: neither a finite number nor"
            " Unparsed"
        )
    return made.model_copy(update={"score": float(value)})


def _score_likeliest(made: Attempt) -> float:
    """Return 1 where the likeliest option is right; where several are, the part of them that is."""
    best = [
        c
        for c, share in zip(made.facts["codes"], made.shares, strict=True)
        if share == max(made.shares)
    ]
    return sum(c in made.gold for c in best) / len(best)


# ---------------------------------------------------------------- measures


def measure(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> list[Measure]:
    """Return score and share answered, overall, by culture and by topic; where there was a judge,
    grades and its agreement.
    """
    cultures = sorted({o.culture for o in attempts} - {""})
    topics = sorted({o.subset for o in attempts} - {""})
    parts = [
        ("", "", list(attempts)),
        *((c, "", [o for o in attempts if o.culture == c]) for c in cultures),
    ]
    if len(topics) > 1:
        parts += [("", t, [o for o in attempts if o.subset == t]) for t in topics]
    return [
        made
        for culture, topic, those in parts
        for made in _measure_part(those, culture, topic, {**OPTIONS, **options})
    ]


def _measure_part(
    attempts: Sequence[Attempt], culture: str, topic: str, options: Mapping[str, Any]
) -> Iterator[Measure]:
    part = partial(Measure, culture=culture, subset=topic, what="questions")
    scored = [o for o in attempts if o.score is not None]
    told, answered = (
        _sum_units((o, (o.score, 1)) for o in scored),
        _sum_units((o, (o.score is not None, 1)) for o in attempts),
    )
    yield part(
        "score",
        told,
        mean,
        better=options["better"],
        headline=not topic,
        note=_write_note(attempts, options),
        share=all(o.score in (0, 1) or "grades" in o.facts for o in scored),
    )
    yield part(
        "answered", answered, mean, note="share of all outcomes that have a score", share=True
    )
    grades = [
        (o, [g for g in o.facts["grades"] if g is not None]) for o in scored if "grades" in o.facts
    ]
    if grades:
        told, (low, high) = (
            _sum_units((o, (sum(g) / len(g), 1)) for o, g in grades),
            options["scale"],
        )
        yield part(
            "grade",
            told,
            mean,
            better=options["better"],
            note=f"the judge's mean grade, from {low} to {high}",
            within=(float(low), float(high)),
        )
    if several := [(o, g) for o, g in grades if len(g) > 1]:
        again = partial(part, better="", what="questions graded more than once")
        note = "how steady one judge is that is asked again, not whether it is right"
        yield again(
            "judges' alpha",
            _sum_units((o, judge.spread(g)) for o, g in several),
            judge.alpha,
            note=(
                f"Krippendorff's alpha, interval metric: {note}; none where all grades are the same"
            ),
        )
        yield again(
            "judges alike",
            _sum_units((o, (len(set(g)) == 1, 1)) for o, g in several),
            mean,
            note=f"share given one and the same grade: {note}",
            share=True,
        )


def _sum_units(
    told: Iterable[tuple[Attempt, Sequence[Any]]],
) -> dict[tuple[int, str], tuple[float, ...]]:
    """Return the sums a seed and unit."""
    made: dict[tuple[int, str], tuple[float, ...]] = {}
    for o, values in told:
        before = made.get((o.seed, o.unit), (0.0,) * len(values))
        made[o.seed, o.unit] = tuple(b + float(v) for b, v in zip(before, values, strict=True))
    return made


def _write_note(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> str:
    """Return what a score is, what guessing gives, what is left out, and of how many questions it
    was drawn.
    """
    low, high = options["scale"]
    judged = any("grades" in o.facts for o in attempts)
    parts = [
        f"graded by rubric: 0 for {low}, 1 for {high}" if judged else "mean of the answers' scores"
    ]
    if attempts and all("labels" in o.facts and o.gold for o in attempts):
        chance = sum(len(o.gold) / len(o.facts["labels"]) for o in attempts) / len(attempts)
        parts.append(f"guessing gives {chance:.2f}")
    if lost := sum(o.score is None for o in attempts):
        parts.append(f"{lost} of {len(attempts)} outcomes have no score and are left out")
    if short := sum(
        None in o.facts["grades"] for o in attempts if o.score is not None and "grades" in o.facts
    ):
        parts.append(f"{short} outcomes lack one of their grades")
    if of := {(o.culture, o.facts["of"]) for o in attempts if "of" in o.facts}:
        parts.append(
            f"{len({(o.culture, o.unit) for o in attempts})} questions, drawn of"
            f" {sum(n for _, n in of)}"
        )
    parts += notices.describe(o.facts for o in attempts)
    return "; ".join(parts)


def list_parts(benchmark: Benchmark) -> tuple[Who, ...]:
    """Return which other models play a part: the judge, where it scores."""
    return ("judge",) if benchmark.score == "judge" else ()


KIND = BenchmarkKind(
    plan=plan,
    measure=measure,
    run=run,
    options=OPTIONS,
    needs=list_parts,
    culture_source="data",
    axes=("orders", "wordings"),
)
