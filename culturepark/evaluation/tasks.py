"""Benchmarks as Inspect tasks, and CulturePark's models as an Inspect provider: what `inspect eval
culturepark/vsm13` finds.

A sample is a unit: a respondent, a question, a text, with all items that are not independent of one
another. A solver holds these and leaves their Attempts, a scorer shows them, and one metric reckons
all figures. The provider `culturepark/NAME` answers with any model that CulturePark knows
(`culturepark/embedded`, `culturepark/local/tiny`, `culturepark/outputs/first/models/sft/arabic`,
`culturepark/openai/gpt-4o-mini`, …); Inspect's own providers answer too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
    modelapi,
)
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, mean, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolChoice, ToolInfo

from culturepark import llm as ours
from culturepark.errors import InputError
from culturepark.evaluation import card as cards
from culturepark.evaluation import measure, planned
from culturepark.evaluation.kind import load_kind
from culturepark.evaluation.types import Attempt, Benchmark, Item, Setup, Who
from culturepark.llm import codec, reading
from culturepark.llm.reasoning import apart
from culturepark.llm.session import Desk
from culturepark.records import Message, Reply, Request
from culturepark.settings import build_endpoint

# What a solver asks at this moment: role, facts and options beside the messages, for models that
# read them.
_asking: ContextVar[Request | None] = ContextVar("asking", default=None)
_desks: dict[
    str, Desk
] = {}  # models that answer by way of a journal, by name, while `seated` lasts
STOPS: Mapping[str, Any] = {
    "truncated": "max_tokens",
    "refused": "content_filter",
    "filtered": "content_filter",
}
STATUSES = {
    "stop": "ok",
    "max_tokens": "truncated",
    "model_length": "truncated",
    "content_filter": "filtered",
}
REASONS = {
    "unparsed": "invalid_response_format",
    "empty": "no_response",
    "refused": "refusal",
    "filtered": "refusal",
}
HOW = (
    "method",
    "respondents",
    "count",
    "seeds",
    "limit",
    "numbers",
)  # arguments of a Setup that a task may be given
SENT = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


# ---------------------------------------------------------------- provider


@contextmanager
def seated(desks: Mapping[str, Desk]) -> Iterator[None]:
    """Let the models of these names answer by way of their desks: each call is journaled, and never
    paid twice.
    """
    _desks.update(desks)
    try:
        yield
    finally:
        for name in desks:
            _desks.pop(name, None)


@modelapi(name="culturepark")
class Park(ModelAPI):
    """A model of CulturePark's, by the name it has there."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        **how: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, config=config)
        self.desk = _desks.get(model_name)
        self.model = (
            None
            if self.desk
            else ours.load(model_name, build_endpoint(base_url=base_url, **how), key=api_key)
        )

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer; what failed comes back as an output without text, with its status and reason."""
        request = _requested(input, config)
        if self.desk is not None:
            reply, _ = await self.desk.ask(request, request.role)
        else:
            assert self.model is not None
            reply = apart(await self.model.complete(request))
        usage = ModelUsage(
            input_tokens=reply.prompt_tokens or 0,
            output_tokens=reply.completion_tokens or 0,
            total_tokens=(reply.prompt_tokens or 0) + (reply.completion_tokens or 0),
        )
        told = {"status": reply.status, "reason": reply.reason, "shares": list(reply.shares)}
        error = reply.reason or None if reply.status != "ok" else None
        return ModelOutput(
            model=self.model_name,
            usage=usage,
            metadata=told,
            error=error,
            choices=[
                ChatCompletionChoice(
                    message=_said(reply), stop_reason=STOPS.get(reply.status, "stop")
                )
            ],
        )

    async def aclose(self) -> None:
        """Let go of connections; a desk closes its own."""
        close = getattr(self.model, "close", None)
        if close is not None:
            await close()

    def max_connections(self) -> int:
        """As many as Inspect likes: pace and limits are the model's own."""
        return 200


def _said(reply: Reply) -> ChatMessageAssistant:
    """Return a reply as Inspect's message, its thoughts as what they are there."""
    parts = (
        [ContentReasoning(reasoning=reply.reasoning), ContentText(text=reply.text)]
        if reply.reasoning
        else reply.text
    )
    return ChatMessageAssistant(content=parts, source="generate")


