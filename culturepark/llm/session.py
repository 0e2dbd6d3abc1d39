"""Asks models, keeps each call in the run's store, and reads structured answers strictly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from json import JSONDecodeError
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from culturepark.errors import ReplayMiss
from culturepark.executor import stopping
from culturepark.llm import Model
from culturepark.llm.reading import extract_json
from culturepark.llm.reasoning import separate_thoughts
from culturepark.prompts import render
from culturepark.records import Message, Reply, Request, Role, digest
from culturepark.store import RunStore
from culturepark.toml import explain

T = TypeVar("T", bound=BaseModel)
V = TypeVar("V")
TRIES = 3  # a structured answer that cannot be read is asked for again this often in all


@dataclass(frozen=True)
class Failure:
    """A call that gave no usable answer: its status and why. It is never data."""

    status: str
    reason: str


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A structured answer and the reply it was read from."""

    value: T
    reply: Reply


@dataclass(frozen=True)
class Models:
    """Which model answers which request: that of the speaker's persona or culture, else that of the
    role, else the default.
    """

    default: Model
    roles: Mapping[str, Model] = field(default_factory=dict)
    seats: Mapping[str, Model] = field(default_factory=dict)

    def choose_model(self, request: Request) -> Model:
        """Return the model of a request."""
        if self.seats and request.speaker:
            seat_model = self.seats.get(request.speaker) or self.seats.get(
                request.speaker.partition("/")[0]
            )
            if seat_model is not None:
                return seat_model
        return self.roles.get(request.role, self.default)

    def list_models(self) -> tuple[Model, ...]:
        """Return every model once."""
        return tuple(
            {id(m): m for m in (self.default, *self.roles.values(), *self.seats.values())}.values()
        )


@dataclass
class Meter:
    """What the calls of one piece of work cost in USD; None once a call's cost is unknown."""

    usd: float | None = 0.0

    def add(self, usd: float | None) -> None:
        """Add one call."""
        self.usd = None if self.usd is None or usd is None else self.usd + usd


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def measure_cost() -> Iterator[Meter]:
    """Sum the cost of the calls within, including those of tasks that are started within."""
    token = _METER.set(meter := Meter())
    try:
        yield meter
    finally:
        _METER.reset(token)


