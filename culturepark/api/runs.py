"""Verbs that begin a run: start, resume, replay; whatever would stop it is told before anything is
written or paid for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from culturepark import runs, surveys
from culturepark.dialogue import casting
from culturepark.errors import InputError
from culturepark.runs import Run
from culturepark.settings import Settings, layer_settings, read_own
from culturepark.settings import build as build_settings
from culturepark.settings import table as table_of
from culturepark.workspace import Workspace, find_workspace, load, locate_output


def merge_settings(
    given: Any, workspace: str | Path | None, changes: Mapping[str, Any]
) -> tuple[Settings, dict[str, str]]:
    """Return settings and API keys by provider: the workspace's own, a file's or mapping's above
    them, changes on top.
    """
    below = {} if isinstance(given, Settings) else read_own(find_workspace(workspace))
    if isinstance(given, Settings):
        given = given.model_dump()
    elif isinstance(given, (str, Path)):
        given = table_of(Path(given))
    data = layer_settings(below, given or {}, {k: v for k, v in changes.items() if v is not None})
    keys = data.pop("keys", {})
    return build_settings(data), keys


def start(
    name: str,
    given: Any = None,
    /,
    *,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    key: str | None = None,
    **changes: Any,
) -> Run:
    """Create a run below outputs/ (or reopen it, if nothing but its length, pace and caps changed).

    `key` is an API key for the provider of `model`, held in memory only.
    """
    locate_output(find_workspace(workspace), name, out)
    found = load(workspace)
    told, keys = merge_settings(given, workspace, changes)
    chosen, keys = runs.resolve_addresses(told), keys | _key(told, key)
    _possible(found, chosen, keys)
    return runs.start(name, chosen, found, out, fresh=fresh, keys=keys)


def resume(
    folder: str | Path,
    *,
    workspace: str | Path | None = None,
    key: str | None = None,
    **changes: Any,
) -> Run:
    """Open a run as it was started; `changes` may alter how it is driven and capped (`max_usd`,
    `rpm`, `concurrency`, …).
    """
    opened = runs.resume(folder)
    given = {k: v for k, v in changes.items() if v is not None}
    opened = runs.adjust(opened, **given) if given else opened
    keys = read_own(find_workspace(workspace)).get("keys", {})
    return replace(opened, keys=keys | _key(opened.settings, key))


def _key(chosen: Settings, key: str | None) -> dict[str, str]:
    return {chosen.model.partition("/")[0]: key} if key else {}


def replay(
    name: str,
    source: str | Path,
    /,
    *,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
) -> Run:
    """Create the run `name` with settings, cards and answers of the run at `source`: no model is
    asked, no key needed.
    """
    told = runs.resume(source)
    folder = locate_output(find_workspace(workspace), name, out)
    if folder.resolve() == told.folder.resolve():
        raise InputError(f"{folder} cannot be replayed into itself; give the new run another name")
    made = runs.start(name, told.settings, told.workspace, folder.parent, fresh=fresh)
    return replace(made, replay=told.folder)


def parts(chosen: Settings) -> None:
    """Load what a run needs besides its models: filters, embedder, survey; InputError for what
    there is not.
    """
    from culturepark.curation import embedders, filters

    for name in chosen.refine.filters:
        filters.load(name)
    embedders.load(chosen.refine.embedder)
    surveys.load_survey(chosen.survey)


def _possible(found: Workspace, chosen: Settings, keys: Mapping[str, str]) -> None:
    """Raise InputError for anything that would stop the run, before anything is written or paid
    for.
    """
    parts(chosen)
    for seat in (*chosen.seats, *chosen.languages):
        found.persona(seat) if "/" in seat else found.culture(seat)
    runs.check_models(chosen, runs.load_models(chosen, keys))
    for culture in casting.cultures(found, chosen):
        next(casting.scenes(found, chosen, culture))
