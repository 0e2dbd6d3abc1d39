"""CulturePark's models as a provider of Inspect's, and how a request goes there and back.

The messages that Inspect is given are the messages that are sent. What a request holds besides
(role, options, seed, facts) stands in the metadata of its last message, temperature and the most
tokens in the generate config; `build_request` makes the request of both, so a solver or an approver
that changes a message changes what is sent. The reply comes back as a ModelOutput whose metadata
hold `status`, `reason` and `option_probs`: the probabilities of the request's options, in their
order, empty where none were asked for or told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from pydantic import BaseModel, Field

from culturepark import llm
from culturepark.evaluation.types import Who
from culturepark.llm import codec, reading
from culturepark.llm.reasoning import separate_thoughts
from culturepark.llm.session import Session
from culturepark.records import Message, Reply, Request
from culturepark.settings import build_endpoint

STOP_REASONS: Mapping[str, Any] = {
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
MESSAGES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
BESIDE = ("role", "seed", "index", "speaker", "options", "stop", "reply_schema")


class Unlogged(BaseModel):
    """Facts of a request, for models that answer by them: passed on unchanged, left out of logs."""

    facts: Any = Field(exclude=True, repr=False)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Unlogged:
        return self


def build_messages(request: Request) -> list[ChatMessage]:
    """Return a request's messages as Inspect's; the last one's metadata hold the rest of it."""
    messages: list[ChatMessage] = [MESSAGES[m.role](content=m.content) for m in request.messages]
    beside = {name: value for name in BESIDE if (value := getattr(request, name))}
    messages[-1].metadata = {**beside, "facts": Unlogged(facts=request.facts)}
    return messages


def build_request(messages: Sequence[ChatMessage], config: GenerateConfig) -> Request:
    """Return the request that Inspect's messages and config make, whoever made these."""
    texts = tuple(
        Message(m.role if m.role in ("system", "assistant") else "user", m.text) for m in messages
    )
    given = (messages[-1].metadata or {}) if messages else {}
    facts = given.get("facts")
    beside = {name: given[name] for name in BESIDE if name in given}
    if not isinstance(facts, Unlogged):
        beside = {"seed": config.seed or 0}
    return Request(
        messages=texts,
        facts=facts.facts if isinstance(facts, Unlogged) else {},
        temperature=1.0 if config.temperature is None else config.temperature,
        max_tokens=config.max_tokens or 1024,
        **{"role": "", **beside},
    )


def build_output(reply: Reply, name: str) -> ModelOutput:
    """Return a reply as Inspect's output; one that failed has no text, and its reason as error."""
    tokens = reply.prompt_tokens or 0, reply.completion_tokens or 0
    content: Any = reply.text
    if reply.reasoning:
        content = [ContentReasoning(reasoning=reply.reasoning), ContentText(text=reply.text)]
    return ModelOutput(
        model=name,
        usage=ModelUsage(input_tokens=tokens[0], output_tokens=tokens[1], total_tokens=sum(tokens)),
        metadata={
            "status": reply.status,
            "reason": reply.reason,
            "option_probs": list(reply.option_probs),
        },
        error=None if reply.status == "ok" else reply.reason or None,
        choices=[
            ChatCompletionChoice(
                message=ChatMessageAssistant(content=content, source="generate"),
                stop_reason=STOP_REASONS.get(reply.status, "stop"),
            )
        ],
    )


def build_reply(output: ModelOutput) -> Reply:
    """Return an output as a reply with an honest status, whichever provider gave it."""
    metadata = output.metadata or {}
    text = output.completion.strip()
    if "status" in metadata:
        return Reply(
            metadata["status"],
            text,
            metadata["reason"],
            output.model,
            option_probs=tuple(metadata["option_probs"]),
        )
    stop = output.stop_reason if output.choices else "unknown"
    status: Any = STATUSES.get(stop, "failed")
    reason = "" if status == "ok" else output.error or f"it stopped: {stop}"
    reply = separate_thoughts(Reply(status, text, reason, output.model))
    if reply.text or reply.status != "ok":
        return reply
    return replace(reply, status="empty", reason="the answer holds no text")


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
    output = await model.generate(build_messages(request), config=config)
    reply = build_reply(output)
    if not request.options or reply.status not in ("ok", "truncated") or reply.option_probs:
        return reply
    logprobs = output.choices[0].logprobs if output.choices else None
    answer = {"choices": [{"logprobs": logprobs.model_dump() if logprobs else None}]}
    shares = reading.read_option_probs(answer, request.options)
    if not shares:
        return replace(
            reply, status="failed", reason=reply.reason or reading.explain_missing_probs(answer)
        )
    return replace(reply, status="ok", reason="", option_probs=shares)


class CultureParkModel(ModelAPI):
    """A model of CulturePark's, by the name it has there.

    With a `session`, each call is journaled and never paid for again.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        session: Session | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, config=config)
        self.session = session
        self.model: llm.Model | None = None
        if session is None:
            endpoint = build_endpoint(base_url=base_url, **settings)
            self.model = llm.load(model_name, endpoint, key=api_key)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer the messages."""
        request = build_request(input, config)
        if self.session is not None:
            reply, _ = await self.session.ask(request, request.role)
        else:
            assert self.model is not None
            reply = separate_thoughts(await self.model.complete(request))
        return build_output(reply, self.model_name)

    async def aclose(self) -> None:
        """Let go of connections; a session closes its own."""
        close = getattr(self.model, "close", None)
        if close is not None:
            await close()

    def max_connections(self) -> int:
        """As many as Inspect likes: pace and limits are the model's own."""
        return 200


@modelapi(name="culturepark")
def culturepark() -> type[ModelAPI]:
    """Return the class behind `culturepark/NAME`."""
    return CultureParkModel


def open_model(name: str, session: Session) -> Model:
    """Return Inspect's model of this name, whose calls go through a session."""
    api: Any = culturepark
    return Model(api(name, session=session), GenerateConfig())
