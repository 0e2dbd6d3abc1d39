"""Compares variants of reward models that were steered to countries: SCPO's table, from the sums
that the benchmark `reward` counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from culturepark.errors import InputError
from culturepark.evaluation.kinds.reward import accuracy
from culturepark.evaluation.measure import Difference, Measure, compare, estimate
from culturepark.evaluation.types import STRIDE
from culturepark.local_models.rewards import RewardResult
from culturepark.records import Preference, Record
from culturepark.surveys.votes import Votes

# Of whom: the country's own pairs, those of them on which it is in a minority, the rest of them,
# and other countries' pairs.
WHAT = ("overall", "minority", "shared", "others")
BASELINE = "full"


class SteeredCell(Record):
    """One cell of a table: an accuracy (0 to 1), the mean over countries, with its 95% interval and
    how it differs from `full`.

    Intervals are those of `intervals`, over users, each with all their pairs in all seeds, and over
    seeds, each a training of its own; None where there are fewer than six users, or all are alike.
    `gain` is that of the same users and seeds. `spread` is the standard deviation over seeds (None
    for one seed). A model that gives both answers the same reward is wrong. `pairs` and `users`
    count what was judged; `reason` says why there is no interval.
    """

    variant: str
    share: float
    what: str
    accuracy: float
    low: float | None
    high: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    spread: float | None
    pairs: int
    users: int
    reason: str = ""


def measure_steering(results: Sequence[RewardResult], votes: Votes) -> list[SteeredCell]:
    """Return the cells of every variant and share, in the order of the results; `what` without
    pairs has none.

    What is independent is the user (Preference.user): pairs of one user are not, nor is one pair in
    several seeds. A seed is a training, with test users of its own; accuracies are means over
    seeds.
    """
    if not results:
        raise InputError("nothing was judged: there are no results")
    held = {p.id: p for p in votes.pairs}
    groups: dict[tuple[str, float], list[RewardResult]] = {}
    for r in results:
        groups.setdefault((r.variant, r.share), []).append(r)
    made = {}
    for what in WHAT:
        measures = {
            at: measure
            for at, group in groups.items()
            if (measure := _measure_group(group, held, what)).units
        }
        for (variant, share), measure in measures.items():
            pairs = len(
                {p.id for r in groups[variant, share] for p, _ in _select_pairs(r, held, what)}
            )
            full = measures.get((BASELINE, share)) if variant != BASELINE else None
            gain = compare(measure, full) if full is not None else Difference(value=None)
            f = estimate(measure)
            assert f.value is not None, "a measure with units has a figure"
            made[variant, share, what] = SteeredCell(
                variant=variant,
                share=share,
                what=what,
                pairs=pairs,
                users=f.n,
                accuracy=f.value,
                low=f.low,
                high=f.high,
                spread=f.spread,
                reason=f.reason,
                gain=gain.value,
                gain_low=gain.low,
                gain_high=gain.high,
            )
    return [made[*at, what] for at in groups for what in WHAT if (*at, what) in made]


def _select_pairs(
    result: RewardResult, held: dict[str, Preference], what: str
) -> Iterator[tuple[Preference, bool]]:
    """Yield the pairs that `what` is about and whether they were got right."""
    minority = set(result.minority)
    for key, margin in result.margins.items():
        own = held[key].country == result.country
        if (what == "others") != own and (
            what in ("overall", "others") or (what == "minority") == (key in minority)
        ):
            yield held[key], margin > 0


def _measure_group(
    group: Sequence[RewardResult], held: dict[str, Preference], what: str
) -> Measure:
    """Return a variant's accuracy, each country's pairs judged by that country's model; a seed is a
    training.
    """
    rows = (
        (r.seed * STRIDE, pair.user, r.country, right)
        for r in group
        for pair, right in _select_pairs(r, held, what)
    )
    return accuracy(rows, sorted({r.country for r in group}), subset=what)


# ------------------------------------------------------------------ tables


def build_table(found: Sequence[SteeredCell], results: Sequence[RewardResult]) -> str:
    """Return cells as text: a row a variant (and share), a column each of WHAT, accuracies in
    percent with intervals.
    """
    rows = dict.fromkeys((f.variant, f.share) for f in found)
    cells = {(f.variant, f.share, f.what): f for f in found}
    there = [w for w in WHAT if any(f.what == w for f in found)]
    shared = len({share for _, share in rows}) > 1
    lines = [
        ["variant", *(["share"] if shared else []), "learnt from", *there, f"gain over {BASELINE}"]
    ]
    for variant, share in rows:
        group = [r for r in results if (r.variant, r.share) == (variant, share)]
        part = [cells.get((variant, share, w)) for w in there]
        learnt = (
            f"{sum(r.kept for r in group)} of {sum(r.pairs for r in group)}"
            if variant != "global"
            else "-"
        )
        lines.append(
            [
                variant,
                *([f"{share:g}"] if shared else []),
                learnt,
                *map(_build_cell, part),
                _measure_gain(part[0]),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _build_cell(f: SteeredCell | None) -> str:
    if f is None:
        return "-"
    spread = "" if f.spread is None else f" ±{100 * f.spread:.1f}"
    ends = "" if f.low is None or f.high is None else f" [{100 * f.low:.1f}, {100 * f.high:.1f}]"
    return f"{100 * f.accuracy:.1f}{ends}{spread}"


def _measure_gain(f: SteeredCell | None) -> str:
    if f is None or f.gain is None:
        return ""
    ends = (
        ""
        if f.gain_low is None or f.gain_high is None
        else f" [{100 * f.gain_low:+.1f}, {100 * f.gain_high:+.1f}]"
    )
    return f"{100 * f.gain:+.1f}{ends}"


def build_grid(results: Sequence[RewardResult], votes: Votes) -> str:
    """Return a sweep as text: a row a τ, a column a β, accuracies on validation pairs of the
    countries' own, in percent.
    """
    held = {p.id: p for p in votes.pairs}
    right: dict[tuple[float, float], list[bool]] = {}
    for r in results:
        right.setdefault((r.tau, r.beta), []).extend(
            ok for _, ok in _select_pairs(r, held, "overall")
        )
    taus, betas = (sorted({at[i] for at in right}) for i in (0, 1))
    lines = ["tau \\ beta  " + "  ".join(f"{b:6g}" for b in betas)]
    for tau in taus:
        cells = [right.get((tau, b)) for b in betas]
        lines.append(
            f"{tau:10g}  "
            + "  ".join(f"{100 * sum(c) / len(c):6.1f}" if c else "     -" for c in cells)
        )
    return "\n".join(lines)
