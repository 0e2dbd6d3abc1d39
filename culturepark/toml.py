"""Reads TOML files for the whole project, and says in plain words what is wrong in them."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from culturepark.errors import CardError, nearest
from culturepark.records import Record

MAX_BYTES = 2_000_000  # a card or settings file is prose; a larger file is a mistake or an attack
LARGEST = 2**63  # TOML's integers have 64 bits
# byte order marks that other encodings begin with; UTF-32 before UTF-16, whose mark begins it
MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
ILLEGAL = "it holds the character {}, which TOML forbids"
WORDS = {  # how each message of tomllib begins → the same in plain words
    "Illegal character '\\n'": "a quote is opened and not closed on this line",
    "Found invalid character '\\n'": "a quote is opened and not closed on this line",
    "Unterminated string": "a quote is opened and never closed",
    "Expected \"'": "a quote is opened and never closed",
    "Illegal character": ILLEGAL,
    "Found invalid character": ILLEGAL,
    "Unclosed array": "a list is opened with '[' and not closed with ']' (or a comma is missing)",
    "Unclosed inline table": "a table is opened with '{' and not closed with '}' on the same line",
    "Invalid statement": "this is neither `key = value`, nor `[table]`, nor a `# comment`",
    "Expected '=' after a key": "a key without '=' and a value",
    "Invalid initial character for a key part": (
        "a key is missing, or one of other signs than A-Z a-z 0-9 _ - without quotes"
    ),
    "Invalid value": (
        "the value is missing or is no value: write text in straight quotes, 7, 0.7, true, false or"
        " [ … ]"
    ),
    "Cannot overwrite a value": "this key stands above already",
    "Duplicate inline table key": "a key stands twice in one table",
    "Cannot declare": "this table stands above already",
    "Cannot redefine namespace": "this table stands above already",
    "Cannot mutate immutable namespace": "this adds to a table or list that was whole above",
    "Expected newline or end of document": (
        "something stands behind the value; each `key = value` needs its own line"
    ),
    "Expected ']'": "the table's name is not closed with ']'",
    "Unescaped '\\' in a string": (
        "a backslash in a text in double quotes: write \\\\ or put the text in single quotes"
    ),
    "Invalid hex value": (
        "a backslash in a text in double quotes: write \\\\ or put the text in single quotes"
    ),
    "Escaped character is not": "an escape that stands for no character",
    "Invalid date or datetime": "a date that no calendar has",
}
_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
# what a text in TOML is made of, for finding what is open: comments, quoted texts, brackets, lone
# quotes
_PIECES = re.compile(
    r'''#[^\n]*|"""(?>\\.|[^\\])*?"""|\'{3}.*?\'{3}|"(?!"")(?>\\[^\n]|[^"\\\n])*+"|'(?!'')[^'\n]*+'|[][{}]|"""|\'{3}|["']''',
    re.DOTALL,
)
_KEY_AT_END = re.compile(r"\n[ \t]*[\w-]+[ \t]*=[ \t]*$")
_LONG_KEY = re.compile(r"""(?<![\w.-])(?:(?>[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){33}""")
_SECRET = re.compile(r"(?i)key|token|secret|passw|\bsk-")


def read_toml(path: Path, where: str | None = None) -> dict[str, Any]:
    """Return what a TOML file says; CardError says in one line why it cannot be read, `where` being
    the file's name in it.

    A UTF-8 byte order mark is passed over, as editors on Windows write one. Other encodings are
    named.
    """
    return parse_toml(read_text(path, where), where or str(path))


def read_text(path: Path, where: str | None = None) -> str:
    """Return the text of a UTF-8 file of at most MAX_BYTES; CardError says why it cannot be
    read.
    """
    where = where or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CardError([f"{where}: cannot be read: {error.strerror or error}"]) from error
    if len(data) > MAX_BYTES:
        raise CardError(
            [f"{where}: larger than {MAX_BYTES:,} bytes, which such a file has at most"]
        )
    return _decode(data, where)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return what a text in TOML says; CardError names the line and what is wrong in it."""
    if long := _LONG_KEY.search(text):
        line = text.count("\n", 0, long.start()) + 1
        raise CardError(
            [f"{where}: line {line}: a key of more than 32 parts; it is nested too deeply"]
        )
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise CardError([f"{where}: nested too deeply"]) from error
    except tomllib.TOMLDecodeError as error:
        raise CardError(
            [f"{where}: not valid TOML, {_explain_syntax(str(error), text)}"]
        ) from error
    except ValueError as error:  # what Python says of a number of thousands of digits
        raise CardError([f"{where}: not valid TOML: a number of too many digits"]) from error
    if odd := [f"{where}: {one_line('.'.join(key), 80)}: {why}" for key, why in _odd_numbers(data)]:
        raise CardError(odd)
    return data


def _decode(data: bytes, where: str) -> str:
    data = data.removeprefix(b"\xef\xbb\xbf")
    for mark, name in MARKS.items():
        if data.startswith(mark):
            raise CardError(
                [f"{where}: not UTF-8 text but {name} (by its first bytes); save it as UTF-8"]
            )
    if b"\0" in data[:200]:
        raise CardError(
            [f"{where}: not UTF-8 text but binary, or UTF-16 without a mark; save it as UTF-8"]
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        guess = data[error.start : error.start + 1].decode("cp1252", "replace")
        raise CardError(
            [
                f"{where}: not UTF-8 text: line {line} holds byte 0x{data[error.start]:02X} "
                f"({guess!r} in Windows-1252); save it as UTF-8"
            ]
        ) from error


def _odd_numbers(data: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys of numbers that no card or setting can mean."""
    ahead: list[tuple[tuple[str, ...], Any]] = [((), data)]
    while ahead:
        key, value = ahead.pop()
        if isinstance(value, dict):
            ahead += [((*key, str(name)), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            ahead += [((*key, str(i)), inner) for i, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            yield key, f"{value} is no number to work with"
        elif isinstance(value, int) and not -LARGEST <= value < LARGEST:
            yield key, "the number is larger than 64 bits hold"


# --------------------------------------------------------------- syntax


def _explain_syntax(message: str, text: str) -> str:
    """Return a message of tomllib in plain words, with the line and what stands in it."""
    at = _AT.search(message)
    bare, lines = _AT.sub("", message), text.splitlines() or [""]
    line = int(at[1]) if at and at[1] else len(lines)
    words = next((plain for start, plain in WORDS.items() if bare.startswith(start)), bare)
    words = words.replace("{}", bare.rsplit(" ", 1)[-1])
    if opened := _swallows_key(text, line):
        line, words = opened, "a text in three quotes is not closed before the next key"
    elif bare.startswith(("Unterminated", "Unclosed", "Expected \"'")):
        line = _open_at(text, line)
    elif (
        at
        and not at[1]
        and bare.startswith(("Invalid value", "Invalid initial"))
        and (bracket := _open_bracket(text))
    ):
        line, words = (
            bracket[0],
            WORDS["Unclosed array" if bracket[1] == "[" else "Unclosed inline table"],
        )
    return f"line {line}: {words}{_format_value(lines, line)}"


def _open_at(text: str, line: int) -> int:
    """Return the line of the first quote or bracket that is open at the end of `line`."""
    starts = list[int]()
    for n, piece in _iterate_pieces(text):
        if n > line:
            break
        if piece in ('"', "'", '"' * 3, "'" * 3):
            return n
        if piece in "[{":
            starts.append(n)
        elif piece in "]}" and starts:
            starts.pop()
    return starts[0] if starts else line


def _open_bracket(text: str) -> tuple[int, str] | None:
    """Return line and sign of the last bracket that is open at the end of a text."""
    brackets = list[tuple[int, str]]()
    for n, piece in _iterate_pieces(text):
        if piece in "[{":
            brackets.append((n, piece))
        elif piece in "]}" and brackets:
            brackets.pop()
    return brackets[-1] if brackets else None


def _swallows_key(text: str, line: int) -> int | None:
    """Return where a text in three quotes begins that only ends, up to `line`, at the quotes that
    open another one.
    """
    for n, piece in _iterate_pieces(text):
        if n > line:
            return None
        if piece[:3] in ('"' * 3, "'" * 3) and _KEY_AT_END.search(piece[3:-3]):
            return n
    return None


def _iterate_pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments, quoted texts, brackets and lone quotes of a text with the lines they
    begin in.
    """
    line, place = 1, 0
    for match in _PIECES.finditer(text):
        line, place = line + text.count("\n", place, match.start()), match.start()
        yield line, match[0]


def _format_value(lines: Sequence[str], line: int) -> str:
    """Return what stands in a line; nothing where a key could be in it."""
    text = lines[line - 1].strip() if line <= len(lines) else ""
    table = next((one for one in reversed(lines[:line]) if one.lstrip().startswith("[")), "")
    if not text or _SECRET.search(text) or _SECRET.search(table):
        return ""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:81])
    return f": {text if len(text) <= 80 else text[:79] + '…'}"


# ------------------------------------------------------------- records


def explain(error: ValidationError, kind: type[BaseModel], whole: str = "card") -> list[str]:
    """Return one line per mistake: key, what is wrong, the value, and the nearest right name.

    `whole` names what was read, for a mistake that is none of a key's.
    """
    items: list[dict[str, Any]] = [dict(item) for item in error.errors(include_url=False)]
    wrong_inside = {
        item["loc"][:-1] for item in items if item["loc"]
    }  # such lists are not too short, if only for that
    return [
        one_line(_explain_error(item, kind, whole))
        for item in items
        if item["type"] != "too_short" or item["loc"] not in wrong_inside
    ]


def misread(data: Any, value: Any, key: str = "") -> Iterator[str]:
    """Yield where a record took a text or truth value of `data`, from which it was read, for a
    number, or the like.
    """
    inner: Iterable[tuple[Any, Any, Any]] = ()
    if isinstance(value, Record) and isinstance(data, Mapping):
        names = {info.alias or name: name for name, info in type(value).model_fields.items()}
        inner = ((k, data[k], getattr(value, name)) for k, name in names.items() if k in data)
    elif isinstance(value, Mapping) and isinstance(data, Mapping):
        inner = ((k, data[k], v) for k, v in value.items() if k in data)
    elif (
        isinstance(value, (list, tuple))
        and isinstance(data, (list, tuple))
        and len(value) == len(data)
    ):
        inner = zip(range(len(data)), data, value, strict=True)
    elif isinstance(value, bool) != isinstance(data, bool) and isinstance(
        value, (bool, int, float)
    ):
        yield (
            f"{key}: must be {'true or false' if isinstance(value, bool) else 'a number'} (there is"
            f" {_find_value(data)})"
        )
    elif isinstance(value, (int, float)) and isinstance(data, str):
        yield f"{key}: must be a number, without quotes (there is {_find_value(data)})"
    for name, given, read in inner:
        yield from misread(given, read, f"{key}.{name}" if key else str(name))


def one_line(text: str, longest: int = 500) -> str:
    """Return text on one line, cut where it is long: it may repeat what stands in a file."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _explain_error(item: dict[str, Any], kind: type[BaseModel], whole: str) -> str:
    key = ".".join(str(part) for part in item["loc"]) or whole
    if item["type"] == "extra_forbidden":
        return (
            f"{key}: unknown key."
            f" {nearest(str(item['loc'][-1]), _format_keys(kind, item['loc'][:-1]))}"
        )
    if item["type"] == "missing":
        return f"{key}: missing"
    if item["type"] == "json_invalid":
        return f"not valid JSON: {item.get('ctx', {}).get('error', '')}"
    if item["type"] == "value_error":
        return f"{key}: {item['msg'].removeprefix('Value error, ')}"
    return f"{key}: {_format_message(item)} (there is {_find_value(item.get('input'))})"


def _format_message(item: dict[str, Any]) -> str:
    """Return pydantic's message of one mistake in plain words."""
    known, limits = item["type"], item.get("ctx", {})
    if known == "literal_error":
        names = re.findall(r"'([^']*)'", str(limits["expected"]))
        return f"no such choice. {nearest(str(item.get('input')), names)[:-1]}"
    if known in LIMITS:
        return LIMITS[known].format(**limits)
    kind = next((words for start, words in TYPES.items() if known.startswith(start)), None)
    return f"must be {kind}" if kind else str(item["msg"]).replace("Input should be", "must be")


LIMITS = {
    "greater_than": "must be more than {gt:,.12g}",
    "greater_than_equal": "must be at least {ge:,.12g}",
    "less_than": "must be less than {lt:,.12g}",
    "less_than_equal": "must be at most {le:,.12g}",
    "string_too_short": "must not be empty",
    "string_too_long": "is longer than {max_length:,} characters",
    "too_short": "needs at least {min_length:,}",
    "too_long": "has more than {max_length:,}",
}
TYPES = {  # how the type of a mistake begins → what must stand there
    "string": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "finite": "a finite number",
    "tuple": "a list: [ … ]",
    "list": "a list: [ … ]",
    "dict": "a table: { … }",
    "model": "a table: { … }",
}


def _find_value(value: Any) -> str:
    if isinstance(value, dict):
        return f"a table of {len(value)} keys"
    if isinstance(value, (list, tuple)) and len(value) > 3:
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _format_keys(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys a card may have at `path`."""
    for step in path:
        if isinstance(step, int):
            continue
        for name, info in kind.model_fields.items():
            inner = _find_record(info.annotation)
            if step in (name, info.alias) and inner:
                kind = inner
    return sorted(info.alias or name for name, info in kind.model_fields.items())


def _find_record(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        (found for arg in getattr(annotation, "__args__", ()) if (found := _find_record(arg))), None
    )
