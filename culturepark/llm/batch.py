"""Sends independent calls in batches through the provider's batch API, at half price."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from culturepark.errors import JournalError, ModelError
from culturepark.llm.batch_backends import (
    CHAT,
    BatchStatus,
    CallOutcome,
    build_backend,
    build_model_error,
    call_with_retries,
    explain_missing_answer,
    find_batch,
    parse_results,
    retry_web_pages,
)
from culturepark.llm.codec import ProviderError
from culturepark.records import Request
from culturepark.store import RunStore

log = logging.getLogger("culturepark")
T = TypeVar("T")
LINGER, POLL = 2.0, 5.0  # seconds
SLOWER, SLOWEST = 1.5, 60.0  # how the interval between two looks at a batch grows, and to what
REQUESTS, BYTES = 50_000, 150_000_000  # of one batch; providers take 200 MB
ENDED = ("completed", "failed", "expired", "cancelled")
# The provider has not begun yet, by OpenAI's word or others'.
WAITING = ("validating", "queued", "pending", "created", "submitted")
WORKING = ("in_progress", "running", "processing", "finalizing", "cancelling")
# Seconds that a batch API may fail: before a batch is created, and after.
PATIENCE, PENDING_PATIENCE = 600.0, 3600.0
TRIES = 30  # submissions of a batch for which a queue that holds none of ours has no room
GONE = 3  # 404s in a row after which a batch is taken for lost


@dataclass
class Batch:
    """Calls that are sent together.

    `id` is ours, `remote_id` the provider's. `lines` are yet to be uploaded, `waiters` wait for a
    call's answer, `unclaimed` are answers that nobody has asked for yet.
    """

    id: str
    keys: list[str] = field(default_factory=list)
    remote_id: str | None = None
    lines: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    waiters: dict[str, list[asyncio.Future[Mapping[str, Any]]]] = field(default_factory=dict)
    unclaimed: dict[str, CallOutcome] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def open_waiters(self, key: str) -> list[asyncio.Future[Mapping[str, Any]]]:
        """Return the futures that still wait for a call's answer."""
        return [f for f in self.waiters.get(key, ()) if not f.done()]


