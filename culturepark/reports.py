"""Tables of a run: counts per stage and culture, and why opinions were dropped."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from culturepark.errors import ParkError
from culturepark.journal import Journal
from culturepark.settings import Settings
from culturepark.workspace import Workspace


def write(journal: Journal, workspace: Workspace, settings: Settings, folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.json; return both paths."""
    rows = journal.count("SELECT culture, dropped, COUNT(*) FROM opinions GROUP BY culture, dropped ORDER BY 1, 2")
    facts = [{"culture": c, "dropped": d or None, "opinions": n} for c, d, n in rows]
    cells = "".join(f"<tr><td>{escape(c)}<td>{escape(d or 'kept')}<td>{n}" for c, d, n in rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        (folder / "report.html").write_text(
            f"<!doctype html><meta charset=utf-8><table>{cells}</table>", encoding="utf-8"
        )
    except OSError as error:
        raise ParkError(f"cannot write the report to {folder}: {error.strerror}") from error
    return folder / "report.html", folder / "report.json"
