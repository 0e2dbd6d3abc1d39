"""Standard streams: what is printed may be lost but never ends the work, and none of their numbers
is ever free.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys

from culturepark.cli.terminal import ORDERS

PLAIN = str.maketrans(
    {
        "→": "->",
        "←": "<-",
        "−": "-",
        "–": "-",
        "—": "-",
        "…": "...",
        "·": "-",
        "×": "x",
        "≥": ">=",
        "≤": "<=",
        "±": "+/-",
        "≈": "~",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "━": "-",
        "─": "-",
        "│": "|",
        "╸": "-",
        "╺": "-",
        "•": "-",
    }
)


class Sink(io.FileIO):
    """A file descriptor that takes whatever is written to it; the first failure is kept in
    `failure`.
    """

    failure: OSError | None = None
    written = 0

    def write(self, data: object) -> int:
        """Write, or drop what cannot be written."""
        try:
            n = super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            self.failure, n = self.failure or error, len(memoryview(data))  # type: ignore[arg-type]
        self.written += n or 0
        return n


def occupy_input() -> None:
    """Give a closed standard input the null device: its number must not go to the next file or
    socket that is opened.
    """
    if sys.stdin is None:
        _take_number(0, os.O_RDONLY)
        sys.stdin = io.TextIOWrapper(
            io.BufferedReader(io.FileIO(0, "rb", closefd=False)), encoding="utf-8"
        )


def protect_outputs() -> None:
    """Let standard output and error drop what they cannot write, and replace characters that they
    cannot say.
    """
    codecs.register_error("culturepark", _replace_character)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if (
            stream is None
        ):  # closed by the caller: its number must not go to the next file that is opened
            stream = _nothing(number)
        raw = _raw(stream)
        if type(raw) is not io.FileIO:
            if isinstance(stream, io.TextIOWrapper):  # a console of Windows
                stream.reconfigure(errors="culturepark")
            continue
        setattr(sys, name, _protect_stream(stream, raw.fileno()))


def unwritten() -> OSError | None:
    """Return why standard output could not be written, None where all was; a reader that has gone
    is no failure.
    """
    sink = _sink()
    sys.stdout.flush()
    failure = sink.failure if sink else None
    return None if isinstance(failure, BrokenPipeError) else failure


def is_empty() -> bool:
    """Return whether nothing was printed to standard output yet."""
    sink = _sink()
    sys.stdout.flush()
    return sink is None or not sink.written


def json_text(value: object) -> str:
    """Return a JSON document that standard output can say and a terminal does not obey."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    unicode = codecs.lookup(encoding).name.startswith("utf")
    text = json.dumps(value, ensure_ascii=not unicode, indent=2, default=str)
    return ORDERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _sink() -> Sink | None:
    raw = _raw(sys.stdout)
    return raw if isinstance(raw, Sink) else None


def _raw(stream: object) -> object:
    """Return the file below a text stream: below its buffer, or in the buffer's place (`python
    -u`).
    """
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _protect_stream(stream: io.TextIOWrapper, number: int) -> io.TextIOWrapper:
    """Return the stream over a sink, in its encoding where that can say plain English, else in
    UTF-8.
    """
    stream.flush()
    encoding = stream.encoding
    try:
        sound = "a→\n".encode(encoding, "culturepark").decode(encoding).startswith("a")
    except (LookupError, UnicodeError, TypeError):
        sound = False
    return io.TextIOWrapper(
        io.BufferedWriter(Sink(number, "wb", closefd=False)),
        encoding=encoding if sound else "utf-8",
        errors="culturepark",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _nothing(number: int) -> io.TextIOWrapper:
    _take_number(number, os.O_WRONLY)
    return io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(number, "wb", closefd=False)), encoding="utf-8"
    )


def _take_number(number: int, how: int) -> None:
    """Open the null device as the file descriptor `number`, which is closed."""
    opened = os.open(os.devnull, how)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def _replace_character(error: UnicodeError) -> tuple[str, int]:
    """Write a sign that an encoding lacks in plain ones (`->`), and any other as its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    plain = lost.translate(PLAIN)
    return (
        plain if plain.isascii() else lost.encode("ascii", "backslashreplace").decode()
    ), error.end
