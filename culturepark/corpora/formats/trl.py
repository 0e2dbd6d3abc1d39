"""TRL's conversational prompt-completion format: loss on the completion only, origin in one nested
column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from culturepark.corpora.formats import WHOLE, Format, Subsets, chat, metadata, splits
from culturepark.corpora.source import Source
from culturepark.records import Sample


def write(source: Source, folder: Path) -> Subsets:
    """Write one JSONL file per split."""
    return {WHOLE: splits(folder, "{split}.jsonl", lambda split: map(row, source.samples(split)))}


def row(sample: Sample) -> dict[str, Any]:
    """Return `{prompt, completion, metadata}`; `messages` beside `prompt` would crash
    SFTTrainer.
    """
    prompt, completion = chat(sample)
    return {"prompt": prompt, "completion": completion, "metadata": metadata(sample)}


FORMAT = Format(write, "samples", about=__doc__)
