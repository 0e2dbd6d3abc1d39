"""Benchmarks as Inspect tasks: what `inspect eval culturepark/vsm13` finds.

A sample of the dataset is a unit: a respondent, a question, a text, with all items that are not
independent of one another. The solver runs these and leaves their attempts, the scorer shows them,
and one metric reckons all figures. The provider `culturepark/NAME` (see `provider`) answers with
any model that CulturePark knows (`culturepark/embedded`, `culturepark/local/tiny`,
`culturepark/outputs/first/models/sft/arabic`, `culturepark/openai/gpt-4o-mini`, …); Inspect's own
providers answer too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, mean, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from culturepark.errors import InputError
from culturepark.evaluation import card as cards
from culturepark.evaluation import measure, planning
from culturepark.evaluation.kind import BenchmarkKind, load_kind
from culturepark.evaluation.provider import ask, build_messages
from culturepark.evaluation.types import Attempt, Benchmark, Item, Setup

REASONS = {
    "unparsed": "invalid_response_format",
    "empty": "no_response",
    "refused": "refusal",
    "filtered": "refusal",
}
# arguments of a Setup that a task may be given
SETUP_ARGUMENTS = (
    "method",
    "respondents",
    "count",
    "seeds",
    "orders",
    "wordings",
    "limit",
    "numbers",
)
# attempts on their way from solver to scorer, by sample and epoch; beside Inspect's own state,
# which is copied and compared at every step
Attempts = dict[tuple[str, int], list[dict[str, Any]]]


def build_task(
    benchmark: Benchmark,
    setup: Setup,
    items: Sequence[Item],
    on_attempt: Callable[[Attempt], None] = lambda attempt: None,
    on_error: Callable[[Exception], None] = lambda error: None,
    reckon: bool = True,
) -> Task:
    """Return the Inspect task that puts a benchmark's items to a model.

    `on_attempt` is called with each attempt as it comes, `on_error` with what stops the whole: a
    dead key, a budget that is used up. Without `reckon` the log holds only the share of answers
    that could be read: the figures are reckoned by whoever has all attempts.
    """
    kind, groups = load_kind(benchmark.kind), dict[str, list[Item]]()
    for item in items:
        groups.setdefault(f"{item.unit}/{item.seed}", []).append(item)
    attempts: Attempts = {}

    async def run_item(item: Item) -> Attempt:
        try:
            attempt = await kind.run(benchmark, item, ask)
        except Exception as error:
            on_error(error)
            raise
        on_attempt(attempt)
        return attempt

    return Task(
        MemoryDataset(
            [_build_sample(name, group) for name, group in groups.items()], name=benchmark.name
        ),
        solver=_build_solver(groups, run_item, attempts),
        scorer=_build_scorer(kind, setup.options, attempts, reckon=reckon),
        name=benchmark.name,
        metadata={
            "about": benchmark.about,
            "source": benchmark.source,
            "method": setup.method,
            "respondents": setup.respondents,
        },
    )


def _build_sample(name: str, items: Sequence[Item]) -> Sample:
    """Return the items of one unit as a sample; its input is what the first of them is sent."""
    return Sample(
        id=name,
        input=build_messages(items[0].request),
        metadata={
            "items": [i.id for i in items],
            "cultures": sorted({i.culture for i in items}),
        },
    )


def _build_solver(
    groups: Mapping[str, Sequence[Item]],
    run_item: Callable[[Item], Coroutine[Any, Any, Attempt]],
    attempts: Attempts,
) -> Solver:
    """Return the solver that runs a sample's items side by side and leaves their attempts."""

    @solver(name="run_items")
    def run_items() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            name = str(state.sample_id)
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(run_item(item)) for item in groups[name]]
            found = [task.result() for task in running]
            attempts[name, state.epoch] = [
                a.model_dump(mode="json", exclude={"talk"}) for a in found
            ]
            state.output = ModelOutput.from_content(
                str(state.model), "\n\n".join(a.said for a in found)
            )
            return state

        return solve

    return run_items()


