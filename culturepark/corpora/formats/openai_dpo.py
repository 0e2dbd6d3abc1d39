"""The preference format of OpenAI, Together and Fireworks; origins stand in `__metadata__/`, line
for line, since they refuse other keys.
"""

from __future__ import annotations

from pathlib import Path

from culturepark.corpora.formats import (
    BESIDE,
    WHOLE,
    Format,
    Subsets,
    answer_message,
    origin,
    prompt_messages,
    splits,
)
from culturepark.corpora.source import Source
from culturepark.records import Pair


def write(source: Source, folder: Path) -> Subsets:
    """Write one JSONL file per split, and `__metadata__/SPLIT.jsonl` with a line for each of its
    lines.
    """
    splits(folder / BESIDE, "{split}.jsonl", lambda split: map(origin, source.pairs(split)))
    return {WHOLE: splits(folder, "{split}.jsonl", lambda split: map(row, source.pairs(split)))}


def row(pair: Pair) -> dict[str, object]:
    """Return `{input, preferred_output, non_preferred_output}`, one assistant message on each
    side.
    """
    return {
        "input": {"messages": prompt_messages(pair)},
        "preferred_output": answer_message(pair.chosen),
        "non_preferred_output": answer_message(pair.rejected),
    }


FORMAT = Format(write, "pairs", about=__doc__)
