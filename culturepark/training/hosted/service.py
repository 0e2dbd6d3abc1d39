"""A fine-tuning service: its files and jobs through the openai SDK, with retries."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from culturepark.errors import InputError, ModelError, RunFailed
from culturepark.keys import redact
from culturepark.llm import load
from culturepark.llm.batch_backends import (
    build_retry_logger,
    is_passing,
    retry_web_pages,
    translate_errors,
)
from culturepark.llm.client import EndpointClient
from culturepark.llm.codec import ProviderError, check_page
from culturepark.llm.providers.compatible import Compatible
from culturepark.providers import PROVIDERS
from culturepark.settings import build_endpoint

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("culturepark")
T = TypeVar("T")
TAG = "culturepark"  # key of a job's metadata: the hash of its settings and the attempt
ENDED = ("succeeded", "failed", "cancelled")
ABSENT = (404, 405, 501)  # statuses of an address without a fine-tuning service
PAGE, SEARCHED = 100, 20  # entries of a listing's page, and pages that are searched
SLACK = 300  # seconds by which the service's clock may differ from ours
WORKING = ("pending", "running")  # statuses of a file that is not ready
WORKS = 2.0  # seconds between two requests for such a status
PATIENCE, LONG = 600.0, 3600.0  # seconds of failures before a job exists, and afterwards
JITTER = wait_random_exponential(multiplier=0.5, max=60)


@dataclass(frozen=True)
class JobRequest:
    """Everything that a job is created from. `key` is the hash of data and settings; `since` is
    when the job was first requested (Unix seconds).
    """

    key: str
    attempt: int
    model: str
    training: str
    validation: str | None
    method: str
    hyperparameters: Mapping[str, float]
    suffix: str
    seed: int | None
    since: int


@dataclass(frozen=True)
class HostedJob:
    """The state of a job. `key` and `attempt` are those of its request; `error` says in the
    service's words why it failed; times are Unix seconds, 0 if unknown.
    """

    id: str
    status: str
    key: str = ""
    attempt: int = 0
    model: str = ""
    error: str = ""
    tokens: int | None = None
    results: tuple[str, ...] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, str] = ("", "")
    created_at: int = 0
    finished_at: int = 0


@dataclass(frozen=True)
class Event:
    """An event of a job, in the service's words."""

    id: str
    text: str


def load_client(
    model: str, base_url: str | None = None, key: str | None = None
) -> tuple[Compatible, str]:
    """Return the client of PROVIDER/NAME, and the name.

    Raises InputError for a provider that does not speak OpenAI's protocol.
    """
    line = load(model, build_endpoint(base_url=base_url), key=key)
    if not isinstance(line, EndpointClient) or not isinstance(line.client, Compatible):
        raise InputError(
            f"{model!r} cannot be tuned at a service: write PROVIDER/NAME, with a provider that"
            f" speaks OpenAI's protocol ({', '.join(PROVIDERS)}) and --base-url where it is not at"
            " its own address"
        )
    return line.client, line.model


