"""Compares variants of reward models that were steered to countries: SCPO's table, from the sums that the benchmark `reward` counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from culturepark.errors import InputError
from culturepark.evaluation.kinds.reward import accuracy
from culturepark.evaluation.measure import DRAWS, Measure
from culturepark.grounding.votes import Pair, Votes
from culturepark.records import Record
from culturepark.weights.rewards import Result

# Of whom: the country's own pairs, those of them on which it is in a minority, the rest of them, and other countries' pairs.
WHAT = ("overall", "minority", "shared", "others")
BASELINE = "full"


class Cell(Record):
    """One cell of a table: an accuracy (0 to 1), the mean over countries, with its 95% interval and how it differs from `full`.

    Intervals are percentiles of a bootstrap that redraws users, each with all their pairs in all seeds, within each country;
    `gain` and its interval come from the same draws for both variants. `spread` is the standard deviation over seeds (None for
    one seed). A model that gives both answers the same reward is wrong. `pairs` and `users` count what was judged.
    """

    variant: str
    share: float
    what: str
    accuracy: float
    low: float
    high: float
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    spread: float | None
    pairs: int
    users: int


def figures(results: Sequence[Result], votes: Votes, draws: int = DRAWS, seed: int = 0) -> list[Cell]:
    """Return the cells of every variant and share, in the order of the results; `what` without pairs has none.

    The unit of resampling is the user (Pair.user): pairs of one user are not independent, nor is one pair in several seeds. Each
    seed has its own test users, so seeds are counted together, and users are redrawn within their countries.
    """
    if not results:
        raise InputError("nothing was judged: there are no results")
    held = {p.id: p for p in votes.pairs}
    drawn = _drawn([held[i] for i in dict.fromkeys(i for r in results for i in r.margins)], draws, seed)
    groups: dict[tuple[str, float], list[Result]] = {}
    for r in results:
        groups.setdefault((r.variant, r.share), []).append(r)
    made = {}
    for what in WHAT:
        measures = {at: measure for at, group in groups.items() if (measure := _measure(group, held, what)).units}
        redrawn = {at: _redrawn(measure, drawn) for at, measure in measures.items()}
        for (variant, share), measure in measures.items():
            baseline = redrawn.get((BASELINE, share)) if variant != BASELINE else None
            pairs = len({p.id for r in groups[variant, share] for p, _ in _asked(r, held, what)})
            made[variant, share, what] = Cell(
                variant=variant, share=share, what=what, pairs=pairs, users=len({user for _, user in measure.units}),
                spread=_spread(measure), **_interval(redrawn[variant, share], baseline),
            )  # fmt: skip
    return [made[*at, what] for at in groups for what in WHAT if (*at, what) in made]


def _asked(result: Result, held: dict[str, Pair], what: str) -> Iterator[tuple[Pair, bool]]:
    """Yield the pairs that `what` is about and whether they were got right."""
    minority = set(result.minority)
    for key, margin in result.margins.items():
        own = held[key].country == result.country
        if (what == "others") != own and (what in ("overall", "others") or (what == "minority") == (key in minority)):
            yield held[key], margin > 0


def _measure(group: Sequence[Result], held: dict[str, Pair], what: str) -> Measure:
    """Return a variant's accuracy, each country's pairs judged by that country's model."""
    rows = ((r.seed, pair.user, r.country, right) for r in group for pair, right in _asked(r, held, what))
    return accuracy(rows, sorted({r.country for r in group}), subset=what)


def _drawn(pairs: Sequence[Pair], draws: int, seed: int) -> tuple[dict[str, int], Any]:
    """Return each user's column and, shape (draws + 1, users), how often each is drawn; the first row is once each."""
    import numpy as np

    homes: dict[str, set[str]] = {}
    for p in pairs:
        homes.setdefault(p.user, set()).add(p.country)
    strata: dict[tuple[str, ...], list[int]] = {}
    for n, user in enumerate(homes):
        strata.setdefault(tuple(sorted(homes[user])), []).append(n)
    rng = np.random.default_rng(seed)
    table = np.ones((draws + 1, len(homes)))
    for columns in strata.values():
        table[1:, columns] = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=draws)
    return {user: n for n, user in enumerate(homes)}, table


