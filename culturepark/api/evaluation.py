"""The verb that puts benchmarks to models and keeps their results in a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from culturepark import logs, runs
from culturepark.api.runs import merge_settings, resume
from culturepark.api.work import report
from culturepark.errors import InputError, nearest
from culturepark.evaluation import card as cards
from culturepark.evaluation import planning, runner
from culturepark.evaluation import result as results
from culturepark.evaluation.kind import load_kind
from culturepark.evaluation.result import Result
from culturepark.evaluation.runner import EMBEDDED, EvalJob
from culturepark.evaluation.types import Benchmark
from culturepark.events import Tell
from culturepark.executor import pool
from culturepark.llm import Model
from culturepark.llm import load as load_model
from culturepark.llm.session import Models, Session
from culturepark.providers import local_place
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.workspace import find_workspace, load, locate_output

log = logging.getLogger("culturepark")


def evaluate(
    name: str,
    benchmarks: Sequence[str | Path],
    models: Sequence[str],
    *,
    cultures: Sequence[str] = (),
    data: Sequence[str | Path] = (),
    method: str = "auto",
    respondents: str = "auto",
    count: int = 20,
    seeds: Any = (0,),
    orders: Any = (0,),
    wordings: Any = (0,),
    limit: int | None = None,
    judge: str | None = None,
    learner: str | None = None,
    corpus: str | Path | None = None,
    survey: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    key: str | None = None,
    code: bool = False,
    tell: Tell = lambda stage, figures: None,
    **driven: Any,
) -> list[Result]:
    """Put benchmarks to models; return their results, from `<run>/evals/<benchmark>/<model>/`.

    `name` is a run, or a new one's name; `benchmarks` are short names or files, `models` as on the
    command (a name, LABEL=NAME, replicas with commas, `{culture}` in a name, a folder of models).
    `method` auto reads the distribution of models on this machine and samples others; `respondents`
    auto lets the embedded engine speak for personas, others for their people. `count` respondents
    per culture are sampled, once per replica: `seeds` by `orders` of the options (1: reversed) by
    `wordings` of the card. `corpus` is the run whose held-out questions are told apart, by default
    this one. `survey` is a survey release of your own; the default is the run's, else the shipped
    figures. `code` lets a benchmark's file name Python code. `driven` holds max_usd, max_tokens,
    concurrency, rpm, tpm, timeout, batch, base_url and endpoints, `key` the first model's API key.
    """
    _require_inspect()
    folder = locate_run(name, workspace, out)
    source = folder if corpus is None else locate_run(corpus, workspace, out)
    settings, keys = _merge_settings(models, (judge, learner), workspace, key, driven)
    how = {
        "cultures": tuple(cultures),
        "data": [Path(d) for d in data],
        "count": count,
        "seeds": seeds,
        "orders": orders,
        "wordings": wordings,
        "limit": limit,
        "survey": _choose_survey(list(dict.fromkeys((folder, source))), survey, settings),
        "held": _find_splits(source, corpus),
        "workspace": load(workspace),
    }
    asked = [cards.load(b, code=code) for b in benchmarks]
    _check_options(options or {}, asked)
    jobs = [j for b in asked for j in _build_jobs(b, models, method, respondents, how, options)]
    parts = _choose_parts(jobs, judge, learner)
    folders = _run_jobs(name, folder, jobs, parts, settings, keys, tell)
    return _read_results(folder, folders, workspace)


def _read_results(run: Path, folders: Sequence[Path], workspace: Any) -> list[Result]:
    """Return results, once the report of the run, where it is one, shows them."""
    if (run / "run.toml").is_file():
        report(resume(run, workspace=workspace))
    return [results.read(folder) for folder in folders]


def _require_inspect() -> None:
    if find_spec("inspect_ai") is None:
        raise InputError("evaluation needs Inspect: pip install 'culturepark[evaluate]'")


def _merge_settings(
    models: Sequence[str],
    parts: Sequence[str | None],
    workspace: str | Path | None,
    key: str | None,
    driven: Mapping[str, Any],
) -> tuple[Settings, Mapping[str, str]]:
    """Return the settings that drive the calls, and the keys by provider."""
    model = _choose_first_model(models, *parts)
    settings, keys = merge_settings(None, workspace, {"model": model, **driven})
    own = {settings.model.partition("/")[0]: key} if key else {}
    return runs.resolve_addresses(settings), {**keys, **own}


def _run_jobs(
    name: str,
    folder: Path,
    jobs: Sequence[EvalJob],
    parts: Mapping[str, str],
    settings: Settings,
    keys: Mapping[str, str],
    tell: Tell,
) -> list[Path]:
    """Do the jobs in a run's folder, say what was spent, and return the folders of the results."""
    models = _load_models(_list_models(jobs, parts), settings, keys)
    with RunStore(folder / "evals") as store, logs.keep_log(folder):
        runs.attach_store(models.values(), store, settings)
        sessions = {n: Session(Models(model), store) for n, model in models.items()}
        context = runner.EvalContext(folder / "evals", sessions, parts, settings.width, tell)
        folders = pool.run_loop(_run_all(jobs, context, store))
        usd, tokens = store.sum_spent()
        priced = any(s.has_price for s in sessions.values())
        tell("spent", {"run": name, "usd": usd if priced else None, "tokens": tokens})
    return folders


