"""A run's structured log: what happened to endpoints, limits, batches and budgets, one JSON object a line, without keys."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from culturepark.models.secrets import redact

PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
log = logging.getLogger("culturepark")


class Lines(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, message, and whatever the caller added."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told = {k: v for k, v in vars(record).items() if k not in PLAIN}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage(), **told}
        return redact(json.dumps(line, ensure_ascii=False, default=str))


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Append what is logged meanwhile to `log.jsonl` in the run's folder."""
    handler = logging.FileHandler(folder / "log.jsonl", encoding="utf-8", delay=True)
    handler.setFormatter(Lines())
    before = log.level
    log.addHandler(handler)
    log.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
        handler.close()