def _requested(messages: Sequence[ChatMessage], config: GenerateConfig) -> Request:
    """Return the request that is being asked; of a task that is not ours, one made of its
    messages.
    """
    told = tuple(
        Message(m.role if m.role in ("system", "assistant") else "user", m.text) for m in messages
    )
    asked = _asking.get()
    if asked is not None and asked.messages == told:
        return asked
    warmth = 1.0 if config.temperature is None else config.temperature
    return Request(
        "", told, temperature=warmth, max_tokens=config.max_tokens or 1024, seed=config.seed or 0
    )


async def ask(request: Request, who: Who = "model") -> Reply:
    """Put a request to the model under evaluation, or to the one that has the role `who`; failures
    are replies with a status.

    Where a distribution over options is wanted and none comes back, that is a failure: a single
    answer is not one.
    """
    model = get_model() if who == "model" else get_model(role=who)
    config = GenerateConfig(
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        seed=(request.seed + request.index) % 2**31,
    )
    if request.options:
        config = config.merge(GenerateConfig(logprobs=True, top_logprobs=codec.ALTERNATIVES))
    token = _asking.set(request)
    try:
        output = await model.generate(
            [SENT[m.role](content=m.content) for m in request.messages], config=config
        )
    finally:
        _asking.reset(token)
    reply = _reply(output)
    if request.options and reply.status in ("ok", "truncated") and not reply.shares:
        answer = _logprobs(output)
        shares = reading.shares(answer, request.options)
        if not shares:
            return replace(reply, status="failed", reason=reply.reason or reading.untold(answer))
        return replace(reply, status="ok", reason="", shares=shares)
    return reply


def _reply(output: ModelOutput) -> Reply:
    """Return an output as a reply with an honest status, whoever gave it."""
    told = output.metadata or {}
    text = output.completion.strip()
    if "status" in told:
        return Reply(
            told["status"], text, told["reason"], output.model, shares=tuple(told["shares"])
        )
    stop = output.stop_reason if output.choices else "unknown"
    status: Any = STATUSES.get(stop, "failed")
    reason = "" if status == "ok" else output.error or f"it stopped: {stop}"
    reply = apart(Reply(status, text, reason, output.model))
    return (
        reply
        if reply.text or reply.status != "ok"
        else replace(reply, status="empty", reason="the answer holds no text")
    )


def _logprobs(output: ModelOutput) -> dict[str, Any]:
    found = output.choices[0].logprobs if output.choices else None
    return {"choices": [{"logprobs": found.model_dump() if found else None}]}


# ------------------------------------------------------------------- tasks

Told = dict[
    tuple[str, int], list[dict[str, Any]]
]  # attempts on their way from solver to scorer, by sample and epoch


def made(
    benchmark: Benchmark,
    setup: Setup,
    items: Sequence[Item],
    heard: Callable[[Attempt], None] = lambda attempt: None,
    failed: Callable[[Exception], None] = lambda error: None,
    reckon: bool = True,
) -> Task:
    """Return the Inspect task that puts a benchmark's items to a model.

    `heard` is told each attempt as it comes, `failed` what stops the whole: a dead key, a budget
    that is used up. Without `reckon` the log tells only the share of answers that could be read:
    the figures are reckoned by whoever heard all attempts.
    """
    kind, groups = load_kind(benchmark.kind), dict[str, list[Item]]()
    for item in items:
        groups.setdefault(f"{item.unit}/{item.seed}", []).append(item)
    told: Told = {}  # beside Inspect's own state, which is copied and compared at every step

    @solver(name="hold")
    def hold() -> Solver:
        async def one(item: Item) -> Attempt:
            try:
                attempt = await kind.run(benchmark, item, ask)
            except Exception as error:
                failed(error)
                raise
            heard(attempt)
            return attempt

        async def solve(state: TaskState, generate: Generate) -> TaskState:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(one(item)) for item in groups[str(state.sample_id)]]
            attempts = [a.result() for a in asked]
            told[str(state.sample_id), state.epoch] = [
                o.model_dump(mode="json", exclude={"talk"}) for o in attempts
            ]
            state.output = ModelOutput.from_content(
                str(state.model), "\n\n".join(o.said for o in attempts)
            )
            return state

        return solve

    samples = [
        Sample(
            id=name,
            input=[SENT[m.role](content=m.content) for m in group[0].request.messages],
            metadata={
                "items": [i.id for i in group],
                "cultures": sorted({i.culture for i in group}),
            },
        )
        for name, group in groups.items()
    ]
    about = {
        "about": benchmark.about,
        "source": benchmark.source,
        "method": setup.method,
        "respondents": setup.respondents,
    }
    return Task(
        MemoryDataset(samples, name=benchmark.name),
        solver=hold(),
        scorer=_shown(benchmark, setup, told, reckon=reckon),
        name=benchmark.name,
        metadata=about,
    )


