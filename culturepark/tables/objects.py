"""Reads JSON and JSON Lines: objects with the line they stand on, no key twice, no half of a
character.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from culturepark.errors import InputError
from culturepark.tables import lines
from culturepark.tables.layout import DELIMITERS
from culturepark.tables.lines import replace_halves

BLANK = "blank lines, passed over"
ESCAPED = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # half a character, written as an escape
BRACKETS = ("{", "[")
PLAIN = (
    ("Expecting property name", "a key in double quotes should stand here"),
    ("Expecting ':'", "a colon should stand here"),
    ("Expecting ','", "a comma or a closing bracket should stand here"),
    ("Expecting value", "a value should stand here"),
)
TRAILING = re.compile(r",\s*\Z")


class _Twice(ValueError):
    """A key that stands twice in one object."""


def parse(text: str | bytes, where: str, notices: Counter[str] | None = None) -> Any:
    """Return what a JSON text holds; InputError, beginning with `where`, for what is none, for a
    key that stands twice in an object, and for a text that is nested too deep.
    """
    try:
        text = text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text
        held = DECODER.decode(text.removeprefix("\ufeff"))
        return (
            _whole(held, Counter() if notices is None else notices)
            if ESCAPED.search(text)
            else held
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {_why(error)} ({_place(error)})") from error
    except _Twice as error:
        raise InputError(f"{where}: the key {str(error)!r} stands twice in one object") from error
    except RecursionError as error:
        raise InputError(f"{where}: not JSON that can be read: nested too deep") from error
    except ValueError as error:  # bytes that are no UTF-8, a number of thousands of digits
        raise InputError(f"{where}: not JSON: {str(error).partition(';')[0]}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Twice(
            next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        )
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _place(error: json.JSONDecodeError) -> str:
    """Return line and column within a text of several lines, the column alone within one line."""
    return (
        f"line {error.lineno}, column {error.colno}"
        if "\n" in error.doc
        else f"column {error.colno}"
    )


def _why(error: json.JSONDecodeError) -> str:
    """Say what is wrong, in plain words where it is what people often meet."""
    before, after = error.doc[: error.pos], error.doc[error.pos : error.pos + 1]
    if (after in ("}", "]") and TRAILING.search(before)) or "railing comma" in error.msg:
        return "a comma before a closing bracket, which JSON does not allow; take it out"
    if "Unterminated string" in error.msg or "control character" in error.msg:
        return f"{error.msg}: is the record cut, or a line break within quotes?"
    if error.msg == "Extra data":
        return _why_more(before, error.doc)
    if not error.doc.strip():
        return "nothing stands here"
    if error.pos == 0 and after not in BRACKETS:
        return _why_no_object(error.doc)
    if not error.doc[error.pos :].strip():
        return (
            "it ends before its last bracket closes: is it cut, or does an object span several"
            " lines? Write each object on one line, or all of them in one list: [{…}, {…}]"
        )
    return next((plain for said, plain in PLAIN if error.msg.startswith(said)), error.msg)


def _why_more(before: str, text: str) -> str:
    """Say what is wrong where text follows a whole JSON value."""
    if "\r" in before[len(before.rstrip()) :] and "\n" not in text:
        return "its lines end in a carriage return alone; save it with line ends \\n or \\r\\n"
    if text[len(before) :].startswith("{"):
        return "one object follows another; put each on a line of its own"
    return (
        "text follows the last bracket" if before.lstrip()[:1] in BRACKETS else _why_no_object(text)
    )


def _why_no_object(text: str) -> str:
    """Say what a text seems to be that begins with no bracket."""
    first = text.strip().splitlines()[0]
    table = ". This seems to be a table: name such a file .csv or .tsv"
    hint = table if any(mark in first for mark in DELIMITERS) else ""
    return f"it begins {first[:40]!r}, and an object begins with {{{hint}"


def _whole(value: Any, notices: Counter[str]) -> Any:
    """Return a value in which halves of characters are replaced, in keys as in texts."""
    if isinstance(value, str):
        return value if value.isascii() else replace_halves(value, notices)
    if isinstance(value, list):
        return [_whole(part, notices) for part in value]
    if isinstance(value, dict):
        return {_whole(key, notices): _whole(part, notices) for key, part in value.items()}
    return value


def json_lines(
    path: Path, notices: Counter[str] | None = None, encoding: str = ""
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the object of every line that is not blank, with the line's number; blank lines are
    counted in `notices`.
    """
    notices = Counter() if notices is None else notices
    yield from _objects(path, lines.read(path, encoding, notices), notices)


def _objects(
    path: Path, held: Iterable[tuple[int, str]], notices: Counter[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in held:
        if line.strip():
            yield number, _row(parse(line.strip(), f"{path}:{number}", notices), f"{path}:{number}")
        else:
            notices[BLANK] += 1


def _row(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(
            f"{where}: {type(value).__name__} where an object should stand; a row is an object"
        )
    return value


def read(
    path: Path, suffix: str, encoding: str, notices: Counter[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the objects of a file: JSON Lines (with their lines), a list of objects, or one object
    that holds one such list (with their places in the list, from 1). Its first character says which
    of them it is, and whether it ends after one object.
    """
    source = lines.read(path, encoding, notices)
    head = list(_up_to_text(source))
    listed = bool(head) and head[-1][1].lstrip().startswith("[")
    if suffix == ".json" or listed:
        text = "".join(line for _, line in chain(head, source))
        if not text.strip():
            raise InputError(f"{path}: the file is empty; JSON rows are a list of objects")
        if not (suffix == ".json" and _is_json_lines(text)):
            yield from _list(path, parse(text, str(path), notices))
            return
        head, source = [], iter(enumerate(text.split("\n"), 1))
    yield from _objects(path, chain(head, source), notices)


def _up_to_text(source: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the first lines up to one that is not blank."""
    for number, line in source:
        yield number, line
        if line.strip():
            return


def _is_json_lines(text: str) -> bool:
    """Say whether a text is one object after another: many name JSON Lines .json."""
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return text.lstrip()[:1] == "{" and text.lstrip()[end:].lstrip()[:1] == "{"


def _list(path: Path, held: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if isinstance(held, dict):
        lists = [value for value in held.values() if isinstance(value, list)]
        held = lists[0] if len(lists) == 1 else held
    if not isinstance(held, list):
        raise InputError(
            f"{path}: neither a list of objects nor an object that holds one such list"
        )
    for place, row in enumerate(held, 1):
        yield place, _row(row, f"{path}: object {place}")
