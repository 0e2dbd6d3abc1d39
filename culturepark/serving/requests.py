"""Reads what any request for a completion holds, and reports what OpenAI would refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from culturepark.errors import nearest
from culturepark.serving.problems import Problem, invalid_body, invalid_value, missing_parameter

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def check_chat_request(body: Any, models: Sequence[str]) -> None:
    """Raise the Problem that OpenAI would report with a chat request."""
    check_model(body, models)
    messages = body.get("messages")
    if messages is None:
        raise missing_parameter("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_value("messages", "expected an array with at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise invalid_value(f"messages[{i}].role", f"supported roles are {', '.join(ROLES)}")
        if not isinstance(message.get("content"), (str, list)) and message["role"] != "assistant":
            raise invalid_value(f"messages[{i}].content", "expected a string or an array of parts")
    check_sampling(body, 1)


def check_text_request(body: Any, models: Sequence[str]) -> None:
    """Raise the Problem that OpenAI would report with a request for a text completion."""
    check_model(body, models)
    if body.get("prompt") is None:
        raise missing_parameter("prompt")
    check_sampling(body, 0)


def check_sampling(body: Mapping[str, Any], least: int) -> None:
    """Raise the Problem with how an answer is to be drawn; it has at least `least` tokens."""
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        if limit is not None and (
            not isinstance(limit, int) or isinstance(limit, bool) or limit < least
        ):
            raise invalid_value(name, f"expected a whole number of at least {least}")
    warmth = body.get("temperature")
    if warmth is not None and (
        isinstance(warmth, bool) or not isinstance(warmth, (int, float)) or not 0 <= warmth <= 2
    ):
        raise invalid_value("temperature", "expected a number from 0 to 2")
    if body.get("seed") is not None and (
        not isinstance(body["seed"], int) or isinstance(body["seed"], bool)
    ):
        raise invalid_value("seed", "expected a whole number")
    if body.get("stream_options") is not None and not isinstance(body["stream_options"], dict):
        raise invalid_value("stream_options", "expected an object")
    shape = body.get("response_format")
    if shape is not None and (
        not isinstance(shape, dict)
        or shape.get("type") not in ("text", "json_object", "json_schema")
    ):
        raise invalid_value(
            "response_format.type", "supported types are text, json_object and json_schema"
        )


def check_model(body: Any, models: Sequence[str]) -> None:
    """Raise the Problem with the model that a request names."""
    if not isinstance(body, dict):
        raise invalid_body()
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise missing_parameter("model")
    if name not in models:
        raise unknown_model(name, models)


def unknown_model(name: str, models: Sequence[str]) -> Problem:
    """Return the Problem of a model that is not served here."""
    message = (
        f"The model `{name}` does not exist or you do not have access to it."
        f" {nearest(name, models)}"
    )
    return Problem(404, message, code="model_not_found", param="model")


def read_limit(body: Mapping[str, Any]) -> int | None:
    """Return how many tokens an answer may have; None where the request does not say."""
    limit: int | None = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit
