"""Holds models against one another: from results and attempts to tables, paired tests, and winners
where there are any.

A winner beats every other model of its row that was asked alike: p < 0.05 after Holm's correction
over all comparisons made, and an interval of the difference that excludes 0. Who was asked
otherwise is not compared, and where nobody wins nobody is said to.

A model of several trainings stands for the recipe that made them, and is compared over trainings.
What one training shows, or a model as it is, holds for these weights alone, and is said of nothing
else: trained anew, the same recipe may lose.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, log2
from typing import Any, Literal

from culturepark.errors import InputError, nearest
from culturepark.evaluation import result as results
from culturepark.evaluation.kind import load_kind
from culturepark.evaluation.measure import (
    DRAWS,
    Difference,
    Figure,
    Measure,
    compare,
    estimate,
    holm,
)
from culturepark.evaluation.result import Result
from culturepark.evaluation.types import STRIDE, Attempt
from culturepark.records import Record

ALPHA = 0.05
# p-values of at most this are reckoned again from more swaps: DRAWS cannot pass a long correction
CLOSE = 10 / DRAWS
FINE = 2 / ALPHA  # so many swaps per comparison: the least p-value is then half of what passes
BLOCK = 400_000  # swaps times units that are held at once
# may differ: what both were asked is compared
LOOSE = ("seeds", "count", "version", "cultures", "held")
# trainings: below, most differences between recipes go unseen (`python -m benchmarks coverage`)
ENOUGH = 5
SILENT = 0.1  # a share of items without an answer that is told as a warning
Key = tuple[str, str, str]


class ComparedModel(Record):
    """A model on a comparison, and how it was asked. `asked` counts items by culture and status;
    `samples` is the page of them.

    `trainings`: how many sets of weights it is the mean of; with one, what is found of it is found
    of these weights alone.
    """

    label: str
    run: str
    model: str
    models: tuple[str, ...]
    setup: dict[str, Any]
    options: dict[str, Any]
    counts: dict[str, int]
    asked: dict[str, dict[str, int]]
    trainings: int = 1
    date: str = ""
    version: str = ""
    hash: str = ""
    samples: str = ""

    @property
    def items(self) -> int:
        """How many items it was asked."""
        return sum(self.counts.values())

    def share(self, *statuses: str) -> float:
        """Return the share of its items with one of these statuses; 0 where it was asked
        nothing.
        """
        return sum(self.counts.get(s, 0) for s in statuses) / self.items if self.items else 0.0


class FigureCell(Record):
    """A model's figure, and where what it was made of can be read."""

    model: str
    figure: Figure
    samples: str = ""


class ModelPair(Record):
    """A comparison: `difference` is first − second, `corrected` its p-value after Holm, None where
    there is none.

    `better` is the model that the comparison finds better, "" where it finds none. `weights` are
    those of the two of which it holds for one set of weights alone; the other, if any, was trained
    several times, and is compared over its trainings.
    """

    first: str
    second: str
    difference: Difference
    corrected: float | None = None
    better: str = ""
    weights: tuple[str, ...] = ()


class FigureRow(Record):
    """One figure of one culture, for all models. `winner` beats every other that was asked alike;
    without one, `tied` are the best and its equals.

    `winning` says what wins: the recipe of several trainings, or these weights alone.
    """

    name: str
    culture: str = ""
    subset: str = ""
    better: Literal["high", "low", ""] = "high"
    what: str = "units"
    note: str = ""
    cells: tuple[FigureCell, ...]
    pairs: tuple[ModelPair, ...] = ()
    winner: str | None = None
    winning: Literal["recipe", "weights", ""] = ""
    tied: tuple[str, ...] = ()

    def cell(self, model: str) -> FigureCell | None:
        """Return a model's cell; None where it has none."""
        return next((c for c in self.cells if c.model == model), None)


class BenchmarkTable(Record):
    """A benchmark: its models, the headline figures that are compared, the others, and what is to
    be known of them.
    """

    benchmark: str
    title: str
    about: str
    source: str
    models: tuple[ComparedModel, ...]
    rows: tuple[FigureRow, ...]
    others: tuple[FigureRow, ...] = ()
    warnings: tuple[str, ...] = ()


class Comparison(Record):
    """All tables. `comparisons` is how many p-values were corrected together, `against` the one
    model all were compared with.

    P-values of two sets of weights come from `draws` swaps of units, small ones from `swaps`.
    """

    tables: tuple[BenchmarkTable, ...]
    against: str = ""
    comparisons: int = 0
    alpha: float = ALPHA
    draws: int = DRAWS
    swaps: int = DRAWS
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredResult:
    """A result with the measures of its attempts, which are many and are let go."""

    run: str
    result: Result
    measures: Mapping[Key, Measure]
    asked: Mapping[str, Mapping[str, int]]
    trainings: int = 1
    silent: frozenset[str] = (
        frozenset()
    )  # items that it gave no answer to in some seed, where these are left out
    again: Callable[[], Sequence[Attempt]] | None = None


class PairedMeasures:
    """Two models' measures of what both answered: an item that one gave no answer to is left out of
    both, in all its seeds.

    Otherwise a model would win by leaving out what is hard.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[int, frozenset[str]], Mapping[Key, Measure]] = {}

    def measure_both(
        self, a: MeasuredResult, b: MeasuredResult, key: Key
    ) -> tuple[Measure, Measure] | None:
        """Return both models' measures; None where one has none left, or where they are sums of
        different lengths.
        """
        first, second = (
            self._measure_without(a, b.silent - a.silent).get(key),
            self._measure_without(b, a.silent - b.silent).get(key),
        )
        if first is None or second is None or _count_sums(first) != _count_sums(second):
            return None
        return first, second

    def _measure_without(self, h: MeasuredResult, lost: frozenset[str]) -> Mapping[Key, Measure]:
        if not lost or h.again is None:
            return h.measures
        if (id(h), lost) not in self._made:
            kept = [o for o in h.again() if _strip_seed(o) not in lost]
            self._made[id(h), lost] = {m.key: m for m in results.measure(h.result, kept)}
        return self._made[id(h), lost]


def _strip_seed(one: Attempt) -> str:
    """Return an attempt's item, its seed aside."""
    return one.item.removesuffix(f"/{one.seed % STRIDE}")


