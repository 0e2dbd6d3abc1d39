"""Says how a file of rows is laid out: what its name tells, and what options tell where its name
and first lines do not.
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
OPTIONS: Mapping[str, Any] = {"columns": (), "delimiter": "", "quoting": "", "encoding": ""}
TABLES, OBJECTS = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json")
SUFFIXES = TABLES + OBJECTS  # each of them also packed: .csv.gz


@dataclass(frozen=True)
class Layout:
    """How a file is to be read; what is empty is found out.

    `columns` names the columns of a table without a header row. `delimiter` is one character.
    `quoting`: with `none` a quote is a character like any other and each line is a row; with
    `minimal` a quoted cell may hold delimiters and line breaks, however many; without either it may
    too, unless the lines in it look like rows. `encoding` is any of Python's text encodings.
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ""
    quoting: str = ""
    encoding: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Layout:
        """Return the layout that a benchmark's options ask for; InputError for one that cannot
        be.
        """
        columns, quoting = _names(options.get("columns", ())), str(options.get("quoting", ""))
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
        return cls(columns, delimiter, quoting, _encoding(str(options.get("encoding", ""))))


def _names(given: str | Sequence[Any]) -> tuple[str, ...]:
    """Return column names as given: a list, or one text with commas between them."""
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _encoding(name: str) -> str:
    try:
        if name:
            "a".encode(codecs.lookup(name).name)
    except (LookupError, ValueError, UnicodeError) as error:
        known = (
            "utf-8",
            "utf-16",
            "latin-1",
            "cp1252",
            "cp1251",
            "cp1256",
            "gb18030",
            "big5",
            "shift_jis",
            "euc_kr",
        )
        raise InputError(
            f"the option encoding = {name!r}: no text encoding. {nearest(name, known)}"
        ) from error
    return name


def kind_of(path: Path, what: str = "rows are") -> str:
    """Return the suffix that says what a file holds, without .gz; InputError for one that is not
    read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    last = (
        suffixes[-1]
        if suffixes and path.name.lower().removesuffix(".gz").endswith(suffixes[-1])
        else ""
    )
    if last not in SUFFIXES:
        raise InputError(
            f"{path}: {what} read from files that end in {', '.join(SUFFIXES)}, also packed (.gz)"
        )
    return last


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix, and without .gz."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def headless(path: Path) -> str:
    """Return a sentence for errors about a table's columns: what to do where its first line is no
    header.
    """
    text = kind_of(path) in TABLES
    return " If its first line is no header, name the columns: -o columns=a,b,c" if text else ""
