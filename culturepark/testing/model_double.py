"""Answers requests for a model, whether they come one by one or in a batch, with faults on
demand.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from culturepark.llm.facts import FIELD, unpack_request
from culturepark.offline import Embedded
from culturepark.serving import parameters
from culturepark.serving.http_server import CHAT, TEXT
from culturepark.serving.problems import Problem, invalid_value
from culturepark.serving.requests import (
    check_chat_request,
    check_model,
    check_text_request,
    read_limit,
)
from culturepark.testing import completions, faults
from culturepark.testing.embeddings import embed_texts
from culturepark.testing.rate_limit import RateLimit
from culturepark.testing.templated import CannedAnswer, write_templated_answer

Said = str | dict[str, Any] | AsyncIterator[dict[str, Any]] | tuple[int, dict[str, str], Any]
Answer = Callable[[int, dict[str, Any]], Said | Awaitable[Said]]
EMBEDDINGS = "/v1/embeddings"
ENGINE = "The embedded engine"
ENGINE_CHAT = (parameters.CHAT - {"n"}) | {FIELD}
ENGINE_TEXT = frozenset(
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


@dataclass(frozen=True, slots=True)
class Response:
    """What a request gets: status, JSON body (or ready bytes, or chunks as they come), headers, and
    the network fault to inject on its way.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    network_fault: str = ""


class ModelDouble:
    """What stands for a model: the caller's own answers or the embedded engine's, after the faults.

    `counts` are the server's, `count_tokens` adds an answer's tokens to them.
    """

    def __init__(
        self,
        answer: Answer | None,
        models: Sequence[str],
        schedule: faults.FaultSchedule,
        latency: float,
        rpm: int | None,
        counts: dict[str, Any],
        count_tokens: Callable[[Any], None],
    ) -> None:
        self.models, self.faults = tuple(models), schedule
        self._answer, self._latency = answer, latency
        self._rate_limit = RateLimit(rpm) if rpm is not None else None
        self._engine, self._counts, self._count_tokens = Embedded(), counts, count_tokens
        self._names = {name: json.dumps(name).encode() for name in self.models}

    async def answer(
        self, path: str, body: Any, forced: str = "", *, batched: bool = False
    ) -> Response:
        """Answer the request at CHAT, TEXT or EMBEDDINGS; Problem where it gets an error. A batch
        knows no rate limit and no latency.
        """
        self._counts["requests"] += 1
        number, drawn = self._counts["requests"], self.faults.draw_for_request()
        fault = forced or drawn
        self._check(path, body)
        headers = self._rate_limit.admit() if self._rate_limit and not batched else {}
        if self._latency and not batched:
            await asyncio.sleep(self._latency)
        if fault in faults.ERRORS:
            self.count_fault(fault)
            raise faults.build_problem(fault)
        if fault == "hang" and not batched:
            self.count_fault(fault)
            await asyncio.Event().wait()
        if path == CHAT:
            response = await self._complete_chat(number, body, fault)
        elif path == TEXT:
            response = await self._complete_text(number, body)
        else:
            response = Response(200, embed_texts(body, self.models))
        if response.status == 200:
            self._count_tokens(response.body)
        if headers:
            response = replace(response, headers={**headers, **response.headers})
        if fault in faults.NETWORK:
            self.count_fault(fault)
            return replace(response, network_fault=fault)
        return response

    async def draw_tuning_fault(self, forced: str = "") -> str:
        """Return the network fault to inject for a request about fine-tuning; Problem where it gets
        an error instead.
        """
        fault = forced or self.faults.draw_for_tuning()
        if fault in faults.ERRORS:
            self.count_fault(fault)
            raise faults.build_problem(fault)
        if fault not in faults.NETWORK:
            return ""
        self.count_fault(fault)
        if fault == "hang":
            await asyncio.Event().wait()
        return fault

    def add_model(self, name: str) -> None:
        """Answer under one more name."""
        if name not in self.models:
            self.models += (name,)
            self._names[name] = json.dumps(name).encode()

    def count_fault(self, kind: str) -> None:
        """Count a fault."""
        self._counts["faults"][kind] = self._counts["faults"].get(kind, 0) + 1

    def _check(self, path: str, body: Any) -> None:
        """Raise the Problem with a request: what OpenAI would refuse, and what the answers here do
        not heed.
        """
        checks = {CHAT: check_chat_request, TEXT: check_text_request}
        checks.get(path, check_model)(body, self.models)
        if path == EMBEDDINGS:
            return
        if self._answer is None:
            heeded = ENGINE_TEXT if path == TEXT else ENGINE_CHAT
            parameters.check_parameters(body, heeded, ENGINE)
        elif body.get("n") not in (None, 1):
            message = "Invalid value for 'n': this server gives one choice a request."
            raise Problem(400, message, param="n")

    async def _complete_chat(self, number: int, body: dict[str, Any], fault: str) -> Response:
        if fault not in faults.TEXTS and (canned := self._encode_canned(number, body)):
            return Response(200, canned)
        said = await self._say(number, body)
        if isinstance(said, tuple):
            status, headers, value = said
            response = Response(status, value, headers)
        elif isinstance(said, str):
            response = Response(200, completions.build_completion(number, body, said))
        else:
            response = Response(200, said)
        spoils = fault in faults.TEXTS and response.status == 200
        if spoils and completions.has_message(response.body):
            self.count_fault(fault)
            return replace(response, body=faults.spoil_completion(fault, response.body))
        return response

    def _encode_canned(self, number: int, body: dict[str, Any]) -> bytes | None:
        """Return the whole completion of a canned answer, its tokens counted; None where there is
        more to do.
        """
        answer, limit = self._answer, read_limit(body)
        if not isinstance(answer, CannedAnswer) or body.get("stream"):
            return None
        if limit is not None and limit < answer.tokens:
            return None
        used = completions.count_prompt_tokens(body["messages"])
        self._count_tokens({"usage": {"prompt_tokens": used, "completion_tokens": answer.tokens}})
        return answer.encode(number, self._names[body["model"]], used, int(time.time()))

    async def _complete_text(self, number: int, body: dict[str, Any]) -> Response:
        """Answer a request for a text completion: each prompt is taken as what a user says."""
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if not prompts or not all(isinstance(p, str) for p in prompts):
            why = "this server has no tokens; give a text or a list of texts"
            raise invalid_value("prompt", why)
        texts = []
        for prompt in prompts:
            messages = [{"role": "user", "content": prompt}]
            said = await self._say(number, {**body, "messages": messages})
            if isinstance(said, tuple):
                return Response(said[0], said[2], said[1])
            if not isinstance(said, str):
                return Response(200, said)
            texts.append(said)
        return Response(200, completions.build_text_completion(number, body, prompts, texts))

    async def _say(self, number: int, body: dict[str, Any]) -> Said:
        try:
            if self._answer is not None:
                said = self._answer(number, body)
                return await said if inspect.isawaitable(said) else said
            return completions.cut_at_stop(await self._ask_engine(body), body)
        except Problem:
            raise
        except Exception as error:
            message = f"The answer of this server failed: {type(error).__name__}: {error}"
            raise Problem(500, message) from error

    async def _ask_engine(self, body: Mapping[str, Any]) -> str:
        """Return what the engine says from the facts of a request, else text that says that it is
        templated; Problem for facts that are none.
        """
        if (packed := body.get(FIELD)) is None:
            return write_templated_answer(body)
        try:
            return (await self._engine.complete(unpack_request(packed))).text
        except Exception as error:  # whatever is wrong with them
            raise invalid_value(FIELD, f"{type(error).__name__}: {error}") from None
