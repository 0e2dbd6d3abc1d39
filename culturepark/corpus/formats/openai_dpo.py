"""The preference format of OpenAI, Together and Fireworks, with origins in a sidecar file, since they refuse other keys."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import SPLITS, asked, lines, origin, said
from culturepark.corpus.source import Source
from culturepark.records import Pair

READS = "pairs"


def write(source: Source, folder: Path, about: str) -> None:
    """Write one JSONL file a split, and `NAME.metadata.jsonl` with a line for each of its lines."""
    for split in SPLITS:
        lines(folder / f"{split}.jsonl", map(row, source.pairs(split)))
        lines(folder / f"{split}.metadata.jsonl", map(origin, source.pairs(split)))


def row(pair: Pair) -> dict[str, object]:
    """Return `{input, preferred_output, non_preferred_output}`, one assistant message on each side."""
    return {
        "input": {"messages": asked(pair)},
        "preferred_output": said(pair.chosen),
        "non_preferred_output": said(pair.rejected),
    }
