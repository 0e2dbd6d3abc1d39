"""Reads training files, sorts their rows by culture, and turns them into token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, nearest
from culturepark.local_models.chat import tokenize_answers
from culturepark.records import SPLITS
from culturepark.tables.conversations import Row as Row
from culturepark.tables.conversations import check_row

# what a model of all cultures is called, and the one job of a corpus that is not parted
POOLED = "pooled"


@dataclass(frozen=True)
class Corpus:
    """Checked rows by split and culture, and the hash of the files they came from."""

    title: str
    hash: str
    rows: Mapping[str, Mapping[str, Sequence[Row]]] = field(repr=False)

    def cultures(self) -> tuple[str, ...]:
        """Return the cultures that have something to train on, by name."""
        return tuple(sorted(self.rows.get("train", {})))

    def of(self, split: str, culture: str) -> Sequence[Row]:
        """Return a culture's rows of a split; `pooled` has everybody's."""
        held = self.rows.get(split, {})
        return (
            [row for name in sorted(held) for row in held[name]]
            if culture == POOLED
            else held.get(culture, ())
        )


def read(source: Path, form: str, culture: str | None = None) -> Corpus:
    """Read a file or a folder (SPLIT.jsonl, or a folder of them per culture, or both of the same
    rows) in one of the forms of KEYS.

    A row's culture is `metadata.culture`, else its folder's name, else `culture`. InputError names
    file, line and mistake.
    """
    files = _files(source)
    if not any(split == "train" for _, split, _ in files):
        raise InputError(f"nothing to train on in {source}: there is no train.jsonl")
    made: dict[str, dict[str, list[Row]]] = {}
    digest = hashlib.blake2b(digest_size=8)
    for path, split, folder in files:
        _hash(path, digest)
        for number, held in tables.json_lines(path):
            row = check_row(held, form, f"{path}:{number}")
            name = culture or row["metadata"].get("culture") or folder
            if not name:
                raise InputError(
                    f"{path}:{number}: whose answer is this? It has no metadata.culture; name one"
                    " with --culture, or pool them"
                )
            made.setdefault(split, {}).setdefault(str(name), []).append(row)
    return Corpus(source.parent.name + "/" + source.name, digest.hexdigest(), made)


def _files(source: Path) -> list[tuple[Path, str, str | None]]:
    """Return (file, split, culture or None); a single file is one to train on."""
    if source.is_file():
        return [(source, "train", None)]
    if not source.is_dir():
        raise InputError(
            f"no corpus at {source}."
            f" {nearest(source.name, sorted(p.name for p in source.parent.glob('*')))}"
        )
    here = [(source / f"{s}.jsonl", s, None) for s in SPLITS]
    folders = [
        f for f in sorted(source.iterdir()) if f.is_dir() and not f.name.startswith((".", "_"))
    ]
    below = [(f / f"{s}.jsonl", s, f.name) for f in folders for s in SPLITS]
    there = [(p, s, c) for p, s, c in [*here, *below] if p.is_file()]
    return [
        (p, s, c)
        for p, s, c in there
        if c is None or not _told_already(source / f"{s}.jsonl", s, there)
    ]


def _told_already(whole: Path, split: str, there: Sequence[tuple[Path, str, str | None]]) -> bool:
    """Say whether a split's files by culture hold the rows of the file of all cultures once
    more.
    """
    return whole.is_file() and same_rows(
        whole, [path for path, s, culture in there if s == split and culture]
    )


def same_rows(whole: Path, parts: Iterable[Path]) -> bool:
    """Say whether the lines of `parts` are together those of `whole`, in whatever order."""
    return _fingerprint([whole]) == _fingerprint(parts)


def _fingerprint(paths: Iterable[Path]) -> int:
    """Return the sum of the hashes of all lines of files."""
    total = 0
    for path in paths:
        try:
            with path.open("rb") as file:
                total += sum(
                    int.from_bytes(hashlib.blake2b(line, digest_size=16).digest()) for line in file
                )
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return total


def _hash(path: Path, digest: Any) -> None:
    """Add a file's bytes to a hash."""
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def modal(rows: Iterable[Row]) -> list[Row]:
    """Return rows that answer each question with the majority's option alone (the first among
    equals).
    """
    return [
        {
            "prompt": row["prompt"],
            "completion": [
                {
                    "role": "assistant",
                    "content": f"{row['options'][row['shares'].index(max(row['shares']))]}.",
                }
            ],
            "metadata": row["metadata"],
        }
        for row in rows
    ]


# ------------------------------------------------------------------ tokens


def tokenised(tokenizer: Any, rows: Sequence[Row], length: int) -> dict[str, list[list[int]]]:
    """Return `input_ids` and `labels` of prompt-completion rows; the loss is on the completion
    alone (labels -100 before it).

    InputError where a row is longer than `length` tokens: cutting an answer would teach unfinished
    ones.
    """
    parts = answered(tokenizer, rows, "completion", length)
    return {
        "input_ids": [prompt + said for prompt, said in parts],
        "labels": [[-100] * len(prompt) + said for prompt, said in parts],
    }


def answered(
    tokenizer: Any, rows: Sequence[Row], side: str, length: int
) -> list[tuple[list[int], list[int]]]:
    """Return each row's prompt and its answer of a `side` as token ids; InputError where they are
    more than `length`.
    """
    answers = [row[side][0]["content"] for row in rows]
    parts = tokenize_answers(tokenizer, [row["prompt"] for row in rows], answers)
    if (longest := max((len(prompt) + len(said) for prompt, said in parts), default=0)) > length:
        raise InputError(f"a row has {longest} tokens, more than --length {length}; raise it")
    return parts
