"""A run's structured log: what happened to endpoints, limits, batches and budgets, one JSON object
a line, without keys.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from culturepark.keys import redact

PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
log = logging.getLogger("culturepark")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, message, and whatever the caller
    added.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        extras = {k: v for k, v in vars(record).items() if k not in PLAIN}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": when,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **extras,
        }
        return redact(json.dumps(line, ensure_ascii=False, default=str))


class LogFile(logging.FileHandler):
    """Appends lines to a file; where that fails it says so once and goes on: a log is not worth
    stopping work for.
    """

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless writing has failed before."""
        if self.failed:
            return
        try:
            super().emit(record)
        except OSError:  # the file cannot even be opened
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Say that the log cannot be written, and write no more."""
        error, self.failed = sys.exc_info()[1], True
        log.warning(
            "cannot write %s: %s; going on without it",
            self.baseFilename,
            getattr(error, "strerror", None) or error,
        )

    def close(self) -> None:
        """Close the file; what could not be written was told."""
        with suppress(OSError):
            super().close()


@contextmanager
def keep_log(folder: Path) -> Iterator[None]:
    """Append what is logged meanwhile to `log.jsonl` in the run's folder."""
    handler = LogFile(folder / "log.jsonl", encoding="utf-8", delay=True)
    handler.setFormatter(JsonFormatter())
    before = log.level
    log.addHandler(handler)
    log.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
        handler.close()
