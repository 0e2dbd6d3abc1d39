"""Decodes a file into numbered lines of text: compressed or not, in its encoding, within bounds."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from culturepark.errors import InputError

LONGEST = 1 << 27  # bytes of one line
LARGEST = 1 << 33  # bytes of a file, uncompressed
WIDE = 1 << 30  # bytes of a file that must be decoded before its lines are known (UTF-16)
LONE = re.compile("[\ud800-\udfff]")
HALVES = "halves of characters, replaced by U+FFFD"
MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
UTF8_MARK = b"\xef\xbb\xbf"

WEB_PAGE = (
    "a web page, perhaps the one that the file was to be downloaded from; download the file itself"
)
# First bytes of what people download or save instead of a table, and what to do about it.
FOREIGN = {
    b"$FL": "an SPSS file; export it as CSV, with codes instead of labels",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"<stata_dta>": "a Stata file; export it as CSV, with codes instead of labels",
    b"RDX": "R data; export it as CSV",
    b"PAR1": (
        "a Parquet file; write it as JSON Lines (pandas: to_json(orient='records', lines=True))"
    ),
    b"ARROW1": "an Arrow file; write it as JSON Lines",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"BZh": "packed with bzip2; unpack it",
    b"\xfd7zXZ": "packed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it",
    b"%PDF": "a PDF file; a table is needed",
    b"<!DOCTYPE": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"version https://git-lfs": "a Git LFS pointer, not the file; fetch it (git lfs pull)",
}


class Unreadable(InputError):
    """Text that cannot be read: `what` is wrong, and the option that helps in a benchmark."""

    def __init__(self, what: str, option: str) -> None:
        self.what = what
        super().__init__(f"{what}. {option}")


def read_lines(
    path: Path, encoding: str = "", notices: Counter[str] | None = None
) -> Iterator[tuple[int, str]]:
    """Yield every line with its number, from 1, and its line end, which the last one may lack.

    `encoding` applies to files without a byte order mark; empty means UTF-8. Half characters become
    U+FFFD, counted in `notices`. Raises InputError, with file, line and column, for what is not
    text or beyond the bounds.
    """
    notices = Counter() if notices is None else notices
    try:
        with _open(path) as file:
            head = _read_head(path, file)
            mark = next((name for mark, name in MARKS if head.startswith(mark)), "")
            encoding = mark or ("utf-8" if head.startswith(UTF8_MARK) else encoding) or "utf-8"
            file.seek(len(UTF8_MARK) if head.startswith(UTF8_MARK) else 0)
            wide = "\n".encode(encoding) != b"\n"
            yield from (_read_wide if wide else _read_narrow)(path, file, encoding, notices)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip data: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> BinaryIO:
    """Open a file, through gzip if its first bytes say so."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path)) if is_gzip else path.open("rb")


def _read_head(path: Path, file: BinaryIO) -> bytes:
    """Return a file's first bytes; raises InputError if they are those of a binary format."""
    head = file.read(64)
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{path}: this is {what}")
    return head


def _read_narrow(
    path: Path, file: BinaryIO, encoding: str, notices: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file in an encoding in which byte 10 ends a line."""
    number = size = 0
    while raw := file.readline(LONGEST + 1):
        number, size = number + 1, size + len(raw)
        if len(raw) > LONGEST or size > LARGEST:
            line = f"a line of more than {LONGEST:,}" if len(raw) > LONGEST else ""
            most = line or f"more than {LARGEST:,}"
            raise InputError(f"{path}:{number}: {most} bytes; split the file")
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            text = _decode_halves(raw, encoding, notices) or _refuse_bytes(
                path, number, raw, error, encoding
            )
        yield number, _check_no_nul(path, number, text)


def _read_wide(
    path: Path, file: BinaryIO, encoding: str, notices: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that must be decoded as a whole."""
    raw = file.read(WIDE + 1)
    if len(raw) > WIDE:
        raise InputError(f"{path}: more than {WIDE:,} bytes of {encoding}; save it as UTF-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        text = _decode_halves(raw, encoding, notices) or _refuse_bytes(
            path, 0, raw, error, encoding
        )
    for number, line in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline="\n"), 1):
        yield number, _check_no_nul(path, number, line)


def _decode_halves(raw: bytes, encoding: str, notices: Counter[str]) -> str:
    """Return text with half characters replaced and counted; empty if something else is wrong."""
    if not encoding.casefold().replace("-", "").replace("_", "").startswith("utf"):
        return ""
    try:
        return replace_halves(raw.decode(encoding, "surrogatepass"), notices)
    except UnicodeDecodeError:
        return ""


def replace_halves(text: str, notices: Counter[str]) -> str:
    """Return text in which two halves are one character and a lone half is U+FFFD, counted."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    whole, count = LONE.subn("\ufffd", text)
    notices[HALVES] += count
    return whole


def _refuse_bytes(
    path: Path, number: int, raw: bytes, error: UnicodeDecodeError, encoding: str
) -> NoReturn:
    """Raise InputError for bytes that the encoding cannot decode."""
    where = f"{path}:{number}:{error.start + 1}" if number else f"{path}, byte {error.start + 1}"
    byte = raw[error.start : error.start + 1].hex()
    name = "UTF-8" if encoding == "utf-8" else encoding
    raise Unreadable(
        f"{where}: not {name} text (byte 0x{byte}); save it as UTF-8",
        "If a benchmark reads this file, name its encoding instead, such as -o encoding=cp1252",
    ) from error


def _check_no_nul(path: Path, number: int, text: str) -> str:
    """Return a line unchanged; raises InputError for one with a NUL character."""
    if "\0" in text:
        raise Unreadable(
            f"{path}:{number}:{text.index(chr(0)) + 1}: a NUL character: a binary file, or UTF-16"
            " without its byte order mark; if it is text, save it as UTF-8",
            "If a benchmark reads this file: -o encoding=utf-16-le",
        )
    return text
