"""A fine-tuning service: its files and jobs through the openai SDK, asked again for as long as a
failure may pass.
"""

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
from culturepark.secrets import redact
from culturepark.settings import build_endpoint

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("culturepark")
T = TypeVar("T")
TAG = "culturepark"  # of the metadata that names one of our jobs: its key and attempt
ENDED = ("succeeded", "failed", "cancelled")
ABSENT = (404, 405, 501)  # statuses of an address that is not there
PAGE, SEARCHED = 100, 20  # of a listing, and listings that are looked through
SLACK = 300  # seconds by which the service's clock may differ from ours
WORKING, WORKS = (
    ("pending", "running"),
    2.0,
)  # states of a file that is not ready, and seconds between two looks at it
PATIENCE, LONG = 600.0, 3600.0  # seconds that the service may fail: before a job is made, and after
JITTER = wait_random_exponential(multiplier=0.5, max=60)


@dataclass(frozen=True)
class Order:
    """All that a job is made of. `key` is the same for the same data and settings; `since` is when
    it was first asked for.
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
class Job:
    """Where a job stands. `key` and `attempt` are those of our order; `error` says in the service's
    words why it failed.
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
    created: int = 0
    finished: int = 0


@dataclass(frozen=True)
class Event:
    """What befell a job."""

    id: str
    text: str


