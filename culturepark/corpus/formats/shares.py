"""What the peoples answered: a row a culture and question, with every option and the share that gave it."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import WHOLE, Subsets, splits
from culturepark.corpus.source import Source

READS = "shares"


def write(source: Source, folder: Path) -> Subsets:
    """Write one JSONL file per split; `culturepark.corpus.shares.row` says what a line holds."""
    return {WHOLE: splits(folder, "{split}.jsonl", lambda split: source.shares(split))}
