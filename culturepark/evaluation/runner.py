"""Puts benchmarks to models: plans, asks by way of Inspect and the journal, and keeps each result;
what is there already is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from culturepark.cache import lend_home
from culturepark.errors import InputError, RunFailed
from culturepark.evaluation import measure, notices, planning
from culturepark.evaluation import result as results
from culturepark.evaluation.kind import load_kind
from culturepark.evaluation.result import Result
from culturepark.evaluation.types import STRIDE, Attempt, Benchmark, Item, Setup
from culturepark.llm.session import Session
from culturepark.records import digest

log = logging.getLogger("culturepark")
EMBEDDED = "embedded"
CULTURE = "{culture}"  # in a model's name: each culture is asked of its own model
Tell = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class ModelEntry:
    """What stands on one row of a table: its label, and the models that answer for it.

    Several `models` are replicas of one model, such as those of several training seeds: their
    figures are averaged and their spread is told. A name that holds `{culture}` stands for one
    model a culture.
    """

    label: str
    models: tuple[str, ...]

    def list_names(self, culture: str) -> tuple[str, ...]:
        """Return who answers for a culture, one name a replica."""
        return tuple(m.replace(CULTURE, culture) for m in self.models)

    def list_answerers(self, item: Item) -> tuple[str, ...]:
        """Return who answers an item, one name a replica: a country's by the model of the culture
        that is surveyed there.
        """
        return self.list_names(item.facts.get("home") or item.culture)

    @property
    def per_culture(self) -> bool:
        """Whether each culture has a model of its own, so that what is asked for no culture is
        asked of nobody.
        """
        return any(CULTURE in m for m in self.models)


@dataclass(frozen=True)
class EvalJob:
    """One entry at one benchmark."""

    benchmark: Benchmark
    setup: Setup
    entry: ModelEntry


@dataclass(frozen=True)
class EvalContext:
    """Where benchmarks are sat: a run's `evals` folder, all models by name, each behind the journal
    (`desks`), which of them play a part (`parts`: judge, learner), how many items are asked at once
    (`width`), and whom to `tell`.
    """

    evals: Path
    desks: Mapping[str, Session]
    parts: Mapping[str, str]
    width: int
    tell: Tell

    def identity(self, name: str) -> str:
        """Return what names all that can change a model's answers."""
        return self.desks[name].models.default.identity


def describe_setup(benchmark: Benchmark, setup: Setup, parts: Mapping[str, str]) -> dict[str, Any]:
    """Return how a benchmark was put to a model, as plain data without anybody's folders; `parts`
    are judge and learner, by identity.
    """
    return {
        "card": digest(_dump_card(benchmark)),
        **parts,
        "method": setup.method,
        "respondents": setup.respondents,
        "count": setup.count,
        "cultures": list(setup.cultures),
        "seeds": list(setup.seeds),
        **({"orders": list(setup.orders)} if setup.orders != (0,) else {}),
        **({"wordings": list(setup.wordings)} if setup.wordings != (0,) else {}),
        "numbers": setup.numbers,
        "limit": setup.limit,
        "data": [f"{p.name}@{_hash_content(p)}" for p in setup.data],
        "held": digest(dict(setup.held)) if setup.held else "",
        **({"peoples": _describe_figures(setup)} if load_kind(benchmark.kind).surveyed else {}),
    }


def _dump_card(benchmark: Benchmark) -> dict[str, Any]:
    """Return a card as it counts for a result's hash: without its options, and wordings that are
    not there.
    """
    without = {"options"} if benchmark.wordings else {"options", "wordings"}
    return benchmark.model_dump(mode="json", exclude=without)


def _describe_figures(setup: Setup) -> dict[str, Any]:
    """Return what names the survey figures that answers are held against."""
    countries = {c for name in setup.cultures for c in setup.workspace.culture(name).survey}
    return setup.survey_figures.describe(sorted(countries))


def _hash_content(path: Path) -> str:
    """Return a hash of a file, or of all files in a folder."""
    files = (
        sorted(p for p in path.rglob("*") if p.is_file())
        if path.is_dir()
        else [path]
        if path.is_file()
        else []
    )
    return digest(
        [(p.name, hashlib.blake2b(p.read_bytes(), digest_size=8).hexdigest()) for p in files],
        size=4,
    )


