"""Compares what a corpus answers with what the people answered, and how far its opinions lie from
their seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from math import fsum, log, log2, sqrt
from pathlib import Path
from typing import Any

from culturepark import surveys
from culturepark.curation import embedders
from culturepark.errors import InputError
from culturepark.evaluation import measure
from culturepark.evaluation.intervals import SHARE
from culturepark.records import Distribution, Question
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.store.counts import count_answers
from culturepark.store.queries import iterate_kept, list_questions
from culturepark.surveys import Figures
from culturepark.workspace import Workspace

Facts = dict[str, Any]
BATCH = 1000  # opinions embedded at a time


def distance(p: Mapping[int, float], q: Mapping[int, float]) -> float:
    """Return the Jensen–Shannon distance of two distributions over codes: 0 equal, 1 nothing
    shared.

    It is the square root of the divergence with logarithms to base 2. Weights need not add up to 1.
    """
    whole_p, whole_q = fsum(p.values()), fsum(q.values())
    parts = []
    for code in p.keys() | q.keys():
        a, b = p.get(code, 0.0) / whole_p, q.get(code, 0.0) / whole_q
        parts += [x * log2(2 * x / (a + b)) for x in (a, b) if x > 0]
    return sqrt(min(1.0, max(0.0, fsum(parts) / 2)))


def chance(people: Mapping[int, float], n: int) -> float:
    """Return about how far n answers drawn from the shares themselves lie from them: √((k−1) / (8 n
    ln 2)).

    k counts the options that anyone chose. χ² has the mean k − 1, and the divergence is χ² / (8 n
    ln 2).
    """
    return min(1.0, sqrt((sum(s > 0 for s in people.values()) - 1) / (8 * n * log(2))))


def questions(workspace: Workspace, settings: Settings) -> dict[str, Question]:
    """Return the questions this run may ask, by id."""
    questions = workspace.scenario(settings.scenario).questions
    return {q.id: q for q in questions if not settings.questions or q.id in settings.questions}


def stances(
    store: RunStore, workspace: Workspace, settings: Settings, cultures: Sequence[str]
) -> Facts:
    """Return the survey, and each culture's answers in the corpus beside its people's."""
    figures, trouble = _figures(settings)
    answers = _answers(store)
    survey = (
        {
            "name": figures.survey,
            "source": figures.source,
            "weights": figures.describe_weights(),
            "notices": figures.format_notices(),
        }
        if figures
        else {"name": None, "source": None, "weights": None, "notices": ""}
    )
    return {
        "survey": survey | {"trouble": trouble},
        "stance": [_stance(workspace, settings, figures, c, answers.get(c, {})) for c in cultures],
    }


def _figures(settings: Settings) -> tuple[Figures | None, str | None]:
    """Return the survey's figures, or what keeps them from being read: the rest is told all the
    same.
    """
    try:
        return surveys.load_survey(settings.survey), None
    except InputError as error:
        return None, str(error).replace(str(settings.survey), Path(str(settings.survey)).name)


Counts = tuple[
    dict[int, int], dict[int, int]
]  # samples, and persons' answers in dialogues, by option code


def _answers(store: RunStore) -> dict[str, dict[str, Counts]]:
    """Return culture → question → counts."""
    found: dict[str, dict[str, Counts]] = defaultdict(dict)
    for culture, question, code, samples, given in count_answers(store):
        codes, answers = found[culture].get(question, ({}, {}))
        found[culture][question] = (codes | {code: samples}, answers | {code: given})
    return found


def _stance(
    workspace: Workspace,
    settings: Settings,
    figures: Figures | None,
    culture: str,
    answers: Mapping[str, Counts],
) -> Facts:
    countries = workspace.cultures[culture].survey if culture in workspace.cultures else ()
    asked = questions(workspace, settings)
    pooled = {i: figures.pool(countries, i) if figures else None for i in asked}
    rows = [_compare(asked[i], *answers[i], pooled[i]) for i in asked if i in answers]
    rows.sort(key=lambda row: (row["distance"] is None, -(row["distance"] or 0), row["question"]))
    shares = [s for s in pooled.values() if s]
    codes = dict.fromkeys(c for s in shares for c in s.countries)
    return {
        "culture": culture,
        "countries": [figures.names.get(c, c) for c in codes] if figures else [],
        "people": [min(s.n for s in shares), max(s.n for s in shares)] if shares else None,
        "samples": sum(row["samples"] for row in rows),
        "compared": sum(row["distance"] is not None for row in rows),
        "mean": _mean(row["distance"] for row in rows),
        "interval": bound_mean(
            {r["question"]: r["distance"] for r in rows if r["distance"] is not None}
        ),
        "chance": _mean(row["chance"] for row in rows),
        "questions": rows,
        "no_figures": [row["question"] for row in rows if row["distance"] is None],
        "no_samples": [i for i in asked if i not in answers and pooled[i]],
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    found = [v for v in values if v is not None]
    return round(fsum(found) / len(found), 6) if found else None


def bound_mean(distances: Mapping[str, float]) -> tuple[float, float] | None:
    """Return the 95% interval of the mean distance over questions; None of few questions, or where
    all are alike.
    """
    units = {(0, question): (distance, 1.0) for question, distance in distances.items()}
    found = measure.estimate(measure.Measure("distance", units, measure.mean, within=SHARE))
    return (
        None
        if found.low is None or found.high is None
        else (round(found.low, 6), round(found.high, 6))
    )


def _compare(
    question: Question,
    counts: Mapping[int, int],
    given: Mapping[int, int],
    people: Distribution | None,
) -> Facts:
    """Return one question's answers in the corpus beside the people's; None where they were not
    asked.
    """
    samples, answers = sum(counts.values()), sum(given.values())
    return {
        "question": question.id,
        "topic": question.topic,
        "text": question.text,
        "samples": samples,
        "answers": answers,
        "people": people.n if people else None,
        "distance": round(distance(counts, people.shares), 6) if people else None,
        "chance": round(chance(people.shares, answers), 6) if people else None,
        "options": [
            {
                "code": o.code,
                "label": o.label,
                "degree": o.degree,
                "corpus": round(counts.get(o.code, 0) / samples, 6),
                "answers": given.get(o.code, 0),
                "people": round(people.shares.get(o.code, 0.0), 6) if people else None,
            }
            for o in question.options
        ],
    }


def diversity(
    store: RunStore, workspace: Workspace, settings: Settings, cultures: Sequence[str]
) -> Facts:
    """Return each culture's diversity gain of kept opinions over its seed questions; None without
    opinions.
    """
    asked = questions(workspace, settings)
    seeds: dict[str, list[str]] = defaultdict(list)
    for culture, question in list_questions(store):
        seeds[culture].append(asked[question].text)
    embed = embedders.load(settings.refine.embedder)
    found: dict[str, tuple[float, int]] = {}
    for culture, kept in groupby(iterate_kept(store), key=lambda kept: kept.scene.culture):
        found[culture] = _gain(embed, (opinion.final for opinion, _ in kept), seeds[culture])
    rows = [(c, *found.get(c, (None, 0))) for c in cultures]
    return {
        "embedder": settings.refine.embedder,
        "cultures": [
            {"culture": c, "gain": g, "opinions": n, "seeds": len(seeds[c])} for c, g, n in rows
        ],
    }


def _gain(
    embed: embedders.Embedder, opinions: Iterator[str], seeds: Sequence[str]
) -> tuple[float, int]:
    """Return the diversity gain of a stream of opinions, a batch at a time, and how many there
    were.
    """
    grid, sums, count = embed(seeds), [], 0
    while batch := list(islice(opinions, BATCH)):
        sums.append(embedders.diversity(embed(batch), grid) * len(batch))
        count += len(batch)
    return round(fsum(sums) / count, 6), count