class Service:
    """One account at one address. Temporary failures are retried; before a file or job is created
    again, it is searched for.
    """

    def __init__(self, model: str, base_url: str | None = None, key: str | None = None) -> None:
        self.client, self.base = load_client(model, base_url, key)
        self._sdk: AsyncOpenAI = self.client.build_sdk_client()

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    # -------------------------------------------------------------- making

    async def upload_file(self, name: str, data: bytes) -> str:
        """Return the id of the file with this name (which holds its hash) and size, uploaded if
        necessary.
        """

        async def find_or_upload() -> str:
            try:
                file_id = await self._find_file(name, len(data))
            except ProviderError as error:
                if is_passing(error) or error.status in (401, 403):
                    raise
                log.warning(
                    "%s does not list its files: %s",
                    self.client.identity,
                    error,
                    extra={"event": "unlisted"},
                )
                file_id = None
            return file_id or _parse_id(
                await self._sdk.files.create(file=(name, data), purpose="fine-tune")
            )

        try:
            file = await self._retry(find_or_upload)
        except ProviderError as error:
            if error.status in ABSENT:
                raise ModelError(
                    f"{self.client.identity}: no fine-tuning service at this address ({error})"
                ) from None
            raise RunFailed(f"the service refused the file {name}: {error}") from None
        with suppress(
            ProviderError
        ):  # a service that does not show its files takes them as they are
            await self._wait_until_ready(file)
        return file

    async def _find_file(self, name: str, size: int) -> str | None:
        after: dict[str, Any] = {}
        for _ in range(SEARCHED):
            page = await _call(partial(self._list_files, after))
            for file in page.data:
                if file.filename == name and file.bytes == size and file.status != "error":
                    return str(file.id)
            if not page.has_next_page():
                return None
            after = {"after": page.data[-1].id}
        return None

    async def _list_files(self, after: Mapping[str, Any]) -> Any:
        return await self._sdk.files.list(purpose="fine-tune", limit=PAGE, **after)

    async def _list_jobs(self, after: Mapping[str, Any]) -> Any:
        return await self._sdk.fine_tuning.jobs.list(limit=PAGE, **after)

    async def _wait_until_ready(self, file: str) -> None:
        """Wait until the service has processed a file."""
        for _ in range(int(PATIENCE / WORKS)):
            status = await self._retry(lambda: self._sdk.files.retrieve(file))
            if str(status.status) not in WORKING:
                return
            await asyncio.sleep(WORKS)

    async def start_job(self, order: JobRequest, *, sure: bool) -> HostedJob:
        """Start a job, and return it. Before each attempt but a `sure` first one, the service's
        jobs are searched for it.
        """
        searched = not sure

        async def find_or_start() -> HostedJob:
            nonlocal searched
            if searched and (existing := await self._find_started(order)):
                return existing
            searched = True
            return _parse_job(await self._sdk.fine_tuning.jobs.create(**_build_request(order)))

        try:
            return await self._retry(find_or_start)
        except ProviderError as error:
            raise RunFailed(f"the service would not start the job: {error}") from None

    async def _find_started(self, order: JobRequest) -> HostedJob | None:
        """Return the job of a request, if it exists; raises ModelError if the service does not list
        its jobs.
        """
        try:
            return await self._search_jobs(lambda job: _matches(job, order))
        except ProviderError as error:
            if is_passing(error) or error.status in (401, 403):
                raise
            raise ModelError(
                f"{self.client.identity}: whether a job was started cannot be told, for the service"
                f" does not list its jobs ({error}). Look there; to start another, remove its"
                " job.json."
            ) from None

    async def find_last_job(self, key: str) -> HostedJob | None:
        """Return the newest job with this key; None if there is none, or the service
        lists no jobs.
        """
        try:
            return await self._retry(lambda: self._search_jobs(lambda job: job.key == key))
        except ProviderError as error:
            log.warning(
                "%s does not list its jobs: %s",
                self.client.identity,
                error,
                extra={"event": "unlisted"},
            )
            return None

    async def _search_jobs(self, fits: Callable[[HostedJob], bool]) -> HostedJob | None:
        after: dict[str, Any] = {}
        for _ in range(SEARCHED):
            page = await _call(partial(self._list_jobs, after))
            match = next(filter(fits, map(_parse_job, page.data)), None)
            if match is not None or not page.has_next_page():
                return match
            after = {"after": page.data[-1].id}
        return None

    # ------------------------------------------------------------- looking

    async def get_job(self, name: str) -> HostedJob:
        """Return where a job stands; ProviderError with the status 404 where it is not known."""

        async def look() -> HostedJob:
            return _parse_job(await self._sdk.fine_tuning.jobs.retrieve(name))

        return await self._retry(look, LONG)

    async def list_events(self, job: str, last: str) -> list[Event]:
        """Return a job's events after the event `last`, the oldest first; none if the service does
        not list them.
        """
        newest: list[Any] = []
        while True:
            more = {"after": newest[-1].id} if newest else {}
            try:
                page = await self._retry(partial(self._list_event_page, job, more), LONG)
            except ProviderError:
                break
            seen_at = next(
                (i for i, event in enumerate(page.data) if event.id == last), len(page.data)
            )
            newest += page.data[:seen_at]
            if seen_at < len(page.data) or not seen_at or not page.has_next_page():
                break
        return [Event(str(e.id), redact(str(e.message))) for e in reversed(newest)]

    async def _list_event_page(self, job: str, more: Mapping[str, Any]) -> Any:
        return await self._sdk.fine_tuning.jobs.list_events(job, limit=PAGE, **more)

    async def cancel_job(self, job: str) -> HostedJob:
        """Stop a job that has not ended; raises RunFailed with the service's words if
        it refuses.
        """
        try:
            return _parse_job(await self._retry(lambda: self._sdk.fine_tuning.jobs.cancel(job)))
        except ProviderError as error:
            current = await self.get_job(job)
            if current.status in ENDED:  # by itself meanwhile, or through an earlier attempt
                return current
            raise RunFailed(f"the service did not cancel {job}: {error}") from None

    async def read_file(self, file: str) -> bytes:
        """Return a result file, which some services send as base64; raises ProviderError if there
        is none.
        """

        async def fetch() -> bytes:
            content: bytes = (await self._sdk.files.content(file)).content
            check_page(content)
            return content

        data = await self._retry(fetch, LONG)
        if not data.startswith(b"step"):
            try:
                return base64.b64decode(b"".join(data.split()), validate=True)
            except binascii.Error:
                return data
        return data

    async def _retry(self, what: Callable[[], Awaitable[T]], patience: float | None = None) -> T:
        """Return what `what` returns, retrying temporary failures for `patience` seconds.

        With a `patience` the service has answered before, and web pages are retried too.
        Raises ModelError for a refused key or when time is up, ProviderError for other failures.
        """
        wait = PATIENCE if patience is None else patience
        once = partial(_call if patience is None else partial(retry_web_pages, _call), what)
        try:
            return await AsyncRetrying(
                stop=stop_after_delay(wait),
                wait=_wait_seconds,
                retry=retry_if_exception(is_passing),
                reraise=True,
                before_sleep=build_retry_logger(
                    f"{self.client.identity}: the fine-tuning service", wait
                ),
            )(once)
        except ProviderError as error:
            if is_passing(error):
                raise ModelError(
                    f"{self.client.identity}: the fine-tuning service has not worked for"
                    f" {wait / 60:.0f} minutes: {error}. When it is back, run the same command"
                    " again to continue."
                ) from None
            if error.status in (401, 403):
                raise ModelError(
                    f"{self.client.identity}: the fine-tuning service refused the key: {error}"
                ) from None
            raise