def fingerprint(
    job: EvalJob, items: Sequence[Item], told: Mapping[str, Any], identities: Mapping[str, str]
) -> str:
    """Return the hash of all that determines a result: what is asked, of whom, and how it is read
    and scored.
    """
    asked = [(i.id, i.request.key(""), i.gold, dict(i.facts)) for i in items]
    return digest(dict(told), dict(job.setup.options), asked, sorted(identities.items()), size=10)


async def run_jobs(jobs: Sequence[EvalJob], context: EvalContext) -> list[Path]:
    """Do all jobs one after another and return the folders of their results."""
    return [await _run_job(job, context) for job in jobs]


async def _run_job(job: EvalJob, context: EvalContext) -> Path:
    items = [
        i
        for i in planning.plan_items(job.benchmark, job.setup)
        if i.culture or not job.entry.per_culture
    ]
    for line in notices.describe(i.facts for i in items):
        log.warning("%s: %s", job.benchmark.name, line, extra={"event": "file_read"})
    if not any(
        i.request.options for i in items
    ):  # a benchmark without options to weigh always samples
        job = replace(job, setup=replace(job.setup, method="sample", numbers=False))
    folder = results.locate_result(context.evals, job.benchmark.name, job.entry.label)
    who = {name: context.identity(name) for name in list_models(job, items)}
    played: dict[str, str] = {
        part: context.identity(context.parts[part])
        for part in load_kind(job.benchmark.kind).needs(job.benchmark)
    }
    told = describe_setup(job.benchmark, job.setup, played)
    mark = fingerprint(job, items, told, who)
    shown = {"benchmark": job.benchmark.name, "model": job.entry.label}
    kept = results.read_whole(folder)
    if (
        kept is not None and kept.hash == mark and not kept.counts.get("failed")
    ):  # what failed may go well another time
        context.tell("kept", shown | _list_headlines(kept))
        return folder
    held, logs = await _ask_items(job, items, context)
    made = Result(
        **shown,
        title=job.benchmark.title,
        about=job.benchmark.about,
        source=job.benchmark.source,
        kind=job.benchmark.kind,
        models=tuple(dict.fromkeys(who.values())),
        setup=told,
        options=dict(job.setup.options),
        counts=results.count_statuses(held),
        reasons=results.count_reasons(held),
        warning=_warn_embedded(job),
        logs=tuple(logs),
        figures=tuple(
            measure.estimate(m)
            for m in load_kind(job.benchmark.kind).measure(held, job.setup.options)
        ),
        date=date.today().isoformat(),
        version=version("culturepark"),
        hash=mark,
    )
    results.write(folder, made, held)
    context.tell("done", shown | _list_headlines(made))
    return folder


def _warn_embedded(job: EvalJob) -> str:
    """Return why a row is the embedded engine's own and no model's; "" where it is another's, or
    chance.
    """
    kind = load_kind(job.benchmark.kind)
    alone = set(job.entry.models) == {EMBEDDED} and job.setup.respondents == kind.respondents[-1]
    return kind.embedded_warning(job.setup) if alone else ""


def _list_headlines(made: Result) -> dict[str, Any]:
    """Return a result's headline figures over all cultures."""
    return {
        f.name: f.value
        for f in made.figures
        if f.headline and not f.culture and not f.subset and f.value is not None
    }


def list_models(job: EvalJob, items: Sequence[Item]) -> list[str]:
    """Return the names of all models that answer in a job."""
    return list(
        dict.fromkeys(
            name
            for i in items
            if i.culture or not job.entry.per_culture
            for name in job.entry.list_answerers(i)
        )
    )


async def _ask_items(
    job: EvalJob, items: Sequence[Item], context: EvalContext
) -> tuple[list[Attempt], list[str]]:
    """Ask all items of every replica, each culture's of its own model; return the attempts in the
    order of the plan, and the logs.
    """
    if max(job.setup.seeds) >= STRIDE:
        raise InputError(f"seeds are below {STRIDE}")
    made, written = dict[tuple[int, str], Attempt](), []
    replicas = len(job.entry.models)
    figures = {
        "benchmark": job.benchmark.name,
        "model": job.entry.label,
        "of": len(items) * replicas,
    }
    lost = [0]
    for replica in range(replicas):
        groups: dict[str, list[Item]] = {}
        for item in items:
            groups.setdefault(job.entry.list_answerers(item)[replica], []).append(item)

        def on_attempt(attempt: Attempt, replica: int = replica) -> None:
            made[replica, attempt.item] = attempt.model_copy(
                update={"seed": replica * STRIDE + attempt.seed}
            )
            lost[0] += attempt.status != "ok"
            context.tell("ask", figures | {"asked": len(made), "lost": lost[0]})

        written += [
            await _run_inspect(job, group, name, context, on_attempt)
            for name, group in groups.items()
        ]
    return [made[r, i.id] for r in range(replicas) for i in items], written


