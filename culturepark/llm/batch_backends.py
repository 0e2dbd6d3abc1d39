"""The batch APIs of providers, in OpenAI's own protocol or through litellm."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from culturepark.errors import ModelError, ParkError
from culturepark.keys import redact
from culturepark.llm.codec import PASSING, ProviderError, check_page, classify_error, decode_answer
from culturepark.llm.providers.compatible import Compatible
from culturepark.llm.providers.lite import Lite, classify_exception, load_litellm
from culturepark.llm.sockets import explain_error, explain_text

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("culturepark")
T = TypeVar("T")
CallOutcome = Mapping[str, Any] | ProviderError
CHAT: Final = "/v1/chat/completions"
NAME = "culturepark"  # of the metadata that holds our id of a batch
PAGE_SIZE, PAGES = 100, 20  # batches per page of the listing, pages searched for one of ours
JITTER = wait_random_exponential(multiplier=0.5, max=60)
# The kind of one line's error by its code; else `busy`.
CODES = {"batch_cancelled": "hopeless", "request_timeout": "slow"}
# Exceptions of httpx (which openai 2 stands on) and of httpx2 (openai 3).
UNREACHED = ("ConnectError", "ConnectTimeout")
CROWDED = "token_limit_exceeded"  # the code of a batch for which the account's queue has no room


@dataclass(frozen=True)
class BatchStatus:
    """The status of a batch at its provider.

    `input` and `files` are ids of its input file and of its result files once it has ended,
    `errors` (code, text) say why the provider refused it, `name` is our own id.
    """

    id: str
    status: str
    input: str = ""
    files: tuple[str, ...] = ()
    errors: tuple[tuple[str, str], ...] = ()
    counts: str = ""
    name: str = ""

    @property
    def no_room(self) -> bool:
        """Whether the provider had no room for the batch in the account's queue."""
        return self.status == "failed" and any(code == CROWDED for code, _ in self.errors)


class BatchBackend(Protocol):
    """A provider's batch API. Each failure is a ProviderError with the HTTP answer's `status`, if
    there was an answer.
    """

    async def upload(self, name: str, data: bytes) -> str:
        """Upload a batch's lines and return the file's id."""
        ...

    async def create(self, file: str, name: str) -> BatchStatus:
        """Create a batch of an uploaded file; `name` is our own id."""
        ...

    async def look(self, batch: str) -> BatchStatus:
        """Return a batch's status."""
        ...

    async def read(self, file: str) -> bytes:
        """Return a file's content."""
        ...

    async def list_page(self, after: str | None) -> list[BatchStatus]:
        """Return a page of the account's batches, the newest first."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def build_backend(client: Any) -> BatchBackend:
    """Return the batch API of a client's provider."""
    return OpenAIBackend(client) if isinstance(client, Compatible) else LiteBackend(client)


class OpenAIBackend:
    """An endpoint that speaks OpenAI's protocol."""

    def __init__(self, client: Compatible) -> None:
        self._client = client
        self._sdk_client: AsyncOpenAI | None = None

    def _sdk(self) -> AsyncOpenAI:
        if self._sdk_client is None:
            self._sdk_client = self._client.build_sdk_client()
        return self._sdk_client

    async def upload(self, name: str, data: bytes) -> str:
        """Upload a batch's lines and return the file's id."""
        with translate_errors():
            return _read_id(await self._sdk().files.create(file=(name, data), purpose="batch"))

    async def create(self, file: str, name: str) -> BatchStatus:
        """Create a batch of an uploaded file; `name` is our own id."""
        with translate_errors():
            return _read_status(
                await self._sdk().batches.create(
                    input_file_id=file,
                    endpoint=CHAT,
                    completion_window="24h",
                    metadata={NAME: name},
                )
            )

    async def look(self, batch: str) -> BatchStatus:
        """Return a batch's status."""
        with translate_errors():
            return _read_status(await self._sdk().batches.retrieve(batch))

    async def read(self, file: str) -> bytes:
        """Return a file's content."""
        with translate_errors():
            return _check_content((await self._sdk().files.content(file)).content)

    async def list_page(self, after: str | None) -> list[BatchStatus]:
        """Return a page of the account's batches, the newest first."""
        with translate_errors():
            page = await (
                self._sdk().batches.list(limit=PAGE_SIZE, after=after)
                if after
                else self._sdk().batches.list(limit=PAGE_SIZE)
            )
            return [_read_status(b) for b in page.data]

    async def close(self) -> None:
        """Let go of connections."""
        if self._sdk_client is not None:
            await self._sdk_client.close()
            self._sdk_client = None


