"""Encodes a request as a chat completion's body, and decodes an HTTP answer or a ProviderError."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from culturepark.keys import redact, strip_addresses
from culturepark.llm import provider_errors
from culturepark.llm.provider_errors import Refusal
from culturepark.local_models.chat import fold
from culturepark.records import Request

Kind = Literal[
    "rate",
    "busy",
    "down",
    "lost",
    "slow",
    "garbled",
    "long",
    "filtered",
    "refused",
    "large",
    "strange",
    "hopeless",
]
# What each kind means:
#   rate      429: too fast; nothing was answered
#   busy      5xx: the provider's fault
#   down      no connection could be made
#   lost      the connection broke
#   slow      no answer in time
#   garbled   an answer that is no chat completion
#   long      the prompt does not fit the model
#   filtered  the provider refuses to read the prompt
#   refused   the endpoint does not take a parameter
#   large     the answer is larger than what is read
#   strange   a web page or a redirect. If the endpoint has answered before, something else answers
#             in its place for a while; if not, the address is wrong
#   hopeless  key, model or request are wrong: no retry helps
PASSING = ("rate", "busy", "down", "lost", "slow", "garbled")
# The provider may have answered, and billed, all the same.
UNSETTLED = ("lost", "slow", "garbled", "large")
ADVICE = {
    400: "the request was refused as malformed",
    401: "the key was refused; set the right one in the environment",
    402: "the account has no credit left",
    403: "the key may not use this model",
    404: "no such model or path at this endpoint; `curl BASE_URL/models` lists what it serves",
    413: "the request is too large",
    422: "the request was refused as malformed",
    429: "the account's quota is used up",
}
PLAIN = (401, 402, 408, 409, 425)  # these say enough, whatever page comes with them
# No other wording of a request changes these.
UNCHANGEABLE = (401, 402, 403, 404, 405, 408, 413, 429)


class ProviderError(Exception):
    """One attempt that brought no answer: its kind, and what the provider said. `wait` is its
    Retry-After, seconds.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int | None = None,
        wait: float | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        super().__init__(redact(provider_errors.replace_halves(message)))
        self.kind, self.status, self.wait, self.refusal = kind, status, wait, refusal
        self.down = False  # the whole line was down when this happened

    def at(self, answered: bool) -> ProviderError:
        """Return what this is at an endpoint that has answered before, or never: what is strange
        passes, or stays.
        """
        if self.kind == "strange":
            self.kind = "busy" if answered else "hopeless"
        return self


def classify_error(status: int, body: str, headers: Mapping[str, str]) -> ProviderError:
    """Return the ProviderError that an HTTP answer of this status is."""
    refusal, wait = provider_errors.read_refusal(body), parse_retry_after(headers)
    message = f"HTTP {status}: {provider_errors.format_refusal(refusal, body)}"
    if provider_errors.is_too_long(refusal, status):
        return ProviderError(
            "long", f"the prompt is too long for this model: {message}", status=status
        )
    if status == 429 and not provider_errors.is_out_of_quota(refusal):
        return ProviderError("rate", message, status=status, wait=wait)
    if provider_errors.is_filtered(refusal):
        return ProviderError("filtered", message, status=status)
    if provider_errors.UNREADABLE_CODES.intersection(refusal.codes):
        return ProviderError("garbled", message, status=status)
    if status < 500 and status not in PLAIN and (300 <= status < 400 or PAGE.match(body)):
        return _build_page_error(status, body, headers)
    if _can_be_rephrased(status, refusal):
        return ProviderError("refused", message, status=status, refusal=refusal)
    if status in (408, 409, 425) or status >= 500:
        return ProviderError("slow" if status == 408 else "busy", message, status=status, wait=wait)
    return ProviderError(
        "hopeless", f"{ADVICE.get(status, 'the endpoint refused')}: {message}", status=status
    )