def _shown(benchmark: Benchmark, setup: Setup, held: Told, *, reckon: bool) -> Scorer:
    """Return what shows an attempt as a score, and all attempts as figures."""
    kind = load_kind(benchmark.kind)

    @metric(name="figures")
    def figures() -> Metric:
        def reckoned(scores: list[SampleScore]) -> dict[str, Any]:
            attempts = [
                Attempt.model_validate(o)
                for s in scores
                for o in (s.score.metadata or {}).get("outcomes", ())
            ]
            found = [measure.estimate(m) for m in kind.measure(attempts, setup.options)]
            return {
                " ".join(filter(None, (f.name, f.culture, f.subset))): f.value
                for f in found
                if f.value is not None
            }

        return reckoned

    @scorer(metrics=[figures() if reckon else mean()], name="read")
    def read() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            attempts = held.pop((str(state.sample_id), state.epoch))
            lost = [o for o in attempts if o["status"] != "ok"]
            answers = ", ".join("–" if o["answer"] is None else str(o["answer"]) for o in attempts)
            return Score(
                value=1 - len(lost) / len(attempts),
                answer=answers,
                explanation="; ".join(o["reason"] for o in lost) or None,
                reason=REASONS.get(lost[0]["status"]) if lost else None,
                metadata={"outcomes": attempts},
            )

        return score

    return read()


def task_of(
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
    how = {name: given.pop(name) for name in HOW if name in given}
    setup, benchmark = planned.setup(
        cards.load(name, code=code),
        cultures=_listed(cultures),
        data=[Path(d) for d in _listed(data)],
        workspace=workspace,
        options={**given, **(options or {})},
        survey=survey,
        **how,
    )
    return made(benchmark, setup, list(planned.items(benchmark, setup)))


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, str)
        else tuple(value)
    )


@task
def vsm13(**given: Any) -> Task:
    """Hofstede's VSM 2013."""
    return task_of("vsm13", **given)


@task
def survey(**given: Any) -> Task:
    """Alignment with the World Values Survey's shares."""
    return task_of("survey", **given)


@task
def opinions(**given: Any) -> Task:
    """Alignment with a file shaped like GlobalOpinionQA."""
    return task_of("opinions", **given)


@task
def moderation(**given: Any) -> Task:
    """Labels of posts."""
    return task_of("moderation", **given)


@task
def hatecheck(**given: Any) -> Task:
    """Multilingual HateCheck, by functionality."""
    return task_of("hatecheck", **given)


@task
def education(**given: Any) -> Task:
    """A learner's exam before and after talking with the model."""
    return task_of("education", **given)


@task
def reward(**given: Any) -> Task:
    """Which of two answers a reward model prefers, beside what people preferred."""
    return task_of("reward", **given)


@task
def care(**given: Any) -> Task:
    """Open questions about cultures, judged against reference answers."""
    return task_of("care", **given)


@task
def benchmark(card: str, **given: Any) -> Task:
    """One's own benchmark, by its file: `inspect eval culturepark/benchmark -T
    card=teatime.toml`.
    """
    if not Path(card).is_file():
        raise InputError(f"no benchmark at {card}")
    return task_of(card, **given)
