"""What goes over the wire: a request as a chat completion's body, an answer as a Reply, a failure as a Trouble."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from culturepark.models.secrets import masked, redact
from culturepark.records import Reply, Request, Status

Kind = Literal["rate", "busy", "down", "lost", "slow", "garbled", "long", "filtered", "refused", "hopeless"]
# `rate`     429: too fast; nothing was answered            `busy`    5xx: the provider's fault
# `down`     no connection could be made                    `lost`    the connection broke
# `slow`     no answer in time
# `garbled`  an answer that is no chat completion           `long`    the prompt does not fit the model
# `filtered` the provider would not read the prompt         `refused` a parameter this endpoint does not take
# `hopeless` key, model or request are wrong: no retry helps
PASSING = ("rate", "busy", "down", "lost", "slow", "garbled")
UNSETTLED = ("lost", "slow", "garbled")  # the provider may have answered, and billed, all the same
ADVICE = {
    400: "the request was refused as malformed",
    401: "the key was refused; set the right one in the environment",
    402: "the account has no credit left",
    403: "the key may not use this model",
    404: "no such model or path at this endpoint; `curl BASE_URL/models` lists what it serves",
    422: "the request was refused as malformed",
}


class Trouble(Exception):
    """One attempt that brought no answer: its kind, and what the provider said. `wait` is its Retry-After, seconds."""

    def __init__(self, kind: Kind, message: str, *, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(redact(message))
        self.kind, self.status, self.wait = kind, status, wait
        self.down = False  # the whole line was down when this happened


def trouble(status: int, body: str, headers: Mapping[str, str]) -> Trouble:
    """Return the Trouble that an HTTP answer of this status is."""
    error = _error(body)
    said = f"HTTP {status}: {error.get('message') or body[:300] or 'no text'}"
    code, text = str(error.get("code") or error.get("type") or ""), str(error.get("message") or body).lower()
    wait = _seconds(headers)
    if status == 429 and code != "insufficient_quota":
        return Trouble("rate", said, status=status, wait=wait)
    if status in (408, 409, 425) or status >= 500:
        return Trouble("slow" if status == 408 else "busy", said, status=status, wait=wait)
    if code in ("context_length_exceeded", "string_above_max_length") or "context length" in text:
        return Trouble("long", said, status=status)
    if code == "content_filter" or "content_policy" in code:
        return Trouble("filtered", said, status=status)
    if status in (400, 422) and _parameter(error, text):
        return Trouble("refused", said, status=status)
    if status == 429:
        return Trouble("hopeless", f"the account's quota is used up: {said}", status=status)
    return Trouble("hopeless", f"{ADVICE.get(status, 'the endpoint refused')}: {said}", status=status)


def _error(body: str) -> dict[str, Any]:
    import orjson

    try:
        found = orjson.loads(body)
    except ValueError:
        return {}
    inner = found.get("error", found) if isinstance(found, dict) else {}
    return inner if isinstance(inner, dict) else {"message": str(inner)}


def _parameter(error: Mapping[str, Any], text: str) -> bool:
    named = (str(error.get("param") or ""), text)
    return any(
        _mentions(p, place)
        for p in ("max_tokens", "temperature", "response_format", "seed", "json_schema", "logprobs", "stop")
        for place in named
    )


def _mentions(parameter: str, text: str) -> bool:
    """Return whether an error names a parameter; `stop` is also a word."""
    return parameter in text if parameter != "stop" else re.search(r"\bstop\b", text) is not None


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks to wait, from retry-after-ms or Retry-After (seconds or a date)."""
    from email.utils import parsedate_to_datetime

    named = {k.lower(): v for k, v in headers.items()}
    try:
        if "retry-after-ms" in named:
            return max(0.0, float(named["retry-after-ms"]) / 1000)
        return max(0.0, float(named["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        from datetime import UTC, datetime

        try:
            return max(0.0, (parsedate_to_datetime(named["retry-after"]) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return None


# ------------------------------------------------------------------- asking

ALTERNATIVES = 20  # tokens told with their log-probabilities, the most that OpenAI's protocol has
TOLD = 0.5  # share of a first token's probability that must fall on options for it to say how they are chosen
FITTING = "\n\nAnswer with one JSON object that fits this JSON schema, and nothing else:\n"
STRUCTURED = ("schema", "json", "text")  # how a structured answer is asked for, strictest first


@dataclass
class Style:
    """How one endpoint likes to be asked. It starts as the settings say and learns from what the endpoint refuses."""

    structured: str = "schema"
    tokens: str = "max_tokens"
    dropped: set[str] = field(default_factory=set)
    version: int = 0

    def learn(self, said: str) -> str | None:
        """Change what the endpoint complained of; return what was changed, None where nothing can be."""
        text = said.lower()
        change = None
        if "max_completion_tokens" in text and self.tokens == "max_tokens":
            self.tokens, change = "max_completion_tokens", "asks with max_completion_tokens"
        elif any(w in text for w in ("response_format", "json_schema", "json_object")) and self.structured != "text":
            self.structured = STRUCTURED[STRUCTURED.index(self.structured) + 1]
            change = f"asks for structured answers as {self.structured}"
        else:
            for name in ("temperature", "seed", "logprobs", "stop"):
                if _mentions(name, text) and name not in self.dropped:
                    self.dropped.add(name)
                    change = f"leaves {name} out"
                    break
        self.version += change is not None
        return change


def payload(model: str, request: Request, style: Style, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat completion's body of a request. `params` are the user's own, and win."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        style.tokens: request.max_tokens,
        "temperature": request.temperature,
        "seed": (request.seed + request.index) % 2**31,  # what every provider that takes one accepts
    }
    if request.options:
        body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    if request.stop:
        body["stop"] = list(request.stop)
    for name in style.dropped:
        body.pop(name, None)
        body.pop(f"top_{name}", None)
    if request.reply_schema is not None:
        shape(body, request.role, strict(request.reply_schema), style.structured)
    return body | dict(params) if params else body


def shape(body: dict[str, Any], name: str, schema: Mapping[str, Any], how: str) -> None:
    """Ask for an answer of this schema: by the schema itself, by JSON mode, or by words alone."""
    if how == "schema":
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": name, "strict": True, "schema": schema},
        }
        return
    from orjson import dumps

    last = body["messages"][-1]
    body["messages"] = [*body["messages"][:-1], {**last, "content": last["content"] + FITTING + dumps(schema).decode()}]
    if how == "json":
        body["response_format"] = {"type": "json_object"}


def strict(schema: Any) -> Any:
    """Return a JSON schema as strict modes want it: every property required, none added, no defaults and titles."""
    if isinstance(schema, Mapping):
        kept = {k: strict(v) for k, v in schema.items() if k not in ("default", "title") or isinstance(v, Mapping)}
        if isinstance(properties := kept.get("properties"), dict):
            kept |= {"required": list(properties), "additionalProperties": False}
        return kept
    return [strict(v) for v in schema] if isinstance(schema, (list, tuple)) else schema


def most_tokens(request: Request) -> int:
    """Return how many tokens a prompt can have at most: none makes more than there are bytes, and a few a message."""
    schema = 2 * len(str(request.reply_schema)) + 200 if request.reply_schema else 0
    return sum(len(m.content.encode()) + 16 for m in request.messages) + schema + 16


# ------------------------------------------------------------------ reading


def read(body: Mapping[str, Any], identity: str) -> Reply:
    """Turn a chat completion into a Reply with an honest status; Trouble if it is none."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Trouble("garbled", f"no choices in the answer: {str(body)[:200]}")
    usage = body.get("usage") or {}
    message, finish = choices[0].get("message") or {}, choices[0].get("finish_reason")
    text = masked(str(message.get("content") or "").strip())  # an endpoint may say back what it was sent
    status: Status = "ok"
    reason = ""
    if message.get("refusal"):
        status, reason = "refused", redact(str(message["refusal"]))[:500]
    elif finish == "content_filter":
        status, reason = "filtered", "the provider's content filter stopped the answer"
    elif finish == "length":
        status, reason = "truncated", "the answer was cut at max_tokens"
    elif not text:
        status, reason = "empty", "the answer holds no text"
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return Reply(status, text, reason, identity, usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)


def shares(body: Mapping[str, Any], options: Sequence[str]) -> tuple[float, ...]:
    """Return the distribution over options that the first token's log-probabilities tell; () where they do not tell it.

    A token counts for the one option that begins with it. Nothing is told where a token begins several options, or where the
    options have less than half of the probability.
    """
    from math import exp

    try:
        first = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(t["token"]).strip(), exp(t["logprob"])) for t in first]
    except (KeyError, IndexError, TypeError, OverflowError):
        return ()
    sums = [0.0] * len(options)
    for token, share in found:
        begun = [i for i, option in enumerate(options) if token and option.casefold().startswith(token.casefold())]
        if len(begun) > 1:
            return ()
        if begun:
            sums[begun[0]] += share
    total = sum(sums)
    return tuple(s / total for s in sums) if total >= TOLD else ()
