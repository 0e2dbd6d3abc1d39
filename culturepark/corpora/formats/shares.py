"""What the peoples answered: a row a culture and question, with every option and the share that
gave it.
"""

from __future__ import annotations

from pathlib import Path

from culturepark.corpora.formats import WHOLE, Format, Subsets, splits
from culturepark.corpora.source import Source


def write(source: Source, folder: Path) -> Subsets:
    """Write one JSONL file per split; `culturepark.corpora.shares.row` says what a line holds."""
    return {WHOLE: splits(folder, "{split}.jsonl", lambda split: source.shares(split))}


FORMAT = Format(write, "shares", about=__doc__)