def _can_be_rephrased(status: int, refusal: Refusal) -> bool:
    """Say whether asking in other words may help."""
    if status < 400 or (
        status in UNCHANGEABLE and "no endpoints found that support" not in refusal.text
    ):
        return False
    return provider_errors.refuses_system(refusal, status) or (
        status < 500 and bool(provider_errors.find_parameters(refusal, tuple(CHANGEABLE)))
    )


def check_page(answer: Any) -> None:
    """Raise the ProviderError of a web page that came with success in place of what was asked
    for.
    """
    text = _format_body(answer[:5000]) if isinstance(answer, (bytes, str)) else ""
    if PAGE.match(text):
        raise _build_page_error(200, text, {})


def _build_page_error(status: int, body: str, headers: Mapping[str, str]) -> ProviderError:
    """Return the ProviderError of a redirect, or of a web page that came where an answer was
    expected.
    """
    if 300 <= status < 400:
        location = next((v for k, v in headers.items() if k.lower() == "location"), "")
        place = strip_addresses(
            re.split(r"[?#]", location, maxsplit=1)[0]
        )  # what follows may hold a secret
        what = f"this address sends callers on{f' to {place}' if place else ''}"
    else:
        advice = f"{ADVICE[status]}; " if status in ADVICE else ""
        what = f"{advice}a web page came where an answer was expected"
    excerpt = f": {body[:200]!r}" if body.strip() else ""
    why = (
        "is the address right (--base-url, up to its /v1), or does the page of a proxy or a network"
        " stand before it?"
    )
    return ProviderError("strange", f"HTTP {status}, and {what}; {why}{excerpt}", status=status)


