"""TRL's conversational preference format: a prompt, what is chosen, what is rejected; origin in one nested column."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import SPLITS, asked, lines, origin, said
from culturepark.corpus.source import Source
from culturepark.records import Pair

READS = "pairs"


def write(source: Source, folder: Path, about: str) -> None:
    """Write one JSONL file a split."""
    for split in SPLITS:
        lines(folder / f"{split}.jsonl", map(row, source.pairs(split)))


def row(pair: Pair) -> dict[str, object]:
    """Return `{prompt, chosen, rejected, metadata}`."""
    return {
        "prompt": asked(pair),
        "chosen": said(pair.chosen),
        "rejected": said(pair.rejected),
        "metadata": origin(pair),
    }
