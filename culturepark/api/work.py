"""Verbs that do a run's work: simulate, refine, export, report, all of them, and what they take and
cost.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from culturepark import logs
from culturepark.api.runs import parts, start
from culturepark.api.stages import count_usage, hold_dialogues, refine_dialogues
from culturepark.api.waves import Yield, wave
from culturepark.context import look_up
from culturepark.corpora import build as corpus_build
from culturepark.corpora import card
from culturepark.corpora.export import export as export_files
from culturepark.corpora.export import lacking, load_format
from culturepark.corpora.formats import DEFAULT, Format
from culturepark.corpora.source import Source
from culturepark.curation.pipeline import speak
from culturepark.dialogue import casting
from culturepark.dialogue.simulate import plan
from culturepark.errors import InputError, ParkError, RunFailed
from culturepark.events import OnEvent, RunStarted, Tell, ignore_event, subscribe
from culturepark.executor import pool
from culturepark.llm.session import Session
from culturepark.records import Dialogue, Opinion, Scene
from culturepark.runs import Run, prices
from culturepark.store import RunStore
from culturepark.store.counts import (
    count_all,
    count_all_unrefined,
    count_dropped,
    count_held,
    count_kept,
    count_refined,
    count_unrefined,
)
from culturepark.store.queries import has_samples, iterate_unrefined

Stage = Callable[[Run, Session, Iterable[Scene], int, OnEvent], Coroutine[Any, Any, None]]
WAVES = 50  # rounds of simulate and refine after which a run that still lacks samples is given up


def simulate(
    run: Run, on_event: OnEvent = ignore_event, *, tell: Tell | None = None
) -> dict[str, Any]:
    """Hold the run's dialogues (`dialogues` a culture) that are not yet held; return counts.

    RunFailed, with the main reason, if every dialogue failed.
    """
    on_event = subscribe(on_event, tell)
    with run.open_store() as store:
        desk = run.desk(store)
        lengths = dict.fromkeys(_cultures(run), run.settings.dialogues)
        _work(run, desk, on_event, _hold(run, desk, lengths, dict.fromkeys(lengths, 0), on_event))
        return counts(store) | count_usage(desk) | {"failures": describe_failures(store)}


def refine(
    run: Run, on_event: OnEvent = ignore_event, *, tell: Tell | None = None
) -> dict[str, Any]:
    """Refine every held dialogue that is not yet refined, and build the corpus; return counts.

    RunFailed, with the main reason, if every dialogue failed, in this stage or before it.
    """
    on_event = subscribe(on_event, tell)
    with run.open_store() as store:
        desk = run.desk(store)

        async def refine_held() -> None:
            _require_held(store)
            await _twice(
                run,
                desk,
                refine_dialogues,
                lambda: iterate_unrefined(store),
                lambda: count_all_unrefined(store),
                on_event,
            )
            _require_refined(store)

        _work(run, desk, on_event, refine_held())
        corpus_build.build(run.workspace, run.settings, store)
        return counts(store) | count_usage(desk) | {"failures": describe_failures(store)}


def export(
    run: Run, formats: Sequence[str] = DEFAULT, *, by_culture: bool = False
) -> dict[str, Path]:
    """Write the corpus in these formats; return format → folder."""
    with run.open_store() as store:
        if not has_samples(store):  # stopped before its end: what is refined so far
            corpus_build.build(run.workspace, run.settings, store)
        about = card.render(store, run.workspace, run.settings, run.folder.name)
        return export_files(_source(run, store), run.corpus, formats, about, by_culture=by_culture)


def _source(run: Run, store: RunStore) -> Source:
    """Return what exports read of a run: the park knows its peoples' shares, the refinery the voice
    of its opinions.
    """
    surveyed = partial(casting.shares, survey=run.settings.survey)
    cultures = tuple(dict.fromkeys(_cultures(run)))
    return Source(run.workspace, run.settings, store, cultures, partial(_before, run), surveyed)


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
            for name, price in prices(run.settings, run.keys).items()
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
        desk = at_once.desk(store)
        lengths = dict.fromkeys(
            _cultures(run),
            min(pilot, run.settings.dialogues) if run.settings.samples is None else pilot,
        )

        async def both() -> None:
            await hold_dialogues(
                at_once, desk, _planned(run, lengths), _ahead(store, lengths), on_event
            )
            await refine_dialogues(
                at_once, desk, _planned(run, lengths), _ready(store, lengths), on_event
            )

        _work(at_once, desk, on_event, both())
        found = forecast(
            store,
            run.settings.dialogues * len(lengths),
            run.settings.samples,
            len(lengths),
            0.5 if run.settings.batch else 1.0,
        )
    if not found["pilot"]:
        raise RunFailed(f"no dialogue of the pilot was held and refined: {_reasons(run)}")
    return found


def _reasons(run: Run) -> str:
    with run.open_store(write=False) as store:
        return _why(store)


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

    With `samples`, dialogues are held in waves until every culture has that many accepted samples,
    the first wave of no more than could be enough and at most `dialogues`; RunFailed names the
    cultures that cannot get there, and why. What the run needs (formats' libraries, models,
    filters, figures) is checked before its first call; the report is written even where the export
    fails.
    """
    on_event, forms = subscribe(on_event, tell), exporters(formats)
    opened = name if isinstance(name, Run) else start(name, given, **options)
    parts(opened.settings)
    with opened.open_store() as store:
        if "shares" in {form.reads for form in forms} and (
            why := lacking(_source(opened, store), "shares")
        ):
            raise InputError(f"nothing was asked: there will be nothing to export as shares: {why}")
        desk = opened.desk(store)
        _work(opened, desk, on_event, _all(opened, desk, on_event))
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


