"""Four objectives on the tiny base: how far is what a model answers from what a people answered, on
questions and countries unseen?

One model of all countries, the country named in the prompt; 15 countries × 50 questions of the
shipped figures. A fifth of the questions and of the countries is held out, other ones for each
seed. Opinions are templated clauses for answers drawn from the country's shares (what the embedded
engine says without a persona). Distances are Jensen–Shannon (0 to 1), means over rows, with 95%
intervals over the held-out questions, or countries.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from culturepark import surveys
from culturepark.corpora import country_rows
from culturepark.evaluation import measure
from culturepark.evaluation.intervals import SHARE
from culturepark.local_models import choices, tiny
from culturepark.records import Question, stream
from culturepark.training import job, recipe, rows
from culturepark.training.matrix import load_adapters, use_adapter
from culturepark.training.rows import Corpus, Row
from culturepark.wording import completion
from culturepark.workspace import find_shipped_cards, load

SEEDS, TALKS = (0, 1, 2), 6  # opinions a country and question
OBJECTIVES: dict[str, dict[str, Any]] = {
    "modal SFT": {"objective": "sft", "answers": "modal", "epochs": 6},
    "opinion SFT": {"objective": "sft", "epochs": 2},
    "shares": {"objective": "shares", "epochs": 6},
    "mix 0.5": {"objective": "mix", "weight": 0.5, "epochs": 2},
}


def world(seed: int) -> tuple[list[Row], list[Row], dict[str, list[Row]]]:
    """Return rows of shares to train on, opinions beside them, and what is held out: questions,
    countries.
    """
    questions = {
        q.id: q for s in load(find_shipped_cards()).scenarios.values() for q in s.questions
    }
    figures = surveys.load_shipped()
    rng = stream("objectives", seed)
    unasked = set(rng.sample(sorted(questions), len(questions) // 5))
    unseen = set(rng.sample(figures.countries(), len(figures.countries()) // 5))
    every = [
        r for country in figures.countries() for r in country_rows(country, questions.values())
    ]
    train = [
        r
        for r in every
        if r["metadata"]["question"] not in unasked and r["metadata"]["culture"] not in unseen
    ]
    held = {
        "questions": [
            r
            for r in every
            if r["metadata"]["question"] in unasked and r["metadata"]["culture"] not in unseen
        ],
        "countries": [
            r
            for r in every
            if r["metadata"]["question"] not in unasked and r["metadata"]["culture"] in unseen
        ],
    }
    return (
        train,
        [t for r in train for t in opinions(r, questions[r["metadata"]["question"]], rng)],
        held,
    )


def opinions(row: Row, question: Question, rng: random.Random) -> list[Row]:
    """Return samples of one people: answers drawn from its shares, each with a templated
    opinion.
    """
    codes = rng.choices(row["codes"], row["shares"], k=TALKS)
    said = [completion(question, code, tiny.opinion(question, code, rng)) for code in codes]
    return [
        {
            "prompt": row["prompt"],
            "completion": [{"role": "assistant", "content": text}],
            "metadata": row["metadata"],
        }
        for text in said
    ]


def corpus(held: Sequence[Row]) -> Corpus:
    """Return rows as a corpus of one pooled model."""
    return Corpus("objectives", str(len(held)), {"train": {rows.POOLED: list(held)}})


def tuned(name: str, train: Sequence[Row], said: Sequence[Row], seed: int, folder: Path) -> Path:
    """Return the model of one objective."""
    how = OBJECTIVES[name]
    told = recipe.build_recipe(
        {"base": "tiny", "pooled": True, "patience": 0, "seed": seed, "device": "cpu", **how}
    )
    first = said if name == "opinion SFT" else train
    beside = corpus(said) if how["objective"] == "mix" else None
    return job.tune(
        corpus(first), told, folder / f"{name.replace(' ', '')}-{seed}", opinions=beside
    )[0]


def distances(model: Any, tokenizer: Any, held: Sequence[Row]) -> list[float]:
    """Return each row's distance between the model and the people."""
    found = choices.compute_distributions(
        model, tokenizer, [r["prompt"] for r in held], [r["options"] for r in held]
    )
    return [choices.compute_divergence(p, r["shares"]) for p, r in zip(found, held, strict=True)]


def yardsticks(train: Sequence[Row], held: Sequence[Row]) -> dict[str, list[float]]:
    """Return what needs no model: every option alike, and the mean of the countries trained on (no
    figure for new questions).
    """
    sums: dict[str, list[list[float]]] = {}
    for row in train:
        sums.setdefault(row["metadata"]["question"], []).append(row["shares"])
    mean = {q: [statistics.mean(c) for c in zip(*found, strict=True)] for q, found in sums.items()}
    made = {
        "every option alike": [
            choices.compute_divergence([1 / len(r["shares"])] * len(r["shares"]), r["shares"])
            for r in held
        ]
    }
    if all(r["metadata"]["question"] in mean for r in held):
        made["mean of the others"] = [
            choices.compute_divergence(mean[r["metadata"]["question"]], r["shares"]) for r in held
        ]
    return made


def main() -> None:
    """Print a row an objective: distance on held-out questions and countries, all seeds
    together.
    """
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            train, said, held = world(seed)
            made = {name: tuned(name, train, said, seed, Path(folder)) for name in OBJECTIVES}
            for kind, part in held.items():
                by = "question" if kind == "questions" else "culture"
                clusters = [f"{seed}:{r['metadata'][by]}" for r in part]
                scores = yardsticks(train, part)
                for name, model in made.items():
                    with load_adapters([model]) as (tuned_, tokenizer, _):
                        scores[name] = distances(tuned_, tokenizer, part)
                        if name == "shares":
                            with use_adapter(tuned_, "base"):
                                scores["tiny base"] = distances(tuned_, tokenizer, part)
                for name, values in scores.items():
                    found.setdefault((name, kind), []).extend(zip(clusters, values, strict=True))
    print(f"{'':22}{'held-out questions':>28}{'held-out countries':>28}   ({len(SEEDS)} seeds)")
    for name in ("every option alike", "mean of the others", "tiny base", *OBJECTIVES):
        print(
            f"{name:22}"
            + "".join(cell(found.get((name, kind))) for kind in ("questions", "countries"))
        )


def cell(values: list[tuple[str, float]] | None) -> str:
    """Return a mean with its interval."""
    if not values:
        return f"{'–':>28}"
    units: dict[tuple[int, str], tuple[float, float]] = {}
    for cluster, value in values:
        total, count = units.get((0, cluster), (0.0, 0.0))
        units[0, cluster] = total + value, count + 1
    found = measure.estimate(measure.Measure("distance", units, measure.mean, within=SHARE))
    shown = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{f'{found.value:.3f}{shown}':>28}"
