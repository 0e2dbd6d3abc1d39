"""Answers model requests, whether they come one by one or in a batch, and keeps the counts."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from culturepark.offline import Embedded
from culturepark.server import completions, faults, parameters
from culturepark.server.embeddings import embedded
from culturepark.server.hearing import hear
from culturepark.server.limiter import Limiter
from culturepark.server.problems import Problem
from culturepark.server.templated import Canned, templated
from culturepark.workspace import Workspace

Said = str | dict[str, Any] | AsyncIterator[dict[str, Any]] | tuple[int, dict[str, str], Any]
Answer = Callable[[int, dict[str, Any]], Said | Awaitable[Said]]
CHAT, TEXT, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
EMBEDDED = "The embedded engine"
EMBEDDED_TEXT = frozenset(
    [
        "model",
        "prompt",
        "echo",
        "max_tokens",
        "stream",
        "stream_options",
        "stop",
        "temperature",
        "top_p",
        "seed",
    ]
)


@runtime_checkable
class TextModel(Protocol):
    """An answer of a server that goes on with texts too, and heeds or refuses every parameter
    itself.
    """

    async def continue_text(
        self, number: int, body: Mapping[str, Any]
    ) -> dict[str, Any] | AsyncIterator[dict[str, Any]]:
        """Return a text completion, or its chunks as they come."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request gets: status, JSON body (or ready bytes), headers, and the fault that befalls
    it on its way.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    wire: str = ""


