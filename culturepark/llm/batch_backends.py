"""Where batches are handed in: a provider's files and batches, in OpenAI's own protocol or through
litellm.
"""

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
from culturepark.llm.codec import PASSING, ProviderError, check_page, classify_error, decode_answer
from culturepark.llm.providers.compatible import Compatible
from culturepark.llm.providers.lite import Lite, load, told
from culturepark.llm.sockets import plain, plain_text
from culturepark.secrets import redact

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("culturepark")
T = TypeVar("T")
Outcome = Mapping[str, Any] | ProviderError
CHAT: Final = "/v1/chat/completions"
NAME = "culturepark"  # of the metadata that holds a wave's id
LISTED, SEARCHED = (
    100,
    20,
)  # batches a listing, and listings that are looked through for one of ours
JITTER = wait_random_exponential(multiplier=0.5, max=60)
CODES = {
    "batch_cancelled": "hopeless",
    "request_timeout": "slow",
}  # what befell one line; else `busy`
UNREACHED = (
    "ConnectError",
    "ConnectTimeout",
)  # of httpx (openai 2 stands on it) as of httpx2 (openai 3 does)
CROWDED = "token_limit_exceeded"  # the code of a batch for which the account's queue has no room


@dataclass(frozen=True)
class Order:
    """Where a batch stands: its files once it has ended, and why the provider would not take it
    (code, text).
    """

    id: str
    status: str
    input: str = ""
    files: tuple[str, ...] = ()
    errors: tuple[tuple[str, str], ...] = ()
    counts: str = ""
    wave: str = ""

    @property
    def crowded(self) -> bool:
        """Whether the provider had no room for the batch in the account's queue."""
        return self.status == "failed" and any(code == CROWDED for code, _ in self.errors)


class Office(Protocol):
    """A provider's batch API. Whatever goes wrong is a ProviderError; its `status` is that of the HTTP
    answer, if there was one.
    """

    async def upload(self, name: str, data: bytes) -> str:
        """Upload the lines of a wave; return the file's id."""
        ...

    async def create(self, file: str, wave: str) -> Order:
        """Start a batch of an uploaded file."""
        ...

    async def look(self, batch: str) -> Order:
        """Return where a batch stands."""
        ...

    async def read(self, file: str) -> bytes:
        """Return a file's content."""
        ...

    async def listed(self, after: str | None) -> list[Order]:
        """Return a page of the account's batches, the newest first."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def office(client: Any) -> Office:
    """Return the office of a client's provider."""
    return Direct(client) if isinstance(client, Compatible) else Relayed(client)


class Direct:
    """An endpoint that speaks OpenAI's protocol."""

    def __init__(self, client: Compatible) -> None:
        self._client = client
        self._made: AsyncOpenAI | None = None

    def _sdk(self) -> AsyncOpenAI:
        if self._made is None:
            self._made = self._client.sdk()
        return self._made

    async def upload(self, name: str, data: bytes) -> str:
        """Upload the lines of a wave; return the file's id."""
        with _translate_errors():
            return _id(await self._sdk().files.create(file=(name, data), purpose="batch"))

    async def create(self, file: str, wave: str) -> Order:
        """Start a batch of an uploaded file."""
        with _translate_errors():
            return _order(
                await self._sdk().batches.create(
                    input_file_id=file,
                    endpoint=CHAT,
                    completion_window="24h",
                    metadata={NAME: wave},
                )
            )

    async def look(self, batch: str) -> Order:
        """Return where a batch stands."""
        with _translate_errors():
            return _order(await self._sdk().batches.retrieve(batch))

    async def read(self, file: str) -> bytes:
        """Return a file's content."""
        with _translate_errors():
            return _content((await self._sdk().files.content(file)).content)

    async def listed(self, after: str | None) -> list[Order]:
        """Return a page of the account's batches, the newest first."""
        with _translate_errors():
            page = await (
                self._sdk().batches.list(limit=LISTED, after=after)
                if after
                else self._sdk().batches.list(limit=LISTED)
            )
            return [_order(b) for b in page.data]

    async def close(self) -> None:
        """Let go of connections."""
        if self._made is not None:
            await self._made.close()
            self._made = None


