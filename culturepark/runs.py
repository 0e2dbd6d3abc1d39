"""A run on disk: its frozen settings, its own copy of the cards, its journal, and where its results go."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from culturepark import settings as settings_
from culturepark.desk import Desk, Models
from culturepark.errors import InputError, nearest
from culturepark.journal import Journal
from culturepark.models import Model, address
from culturepark.models import load as load_model
from culturepark.models.ledger import Ledger
from culturepark.models.line import Line
from culturepark.models.rewarding import Rewarder
from culturepark.models.tuned import Tuned
from culturepark.settings import LOOSE, Endpoint, Settings
from culturepark.workspace import FOLDERS, Workspace, load, output


@dataclass(frozen=True)
class Run:
    """An opened run. `workspace` is the run's own frozen copy of the cards: editing cards never changes a run.

    `keys` holds API keys by provider where they were not left in the environment; they are never written down. `replay` is
    the folder of a run whose journal answers in the place of every model.
    """

    folder: Path
    settings: Settings
    workspace: Workspace
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    replay: Path | None = None

    @property
    def corpus(self) -> Path:
        """Where exported files go."""
        return self.folder / "corpus"

    def journal(self, *, write: bool = True) -> Journal:
        """Open the run's journal."""
        return Journal(self.folder, write=write)

    def desk(self, journal: Journal) -> Desk:
        """Return the models of this run, their ledger and their journal."""
        s = self.settings
        models = lines(s, self.keys)
        if self.replay is not None:
            return Desk(models, journal, replay=Journal(self.replay, write=False))
        usable(s, models)
        attach(models.all(), journal, s)
        return Desk(models, journal)


def attach(models: Iterable[Model], journal: Journal, settings: Settings) -> None:
    """Let models at endpoints join a journal and, where there is a cap, its ledger."""
    capped = settings.max_usd is not None or settings.max_tokens is not None
    ledger = Ledger(journal, settings.max_usd, settings.max_tokens) if capped else None
    for model in models:
        if isinstance(model, Line):
            model.attach(journal, ledger)


def lines(settings: Settings, keys: Mapping[str, str]) -> Models:
    """Return the models that settings name; one that is named twice is one. InputError for a name that is none."""
    made: dict[str, Model] = {}

    def named(name: str) -> Model:
        if name not in made:
            faults = settings.faults if name == settings.model else {}
            key = keys.get(name.partition("/")[0])
            made[name] = load_model(name, settings.endpoint(name), faults=faults, key=key, batch=settings.batch)
        return made[name]

    return Models(
        named(settings.model),
        {role: named(name) for role, name in settings.models.items()},
        {seat: named(name) for seat, name in settings.seats.items()},
    )


def addressed(settings: Settings) -> Settings:
    """Return settings with the addresses that the environment names written out: a run means the same wherever it goes on."""
    found = dict(settings.endpoints)
    for name in {settings.model, *settings.models.values(), *settings.seats.values()}:
        if settings.endpoint(name).base_url is None and (url := address(name)):
            found[name] = found.get(name, Endpoint()).model_copy(update={"base_url": url})
    return settings.model_copy(update={"endpoints": found})


def usable(settings: Settings, models: Models) -> None:
    """Raise what would make every call fail, and InputError where money is capped and a price is unknown: no cap could hold."""
    for model in models.all():
        if isinstance(model, (Line, Rewarder, Tuned)):
            model.check()
    lacking = sorted({m.identity for m in models.all() if isinstance(m, Line) and m.price is None})
    if settings.max_usd is not None and lacking:
        raise InputError(f"--max-usd needs prices, and that of {', '.join(lacking)} is unknown; give it (USD per million tokens) "
                         "with --price MODEL=PROMPT/COMPLETION, install culturepark[litellm] for its list, or cap tokens with --max-tokens")  # fmt: skip


def start(
    name: str,
    settings: Settings,
    workspace: Workspace,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    keys: Mapping[str, str] | None = None,
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
        return _same(resume(folder, keys), settings, workspace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        freeze(workspace, folder / "cards")
    except OSError as error:
        raise InputError(f"cannot write the run to {folder}: {error.strerror or error}") from error
    # run.toml is written last: a folder that has one is a whole run.
    settings_.write(settings, folder / "run.toml")
    return resume(folder, keys)


def freeze(workspace: Workspace, target: Path) -> None:
    """Copy the cards, so that the run can be resumed and explained whatever happens to the originals."""
    shutil.rmtree(target, ignore_errors=True)
    for name in FOLDERS:
        for path in sorted((workspace.root / name).rglob("*.toml")):
            copy = target / path.relative_to(workspace.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def resume(folder: str | Path, keys: Mapping[str, str] | None = None) -> Run:
    """Open a run as it was started; InputError names the runs there are."""
    folder = Path(folder)
    if not (folder / "run.toml").is_file():
        runs = sorted(p.parent.name for p in folder.parent.glob("*/run.toml")) if folder.parent.is_dir() else []
        raise InputError(f"no run at {folder} (it has no run.toml). {nearest(folder.name, runs)}")
    return Run(folder, settings_.read(folder / "run.toml"), load(folder / "cards"), keys or {})


def adjust(run: Run, **changes: Any) -> Run:
    """Change how a run is driven or capped, and write that down; InputError for a setting that would change what it says."""
    settings = settings_.build(settings_.layered(run.settings.model_dump(), changes))
    if changed := _changed(run.settings, settings):
        raise InputError(f"{', '.join(changed)} cannot change while a run goes on; only {', '.join(LOOSE)} can")
    settings_.write(settings, run.folder / "run.toml")
    return replace(run, settings=settings)


def _changed(old: Settings, new: Settings) -> list[str]:
    """Return the settings that differ and must not: scenes come in one order, so a run may be made longer."""
    before, after = (
        s.model_dump(exclude={"dialogues", "samples", *LOOSE}) | {"endpoints": s.said()} for s in (old, new)
    )
    return [k for k in before if before[k] != after[k]]


def _same(run: Run, settings: Settings, workspace: Workspace) -> Run:
    """Return the run if it was started with these settings and cards; say what differs if not."""
    changed = _changed(run.settings, settings)
    for kind in ("roles", "cultures", "personas", "scenarios"):
        if dict(getattr(run.workspace, kind)) != dict(getattr(workspace, kind)):
            changed.append(f"{kind} (cards)")
    if changed:
        raise InputError(f"{run.folder} was started otherwise: {', '.join(changed)} changed. "
                         f"--resume {run.folder} goes on as it was; another name starts anew; --fresh throws it away.")  # fmt: skip
    if settings != run.settings:
        settings_.write(settings, run.folder / "run.toml")
        return replace(run, settings=settings)
    return run
