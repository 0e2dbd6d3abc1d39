"""Verbs that do a run's work: simulate, refine, export, report, all of them, and what they take and
cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from culturepark.api.runs import parts, start
from culturepark.context import look_up
from culturepark.corpora import card
from culturepark.corpora.build import build
from culturepark.corpora.export import explain_absence, load_format
from culturepark.corpora.export import export as export_files
from culturepark.corpora.formats import DEFAULT, Format
from culturepark.corpora.imported import SUITS, describe_corpus, read_corpus
from culturepark.corpora.source import RunSource
from culturepark.curation.pipeline import speak
from culturepark.dialogue import casting
from culturepark.errors import InputError, RunFailed
from culturepark.events import OnEvent, Tell, ignore_event, subscribe
from culturepark.pipeline.stages import count_usage
from culturepark.pipeline.work import Pipeline, describe_failures, explain_lack
from culturepark.records import Dialogue, Opinion, Scene
from culturepark.runs import Run, find_prices
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.store.counts import count_all
from culturepark.store.queries import has_samples
from culturepark.workspace import find_workspace, locate_output


def simulate(
    run: Run, on_event: OnEvent = ignore_event, *, tell: Tell | None = None
) -> dict[str, Any]:
    """Hold the run's dialogues (`dialogues` a culture) that are not yet held; return counts.

    RunFailed, with the main reason, if every dialogue failed.
    """
    on_event = subscribe(on_event, tell)
    with run.open_store() as store:
        pipeline = Pipeline(run, run.open_session(store), on_event)
        pipeline.do(pipeline.hold(pipeline.plan_first(run.settings.dialogues)))
        return _summarise(pipeline)


def refine(
    run: Run, on_event: OnEvent = ignore_event, *, tell: Tell | None = None
) -> dict[str, Any]:
    """Refine every held dialogue that is not yet refined, and build the corpus; return counts.

    RunFailed, with the main reason, if every dialogue failed, in this stage or before it.
    """
    on_event = subscribe(on_event, tell)
    with run.open_store() as store:
        pipeline = Pipeline(run, run.open_session(store), on_event)
        pipeline.do(pipeline.refine_held())
        build(run.workspace, run.settings, store)
        return _summarise(pipeline)


def _summarise(pipeline: Pipeline) -> dict[str, Any]:
    """Return what the run holds, what it took, and what failed."""
    store = pipeline.store
    usage = count_usage(pipeline.session)
    return counts(store) | usage | {"failures": describe_failures(store)}


def export(
    run: Run | str,
    formats: Sequence[str] | None = None,
    *,
    by_culture: bool = False,
    source: str | Path | None = None,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    licence: str | None = None,
    **how: Any,
) -> dict[str, Path]:
    """Write the corpus of a run in these formats; return format → folder.

    With `source` the corpus is read from that file (CSV, TSV, JSON Lines, JSON) instead, `run` is a
    name, and what is written lies in that name's folder as a run's does; `how` is as in
    `culturepark.corpora.imported.read_corpus`: importer, columns, culture, layout, shares, seed.
    """
    if not isinstance(run, Run):
        if source is None:
            raise InputError(f"export {run!r} of what? Give a run, or source=FILE")
        corpus = read_corpus(source, **how)
        folder = locate_output(find_workspace(workspace), run, out)
        if (folder / "run.toml").exists():
            raise InputError(f"{folder} is a run with a corpus of its own; choose another name")
        about = describe_corpus(corpus, run, Settings(licence=licence).licence)
        forms = tuple(formats or SUITS[corpus.holds])
        return export_files(corpus, folder / "corpus", forms, about, by_culture=by_culture)
    formats = DEFAULT if formats is None else formats
    with run.open_store() as store:
        if not has_samples(store):  # stopped before its end: what is refined so far
            build(run.workspace, run.settings, store)
        about = card.render(store, run.workspace, run.settings, run.folder.name)
        return export_files(_source(run, store), run.corpus, formats, about, by_culture=by_culture)


def _source(run: Run, store: RunStore) -> RunSource:
    """Return what exports read of a run: the park knows its peoples' shares, the refinery the voice
    of its opinions.
    """
    surveyed = partial(casting.shares, survey=run.settings.survey)
    cultures = tuple(dict.fromkeys(casting.cultures(run.workspace, run.settings)))
    return RunSource(run.workspace, run.settings, store, cultures, partial(_before, run), surveyed)


def _before(run: Run, opinion: Opinion, scene: Scene) -> str:
    """Return the wording an opinion had before any rewrite, in the first person, as its last one
    was put.
    """
    return speak(
        opinion.model_copy(update={"final": opinion.text}),
        look_up(run.workspace, Dialogue(scene=scene)),
    )


def report(run: Run) -> Path:
    """Write the run's report (HTML and JSON) and return the page's path."""
    from culturepark import reports

    with run.open_store(write=False) as store:
        return reports.write(store, run.workspace, run.settings, run.folder / "report")[0]


def calls(
    run: Run,
    *,
    role: str | None = None,
    model: str | None = None,
    top: int = 10,
    call: int | None = None,
) -> dict[str, Any]:
    """Return what the run's model calls took, by role and model, and the slowest, dearest and
    failed of them.

    With `call`, return that one call instead, with what was said and what was thought.
    """
    from culturepark.reports.calls import calls as gathered
    from culturepark.reports.calls import whole

    with run.open_store(write=False) as store:
        if call is not None:
            return whole(store, call)
        known = {
            name: asdict(price) if price else None
            for name, price in find_prices(run.settings, run.keys).items()
        }
        return gathered(store, role=role, model=model, top=top) | {"prices": known}


def estimate(
    run: Run,
    pilot: int = 2,
    on_event: OnEvent = ignore_event,
    *,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Hold and refine the first `pilot` dialogues a culture of the run, and return a band of what
    the whole run will cost.

    The pilot's dialogues are the run's own first ones: running it on asks nothing twice. With
    `batch`, the pilot is called at once and the rest reckoned at the batch price.
    """
    from culturepark.forecast import forecast

    on_event = subscribe(on_event, tell)
    parts(run.settings)
    at_once = replace(run, settings=run.settings.model_copy(update={"batch": False}))
    with run.open_store() as store:
        pipeline = Pipeline(at_once, at_once.open_session(store), on_event)
        if run.settings.samples is None:
            pilot = min(pilot, run.settings.dialogues)
        pipeline.do(pipeline.try_pilot(pipeline.plan_first(pilot)))
        found = forecast(
            store,
            run.settings.dialogues * len(pipeline.cultures),
            run.settings.samples,
            len(pipeline.cultures),
            0.5 if run.settings.batch else 1.0,
        )
    if not found["pilot"]:
        raise RunFailed(f"no dialogue of the pilot was held and refined: {_reasons(run)}")
    return found