def measure_result(
    run: str,
    result: Result,
    attempts: Sequence[Attempt],
    again: Callable[[], Sequence[Attempt]] | None = None,
) -> MeasuredResult:
    """Return what a comparison needs of a result; InputError where its attempts are not those that
    it counted.

    `again` reads the attempts once more, where two models did not answer the same.
    """
    there = Counter(o.status for o in attempts)
    if there != Counter({s: n for s, n in result.counts.items() if n}):
        raise InputError(
            f"the result of {result.model!r} on {result.benchmark} in {run} counts {result.counts},"
            f" but its outcomes are {dict(there)}: one of its files is damaged; evaluate it again"
        )
    parts: dict[str, list[Attempt]] = {}
    for one in attempts:
        parts.setdefault(one.culture, []).append(one)
    asked = {culture: results.count_statuses(part) for culture, part in sorted(parts.items())}
    graded = load_kind(result.kind).graded
    silent = frozenset(_strip_seed(o) for o in attempts if o.status != "ok" and not graded)
    trainings = len({o.seed // STRIDE for o in attempts})
    return MeasuredResult(
        run,
        result,
        {m.key: m for m in results.measure(result, attempts)},
        asked,
        trainings,
        silent,
        again,
    )


def build_comparison(given: Iterable[MeasuredResult], against: str | None = None) -> Comparison:
    """Return the comparison of these results; `against` compares every model with one alone, so
    that fewer p-values are corrected.

    A result that is given twice (one hash) is shown once. InputError names the nearest label where
    `against` is none.
    """
    kept, notes = _drop_duplicates(list(given))
    benchmarks = dict.fromkeys(h.result.benchmark for h in kept)
    named = _label_models(kept)
    labels = dict.fromkeys(label for _, label in named)
    if against is not None and against not in labels:
        raise InputError(f"no model {against!r} to compare with. {nearest(against, labels)}")
    sides = PairedMeasures()
    tables = [
        _build_table({label: h for h, label in named if h.result.benchmark == b}, against, sides)
        for b in benchmarks
    ]
    models = {(h.result.benchmark, label): h for h, label in named}
    return _decide_winners(
        Comparison(tables=tuple(tables), against=against or "", notes=tuple(notes)), models, sides
    )


# ------------------------------------------------------------------- naming


def _drop_duplicates(given: list[MeasuredResult]) -> tuple[list[MeasuredResult], list[str]]:
    """Return every result once, and what is to be said of those that came twice."""
    kept: dict[Any, MeasuredResult] = {}
    notes = []
    for one in given:
        first = kept.setdefault(one.result.hash or id(one), one)
        if first is not one:
            notes.append(
                f"The result of {one.result.model} on {one.result.benchmark} in {one.run} is that"
                f" of {first.result.model} in {first.run}: it is shown once."
            )
    return list(kept.values()), notes


def _label_models(kept: Sequence[MeasuredResult]) -> list[tuple[MeasuredResult, str]]:
    """Return every result with its model's label: `run:model` for a model that several runs asked
    the same benchmark.
    """
    runs: dict[tuple[str, str], set[str]] = {}
    for h in kept:
        runs.setdefault((h.result.benchmark, h.result.model), set()).add(h.run)
    several = {model for (_, model), found in runs.items() if len(found) > 1}
    named = [
        (h, f"{h.run}:{h.result.model}" if h.result.model in several else h.result.model)
        for h in kept
    ]
    for (benchmark, label), n in Counter((h.result.benchmark, label) for h, label in named).items():
        if n > 1:
            raise InputError(
                f"{n} different results of {label!r} on {benchmark}: a label must be one model's in"
                " a run"
            )
    return named


# ------------------------------------------------------------------- tables


def _build_table(
    models: Mapping[str, MeasuredResult], against: str | None, sides: PairedMeasures
) -> BenchmarkTable:
    """Return a benchmark's table, with pairs to compare and nothing decided."""
    one = next(iter(models.values())).result
    keys = dict.fromkeys(key for h in models.values() for key in h.measures)
    heads = {key for h in models.values() for key, m in h.measures.items() if m.headline}
    rows = [_build_row(key, models, against, sides, tested=key in heads) for key in keys]
    return BenchmarkTable(
        benchmark=one.benchmark,
        title=one.title,
        about=one.about,
        source=one.source,
        models=tuple(_build_model(label, h) for label, h in models.items()),
        rows=tuple(_order_rows(r for r in rows if (r.name, r.culture, r.subset) in heads)),
        others=tuple(_order_rows(r for r in rows if (r.name, r.culture, r.subset) not in heads)),
        warnings=(
            *_note_differences(models),
            *_note_silent_models(models),
            *_note_uncompared(rows),
            *_collect_warnings(rows, models),
            *_note_single_trainings(models),
        ),
    )


def _build_model(label: str, h: MeasuredResult) -> ComparedModel:
    r = h.result
    return ComparedModel(
        label=label,
        run=h.run,
        model=r.model,
        models=r.models,
        setup=r.setup,
        options=r.options,
        counts=r.counts,
        asked={c: dict(n) for c, n in h.asked.items()},
        trainings=h.trainings,
        date=r.date,
        version=r.version,
        hash=r.hash,
    )


def _build_row(
    key: Key,
    models: Mapping[str, MeasuredResult],
    against: str | None,
    sides: PairedMeasures,
    *,
    tested: bool,
) -> FigureRow:
    there = {label: h for label, h in models.items() if key in h.measures}
    told = next(iter(there.values())).measures[key]
    figures = {
        label: h.result.figure(*key) or estimate(h.measures[key]) for label, h in there.items()
    }
    return FigureRow(
        name=key[0],
        culture=key[1],
        subset=key[2],
        better=told.better,
        what=told.what,
        note=" / ".join(dict.fromkeys(f.note for f in figures.values() if f.note)),
        cells=tuple(FigureCell(model=label, figure=figure) for label, figure in figures.items()),
        pairs=tuple(_compare_pairs(there, key, against, sides)) if tested else (),
    )


def _order_rows(rows: Iterable[FigureRow]) -> list[FigureRow]:
    """Return the rows figure by figure, that of all cultures first; else in the order they came."""
    found = list(rows)
    places = {name: i for i, name in enumerate(dict.fromkeys((r.name, r.subset) for r in found))}
    return sorted(found, key=lambda r: (places[r.name, r.subset], r.culture != ""))


def _compare_pairs(
    models: Mapping[str, MeasuredResult], key: Key, against: str | None, sides: PairedMeasures
) -> Iterator[ModelPair]:
    """Compare the models that were asked alike, with one another or each with `against`, on what
    both answered.
    """
    for a, b in combinations(models, 2):
        tested = models[a].measures[key].tested and models[b].measures[key].tested
        if (
            tested
            and against in (None, a, b)
            and _select_strict(models[a], key) == _select_strict(models[b], key)
        ):
            first, second = (b, a) if a == against else (a, b)
            found = sides.measure_both(models[first], models[second], key)
            weights = tuple(m for m in (first, second) if models[m].trainings == 1)
            difference = compare(*found) if found else Difference(value=None)
            yield ModelPair(first=first, second=second, difference=difference, weights=weights)


def _count_sums(measure: Measure) -> int:
    """Return how many sums a unit has; where two models' differ (one answered nothing of a class,
    say) nothing can be swapped.
    """
    return len(next(iter(measure.units.values()), ()))


# ---------------------------------------------------------- asked otherwise


def _describe_setup(h: MeasuredResult) -> dict[str, str]:
    """Return how a model was asked, each setting as text."""
    r = h.result
    options = {f"option {name}": value for name, value in r.options.items()}
    setup = {**r.setup, "cultures": sorted(r.setup.get("cultures") or ())}
    told = {**setup, **options, "kind": r.kind, "version": r.version}
    return {
        k: (
            v
            if isinstance(v, str)
            else json.dumps(v, sort_keys=True, ensure_ascii=False, default=str)
        )
        for k, v in told.items()
    }


def _select_strict(h: MeasuredResult, key: Key) -> dict[str, str]:
    """Return what must be alike for a comparison: all but LOOSE, what the figure says, and the
    cultures of one of all cultures.
    """
    alike = (*h.measures[key].alike, *([] if key[1] else ["cultures"]))
    return {k: v for k, v in _describe_setup(h).items() if k not in LOOSE or k in alike}


def _collect_warnings(
    rows: Iterable[FigureRow], models: Mapping[str, MeasuredResult]
) -> Iterator[str]:
    """Yield why rows are no model's, and figures not to be relied on: each reason once, with what
    it is said of.
    """
    yield from (f"{label}: {h.result.warning}" for label, h in models.items() if h.result.warning)
    said: dict[str, dict[str, None]] = {}
    for row in rows:
        for cell in row.cells:
            if cell.figure.warning:
                said.setdefault(cell.figure.warning, {})[f"{row.name} of {cell.model}"] = None
    yield from (f"{', '.join(whose)}: {warning}" for warning, whose in said.items())


def _note_single_trainings(models: Mapping[str, MeasuredResult]) -> Iterator[str]:
    """Yield which models stand for one set of weights, so that nothing is said of what made
    them.
    """
    once = [label for label, h in models.items() if h.trainings == 1]
    if once:
        yield (
            f"One training, or a model as it is: {', '.join(once)}. What is found of one holds for"
            " these weights alone; a recipe is compared over several trainings (--model"
            " LABEL=A,B,C)."
        )


def _note_differences(models: Mapping[str, MeasuredResult]) -> Iterator[str]:
    """Yield what differs in how the models were asked."""
    told = {label: _describe_setup(h) for label, h in models.items()}
    for key in dict.fromkeys(k for how in told.values() for k in how):
        values: dict[str, list[str]] = {}
        for label, how in told.items():
            values.setdefault(how.get(key, "not told"), []).append(label)
        if len(values) > 1:
            said = "; ".join(f"{value} for {', '.join(labels)}" for value, labels in values.items())
            yield f"not asked alike: {key}: {said}. {_explain_difference(key)}"


def _explain_difference(key: str) -> str:
    if key == "cultures":
        return "Figures of all cultures are not compared; those of a culture are."
    if key == "count":
        return "Figures that depend on it are not compared."
    return (
        "They are compared on what both were asked." if key in LOOSE else "They are not compared."
    )


def _note_silent_models(models: Mapping[str, MeasuredResult]) -> Iterator[str]:
    """Yield which models left much unanswered: their figures are of what is left."""
    for label, h in models.items():
        counts, total = h.result.counts, sum(h.result.counts.values())
        lost = {s: n for s, n in counts.items() if s != "ok" and n}
        if total and sum(lost.values()) > SILENT * total:
            parts = ", ".join(f"{n:,} {status}" for status, n in lost.items())
            yield (
                f"{label}: {sum(lost.values()):,} of {total:,} items gave no answer ({parts}); its"
                " figures are of the others. Two models are compared on what both answered."
            )


def _note_uncompared(rows: Iterable[FigureRow]) -> Iterator[str]:
    """Yield which models were not asked the same, so that figures of both are not compared."""
    there = {
        (p.first, p.second): r
        for r in rows
        for p in r.pairs
        if p.difference.value is None
        and all(c.figure.value is not None for c in r.cells if c.model in (p.first, p.second))
    }
    for first, second in there:
        yield (
            f"{first} and {second} did not answer the same data sets or classes: some of their"
            " figures are not compared."
        )


# ----------------------------------------------------------------- deciding


def _decide_winners(
    comparison: Comparison, models: Mapping[tuple[str, str], MeasuredResult], sides: PairedMeasures
) -> Comparison:
    """Correct the p-values of all comparisons together, and say who wins which row."""
    pairs = [p for t in comparison.tables for r in t.rows for p in r.pairs]
    family = sum(p.difference.p is not None for p in pairs)
    swaps = ceil(FINE * family)
    tables = [
        t.model_copy(
            update={
                "rows": tuple(
                    _refine_p_values(r, t.benchmark, models, sides, swaps) for r in t.rows
                )
            }
        )
        for t in comparison.tables
    ]
    corrected = iter(
        holm(
            [
                p.difference.p
                for t in tables
                for r in t.rows
                for p in r.pairs
                if p.difference.p is not None
            ]
        )
    )
    tables = [
        t.model_copy(
            update={"rows": tuple(_decide_row(_correct_row(r, corrected)) for r in t.rows)}
        )
        for t in tables
    ]
    notes = (*comparison.notes, *_note_few_units(tables, family, comparison.against))
    return comparison.model_copy(
        update={
            "tables": tuple(tables),
            "comparisons": family,
            "swaps": max(swaps, DRAWS),
            "notes": notes,
        }
    )


def _refine_p_values(
    row: FigureRow,
    benchmark: str,
    models: Mapping[tuple[str, str], MeasuredResult],
    sides: PairedMeasures,
    swaps: int,
) -> FigureRow:
    """Return a row whose small p-values are fine enough for the correction.

    They stay p-values: one of at most CLOSE becomes that of the many swaps, whatever it is; the
    others remain.
    """
    made = []
    for pair in row.pairs:
        found = pair.difference
        if found.p is not None and found.p <= CLOSE and swaps > DRAWS and found.trainings == 1:
            key = (row.name, row.culture, row.subset)
            both = sides.measure_both(
                models[benchmark, pair.first], models[benchmark, pair.second], key
            )
            assert both is not None, "they were compared"
            found = found.model_copy(update={"p": permute_p_value(*both, swaps)})
        made.append(pair.model_copy(update={"difference": found}))
    return row.model_copy(update={"pairs": tuple(made)})


def permute_p_value(first: Measure, second: Measure, swaps: int, seed: int = 1) -> float:
    """Return the p-value of `measure.compare` from so many swaps of units, in blocks that fit in
    memory.
    """
    import numpy as np

    units = sorted({u for _, u in first.units} & {u for _, u in second.units})
    a, b = (_sum_units(m, units) for m in (first, second))
    left, right, rng = a.sum(0), b.sum(0), np.random.default_rng(seed)
    observed = abs(float(first.value(left) - second.value(right))) - 1e-12
    far = there = 0
    most = max(1, BLOCK // len(units))
    for start in range(0, swaps, most):
        rows = min(most, swaps - start)
        bits = np.frombuffer(rng.bytes(rows * (-(-len(units) // 8))), dtype=np.uint8).reshape(
            rows, -1
        )
        moved = np.unpackbits(bits, axis=1, count=len(units)).astype(float) @ (b - a)
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = np.abs(first.value(left + moved) - second.value(right - moved))
        far += int((apart >= observed).sum())
        there += int(np.isfinite(apart).sum())
    return (1 + far) / (1 + there)


def _sum_units(measure: Measure, units: Sequence[str]) -> Any:
    """Return each unit's sums, the mean over seeds, shape (units, length)."""
    import numpy as np

    places = {u: i for i, u in enumerate(units)}
    made = np.zeros((len(units), len(next(iter(measure.units.values())))))
    for (_, unit), sums in measure.units.items():
        if unit in places:
            made[places[unit]] += sums
    return made / len({seed for seed, unit in measure.units if unit in places})


def _correct_row(row: FigureRow, values: Iterator[float]) -> FigureRow:
    """Return a row with the next corrected p-values, and which model each comparison finds
    better.
    """
    made = []
    for pair in row.pairs:
        if pair.difference.p is not None:
            value = next(values)
            pair = pair.model_copy(
                update={"corrected": value, "better": _find_better(pair, value, row.better)}
            )
        made.append(pair)
    return row.model_copy(update={"pairs": tuple(made)})


def _find_better(pair: ModelPair, corrected: float, good: str) -> str:
    """Return the model that a comparison finds better; "" unless the corrected p-value and the
    interval both say so.
    """
    low, high = pair.difference.low, pair.difference.high
    if not good or corrected >= ALPHA or low is None or high is None or low <= 0 <= high:
        return ""
    return pair.first if (low > 0) == (good == "high") else pair.second


def _decide_row(row: FigureRow) -> FigureRow:
    """Say who wins a row: who beats every other model that it was compared with. Else who cannot be
    told from the best one.
    """
    pairs, update = row.pairs, dict[str, Any]()
    there = {
        m for p in pairs if p.corrected is not None for m in (p.first, p.second)
    }  # the others were asked otherwise
    rated = {
        c.model: c.figure.value
        for c in row.cells
        if c.figure.value is not None and c.model in there
    }
    beaten = {(p.better, p.second if p.better == p.first else p.first) for p in pairs if p.better}
    if len(rated) > 1 and row.better:
        winner = next((m for m in rated if all((m, o) in beaten for o in rated if o != m)), None)
        once = any(winner in p.weights for p in pairs)
        update |= {"winner": winner, "winning": ("weights" if once else "recipe") if winner else ""}
        if update["winner"] is None:
            sign = 1 if row.better == "high" else -1
            best = max(rated, key=lambda m: sign * rated[m])
            equal = {
                m
                for p in pairs
                if p.corrected is not None and not p.better and best in (p.first, p.second)
                for m in (p.first, p.second)
            }
            update["tied"] = tuple(m for m in rated if m in equal)
    return row.model_copy(update=update)


def _note_few_units(tables: Iterable[BenchmarkTable], family: int, against: str) -> Iterator[str]:
    """Yield a note where rows have too few units for any difference to pass the correction."""
    if not family:
        return
    least = ceil(log2(family / ALPHA)) + 1
    tested = [
        p.difference for t in tables for r in t.rows for p in r.pairs if p.difference.p is not None
    ]
    short = [d for d in tested if d.trainings == 1 and d.n < least]
    if short:
        several = any(len(t.models) > 2 for t in tables)
        way = (
            ""
            if against or not several
            else " Comparing with one model alone (--against MODEL) makes it less."
        )
        yield (
            f"{len(short):,} of {family:,} comparisons are on fewer than {least} units: swapping so"
            " few cannot give a p-value that passes the correction, however far apart the models"
            f" are.{way}"
        )
    if rare := [d for d in tested if 1 < d.trainings < ENOUGH]:
        yield (
            f"{len(rare):,} of {family:,} comparisons are over fewer than {ENOUGH} trainings: so"
            " few can show a large difference only."
        )
