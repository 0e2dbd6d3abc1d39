"""Reads how a request to models of this machine wants to be answered; what it may not want is a
Problem.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from culturepark.errors import InputError
from culturepark.serving.problems import Problem, invalid_value

STOPS, ALTERNATIVES = 16, 20  # stop texts of a request, and alternatives per token, at most
CHOICES, PROMPTS, ANSWERS = (
    128,
    256,
    1024,
)  # answers per prompt, and prompts and answers of a request, at most
LENGTH = 16  # tokens of a text completion that does not say how many: OpenAI's own
Prompt = str | tuple[int, ...]


def read_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return messages as templates take them: texts only, a developer's as the system's."""
    talk = []
    for i, message in enumerate(messages):
        parts = message.get("content") or ""
        if not isinstance(parts, str):
            odd = next(
                (
                    p
                    for p in parts
                    if not isinstance(p, Mapping) or not isinstance(p.get("text"), str)
                ),
                None,
            )
            if odd is not None:
                raise invalid_value(f"messages[{i}].content", "these models read texts only")
            parts = "".join(p["text"] for p in parts)
        if message["role"] in ("tool", "function"):
            raise invalid_value(f"messages[{i}].role", "these models use no tools")
        talk.append(
            {
                "role": "system" if message["role"] == "developer" else message["role"],
                "content": parts,
            }
        )
    return talk


def read_sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return temperature, top-p, seed and stop texts."""
    top_p, stop = body.get("top_p"), body.get("stop")
    if top_p is not None and (
        isinstance(top_p, bool) or not isinstance(top_p, (int, float)) or not 0 < top_p <= 1
    ):
        raise invalid_value("top_p", "expected a number above 0 and up to 1")
    stops = [stop] if isinstance(stop, str) else stop or []
    if (
        not isinstance(stops, list)
        or len(stops) > STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise invalid_value("stop", f"expected a text, or up to {STOPS}, none empty")
    warmth, seed = body.get("temperature"), body.get("seed")
    return {
        "temperature": 1.0 if warmth is None else float(warmth),
        "top_p": 1.0 if top_p is None else float(top_p),
        "seed": secrets.randbits(31) if seed is None else seed,
        "stop": tuple(stops),
    }


def read_chat_logprobs(body: Mapping[str, Any]) -> int | None:
    """Return how many alternatives per token a chat request wants; None for no log-probabilities at
    all.
    """
    top = body.get("top_logprobs")
    if top is not None and not _is_count(top, ALTERNATIVES):
        raise invalid_value("top_logprobs", f"expected a whole number from 0 to {ALTERNATIVES}")
    if top is not None and not body.get("logprobs"):
        raise invalid_value("top_logprobs", "it needs logprobs to be true")
    return (top or 0) if body.get("logprobs") else None


def read_text_logprobs(body: Mapping[str, Any]) -> int | None:
    """Return how many alternatives per token a text completion wants; None for no log-probabilities
    at all.
    """
    top = body.get("logprobs")
    if top is not None and not _is_count(top, ALTERNATIVES):
        raise invalid_value("logprobs", f"expected a whole number from 0 to {ALTERNATIVES}")
    return None if top is None else int(top)


def read_text_limit(body: Mapping[str, Any]) -> int:
    """Return how many tokens a text completion may have; 0 asks for none."""
    limit = body.get("max_tokens")
    if limit is not None and not _is_count(limit, 2**31):
        raise invalid_value("max_tokens", "expected a whole number of at least 0")
    return LENGTH if limit is None else int(limit)


def read_count(body: Mapping[str, Any]) -> int:
    """Return how many answers each prompt gets."""
    count = body.get("n")
    if count is not None and (not _is_count(count, CHOICES) or count < 1):
        raise invalid_value("n", f"expected a whole number from 1 to {CHOICES}")
    return count or 1


def read_prompts(body: Mapping[str, Any]) -> list[Prompt]:
    """Return the prompts of a text completion: a text, token ids, or several of either."""
    prompts = body.get("prompt")
    if isinstance(prompts, str):
        return [prompts]
    if _are_tokens(prompts):
        return [tuple(prompts)]  # type: ignore[arg-type]
    if (
        not isinstance(prompts, list)
        or not prompts
        or not all(isinstance(p, str) or _are_tokens(p) for p in prompts)
    ):
        raise invalid_value(
            "prompt",
            "expected a text, a list of token ids, or a list of either, none of them empty",
        )
    if len(prompts) > PROMPTS:
        raise invalid_value("prompt", f"{len(prompts)} prompts; one request has at most {PROMPTS}")
    if len(prompts) * read_count(body) > ANSWERS:
        raise invalid_value(
            "n",
            f"{len(prompts)} prompts with so many answers each; one request has at most {ANSWERS}"
            " answers",
        )
    return [p if isinstance(p, str) else tuple(p) for p in prompts]


def check_echo(body: Mapping[str, Any]) -> bool:
    """Say whether the prompt is said back; Problem where that cannot be."""
    echo = body.get("echo")
    if echo is not None and not isinstance(echo, bool):
        raise invalid_value("echo", "expected true or false")
    if echo and body.get("stream"):
        raise invalid_value("echo", "this server does not stream prompts back")
    return bool(echo)


@contextmanager
def report_refusals(param: str) -> Iterator[None]:
    """Word what an engine cannot take as the Problem with a parameter."""
    try:
        yield
    except InputError as error:
        code = "context_length_exceeded" if type(error).__name__ == "TooLong" else "invalid_value"
        name = (
            f"{param}: " if param == "response_format" else ""
        )  # for clients that read words alone
        raise Problem(400, f"{name}{error}.", code=code, param=param) from error


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _are_tokens(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(_is_count(token, 2**31) for token in value)
    )
