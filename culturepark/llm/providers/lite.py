"""Every provider that does not speak OpenAI's protocol (Anthropic, Gemini, Bedrock, …), through
litellm, imported when used.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from culturepark.errors import InputError, ModelError, nearest
from culturepark.keys import check_address, check_key, remember
from culturepark.llm import provider_errors
from culturepark.llm.codec import ProviderError, classify_error, decode_answer
from culturepark.llm.proxies import check_httpx_proxies
from culturepark.llm.sockets import explain_text
from culturepark.records import Request

CONNECTIONS = "100000"  # litellm's own session stops at 500 a host, and takes 0 for aiohttp's 100


UNREAD = (  # what litellm says of an answer in whose types it does not believe
    "Invalid response object"
)
_answers: ContextVar[list[Any] | None] = ContextVar(
    "heard", default=None
)  # answers of the call of the moment, as they came


def _build_keeper() -> Any:
    """Return what keeps the answers that litellm gets, for those that it cannot read."""
    from litellm.integrations.custom_logger import CustomLogger

    class Keeper(CustomLogger):
        def log_post_api_call(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            if (answers := _answers.get()) is not None and (
                answer := kwargs.get("original_response")
            ) is not None:
                answers.append(answer)

    return Keeper()


@lru_cache(maxsize=1)
def load_litellm() -> Any:
    """Return litellm, quiet and without its import-time look at the network; ModelError if it is
    not installed.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    for noise in (
        "Items? .* (is|are) using the `ReadOnly` qualifier",
        "Pydantic serializer warnings",
    ):
        warnings.filterwarnings("ignore", noise)  # of its own types; nobody can act on it
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)  # what it warns of, we read for ourselves
    for name in ("AIOHTTP_CONNECTOR_LIMIT", "AIOHTTP_CONNECTOR_LIMIT_PER_HOST"):
        os.environ.setdefault(name, CONNECTIONS)
    try:
        import litellm
    except ImportError:
        raise ModelError(
            "this model is reached through litellm, which is not installed: pip install"
            " 'culturepark[litellm]'"
        ) from None
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.input_callback.append(_build_keeper())
    litellm.drop_params = (
        True  # a parameter that a provider does not know is left out, not an error
    )
    return litellm


class Lite:
    """A client for one model of one provider. litellm finds the provider's key in the environment
    where none is given.
    """

    limited, discount = True, 1.0

    def __init__(
        self,
        identity: str,
        model: str,
        base_url: str | None,
        key: str | None,
        timeout: float = 120.0,
    ) -> None:
        if base_url is not None:
            check_address(base_url)
        self.identity, self.model, self.base_url, self.timeout = identity, model, base_url, timeout
        self.key = remember(key)

    def check(self) -> None:
        """Raise for a provider that litellm does not know, whose key is not set, or a proxy that
        cannot be spoken to.
        """
        litellm = load_litellm()
        check_httpx_proxies(self.identity)
        provider = self.model.split("/")[0]
        known = [str(getattr(p, "value", p)) for p in litellm.provider_list]
        if provider not in known:
            raise InputError(
                f"no model provider {provider!r} in {self.model!r}. {nearest(provider, known)}"
            )
        if self.key is None and self.base_url is None:
            wants = litellm.validate_environment(self.model)
            if not wants["keys_in_environment"] and wants["missing_keys"]:
                raise ModelError(
                    f"{self.identity}: no key: set {' and '.join(wants['missing_keys'])}"
                )
        for name, value in os.environ.items():  # litellm may take any of them
            if name.endswith(("_API_KEY", "_SECRET_ACCESS_KEY", "_TOKEN")):
                remember(value.strip())
        check_key(self.key, self.identity)

    def build_options(self) -> dict[str, Any]:
        """Return address, key and time-out as litellm's functions take them."""
        options = {"api_base": self.base_url, "api_key": self.key, "timeout": self.timeout}
        return {k: v for k, v in options.items() if v is not None}

    async def send(self, body: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
        """Ask once and return the answer as a chat completion's body; ProviderError when there is
        none.
        """
        litellm = load_litellm()
        answers: list[Any] = []
        _answers.set(answers)
        try:
            answer = await litellm.acompletion(
                **{**body, "model": self.model},
                **self.build_options(),
                num_retries=0,
                max_retries=0,
            )
        except Exception as error:
            if UNREAD in str(error) and answers:
                return decode_answer(200, answers[-1], {})
            raise classify_exception(error) from None
        return decode_answer(200, _dump_answer(answer), {})

    async def close(self) -> None:
        """Let go of connections."""
        await load_litellm().close_litellm_async_clients()


def _dump_answer(answer: Any) -> Any:
    """Return litellm's answer as plain JSON, with the provider's own reason to stop, which litellm
    turns into "stop".
    """
    try:
        body = (
            answer if isinstance(answer, dict) else answer.model_dump(mode="json", warnings=False)
        )
    except Exception as error:
        raise ProviderError(
            "garbled", f"litellm's answer cannot be read ({type(error).__name__}: {error})"
        ) from None
    for choice in body.get("choices") or () if isinstance(body, dict) else ():
        fields = (choice.get("provider_specific_fields") or {}) if isinstance(choice, dict) else {}
        if native := fields.get("native_finish_reason"):
            choice["finish_reason"] = native
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict) and isinstance(
            more := message.get("provider_specific_fields"), dict
        ):
            message["refusal"] = message.get("refusal") or more.get("refusal")
    return body


def _parse_status(code: Any) -> int | None:
    """Return the HTTP status that a code is, which litellm copies from an answer as it stands
    there.
    """
    return None if code is None else provider_errors.read_refusal({"code": code}).status


def classify_exception(error: Exception) -> ProviderError:
    """Return the ProviderError that litellm's exception is."""
    name, text = type(error).__name__, str(error)
    status = _parse_status(getattr(error, "status_code", None))
    if UNREAD in text:
        return ProviderError(
            "garbled",
            f"litellm could not read the answer: {text.strip().splitlines()[-1][:300]}",
            status=status,
        )
    response = getattr(error, "response", None)
    if "ContextWindow" in name:
        return ProviderError(
            "long", f"the prompt is too long for this model: {text}", status=status
        )
    if "ContentPolicy" in name:
        return ProviderError("filtered", text, status=status)
    if name == "Timeout":
        return ProviderError("slow", text, status=status)
    if name == "APIConnectionError" or status is None:
        # litellm does not tell a connection that was refused from one that broke or an answer that
        # it could not read.
        why = explain_text(text)
        return ProviderError(
            "down" if why else "lost",
            f"no connection: {why}" if why else f"{name}: {text}",
            status=status,
        )
    return classify_error(status, text, dict(getattr(response, "headers", None) or {}))
