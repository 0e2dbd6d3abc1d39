"""What the refinery catches: precision and recall against faults that the embedded engine planted
and wrote down.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence

import culturepark as cp
from culturepark.records import Norm, Opinion, Question, Turn
from culturepark.store.queries import iterate_scenes, read_opinions

RATES = dict.fromkeys(("contradiction", "off_topic", "refusal", "duplicate", "drift"), 0.06)
FILTERS = {
    "contradiction": {"contradict", "rewritten"},
    "off_topic": {"irrelevant"},
    "refusal": {"refusal"},
    "duplicate": {"repeat"},
    "drift": {"anchors"},
}
WORD = re.compile(r"\w+")


def fate(opinion: Opinion) -> str:
    """Return what became of an opinion: the reason it was dropped, `rewritten`, or `kept`."""
    return (
        "rewritten"
        if len(opinion.verdicts) > 1 and not opinion.dropped
        else opinion.dropped or "kept"
    )


def bare(opinion: Opinion, norms: Iterable[Norm], question: Question) -> bool:
    """Say whether an opinion is a custom told for its own sake: a norm of the card, and no clause
    that takes a side.
    """
    clauses = (*question.claim, *question.denial, *question.pros, *question.cons)
    if any(clause.casefold() in opinion.text.casefold() for clause in clauses):
        return False
    words = set(WORD.findall(opinion.text.casefold()))
    told = (set(WORD.findall(n.text.casefold())) for n in norms)
    return any(len(words & n) >= 0.9 * len(n) for n in told)


def main() -> None:
    """Print a row a fault: planted, survived, recall; dropped by its filter, rightly, precision."""
    planted, survived, dropped, right = (
        Counter[str](),
        Counter[str](),
        Counter[str](),
        Counter[str](),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = cp.run("filters", dialogues=60, faults=RATES, out=folder, formats=("trl",))
        with run.open_store(write=False) as journal:
            for scene in iterate_scenes(journal, "done"):
                opinions = read_opinions(journal, scene.id)
                question = run.workspace.question(scene.scenario, scene.question)
                norms = [
                    n
                    for s in scene.seats
                    for n in run.workspace.culture(run.workspace.persona(s.persona).culture).norms
                ]
                for turn in journal.read_turns(scene.id):
                    count_planted(turn, opinions, planted, survived)
                for opinion in opinions:
                    for kind in (k for k, reasons in FILTERS.items() if fate(opinion) in reasons):
                        dropped[kind] += 1
                        # A custom that bears on nothing is rightly irrelevant, a word-for-word
                        # repeat rightly a repeat.
                        right[kind] += (
                            kind in opinion.faults
                            or kind == "duplicate"
                            or (kind == "off_topic" and bare(opinion, norms, question))
                        )
    print(
        f"{'fault':14} {'planted':>8} {'survived':>9} {'recall':>8} {'its filter took':>16}"
        f" {'rightly':>8} {'precision':>10}"
    )
    for kind in RATES:
        recall = f"{1 - survived[kind] / planted[kind]:.1%}" if planted[kind] else "–"
        precision = f"{right[kind] / dropped[kind]:.1%}" if dropped[kind] else "–"
        print(
            f"{kind:14} {planted[kind]:8} {survived[kind]:9} {recall:>8} {dropped[kind]:16}"
            f" {right[kind]:8} {precision:>10}"
        )
    print(
        "survived: kept as it was said; a refusal holds no opinion, so the extractor already leaves"
        " it out"
    )


def count_planted(
    turn: Turn, opinions: Sequence[Opinion], planted: Counter[str], survived: Counter[str]
) -> None:
    """Count a turn's faults, and those that were kept as they were said."""
    for fault in turn.faults:
        planted[fault.kind] += 1
        survived[fault.kind] += any(
            fate(o) == "kept" and fault.kind in o.faults for o in opinions if o.turn == turn.n
        )