async def _run_inspect(
    job: EvalJob,
    items: Sequence[Item],
    name: str,
    context: EvalContext,
    on_attempt: Callable[[Attempt], None],
) -> str:
    """Run one Inspect task and return its log's file name; what stops the run is raised as it was,
    RunFailed for the rest.
    """
    lend_home()
    os.environ.setdefault("INSPECT_DISPLAY", "none")  # we tell progress ourselves
    os.environ.setdefault(
        "INSPECT_TRACE_LEVEL", "CRITICAL"
    )  # a second log, in the home folder, that a full disk breaks
    from inspect_ai import eval_async
    from inspect_ai.util import display_type

    from culturepark.evaluation.provider import open_model
    from culturepark.evaluation.tasks import build_task

    display_type()  # settles it for this process
    trouble: list[Exception] = []
    task = build_task(job.benchmark, job.setup, items, on_attempt, trouble.append, reckon=False)
    with _quiet():
        model = open_model(name, context.desks[name])
        others = {part: open_model(n, context.desks[n]) for part, n in context.parts.items()}
        logs = await eval_async(
            task,
            model=model,
            model_roles=others,
            log_dir=str(context.evals / "logs"),
            log_realtime=False,
            max_samples=context.width,
            max_connections=context.width,
            ctl_server=False,
            fail_on_error=True,
            log_level="error",
            score_display=False,
        )
    if trouble:
        raise trouble[0]
    if not logs or logs[0].status == "cancelled":
        raise KeyboardInterrupt  # Inspect takes an interrupt for the end of its work
    log = logs[0]
    if log.status != "success":
        why = log.error.message if log.error else log.status
        raise RunFailed(
            f"{job.benchmark.name} of {job.entry.label} was not finished: {why}. Nothing is"
            " lost: the same command goes on."
        )
    return Path(log.location).name


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Inspect from taking over the log of whoever imports us."""
    import logging

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def parse_models(names: Sequence[str]) -> list[ModelEntry]:
    """Return what names on the command stand for; InputError where two have one label.

    `NAME`, a model; `LABEL=NAME`, with another name on tables; several names with commas, replicas
    of one model; `{culture}` in a name, one model a culture; a folder of several tuned models, each
    of them.
    """
    made: list[ModelEntry] = []
    for text in names:
        label, found, rest = text.partition("=")
        label, rest = (label.strip(), rest) if found and not Path(text).exists() else ("", text)
        models = tuple(m.strip() for m in rest.split(",") if m.strip())
        if not models:
            raise InputError(
                f"--model {text!r}: write NAME, LABEL=NAME, or LABEL=NAME,NAME for replicas"
            )
        if len(set(models)) < len(models):
            raise InputError(
                f"--model {text!r} names a model twice: replicas are several trainings of one; ask"
                " one model again with --seeds"
            )
        made += (
            [ModelEntry(label or _shorten_name(models[0]), models)]
            if label or len(models) > 1
            else _list_folder_models(models[0])
        )
    twice = sorted({c.label for c in made if [d.label for d in made].count(c.label) > 1})
    if twice:
        raise InputError(f"two models are called {twice[0]!r}; name them apart: --model LABEL=NAME")
    return made


def _list_folder_models(name: str) -> list[ModelEntry]:
    """Return the tuned models in a folder of several, else the one model of this name."""
    from culturepark.local_models import manifest

    folder = Path(name).expanduser()
    if (
        CULTURE in name
        or not folder.is_dir()
        or (folder / manifest.FILE).is_file()
        or not any(folder.glob(f"*/{manifest.FILE}"))
    ):
        return [ModelEntry(_shorten_name(name), (name,))]
    return [ModelEntry(f"{folder.name}/{f.name}", (str(f),)) for f in manifest.find_folders(folder)]


def _shorten_name(name: str) -> str:
    """Return a model's name for tables: of a folder its last two parts."""
    parts = Path(name).parts
    return "/".join(parts[-2:]) if len(parts) > 2 or name.startswith((".", "/", "~")) else name
