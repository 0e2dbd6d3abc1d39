"""TRL's conversational prompt-completion format: loss on the completion only, origin in one nested column."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import SPLITS, Read, chat, lines, metadata
from culturepark.records import Sample


def write(read: Read, folder: Path, about: str) -> None:
    """Write one JSONL file a split."""
    for split in SPLITS:
        lines(folder / f"{split}.jsonl", map(row, read(split)))


def row(sample: Sample) -> dict[str, object]:
    """Return `{prompt, completion, metadata}`; `messages` beside `prompt` would crash SFTTrainer."""
    prompt, completion = chat(sample)
    return {"prompt": prompt, "completion": completion, "metadata": metadata(sample)}