class LiteBackend:
    """A provider whose batch API litellm reaches: Azure, Mistral, Vertex, Bedrock, xAI, OpenAI."""

    def __init__(self, client: Lite) -> None:
        self._client = client
        self._how = {
            **client.build_options(),
            "custom_llm_provider": client.model.partition("/")[0],
            "max_retries": 0,
        }

    async def upload(self, name: str, data: bytes) -> str:
        """Upload a batch's lines and return the file's id."""
        with translate_errors():
            return _read_id(
                await load_litellm().acreate_file(file=(name, data), purpose="batch", **self._how)
            )

    async def create(self, file: str, name: str) -> BatchStatus:
        """Create a batch of an uploaded file; `name` is our own id."""
        with translate_errors():
            return _read_status(
                await load_litellm().acreate_batch(
                    input_file_id=file,
                    endpoint=CHAT,
                    completion_window="24h",
                    metadata={NAME: name},
                    model=self._client.model,
                    **self._how,
                )
            )

    async def look(self, batch: str) -> BatchStatus:
        """Return a batch's status."""
        with translate_errors():
            return _read_status(
                await load_litellm().aretrieve_batch(
                    batch_id=batch, model=self._client.model, **self._how
                )
            )

    async def read(self, file: str) -> bytes:
        """Return a file's content."""
        with translate_errors():
            return _check_content(
                bytes((await load_litellm().afile_content(file_id=file, **self._how)).content)
            )

    async def list_page(self, after: str | None) -> list[BatchStatus]:
        """Return a page of the account's batches, the newest first."""
        with translate_errors():
            page = await load_litellm().alist_batches(after=after, limit=PAGE_SIZE, **self._how)
            return [
                _read_status(b) for b in (page["data"] if isinstance(page, dict) else page.data)
            ]

    async def close(self) -> None:
        """Nothing to let go of: litellm's own connections are closed with the client."""


async def find_batch(identity: str, backend: BatchBackend, name: str) -> BatchStatus | None:
    """Return the account's batch with our id, without those that the provider refused as a whole.

    None if there is none, or if the provider does not list its batches.
    """
    after: str | None = None
    for _ in range(PAGES):
        try:
            page = await backend.list_page(after)
        except ProviderError as error:
            if is_passing(error) or error.status in (401, 403):
                raise
            log.warning(
                "%s does not list its batches: %s",
                identity,
                error,
                extra={"event": "batch_unlisted"},
            )
            return None
        match = next(
            (order for order in page if order.name == name and order.status != "failed"), None
        )
        if match is not None or len(page) < PAGE_SIZE:
            return match
        after = page[-1].id
    return None


# -------------------------------------------------------------------- reading


def _read_id(created: Any) -> str:
    """Return the id of what the provider created; ProviderError if it has none."""
    check_page(created)
    identifier = getattr(created, "id", None)
    if not isinstance(identifier, str):
        raise ProviderError(
            "hopeless",
            f"no batch API: it answers {str(created)[:100]!r} where a file or batch is asked for",
            status=404,
        )
    return identifier


def _check_content(data: bytes) -> bytes:
    """Return a file's content; ProviderError for a web page in its place."""
    check_page(data)
    return data


def _read_status(batch: Any) -> BatchStatus:
    if isinstance(batch, dict):
        from openai.types import Batch

        batch = Batch.model_construct(**batch)
    errors = getattr(batch.errors, "data", None) if getattr(batch, "errors", None) else None
    counts = getattr(batch, "request_counts", None)
    metadata = getattr(batch, "metadata", None)
    return BatchStatus(
        _read_id(batch),
        str(batch.status).strip().lower(),
        str(batch.input_file_id or ""),
        tuple(f for f in (batch.output_file_id, batch.error_file_id) if f),
        tuple((str(e.code or ""), _format_error(e)) for e in errors or ()),
        f"{counts.completed} answered, {counts.failed} failed of {counts.total}" if counts else "",
        str(metadata.get(NAME, "")) if isinstance(metadata, dict) else "",
    )


def _format_error(error: Any) -> str:
    where = f"line {error.line}: " if getattr(error, "line", None) else ""
    return f"{where}{redact(str(error.message))[:300]} ({error.code})"


# ------------------------------------------------------------------- failures


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn whatever a library raises into a ProviderError."""
    try:
        yield
    except (ParkError, ProviderError):
        raise
    except Exception as error:
        raise _classify_exception(error) from None


def _classify_exception(error: Exception) -> ProviderError:
    import openai

    home = type(error).__module__.partition(".")[0]
    if (
        home == "litellm"
        and isinstance(error, openai.BadRequestError)
        and "doesn't support" in str(error)
    ):
        return ProviderError("hopeless", str(error), status=501)
    if home == "openai" and isinstance(error, openai.APIStatusError):
        return classify_error(error.status_code, error.response.text, error.response.headers)
    if home == "openai" and isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        if cause is not None and type(cause).__name__ in UNREACHED:
            return ProviderError(
                "down", f"no connection: {explain_text(str(cause)) or explain_error(cause)}"
            )
        if isinstance(error, openai.APITimeoutError):
            return ProviderError("slow", "no answer in time")
        return ProviderError("lost", f"the connection broke: {explain_error(cause or error)}")
    if home in ("litellm", "httpx", "httpx2", "aiohttp"):
        return classify_exception(error)
    return ProviderError("hopeless", f"{type(error).__name__}: {error}")


def is_passing(error: BaseException) -> bool:
    """Return whether trying again may help."""
    return isinstance(error, ProviderError) and error.kind in PASSING and error.status != 501


async def retry_web_pages(what: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Call a service that has answered before: a web page in place of its answer is retried."""
    try:
        return await what(*args)
    except ProviderError as error:
        raise error.at(answered=True) from None


