"""CulturePark itself, by its public path: the shipped cards, the journal on, the stage that holds
the dialogues.

One more argument names another model: `litellm/openai/canned` goes through litellm.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Hold the dialogues with `cp.simulate`, after a run of one turn that warms the process up."""
    os.environ["OPENAI_API_KEY"] = "none"
    import culturepark as cp
    from benchmarks.peers import gauge
    from culturepark.store.queries import iterate_scenes

    given, clock = gauge.task(), gauge.Clock()
    settings = cp.Settings(
        cultures=("arabic",),
        turns=given.turns,
        styles=("guided",),
        concurrency=given.in_flight,
        model=sys.argv[5] if len(sys.argv) > 5 else f"openai/{gauge.MODEL}",
        base_url=given.url,
        dialogues=given.dialogues,
    )
    with tempfile.TemporaryDirectory() as folder:
        cp.simulate(cp.start("warm", settings, out=Path(folder, "warm"), dialogues=1, turns=2))
        run = cp.start("peers", settings, out=Path(folder, "run"))
        with clock:
            cp.simulate(run)
        most = gauge.peak()
        with run.open_store(write=False) as journal:
            said = [
                [turn.text for turn in journal.read_turns(s.id)]
                for s in iterate_scenes(journal, "done")
            ]
    gauge.tell("park", "culturepark", said, given, clock, most)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # this folder's names are also the packages' own
    main()