class Desk:
    """The part of the server that answers."""

    def __init__(
        self,
        answer: Answer | None,
        models: Sequence[str],
        draws: faults.Draws,
        latency: float,
        rpm: int | None,
        workspace: Workspace | None,
        chat_only: bool = False,
    ) -> None:
        self.models, self.chat_only = tuple(models), chat_only
        self.draws, self._answer, self._latency, self._workspace = draws, answer, latency, workspace
        self._limiter = Limiter(rpm) if rpm is not None else None
        self._engine = Embedded()
        self._speaks = answer if isinstance(answer, TextModel) else None
        self._names = {name: json.dumps(name).encode() for name in self.models}
        self.counts: dict[str, Any] = {
            "requests": 0,
            "answered": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "faults": {},
            "limits": {},
            "in_flight": 0,
            "peak_in_flight": 0,
        }

    async def ask(
        self, path: str, body: Any, forced: str = "", *, batched: bool = False
    ) -> Outcome:
        """Answer the request at CHAT, TEXT or EMBEDDINGS; Problem where it gets an error. A batch
        knows no limit and no latency.
        """
        self.counts["requests"] += 1
        number, kind = self.counts["requests"], self.draws.request()
        kind = forced or kind
        self._check(path, body)
        headers = self._limiter.enter() if self._limiter and not batched else {}
        if self._latency and not batched:
            await asyncio.sleep(self._latency)
        if kind in faults.ERRORS:
            self.met(kind)
            raise faults.failure(kind)
        if kind == "hang" and not batched:
            self.met(kind)
            await asyncio.Event().wait()
        if path == CHAT:
            outcome = await self._chat(number, body, kind, headers)
        elif path == TEXT:
            outcome = self._counted(await self._text(number, body, headers))
        else:
            outcome = self._counted(Outcome(200, embedded(body, self.models), headers))
        if kind in faults.WIRE:
            self.met(kind)
            return Outcome(outcome.status, outcome.body, outcome.headers, kind)
        return outcome

    def _check(self, path: str, body: Any) -> None:
        """Raise the Problem with a request: what OpenAI would refuse, and what the answers here do
        not heed.
        """
        check = {CHAT: completions.checked, TEXT: completions.text_checked}.get(
            path, completions.model
        )
        check(body, self.models)
        if path == EMBEDDINGS or self._speaks is not None:
            return
        if self._answer is None:
            heeded = EMBEDDED_TEXT if path == TEXT else parameters.CHAT - {"n"}
            parameters.check_parameters(body, heeded, EMBEDDED)
        elif body.get("n") not in (None, 1):
            raise Problem(
                400, "Invalid value for 'n': this server gives one choice a request.", param="n"
            )

    async def befallen(self, forced: str = "") -> str:
        """Return the fault of the wire that befalls a request about fine-tuning; Problem where it
        gets an error instead.
        """
        kind = forced or self.draws.tune()
        if kind in faults.ERRORS:
            self.met(kind)
            raise faults.failure(kind)
        if kind not in faults.WIRE:
            return ""
        self.met(kind)
        if kind == "hang":
            await asyncio.Event().wait()
        return kind

    def serve(self, model: str) -> None:
        """Answer under one more name."""
        if model not in self.models:
            self.models += (model,)
            self._names[model] = json.dumps(model).encode()

    def met(self, kind: str) -> None:
        """Count a fault."""
        self.counts["faults"][kind] = self.counts["faults"].get(kind, 0) + 1

    async def _chat(
        self, number: int, body: dict[str, Any], kind: str, headers: Mapping[str, str]
    ) -> Outcome:
        answer, limit = self._answer, completions.limit(body)
        if (
            isinstance(answer, Canned)
            and kind not in faults.TEXTS
            and not body.get("stream")
            and (limit is None or limit >= answer.tokens)
        ):
            used = completions.prompt_tokens(body["messages"])
            whole = answer.encoded(number, self._names[body["model"]], used, int(time.time()))
            self._used(used, answer.tokens)
            return Outcome(200, whole, headers)
        said = await self._say(number, body)
        if isinstance(said, tuple):
            status, own, made = said
            outcome = Outcome(status, made, {**headers, **own})
        else:
            made = completions.completion(number, body, said) if isinstance(said, str) else said
            outcome = Outcome(200, made, headers)
        if kind in faults.TEXTS and outcome.status == 200 and completions.spoken(outcome.body):
            self.met(kind)
            outcome = Outcome(200, faults.spoil(kind, outcome.body), outcome.headers)
        return self._counted(outcome)

    async def _text(self, number: int, body: dict[str, Any], headers: Mapping[str, str]) -> Outcome:
        """Answer a request for a text completion: each prompt is to other answers than a model's
        own what a user says.
        """
        if self._speaks is not None:
            return Outcome(200, await self._speaks.continue_text(number, body), headers)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if not prompts or not all(isinstance(p, str) for p in prompts):
            raise Problem(
                400,
                "Invalid value for 'prompt': this server has no tokens; give a text or a list of"
                " texts.",
                code="invalid_value",
                param="prompt",
            )
        texts = []
        for prompt in prompts:
            said = await self._say(
                number, {**body, "messages": [{"role": "user", "content": prompt}]}
            )
            if isinstance(said, tuple):
                return Outcome(said[0], said[2], {**headers, **said[1]})
            if not isinstance(said, str):
                return Outcome(200, said, headers)
            texts.append(said)
        return Outcome(200, completions.text_completion(number, body, prompts, texts), headers)

    async def _say(self, number: int, body: dict[str, Any]) -> Said:
        try:
            if self._answer is not None:
                said = self._answer(number, body)
                return await said if inspect.isawaitable(said) else said
            request = hear(self._workspace, body) if self._workspace else None
            text = (
                templated(body) if request is None else (await self._engine.complete(request)).text
            )
            return completions.stopped(text, body)
        except Problem:
            raise
        except Exception as error:
            raise Problem(
                500, f"The answer of this server failed: {type(error).__name__}: {error}"
            ) from error

    def _counted(self, outcome: Outcome) -> Outcome:
        usage = outcome.body.get("usage") if isinstance(outcome.body, Mapping) else None
        if outcome.status == 200 and isinstance(usage, Mapping):
            self._used(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
        return outcome

    def _used(self, prompt: int, completion: int) -> None:
        self.counts["answered"] += 1
        self.counts["prompt_tokens"] += prompt
        self.counts["completion_tokens"] += completion
