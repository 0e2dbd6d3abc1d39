"""Reads JSON and JSON Lines: objects with their line; refuses repeated keys, mends half
characters.
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

BLANK = "blank lines, passed over"  # a notice
ESCAPED = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # half a character, written as an escape
BRACKETS = ("{", "[")
PLAIN = (
    ("Expecting property name", "a key in double quotes should stand here"),
    ("Expecting ':'", "a colon should stand here"),
    ("Expecting ','", "a comma or a closing bracket should stand here"),
    ("Expecting value", "a value should stand here"),
)
TRAILING = re.compile(r",\s*\Z")


class _RepeatedKey(ValueError):
    """A key that stands twice in one object."""


def parse_json(text: str | bytes, where: str, notices: Counter[str] | None = None) -> Any:
    """Return the value of a JSON text.

    Raises InputError, beginning with `where`, for invalid JSON, for a key that stands twice in an
    object, and for too deep a nesting.
    """
    try:
        text = text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text
        value = DECODER.decode(text.removeprefix("\ufeff"))
        if not ESCAPED.search(text):
            return value
        return _mend_halves(value, Counter() if notices is None else notices)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not JSON: {_explain_error(error)} ({_format_place(error)})"
        ) from error
    except _RepeatedKey as error:
        raise InputError(f"{where}: the key {str(error)!r} stands twice in one object") from error
    except RecursionError as error:
        raise InputError(f"{where}: not JSON that can be read: nested too deep") from error
    except ValueError as error:  # bytes that are no UTF-8, a number of thousands of digits
        raise InputError(f"{where}: not JSON: {str(error).partition(';')[0]}") from error


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        raise _RepeatedKey(
            next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        )
    return built


DECODER = json.JSONDecoder(object_pairs_hook=_build_object)


def _format_place(error: json.JSONDecodeError) -> str:
    """Return line and column in a text of several lines, the column alone in a single line."""
    line = f"line {error.lineno}, " if "\n" in error.doc else ""
    return f"{line}column {error.colno}"


def _explain_error(error: json.JSONDecodeError) -> str:
    """Return what is wrong with a text, in plain words for common mistakes."""
    before, after = error.doc[: error.pos], error.doc[error.pos : error.pos + 1]
    if (after in ("}", "]") and TRAILING.search(before)) or "railing comma" in error.msg:
        return "a comma before a closing bracket, which JSON does not allow; take it out"
    if "Unterminated string" in error.msg or "control character" in error.msg:
        return f"{error.msg}: is the record cut, or a line break within quotes?"
    if error.msg == "Extra data":
        return _explain_extra(before, error.doc)
    if not error.doc.strip():
        return "nothing stands here"
    if error.pos == 0 and after not in BRACKETS:
        return _explain_start(error.doc)
    if not error.doc[error.pos :].strip():
        return (
            "it ends before its last bracket closes: is it cut, or does an object span several"
            " lines? Write each object on one line, or all of them in one list: [{…}, {…}]"
        )
    return next((plain for begin, plain in PLAIN if error.msg.startswith(begin)), error.msg)


def _explain_extra(before: str, text: str) -> str:
    """Return what is wrong if text follows a complete JSON value."""
    if "\r" in before[len(before.rstrip()) :] and "\n" not in text:
        return "its lines end in a carriage return alone; save it with line ends \\n or \\r\\n"
    if text[len(before) :].startswith("{"):
        return "one object follows another; put each on a line of its own"
    if before.lstrip()[:1] in BRACKETS:
        return "text follows the last bracket"
    return _explain_start(text)


def _explain_start(text: str) -> str:
    """Return what a text seems to be that does not begin with a bracket."""
    first = text.strip().splitlines()[0]
    table = ". This seems to be a table: name such a file .csv or .tsv"
    hint = table if any(mark in first for mark in DELIMITERS) else ""
    return f"it begins {first[:40]!r}, and an object begins with {{{hint}"


def _mend_halves(value: Any, notices: Counter[str]) -> Any:
    """Return a value with half characters replaced, in its keys too."""
    if isinstance(value, str):
        return value if value.isascii() else replace_halves(value, notices)
    if isinstance(value, list):
        return [_mend_halves(part, notices) for part in value]
    if isinstance(value, dict):
        return {
            _mend_halves(key, notices): _mend_halves(part, notices) for key, part in value.items()
        }
    return value


def json_lines(
    path: Path, notices: Counter[str] | None = None, encoding: str = ""
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and object of every line; `notices` counts blank lines."""
    notices = Counter() if notices is None else notices
    yield from _parse_lines(path, lines.read_lines(path, encoding, notices), notices)


def _parse_lines(
    path: Path, source: Iterable[tuple[int, str]], notices: Counter[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in source:
        if line.strip():
            yield (
                number,
                _require_object(
                    parse_json(line.strip(), f"{path}:{number}", notices), f"{path}:{number}"
                ),
            )
        else:
            notices[BLANK] += 1


def _require_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(
            f"{where}: {type(value).__name__} where an object should stand; a row is an object"
        )
    return value


def read_objects(
    path: Path, suffix: str, encoding: str, notices: Counter[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the objects of a file with their line, or their place in its list, from 1.

    The file is JSON Lines, a list of objects, or one object that holds one such list, recognised by
    its first character and by what follows the first object.
    """
    source = lines.read_lines(path, encoding, notices)
    head = list(_up_to_text(source))
    is_list = bool(head) and head[-1][1].lstrip().startswith("[")
    if suffix == ".json" or is_list:
        text = "".join(line for _, line in chain(head, source))
        if not text.strip():
            raise InputError(f"{path}: the file is empty; JSON rows are a list of objects")
        if not (suffix == ".json" and _is_json_lines(text)):
            yield from _list_objects(path, parse_json(text, str(path), notices))
            return
        head, source = [], iter(enumerate(text.split("\n"), 1))
    yield from _parse_lines(path, chain(head, source), notices)


def _up_to_text(source: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield lines up to and with the first that is not blank."""
    for number, line in source:
        yield number, line
        if line.strip():
            return


def _is_json_lines(text: str) -> bool:
    """Return whether a text is one object after another: many name JSON Lines .json."""
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return text.lstrip()[:1] == "{" and text.lstrip()[end:].lstrip()[:1] == "{"


def _list_objects(path: Path, value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if isinstance(value, dict):
        lists = [value for value in value.values() if isinstance(value, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise InputError(
            f"{path}: neither a list of objects nor an object that holds one such list"
        )
    for place, row in enumerate(value, 1):
        yield place, _require_object(row, f"{path}: object {place}")
