"""Verbs that do a run's work: simulate, refine, export, report, all of them, and what they take and cost."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from culturepark import logs, pool
from culturepark.corpus import build as corpus_build
from culturepark.corpus import card
from culturepark.corpus.export import export as export_files
from culturepark.corpus.export import lacking, writer
from culturepark.corpus.formats import DEFAULT
from culturepark.corpus.source import Source
from culturepark.desk import Desk
from culturepark.errors import InputError, ParkError, RunFailed
from culturepark.journal import Journal
from culturepark.park import cast
from culturepark.park.simulate import plan
from culturepark.records import Dialogue, Opinion, Scene
from culturepark.refinery.case import look_up
from culturepark.refinery.distil import spoken
from culturepark.runs import Run
from culturepark.verbs.runs import parts, start
from culturepark.verbs.stages import Tell, count_usage, hold_dialogues, refine_dialogues

Stage = Callable[[Run, Desk, Iterable[Scene], int, Tell], Coroutine[Any, Any, None]]
READY = "status = 'done' AND (refined IS NULL OR refined != 'ok')"  # scenes that are held and not yet refined
WAVES = 50  # rounds of simulate and refine after which a run that still lacks samples is given up


def _silent(stage: str, figures: Mapping[str, Any]) -> None:
    """Tell nobody."""


def simulate(run: Run, tell: Tell = _silent) -> dict[str, Any]:
    """Hold the run's dialogues (`dialogues` a culture) that are not yet held; return counts."""
    with run.journal() as journal:
        desk = run.desk(journal)
        lengths = dict.fromkeys(_cultures(run), run.settings.dialogues)
        _work(
            run,
            desk,
            _twice(run, desk, hold_dialogues, lambda: _planned(run, lengths), lambda: _ahead(journal, lengths), tell),
        )
        return counts(journal) | count_usage(desk)


def refine(run: Run, tell: Tell = _silent) -> dict[str, Any]:
    """Refine every held dialogue that is not yet refined, and build the corpus; return counts."""
    with run.journal() as journal:
        desk = run.desk(journal)

        def left() -> int:
            return int(journal.count(f"SELECT COUNT(*) FROM scenes WHERE {READY}")[0][0])

        _work(run, desk, _twice(run, desk, refine_dialogues, lambda: journal.scenes(READY), left, tell))
        corpus_build.build(run.workspace, run.settings, journal)
        return counts(journal) | count_usage(desk)


def export(run: Run, formats: Sequence[str] = DEFAULT, *, by_culture: bool = False) -> dict[str, Path]:
    """Write the corpus in these formats; return format → folder."""
    with run.journal() as journal:
        if not journal.count("SELECT 1 FROM samples LIMIT 1"):  # stopped before its end: what is refined so far
            corpus_build.build(run.workspace, run.settings, journal)
        about = card.render(journal, run.workspace, run.settings, run.folder.name)
        return export_files(_source(run, journal), run.corpus, formats, about, by_culture=by_culture)


def _source(run: Run, journal: Journal) -> Source:
    """Return what exports read of a run: the park knows its peoples' shares, the refinery the voice of its opinions."""
    surveyed = partial(cast.shares, survey=run.settings.survey)
    cultures = tuple(dict.fromkeys(_cultures(run)))
    return Source(run.workspace, run.settings, journal, cultures, partial(_before, run), surveyed)


def _before(run: Run, opinion: Opinion, scene: Scene) -> str:
    """Return the wording an opinion had before any rewrite, in the first person, as its last one was put."""
    return spoken(opinion.model_copy(update={"final": opinion.text}), look_up(run.workspace, Dialogue(scene=scene)))


def report(run: Run) -> Path:
    """Write the run's report (HTML and JSON) and return the page's path."""
    from culturepark import reports

    with run.journal(write=False) as journal:
        return reports.write(journal, run.workspace, run.settings, run.folder / "report")[0]


def calls(run: Run, *, role: str | None = None, model: str | None = None, top: int = 10) -> dict[str, Any]:
    """Return what the run's model calls took, by role and model, and the slowest, dearest and failed of them."""
    from culturepark.reports.calls import calls as gathered

    with run.journal(write=False) as journal:
        return gathered(journal, role=role, model=model, top=top)