def decode_answer(status: int, body: Any, headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the chat completion in an HTTP answer; its ProviderError where it is an error,
    whatever its status, or none.

    `body` is the text as it came, or what was read of it.
    """
    if not 200 <= status < 300:
        raise classify_error(status, _format_body(body), headers)
    try:
        answer = provider_errors.load_json(body) if isinstance(body, (bytes, str)) else body
    except ValueError as error:
        raise _build_unreadable_error(status, _format_body(body), headers, error) from None
    if (problem := _find_error(answer)) is not None:
        raise _classify_problem(problem, headers)
    if not isinstance(answer, Mapping):
        raise ProviderError(
            "garbled",
            f"the answer is a {_name_kind(answer)}, no JSON object: {str(answer)[:200]!r}",
        )
    if reason := _find_block_reason(answer):
        raise ProviderError(
            "filtered", f"the provider's filter would not read the prompt ({reason})"
        )
    return answer


def _classify_problem(problem: Any, headers: Mapping[str, str]) -> ProviderError:
    """Return the ProviderError that an error inside of an answer is."""
    refusal = provider_errors.read_refusal(problem)
    return classify_error(
        refusal.status or provider_errors.infer_status(refusal) or 500,
        _format_body(problem),
        headers,
    )


STREAM = re.compile(r"\s*(?:data|event|id|retry):|:\s")
PAGE = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)


def _build_unreadable_error(
    status: int, text: str, headers: Mapping[str, str], error: ValueError
) -> ProviderError:
    """Return the ProviderError of an answer that is no JSON: a stream comes again whenever it is
    asked for.
    """
    if STREAM.match(text):
        for event in re.findall(r"^data:(.*)$", text, re.MULTILINE)[:1]:
            if (problem := _find_error(provider_errors.parse_text(event))) is not None:
                return _classify_problem(problem, headers)
        return ProviderError(
            "hopeless",
            f"HTTP {status}, and the answer is a stream, which was not asked for; take `stream` out"
            f" of `params`, or out of what stands before the endpoint: {text[:200]!r}",
        )
    if PAGE.match(text):
        return _build_page_error(status, text, headers)
    return ProviderError(
        "garbled", f"HTTP {status}, and the answer is no JSON ({error}): {text[:200]!r}"
    )


def _format_body(body: Any) -> str:
    if isinstance(body, bytes):
        return body.decode(errors="replace")
    return body if isinstance(body, str) else json.dumps(body, default=str)


def _find_error(answer: Any) -> Any:
    """Return the error in a body that came as an answer; None where there is none."""
    if isinstance(answer, list):
        return next(
            (
                p
                for one in answer[:1]
                if isinstance(one, Mapping) and (p := _find_error(one)) is not None
            ),
            None,
        )
    if not isinstance(answer, Mapping):
        return None
    choices, error = answer.get("choices"), answer.get("error")
    if not (isinstance(choices, list) and choices):
        return {"error": error} if error else _find_unmarked_error(answer)
    first = choices[0]
    inner = first.get("error") if isinstance(first, Mapping) else None
    return next(
        ({"error": e} for e in (error, inner) if e and not provider_errors.says_nothing(e)), None
    )


def _find_unmarked_error(answer: Mapping[str, Any]) -> Any:
    """Return a body without choices that is an error by what it says; None for one that is none."""
    is_marked = (
        "error" in (answer.get("object"), answer.get("type"), answer.get("status"))
        or answer.get("errors")
        or answer.get("detail")
    )
    has_message = any(
        isinstance(answer.get(name), str) and not provider_errors.says_nothing(answer[name])
        for name in provider_errors.SAYS
    )
    return (
        dict(answer)
        if is_marked or has_message or (provider_errors.read_refusal(answer).status or 0) >= 400
        else None
    )


def _find_block_reason(answer: Mapping[str, Any]) -> str:
    """Return why a provider would not read the prompt, where an answer without choices says it."""
    feedback = answer.get("prompt_feedback") or answer.get("promptFeedback")
    if answer.get("choices") or not isinstance(feedback, Mapping):
        return ""
    return str(feedback.get("block_reason") or feedback.get("blockReason") or "")[:100]


def _name_kind(value: Any) -> str:
    return {"NoneType": "null", "list": "list", "str": "text", "bool": "truth value"}.get(
        type(value).__name__, "number"
    )


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks to wait, from retry-after-ms or Retry-After (seconds or a
    date).

    None where neither says it; infinity where what is said has no end.
    """
    named = {k.lower(): v.strip() for k, v in headers.items()}
    number = _parse_number(named.get("retry-after-ms"))
    if number is not None:
        return number / 1000
    text = named.get("retry-after")
    number = _parse_number(text)
    return number if number is not None or text is None else _count_seconds_until(text)


def _parse_number(text: str | None) -> float | None:
    """Return a number from 0 on, None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(value) else max(0.0, value)


def _count_seconds_until(date: str) -> float | None:
    """Return the seconds until a date, None for what is none."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


# ------------------------------------------------------------------- asking

ALTERNATIVES = 20  # tokens told with their log-probabilities, the most that OpenAI's protocol has
FITTING = "\n\nAnswer with one JSON object that fits this JSON schema, and nothing else:\n"
STRUCTURED = ("schema", "json", "text")  # how a structured answer is asked for, strictest first


# What a request can do without, or ask for in other words, by how an endpoint may name it.
CHANGEABLE = {
    "max_completion_tokens": "tokens",
    "max_tokens": "tokens",
    "response_format": "structured",
    "json_schema": "structured",
    "json_object": "structured",
    "temperature": "temperature",
    "seed": "seed",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "stop": "stop",
}
UNKNOWN = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra|not permitted|not allowed"
)


