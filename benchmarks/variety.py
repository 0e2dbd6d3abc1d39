"""How much two dialogues of one culture say alike: shared sentences; aim at most 20% on different
questions, 50% on the same.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

import culturepark as cp
from culturepark.dialogue.simulate import plan, simulate
from culturepark.llm.session import Models, Session
from culturepark.offline import Embedded
from culturepark.offline.measure import shared_sentences
from culturepark.store import RunStore

DIALOGUES = 100  # a culture: every question about twice


def main() -> None:
    """Print mean and maximum of the shared share over all pairs, by culture."""
    workspace, settings = cp.load(), cp.Settings()
    cultures = [c for c in sorted(workspace.cultures) if c != settings.contact]
    print(
        f"{'culture':12} {'different: mean':>16} {'max':>7} {'same: mean':>12} {'max':>7}   pairs"
    )
    for culture in cultures:
        with tempfile.TemporaryDirectory() as folder, RunStore(Path(folder)) as journal:
            scenes = list(plan(workspace, settings, culture, DIALOGUES))
            asyncio.run(simulate(workspace, settings, Session(Models(Embedded()), journal), scenes))
            texts = [(s.question, [t.text for t in journal.read_turns(s.id)]) for s in scenes]
        same: list[float] = []
        other: list[float] = []
        for (q1, a), (q2, b) in itertools.combinations(texts, 2):
            (same if q1 == q2 else other).append(shared_sentences(a, b))
        figures = [f"{sum(x) / len(x):16.1%} {max(x):7.1%}" for x in (other, same)]
        print(f"{culture:12} {figures[0]} {figures[1][4:]}   {len(other)} + {len(same)}")
