"""TRL's conversational prompt-completion format: loss on the completion only, origin in one nested column."""

from __future__ import annotations

from pathlib import Path

from culturepark.corpus.formats import SPLITS, chat, lines, metadata
from culturepark.corpus.source import Source
from culturepark.records import Sample

READS = "samples"


def write(source: Source, folder: Path, about: str) -> None:
    """Write one JSONL file a split."""
    for split in SPLITS:
        lines(folder / f"{split}.jsonl", map(row, source.samples(split)))


def row(sample: Sample) -> dict[str, object]:
    """Return `{prompt, completion, metadata}`; `messages` beside `prompt` would crash SFTTrainer."""
    prompt, completion = chat(sample)
    return {"prompt": prompt, "completion": completion, "metadata": metadata(sample)}
