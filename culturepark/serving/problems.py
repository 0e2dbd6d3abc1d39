"""What the server refuses and why, in the shape of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Problem(Exception):
    """A request that gets an error for an answer: status, message, and the code and parameter where
    there are any.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON, as OpenAI words it."""
        kind = KINDS.get(self.status, "server_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        }


def missing_parameter(param: str) -> Problem:
    """Return the Problem of a parameter that a request lacks."""
    message = f"Missing required parameter: '{param}'."
    return Problem(400, message, code="missing_required_parameter", param=param)


def invalid_value(param: str, why: str) -> Problem:
    """Return the Problem with a parameter's value."""
    return Problem(400, f"Invalid value for '{param}': {why}.", code="invalid_value", param=param)


def invalid_body() -> Problem:
    """Return the Problem of a body that is no JSON object."""
    return Problem(400, "We could not parse the JSON body of your request: it is not an object.")
