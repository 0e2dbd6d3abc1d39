"""What a run will cost, from the dialogues it has held so far: a band for each role and model,
never a guessed price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from statistics import fmean, linear_regression
from typing import Any

from culturepark.store import RunStore
from culturepark.store.calls import sum_dialogue_costs
from culturepark.store.counts import count_all
from culturepark.store.queries import list_refined

COVER = 0.95  # probability with which the run's true cost lies in the band
FIGURES = ("calls", "prompt_tokens", "completion_tokens", "usd")


def forecast(
    store: RunStore, dialogues: int, samples: int | None, cultures: int, discount: float = 1.0
) -> dict[str, Any]:
    """Return the whole run's calls, tokens and USD, each as (low, middle, high), in all and by role
    and model.

    `dialogues` are planned over all cultures; with `samples` a culture they are as many as the
    pilot's yield asks for. `discount` is the share of the price at which the rest will be called.
    The band is the 95% prediction interval of the sum of the dialogues still to come, their costs
    drawn like the pilot's (Student's t), on top of what the pilot cost. `usd` is None where a price
    or a count of tokens is unknown.
    """
    held = list_refined(store)
    kept = count_all(store).kept
    if samples is not None:
        dialogues = ceil(samples * cultures * len(held) / kept) if kept else 0
    costs = _costs(store)
    rows = [
        {"role": role, "model": model, **_bands(per, held, dialogues, discount)}
        for (role, model), per in costs.items()
    ]
    whole: dict[str, dict[str, float | None]] = {}
    for per in costs.values():
        for dialogue, figures in per.items():
            before = whole.setdefault(dialogue, dict.fromkeys(FIGURES, 0.0))
            whole[dialogue] = {f: _add(before[f], figures[f]) for f in FIGURES}
    return {
        "pilot": len(held),
        "dialogues": dialogues,
        "kept_a_dialogue": kept / len(held) if held else None,
        "total": _bands(whole, held, dialogues, discount),
        "rows": rows,
    }


def _costs(store: RunStore) -> dict[tuple[str, str], dict[str, dict[str, float | None]]]:
    """Return what each dialogue took, by role and model; what told no tokens or has no price is
    None.
    """
    costs: dict[tuple[str, str], dict[str, dict[str, float | None]]] = {}
    for row in sum_dialogue_costs(store):
        figures = {figure: getattr(row, figure) for figure in FIGURES}
        costs.setdefault((row.role, row.model), {})[row.dialogue] = figures
    return costs


def _bands(
    per: Mapping[str, Mapping[str, float | None]],
    held: Sequence[str],
    dialogues: int,
    discount: float,
) -> dict[str, tuple[float, float, float] | None]:
    """Return (low, middle, high) of each figure over the whole run."""
    made = {}
    for figure in FIGURES:
        values = [per[d][figure] if d in per else 0.0 for d in held]
        numbers = [v for v in values if v is not None]
        known = held and len(numbers) == len(values)
        made[figure] = (
            band(numbers, dialogues, discount if figure == "usd" else 1.0) if known else None
        )
    return made


def band(
    values: Sequence[float], dialogues: int, factor: float = 1.0
) -> tuple[float, float, float]:
    """Return low, middle and high of the sum over `dialogues`, of which `values` are the first, the
    rest at `factor`.

    Prediction interval of a sum of R further values: R·m ± t·s·√(R + R²/n). One value alone gives
    no spread: the band is then from what was spent to twice the middle.
    """
    from scipy.stats import t

    n, spent = len(values), sum(values)
    rest = max(0, dialogues - n)
    middle = factor * rest * spent / n
    if n < 2:
        return spent, spent + middle, spent + 2 * middle
    spread = sqrt(sum((v - spent / n) ** 2 for v in values) / (n - 1))
    reach = factor * float(t.ppf((1 + COVER) / 2, n - 1)) * spread * sqrt(rest + rest * rest / n)
    return spent + max(0.0, middle - reach), spent + middle, spent + middle + reach


class TurnCosts:
    """What turns cost by their place in a dialogue, so that those still to come can be reckoned.

    Prompts grow with a dialogue, and dialogues go on side by side: the mean of all turns so far
    would be that of early ones.
    """

    def __init__(self, dialogues: int, turns: int) -> None:
        self._due = [dialogues] * turns
        self._count, self._usd = [0] * turns, [0.0] * turns
        self._known = True

    def skip(self, first: int, end: int) -> None:
        """Take the turns of one dialogue from place `first` to before `end` out of what is to
        come.
        """
        for n in range(first, min(end, len(self._due))):
            self._due[n] -= 1

    def add(self, n: int, usd: float | None) -> None:
        """Add one turn at place `n`; its cost is None where that is unknown."""
        self._due[n] -= 1
        self._known &= usd is not None
        self._count[n] += 1
        self._usd[n] += usd or 0.0

    def ahead(self) -> float | None:
        """Return what the turns to come will cost (USD); None before the first, or where a cost is
        unknown.

        A place that no dialogue reached yet costs what the straight line through the means of those
        reached says.
        """
        seen = [
            (n, u / c) for n, (u, c) in enumerate(zip(self._usd, self._count, strict=True)) if c
        ]
        if not seen or not self._known:
            return None
        means = dict(seen)
        slope, start = (
            linear_regression(*zip(*seen, strict=True)) if len(seen) > 1 else (0.0, seen[0][1])
        )
        return sum(
            max(0, due) * max(0.0, means.get(n, start + slope * n))
            for n, due in enumerate(self._due)
        )


class DialogueCosts:
    """What finished dialogues cost one by one, so that those still to come can be reckoned."""

    def __init__(self, dialogues: int) -> None:
        self.dialogues, self._costs, self._known = dialogues, list[float](), True

    def add(self, usd: float | None) -> None:
        """Add one dialogue; its cost is None where that is unknown."""
        self._known &= usd is not None
        self._costs.append(usd or 0.0)

    def ahead(self, spent: float) -> float | None:
        """Return what is still to be spent (USD), where `spent` holds what unfinished dialogues
        took so far too.
        """
        if not self._costs or not self._known:
            return None
        return max(0.0, fmean(self._costs) * self.dialogues - spent)


def _add(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


# --------------------------------------------------------------------- show


def format_forecast(found: Mapping[str, Any]) -> str:
    """Return a forecast as text for people."""
    head = f"from a pilot of {found['pilot']} dialogues to {found['dialogues']:,}"
    if found["kept_a_dialogue"] is not None:
        head += f" ({found['kept_a_dialogue']:.1f} opinions kept a dialogue)"
    columns = ("role", "model", "calls", "prompt tokens", "answer tokens", "USD (95% band)")
    lines = [[r["role"], r["model"], *_cells(r)] for r in found["rows"]] + [
        ["all", "", *_cells(found["total"])]
    ]
    widths = [max(len(row[i]) for row in (columns, *lines)) for i in range(len(columns))]
    table = [
        "  ".join(
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (columns, *lines)
    ]
    return "\n".join([head, *table])


def _cells(row: Mapping[str, Any]) -> list[str]:
    counts = [f"{row[f][1]:,.0f}" if row[f] else "unknown" for f in FIGURES[:3]]
    usd = row["usd"]
    return [*counts, f"{usd[1]:.2f} ({usd[0]:.2f} – {usd[2]:.2f})" if usd else "unknown"]
