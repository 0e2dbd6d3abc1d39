"""Answers chat requests with models of this machine, each under its name; what it cannot do, it refuses."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from culturepark.errors import InputError
from culturepark.server import completions
from culturepark.server.problems import Problem
from culturepark.weights.graduate import Graduate, found, named

if TYPE_CHECKING:
    from culturepark.weights.engine import Engine, Made, Token
    from culturepark.weights.machine import Machine

STOPS, ALTERNATIVES = 4, 20  # stop texts of a request, and alternatives a token, at most
# What a request may ask for that these models do not do, with the values that ask for nothing.
UNABLE: dict[str, tuple[Any, ...]] = {
    "tools": (None, []), "functions": (None, []), "presence_penalty": (None, 0), "frequency_penalty": (None, 0),
    "logit_bias": (None, {}), "audio": (None,),
}  # fmt: skip


class Graduates:
    """The answer of a Server: tuned models and bases, one engine a base. `names` are those it answers to.

    `models` are folders of tuned models (or of several), `tiny`, folders of bases or hub names; the base of an adapter is served
    too. `rows` bounds a batch.

    >>> with Server(answer := Graduates(["outputs/first/models/sft"]), models=answer.names, chat_only=True) as server: ...
    """

    def __init__(self, models: Sequence[str], machine: Machine | None = None, rows: int = 32) -> None:
        self.models: dict[str, Graduate] = named(found(models))
        self._machine, self._rows = machine, rows
        self._loaded: dict[str, tuple[Engine, str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, bases first."""
        return tuple(self.models)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines, one a base."""
        return tuple({id(e): e for e, _ in self._loaded.values()}.values())

    def load(self) -> Graduates:
        """Load every base, each once, and every adapter."""
        from culturepark.weights.engine import shared

        for name, model in self.models.items():
            engine = shared(model, self._machine, self._rows)
            self._loaded[name] = engine, engine.add(model)
        return self

    async def __call__(self, number: int, body: Mapping[str, Any]) -> dict[str, Any] | AsyncIterator[dict[str, Any]]:
        """Return a chat completion, or its chunks as they come; Problem for what cannot be answered."""
        engine, adapter = self._loaded[body["model"]]
        how = _how(body)
        try:
            ask = engine.ask(_talk(body["messages"]), adapter, completions.limit(body), **how)
        except InputError as error:
            code = "context_length_exceeded" if type(error).__name__ == "TooLong" else "invalid_value"
            raise Problem(400, f"{error}.", code=code, param="messages") from error
        if body.get("stream"):
            return chunks(engine.stream(ask), _frame(number, body["model"], "chat.completion.chunk"),
                          bool((body.get("stream_options") or {}).get("include_usage")), ask.top is not None)  # fmt: skip
        made = await asyncio.wrap_future(engine.submit(ask))
        return completion(number, body["model"], made, ask.top is not None)


def _talk(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return messages as templates take them: texts only, a developer's as the system's."""
    made = []
    for i, message in enumerate(messages):
        parts = message.get("content") or ""
        if not isinstance(parts, str):
            odd = next((p for p in parts if not isinstance(p, Mapping) or not isinstance(p.get("text"), str)), None)
            if odd is not None:
                raise _wrong(f"messages[{i}].content", "these models read texts only")
            parts = "".join(p["text"] for p in parts)
        if message["role"] in ("tool", "function"):
            raise _wrong(f"messages[{i}].role", "these models use no tools")
        made.append({"role": "system" if message["role"] == "developer" else message["role"], "content": parts})
    return made


def _how(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a request wants to be answered; Problem for what it may not want."""
    for name, nothing in UNABLE.items():
        if body.get(name) not in nothing:
            raise _wrong(name, "this server does not take it")
    if (body.get("response_format") or {}).get("type", "text") != "text":
        raise _wrong("response_format", "this server does not hold answers to a schema; ask for JSON in words")
    top_p, top, stop = body.get("top_p"), body.get("top_logprobs"), body.get("stop")
    if top_p is not None and (isinstance(top_p, bool) or not isinstance(top_p, (int, float)) or not 0 < top_p <= 1):
        raise _wrong("top_p", "expected a number above 0 and up to 1")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= ALTERNATIVES):
        raise _wrong("top_logprobs", f"expected a whole number from 0 to {ALTERNATIVES}")
    if top is not None and not body.get("logprobs"):
        raise _wrong("top_logprobs", "it needs logprobs to be true")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or len(stops) > STOPS or not all(isinstance(s, str) and s for s in stops):
        raise _wrong("stop", f"expected a text, or up to {STOPS}, none empty")
    warmth, seed = body.get("temperature"), body.get("seed")
    return {"temperature": 1.0 if warmth is None else float(warmth), "top_p": 1.0 if top_p is None else float(top_p),
            "seed": secrets.randbits(31) if seed is None else seed, "stop": tuple(stops),
            "top": (top or 0) if body.get("logprobs") else None}  # fmt: skip


def _wrong(param: str, why: str) -> Problem:
    return Problem(400, f"Invalid value for '{param}': {why}.", code="invalid_value", param=param)


def completion(number: int, model: str, made: Made, logprobs: bool) -> dict[str, Any]:
    """Return an answer as a chat completion."""
    message = {"role": "assistant", "content": made.text, "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(made.tokens, logprobs),
        "finish_reason": made.finish,
    }
    return {**_frame(number, model, "chat.completion"), "choices": [choice], "usage": _usage(made)}


async def chunks(
    stream: AsyncGenerator[Any, None], frame: Mapping[str, Any], with_usage: bool, logprobs: bool
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield an answer as it is said: role, pieces, finish reason, and the usage where asked for."""
    usage: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(delta: Mapping[str, Any], tokens: Sequence[Token] = (), finish: str | None = None) -> dict[str, Any]:
        logs = _logprobs(tokens, logprobs and bool(tokens))
        return {
            **frame,
            "choices": [{"index": 0, "delta": dict(delta), "logprobs": logs, "finish_reason": finish}],
            **usage,
        }

    yield chunk({"role": "assistant", "content": ""})
    try:
        async with aclosing(stream):
            async for piece in stream:
                if isinstance(piece, tuple):
                    yield chunk({"content": piece[0]}, piece[1])
                else:
                    yield chunk({}, finish=piece.finish)
                    if with_usage:
                        yield {**frame, "choices": [], "usage": _usage(piece)}
    except Exception as error:  # the status has been sent: the caller is told here
        yield Problem(500, f"The answer of this server failed: {type(error).__name__}: {error}").body


def _frame(number: int, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{number:08x}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def _usage(made: Made) -> dict[str, int]:
    used, said = made.prompt_tokens, made.completion_tokens
    return {"prompt_tokens": used, "completion_tokens": said, "total_tokens": used + said}


def _logprobs(tokens: Sequence[Token], wanted: bool) -> dict[str, Any] | None:
    return {"content": list(map(_token, tokens)), "refusal": None} if wanted else None


def _token(token: Token) -> dict[str, Any]:
    return {**_shown(token.text, token.logprob), "top_logprobs": [_shown(text, x) for text, x in token.top]}


def _shown(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}
