"""Chat completions as OpenAI words them: what is asked is checked, tokens are counted, answers and
their chunks are built.

Tokens are approximate: a fourth of a text's UTF-8 bytes, at least one, and four more a message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from culturepark.errors import nearest
from culturepark.server.problems import Problem

BYTES = 4  # of a text for one token, about
EXTRA = 4  # tokens of a message besides its text
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PIECE = re.compile(r"\s*\S+\s*?(?=\s|\Z)|\s+")


def tokens(text: str) -> int:
    """Return about how many tokens a text has: a fourth of its UTF-8 bytes, at least one."""
    return max(1, len(text.encode()) // BYTES)


def prompt_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return about how many tokens messages have."""
    total = 0
    for message in messages:
        text = message.get("content")
        total += EXTRA + (tokens(text) if isinstance(text, str) else tokens(_joined(text)))
    return total


def _joined(parts: Any) -> str:
    return "".join(str(p.get("text", "")) for p in parts or () if isinstance(p, Mapping))


def checked(body: Any, models: Sequence[str]) -> None:
    """Raise the Problem that OpenAI would report with a chat request."""
    model(body, models)
    messages = body.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "expected an array with at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise _wrong(f"messages[{i}].role", f"supported roles are {', '.join(ROLES)}")
        if not isinstance(message.get("content"), (str, list)) and message["role"] != "assistant":
            raise _wrong(f"messages[{i}].content", "expected a string or an array of parts")
    sampling(body, 1)


def text_checked(body: Any, models: Sequence[str]) -> None:
    """Raise the Problem that OpenAI would report with a request for a text completion."""
    model(body, models)
    if body.get("prompt") is None:
        raise _missing("prompt")
    sampling(body, 0)


def sampling(body: Mapping[str, Any], least: int) -> None:
    """Raise the Problem with how an answer is to be drawn; it has at least `least` tokens."""
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        if limit is not None and (
            not isinstance(limit, int) or isinstance(limit, bool) or limit < least
        ):
            raise _wrong(name, f"expected a whole number of at least {least}")
    warmth = body.get("temperature")
    if warmth is not None and (
        isinstance(warmth, bool) or not isinstance(warmth, (int, float)) or not 0 <= warmth <= 2
    ):
        raise _wrong("temperature", "expected a number from 0 to 2")
    if body.get("seed") is not None and (
        not isinstance(body["seed"], int) or isinstance(body["seed"], bool)
    ):
        raise _wrong("seed", "expected a whole number")
    if body.get("stream_options") is not None and not isinstance(body["stream_options"], dict):
        raise _wrong("stream_options", "expected an object")
    shape = body.get("response_format")
    if shape is not None and (
        not isinstance(shape, dict)
        or shape.get("type") not in ("text", "json_object", "json_schema")
    ):
        raise _wrong(
            "response_format.type", "supported types are text, json_object and json_schema"
        )


def model(body: Any, models: Sequence[str]) -> None:
    """Raise the Problem with the model that a request names."""
    if not isinstance(body, dict):
        raise Problem(400, "We could not parse the JSON body of your request: it is not an object.")
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise _missing("model")
    if name not in models:
        raise unknown_model(name, models)


def unknown_model(name: str, models: Sequence[str]) -> Problem:
    """Return the Problem of a model that is not served here."""
    message = (
        f"The model `{name}` does not exist or you do not have access to it."
        f" {nearest(name, models)}"
    )
    return Problem(404, message, code="model_not_found", param="model")


def _missing(param: str) -> Problem:
    return Problem(
        400,
        f"Missing required parameter: '{param}'.",
        code="missing_required_parameter",
        param=param,
    )


def _wrong(param: str, why: str) -> Problem:
    return Problem(400, f"Invalid value for '{param}': {why}.", code="invalid_value", param=param)


# ------------------------------------------------------------------- answers


