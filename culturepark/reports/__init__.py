"""Tables and plots of a run: one self-contained HTML page, the same figures as JSON, and a table for the terminal."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from culturepark.errors import ParkError
from culturepark.journal import Journal
from culturepark.reports.facts import gather
from culturepark.reports.show import page, table
from culturepark.reports.stance import chance, distance
from culturepark.settings import Settings
from culturepark.workspace import Workspace

__all__ = ["chance", "distance", "gather", "page", "table", "write"]


def write(journal: Journal, workspace: Workspace, settings: Settings, folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.json to `folder`, each whole or not at all; return both paths.

    The same journal gives the same bytes. ParkError if the folder cannot be written.
    """
    facts = gather(journal, workspace, settings)
    data = json.dumps(facts, indent=1, ensure_ascii=False)
    texts = {"report.html": page(facts), "report.json": data + "\n"}
    partials = {folder / name: folder / f"{name}.partial" for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial, text in zip(partials.values(), texts.values(), strict=True):
            partial.write_text(text, encoding="utf-8", newline="\n")
        for target, partial in partials.items():
            partial.replace(target)
    except OSError as error:
        for partial in partials.values():
            with suppress(OSError):
                partial.unlink()
        raise ParkError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return folder / "report.html", folder / "report.json"
