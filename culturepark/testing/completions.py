"""Builds completions of given texts as OpenAI words them, and counts their tokens.

Tokens are approximate: a fourth of a text's UTF-8 bytes, at least one, and four more a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from culturepark.serving.completions import build_frame, build_text_choice, build_usage
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
    answers = [cut_text(text, 16 if most is None else most) for text in texts]
    choices = [
        build_text_choice(i, (prompt if body.get("echo") else "") + text, finish, None)
        for i, (prompt, (text, finish)) in enumerate(zip(prompts, answers, strict=True))
    ]
    usage = build_usage(
        sum(map(count_tokens, prompts)), sum(count_tokens(text) for text, _ in answers if text)
    )
    frame = build_frame(number, body["model"], "text_completion")
    return {**frame, "choices": choices, "usage": usage}


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
    answer, finish = cut_text(text, read_limit(body))
    message = {"role": "assistant", "content": answer, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    usage = build_usage(count_prompt_tokens(body["messages"]), count_tokens(answer))
    frame = build_frame(number, body["model"], "chat.completion")
    return {**frame, "choices": [choice], "usage": usage}


def replace_answer(
    whole: Mapping[str, Any], text: str | None, finish: str, refusal: str | None = None
) -> dict[str, Any]:
    """Return a completion that says something else, its tokens counted anew."""
    first = whole["choices"][0]
    message = {**first["message"], "content": text, "refusal": refusal}
    used = (whole.get("usage") or {}).get("prompt_tokens", 0)
    usage = build_usage(used, count_tokens(text or refusal or ""))
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