def cut(text: str, limit: int | None) -> tuple[str, str]:
    """Return a text cut to about `limit` tokens, and the finish reason that goes with it."""
    if limit is None or len(text.encode()) <= limit * BYTES:
        return text, "stop"
    return text.encode()[: limit * BYTES].decode(errors="ignore"), "length"


def limit(body: Mapping[str, Any]) -> int | None:
    """Return how many tokens an answer may have; None where the request does not say."""
    found: int | None = body.get("max_completion_tokens") or body.get("max_tokens")
    return found


def stopped(text: str, body: Mapping[str, Any]) -> str:
    """Return what a text says before the first of the stop texts that a request names."""
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise _wrong("stop", "expected a text or a list of texts, none empty")
    return text[: min((at for s in stops if (at := text.find(s)) >= 0), default=len(text))]


def text_completion(
    number: int, body: Mapping[str, Any], prompts: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """Return the text completion that says `texts` after `prompts`, each cut to what the request
    allows.
    """
    most = body.get("max_tokens")
    said = [cut(text, 16 if most is None else most) for text in texts]
    shown = [
        (prompt if body.get("echo") else "") + text
        for prompt, (text, _) in zip(prompts, said, strict=True)
    ]
    used, made = sum(map(tokens, prompts)), sum(tokens(text) if text else 0 for text, _ in said)
    return {
        "id": f"cmpl-{number:08x}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {"text": text, "index": i, "logprobs": None, "finish_reason": finish}
            for i, (text, (_, finish)) in enumerate(zip(shown, said, strict=True))
        ],
        "usage": {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made},
        "system_fingerprint": None,
    }


def text_chunks(whole: Mapping[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """Yield a text completion word by word, as it is streamed, and the usage where asked for."""
    frame = {k: v for k, v in whole.items() if k not in ("choices", "usage")}
    usage: dict[str, Any] = {"usage": None} if with_usage else {}
    for choice in whole["choices"]:
        for piece in PIECE.findall(choice["text"]):
            yield {**frame, "choices": [{**choice, "text": piece, "finish_reason": None}], **usage}
        yield {**frame, "choices": [{**choice, "text": ""}], **usage}
    if with_usage:
        yield {**frame, "choices": [], "usage": whole.get("usage")}


def completion(number: int, body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return the chat completion that says `text`, cut to what the request allows."""
    said, finish = cut(text, limit(body))
    used, made = prompt_tokens(body["messages"]), tokens(said)
    return {
        "id": f"chatcmpl-{number:08x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said, "refusal": None},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made},
        "system_fingerprint": None,
    }


def finished(
    whole: Mapping[str, Any], text: str | None, finish: str, refusal: str | None = None
) -> dict[str, Any]:
    """Return a completion that says something else, its tokens counted anew."""
    first = whole["choices"][0]
    message = {**first["message"], "content": text, "refusal": refusal}
    used = (whole.get("usage") or {}).get("prompt_tokens", 0)
    made = tokens(text or refusal or "")
    usage = {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
    return {
        **whole,
        "choices": [{**first, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def chunks(whole: Mapping[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """Yield a completion piece by piece, as it is streamed: role, words, finish reason, and the
    usage where asked for.
    """
    choice = whole["choices"][0]
    message = choice["message"]
    frame = {
        **{k: whole.get(k) for k in ("id", "created", "model", "system_fingerprint")},
        "object": "chat.completion.chunk",
    }
    usage: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        part = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        return {**frame, "choices": [part], **usage}

    yield chunk({"role": "assistant", "content": ""})
    for kind in ("content", "refusal"):
        for piece in PIECE.findall(message.get(kind) or ""):
            yield chunk({kind: piece})
    yield chunk({}, choice.get("finish_reason"))
    if with_usage:
        yield {**frame, "choices": [], "usage": whole.get("usage")}


def spoken(body: Any) -> bool:
    """Say whether a body is a chat completion with a message in it."""
    choices = body.get("choices") if isinstance(body, Mapping) else None
    return (
        isinstance(choices, list)
        and bool(choices)
        and isinstance(choices[0].get("message"), Mapping)
    )
