"""Export formats: one file each, one function each: `write(read, folder, about)`.

`read(split)` yields that split's samples; `about` is the dataset card's text. To add one, write a module here and name
it in FORMATS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from culturepark.records import Sample

Read = Callable[[str], Iterator[Sample]]
SPLITS = ("train", "validation", "test")
FORMATS = {
    "trl": "culturepark.corpus.formats.trl",
    "openai": "culturepark.corpus.formats.openai",
    "hub": "culturepark.corpus.formats.hub",
}


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines; return how many. An empty file is not left behind."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        path.unlink()
    return count


def chat(sample: Sample) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return prompt and completion of a sample as chat messages."""
    prompt = [{"role": "system", "content": sample.system}, {"role": "user", "content": sample.prompt}]
    return prompt, [{"role": "assistant", "content": sample.completion}]


def metadata(sample: Sample) -> dict[str, Any]:
    """Return where a sample came from."""
    return sample.model_dump(include={"id", "culture", "question", "topic", "answer", "dialogue", "opinion", "persona"})
