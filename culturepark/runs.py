"""A run on disk: its frozen settings, its own copy of the cards, its journal, and where its results
go.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from culturepark import settings as settings_
from culturepark.atomic import discard, sweep
from culturepark.errors import InputError, JournalError, ParkError, nearest
from culturepark.llm import Model, find_address
from culturepark.llm import load as load_model
from culturepark.llm.budget import Budget
from culturepark.llm.client import EndpointClient
from culturepark.llm.pricing import Price
from culturepark.llm.providers.local import LocalProvider
from culturepark.llm.providers.reward import RewardProvider
from culturepark.llm.session import Models, Session
from culturepark.records import digest
from culturepark.settings import LOOSE, Endpoint, Settings
from culturepark.store import DAMAGED, RunStore, lock_folder, require_database
from culturepark.store.queries import list_scene_hashes
from culturepark.workspace import FOLDERS, Workspace, load, locate_output

log = logging.getLogger("culturepark")


@dataclass(frozen=True)
class Run:
    """An opened run. `workspace` is the run's own frozen copy of the cards: editing cards never
    changes a run.

    `keys` holds API keys by provider where they were not left in the environment; they are never
    written down. `replay` is the folder of a run whose journal answers in the place of every model.
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

    def open_store(self, *, write: bool = True) -> RunStore:
        """Open what the run keeps; InputError where it was made with other settings or cards."""
        store = RunStore(self.folder, write=write, shards=self.settings.shards)
        try:
            claim_store(store, self, write=write)
        except BaseException:
            store.close()
            raise
        return store

    def journal(self, *, write: bool = True) -> RunStore:
        """Open what the run keeps (deprecated: `open_store`)."""
        warnings.warn("Run.journal is Run.open_store now", DeprecationWarning, stacklevel=2)
        return self.open_store(write=write)

    def open_session(self, store: RunStore) -> Session:
        """Return the models of this run, their budget and their store."""
        s = self.settings
        models = load_models(s, self.keys)
        if self.replay is not None:
            return Session(models, store, replay=RunStore(self.replay, write=False))
        check_models(s, models)
        attach_store(models.list_models(), store, s)
        return Session(models, store)


# ----------------------------------------------------------------- identity


def claim_store(store: RunStore, run: Run, *, write: bool) -> None:
    """Hold a store to the settings and cards that its run was created with; where it is new, write
    down what they are.

    InputError says what differs: nothing of one run ever gets into another.
    """
    kept, now = _read_identity(store), _describe_run(run)
    if kept is None:
        _require_own_scenes(store, run)
    elif differences := [
        *_describe_changes(kept["determining"], now["determining"]),
        *_describe_card_changes(kept["cards"], now["cards"]),
    ]:
        raise InputError(
            f"{run.folder} was created with different settings or cards: {'; '.join(differences)}."
            " Undo that, or start another run: culturepark run NEWNAME --config"
            f" {run.folder / 'run.toml'}. Nothing was changed."
        )
    if write and kept != now:
        text = json.dumps(now | {"hash": digest(now)}, ensure_ascii=False)
        store.set_meta("run", text)


def _describe_run(run: Run) -> dict[str, Any]:
    """Return what a run is: what determines its dialogues, all of its settings as they are now, its
    cards by file.
    """
    cards = run.folder / "cards"
    return {
        "determining": {**run.settings.determining(), "cultures": list(run.settings.cultures)},
        "settings": run.settings.model_dump(mode="json", exclude_none=True),
        "cards": {
            p.relative_to(cards).as_posix(): _hash_file(p) for p in sorted(cards.rglob("*.toml"))
        },
    }


