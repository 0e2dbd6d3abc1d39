"""What stands beside tuned weights: manifest.json and a model card, written last, so that a folder
which has them is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from culturepark.atomic import write_text
from culturepark.errors import InputError, nearest
from culturepark.markdown import format_code, format_inline, render_front_matter
from culturepark.records import Record
from culturepark.toml import explain

FILE = "manifest.json"
LIBRARIES = (
    "culturepark",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
)


class Manifest(Record):
    """One tuned model: what it was made of and how.

    `kind` says what the folder holds: an adapter for `base`, a whole model, or a reward model
    (adapter or whole). `rows` counts what it was trained and validated on, `scores` holds the last
    figures of the run, `base_hash` is empty for a hub base.
    """

    kind: Literal["adapter", "model", "reward"]
    name: str
    base: str
    base_hash: str = ""
    base_licence: str = "unknown"
    objective: str
    corpus: str
    corpus_hash: str
    rows: dict[str, int]
    settings: dict[str, Any]
    machine: str
    versions: dict[str, str]
    scores: dict[str, float] = Field(default_factory=dict)
    created: str


def list_versions() -> dict[str, str]:
    """Return the versions of what shapes a tuned model."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def format_now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(manifest: Manifest, folder: Path) -> None:
    """Write the model card, then the manifest, each whole or not at all."""
    for name, text in (
        ("README.md", render_card(manifest)),
        (FILE, json.dumps(manifest.model_dump(), indent=1) + "\n"),
    ):
        write_text(folder / name, text)


def read(folder: str | Path) -> Manifest:
    """Read a tuned model's manifest; InputError names the tuned models nearby where there is
    none.
    """
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"no tuned model at {folder} (it has no {FILE})."
            f" {nearest(folder.name, list_neighbours(folder))}"
        )
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(
            f"{path} is no manifest of a tuned model: {explain(error, Manifest)[0]}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no manifest of a tuned model: {error}") from error


def list_neighbours(folder: Path) -> Iterable[str]:
    """Return the names of the tuned models in and beside a folder."""
    return sorted({p.name for place in (folder, folder.parent) for p in _list_folders(place)})


def find_folders(folder: str | Path) -> list[Path]:
    """Return the tuned models that a folder is or holds; InputError where there is none."""
    folder = Path(folder)
    folders = [folder] if (folder / FILE).is_file() else _list_folders(folder)
    if not folders:
        read(folder)
    return folders


def _list_folders(folder: Path) -> list[Path]:
    """Return the whole models in a folder; what begins with a dot is still being written."""
    return sorted(p.parent for p in folder.glob(f"*/{FILE}") if not p.parent.name.startswith("."))


def render_card(manifest: Manifest) -> str:
    """Return the model card as Markdown with front matter."""
    m = manifest
    head = render_front_matter(
        {
            "base_model": m.base,
            "library_name": "transformers" if m.kind == "model" else "peft",
            "license": m.base_licence.partition(":")[0],
            "tags": ["culturepark", "cultural-alignment", "trl"],
        }
    )
    table = [f"| {name} | {format_inline(str(value))} |" for name, value in _list_facts(m).items()]
    intro = INTRO.format(
        kind=m.kind, objective=format_inline(m.objective), corpus=format_code(m.corpus)
    )
    return "\n".join(
        [head, f"# {format_inline(m.name)}", "", intro, "", "| | |", "|---|---|", *table, ""]
    )


INTRO = """A {kind} tuned by CulturePark ({objective}) on {corpus}. It shifts a base towards the answers in that corpus, which
follow what one people said in a survey; it speaks for no person, and what its corpus got wrong it repeats. The corpus' own card
says who wrote its text: templated text makes a test model, not one to use."""  # noqa: E501


def _list_facts(m: Manifest) -> Mapping[str, Any]:
    rows = ", ".join(f"{split} {n}" for split, n in m.rows.items())
    scores = ", ".join(f"{name} {value:.4g}" for name, value in m.scores.items())
    settings = ", ".join(f"{k} {v}" for k, v in m.settings.items() if v not in (None, "", [], ()))
    return {
        "base": f"{m.base} {m.base_hash}".strip(),
        "licence of the base": m.base_licence,
        "rows": rows,
        "scores": scores or "none",
        "corpus hash": m.corpus_hash,
        "settings": settings,
        "machine": m.machine,
        "versions": ", ".join(f"{k} {v}" for k, v in m.versions.items()),
        "made": m.created,
    }
