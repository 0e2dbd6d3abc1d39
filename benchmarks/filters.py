"""What the refinery catches: precision and recall against faults that the embedded engine planted and wrote down."""

from __future__ import annotations

import tempfile
from collections import Counter

import culturepark as cp
from culturepark.records import Opinion, Turn

RATES = dict.fromkeys(("contradiction", "off_topic", "refusal", "duplicate", "drift"), 0.06)
CATCHES = {"contradiction": {"contradict", "rewritten"}, "off_topic": {"irrelevant"}, "refusal": {"refusal", "form"},
           "duplicate": {"repeat", "redundant", "duplicate"}, "drift": {"anchors"}}  # fmt: skip


def fate(opinion: Opinion) -> str:
    """Return what became of an opinion: the reason it was dropped, `rewritten`, or `kept`."""
    return opinion.dropped or ("rewritten" if len(opinion.verdicts) > 1 else "kept")


def main() -> None:
    """Print a table: what was planted, what became of it, and each filter's precision."""
    with tempfile.TemporaryDirectory() as folder:
        run = cp.run("filters", dialogues=60, faults=RATES, out=folder, formats=("trl",))
        with run.journal(write=False) as journal:
            planted, caught, extracted, by_filter, right = (
                Counter[str](),
                Counter[str](),
                Counter[str](),
                Counter[str](),
                Counter[str](),
            )
            for scene in journal.scenes("status = 'done'"):
                opinions = journal.opinions(scene.id)
                for turn in journal.turns(scene.id):
                    tally(turn, opinions, planted, caught, extracted)
                for opinion in opinions:
                    for kind, reasons in CATCHES.items():
                        if fate(opinion) in reasons:
                            by_filter[kind] += 1
                            right[kind] += kind in opinion.faults
    print(
        f"{'fault':14} {'planted':>8} {'extracted':>10} {'not kept as it was':>19} {'recall':>8} {'its filter dropped':>19} {'precision':>10}"
    )
    for kind in RATES:
        recall = caught[kind] / planted[kind] if planted[kind] else float("nan")
        precision = f"{right[kind] / by_filter[kind]:.1%}" if by_filter[kind] else "–"
        print(
            f"{kind:14} {planted[kind]:8} {extracted[kind]:10} {caught[kind]:19} {recall:8.1%} {by_filter[kind]:19} {precision:>10}"
        )
    print("precision: of what the filter for this fault dropped or rewrote, the share that was planted; the engine's own "
          "weak and repeated lines are counted against it.")  # fmt: skip


def tally(
    turn: Turn, opinions: tuple[Opinion, ...], planted: Counter[str], caught: Counter[str], extracted: Counter[str]
) -> None:
    """Count a turn's faults, and those of which nothing survived as it was."""
    for fault in turn.faults:
        carriers = [o for o in opinions if o.turn == turn.n and fault.kind in o.faults]
        planted[fault.kind] += 1
        extracted[fault.kind] += bool(carriers)
        caught[fault.kind] += all(fate(o) != "kept" for o in carriers)