def reach(
    model: str, base_url: str | None = None, key: str | None = None
) -> tuple[Compatible, str]:
    """Return the client of PROVIDER/NAME and the name; InputError for a provider that does not
    speak OpenAI's protocol.
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
    """One account at one address. A failure that may pass is waited out; what is made is looked for
    before it is made again.
    """

    def __init__(self, model: str, base_url: str | None = None, key: str | None = None) -> None:
        self.client, self.base = reach(model, base_url, key)
        self._sdk: AsyncOpenAI = self.client.sdk()

    async def close(self) -> None:
        """Let go of connections."""
        await self._sdk.close()

    # -------------------------------------------------------------- making

    async def upload(self, name: str, data: bytes) -> str:
        """Return the id of the file of this name and size, uploaded if it is not there. Names hold
        the content's hash.
        """

        async def placed() -> str:
            try:
                found = await self._file(name, len(data))
            except ProviderError as error:
                if is_passing(error) or error.status in (401, 403):
                    raise
                log.warning(
                    "%s does not list its files: %s",
                    self.client.identity,
                    error,
                    extra={"event": "unlisted"},
                )
                found = None
            return found or _id(
                await self._sdk.files.create(file=(name, data), purpose="fine-tune")
            )

        try:
            file = await self._ask(placed)
        except ProviderError as error:
            if error.status in ABSENT:
                raise ModelError(
                    f"{self.client.identity}: no fine-tuning service at this address ({error})"
                ) from None
            raise RunFailed(f"the service refused the file {name}: {error}") from None
        with suppress(
            ProviderError
        ):  # a service that does not show its files takes them as they are
            await self._ready(file)
        return file

    async def _file(self, name: str, size: int) -> str | None:
        after: dict[str, Any] = {}
        for _ in range(SEARCHED):
            page = await _troubled(partial(self._files, after))
            for file in page.data:
                if file.filename == name and file.bytes == size and file.status != "error":
                    return str(file.id)
            if not page.has_next_page():
                return None
            after = {"after": page.data[-1].id}
        return None

    async def _files(self, after: Mapping[str, Any]) -> Any:
        return await self._sdk.files.list(purpose="fine-tune", limit=PAGE, **after)

    async def _jobs(self, after: Mapping[str, Any]) -> Any:
        return await self._sdk.fine_tuning.jobs.list(limit=PAGE, **after)

    async def _ready(self, file: str) -> None:
        """Wait until a service that looks into files has done so."""
        for _ in range(int(PATIENCE / WORKS)):
            found = await self._ask(lambda: self._sdk.files.retrieve(file))
            if str(found.status) not in WORKING:
                return
            await asyncio.sleep(WORKS)

    async def start(self, order: Order, *, sure: bool) -> Job:
        """Start a job. Unless it is `sure` that none has been, and before each further try, it is
        looked for.
        """
        looked = not sure

        async def started() -> Job:
            nonlocal looked
            if looked and (found := await self._made(order)):
                return found
            looked = True
            return _job(await self._sdk.fine_tuning.jobs.create(**_asked(order)))

        try:
            return await self._ask(started)
        except ProviderError as error:
            raise RunFailed(f"the service would not start the job: {error}") from None

    async def _made(self, order: Order) -> Job | None:
        """Return the job of an order, if it has been made; ModelError where that cannot be told."""
        try:
            return await self._find(lambda job: _is(job, order))
        except ProviderError as error:
            if is_passing(error) or error.status in (401, 403):
                raise
            raise ModelError(
                f"{self.client.identity}: whether a job was started cannot be told, for the service"
                f" does not list its jobs ({error}). Look there; to start another, remove its"
                " job.json."
            ) from None

    async def last(self, key: str) -> Job | None:
        """Return the newest job of this key; None where there is none, or the service does not list
        its jobs.
        """
        try:
            return await self._ask(lambda: self._find(lambda job: job.key == key))
        except ProviderError as error:
            log.warning(
                "%s does not list its jobs: %s",
                self.client.identity,
                error,
                extra={"event": "unlisted"},
            )
            return None

    async def _find(self, fits: Callable[[Job], bool]) -> Job | None:
        after: dict[str, Any] = {}
        for _ in range(SEARCHED):
            page = await _troubled(partial(self._jobs, after))
            found = next(filter(fits, map(_job, page.data)), None)
            if found is not None or not page.has_next_page():
                return found
            after = {"after": page.data[-1].id}
        return None

    # ------------------------------------------------------------- looking

    async def job(self, name: str) -> Job:
        """Return where a job stands; ProviderError with the status 404 where it is not known."""

        async def look() -> Job:
            return _job(await self._sdk.fine_tuning.jobs.retrieve(name))

        return await self._ask(look, LONG)

    async def events(self, job: str, last: str) -> list[Event]:
        """Return what befell a job after the event `last`, the oldest first; nothing where the
        service does not tell.
        """
        found: list[Any] = []
        while True:
            more = {"after": found[-1].id} if found else {}
            try:
                page = await self._ask(partial(self._events, job, more), LONG)
            except ProviderError:
                break
            known = next(
                (i for i, event in enumerate(page.data) if event.id == last), len(page.data)
            )
            found += page.data[:known]
            if known < len(page.data) or not known or not page.has_next_page():
                break
        return [Event(str(e.id), redact(str(e.message))) for e in reversed(found)]

    async def _events(self, job: str, more: Mapping[str, Any]) -> Any:
        return await self._sdk.fine_tuning.jobs.list_events(job, limit=PAGE, **more)

    async def cancel(self, job: str) -> Job:
        """Ask a job to stop, if it has not ended; RunFailed with the service's words where it does
        not.
        """
        try:
            return _job(await self._ask(lambda: self._sdk.fine_tuning.jobs.cancel(job)))
        except ProviderError as error:
            found = await self.job(job)
            if found.status in ENDED:  # by itself meanwhile, or because an earlier try was heard
                return found
            raise RunFailed(f"the service did not cancel {job}: {error}") from None

    async def read(self, file: str) -> bytes:
        """Return a result file; some services send it as base64. ProviderError where there is none."""

        async def fetch() -> bytes:
            content: bytes = (await self._sdk.files.content(file)).content
            check_page(content)
            return content

        data = await self._ask(fetch, LONG)
        if not data.startswith(b"step"):
            try:
                return base64.b64decode(b"".join(data.split()), validate=True)
            except binascii.Error:
                return data
        return data

    async def _ask(self, what: Callable[[], Awaitable[T]], patience: float | None = None) -> T:
        """Ask; passing failures are tried again for a while, the others are ProviderErrors, or ModelError
        for a key that will not do.

        With a `patience` the service is one that has answered before.
        """
        wait = PATIENCE if patience is None else patience
        once = partial(_troubled if patience is None else partial(retry_web_pages, _troubled), what)
        try:
            return await AsyncRetrying(
                stop=stop_after_delay(wait),
                wait=_pause,
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
                    f" {wait / 60:.0f} minutes: {error}. Nothing is lost: the same command goes on"
                    " when it is back."
                ) from None
            if error.status in (401, 403):
                raise ModelError(
                    f"{self.client.identity}: the fine-tuning service refused the key: {error}"
                ) from None
            raise


async def _troubled(what: Callable[[], Awaitable[T]]) -> T:
    """Ask once; whatever a library raises becomes a ProviderError."""
    with translate_errors():
        return await what()


def _pause(state: RetryCallState) -> float:
    """Wait a random time that grows with the attempts, never less than the service asked for."""
    error = state.outcome.exception() if state.outcome else None
    return JITTER(state) + (error.wait or 0.0 if isinstance(error, ProviderError) else 0.0)


# -------------------------------------------------------------------- reading


def _asked(order: Order) -> dict[str, Any]:
    """Return what the SDK is told of a job."""
    asked = {
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
    return asked | {name: value for name, value in more.items() if value is not None}


def _is(job: Job, order: Order) -> bool:
    """Say whether a job is that of an order: by what we wrote on it, else, where the service keeps
    no such notes, by its files.
    """
    if job.key:
        return job.key == order.key and job.attempt >= order.attempt
    return (
        job.files == (order.training, order.validation or "") and job.created >= order.since - SLACK
    )


def _id(made: Any) -> str:
    check_page(made)
    found = getattr(made, "id", None)
    if not isinstance(found, str):
        raise ProviderError(
            "hopeless", f"it answers {str(made)[:100]!r} where a file is asked for", status=404
        )
    return found


def _job(made: Any) -> Job:
    """Read the SDK's job."""
    check_page(made)
    if not isinstance(getattr(made, "id", None), str) or not isinstance(
        getattr(made, "status", None), str
    ):
        raise ProviderError(
            "hopeless", f"it answers {str(made)[:100]!r} where a job is asked for", status=404
        )
    metadata = getattr(made, "metadata", None)
    key, _, attempt = str(
        (metadata or {}).get(TAG, "") if isinstance(metadata, Mapping) else ""
    ).partition(".")
    error = getattr(made, "error", None)
    why = f"{error.message} ({error.code})" if error and getattr(error, "message", None) else ""
    return Job(
        made.id,
        made.status,
        key,
        int(attempt) if attempt.isdecimal() else 0,
        getattr(made, "fine_tuned_model", None) or "",
        redact(why),
        getattr(made, "trained_tokens", None),
        tuple(getattr(made, "result_files", None) or ()),
        _hyperparameters(made),
        (getattr(made, "training_file", None) or "", getattr(made, "validation_file", None) or ""),
        int(getattr(made, "created_at", None) or 0),
        int(getattr(made, "finished_at", None) or 0),
    )


def _hyperparameters(made: Any) -> dict[str, Any]:
    """Return what a job was run with: its method's, else the older field's."""
    method = getattr(made, "method", None)
    how = getattr(method, str(getattr(method, "type", "")), None)
    found = getattr(how, "hyperparameters", None) or getattr(made, "hyperparameters", None)
    told: dict[str, Any] = found.model_dump(exclude_none=True) if found is not None else {}
    return told
