"""Reads a chat completion that nobody vouches for: every type is looked at, every reason to stop is
known or named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from culturepark.keys import mask_answer, redact
from culturepark.llm.codec import ProviderError
from culturepark.llm.provider_errors import replace_halves
from culturepark.llm.reasoning import separate_thoughts, split_thoughts
from culturepark.records import Reply, Request, Status

# Why an answer ended, in lower case. Whatever is in none of these is a failure that names it.
WHOLE = {
    "stop",
    "eos",
    "eos_token",
    "end_turn",
    "stop_sequence",
    "complete",
    "end",
    "finish_reason_stop",
}
CUT = {
    "length",
    "max_tokens",
    "model_length",
    "max_length",
    "max_output_tokens",
    "model_context_window_exceeded",
    "error_limit",
}
FILTERED = {
    "content_filter",
    "content_filtered",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "sensitive",
    "guardrail_intervened",
    "error_toxic",
    "image_safety",
}
REFUSED = {"refusal"}
TOOLS = {"tool_calls", "tool_use", "function_call", "tool_call"}
BROKEN = {
    "error",
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "timeout",
    "network_error",
    "insufficient_system_resource",
    "overloaded",
}
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thinking_blocks", "reasoning_details")
THINKING = (
    "thinking",
    "reasoning",
    "reasoning.text",
    "reasoning.summary",
    "thought",
    "redacted_thinking",
    "reasoning.encrypted",
)
TEXTS = ("text", "output_text")
MOST = 100_000_000  # tokens of one call; a count beyond that is none
ROUNDING = 1e-3  # above 0, a log-probability is none
# share of a first token's probability that must fall on options for it to say how they are chosen
DECISIVE = 0.5


def read_reply(
    body: Mapping[str, Any],
    identity: str,
    request: Request | None = None,
    *,
    opens_thoughts: bool = False,
) -> Reply:
    """Turn a chat completion into a Reply with an honest status; ProviderError if it is none.

    `opened` says that this model's chat template opens its thoughts (`opens_thoughts`).
    """
    choice = _get_choice(body)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise _build_garbled_error(f"its message is {_describe_type(message)}", body)
    texts, thoughts, others = _split_content(message.get("content"), body)
    thoughts += next(
        (found for name in THOUGHTS if (found := list(_iterate_thoughts(message.get(name))))), []
    )
    prompt, completion, cached = read_usage(body.get("usage"), text=bool(texts or thoughts))
    status, reason = _read_status(choice.get("finish_reason"), message, request, completion)
    reply = Reply(
        status,
        _clean("".join(texts)),
        reason,
        identity,
        prompt,
        completion,
        cached,
        reasoning=_clean("\n".join(thoughts)),
    )
    reply = separate_thoughts(reply, opens_thoughts=opens_thoughts)
    if reply.status == "ok" and not reply.text:
        why = f", only parts of type {', '.join(others)}" if others else ""
        return replace(reply, status="empty", reason=f"the answer holds no text{why}")
    if reply.status == "ok" and others:
        return replace(reply, reason=f"parts of type {', '.join(others)} are left out")
    return reply


def opens_thoughts(body: Mapping[str, Any]) -> bool:
    """Say whether a chat completion that was read ends thoughts which it does not begin: the chat
    template has opened them.
    """
    texts, _, _ = _split_content(_get_choice(body)["message"].get("content"), body)
    return split_thoughts("".join(texts)).unopened


def _get_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _build_garbled_error(f"its choices are {_describe_type(choices)}", body)
    if not isinstance(choices[0], Mapping):
        raise _build_garbled_error(f"its first choice is {_describe_type(choices[0])}", body)
    return choices[0]


def _build_garbled_error(why: str, body: Mapping[str, Any]) -> ProviderError:
    return ProviderError("garbled", f"the answer is no chat completion: {why}: {str(body)[:200]}")


def _describe_type(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    empty = "an empty list" if value == [] else "missing"
    return (
        empty
        if value is None or value == []
        else names.get(type(value), f"a {type(value).__name__}")
    )


def _clean(text: str) -> str:
    """Return a text without keys that were sent (an endpoint may say them back) and without halves
    of characters.
    """
    return mask_answer(replace_halves(text).strip())


# ------------------------------------------------------------------ content


def _split_content(content: Any, body: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Return texts, thoughts, and the names of other kinds of parts; ProviderError for what is
    neither text nor parts.
    """
    if content is None or isinstance(content, str):
        return [content] if content else [], [], []
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list):
        raise _build_garbled_error(f"its content is {_describe_type(content)}", body)
    texts: list[str] = []
    thoughts: list[str] = []
    others: dict[str, None] = {}
    for piece in parts:
        kind = _name_part_type(piece)
        if kind in TEXTS:
            texts += _read_text_part(piece)
        elif kind in THINKING:
            thoughts += _iterate_thoughts(piece)
        else:
            others[kind] = None
    return texts, thoughts, list(others)


