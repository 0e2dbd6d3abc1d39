"""TRL's conversational preference format: a prompt, what is chosen, what is rejected; origin in one
nested column.
"""

from __future__ import annotations

from pathlib import Path

from culturepark.corpora.formats import (
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
    """Write one JSONL file per split."""
    return {WHOLE: splits(folder, "{split}.jsonl", lambda split: map(row, source.pairs(split)))}


def row(pair: Pair) -> dict[str, object]:
    """Return `{prompt, chosen, rejected, metadata}`."""
    return {
        "prompt": prompt_messages(pair),
        "chosen": answer_message(pair.chosen),
        "rejected": answer_message(pair.rejected),
        "metadata": origin(pair),
    }


FORMAT = Format(write, "pairs", about=__doc__)
