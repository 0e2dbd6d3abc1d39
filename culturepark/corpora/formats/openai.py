"""OpenAI's chat fine-tuning format; origins stand in `__metadata__/`, line for line, since the
service refuses other keys.
"""

from __future__ import annotations

from pathlib import Path

from culturepark.corpora.formats import BESIDE, WHOLE, Format, Subsets, chat, metadata, splits
from culturepark.corpora.source import Source
from culturepark.records import Sample


def write(source: Source, folder: Path) -> Subsets:
    """Write one JSONL file per split, and `__metadata__/SPLIT.jsonl` with a line for each of its
    lines.
    """
    splits(folder / BESIDE, "{split}.jsonl", lambda split: map(metadata, source.samples(split)))
    return {WHOLE: splits(folder, "{split}.jsonl", lambda split: map(row, source.samples(split)))}


def row(sample: Sample) -> dict[str, object]:
    """Return `{messages}`: system, user, assistant."""
    prompt, completion = chat(sample)
    return {"messages": prompt + completion}


FORMAT = Format(write, "samples", about=__doc__)
