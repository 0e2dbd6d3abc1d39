"""The loop closes: embedded park, corpus, tiny base, eight adapters; does each know its own people
best, on text none was tuned on?

The corpus has the paper's setting (every dialogue seeded with the majority's answer). *Wordings*
are opinions held out of questions that were tuned on, *questions* are those of the test split.
Likelihood is the mean log-probability a token of the held-out answers, accuracy the share of them
whose option a model finds likeliest.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import culturepark as cp
from culturepark.local_models import base
from culturepark.records import digest
from culturepark.training import job, matrix, recipe, rows
from culturepark.training.matrix import Matrix
from culturepark.training.rows import Corpus, Row

SAMPLES, EPOCHS, ROWS, SEEDS, HELD = (
    600,
    6,
    8,
    (0, 1, 2),
    8,
)  # one opinion in so many is held out of the questions tuned on
SIZES = (0.1, 0.3, 1.0)
MOST = 60  # held-out rows a culture and kind


def held_out(row: Row) -> bool:
    """Say whether a sample's opinion is kept for the test, by its own words, so that no twin of it
    is trained on.
    """
    return int(digest(row["completion"][0]["content"].partition(". ")[2]), 16) % HELD == 0


def tuned(corpus: Corpus, seed: int, folder: Path) -> list[Path]:
    """Return eight adapters."""
    told = recipe.build_recipe(
        {
            "objective": "sft",
            "base": "tiny",
            "epochs": EPOCHS,
            "rows": ROWS,
            "seed": seed,
            "patience": 0,
            "device": "cpu",
        }
    )
    return job.tune(corpus, told, folder / f"seed{seed}-{len(corpus.rows['train']['arabic'])}")


def less(corpus: Corpus, share: float) -> Corpus:
    """Return a corpus with the first `share` of each culture's training rows."""
    part = {c: r[: round(share * len(r))] for c, r in corpus.rows["train"].items()}
    return Corpus(corpus.title, corpus.hash, {**corpus.rows, "train": part})


def table(found: Sequence[Matrix]) -> None:
    """Print the likelihoods, a row a culture, a column a model, the mean over seeds; a culture's
    own model is starred.
    """
    names = found[0].models
    print(f"{'':12}" + "".join(f"{n[:7]:>8}" for n in names))
    for i, culture in enumerate(found[0].cultures):
        cells = [statistics.mean(m.likelihood[i][k] for m in found) for k in range(len(names))]
        print(
            f"{culture:12}"
            + "".join(f"{v:7.2f}{'*' if names[k] == culture else ' '}" for k, v in enumerate(cells))
        )


def main() -> None:
    """Print both matrices, how often a culture's own model is first, and what less data does."""
    began = time.perf_counter()
    base.find_base("tiny")
    built = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        run = cp.run("loop", stance="modal", samples=SAMPLES, out=folder, formats=("trl", "shares"))
        corpus, shares = (
            rows.read_corpus(run.corpus / "trl", "trl"),
            rows.read_corpus(run.corpus / "shares", "shares"),
        )
        options = {
            r["metadata"]["question"]: r["options"]
            for s in shares.rows.values()
            for part in s.values()
            for r in part
        }
        wordings = {
            c: [r for r in part if held_out(r)][:MOST] for c, part in corpus.rows["train"].items()
        }
        kept = {c: [r for r in part if not held_out(r)] for c, part in corpus.rows["train"].items()}
        corpus = Corpus(corpus.title, corpus.hash, {**corpus.rows, "train": kept})
        print(
            f"{SAMPLES} samples a culture, {statistics.mean(map(len, kept.values())):.0f} of them"
            f" tuned on; tiny base {'built in' if built > 5 else 'was built; read in'} {built:.0f}"
            f" s; park and corpus {time.perf_counter() - began - built:.0f} s"
        )
        questions = {c: list(part)[:MOST] for c, part in corpus.rows["test"].items()}
        made = {seed: tuned(corpus, seed, folder) for seed in SEEDS}
        for kind, held in (("wordings", wordings), ("questions", questions)):
            told(kind, [matrix.compare_models(made[seed], held, options) for seed in SEEDS])
        whole = time.perf_counter() - began
        print(
            "\nwhat data buys (seed 0): likelihood margin and cultures whose own model is first, on"
            " held-out questions"
        )
        for share in SIZES:
            models = made[0] if share == 1 else tuned(less(corpus, share), 0, folder)
            found = matrix.compare_models(models, questions, options)
            print(
                f"  {share * statistics.mean(map(len, kept.values())):5.0f} rows a culture:"
                f" {found.margin():+.3f} nats a token, {found.own()} of 8"
            )
    print(
        f"\nthe loop with {len(SEEDS)} seeds: {whole / 60:.1f} minutes, of them one seed's eight"
        f" adapters about {(whole - built) / 60 / len(SEEDS):.1f} (aim: the whole loop under 10)"
    )


def told(kind: str, found: Sequence[Matrix]) -> None:
    """Print one kind of held-out text."""
    print(
        f"\nheld-out {kind}: {sum(found[0].n)} rows; log-likelihood, nats a token, mean of"
        f" {len(found)} seeds (rows: whose text; columns: whose model)"
    )
    table(found)
    for what in ("likelihood", "accuracy"):
        print(
            f"  {what}: own model first for {', '.join(str(m.own(what)) for m in found)} of 8 (by"
            " seed); ahead of the others' mean by"
            f" {', '.join(f'{m.margin(what):+.3f}' for m in found)}"
        )
    print(
        f"  own accuracy {', '.join(f'{own(m):.2f}' for m in found)}, the others'"
        f" {', '.join(f'{others(m):.2f}' for m in found)}; rows whose likeliest speaker is their"
        " own culture's model"
        f" {', '.join(f'{statistics.mean(r or 0.0 for r in m.recognised):.2f}' for m in found)}"
        " (chance 0.12)"
    )


def own(found: Matrix) -> float:
    """Return the mean accuracy of cultures' own models."""
    return statistics.mean(
        row[found.models.index(c)] for row, c in zip(found.accuracy, found.cultures, strict=True)
    )


def others(found: Matrix) -> float:
    """Return the mean accuracy of the other cultures' models."""
    return own(found) - (found.margin("accuracy") or 0.0)
