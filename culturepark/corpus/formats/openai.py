"""OpenAI's chat fine-tuning format, with origins in a sidecar file, since the service refuses other keys."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import SPLITS, Read, chat, lines, metadata
from culturepark.records import Sample


def write(read: Read, folder: Path, about: str) -> None:
    """Write one JSONL file a split, and `NAME.metadata.jsonl` with a line for each of its lines."""
    for split in SPLITS:
        lines(folder / f"{split}.jsonl", map(row, read(split)))
        lines(folder / f"{split}.metadata.jsonl", map(metadata, read(split)))


def row(sample: Sample) -> dict[str, object]:
    """Return `{messages}`: system, user, assistant."""
    prompt, completion = chat(sample)
    return {"messages": prompt + completion}