@dataclass
class Style:
    """How one endpoint likes to be asked. It starts as the settings say and learns from what the
    endpoint refuses.
    """

    structured: str = "schema"
    tokens: str = "max_tokens"
    dropped: set[str] = field(default_factory=set)
    folds_system: bool = False  # the system message opens the first user message
    # the model's chat template opens its thoughts, so that no answer says where they begin
    opens_thoughts: bool = False
    version: int = 0

    def learn(self, refusal: Refusal, request: Request, status: int | None = None) -> str | None:
        """Change what the endpoint complained of; return what was changed, None where nothing can
        be.
        """
        if (
            not self.folds_system
            and provider_errors.refuses_system(refusal, status)
            and not _names_field(refusal)
            and _changes_when_folded(request)
        ):
            self.folds_system = True
            changes = ["puts the system message at the beginning of the first user message"]
        else:
            parts = dict.fromkeys(
                CHANGEABLE[name]
                for name in provider_errors.find_parameters(refusal, tuple(CHANGEABLE))
            )
            changes = [
                c
                for part in parts
                if _has_part(part, request) and (c := self._change(part, refusal))
            ]
        self.version += bool(changes)
        return " and ".join(changes) or None

    def _change(self, part: str, refusal: Refusal) -> str | None:
        if part == "tokens":
            if self.tokens != "max_tokens" or not UNKNOWN.search(
                refusal.text.replace("max_completion_tokens", "unknown")
            ):
                return None
            self.tokens = "max_completion_tokens"
            return "asks with max_completion_tokens"
        if part == "structured":
            if self.structured == "text":
                return None
            self.structured = STRUCTURED[STRUCTURED.index(self.structured) + 1]
            return f"asks for structured answers as {self.structured}"
        if part in self.dropped:
            return None
        self.dropped.add(part)
        return f"leaves {part} out"


def _has_part(part: str, request: Request) -> bool:
    """Say whether a request has this part at all."""
    parts = {"structured": request.reply_schema, "logprobs": request.options, "stop": request.stop}
    return bool(parts.get(part, True))


def _names_field(refusal: Refusal) -> bool:
    """Say whether an error names a parameter by its own field, so that its words need not be
    searched for one.
    """
    return bool(provider_errors.find_parameters(Refusal("", (), refusal.params), tuple(CHANGEABLE)))


def _changes_when_folded(request: Request) -> bool:
    talk = _list_messages(request)
    return fold(talk) != talk


def _list_messages(request: Request) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in request.messages]


def build_body(
    model: str, request: Request, style: Style, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the chat completion's body of a request. `params` are the user's own, and win."""
    body: dict[str, Any] = {
        "model": model,
        "messages": (
            fold(_list_messages(request)) if style.folds_system else _list_messages(request)
        ),
        style.tokens: request.max_tokens,
        "temperature": request.temperature,
        "seed": (
            (request.seed + request.index) % 2**31
        ),  # what every provider that takes one accepts
    }
    if request.options:
        body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    if request.stop:
        body["stop"] = list(request.stop)
    for name in style.dropped:
        body.pop(name, None)
        body.pop(f"top_{name}", None)
    if request.reply_schema is not None:
        ask_for_schema(
            body, request.role, build_strict_schema(request.reply_schema), style.structured
        )
    return body | dict(params) if params else body


def ask_for_schema(body: dict[str, Any], name: str, schema: Mapping[str, Any], how: str) -> None:
    """Ask for an answer of this schema: by the schema itself, by JSON mode, or by words alone."""
    if how == "schema":
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": name, "strict": True, "schema": schema},
        }
        return
    from orjson import dumps

    last = body["messages"][-1]
    body["messages"] = [
        *body["messages"][:-1],
        {**last, "content": last["content"] + FITTING + dumps(schema).decode()},
    ]
    if how == "json":
        body["response_format"] = {"type": "json_object"}


def build_strict_schema(schema: Any) -> Any:
    """Return a JSON schema as strict modes want it: every property required, none added, no
    defaults and titles.
    """
    if isinstance(schema, Mapping):
        strict = {
            k: build_strict_schema(v)
            for k, v in schema.items()
            if k not in ("default", "title") or isinstance(v, Mapping)
        }
        if isinstance(properties := strict.get("properties"), dict):
            strict |= {"required": list(properties), "additionalProperties": False}
        return strict
    return [build_strict_schema(v) for v in schema] if isinstance(schema, (list, tuple)) else schema


def bound_prompt_tokens(request: Request) -> int:
    """Return how many tokens a prompt can have at most: none makes more than there are bytes, and a
    few a message.
    """
    schema = 2 * len(str(request.reply_schema)) + 200 if request.reply_schema else 0
    return sum(len(m.content.encode()) + 16 for m in request.messages) + schema + 16
