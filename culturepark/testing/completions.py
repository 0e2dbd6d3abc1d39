"""Builds completions of given texts as OpenAI words them, and counts their tokens.

Tokens are approximate: a fourth of a text's UTF-8 bytes, at least one, and four more a message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from culturepark.serving.problems import invalid_value
from culturepark.serving.requests import read_limit

BYTES = 4  # of a text for one token, about
EXTRA = 4  # tokens of a message besides its text
PIECE = re.compile(r"\s*\S+\s*?(?=\s|\Z)|\s+")


def count_tokens(text: str) -> int:
    """Return about how many tokens a text has: a fourth of its UTF-8 bytes, at least one."""
    return max(1, len(text.encode()) // BYTES)


def count_prompt_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return about how many tokens messages have."""
    total = 0
    for message in messages:
        text = message.get("content")
        total += EXTRA + (
            count_tokens(text) if isinstance(text, str) else count_tokens(_join_parts(text))
        )
    return total


def _join_parts(parts: Any) -> str:
    return "".join(str(p.get("text", "")) for p in parts or () if isinstance(p, Mapping))


# ------------------------------------------------------------------- answers


def cut_text(text: str, limit: int | None) -> tuple[str, str]:
    """Return a text cut to about `limit` tokens, and the finish reason that goes with it."""
    if limit is None or len(text.encode()) <= limit * BYTES:
        return text, "stop"
    return text.encode()[: limit * BYTES].decode(errors="ignore"), "length"


def cut_at_stop(text: str, body: Mapping[str, Any]) -> str:
    """Return what a text says before the first of the stop texts that a request names."""
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise invalid_value("stop", "expected a text or a list of texts, none empty")
    return text[: min((at for s in stops if (at := text.find(s)) >= 0), default=len(text))]


def build_text_completion(
    number: int, body: Mapping[str, Any], prompts: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """Return the text completion that says `texts` after `prompts`, each cut to what the request
    allows.
    """
    most = body.get("max_tokens")
    said = [cut_text(text, 16 if most is None else most) for text in texts]
    shown = [
        (prompt if body.get("echo") else "") + text
        for prompt, (text, _) in zip(prompts, said, strict=True)
    ]
    used, made = (
        sum(map(count_tokens, prompts)),
        sum(count_tokens(text) if text else 0 for text, _ in said),
    )
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


def split_text_completion(whole: Mapping[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """Yield a text completion word by word, as it is streamed, and the usage where asked for."""
    frame = {k: v for k, v in whole.items() if k not in ("choices", "usage")}
    usage: dict[str, Any] = {"usage": None} if with_usage else {}
    for choice in whole["choices"]:
        for piece in PIECE.findall(choice["text"]):
            yield {**frame, "choices": [{**choice, "text": piece, "finish_reason": None}], **usage}
        yield {**frame, "choices": [{**choice, "text": ""}], **usage}
    if with_usage:
        yield {**frame, "choices": [], "usage": whole.get("usage")}


def build_completion(number: int, body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return the chat completion that says `text`, cut to what the request allows."""
    said, finish = cut_text(text, read_limit(body))
    used, made = count_prompt_tokens(body["messages"]), count_tokens(said)
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


def replace_answer(
    whole: Mapping[str, Any], text: str | None, finish: str, refusal: str | None = None
) -> dict[str, Any]:
    """Return a completion that says something else, its tokens counted anew."""
    first = whole["choices"][0]
    message = {**first["message"], "content": text, "refusal": refusal}
    used = (whole.get("usage") or {}).get("prompt_tokens", 0)
    made = count_tokens(text or refusal or "")
    usage = {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
    return {
        **whole,
        "choices": [{**first, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def split_completion(whole: Mapping[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
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


def has_message(body: Any) -> bool:
    """Say whether a body is a chat completion with a message in it."""
    choices = body.get("choices") if isinstance(body, Mapping) else None
    return (
        isinstance(choices, list)
        and bool(choices)
        and isinstance(choices[0].get("message"), Mapping)
    )