def estimate(run: Run, pilot: int = 2, tell: Tell = _silent) -> dict[str, Any]:
    """Hold and refine the first `pilot` dialogues a culture of the run, and return a band of what the whole run will cost.

    The pilot's dialogues are the run's own first ones: running it on asks nothing twice. With `batch`, the pilot is called at
    once and the rest reckoned at the batch price.
    """
    from culturepark.forecast import forecast

    parts(run.settings)
    at_once = replace(run, settings=run.settings.model_copy(update={"batch": False}))
    with run.journal() as journal:
        desk = at_once.desk(journal)
        lengths = dict.fromkeys(
            _cultures(run), min(pilot, run.settings.dialogues) if run.settings.samples is None else pilot
        )

        async def both() -> None:
            await hold_dialogues(at_once, desk, _planned(run, lengths), _ahead(journal, lengths), tell)
            await refine_dialogues(at_once, desk, _planned(run, lengths), _ready(journal, lengths), tell)

        _work(at_once, desk, both())
        found = forecast(journal, run.settings.dialogues * len(lengths), run.settings.samples, len(lengths),
                         0.5 if run.settings.batch else 1.0)  # fmt: skip
    if not found["pilot"]:
        raise RunFailed(f"no dialogue of the pilot was held and refined: {_reasons(run)}")
    return found


def _reasons(run: Run) -> str:
    with run.journal(write=False) as journal:
        return _why(journal)


def run(name: str | Run, given: Any = None, /, *, tell: Tell = _silent, formats: Sequence[str] = DEFAULT, by_culture: bool = False,
        **options: Any) -> Run:  # fmt: skip
    """The main job: simulate → refine → export → report. Returns the run.

    With `samples`, dialogues are held in waves until every culture has that many accepted samples; RunFailed names the
    cultures that cannot get there. What the run needs (formats' libraries, models, filters, figures) is checked before its
    first call; the report is written even where the export fails.
    """
    forms = exporters(formats)
    opened = name if isinstance(name, Run) else start(name, given, **options)
    parts(opened.settings)
    with opened.journal() as journal:
        if "shares" in {form.READS for form in forms} and (why := lacking(_source(opened, journal), "shares")):
            raise InputError(f"nothing was asked: there will be nothing to export as shares: {why}")
        desk = opened.desk(journal)
        _work(opened, desk, _all(opened, desk, tell))
    try:
        export(opened, formats, by_culture=by_culture)
    finally:
        report(opened)
    return opened


def exporters(formats: Sequence[str]) -> list[Any]:
    """Return the modules of export formats; InputError for a name that is none, or a library that is not installed."""
    return [writer(name) for name in formats]


def _work(opened: Run, desk: Desk, task: Coroutine[Any, Any, None]) -> None:
    """Do one stage's work: its log open, its models' connections closed in the end, whatever the end is."""

    async def whole() -> None:
        async with desk:
            await task

    with logs.kept(opened.folder), pool.settled():
        try:
            pool.work(whole())
        except ParkError as error:
            logs.log.info("%s", error, extra={"event": "stopped", "error": type(error).__name__})
            raise