def _redrawn(measure: Measure, drawn: tuple[dict[str, int], Any]) -> Any:
    """Return the figure under every draw, shape (draws + 1,); NaN where a draw has no pairs."""
    import numpy as np

    columns, table = drawn
    sums = np.zeros((len(columns), len(next(iter(measure.units.values())))))
    for (_, user), row in measure.units.items():
        sums[columns[user]] += row
    return measure.value(table @ sums)


def _spread(measure: Measure) -> float | None:
    """Return the standard deviation over the seeds that have pairs; None where one has."""
    import numpy as np

    seeds = sorted({seed for seed, _ in measure.units})
    sums = [np.sum([row for (s, _), row in measure.units.items() if s == seed], axis=0) for seed in seeds]
    return float(measure.value(np.stack(sums)).std(ddof=1)) if len(seeds) > 1 else None


def _interval(drawn: Any, baseline: Any) -> dict[str, float | None]:
    """Return what a cell says of an accuracy under all draws and of how far it is from the baseline's."""
    import numpy as np

    low, high = np.nanpercentile(drawn[1:], (2.5, 97.5))
    made: dict[str, float | None] = {"accuracy": float(drawn[0]), "low": float(low), "high": float(high)}
    if baseline is None:
        return {**made, "gain": None, "gain_low": None, "gain_high": None}
    apart = drawn - baseline
    low, high = np.nanpercentile(apart[1:], (2.5, 97.5))
    return {**made, "gain": float(apart[0]), "gain_low": float(low), "gain_high": float(high)}


# ------------------------------------------------------------------ tables


def table(found: Sequence[Cell], results: Sequence[Result]) -> str:
    """Return cells as text: a row a variant (and share), a column each of WHAT, accuracies in percent with intervals."""
    rows = dict.fromkeys((f.variant, f.share) for f in found)
    cells = {(f.variant, f.share, f.what): f for f in found}
    there = [w for w in WHAT if any(f.what == w for f in found)]
    shared = len({share for _, share in rows}) > 1
    lines = [["variant", *(["share"] if shared else []), "learnt from", *there, f"gain over {BASELINE}"]]
    for variant, share in rows:
        group = [r for r in results if (r.variant, r.share) == (variant, share)]
        part = [cells.get((variant, share, w)) for w in there]
        learnt = f"{sum(r.kept for r in group)} of {sum(r.pairs for r in group)}" if variant != "global" else "-"
        lines.append([variant, *([f"{share:g}"] if shared else []), learnt, *map(_cell, part), _gain(part[0])])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(f: Cell | None) -> str:
    if f is None:
        return "-"
    spread = "" if f.spread is None else f" ±{100 * f.spread:.1f}"
    return f"{100 * f.accuracy:.1f} [{100 * f.low:.1f}, {100 * f.high:.1f}]{spread}"


def _gain(f: Cell | None) -> str:
    if f is None or f.gain is None or f.gain_low is None or f.gain_high is None:
        return ""
    return f"{100 * f.gain:+.1f} [{100 * f.gain_low:+.1f}, {100 * f.gain_high:+.1f}]"


def grid(results: Sequence[Result], votes: Votes) -> str:
    """Return a sweep as text: a row a τ, a column a β, accuracies on validation pairs of the countries' own, in percent."""
    held = {p.id: p for p in votes.pairs}
    right: dict[tuple[float, float], list[bool]] = {}
    for r in results:
        right.setdefault((r.tau, r.beta), []).extend(ok for _, ok in _asked(r, held, "overall"))
    taus, betas = (sorted({at[i] for at in right}) for i in (0, 1))
    lines = ["tau \\ beta  " + "  ".join(f"{b:6g}" for b in betas)]
    for tau in taus:
        cells = [right.get((tau, b)) for b in betas]
        lines.append(f"{tau:10g}  " + "  ".join(f"{100 * sum(c) / len(c):6.1f}" if c else "     -" for c in cells))
    return "\n".join(lines)