def _hash_file(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _read_identity(store: RunStore) -> dict[str, Any] | None:
    """Return what the run of a store is; None where it is new, or of the first versions."""
    text = store.read_meta("run")
    if text is None:
        return None
    try:
        kept = dict(json.loads(text))
    except (ValueError, TypeError):
        kept = {}
    if not kept or kept.pop("hash", "") != digest(kept):
        raise JournalError(f"{store.path} does not say whose it is. {DAMAGED}")
    return kept


def _describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what differs, as "turns 8 → 12"."""
    return [
        f"{name} {_shorten(old.get(name))} → {_shorten(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _shorten(value: Any) -> str:
    text = "default" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _describe_card_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what became of the cards whose hashes differ, by file."""
    how = {(True, False): "is gone", (False, True): "is new", (True, True): "was edited"}
    return [
        f"cards/{path} {how[path in old, path in new]}"
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    ]


def _require_own_scenes(store: RunStore, run: Run) -> None:
    """Let a store of the first versions be this run's only where its dialogues are of these
    settings and cards.
    """
    ours = settings_.hash_scenes(run.settings, run.workspace)
    if list_scene_hashes(store) - set(ours.values()):
        raise InputError(
            f"{run.folder}/journal.sqlite holds dialogues of other settings or cards than run.toml"
            " and cards/ have now. Put those back as they were, choose another name, or throw the"
            " run away with --fresh."
        )


# ------------------------------------------------------------------- models


def attach_store(models: Iterable[Model], store: RunStore, settings: Settings) -> None:
    """Let models at endpoints keep their calls in a store and, where there is a cap, its budget."""
    capped = settings.max_usd is not None or settings.max_tokens is not None
    budget = Budget(store, settings.max_usd, settings.max_tokens) if capped else None
    for model in models:
        if isinstance(model, EndpointClient):
            model.attach(store, budget)


def load_models(settings: Settings, keys: Mapping[str, str]) -> Models:
    """Return the models that settings name; one that is named twice is one. InputError for a name
    that is none.
    """
    made: dict[str, Model] = {}

    def load_named(name: str) -> Model:
        if name not in made:
            faults = settings.faults if name == settings.model else {}
            key = keys.get(name.partition("/")[0])
            made[name] = load_model(
                name, settings.endpoint(name), faults=faults, key=key, batch=settings.batch
            )
        return made[name]

    return Models(
        load_named(settings.model),
        {role: load_named(name) for role, name in settings.models.items()},
        {seat: load_named(name) for seat, name in settings.seats.items()},
    )


def find_prices(settings: Settings, keys: Mapping[str, str]) -> dict[str, Price | None]:
    """Return the price of each model at an endpoint, by its identity; None where it is unknown."""
    try:
        models = load_models(settings, keys).list_models()
    except (
        ParkError
    ):  # what a model needs is not installed here: its price cannot be looked up either
        return {}
    return {model.identity: model.price for model in models if isinstance(model, EndpointClient)}


def resolve_addresses(settings: Settings) -> Settings:
    """Return settings with the addresses that the environment names written out: a run means the
    same wherever it goes on.
    """
    found = dict(settings.endpoints)
    for name in {settings.model, *settings.models.values(), *settings.seats.values()}:
        if settings.endpoint(name).base_url is None and (url := find_address(name)):
            found[name] = found.get(name, Endpoint()).model_copy(update={"base_url": url})
    return settings.model_copy(update={"endpoints": found})


def check_models(settings: Settings, models: Models) -> None:
    """Raise what would make every call fail, and InputError where money is capped and a price is
    unknown: no cap could hold.
    """
    for model in models.list_models():
        if isinstance(model, (EndpointClient, RewardProvider, LocalProvider)):
            model.check()
    found = [m for m in models.list_models() if isinstance(m, EndpointClient)]
    if settings.base_url is not None and found and settings.addressed_provider() is None:
        raise InputError(
            "--base-url is for one provider's models, and this run has several beside its own"
            " --model; give each its base_url under [endpoints] in culturepark.toml"
        )
    lacking = sorted({m.identity for m in found if m.price is None})
    if settings.max_usd is not None and lacking:
        raise InputError(
            f"--max-usd needs prices, and that of {', '.join(lacking)} is unknown; give it (USD per"
            " million tokens) with --price MODEL=PROMPT/COMPLETION, install culturepark[litellm]"
            " for its list, or cap tokens with --max-tokens"
        )


def start(
    name: str,
    settings: Settings,
    workspace: Workspace,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    keys: Mapping[str, str] | None = None,
) -> Run:
    """Create the run's folder with run.toml and a copy of the cards, or reopen one with the same
    settings and cards.

    InputError if a run of that name has other settings; `fresh` throws the old one away first.
    """
    folder = locate_output(workspace.root, name, out)
    if fresh and folder.exists():
        _throw_away(folder)
    for left in sweep(folder.parent, folder.name):
        log.warning("%s, a run that was thrown away, cannot be deleted: delete it by hand", left)
    if (folder / "journal.sqlite").exists() and not (folder / "run.toml").exists():
        raise InputError(
            f"{folder} holds the calls and dialogues of an earlier run, but its run.toml is gone."
            " Put run.toml back, choose another name, or throw the run away with --fresh."
        )
    if (folder / "run.toml").exists():
        return _require_same(resume(folder, keys), settings, workspace)
    require_database(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        freeze_cards(workspace, folder / "cards")
    except OSError as error:
        raise InputError(f"cannot write the run to {folder}: {error.strerror or error}") from error
    # run.toml is written last: a folder that has one is a whole run.
    settings_.write(settings, folder / "run.toml")
    return resume(folder, keys)


def _throw_away(folder: Path) -> None:
    """Remove a run: in one step it is no run any more, then its files go. Locked while another
    process writes it.
    """
    if not any((folder / name).exists() for name in ("run.toml", "journal.sqlite")) and any(
        folder.iterdir()
    ):
        raise InputError(
            f"{folder} is no run of CulturePark's; it is left as it is. Choose another name."
        )
    try:
        with ExitStack() as locks:
            for writer in (folder, folder / "evals"):
                if writer.is_dir():
                    locks.enter_context(lock_folder(writer))
            discard(folder)
    except OSError as error:
        raise InputError(
            f"cannot throw {folder} away: {error.strerror or error}. It is left as it is."
        ) from error


def freeze_cards(workspace: Workspace, target: Path) -> None:
    """Copy the cards, so that the run can be resumed and explained whatever happens to the
    originals.
    """
    shutil.rmtree(target, ignore_errors=True)
    for name in FOLDERS:
        for path in sorted((workspace.root / name).rglob("*.toml")):
            copy = target / path.relative_to(workspace.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def resume(folder: str | Path, keys: Mapping[str, str] | None = None) -> Run:
    """Open a run as it was started; InputError names the runs there are, JournalError a journal
    that is gone.
    """
    folder = Path(folder)
    if not (folder / "run.toml").is_file():
        found = folder.parent.glob("*/run.toml") if folder.parent.is_dir() else ()
        runs = sorted(p.parent.name for p in found if not p.parent.name.startswith("."))
        raise InputError(f"no run at {folder} (it has no run.toml). {nearest(folder.name, runs)}")
    require_database(folder)
    if settings_.is_edited(folder / "run.toml"):
        raise InputError(_describe_edits(folder))
    return Run(folder, settings_.read(folder / "run.toml"), load(folder / "cards"), keys or {})


def _describe_edits(folder: Path) -> str:
    """Say what was changed in a run's settings by hand, as far as its journal knows, and how to go
    on.
    """
    changes = list[str]()
    if (folder / "journal.sqlite").exists():
        with RunStore(folder, write=False) as store:
            kept = _read_identity(store)
        if kept is not None:
            old = settings_.build(kept["settings"])  # with the fields that came later
            now = settings_.read(folder / "run.toml")
            changes = _describe_changes(
                *(s.model_dump(mode="json", exclude_none=True) for s in (old, now))
            )
    what = f" ({'; '.join(changes)})" if changes else ""
    return (
        f"{folder / 'run.toml'} was changed by hand{what}, or is not whole. Undo that; what may"
        " change while a run goes on is changed by options, such as --resume --max-usd 10. Another"
        f" run with these settings: culturepark run NEWNAME --config {folder / 'run.toml'}"
    )


def adjust(run: Run, **changes: Any) -> Run:
    """Change how a run is driven or capped, and write that down; InputError for a setting that
    would change what it says.
    """
    settings = settings_.build(settings_.layer_settings(run.settings.model_dump(), changes))
    if fixed := sorted(_list_fixed(run.settings, settings)[0]):
        raise InputError(
            f"{', '.join(fixed)} cannot change while a run goes on; only {', '.join(LOOSE)} can"
        )
    settings_.write(settings, run.folder / "run.toml")
    return replace(run, settings=settings)


def _list_fixed(old: Settings, new: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the old and the new values of the settings that differ and must not: scenes come in
    one order, so a run may be made longer.
    """
    before, after = (
        s.model_dump(mode="json", exclude={"dialogues", "samples", *LOOSE})
        | {"endpoints": s.list_content()}
        for s in (old, new)
    )
    changed = [name for name in before if before[name] != after[name]]
    return {n: before[n] for n in changed}, {n: after[n] for n in changed}


def _require_same(run: Run, settings: Settings, workspace: Workspace) -> Run:
    """Return the run if it was created with these settings and cards; InputError says what differs
    if not.
    """
    changes = _describe_changes(*_list_fixed(run.settings, settings))
    for kind in ("roles", "cultures", "personas", "scenarios"):
        old, new = dict(getattr(run.workspace, kind)), dict(getattr(workspace, kind))
        if names := sorted(n for n in {*old, *new} if old.get(n) != new.get(n)):
            shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            changes.append(f"{kind} (cards) {shown}")
    if changes:
        raise InputError(
            f"Run {run.folder} was created with different settings: {'; '.join(changes)}. Choose a"
            f" new name, pass --resume {run.folder} to keep the old ones, or --fresh to throw the"
            " run away."
        )
    if settings != run.settings:
        settings_.write(settings, run.folder / "run.toml")
        return replace(run, settings=settings)
    return run
