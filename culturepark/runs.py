"""A run on disk: its frozen settings, its own copy of the cards, its journal, and where its results go."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from culturepark import settings as settings_
from culturepark.calls import Desk
from culturepark.errors import InputError, nearest
from culturepark.journal import Journal
from culturepark.models import load as load_model
from culturepark.settings import Settings
from culturepark.workspace import FOLDERS, Workspace, load, output


@dataclass(frozen=True)
class Run:
    """An opened run. `workspace` is the run's own frozen copy of the cards: editing cards never changes a run."""

    folder: Path
    settings: Settings
    workspace: Workspace

    @property
    def corpus(self) -> Path:
        """Where exported files go."""
        return self.folder / "corpus"

    def journal(self, *, write: bool = True) -> Journal:
        """Open the run's journal."""
        return Journal(self.folder, write=write)

    def desk(self, journal: Journal) -> Desk:
        """Return the models of this run and their journal."""
        s = self.settings
        return Desk(
            {"default": load_model(s.model, base_url=s.base_url, concurrency=s.concurrency, faults=s.faults)},
            journal,
        )


def start(
    name: str, settings: Settings, workspace: Workspace, out: str | Path | None = None, *, fresh: bool = False
) -> Run:
    """Create the run's folder with run.toml and a copy of the cards, or reopen one with the same settings and cards.

    InputError if a run of that name has other settings; `fresh` throws the old one away first.
    """
    folder = output(workspace.root, name, out)
    if fresh and folder.exists():
        if not (folder / "run.toml").exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is no run of CulturePark's; it is left as it is. Choose another name.")
        with Journal(folder):  # refuses while another process writes it
            pass
        shutil.rmtree(folder)
    if (folder / "run.toml").exists():
        return _same(resume(folder), settings, workspace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        freeze(workspace, folder / "cards")
    except OSError as error:
        raise InputError(f"cannot write the run to {folder}: {error.strerror or error}") from error
    # run.toml is written last: a folder that has one is a whole run.
    settings_.write(settings, folder / "run.toml")
    return resume(folder)


def freeze(workspace: Workspace, target: Path) -> None:
    """Copy the cards, so that the run can be resumed and explained whatever happens to the originals."""
    shutil.rmtree(target, ignore_errors=True)
    for name in FOLDERS:
        for path in sorted((workspace.root / name).rglob("*.toml")):
            copy = target / path.relative_to(workspace.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def resume(folder: str | Path) -> Run:
    """Open a run as it was started; InputError names the runs there are."""
    folder = Path(folder)
    if not (folder / "run.toml").is_file():
        runs = sorted(p.parent.name for p in folder.parent.glob("*/run.toml")) if folder.parent.is_dir() else []
        raise InputError(f"no run at {folder} (it has no run.toml). {nearest(folder.name, runs)}")
    return Run(folder, settings_.read(folder / "run.toml"), load(folder / "cards"))


def _same(run: Run, settings: Settings, workspace: Workspace) -> Run:
    """Return the run if it was started with these settings and cards; say what differs if not."""
    old, new = run.settings.model_dump(), settings.model_dump()
    # A run may be made longer: scenes come in one order, so what is there stays valid.
    grows = {"dialogues", "samples", "concurrency"}
    changed = [k for k in old if old[k] != new[k] and k not in grows]
    for kind in ("roles", "cultures", "personas", "scenarios"):
        if dict(getattr(run.workspace, kind)) != dict(getattr(workspace, kind)):
            changed.append(f"{kind} (cards)")
    if changed:
        raise InputError(f"{run.folder} was started otherwise: {', '.join(changed)} changed. "
                         f"--resume {run.folder} goes on as it was; another name starts anew; --fresh throws it away.")  # fmt: skip
    if settings != run.settings:
        settings_.write(settings, run.folder / "run.toml")
        return Run(run.folder, settings, run.workspace)
    return run