class BatchClient:
    """A client that gathers the calls of another (`Compatible` or `Lite`) into batches; see
    `culturepark.llm.client.Client`.

    A batch is sent when no call has joined it for `linger` seconds. Its status is polled after
    `poll` seconds, then at growing intervals. A batch that is pending when a run stops stays with
    the provider and in the journal; the resumed run adopts it: a call in it waits for it and is not
    sent again. An adopted batch is polled once a call in it is asked for, and is done when each of
    its calls has been handed out or is answered in the journal. Answers that nobody asks for stay.
    """

    limited, discount = False, 0.5

    def __init__(
        self, client: Any, *, linger: float | None = None, poll: float | None = None
    ) -> None:
        self.client, self.identity = client, client.identity
        self.linger, self.poll = (
            LINGER if linger is None else linger,
            POLL if poll is None else poll,
        )
        self.store: RunStore | None = None
        self._backend = build_backend(client)
        self._open: Batch | None = None
        self._timer: asyncio.TimerHandle | None = None
        # By the keys of the calls that are in them and not handed out.
        self._batches: dict[str, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopting: asyncio.Task[None] | None = None
        self._handing_out: set[asyncio.Task[None]] = set()  # those that hand out answers
        self._running: dict[str, bool] = {}  # by our id: whether the provider is working

    def check(self) -> None:
        """Raise what would make every call fail."""
        self.client.check()

    async def send(self, body: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
        """Wait for the batch that this call is in and return the answer's body.

        ProviderError if there is none.
        """
        if self._adopting is None:
            self._adopting = asyncio.get_running_loop().create_task(self._adopt())
        await asyncio.shield(self._adopting)
        key = request.key(self.identity)
        batch = self._batches.get(key)
        if batch is not None and key in batch.unclaimed:
            return self._claim(batch, key)
        if batch is None:
            batch = self._join(key, body)
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        batch.waiters.setdefault(key, []).append(future)
        if batch.task is None and batch is not self._open:
            self._start(batch)
        return await future

    async def close(self) -> None:
        """Let go of connections. Pending batches stay where they are."""
        await asyncio.sleep(0)
        await asyncio.gather(
            *self._handing_out, return_exceptions=True
        )  # about to be marked as done
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._adopting] if self._adopting else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key, batch in self._batches.items():
            for future in batch.open_waiters(key):
                future.cancel()
        self._batches.clear()
        self._open = self._timer = self._adopting = None
        await self._backend.close()
        await self.client.close()

    # ------------------------------------------------------------- gathering

    def _join(self, key: str, body: Mapping[str, Any]) -> Batch:
        """Put a call into the open batch, or a new one if that is full, and restart its timer."""
        from orjson import dumps

        line = dumps({"custom_id": key, "method": "POST", "url": CHAT, "body": body}) + b"\n"
        if self._open and (
            len(self._open.lines) >= REQUESTS or self._open.size + len(line) > BYTES
        ):
            self._send_off()
        batch = self._open = self._open or Batch(uuid4().hex)
        batch.lines[key] = line
        batch.size += len(line)
        self._batches[key] = batch
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.linger, self._send_off)
        return batch

    def _send_off(self) -> None:
        """Close the open batch and send it without the calls that nobody waits for any more."""
        batch, self._open = self._open, None
        if batch is None:
            return
        for key in [k for k in batch.lines if not batch.open_waiters(k)]:
            del batch.lines[key], self._batches[key]
        batch.keys = list(batch.lines)
        if batch.keys:
            self._start(batch)

    def _start(self, batch: Batch) -> None:
        batch.task = asyncio.get_running_loop().create_task(self._run(batch))
        self._tasks.add(batch.task)
        batch.task.add_done_callback(self._tasks.discard)
        batch.task.add_done_callback(self._handing_out.discard)

    async def _adopt(self) -> None:
        """Take over the batches that an earlier process of this run left pending."""
        for name, remote_id, _, keys in (
            self.store.read_batches(self.identity) if self.store else ()
        ):
            batch = Batch(name, keys, remote_id)
            if (
                remote_id is None
            ):  # it was killed between making the batch and writing its id down, or before
                try:
                    status = await self._try(
                        PATIENCE, find_batch, self.identity, self._backend, name
                    )
                except ProviderError as error:
                    raise build_model_error(self.identity, error) from None
                if status is None:
                    self._write_status(batch, "done")
                    continue
                batch.remote_id = status.id
                self._write_status(batch, "pending")
            left = [k for k in keys if self.store and self.store.find_answer(k) is None]
            if not left:
                self._write_status(batch, "done")
            self._batches.update(dict.fromkeys(left, batch))
            log.info(
                "batch %s of an earlier process is taken over: %d of its %d calls are not"
                " answered yet",
                batch.remote_id,
                len(left),
                len(keys),
                extra={"event": "batch_adopted", "wave": name, "batch": batch.remote_id},
            )

    # --------------------------------------------------------------- sending

    async def _run(self, batch: Batch) -> None:
        """Submit a batch if needed, await its end and hand out its results or its error."""
        try:
            fresh = batch.remote_id is None
            if fresh:
                await self._submit(batch)
            status = await self._await_end(batch, self.poll if fresh else 0.0)
            outcomes_by_key, rest = await self._read_results(batch, status)
            if batch.task is not None:
                self._handing_out.add(batch.task)
            await self._hand_out(batch, outcomes_by_key, rest)
        except ProviderError as error:
            self._fail(batch, build_model_error(self.identity, error))
        except Exception as error:
            self._fail(batch, error)
        finally:
            self._running.pop(batch.id, None)

    async def _submit(self, batch: Batch) -> None:
        """Upload a batch's calls and create it at the provider."""
        self._write_status(
            batch, "sending"
        )  # with the calls in it, before anything of them is outside
        data = b"".join(batch.lines.values())
        file = await self._try(
            PATIENCE, self._backend.upload, f"culturepark-{batch.id}.jsonl", data
        )
        batch.lines.clear()
        await self._create(batch, file)
        log.info(
            "batch %s: %d requests, %d bytes",
            batch.remote_id,
            len(batch.keys),
            len(data),
            extra={
                "event": "batch_sent",
                "wave": batch.id,
                "batch": batch.remote_id,
                "requests": len(batch.keys),
            },
        )

    async def _create(self, batch: Batch, file: str) -> None:
        """Create a batch. A second attempt searches for it first: the first attempt may have
        created it and lost the answer.
        """
        attempts, batch.remote_id = 0, None
        self._write_status(batch, "sending")

        async def create() -> BatchStatus:
            nonlocal attempts
            attempts += 1
            existing = (
                await find_batch(self.identity, self._backend, batch.id) if attempts > 1 else None
            )
            return existing or await self._backend.create(file, batch.id)

        batch.remote_id = (await self._try(PATIENCE, create)).id
        self._write_status(batch, "pending")

    async def _await_end(self, batch: Batch, pause: float) -> BatchStatus | None:
        """Poll a batch until it has ended; None if the provider does not know it any more."""
        missing = crowded = 0
        last, since, loop = "", 0.0, asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            pause = min(max(self.poll, pause * SLOWER), SLOWEST)
            try:
                status: BatchStatus = await self._try(
                    PENDING_PATIENCE, retry_web_pages, self._backend.look, batch.remote_id
                )
            except ProviderError as error:
                missing += 1
                if error.status != 404:
                    raise
                if missing < GONE:
                    continue
                return None
            missing = 0
            self._running[batch.id] = status.status in WORKING
            if status.status != last:
                last, since = status.status, loop.time()
                self._log_status(batch, status, pause)
            elif (
                last not in (*WAITING, *WORKING, *ENDED) and loop.time() - since > PENDING_PATIENCE
            ):
                raise ModelError(
                    f"{self.identity}: batch {status.id} has been {last!r} for"
                    f" {PENDING_PATIENCE / 60:.0f} minutes, a status that CulturePark does not"
                    " know; see there how it stands. --resume waits for it again, and --resume"
                    " without --batch goes on without it."
                )
            if status.no_room:
                crowded = 0 if any(self._running.values()) else crowded + 1
                if crowded < TRIES:
                    log.info(
                        "batch %s found no room in the provider's queue and is handed in again",
                        status.id,
                        extra={"event": "batch_crowded", "wave": batch.id, "batch": status.id},
                    )
                    await asyncio.sleep(pause)
                    await self._create(batch, status.input)
                    continue
            if status.status in ENDED:
                log.info(
                    "batch %s is %s: %s",
                    status.id,
                    status.status,
                    status.counts or "no counts",
                    extra={
                        "event": "batch_done",
                        "wave": batch.id,
                        "batch": status.id,
                        "status": status.status,
                    },
                )
                return status

    def _log_status(self, batch: Batch, status: BatchStatus, pause: float) -> None:
        """Log a batch's status at the first poll and whenever it changes."""
        if status.status in ENDED:
            return
        known = "" if status.status in (*WAITING, *WORKING) else ", which CulturePark does not know"
        log.info(
            "batch %s is %r%s (%s); it is looked at again in %.0f s, then at least once a minute",
            status.id,
            status.status,
            known,
            status.counts or "no counts",
            pause,
            extra={"event": "batch_status", "wave": batch.id, "batch": status.id, "progress": True},
        )

    # ------------------------------------------------------------ handing out

    async def _read_results(
        self, batch: Batch, status: BatchStatus | None
    ) -> tuple[dict[str, CallOutcome], Callable[[], ProviderError]]:
        """Return a batch's outcomes by key, and what builds the error of a call without one."""
        gone = partial(
            ProviderError,
            "busy",
            f"batch {batch.remote_id} or its results are not at the provider any more",
        )
        if status is None:
            return {}, gone
        outcomes_by_key: dict[str, CallOutcome] = {}
        for file in status.files:
            try:
                data = await self._try(PENDING_PATIENCE, retry_web_pages, self._backend.read, file)
            except ProviderError as error:
                if error.status != 404:
                    raise
                return outcomes_by_key, gone
            outcomes_by_key.update(parse_results(data))
        return outcomes_by_key, partial(explain_missing_answer, status)

    async def _hand_out(
        self,
        batch: Batch,
        outcomes_by_key: Mapping[str, CallOutcome],
        rest: Callable[[], ProviderError],
    ) -> None:
        """Hand out the outcomes: answers first, so that they are written down before a failure
        stops the run.
        """
        mine = {
            k: outcomes_by_key.get(k) or rest() for k in batch.keys if self._batches.get(k) is batch
        }
        for failed in (False, True):
            for key, outcome in mine.items():
                if isinstance(outcome, ProviderError) is failed:
                    self._hand_over(batch, key, outcome)
            for _ in range(3):  # rounds of the loop in which the callers write their answers down
                await asyncio.sleep(0)
        if not batch.unclaimed:
            self._write_status(batch, "done")

    def _hand_over(self, batch: Batch, key: str, outcome: CallOutcome) -> None:
        waiting = batch.open_waiters(key)
        if not waiting:
            batch.unclaimed[key] = outcome
            return
        del self._batches[key], batch.waiters[key]  # sent again, it goes into another batch
        for future in waiting:
            if isinstance(outcome, ProviderError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _claim(self, batch: Batch, key: str) -> Mapping[str, Any]:
        """Return the outcome of a call that was asked for after its batch had ended."""
        outcome = batch.unclaimed.pop(key)
        del self._batches[key]
        if not batch.unclaimed:
            # After the caller has written it down.
            asyncio.get_running_loop().call_soon(self._write_done, batch)
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    def _fail(self, batch: Batch, error: Exception) -> None:
        """Raise an error in every caller that waits for a batch, and forget its calls."""
        log.warning(
            "batch %s: %s",
            batch.remote_id,
            error,
            extra={"event": "batch_failed", "wave": batch.id, "batch": batch.remote_id},
        )
        for key in batch.keys:
            if self._batches.get(key) is batch:
                del self._batches[key]
            for future in batch.open_waiters(key):
                future.set_exception(error)

    def _write_status(self, batch: Batch, status: str) -> None:
        if self.store is not None:
            self.store.set_batch(batch.id, self.identity, batch.remote_id, status, batch.keys)

    def _write_done(self, batch: Batch) -> None:
        with suppress(JournalError):  # a failed write stops the run by way of the journal
            self._write_status(batch, "done")

    async def _try(self, patience: float, what: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await call_with_retries(self.identity, patience, what, *args)
