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

# the name of a model of all cultures, and of the one job of a corpus without cultures
POOLED = "pooled"


@dataclass(frozen=True)
class Corpus:
    """Valid rows by split and culture, and the hash of their files."""

    title: str
    hash: str
    rows: Mapping[str, Mapping[str, Sequence[Row]]] = field(repr=False)

    def cultures(self) -> tuple[str, ...]:
        """Return the cultures that have training rows, by name."""
        return tuple(sorted(self.rows.get("train", {})))

    def select(self, split: str, culture: str) -> Sequence[Row]:
        """Return a culture's rows of a split; those of all cultures for `pooled`."""
        by_culture = self.rows.get(split, {})
        return (
            [row for name in sorted(by_culture) for row in by_culture[name]]
            if culture == POOLED
            else by_culture.get(culture, ())
        )


def read_corpus(source: Path, form: str, culture: str | None = None) -> Corpus:
    """Read a file or a folder (SPLIT.jsonl, or a folder of them per culture, or both of the same
    rows) in one of the formats of KEYS.

    All rows are of `culture` if it is given; else a row's culture is `metadata.culture`, else its
    folder's name. Raises InputError with file, line and mistake.
    """
    files = _list_files(source)
    if not any(split == "train" for _, split, _ in files):
        raise InputError(f"nothing to train on in {source}: there is no train.jsonl")
    by_split: dict[str, dict[str, list[Row]]] = {}
    digest = hashlib.blake2b(digest_size=8)
    for path, split, folder in files:
        _add_to_hash(path, digest)
        for number, fields in tables.json_lines(path):
            row = check_row(fields, form, f"{path}:{number}")
            name = culture or row["metadata"].get("culture") or folder
            if not name:
                raise InputError(
                    f"{path}:{number}: whose answer is this? It has no metadata.culture; name one"
                    " with --culture, or pool them"
                )
            by_split.setdefault(split, {}).setdefault(str(name), []).append(row)
    return Corpus(source.parent.name + "/" + source.name, digest.hexdigest(), by_split)


def _list_files(source: Path) -> list[tuple[Path, str, str | None]]:
    """Return (file, split, culture or None); a single file holds training rows."""
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
        if c is None or not _is_repeated(source / f"{s}.jsonl", s, there)
    ]


def _is_repeated(whole: Path, split: str, there: Sequence[tuple[Path, str, str | None]]) -> bool:
    """Return whether a split's files by culture repeat the rows of the file of all cultures."""
    return whole.is_file() and same_rows(
        whole, [path for path, s, culture in there if s == split and culture]
    )


def same_rows(whole: Path, parts: Iterable[Path]) -> bool:
    """Return whether `parts` together hold the lines of `whole`, in any order."""
    return _sum_hashes([whole]) == _sum_hashes(parts)


def _sum_hashes(paths: Iterable[Path]) -> int:
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


def _add_to_hash(path: Path, digest: Any) -> None:
    """Add a file's bytes to a hash."""
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def keep_modal_answers(rows: Iterable[Row]) -> list[Row]:
    """Return rows that answer each question with the most frequent option (of equals the first)."""
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


def tokenize_completions(
    tokenizer: Any, rows: Sequence[Row], length: int
) -> dict[str, list[list[int]]]:
    """Return `input_ids` and `labels` of prompt-completion rows; the loss is on the completion
    alone (labels -100 before it).

    Raises InputError for a row longer than `length` tokens: cut answers would teach unfinished
    ones.
    """
    parts = tokenize_side(tokenizer, rows, "completion", length)
    return {
        "input_ids": [prompt + answer for prompt, answer in parts],
        "labels": [[-100] * len(prompt) + answer for prompt, answer in parts],
    }


def tokenize_side(
    tokenizer: Any, rows: Sequence[Row], side: str, length: int
) -> list[tuple[list[int], list[int]]]:
    """Return each row's prompt and its answer in the column `side` as token ids.

    Raises InputError for a row of more than `length` tokens.
    """
    answers = [row[side][0]["content"] for row in rows]
    parts = tokenize_answers(tokenizer, [row["prompt"] for row in rows], answers)
    if (
        longest := max((len(prompt) + len(answer) for prompt, answer in parts), default=0)
    ) > length:
        raise InputError(f"a row has {longest} tokens, more than --length {length}; raise it")
    return parts