class Relayed:
    """A provider whose batches litellm knows how to reach: Azure, Mistral, Vertex, Bedrock, xAI,
    and OpenAI's own protocol.
    """

    def __init__(self, client: Lite) -> None:
        self._client = client
        self._how = {
            **client.reach(),
            "custom_llm_provider": client.model.partition("/")[0],
            "max_retries": 0,
        }

    async def upload(self, name: str, data: bytes) -> str:
        """Upload the lines of a wave; return the file's id."""
        with _translate_errors():
            return _id(await load().acreate_file(file=(name, data), purpose="batch", **self._how))

    async def create(self, file: str, wave: str) -> Order:
        """Start a batch of an uploaded file."""
        with _translate_errors():
            return _order(
                await load().acreate_batch(
                    input_file_id=file,
                    endpoint=CHAT,
                    completion_window="24h",
                    metadata={NAME: wave},
                    model=self._client.model,
                    **self._how,
                )
            )

    async def look(self, batch: str) -> Order:
        """Return where a batch stands."""
        with _translate_errors():
            return _order(
                await load().aretrieve_batch(batch_id=batch, model=self._client.model, **self._how)
            )

    async def read(self, file: str) -> bytes:
        """Return a file's content."""
        with _translate_errors():
            return _content(bytes((await load().afile_content(file_id=file, **self._how)).content))

    async def listed(self, after: str | None) -> list[Order]:
        """Return a page of the account's batches, the newest first."""
        with _translate_errors():
            page = await load().alist_batches(after=after, limit=LISTED, **self._how)
            return [_order(b) for b in (page["data"] if isinstance(page, dict) else page.data)]

    async def close(self) -> None:
        """Nothing to let go of: litellm's own connections are closed with the client."""


async def find(name: str, place: Office, wave: str) -> Order | None:
    """Look for a wave among the account's batches; one that the provider refused as a whole does
    not count.
    """
    after: str | None = None
    for _ in range(SEARCHED):
        try:
            page = await place.listed(after)
        except ProviderError as error:
            if passes(error) or error.status in (401, 403):
                raise
            log.warning(
                "%s does not list its batches: %s", name, error, extra={"event": "batch_unlisted"}
            )
            return None
        found = next(
            (order for order in page if order.wave == wave and order.status != "failed"), None
        )
        if found is not None or len(page) < LISTED:
            return found
        after = page[-1].id
    return None


# -------------------------------------------------------------------- reading


def _id(made: Any) -> str:
    """Return the id of what the provider made; ProviderError where that is no such thing."""
    check_page(made)
    found = getattr(made, "id", None)
    if not isinstance(found, str):
        raise ProviderError(
            "hopeless",
            f"no batch API: it answers {str(made)[:100]!r} where a file or batch is asked for",
            status=404,
        )
    return found


def _content(data: bytes) -> bytes:
    """Return a file's content; ProviderError for a web page in its place."""
    check_page(data)
    return data


def _order(batch: Any) -> Order:
    if isinstance(batch, dict):
        from openai.types import Batch

        batch = Batch.model_construct(**batch)
    listed = getattr(batch.errors, "data", None) if getattr(batch, "errors", None) else None
    counts = getattr(batch, "request_counts", None)
    metadata = getattr(batch, "metadata", None)
    return Order(
        _id(batch),
        str(batch.status).strip().lower(),
        str(batch.input_file_id or ""),
        tuple(f for f in (batch.output_file_id, batch.error_file_id) if f),
        tuple((str(e.code or ""), _line(e)) for e in listed or ()),
        f"{counts.completed} answered, {counts.failed} failed of {counts.total}" if counts else "",
        str(metadata.get(NAME, "")) if isinstance(metadata, dict) else "",
    )


def _line(error: Any) -> str:
    where = f"line {error.line}: " if getattr(error, "line", None) else ""
    return f"{where}{redact(str(error.message))[:300]} ({error.code})"


# ------------------------------------------------------------------- failures


@contextmanager
def _translate_errors() -> Iterator[None]:
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
            return ProviderError("down", f"no connection: {plain_text(str(cause)) or plain(cause)}")
        if isinstance(error, openai.APITimeoutError):
            return ProviderError("slow", "no answer in time")
        return ProviderError("lost", f"the connection broke: {plain(cause or error)}")
    if home in ("litellm", "httpx", "httpx2", "aiohttp"):
        return told(error)
    return ProviderError("hopeless", f"{type(error).__name__}: {error}")


