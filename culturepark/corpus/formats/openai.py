"""OpenAI's chat fine-tuning format, with origins in a sidecar file, since the service refuses other keys."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import SPLITS, chat, lines, metadata
from culturepark.corpus.source import Source
from culturepark.records import Sample

READS = "samples"


def write(source: Source, folder: Path, about: str) -> None:
    """Write one JSONL file a split, and `NAME.metadata.jsonl` with a line for each of its lines."""
    for split in SPLITS:
        lines(folder / f"{split}.jsonl", map(row, source.samples(split)))
        lines(folder / f"{split}.metadata.jsonl", map(metadata, source.samples(split)))


def row(sample: Sample) -> dict[str, object]:
    """Return `{messages}`: system, user, assistant."""
    prompt, completion = chat(sample)
    return {"messages": prompt + completion}
