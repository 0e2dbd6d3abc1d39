"""The layout of a file of rows: from its name, and from options where name and first lines do not
suffice.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from culturepark.errors import InputError, nearest

DELIMITERS = ",;\t|"
SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
QUOTING = ("", "minimal", "none")
ENCODINGS = "utf-8 utf-16 latin-1 cp1252 cp1251 cp1256 gb18030 big5 shift_jis euc_kr".split()
OPTIONS: Mapping[str, Any] = {"columns": (), "delimiter": "", "quoting": "", "encoding": ""}
TABLES, OBJECTS = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json")
SUFFIXES = TABLES + OBJECTS  # each also compressed: .csv.gz


@dataclass(frozen=True)
class Layout:
    """How to read a file; what is empty is detected.

    `columns` names the columns of a table without a header row. `delimiter` is one character.
    `quoting`: with `none` a quote is a character like any other and each line is a row; with
    `minimal` a quoted cell may hold any number of delimiters and line breaks; by default it may
    too, unless its lines look like rows. `encoding` is any of Python's text encodings.
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ""
    quoting: str = ""
    encoding: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layout:
        """Return the layout in a benchmark's options; raises InputError for invalid ones."""
        columns, quoting = _split_names(options.get("columns", ())), str(options.get("quoting", ""))
        delimiter = str(options.get("delimiter", ""))
        delimiter = SPELLED.get(delimiter.casefold(), delimiter)
        if quoting not in QUOTING:
            raise InputError(f"the option quoting = {quoting!r}: {nearest(quoting, QUOTING[1:])}")
        if len(delimiter) > 1 or delimiter in ('"', "\n", "\r", "\0"):
            raise InputError(
                f"the option delimiter = {delimiter!r}: one character, such as ; or tab"
            )
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise InputError(f"the option columns names {twice[0]!r} twice")
        return cls(columns, delimiter, quoting, _check_encoding(str(options.get("encoding", ""))))


def _split_names(names: str | Sequence[Any]) -> tuple[str, ...]:
    """Return column names from a list, or from a text with commas between them."""
    parts = names.split(",") if isinstance(names, str) else names
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _check_encoding(name: str) -> str:
    try:
        if name:
            "a".encode(codecs.lookup(name).name)
    except (LookupError, ValueError, UnicodeError) as error:
        raise InputError(
            f"the option encoding = {name!r}: no text encoding. {nearest(name, ENCODINGS)}"
        ) from error
    return name


def kind_of(path: Path, what: str = "rows are") -> str:
    """Return the suffix that tells a file's format, without .gz; raises InputError for an unknown
    one. `what` begins the sentence about it, such as "votes are".
    """
    last = Path(path.name.lower().removesuffix(".gz")).suffix
    if last not in SUFFIXES:
        raise InputError(
            f"{path}: {what} read from files that end in {', '.join(SUFFIXES)}, also packed (.gz)"
        )
    return last


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix, and without .gz."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def suggest_columns(path: Path) -> str:
    """Return a sentence for errors about a table's columns: what to do without a header line."""
    text = kind_of(path) in TABLES
    return " If its first line is no header, name the columns: -o columns=a,b,c" if text else ""