def passes(error: BaseException) -> bool:
    """Say whether trying again may help."""
    return isinstance(error, ProviderError) and error.kind in PASSING and error.status != 501


async def ask_again(what: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Ask a service that has answered before: a web page in place of its answer passes."""
    try:
        return await what(*args)
    except ProviderError as error:
        raise error.at(answered=True) from None


def _pause(state: RetryCallState) -> float:
    """Wait a random time that grows with the attempts, never less than the provider asked for."""
    error = state.outcome.exception() if state.outcome else None
    return JITTER(state) + (error.wait or 0.0 if isinstance(error, ProviderError) else 0.0)


def noticing(what: str, patience: float, instead: str = "") -> Callable[[RetryCallState], None]:
    """Return what says at the first retry that a service fails and how long it will be asked again,
    and logs the others.
    """

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


async def patiently(name: str, patience: float, what: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Ask a batch API; passing failures are tried again for `patience` seconds, others are raised
    as they are.
    """
    notice = noticing(
        f"{name}: the batch API",
        patience,
        " (Ctrl-C, then --resume without --batch, goes on without it)",
    )
    try:
        return await AsyncRetrying(
            stop=stop_after_delay(patience),
            wait=_pause,
            retry=retry_if_exception(passes),
            before_sleep=notice,
            reraise=True,
        )(what, *args)
    except ProviderError as error:
        if not passes(error):
            raise
        raise ModelError(
            f"{name}: the batch API has not worked for {patience / 60:.0f} minutes: {error}."
            " Nothing is lost: start it again when it is back (a run with --resume), or --resume"
            " without --batch."
        ) from None


def refused(identity: str, error: ProviderError) -> ModelError:
    """Return the ModelError that a batch API's refusal is, with what to do."""
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


def outcomes(data: bytes) -> Iterable[tuple[str, Outcome]]:
    """Yield key and outcome of every line of a batch's file that can be read."""
    from orjson import JSONDecodeError, loads

    for raw in data.split(b"\n"):
        try:
            row = loads(raw) if raw.strip() else None
        except JSONDecodeError:
            continue
        if isinstance(row, Mapping) and isinstance(row.get("custom_id"), str):
            yield row["custom_id"], _outcome(row)


def _outcome(row: Mapping[str, Any]) -> Outcome:
    response, error = row.get("response"), row.get("error")
    if (
        isinstance(response, Mapping)
        and (status := _status(response.get("status_code"))) is not None
    ):
        try:
            return decode_answer(status, response.get("body"), {})
        except ProviderError as error_of_line:
            return error_of_line
    code, said = "no code", error if isinstance(error, str) else None
    if isinstance(error, Mapping):
        code, said = str(error.get("code") or code), error.get("message")
    kind: Any = CODES.get(code, "busy")
    return ProviderError(
        kind, f"{str(said)[:500] if said else 'the batch gave no answer'} ({code})"
    )


def _status(value: Any) -> int | None:
    """Return an HTTP status, which some providers write as text."""
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else None


def unanswered(order: Order) -> ProviderError:
    """Return what befell a call that an ended batch's files say nothing of."""
    if order.status == "failed":
        listed = "; ".join(text for _, text in order.errors[:5]) or "no reason given"
        advice = ""
        if order.crowded:
            advice = (
                ". Wait for other batches of this account to end, or lower --concurrency for"
                " smaller waves"
            )
        return ProviderError(
            "hopeless", f"the provider refused batch {order.id} as a whole: {listed}{advice}"
        )
    if order.status == "cancelled":
        return ProviderError(
            "hopeless",
            f"batch {order.id} was cancelled, by somebody with access to the account (dashboard or"
            " API) or by the provider; --resume sends what it had not answered again",
        )
    if order.status == "expired":
        return ProviderError(
            "busy", f"batch {order.id} ran out of time before this request was answered"
        )
    return ProviderError(
        "garbled",
        f"batch {order.id} is completed, and neither of its files has a line for this request",
    )
