"""Export formats: one file each, with a Format. To add one, write a module here and name it in
`registry.FORMATS`; or keep it in your own package and export to `package.module:NAME`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from culturepark.records import SPLITS as SPLITS
from culturepark.records import Pair, Sample

Chat = list[dict[str, str]]
Files = dict[str, str]  # split → path of its rows, from the format's folder
Subsets = dict[str, Files]  # name → files; the first is what is loaded where none is named
WHOLE = "default"  # the name of the only subset
# where files lie that are not rows: loaders of data sets pass over names like this one
BESIDE = "__metadata__"
DEFAULT = ("trl", "openai")  # what the base install can write


@dataclass(frozen=True)
class Format:
    """How a corpus is written: `write(source, folder)` writes its files and returns its Subsets,
    which the folder's card names, so that `datasets.load_dataset(folder)` reads these files and no
    others.

    `source` yields a split's samples, pairs or shares; `reads` says which of the three there must
    be some of. The first paragraph of `about` stands on the card. `needs` names libraries beyond
    the base install, each with the extra that brings it ("" for none of ours); they are looked for
    before a run asks its first question.
    """

    write: Callable[[Any, Path], Subsets]
    reads: Literal["samples", "pairs", "shares"]
    about: str | None = None
    needs: Mapping[str, str] = field(default_factory=dict)


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
    return prompt_messages(sample), answer_message(sample.completion)


def prompt_messages(record: Sample | Pair) -> Chat:
    """Return the prompt as chat messages: system where there is one, history and user."""
    system = [{"role": "system", "content": record.system}] if record.system else []
    history = [{"role": m.role, "content": m.content} for m in record.history]
    return [*system, *history, {"role": "user", "content": record.prompt}]


def answer_message(text: str) -> Chat:
    """Return a completion as chat messages: one, the assistant's."""
    return [{"role": "assistant", "content": text}]


def metadata(sample: Sample) -> dict[str, Any]:
    """Return where a sample came from: its dialogue, or file, line and hash."""
    if sample.origin is not None:
        return _describe_origin(sample)
    return sample.model_dump(
        include={"id", "culture", "question", "topic", "answer", "dialogue", "opinion", "persona"}
    )


def _describe_origin(record: Sample | Pair) -> dict[str, Any]:
    known = record.model_dump(include={"id", "culture", "question", "topic"})
    return known | (record.origin.model_dump() if record.origin else {})


def origin(pair: Pair) -> dict[str, Any]:
    """Return where both sides of a pair came from."""
    if pair.origin is not None:
        return _describe_origin(pair)
    return pair.model_dump(
        exclude={"system", "prompt", "chosen", "rejected", "split", "history", "origin"}
    )