def _build_scorer(
    kind: BenchmarkKind, options: Mapping[str, Any], attempts: Attempts, *, reckon: bool
) -> Scorer:
    """Return what shows attempts as a score, and the attempts of all samples as figures."""

    @metric(name="figures")
    def figures() -> Metric:
        def reckon_figures(scores: list[SampleScore]) -> dict[str, Any]:
            found = [
                Attempt.model_validate(a)
                for s in scores
                for a in (s.score.metadata or {}).get("outcomes", ())
            ]
            figures = [measure.estimate(m) for m in kind.measure(found, options)]
            return {
                " ".join(filter(None, (f.name, f.culture, f.subset))): f.value
                for f in figures
                if f.value is not None
            }

        return reckon_figures

    @scorer(metrics=[figures() if reckon else mean()], name="read")
    def read() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            found = attempts.pop((str(state.sample_id), state.epoch))
            lost = [a for a in found if a["status"] != "ok"]
            answers = ", ".join("–" if a["answer"] is None else str(a["answer"]) for a in found)
            return Score(
                value=1 - len(lost) / len(found),
                answer=answers,
                explanation="; ".join(a["reason"] for a in lost) or None,
                reason=REASONS.get(lost[0]["status"]) if lost else None,
                metadata={"outcomes": found},
            )

        return score

    return read()


def load_task(
    name: str,
    cultures: str | Sequence[str] = (),
    data: str | Sequence[str] = (),
    workspace: str | None = None,
    code: bool = False,
    options: Mapping[str, Any] | None = None,
    survey: str | None = None,
    **given: Any,
) -> Task:
    """Return a benchmark as a task for Inspect's own command: `inspect eval culturepark/vsm13 -T
    cultures=arabic,german -T count=5`.

    `code` lets a file name Python code of its own. `method`, `respondents`, `count`, `seeds` and
    `limit` are as in a Setup; what else is given are the benchmark's own options. `survey` is a
    survey release of one's own. An option that is named like an argument is given in `options`: `-T
    'options={cultures: {Native: korean}}'`.
    """
    how = {name: given.pop(name) for name in SETUP_ARGUMENTS if name in given}
    setup, benchmark = planning.build_setup(
        cards.load(name, code=code),
        cultures=_split_list(cultures),
        data=[Path(d) for d in _split_list(data)],
        workspace=workspace,
        options={**given, **(options or {})},
        survey=survey,
        **how,
    )
    return build_task(benchmark, setup, list(planning.plan_items(benchmark, setup)))


def _split_list(value: str | Sequence[str]) -> tuple[str, ...]:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, str)
        else tuple(value)
    )


@task
def vsm13(**given: Any) -> Task:
    """Hofstede's VSM 2013."""
    return load_task("vsm13", **given)


@task
def survey(**given: Any) -> Task:
    """Alignment with the World Values Survey's shares."""
    return load_task("survey", **given)


@task
def opinions(**given: Any) -> Task:
    """Alignment with a file shaped like GlobalOpinionQA."""
    return load_task("opinions", **given)


@task
def moderation(**given: Any) -> Task:
    """Labels of posts."""
    return load_task("moderation", **given)


@task
def hatecheck(**given: Any) -> Task:
    """Multilingual HateCheck, by functionality."""
    return load_task("hatecheck", **given)


@task
def education(**given: Any) -> Task:
    """A learner's exam before and after talking with the model."""
    return load_task("education", **given)


@task
def reward(**given: Any) -> Task:
    """Which of two answers a reward model prefers, beside what people preferred."""
    return load_task("reward", **given)


@task
def care(**given: Any) -> Task:
    """Open questions about cultures, judged against reference answers."""
    return load_task("care", **given)


@task
def benchmark(card: str, **given: Any) -> Task:
    """One's own benchmark, by its file: `inspect eval culturepark/benchmark -T
    card=teatime.toml`.
    """
    if not Path(card).is_file():
        raise InputError(f"no benchmark at {card}")
    return load_task(card, **given)