def _work(opened: Run, desk: Session, on_event: OnEvent, task: Coroutine[Any, Any, None]) -> None:
    """Do one stage's work: its log open, its models' connections closed in the end, whatever the
    end is.
    """

    async def whole() -> None:
        with desk.journal.guard():
            async with desk:
                await task

    on_event(RunStarted(opened.folder))
    with logs.keep_log(opened.folder), pool.pause_garbage_collection():
        try:
            pool.work(whole())
        except ParkError as error:
            logs.log.info("%s", error, extra={"event": "stopped", "error": type(error).__name__})
            raise


async def _all(opened: Run, desk: Session, on_event: OnEvent) -> None:
    if opened.settings.samples is None:
        lengths = dict.fromkeys(_cultures(opened), opened.settings.dialogues)
        await _through(opened, desk, lengths, dict.fromkeys(lengths, 0), on_event)
    else:
        await _until(opened, desk, opened.settings.samples, on_event)
    made = corpus_build.build(opened.workspace, opened.settings, desk.journal)
    if not sum(made.values()):
        raise RunFailed(f"no opinion was kept: {_why(desk.journal)}")


async def _until(opened: Run, desk: Session, wanted: int, on_event: OnEvent) -> None:
    """Hold and refine dialogues, a wave after another, until every culture has as many kept
    opinions as are wanted.

    A wave's size follows from what the dialogues before it gave, so a run that was killed goes on
    with the same waves.
    """
    pilot, most = opened.settings.dialogues, opened.settings.refine.clusters
    found = {culture: Yield() for culture in _cultures(opened)}
    for _ in range(WAVES):
        sizes = {c: wave(wanted, y, pilot, most) for c, y in found.items() if y.kept < wanted}
        if not sizes:
            return
        if stuck := [c for c, size in sizes.items() if not size]:
            raise RunFailed(_short_of(opened, desk.journal, wanted, {c: found[c] for c in stuck}))
        since = {c: found[c].dialogues for c in sizes}
        until = {c: since[c] + size for c, size in sizes.items()}
        await _through(opened, desk, until, since, on_event)
        for c, n in until.items():
            kept = count_kept(desk.journal, c, n)
            found[c] = Yield(n, kept, sizes[c], kept - found[c].kept)
    lacking = {c: y for c, y in found.items() if y.kept < wanted}
    if lacking:
        raise RunFailed(_short_of(opened, desk.journal, wanted, lacking))


def _short_of(opened: Run, store: RunStore, wanted: int, found: Mapping[str, Yield]) -> str:
    """Return what cultures lack, and why their opinions were refused."""
    lines = []
    for culture, y in found.items():
        kept = f"{y.kept} of {wanted} opinions were kept" if y.kept else "no opinion was kept"
        last = f", {y.gained} of the last {y.last}" if y.kept else ""
        lines.append(
            f"{kept} for {culture} in {y.dialogues} dialogues{last}: {_why(store, culture)}"
        )
    return (
        "; ".join(lines)
        + f". `culturepark report {opened.folder}` shows more. Nothing is lost: --resume goes on."
    )


