"""Scores every tuned model on every culture's held-out rows: does each know its own people best?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from culturepark.errors import InputError
from culturepark.local_models import base, choices, libraries, manifest
from culturepark.local_models.machine import Machine, find_machine
from culturepark.records import Record
from culturepark.training.rows import Row

BASE = "base"


class Matrix(Record):
    """One row per culture, one column per model (the base among them).

    `likelihood` holds the mean log-probability per token (nats) of the held-out answers, `accuracy`
    the share of them whose option the model finds likeliest, `n` how many rows a culture has.
    `recognised` is the share of a culture's rows that its own model, among the tuned ones, finds
    likeliest; None if it has no model.
    """

    cultures: tuple[str, ...]
    models: tuple[str, ...]
    likelihood: tuple[tuple[float, ...], ...]
    accuracy: tuple[tuple[float, ...], ...]
    recognised: tuple[float | None, ...]
    n: tuple[int, ...]
    corpus: str = ""
    split: str = ""

    def own(self, table: str = "likelihood") -> int:
        """Return for how many cultures their own model beats every other tuned one."""
        return sum(all(mine > other for other in others) for mine, others in self._rivals(table))

    def margin(self, table: str = "likelihood") -> float | None:
        """Return the mean lead of a culture's own model on the mean of the others; None without
        others.
        """
        apart = [mine - sum(others) / len(others) for mine, others in self._rivals(table)]
        return sum(apart) / len(apart) if apart else None

    def _rivals(self, table: str) -> list[tuple[float, list[float]]]:
        """Return (own figure, the other tuned models' figures) per culture with a model of its own
        and others.
        """
        rows: tuple[tuple[float, ...], ...] = getattr(self, table)
        by_culture = [
            (name, dict(zip(self.models, row, strict=True)))
            for name, row in zip(self.cultures, rows, strict=True)
        ]
        pairs = [
            (row[name], [v for m, v in row.items() if m not in (name, BASE)])
            for name, row in by_culture
            if name in row
        ]
        return [(mine, others) for mine, others in pairs if others]

    def format_table(self) -> str:
        """Return the likelihoods as a table, own models starred, and a line per other figure."""
        head = ("likelihood", *(f"{m} " for m in self.models), "rows")
        lines = [
            (
                c,
                *(
                    f"{v:.3f}{'*' if m == c else ' '}"
                    for m, v in zip(self.models, row, strict=True)
                ),
                str(n),
            )
            for c, row, n in zip(self.cultures, self.likelihood, self.n, strict=True)
        ]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        table = [
            f"{first:<{widths[0]}}"
            + "".join(f"  {c:>{w}}" for c, w in zip(rest, widths[1:], strict=True))
            for first, *rest in (head, *lines)
        ]
        units = "nats per token, nearer to 0 is likelier; * a culture's own model"
        return "\n".join([*table, units, "", *self._format_summary()])

    def _format_summary(self) -> list[str]:
        """Return the lines below the table; a pooled or a single model has no other to be compared
        with.
        """
        tuned = [m for m in self.models if m != BASE]
        own = [i for i, c in enumerate(self.cultures) if c in tuned and len(tuned) > 1]
        right = [dict(zip(self.models, row, strict=True)) for row in self.accuracy]
        if not own:
            means = [f"{m} {fmean([row[m] for row in right]):.0%}" for m in self.models]
            return [
                f"accuracy    {', '.join(means)}",
                "own         no culture has a model of its own beside another one",
            ]
        mine = fmean([right[i][self.cultures[i]] for i in own])
        others = fmean([right[i][m] for i in own for m in tuned if m != self.cultures[i]])
        known = [share for share in self.recognised if share is not None]
        return [
            (
                f"accuracy    own model {mine:.0%}, other tuned ones {others:.0%}, base"
                f" {fmean([right[i][BASE] for i in own]):.0%}"
            ),
            f"recognised  {fmean(known):.0%} of rows, by chance {1 / len(tuned):.0%}",
            (
                f"own         ahead of all other tuned ones for {self.own()} of {len(own)} cultures"
                f" by likelihood, {self.own('accuracy')} by accuracy"
            ),
        ]


@contextmanager
def load_adapters(
    folders: Sequence[Path], device: Machine | None = None
) -> Iterator[tuple[Any, Any, tuple[str, ...]]]:
    """Load one base with all adapters and yield (model, tokenizer, names).

    Raises InputError if the adapters have different bases.
    """
    from peft import PeftModel

    manifests = [manifest.read(f) for f in folders]
    bases = {m.base for m in manifests}
    if len(bases) != 1 or any(m.kind != "adapter" for m in manifests):
        raise InputError(
            f"adapters of one base can be compared at once; these are of {', '.join(sorted(bases))}"
            f" ({', '.join(sorted({m.kind for m in manifests}))})"
        )
    name = manifests[0].base
    with libraries.quiet():
        model: Any = base.load_model(name, device or find_machine())
        for i, (folder, what) in enumerate(zip(folders, manifests, strict=True)):
            with libraries.explain_damage(f"cannot load the adapter at {folder}"):
                if i == 0:
                    model = PeftModel.from_pretrained(model, folder, adapter_name=what.name)
                else:
                    model.load_adapter(folder, adapter_name=what.name)
        model.eval()
        yield model, base.load_tokenizer(name), tuple(m.name for m in manifests)


def compare_models(
    folders: Sequence[Path], rows: Mapping[str, Sequence[Row]], options: Mapping[str, Sequence[str]]
) -> Matrix:
    """Return the matrix of tuned models over each culture's held-out prompt-completion rows.

    `options` maps a question (metadata.question) to the options of its answers, as a completion
    begins.
    """
    cultures = tuple(sorted(c for c in rows if rows[c]))
    flat = [(c, row) for c in cultures for row in rows[c]]
    prompts, answers = (
        [r["prompt"] for _, r in flat],
        [r["completion"][0]["content"] for _, r in flat],
    )
    with load_adapters(folders) as (model, tokenizer, names):
        likelihoods: dict[str, list[float]] = {}
        right: dict[str, list[float]] = {}
        for name in (*names, BASE):
            with use_adapter(model, name):
                likelihoods[name] = choices.compute_likelihoods(model, tokenizer, prompts, answers)
                right[name] = _score_options(model, tokenizer, [r for _, r in flat], options)
    places = {c: [i for i, (culture, _) in enumerate(flat) if culture == c] for c in cultures}
    best = [max(names, key=lambda m: likelihoods[m][i]) for i in range(len(flat))]
    return Matrix(
        cultures=cultures,
        models=(*names, BASE),
        n=tuple(len(places[c]) for c in cultures),
        likelihood=tuple(
            tuple(fmean([likelihoods[m][i] for i in places[c]]) for m in (*names, BASE))
            for c in cultures
        ),
        accuracy=tuple(
            tuple(fmean([right[m][i] for i in places[c]]) for m in (*names, BASE)) for c in cultures
        ),
        recognised=tuple(
            fmean([float(best[i] == c) for i in places[c]]) if c in names else None
            for c in cultures
        ),
    )


@contextmanager
def use_adapter(model: Any, name: str) -> Iterator[None]:
    """Use one adapter, or the base alone, within the context."""
    if name == BASE:
        with model.disable_adapter():
            yield
    else:
        model.set_adapter(name)
        yield


def _score_options(
    model: Any, tokenizer: Any, rows: Sequence[Row], options: Mapping[str, Sequence[str]]
) -> list[float]:
    """Return 1.0 for each row whose option the model finds likeliest, else 0.0; equal prompts are
    scored once.
    """
    questions = {(str(r["prompt"]), r["metadata"]["question"]): r for r in rows}
    keys = list(questions)
    distributions = choices.compute_distributions(
        model, tokenizer, [questions[k]["prompt"] for k in keys], [options[k[1]] for k in keys]
    )
    likeliest = {
        k: options[k[1]][max(range(len(p)), key=p.__getitem__)]
        for k, p in zip(keys, distributions, strict=True)
    }
    return [
        float(
            r["completion"][0]["content"].startswith(
                f"{likeliest[str(r['prompt']), r['metadata']['question']]}."
            )
        )
        for r in rows
    ]
