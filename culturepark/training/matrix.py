"""Holds every tuned model against every culture's held-out rows: does each know its own people
better than the others do?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from culturepark.errors import InputError
from culturepark.local_models import base, choices, libraries, manifest
from culturepark.local_models.machine import Machine, find_machine
from culturepark.records import Record
from culturepark.training.rows import Row

BASE = "base"


class Matrix(Record):
    """Rows are whose held-out rows, columns are models (the base among them).

    `likelihood` holds the mean log-probability a token (nats) of the held-out answers, `accuracy`
    the share of them whose option the model finds likeliest, `n` how many rows a culture has.
    `recognised` is the share of a culture's rows whose likeliest speaker, among the tuned models,
    is its own; None where it has none.
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
        """Return by how much a culture's own model is ahead of the mean of the others, on average;
        None without rivals.
        """
        apart = [mine - sum(others) / len(others) for mine, others in self._rivals(table)]
        return sum(apart) / len(apart) if apart else None

    def _rivals(self, table: str) -> list[tuple[float, list[float]]]:
        """Return (own figure, the other tuned models' figures) of each culture that has a model of
        its own and rivals.
        """
        rows: tuple[tuple[float, ...], ...] = getattr(self, table)
        found = [
            (name, dict(zip(self.models, row, strict=True)))
            for name, row in zip(self.cultures, rows, strict=True)
        ]
        pairs = [
            (row[name], [v for m, v in row.items() if m not in (name, BASE)])
            for name, row in found
            if name in row
        ]
        return [(mine, others) for mine, others in pairs if others]

    def told(self) -> str:
        """Return it as text for people: likelihoods with each culture's own model starred, and a
        line for every other figure.
        """
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
        units = "nats a token, nearer to 0 is likelier; * a culture's own model"
        return "\n".join([*table, units, "", *self._summed()])

    def _summed(self) -> list[str]:
        """Return the lines below the table. A pooled model is no culture's own, and one model has
        none to be held against.
        """
        tuned = [m for m in self.models if m != BASE]
        own = [i for i, c in enumerate(self.cultures) if c in tuned and len(tuned) > 1]
        right = [dict(zip(self.models, row, strict=True)) for row in self.accuracy]
        if not own:
            means = [f"{m} {_mean([row[m] for row in right]):.0%}" for m in self.models]
            return [
                f"accuracy    {', '.join(means)}",
                "own         no culture has a model of its own beside another one",
            ]
        mine = _mean([right[i][self.cultures[i]] for i in own])
        others = _mean([right[i][m] for i in own for m in tuned if m != self.cultures[i]])
        known = [share for share in self.recognised if share is not None]
        return [
            (
                f"accuracy    own model {mine:.0%}, other tuned ones {others:.0%}, base"
                f" {_mean([right[i][BASE] for i in own]):.0%}"
            ),
            f"recognised  {_mean(known):.0%} of rows, by chance {1 / len(tuned):.0%}",
            (
                f"own         ahead of all other tuned ones for {self.own()} of {len(own)} cultures"
                f" by likelihood, {self.own('accuracy')} by accuracy"
            ),
        ]


@contextmanager
def loaded(
    folders: Sequence[Path], found: Machine | None = None
) -> Iterator[tuple[Any, Any, tuple[str, ...]]]:
    """Load one base with all adapters and yield (model, tokenizer, names); InputError where they
    have different bases.
    """
    from peft import PeftModel

    made = [manifest.read(f) for f in folders]
    bases = {m.base for m in made}
    if len(bases) != 1 or any(m.kind != "adapter" for m in made):
        raise InputError(
            f"adapters of one base can be compared at once; these are of {', '.join(sorted(bases))}"
            f" ({', '.join(sorted({m.kind for m in made}))})"
        )
    name = made[0].base
    with libraries.quiet():
        model: Any = base.load_model(name, found or find_machine())
        for i, (folder, what) in enumerate(zip(folders, made, strict=True)):
            with libraries.explain_damage(f"cannot load the adapter at {folder}"):
                if i == 0:
                    model = PeftModel.from_pretrained(model, folder, adapter_name=what.name)
                else:
                    model.load_adapter(folder, adapter_name=what.name)
        model.eval()
        yield model, base.load_tokenizer(name), tuple(m.name for m in made)


def compare(
    folders: Sequence[Path], held: Mapping[str, Sequence[Row]], options: Mapping[str, Sequence[str]]
) -> Matrix:
    """Return the matrix of tuned models over each culture's held-out prompt-completion rows.

    `options` maps a question (metadata.question) to the options of its answers, as a completion
    begins.
    """
    cultures = tuple(sorted(c for c in held if held[c]))
    flat = [(c, row) for c in cultures for row in held[c]]
    prompts, answers = (
        [r["prompt"] for _, r in flat],
        [r["completion"][0]["content"] for _, r in flat],
    )
    with loaded(folders) as (model, tokenizer, names):
        said: dict[str, list[float]] = {}
        right: dict[str, list[float]] = {}
        for name in (*names, BASE):
            with use(model, name):
                said[name] = choices.compute_likelihoods(model, tokenizer, prompts, answers)
                right[name] = _right(model, tokenizer, [r for _, r in flat], options)
    places = {c: [i for i, (culture, _) in enumerate(flat) if culture == c] for c in cultures}
    best = [max(names, key=lambda m: said[m][i]) for i in range(len(flat))]
    return Matrix(
        cultures=cultures,
        models=(*names, BASE),
        n=tuple(len(places[c]) for c in cultures),
        likelihood=tuple(
            tuple(_mean([said[m][i] for i in places[c]]) for m in (*names, BASE)) for c in cultures
        ),
        accuracy=tuple(
            tuple(_mean([right[m][i] for i in places[c]]) for m in (*names, BASE)) for c in cultures
        ),
        recognised=tuple(
            _mean([float(best[i] == c) for i in places[c]]) if c in names else None
            for c in cultures
        ),
    )


@contextmanager
def use(model: Any, name: str) -> Iterator[None]:
    """Let one adapter answer, or the base alone."""
    if name == BASE:
        with model.disable_adapter():
            yield
    else:
        model.set_adapter(name)
        yield


def _right(
    model: Any, tokenizer: Any, rows: Sequence[Row], options: Mapping[str, Sequence[str]]
) -> list[float]:
    """Return 1.0 for each row whose own option the model finds likeliest; each different prompt is
    asked once.
    """
    asked = {(str(r["prompt"]), r["metadata"]["question"]): r for r in rows}
    keys = list(asked)
    found = choices.compute_distributions(
        model, tokenizer, [asked[k]["prompt"] for k in keys], [options[k[1]] for k in keys]
    )
    likeliest = {
        k: options[k[1]][max(range(len(p)), key=p.__getitem__)]
        for k, p in zip(keys, found, strict=True)
    }
    return [
        float(
            r["completion"][0]["content"].startswith(
                f"{likeliest[str(r['prompt']), r['metadata']['question']]}."
            )
        )
        for r in rows
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
