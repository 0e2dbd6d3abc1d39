"""Judges reward models: accuracies with bootstrap intervals over users, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from culturepark.errors import InputError
from culturepark.records import Record
from culturepark.tuning.scpo import Result
from culturepark.tuning.votes import Pair, Votes

# Of whom: the country's own pairs, those of them on which it is in a minority, the rest of them, and other countries' pairs.
WHAT = ("overall", "minority", "shared", "others")
DRAWS = 2_000
BASELINE = "full"


class Figure(Record):
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


def figures(results: Sequence[Result], votes: Votes, draws: int = DRAWS, seed: int = 0) -> list[Figure]:
    """Return the figures of every variant and share, in the order of the results; `what` without pairs has none.

    The unit of resampling is the user (Pair.user): pairs of one user are not independent, nor is one pair in several seeds.
    """
    if not results:
        raise InputError("nothing was judged: there are no results")
    held = {p.id: p for p in votes.pairs}
    counts = _drawn([held[i] for i in dict.fromkeys(i for r in results for i in r.margins)], draws, seed)
    groups: dict[tuple[str, float], list[Result]] = {}
    for r in results:
        groups.setdefault((r.variant, r.share), []).append(r)
    made = []
    for what in WHAT:
        baseline = {
            share: _replicates(group, held, what, counts) for (name, share), group in groups.items() if name == BASELINE
        }
        for (variant, share), group in groups.items():
            figure = _figure(variant, share, what, group, held, counts, baseline.get(share))
            made += [figure] if figure is not None else []
    order = list(groups)
    return sorted(made, key=lambda f: (order.index((f.variant, f.share)), WHAT.index(f.what)))


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
    table = np.ones((draws + 1, len(homes)), dtype=np.float32)
    for columns in strata.values():
        table[1:, columns] = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=draws)
    return {user: n for n, user in enumerate(homes)}, table


def _asked(result: Result, held: dict[str, Pair], what: str) -> Iterable[tuple[Pair, bool]]:
    """Yield the pairs that `what` is about and whether they were got right."""
    minority = set(result.minority)
    for key, margin in result.margins.items():
        own = held[key].country == result.country
        if (what == "others") != own and (what in ("overall", "others") or (what == "minority") == (key in minority)):
            yield held[key], margin > 0


def _replicates(group: Sequence[Result], held: dict[str, Pair], what: str, counts: tuple[dict[str, int], Any]) -> Any:
    """Return the mean over countries of the accuracy under every draw, shape (draws + 1,); NaN where there are no pairs."""
    import warnings

    import numpy as np

    columns, table = counts
    made: dict[str, Any] = {}
    for r in group:
        sums = made.setdefault(r.country, np.zeros((len(columns), 2), dtype=np.float32))
        for pair, right in _asked(r, held, what):
            sums[columns[pair.user]] += (right, 1)
    totals = np.stack([table @ sums for sums in made.values()])  # (countries, draws + 1, 2)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means of nothing
        return np.nanmean(totals[..., 0] / totals[..., 1], axis=0)


def _figure(variant: str, share: float, what: str, group: Sequence[Result], held: dict[str, Pair], counts: tuple[dict[str, int], Any],
            baseline: Any) -> Figure | None:  # fmt: skip
    import numpy as np

    asked = [pair for r in group for pair, _ in _asked(r, held, what)]
    if not asked:
        return None
    drawn = _replicates(group, held, what, counts)
    seeds = sorted({r.seed for r in group})
    once = (counts[0], counts[1][:1])
    by_seed = [float(_replicates([r for r in group if r.seed == s], held, what, once)[0]) for s in seeds]
    low, high = np.nanpercentile(drawn[1:], (2.5, 97.5))
    apart = None if baseline is None or variant == BASELINE else drawn - baseline
    gain = (None, None, None) if apart is None else (apart[0], *np.nanpercentile(apart[1:], (2.5, 97.5)))
    return Figure(
        variant=variant, share=share, what=what, accuracy=float(drawn[0]), low=float(low), high=float(high),
        gain=_float(gain[0]), gain_low=_float(gain[1]), gain_high=_float(gain[2]),
        spread=float(np.nanstd(by_seed, ddof=1)) if len(seeds) > 1 else None, pairs=len({p.id for p in asked}),
        users=len({p.user for p in asked}),
    )  # fmt: skip


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


# ------------------------------------------------------------------ tables


def table(found: Sequence[Figure], results: Sequence[Result]) -> str:
    """Return figures as text: a row a variant (and share), a column each of WHAT, accuracies in percent with intervals."""
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


def _cell(f: Figure | None) -> str:
    if f is None:
        return "-"
    spread = "" if f.spread is None else f" ±{100 * f.spread:.1f}"
    return f"{100 * f.accuracy:.1f} [{100 * f.low:.1f}, {100 * f.high:.1f}]{spread}"


def _gain(f: Figure | None) -> str:
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
