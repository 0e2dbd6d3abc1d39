"""What the peoples answered: a row a culture and question, with every option and the share that gave it."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import SPLITS, lines
from culturepark.corpus.source import Source

READS = "shares"


def write(source: Source, folder: Path, about: str) -> None:
    """Write one JSONL file a split; `culturepark.corpus.shares.row` says what a line holds."""
    for split in SPLITS:
        lines(folder / f"{split}.jsonl", source.shares(split))
