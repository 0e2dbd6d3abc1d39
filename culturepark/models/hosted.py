"""Any OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, llama.cpp, …) through the openai SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from culturepark.errors import InputError, ModelError
from culturepark.models import secret
from culturepark.records import Reply, Request

ATTEMPTS = 6
HOPELESS = {400: "the request was refused as malformed", 401: "the key was refused", 403: "the key may not use this model",
            404: "no such model or path at this endpoint", 422: "the request was refused as malformed"}  # fmt: skip


class Hosted:
    """A chat model behind an OpenAI-compatible endpoint.

    The key comes from CULTUREPARK_API_KEY or OPENAI_API_KEY; an endpoint given by `base_url` (or OPENAI_BASE_URL)
    may do without one. Passing failures (429, 5xx, connection, time-out) are tried again with growing random pauses; a
    refused key, a missing model and a malformed request raise ModelError at once.
    """

    def __init__(self, name: str, base_url: str | None = None, concurrency: int = 64, timeout: float = 120.0) -> None:
        self.name, self.base_url = name, base_url or secret("OPENAI_BASE_URL")
        if "@" in (self.base_url or "").split("//")[-1].split("/")[0]:
            raise InputError(
                "--base-url holds a user name or password, which would end up in run.toml; set the key in the environment"
            )
        key = secret("CULTUREPARK_API_KEY", "OPENAI_API_KEY")
        if key is None and self.base_url is None:
            raise ModelError("no key: set OPENAI_API_KEY, or give --base-url for an endpoint that needs none")
        self.identity = f"openai/{name}@{self.base_url or 'default'}"
        self._key, self._timeout = key or "none", timeout
        self._gate = asyncio.Semaphore(concurrency)
        self._client: Any = None

    async def complete(self, request: Request) -> Reply:
        """Send one request; the reply's status says what came of it."""
        started = time.perf_counter()
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_random_exponential(0.5, 30),
                retry=retry_if_exception(passing),
            ):
                with attempt:
                    async with self._gate:
                        body = await self._post(request)
        except RetryError as error:
            cause = error.last_attempt.exception()
            return Reply(
                status="failed",
                model=self.identity,
                reason=f"gave up after {ATTEMPTS} attempts: {self._clean(cause)}",
            )
        except Exception as error:
            status = getattr(error, "status_code", None)
            if status in HOPELESS:
                raise ModelError(f"{self.identity}: {HOPELESS[status]}: {self._clean(error)}") from None
            return Reply(status="failed", model=self.identity, reason=self._clean(error))
        return read(body, self.identity, (time.perf_counter() - started) * 1000)

    async def _post(self, request: Request) -> Mapping[str, Any]:
        if self._client is None:
            from openai import AsyncOpenAI

            self._client = AsyncOpenAI(api_key=self._key, base_url=self.base_url, max_retries=0, timeout=self._timeout)
        payload: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }
        # cast_to=object skips building response models, which costs a multiple of the call itself.
        body = await self._client.post("/chat/completions", body=payload, cast_to=object)
        if not isinstance(body, Mapping):
            raise ValueError(f"the endpoint answered with {type(body).__name__}, not a JSON object")
        return body

    def _clean(self, error: BaseException | None) -> str:
        """Return the error's text without the key, shortened."""
        text = f"{type(error).__name__}: {error}"
        return (text.replace(self._key, "[key]") if len(self._key) > 4 else text)[:500]


def passing(error: BaseException) -> bool:
    """Say whether trying again may help."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return status in (408, 409, 429) or bool(status >= 500)
    return type(error).__name__ in {
        "APIConnectionError",
        "APITimeoutError",
        "JSONDecodeError",
        "APIResponseValidationError",
    }


def read(body: Mapping[str, Any], identity: str, ms: float) -> Reply:
    """Turn a chat completion into a Reply with an honest status."""
    usage = body.get("usage") or {}
    facts: dict[str, Any] = {
        "model": identity,
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "ms": ms,
    }
    choices = body.get("choices") or []
    if not choices:
        return Reply(status="failed", reason=f"no choices in the answer: {str(body)[:200]}", **facts)
    message, finish = choices[0].get("message") or {}, choices[0].get("finish_reason")
    text = (message.get("content") or "").strip()
    if message.get("refusal"):
        return Reply(status="refused", reason=str(message["refusal"])[:500], text=text, **facts)
    if finish == "content_filter":
        return Reply(status="filtered", reason="the provider's content filter stopped the answer", text=text, **facts)
    if finish == "length":
        return Reply(status="truncated", reason="the answer was cut at max_tokens", text=text, **facts)
    if not text:
        return Reply(status="empty", reason="the answer holds no text", **facts)
    return Reply(status="ok", text=text, **facts)