async def _all(opened: Run, desk: Desk, tell: Tell) -> None:
    wanted, journal = opened.settings.samples, desk.journal
    lengths = dict.fromkeys(_cultures(opened), opened.settings.dialogues)
    since = dict.fromkeys(lengths, 0)
    for _ in range(WAVES):
        await _through(opened, desk, lengths, since, tell)
        kept = dict.fromkeys(lengths, 0) | dict(
            journal.count("SELECT culture, COUNT(*) FROM opinions WHERE dropped = '' GROUP BY culture")
        )
        lacking = {c: wanted - kept[c] for c in lengths if wanted and kept[c] < wanted}
        if not lacking:
            break
        if stuck := [c for c in lacking if not kept[c]]:
            raise RunFailed(f"no opinion was kept for {', '.join(stuck)} in {lengths[stuck[0]]} dialogues; "
                            f"`culturepark report {opened.folder}` shows why. Nothing is lost.")  # fmt: skip
        since = dict(lengths)
        # A little more than the yield so far asks for, so that most runs need one more wave.
        lengths |= {c: lengths[c] + max(1, -(-lengths[c] * lacking[c] * 21 // (kept[c] * 20))) for c in lacking}
    else:
        raise RunFailed(
            f"after {WAVES} waves there are still too few samples: {lacking}. Nothing is lost; --resume goes on."
        )
    made = corpus_build.build(opened.workspace, opened.settings, journal)
    if not sum(made.values()):
        raise RunFailed(f"no opinion was kept: {_why(journal)}")


async def _through(opened: Run, desk: Desk, until: Mapping[str, int], since: Mapping[str, int], tell: Tell) -> None:
    """Hold and refine these scenes."""
    await _twice(
        opened,
        desk,
        hold_dialogues,
        lambda: _planned(opened, until, since),
        lambda: _ahead(desk.journal, until, since),
        tell,
    )
    await _twice(
        opened,
        desk,
        refine_dialogues,
        lambda: _planned(opened, until, since),
        lambda: _ready(desk.journal, until, since),
        tell,
    )


async def _twice(opened: Run, desk: Desk, stage: Stage, scenes: Callable[[], Iterable[Scene]], left: Callable[[], int],
                 tell: Tell) -> None:  # fmt: skip
    """Do a stage; what failed is tried once more at its end, when what was wrong may have passed."""
    ahead = left()
    await stage(opened, desk, scenes(), ahead, tell)
    failed = left()
    if 0 < failed < ahead:
        await stage(opened, desk, scenes(), failed, tell)


def _why(journal: Journal) -> str:
    """Return the main reasons why a run has no sample."""
    failed = journal.count(
        "SELECT reason, COUNT(*) FROM scenes WHERE status = 'failed' GROUP BY reason ORDER BY 2 DESC LIMIT 1"
    )
    dropped = journal.count(
        "SELECT dropped, COUNT(*) FROM opinions WHERE dropped != '' GROUP BY dropped ORDER BY 2 DESC LIMIT 3"
    )
    refused = journal.count(
        "SELECT refined, COUNT(*) FROM scenes WHERE refined LIKE 'failed%' GROUP BY refined ORDER BY 2 DESC LIMIT 1"
    )
    parts = [f"{n} dialogues failed ({why})" for why, n in failed] + [f"{n} not refined ({why})" for why, n in refused]
    return "; ".join(parts + [f"{n} dropped as {why}" for why, n in dropped]) or "the dialogues hold no opinion"


def _cultures(opened: Run) -> tuple[str, ...]:
    return cast.cultures(opened.workspace, opened.settings)


def _planned(opened: Run, until: Mapping[str, int], since: Mapping[str, int] | None = None) -> Iterable[Scene]:
    parts: list[Iterator[Scene]] = [
        plan(opened.workspace, opened.settings, c, n, (since or {}).get(c, 0)) for c, n in until.items()
    ]
    return chain.from_iterable(parts)


def _ahead(journal: Journal, until: Mapping[str, int], since: Mapping[str, int] | None = None) -> int:
    """Return how many of the planned scenes are not yet held."""
    return sum(until.values()) - sum((since or {}).values()) - _count(journal, "status = 'done'", until, since)


def _ready(journal: Journal, until: Mapping[str, int], since: Mapping[str, int] | None = None) -> int:
    """Return how many of the planned scenes are held and not yet refined."""
    return _count(journal, READY, until, since)


def _count(journal: Journal, where: str, until: Mapping[str, int], since: Mapping[str, int] | None) -> int:
    sql = f"SELECT COUNT(*) FROM scenes WHERE {where} AND culture = ? AND ordinal >= ? AND ordinal < ?"
    return sum(journal.count(sql, c, (since or {}).get(c, 0), n)[0][0] for c, n in until.items())


def counts(journal: Journal) -> dict[str, int]:
    """Return how much of everything a run holds."""
    ask = {
        "dialogues": "SELECT COUNT(*) FROM scenes WHERE status = 'done'",
        "failed_dialogues": "SELECT COUNT(*) FROM scenes WHERE status = 'failed'",
        "turns": "SELECT COUNT(*) FROM turns",
        "opinions": "SELECT COUNT(*) FROM opinions",
        "kept": "SELECT COUNT(*) FROM opinions WHERE dropped = ''",
        "samples": "SELECT COUNT(*) FROM samples",
    }
    return {name: int(journal.count(sql)[0][0]) for name, sql in ask.items()}