@dataclass
class Session:
    """The models and the store of one run, through which its stages ask.

    `calls` and `failures` count since the session opened; `usd` and `tokens` are the whole run's so
    far, with what may have been billed unseen. A call is not sent if the store holds its answer, or
    if it is known to fail each time (a prompt that does not fit). With `replay`, another run's
    store gives every answer and no model is asked; ReplayMiss on the first request that it does not
    hold.
    """

    models: Models
    store: RunStore
    replay: RunStore | None = None
    calls: int = 0
    failures: int = 0
    usd: float = 0.0
    tokens: int = 0
    _final: dict[str, Reply] = field(default_factory=dict, init=False, repr=False)  # by key

    def __post_init__(self) -> None:
        self.usd, self.tokens = self.store.sum_spent()

    @property
    def has_price(self) -> bool:
        """Whether any model of this run has a known price."""
        return any(getattr(m, "price", None) is not None for m in self.models.list_models())

    async def ask(self, request: Request, subject: str) -> tuple[Reply, str]:
        """Send one request to its model; return the reply and the call's key. `subject` is the id
        of what it is about.
        """
        model = self.models.choose_model(request)
        key = request.key(model.identity)
        answer = self.store.find_answer(key)
        if answer is not None:
            return separate_thoughts(answer), key
        if key in self._final:
            return self._final[key], key
        if self.replay is None:
            await stopping.current().pass_or_wait()
            reply = separate_thoughts(await model.complete(request))
        elif (replayed := self.replay.find_reply(key)) is not None:
            reply = separate_thoughts(replayed)
        else:
            raise ReplayMiss(
                f"{self.replay.path} does not hold the answer of {model.identity} to this"
                f" {request.role} call (key {key}, about {subject}); a replay needs the same"
                " settings, cards and version"
            )
        self.store.add_call(key, subject, request.role, reply)
        if reply.final:
            self._final[key] = reply
        self.calls += 1
        self.tokens += (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
        self.failures += reply.status != "ok"
        self.usd += reply.usd or 0.0
        if (meter := _METER.get()) is not None:
            meter.add(reply.usd)
        return reply, key

    async def ask_json(self, request: Request, subject: str, shape: type[T]) -> Answer[T] | Failure:
        """Ask for a JSON answer of this shape.

        If the answer cannot be read, the model is shown it and what is wrong; after an answer that
        was cut, the next may be twice as long. After TRIES answers Failure holds the raw text.
        """
        keys: list[str] = []

        async def ask(retry: Request) -> Reply:
            reply, key = await self.ask(retry, subject)
            keys.append(key)
            return reply

        value, reply = await ask_until_readable(
            ask,
            request,
            lambda text: parse_answer(text, shape),
            lambda why: self.store.mark_unparsed(keys[-1], why),
        )
        return value if isinstance(value, Failure) else Answer(value, reply)

    async def close(self) -> None:
        """Let go of the models' connections and commit."""
        for model in self.models.list_models():
            close = getattr(model, "close", None)
            if close is not None:
                await close()
        if self.replay is not None:
            self.replay.close()
        self.store.commit()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def ask_until_readable(
    ask: Callable[[Request], Awaitable[Reply]],
    request: Request,
    parse: Callable[[str], V],
    on_unread: Callable[[str], None] = lambda why: None,
) -> tuple[V | Failure, Reply]:
    """Ask until an answer can be read, at most TRIES times; return the value or the last Failure,
    and the last reply.

    `parse` raises ValueError for what it cannot read; the model is then shown its answer and why. A
    reply that was cut counts if the answer in it is whole (some models talk on behind it); else the
    next may be twice as long. `on_unread` is called with the reason each time.
    """
    last, current, reply = Failure("failed", "not asked"), request, Reply("failed")
    for index in range(TRIES):
        reply = await ask(replace(current, index=index))
        if reply.status in ("refused", "filtered", "failed"):
            return Failure(reply.status, reply.reason), reply
        if reply.status != "ok":
            last = Failure(reply.status, reply.reason)
            if reply.status == "truncated":
                with suppress(ValueError):
                    return parse(reply.text), reply
                current = replace(current, max_tokens=2 * current.max_tokens)
            continue
        try:
            return parse(reply.text), reply
        except ValueError as error:
            remark = f"; {reply.reason}" if reply.reason else ""
            last = Failure("unparsed", f"{error}; the model wrote: {reply.text[:300]!r}{remark}")
            on_unread(last.reason)
            current = replace(
                current, messages=(*request.messages, *_build_correction(reply.text, str(error)))
            )
    return last, reply


def parse_answer(text: str, shape: type[T]) -> T:
    """Return the JSON answer of this shape that a text holds; ValueError names the first field that
    is wrong, and why.
    """
    try:
        return shape.model_validate_json(extract_json(text))
    except ValidationError as error:
        raise ValueError(explain(error, shape, "answer")[0]) from None
    except JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON: {error}") from None


def _build_correction(text: str, why: str) -> tuple[Message, Message]:
    """Return the messages that show a model its unreadable answer and the reason."""
    return Message("assistant", text[:4000]), Message(
        "user", f"That cannot be read: {why}. Answer with the JSON object only."
    )


def build_single_request(
    role: Role, facts: Mapping[str, Any], shape: type[BaseModel] | None, *purpose: Any
) -> Request:
    """Build the request of a role that answers once. `purpose` names its random stream."""
    messages = (
        Message(
            role="system", content=render(role.system, facts, f"agents/{role.name}.toml: system")
        ),
        Message(
            role="user", content=render(role.prompt, facts, f"agents/{role.name}.toml: prompt")
        ),
    )
    return Request(
        role=role.name,
        messages=messages,
        facts=facts,
        temperature=role.temperature,
        max_tokens=role.max_tokens,
        reply_schema=_build_schema(shape) if shape else None,
        seed=int(digest(role.name, *purpose), 16) >> 1,
    )


@lru_cache(maxsize=64)
def _build_schema(shape: type[BaseModel]) -> dict[str, Any]:
    return shape.model_json_schema()