def _choose_pause(state: RetryCallState) -> float:
    """Wait a random time that grows with the attempts, never less than the provider asked for."""
    error = state.outcome.exception() if state.outcome else None
    return JITTER(state) + (error.wait or 0.0 if isinstance(error, ProviderError) else 0.0)


def build_retry_logger(
    what: str, patience: float, instead: str = ""
) -> Callable[[RetryCallState], None]:
    """Return a callback for tenacity that warns at the first retry and logs the others."""

    def notice(state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        if state.attempt_number == 1:
            log.warning(
                "%s fails and is asked again for up to %.0f minutes%s: %s",
                what,
                patience / 60,
                instead,
                str(error)[:300],
                extra={"event": "batch_retry"},
            )
        else:
            log.info("%s is asked again: %s", what, error, extra={"event": "batch_retry"})

    return notice


async def call_with_retries(
    name: str, patience: float, what: Callable[..., Awaitable[T]], *args: Any
) -> T:
    """Call a batch API. Passing failures are retried for `patience` seconds, others raised as they
    are.
    """
    notice = build_retry_logger(
        f"{name}: the batch API",
        patience,
        " (Ctrl-C, then --resume without --batch, goes on without it)",
    )
    try:
        return await AsyncRetrying(
            stop=stop_after_delay(patience),
            wait=_choose_pause,
            retry=retry_if_exception(is_passing),
            before_sleep=notice,
            reraise=True,
        )(what, *args)
    except ProviderError as error:
        if not is_passing(error):
            raise
        raise ModelError(
            f"{name}: the batch API has not worked for {patience / 60:.0f} minutes: {error}."
            " Nothing is lost: start it again when it is back (a run with --resume), or --resume"
            " without --batch."
        ) from None


def build_model_error(identity: str, error: ProviderError) -> ModelError:
    """Return the ModelError for a batch API's refusal, with advice."""
    if error.status in (404, 405, 501):
        return ModelError(
            f"{identity}: this endpoint has no batch API; run without --batch ({error})"
        )
    if error.status == 403:
        return ModelError(
            f"{identity}: the key may not use files and batches: allow it both, or run without"
            f" --batch ({error})"
        )
    return ModelError(f"{identity}: the batch API refused: {error}")


# ------------------------------------------------------------------- results


def parse_results(data: bytes) -> Iterable[tuple[str, CallOutcome]]:
    """Yield key and outcome of every readable line of a batch's result file."""
    from orjson import JSONDecodeError, loads

    for raw in data.split(b"\n"):
        try:
            row = loads(raw) if raw.strip() else None
        except JSONDecodeError:
            continue
        if isinstance(row, Mapping) and isinstance(row.get("custom_id"), str):
            yield row["custom_id"], _parse_result(row)


def _parse_result(row: Mapping[str, Any]) -> CallOutcome:
    response, error = row.get("response"), row.get("error")
    if (
        isinstance(response, Mapping)
        and (status := _parse_http_status(response.get("status_code"))) is not None
    ):
        try:
            return decode_answer(status, response.get("body"), {})
        except ProviderError as error_of_line:
            return error_of_line
    code, message = "no code", error if isinstance(error, str) else None
    if isinstance(error, Mapping):
        code, message = str(error.get("code") or code), error.get("message")
    kind: Any = CODES.get(code, "busy")
    return ProviderError(
        kind, f"{str(message)[:500] if message else 'the batch gave no answer'} ({code})"
    )


def _parse_http_status(value: Any) -> int | None:
    """Return an HTTP status, which some providers write as text."""
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else None


def explain_missing_answer(status: BatchStatus) -> ProviderError:
    """Return the error of a call that the files of an ended batch do not mention."""
    if status.status == "failed":
        reasons = "; ".join(text for _, text in status.errors[:5]) or "no reason given"
        advice = ""
        if status.no_room:
            advice = (
                ". Wait for other batches of this account to end, or lower --concurrency for"
                " smaller batches"
            )
        return ProviderError(
            "hopeless", f"the provider refused batch {status.id} as a whole: {reasons}{advice}"
        )
    if status.status == "cancelled":
        return ProviderError(
            "hopeless",
            f"batch {status.id} was cancelled, by somebody with access to the account (dashboard or"
            " API) or by the provider; --resume sends what it had not answered again",
        )
    if status.status == "expired":
        return ProviderError(
            "busy", f"batch {status.id} ran out of time before this request was answered"
        )
    return ProviderError(
        "garbled",
        f"batch {status.id} is completed, and neither of its files has a line for this request",
    )