async def _call(what: Callable[[], Awaitable[T]]) -> T:
    """Ask once; whatever a library raises becomes a ProviderError."""
    with translate_errors():
        return await what()


def _wait_seconds(state: RetryCallState) -> float:
    """Return random seconds that grow with the attempts, at least those the service asked for."""
    error = state.outcome.exception() if state.outcome else None
    return JITTER(state) + (error.wait or 0.0 if isinstance(error, ProviderError) else 0.0)


# -------------------------------------------------------------------- reading


def _build_request(order: JobRequest) -> dict[str, Any]:
    """Return the SDK's arguments for a new job."""
    request = {
        "model": order.model,
        "training_file": order.training,
        "method": {
            "type": order.method,
            order.method: {"hyperparameters": dict(order.hyperparameters)},
        },
        "suffix": order.suffix,
        "metadata": {TAG: f"{order.key}.{order.attempt}"},
    }
    more = {"validation_file": order.validation, "seed": order.seed}
    return request | {name: value for name, value in more.items() if value is not None}


def _matches(job: HostedJob, order: JobRequest) -> bool:
    """Return whether a job is that of a request: by its metadata or, if the service keeps none, by
    its files.
    """
    if job.key:
        return job.key == order.key and job.attempt >= order.attempt
    return (
        job.files == (order.training, order.validation or "")
        and job.created_at >= order.since - SLACK
    )


def _parse_id(answer: Any) -> str:
    check_page(answer)
    name = getattr(answer, "id", None)
    if not isinstance(name, str):
        raise ProviderError(
            "hopeless", f"it answers {str(answer)[:100]!r} where a file is asked for", status=404
        )
    return name


def _parse_job(answer: Any) -> HostedJob:
    """Return the job in the SDK's answer."""
    check_page(answer)
    if not isinstance(getattr(answer, "id", None), str) or not isinstance(
        getattr(answer, "status", None), str
    ):
        raise ProviderError(
            "hopeless", f"it answers {str(answer)[:100]!r} where a job is asked for", status=404
        )
    metadata = getattr(answer, "metadata", None)
    key, _, attempt = str(
        (metadata or {}).get(TAG, "") if isinstance(metadata, Mapping) else ""
    ).partition(".")
    error = getattr(answer, "error", None)
    why = f"{error.message} ({error.code})" if error and getattr(error, "message", None) else ""
    return HostedJob(
        answer.id,
        answer.status,
        key,
        int(attempt) if attempt.isdecimal() else 0,
        getattr(answer, "fine_tuned_model", None) or "",
        redact(why),
        getattr(answer, "trained_tokens", None),
        tuple(getattr(answer, "result_files", None) or ()),
        _parse_hyperparameters(answer),
        (
            getattr(answer, "training_file", None) or "",
            getattr(answer, "validation_file", None) or "",
        ),
        int(getattr(answer, "created_at", None) or 0),
        int(getattr(answer, "finished_at", None) or 0),
    )


def _parse_hyperparameters(answer: Any) -> dict[str, Any]:
    """Return a job's hyperparameters: its method's, else those of the older field."""
    method = getattr(answer, "method", None)
    how = getattr(method, str(getattr(method, "type", "")), None)
    values = getattr(how, "hyperparameters", None) or getattr(answer, "hyperparameters", None)
    as_dict: dict[str, Any] = values.model_dump(exclude_none=True) if values is not None else {}
    return as_dict