async def _through(
    opened: Run,
    desk: Session,
    until: Mapping[str, int],
    since: Mapping[str, int],
    on_event: OnEvent,
) -> None:
    """Hold and refine these scenes."""
    await _hold(opened, desk, until, since, on_event)
    await _twice(
        opened,
        desk,
        refine_dialogues,
        lambda: _planned(opened, until, since),
        lambda: _ready(desk.journal, until, since),
        on_event,
    )
    _require_refined(desk.journal)


async def _hold(
    opened: Run,
    desk: Session,
    until: Mapping[str, int],
    since: Mapping[str, int],
    on_event: OnEvent,
) -> None:
    """Hold these scenes; RunFailed if none of the run's dialogues is held then."""
    store = desk.journal
    await _twice(
        opened,
        desk,
        hold_dialogues,
        lambda: _planned(opened, until, since),
        lambda: _ahead(store, until, since),
        on_event,
    )
    _require_held(store)


def _require_held(store: RunStore) -> None:
    """RunFailed, with the main reason, if dialogues of the run failed and none was held."""
    done = count_all(store)
    if done.failed_dialogues and not done.dialogues:
        why = "; ".join(describe_failures(store))
        raise RunFailed(f"no dialogue was held: {why}. Nothing is lost: --resume tries them again.")


def _require_refined(store: RunStore) -> None:
    """RunFailed, with the main reason, if no dialogue was refined and nothing was kept."""
    refined, failed = count_refined(store)
    if failed and not refined and not count_all(store).kept:
        why = "; ".join(describe_failures(store))
        again = "Nothing is lost: the same command, or --resume, tries them again."
        raise RunFailed(f"no dialogue was refined: {why}. {again}")


async def _twice(
    opened: Run,
    desk: Session,
    stage: Stage,
    scenes: Callable[[], Iterable[Scene]],
    left: Callable[[], int],
    on_event: OnEvent,
) -> None:
    """Do a stage; what failed is tried once more at its end, when what was wrong may have
    passed.
    """
    ahead = left()
    await stage(opened, desk, scenes(), ahead, on_event)
    failed = left()
    if 0 < failed < ahead:
        await stage(opened, desk, scenes(), failed, on_event)


def describe_failures(store: RunStore, culture: str | None = None) -> list[str]:
    """Return how many dialogues failed or were not refined, with the main reason of each."""
    from culturepark.reports.facts import gather_failures

    failures = gather_failures(store, culture)
    lines = []
    for stage, what in (("dialogues", "failed"), ("refining", "not refined")):
        if total := failures[stage]["total"]:
            main = failures[stage]["top"][0]
            most = f"{main['count']} of them: " if main["count"] < total else ""
            lines.append(f"{total} dialogue{'s' * (total > 1)} {what} ({most}{main['reason']})")
    return lines


def _why(store: RunStore, culture: str | None = None) -> str:
    """Return the main reasons why a run, or one of its cultures, has no sample or too few."""
    dropped = count_dropped(store, culture)
    lines = [*describe_failures(store, culture)]
    lines += [f"{n} dropped as {why}" for why, n in dropped.most_common(3)]
    return "; ".join(lines) or "the dialogues hold no opinion"


def _cultures(opened: Run) -> tuple[str, ...]:
    return casting.cultures(opened.workspace, opened.settings)


def _planned(
    opened: Run, until: Mapping[str, int], since: Mapping[str, int] | None = None
) -> Iterable[Scene]:
    parts: list[Iterator[Scene]] = [
        plan(opened.workspace, opened.settings, c, n, (since or {}).get(c, 0))
        for c, n in until.items()
    ]
    return chain.from_iterable(parts)


def _ahead(
    store: RunStore, until: Mapping[str, int], since: Mapping[str, int] | None = None
) -> int:
    """Return how many of the planned scenes are not yet held."""
    return (
        sum(until.values()) - sum((since or {}).values()) - _count(count_held, store, until, since)
    )


def _ready(
    store: RunStore, until: Mapping[str, int], since: Mapping[str, int] | None = None
) -> int:
    """Return how many of the planned scenes are held and not yet refined."""
    return _count(count_unrefined, store, until, since)


def _count(
    count: Callable[[RunStore, str, int, int], int],
    store: RunStore,
    until: Mapping[str, int],
    since: Mapping[str, int] | None,
) -> int:
    return sum(count(store, c, (since or {}).get(c, 0), n) for c, n in until.items())


def counts(store: RunStore) -> dict[str, int]:
    """Return how much of everything a run holds."""
    return count_all(store)._asdict()
