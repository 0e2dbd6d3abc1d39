"""Asks a model, keeps the call in the journal, and reads structured answers strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from culturepark.journal import Journal
from culturepark.models import Model
from culturepark.prompts import render
from culturepark.records import Message, Reply, Request, Role, digest

T = TypeVar("T", bound=BaseModel)
TRIES = 3  # a structured answer that cannot be read is asked for again this often in all
FENCE = re.compile(r"^```[a-z]*\s*|\s*```$", re.IGNORECASE)


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


@dataclass
class Desk:
    """Where the stages of one run put their questions: a model a role, and the journal."""

    models: Mapping[str, Model]
    journal: Journal
    tokens: int = 0
    calls: int = 0
    failures: int = 0

    async def ask(self, request: Request, subject: str) -> tuple[Reply, str]:
        """Put one request to the model of its role; return the reply and the call's key. `subject` is what it is about."""
        model = self.models.get(request.role) or self.models["default"]
        reply = await model.complete(request)
        key = request.key(model.identity)
        self.journal.add_call(key, subject, request.role, reply)
        self.calls += 1
        self.tokens += (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
        self.failures += reply.status != "ok"
        return reply, key

    async def read(self, request: Request, subject: str, shape: type[T]) -> Answer[T] | Failure:
        """Ask for a JSON answer of this shape; ask again while it cannot be read, then say so with the raw text."""
        last = Failure("failed", "not asked")
        for index in range(TRIES):
            reply, _ = await self.ask(request.model_copy(update={"index": index}), subject)
            if reply.status != "ok":
                last = Failure(reply.status, reply.reason)
                if reply.status in ("refused", "filtered", "failed"):
                    return last
                continue
            try:
                return Answer(shape.model_validate_json(extract_json(reply.text)), reply)
            except (ValidationError, ValueError) as error:
                last = Failure("unparsed", f"{_short(error)}; the model wrote: {reply.text[:300]!r}")
        return last


def once(role: Role, facts: Mapping[str, Any], shape: type[BaseModel] | None, *purpose: Any) -> Request:
    """Build the request of a role that answers once. `purpose` names its random stream."""
    messages = (
        Message(role="system", content=render(role.system, facts, f"agents/{role.name}.toml: system")),
        Message(role="user", content=render(role.prompt, facts, f"agents/{role.name}.toml: prompt")),
    )
    return Request.model_construct(
        role=role.name,
        messages=messages,
        facts=facts,
        temperature=role.temperature,
        max_tokens=role.max_tokens,
        reply_schema=_schema(shape) if shape else None,
        seed=int(digest(role.name, *purpose), 16) >> 1,
        index=0,
    )


@lru_cache(maxsize=64)
def _schema(shape: type[BaseModel]) -> dict[str, Any]:
    return shape.model_json_schema()


def extract_json(text: str) -> str:
    """Return the one JSON object in a model's answer: bare, fenced, or with words around it. ValueError if there is none."""
    text = FENCE.sub("", text.strip())
    start = text.find("{")
    if start < 0:
        raise ValueError("no JSON object in the answer")
    value, _ = json.JSONDecoder().raw_decode(text[start:])
    return json.dumps(value)


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}"
    return str(error)