def _reasons(run: Run) -> str:
    with run.open_store(write=False) as store:
        return explain_lack(store)


def run(
    name: str | Run,
    given: Any = None,
    /,
    *,
    on_event: OnEvent = ignore_event,
    tell: Tell | None = None,
    formats: Sequence[str] = DEFAULT,
    by_culture: bool = False,
    **options: Any,
) -> Run:
    """The main job: simulate → refine → export → report. Returns the run.

    With `samples`, dialogues are held in batches until every culture has that many accepted
    samples, the first batch of no more than could be enough and at most `dialogues`; RunFailed
    names the cultures that cannot get there, and why. What the run needs (formats' libraries,
    models, filters, figures) is checked before its first call; the report is written even where the
    export fails.
    """
    on_event, forms = subscribe(on_event, tell), exporters(formats)
    opened = name if isinstance(name, Run) else start(name, given, **options)
    parts(opened.settings)
    with opened.open_store() as store:
        if "shares" in {form.reads for form in forms} and (
            why := explain_absence(_source(opened, store), "shares")
        ):
            raise InputError(f"nothing was asked: there will be nothing to export as shares: {why}")
        pipeline = Pipeline(opened, opened.open_session(store), on_event)
        pipeline.do(pipeline.make_corpus())
    try:
        export(opened, formats, by_culture=by_culture)
    finally:
        report(opened)
    return opened


def exporters(formats: Sequence[str]) -> list[Format]:
    """Return export formats by name; InputError for a name that is none, or a library that
    is not installed.
    """
    return [load_format(name) for name in formats]


def counts(store: RunStore) -> dict[str, int]:
    """Return how much of everything a run holds."""
    return count_all(store)._asdict()
