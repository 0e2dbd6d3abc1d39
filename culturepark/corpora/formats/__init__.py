"""Export formats: one file each, which says what it `READS` and has one function, `write(source,
folder)`.

`source` yields a split's samples, pairs or shares (`READS` names one of the three). `write` returns
its Subsets, which the folder's card names, so that `datasets.load_dataset(folder)` reads these
files and no others. A format that needs libraries beyond the base install names them in `NEEDS`,
each with the extra that brings it; they are looked for before a run asks its first question. To add
one, write a module here and name it in FORMATS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from culturepark.records import Pair, Sample

Chat = list[dict[str, str]]
Files = dict[str, str]  # split → path of its rows, from the format's folder
Subsets = dict[str, Files]  # name → files; the first is what is loaded where none is named
WHOLE = "default"  # the name of the only subset
# where files lie that are not rows: loaders of data sets pass over names like this one
BESIDE = "__metadata__"
SPLITS = ("train", "validation", "test")
FORMATS = {
    "trl": "culturepark.corpora.formats.trl",
    "openai": "culturepark.corpora.formats.openai",
    "hub": "culturepark.corpora.formats.hub",
    "dpo": "culturepark.corpora.formats.dpo",
    "kto": "culturepark.corpora.formats.kto",
    "openai-dpo": "culturepark.corpora.formats.openai_dpo",
    "shares": "culturepark.corpora.formats.shares",
    "llamafactory": "culturepark.corpora.formats.llamafactory",
}
DEFAULT = ("trl", "openai")  # what the base install can write


def splits(folder: Path, name: str, rows: Callable[[str], Iterable[dict[str, Any]]]) -> Files:
    """Write a JSON Lines file per split that has rows; `name` holds {split}. Return the files."""
    paths = {split: name.format(split=split) for split in SPLITS}
    return {split: path for split, path in paths.items() if lines(folder / path, rows(split))}


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


def chat(sample: Sample) -> tuple[Chat, Chat]:
    """Return prompt and completion of a sample as chat messages."""
    return asked(sample), said(sample.completion)


def asked(record: Sample | Pair) -> Chat:
    """Return the prompt as chat messages: system and user."""
    return [
        {"role": "system", "content": record.system},
        {"role": "user", "content": record.prompt},
    ]


def said(text: str) -> Chat:
    """Return a completion as chat messages: one, the assistant's."""
    return [{"role": "assistant", "content": text}]


def metadata(sample: Sample) -> dict[str, Any]:
    """Return where a sample came from."""
    return sample.model_dump(
        include={"id", "culture", "question", "topic", "answer", "dialogue", "opinion", "persona"}
    )


def origin(pair: Pair) -> dict[str, Any]:
    """Return where both sides of a pair came from."""
    return pair.model_dump(exclude={"system", "prompt", "chosen", "rejected", "split"})