async def _run_all(
    jobs: Sequence[EvalJob], context: runner.EvalContext, store: RunStore
) -> list[Path]:
    """Do all jobs, and let go of the models' connections whatever their end is; a failed write of
    the store ends them.
    """
    with store.guard():
        async with AsyncExitStack() as open_desks:
            for desk in context.desks.values():
                await open_desks.enter_async_context(desk)
            return await runner.run_jobs(jobs, context)


def _load_models(
    names: Iterable[str], settings: Settings, keys: Mapping[str, str]
) -> dict[str, Model]:
    """Return the models of these names; what would make every call fail is raised before any is
    made.
    """
    made = {
        n: load_model(
            n, settings.endpoint(n), key=keys.get(n.partition("/")[0]), batch=settings.batch
        )
        for n in names
    }
    runs.check_models(settings, Models(next(iter(made.values())), seats=made))
    return made


def locate_run(name: str | Path, workspace: str | Path | None, out: str | Path | None) -> Path:
    """Return the folder of a run, given by folder or name; one of a new name is not there yet."""
    path = Path(name).expanduser()
    if (path / "run.toml").is_file() or (path / "evals").is_dir():
        return path
    return locate_output(find_workspace(workspace), str(name), out)


def _build_jobs(
    benchmark: Benchmark,
    models: Sequence[str],
    method: str,
    respondents: str,
    how: Mapping[str, Any],
    options: Mapping[str, Any] | None,
) -> list[EvalJob]:
    """Return a benchmark's jobs, one per model entry; options that only other benchmarks know are
    left to these.
    """
    kind = load_kind(benchmark.kind)
    own = {k: v for k, v in (options or {}).items() if k in kind.options}
    jobs = []
    for entry in runner.parse_models(models):
        at_hand = all(local_place(m) is not None for m in entry.models)
        embedded = set(entry.models) == {EMBEDDED}
        has_probs = at_hand or (embedded and kind.culture_source == "cards")
        given: dict[str, Any] = {"method": method, "respondents": respondents}
        if method == "auto":
            given["method"] = "likelihood" if has_probs else "sample"
        if respondents == "auto":
            given["respondents"] = kind.respondents[-1 if embedded else 0]
        given["numbers"] = given["method"] == "likelihood" and not at_hand and not embedded
        setup, card = planning.build_setup(benchmark, options=own, **how, **given)
        jobs.append(EvalJob(card, setup, entry))
    return jobs


def _find_splits(folder: Path, corpus: str | Path | None) -> dict[str, str]:
    """Return which split of a run's corpus each question is in; nothing where no run is there and
    none was named.
    """
    from culturepark.corpora.build import splits

    if not (folder / "run.toml").is_file() and corpus is None:
        return {}
    run = runs.resume(folder)
    return dict(splits(run.workspace, run.settings))


def _choose_survey(
    folders: Sequence[Path], given: str | Path | None, settings: Settings
) -> str | None:
    """Return the survey release that answers are held against: the one given, else that of the run
    or its corpus, else the workspace's.
    """
    there = [runs.resume(f).settings.survey for f in folders if (f / "run.toml").is_file()]
    own = next(filter(None, there), None if there else settings.survey)
    if given is not None and own is not None and str(given) != own:
        log.warning(
            "held against the figures of %s, as --survey says, not those of the run, %s", given, own
        )
    return own if given is None else str(given)


def _choose_first_model(models: Sequence[str], *parts: str | None) -> str:
    """Return the first model at an endpoint, whose provider `base_url` and `key` are for; the first
    at all where none is.
    """
    if not models:
        raise InputError("which models? Name at least one: --model embedded")
    names = [*(n for c in runner.parse_models(models) for n in c.models), *filter(None, parts)]
    return next(
        (n for n in names if n != EMBEDDED and local_place(n) is None and "/" in n), names[0]
    )


def _check_options(options: Mapping[str, Any], asked: Sequence[Benchmark]) -> None:
    """Raise InputError for an option that none of the benchmarks has, with the nearest that one
    has.
    """
    known = {name for card in asked for name in load_kind(card.kind).options}
    for name in options:
        if name not in known:
            raise InputError(
                f"{', '.join(c.name for c in asked)}: no option {name!r}."
                f" {nearest(name, sorted(known))}"
            )


def _choose_parts(
    jobs: Sequence[EvalJob], judge: str | None, learner: str | None
) -> dict[str, str]:
    """Return which model plays which part; InputError where a benchmark needs one that nobody
    plays.
    """
    parts = {part: name for part, name in (("judge", judge), ("learner", learner)) if name}
    for job in jobs:
        for part in load_kind(job.benchmark.kind).needs(job.benchmark):
            if part not in parts:
                raise InputError(
                    f"benchmark {job.benchmark.name!r} needs a {part}: name its model with --{part}"
                    " (embedded plays it by rule)"
                )
    return parts


def _list_models(jobs: Sequence[EvalJob], parts: Mapping[str, str]) -> list[str]:
    """Return the names of all models that jobs and parts need, each once."""
    names: dict[str, None] = {}
    for job in jobs:
        asked = planning.plan_items(job.benchmark, job.setup) if job.entry.per_culture else ()
        names |= dict.fromkeys(runner.list_models(job, list(asked)) if asked else job.entry.models)
    return list(dict.fromkeys([*names, *parts.values()]))


def benchmarks() -> dict[str, str]:
    """Return the benchmarks that come with the package: name → title."""
    return {name: cards.load(path).title for name, path in cards.list_shipped().items()}
