"""Tables and plots of a run: one self-contained HTML page, the same figures as JSON, and a table
for the terminal.
"""

from __future__ import annotations

import json
from pathlib import Path

from culturepark.atomic import write_text
from culturepark.reports.facts import gather
from culturepark.reports.show import page, table
from culturepark.reports.stance import chance, distance
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.workspace import Workspace

__all__ = ["chance", "distance", "gather", "page", "table", "write"]


def write(
    store: RunStore, workspace: Workspace, settings: Settings, folder: Path
) -> tuple[Path, Path]:
    """Write report.html and report.json to `folder`, each whole or not at all; return both paths.

    The same store gives the same bytes. WriteError if the folder cannot be written.
    """
    facts = gather(store, workspace, settings)
    data = json.dumps(facts, indent=1, ensure_ascii=False)
    write_text(folder / "report.html", page(facts))
    write_text(folder / "report.json", data + "\n")
    return folder / "report.html", folder / "report.json"