def _name_part_type(part: Any) -> str:
    if isinstance(part, str):
        return "text"
    if not isinstance(part, Mapping):
        return _describe_type(part)
    kind = part.get("type")
    return (
        replace_halves(kind[:40])
        if isinstance(kind, str)
        else "text"
        if isinstance(part.get("text"), str)
        else "unknown"
    )


def _read_text_part(part: Any) -> list[str]:
    """Return the text of a part: as it is, or as `{"value": text}`."""
    text = part.get("text") if isinstance(part, Mapping) else part
    text = text.get("value") if isinstance(text, Mapping) else text
    return [text] if isinstance(text, str) else []


def _iterate_thoughts(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts of thoughts, which come as text, as parts, or as parts of parts."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, list) and depth < 4:
        for part in value:
            yield from _iterate_thoughts(part, depth + 1)
    elif isinstance(value, Mapping) and depth < 4:
        inner = next(
            (
                value[k]
                for k in ("thinking", "text", "reasoning", "summary", "content")
                if value.get(k)
            ),
            None,
        )
        yield from _iterate_thoughts(inner, depth + 1)


# ------------------------------------------------------------------- ending


def _read_status(
    finish: Any, message: Mapping[str, Any], request: Request | None, used: int | None
) -> tuple[Status, str]:
    """Return the status that a reason to stop stands for, and why it is no answer; ProviderError
    where it was broken off.
    """
    if message.get("refusal"):
        return "refused", redact(_clean(str(message["refusal"])))[:500]
    if finish is None:
        return _judge_unexplained_end(request, used)
    name = finish.strip().lower() if isinstance(finish, str) else ""
    if name in WHOLE:
        return "ok", ""
    if name in CUT:
        return "truncated", (
            "the answer was cut at max_tokens"
            if name
            in (
                "length",
                "max_tokens",
            )
            else f"the answer was cut ({name})"
        )
    if name in FILTERED:
        return "filtered", f"the provider's content filter stopped the answer ({name})"
    if name in REFUSED:
        return "refused", "the model refused"
    if name in BROKEN:
        raise ProviderError(
            "garbled", f"the provider broke the answer off (finish_reason {name!r})"
        )
    if name in TOOLS:
        return "failed", f"the model called a tool, and was given none (finish_reason {name!r})"
    return (
        "failed",
        (
            "the answer ended for a reason that is not known to mean that it is whole:"
            f" finish_reason {_format_reason(finish)}"
        ),
    )


def _judge_unexplained_end(request: Request | None, used: int | None) -> tuple[Status, str]:
    """Judge an answer whose end nobody explains: it is whole if it is known to be shorter than it
    could have been.
    """
    if request is not None and used is not None and used < request.max_tokens:
        return "ok", ""
    return (
        "truncated",
        "the endpoint does not say why the answer ended (no finish_reason), so it may be cut",
    )


def _format_reason(value: Any) -> str:
    text = redact(_clean(str(value)))
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


# ------------------------------------------------------------------- counts


def read_usage(usage: Any, *, text: bool = True) -> tuple[int | None, int | None, int | None]:
    """Return the tokens of prompt and answer, and those of the prompt that were cached; None for
    what is no count.

    Thoughts are counted in the answer; where a provider counts them beside it, they are added. No
    prompt has no tokens, and no text has none.
    """
    if not isinstance(usage, Mapping):
        return None, None, None
    prompt, completion, total = (
        parse_count(usage.get(k)) for k in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    thought = parse_count(_get_nested(usage, "completion_tokens_details", "reasoning_tokens"))
    if None not in (prompt, completion, thought) and total == prompt + completion + thought:  # type: ignore[operator]
        completion += thought  # type: ignore[operator]
    cached = parse_count(_get_nested(usage, "prompt_tokens_details", "cached_tokens"))
    cached = cached if cached is not None and prompt is not None and cached <= prompt else None
    return prompt or None, completion if completion or not text else None, cached


def _get_nested(usage: Mapping[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, Mapping) else None


def parse_count(value: Any) -> int | None:
    """Return a number of tokens, from a number or its digits; None for what is negative, broken,
    absurd or no number.
    """
    if isinstance(value, str):
        text = value.strip().removesuffix(".0")
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value != value
        or not 0 <= value <= MOST
    ):
        return None
    return int(value) if value == int(value) else None


# ------------------------------------------------------------ distributions


def read_option_probs(body: Mapping[str, Any], options: Sequence[str]) -> tuple[float, ...]:
    """Return the distribution over options that the first token's log-probabilities tell; () where
    they do not tell it.

    A token counts for the one option that begins with it. Nothing is told where a token begins
    several options, or where the options have less than half of the probability.
    """
    sums = [0.0] * len(options)
    for token, share in _read_first_token(body):
        matching = [
            i
            for i, option in enumerate(options)
            if token and option.casefold().startswith(token.casefold())
        ]
        if len(matching) > 1:
            return ()
        if matching:
            sums[matching[0]] += share
    total = sum(sums)
    return tuple(s / total for s in sums) if total >= DECISIVE else ()


def explain_missing_probs(body: Mapping[str, Any]) -> str:
    """Return why `read_option_probs` returns nothing, with advice."""
    first = _read_first_token(body)
    if not first:
        return (
            "the endpoint returned no log-probabilities: it does not support them or ignores"
            " `logprobs`, as `transformers serve` and some proxies do; ask with --method sample"
        )
    likeliest = max(first, key=lambda t: t[1])[0]
    return (
        f"the first token does not say which option is chosen (the likeliest is {likeliest[:20]!r};"
        " a model that thinks first tells no distribution); ask with --method sample"
    )


def _read_first_token(body: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the alternatives for the first token, each with its probability."""
    from math import exp

    try:
        first = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        alternatives = [(str(t["token"]).strip(), float(t["logprob"])) for t in first]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return []
    return (
        [(token, exp(x)) for token, x in alternatives]
        if all(x <= ROUNDING for _, x in alternatives)
        else []
    )


# -------------------------------------------------------------- JSON answers


OBJECT = re.compile(r'\{\s*"')


def extract_json(text: str) -> str:
    """Return the first JSON object in a model's answer: bare, fenced, or with words around it.
    ValueError if there is none.

    A brace among the words ({so}) begins no object.
    """
    match = OBJECT.search(text)
    start = match.start() if match else text.find("{")
    if start < 0:
        raise ValueError("no JSON object in the answer")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except RecursionError:
        raise ValueError("the JSON in the answer is nested too deeply") from None
    return json.dumps(value)


def ignores_schema(text: str, schema: Mapping[str, Any]) -> bool:
    """Say whether an answer shows that the endpoint did not hold it to the schema that it was
    sent.
    """
    try:
        answer = json.loads(extract_json(text))
    except ValueError:
        return True
    return not set(schema.get("properties", ())) <= set(answer)
