"""Sends each wave of independent calls through the provider's batch API, at half price."""

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
    Order,
    Outcome,
    ask_again,
    find,
    office,
    outcomes,
    patiently,
    refused,
    unanswered,
)
from culturepark.llm.codec import ProviderError
from culturepark.records import Request
from culturepark.store import RunStore

log = logging.getLogger("culturepark")
T = TypeVar("T")
LINGER, POLL = 2.0, 5.0  # seconds
SLOWER, SLOWEST = 1.5, 60.0  # how the interval between two looks at a batch grows, and to what
REQUESTS, BYTES = 50_000, 150_000_000  # of one wave; providers take 200 MB
ENDED = ("completed", "failed", "expired", "cancelled")
WAITING = (
    "validating",
    "queued",
    "pending",
    "created",
    "submitted",
)  # and not at work yet, by OpenAI's word or others'
WORKING = ("in_progress", "running", "processing", "finalizing", "cancelling")
PATIENCE, PENDING_PATIENCE = (
    600.0,
    3600.0,
)  # seconds that a batch API may fail: before a batch is made, and after
# times that a batch which finds no room in the account's queue is handed in, with none of ours in
# it
TRIES = 30
GONE = 3  # times in a row that a batch is not known any more before it is taken for lost


@dataclass
class Wave:
    """Calls that go together. `lines` are what is yet to be uploaded, `asked` who waits, `answers`
    what nobody asked for.
    """

    id: str
    keys: list[str] = field(default_factory=list)
    batch: str | None = None
    lines: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    asked: dict[str, list[asyncio.Future[Mapping[str, Any]]]] = field(default_factory=dict)
    answers: dict[str, Outcome] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def waiting(self, key: str) -> list[asyncio.Future[Mapping[str, Any]]]:
        """Return those who still wait for a call's answer."""
        return [f for f in self.asked.get(key, ()) if not f.done()]


class Batch:
    """A client that gathers the calls of another (`Compatible` or `Lite`) into waves; see `Client`
    in `line`.

    A wave is sent when no call has joined it for `linger` seconds, and looked at again after `poll`
    seconds, then ever more seldom. One that is pending when a run is stopped stays with the
    provider and in the journal; when the run goes on it is adopted: a call that is in it waits for
    it and is not sent again. An adopted wave is looked at once anybody asks for a call in it, and
    is done when all of its calls have been handed out or are answered in the journal. What nobody
    asks for is left alone, and is there whenever somebody does.
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
        self.journal: RunStore | None = None
        self._office = office(client)
        self._open: Wave | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waves: dict[
            str, Wave
        ] = {}  # by the keys of the calls that are in them and not handed out
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopting: asyncio.Task[None] | None = None
        self._handing: set[asyncio.Task[None]] = set()  # those that hand out what they brought
        self._running: dict[str, bool] = {}  # by wave: whether the provider is at work on it

    def check(self) -> None:
        """Raise what would make every call fail."""
        self.client.check()

    async def send(self, body: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
        """Wait for the wave that this call is in; return its answer's body, ProviderError when there is
        none.
        """
        if self._adopting is None:
            self._adopting = asyncio.get_running_loop().create_task(self._adopt())
        await asyncio.shield(self._adopting)
        key = request.key(self.identity)
        wave = self._waves.get(key)
        if wave is not None and key in wave.answers:
            return self._late(wave, key)
        if wave is None:
            wave = self._joined(key, body)
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        wave.asked.setdefault(key, []).append(future)
        if wave.task is None and wave is not self._open:
            self._start(wave)
        return await future

    async def close(self) -> None:
        """Let go of connections. Pending batches stay where they are."""
        await asyncio.sleep(0)
        await asyncio.gather(*self._handing, return_exceptions=True)  # about to be marked as done
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._adopting] if self._adopting else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key, wave in self._waves.items():
            for future in wave.waiting(key):
                future.cancel()
        self._waves.clear()
        self._open = self._timer = self._adopting = None
        await self._office.close()
        await self.client.close()

    # ------------------------------------------------------------- gathering

    def _joined(self, key: str, body: Mapping[str, Any]) -> Wave:
        """Put a call into the open wave, a new one if that is full; the wave's linger begins
        anew.
        """
        from orjson import dumps

        line = dumps({"custom_id": key, "method": "POST", "url": CHAT, "body": body}) + b"\n"
        if self._open and (
            len(self._open.lines) >= REQUESTS or self._open.size + len(line) > BYTES
        ):
            self._send_off()
        wave = self._open = self._open or Wave(uuid4().hex)
        wave.lines[key] = line
        wave.size += len(line)
        self._waves[key] = wave
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.linger, self._send_off)
        return wave

    def _send_off(self) -> None:
        """Close the open wave and send it, without what nobody waits for any more."""
        wave, self._open = self._open, None
        if wave is None:
            return
        for key in [k for k in wave.lines if not wave.waiting(k)]:
            del wave.lines[key], self._waves[key]
        wave.keys = list(wave.lines)
        if wave.keys:
            self._start(wave)

    def _start(self, wave: Wave) -> None:
        wave.task = asyncio.get_running_loop().create_task(self._through(wave))
        self._tasks.add(wave.task)
        wave.task.add_done_callback(self._tasks.discard)
        wave.task.add_done_callback(self._handing.discard)

    async def _adopt(self) -> None:
        """Take over the waves that an earlier process of this run left behind."""
        for name, batch, _, keys in self.journal.waves(self.identity) if self.journal else ():
            wave = Wave(name, keys, batch)
            if (
                batch is None
            ):  # it was killed between making the batch and writing its id down, or before
                try:
                    found = await self._try(PATIENCE, find, self.identity, self._office, name)
                except ProviderError as error:
                    raise refused(self.identity, error) from None
                if found is None:
                    self._note(wave, "done")
                    continue
                wave.batch = found.id
                self._note(wave, "pending")
            left = [k for k in keys if self.journal and self.journal.find_answer(k) is None]
            if not left:
                self._note(wave, "done")
            self._waves.update(dict.fromkeys(left, wave))
            log.info(
                "batch %s of an earlier process is taken over: %d of its %d calls are not"
                " answered yet",
                wave.batch,
                len(left),
                len(keys),
                extra={"event": "batch_adopted", "wave": name, "batch": wave.batch},
            )

    # --------------------------------------------------------------- sending

    async def _through(self, wave: Wave) -> None:
        """Take a wave to its end; whatever goes wrong reaches everybody who waits for it."""
        try:
            fresh = wave.batch is None
            if fresh:
                await self._placed(wave)
            order = await self._ended(wave, self.poll if fresh else 0.0)
            found, rest = await self._read(wave, order)
            if wave.task is not None:
                self._handing.add(wave.task)
            await self._hand_out(wave, found, rest)
        except ProviderError as error:
            self._fail(wave, refused(self.identity, error))
        except Exception as error:
            self._fail(wave, error)
        finally:
            self._running.pop(wave.id, None)

    async def _placed(self, wave: Wave) -> None:
        """Upload a wave and make a batch of it."""
        self._note(wave, "sending")  # with the calls in it, before anything of them is outside
        data = b"".join(wave.lines.values())
        file = await self._try(PATIENCE, self._office.upload, f"culturepark-{wave.id}.jsonl", data)
        wave.lines.clear()
        await self._ordered(wave, file)
        log.info(
            "batch %s: %d requests, %d bytes",
            wave.batch,
            len(wave.keys),
            len(data),
            extra={
                "event": "batch_sent",
                "wave": wave.id,
                "batch": wave.batch,
                "requests": len(wave.keys),
            },
        )

    async def _ordered(self, wave: Wave, file: str) -> None:
        """Make a batch. Before a second attempt it is looked for: the first may have made it and
        lost the answer.
        """
        attempts, wave.batch = 0, None
        self._note(wave, "sending")

        async def create() -> Order:
            nonlocal attempts
            attempts += 1
            found = await find(self.identity, self._office, wave.id) if attempts > 1 else None
            return found or await self._office.create(file, wave.id)

        wave.batch = (await self._try(PATIENCE, create)).id
        self._note(wave, "pending")

    async def _ended(self, wave: Wave, pause: float) -> Order | None:
        """Look at a batch until it has ended; None where the provider does not know it any more."""
        missing = crowded = 0
        status, since, loop = "", 0.0, asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            pause = min(max(self.poll, pause * SLOWER), SLOWEST)
            try:
                order: Order = await self._try(
                    PENDING_PATIENCE, ask_again, self._office.look, wave.batch
                )
            except ProviderError as error:
                missing += 1
                if error.status != 404:
                    raise
                if missing < GONE:
                    continue
                return None
            missing = 0
            self._running[wave.id] = order.status in WORKING
            if order.status != status:
                status, since = order.status, loop.time()
                self._tell(wave, order, pause)
            elif (
                status not in (*WAITING, *WORKING, *ENDED)
                and loop.time() - since > PENDING_PATIENCE
            ):
                raise ModelError(
                    f"{self.identity}: batch {order.id} has been {status!r} for"
                    f" {PENDING_PATIENCE / 60:.0f} minutes, a status that CulturePark does not"
                    " know; see there how it stands. --resume waits for it again, and --resume"
                    " without --batch goes on without it."
                )
            if order.crowded:
                crowded = 0 if any(self._running.values()) else crowded + 1
                if crowded < TRIES:
                    log.info(
                        "batch %s found no room in the provider's queue and is handed in again",
                        order.id,
                        extra={"event": "batch_crowded", "wave": wave.id, "batch": order.id},
                    )
                    await asyncio.sleep(pause)
                    await self._ordered(wave, order.input)
                    continue
            if order.status in ENDED:
                log.info(
                    "batch %s is %s: %s",
                    order.id,
                    order.status,
                    order.counts or "no counts",
                    extra={
                        "event": "batch_done",
                        "wave": wave.id,
                        "batch": order.id,
                        "status": order.status,
                    },
                )
                return order

    def _tell(self, wave: Wave, order: Order, pause: float) -> None:
        """Say where a batch stands, at the first look and whenever that changes."""
        if order.status in ENDED:
            return
        known = "" if order.status in (*WAITING, *WORKING) else ", which CulturePark does not know"
        log.info(
            "batch %s is %r%s (%s); it is looked at again in %.0f s, then at least once a minute",
            order.id,
            order.status,
            known,
            order.counts or "no counts",
            pause,
            extra={"event": "batch_status", "wave": wave.id, "batch": order.id, "progress": True},
        )

    # ------------------------------------------------------------ handing out

    async def _read(
        self, wave: Wave, order: Order | None
    ) -> tuple[dict[str, Outcome], Callable[[], ProviderError]]:
        """Return what a batch brought by key, and what befell every call that it says nothing
        of.
        """
        gone = partial(
            ProviderError,
            "busy",
            f"batch {wave.batch} or its results are not at the provider any more",
        )
        if order is None:
            return {}, gone
        found: dict[str, Outcome] = {}
        for file in order.files:
            try:
                data = await self._try(PENDING_PATIENCE, ask_again, self._office.read, file)
            except ProviderError as error:
                if error.status != 404:
                    raise
                return found, gone
            found.update(outcomes(data))
        return found, partial(unanswered, order)

    async def _hand_out(
        self, wave: Wave, found: Mapping[str, Outcome], rest: Callable[[], ProviderError]
    ) -> None:
        """Give everybody what they wait for: answers first, so that they are written down before a
        failure stops the run.
        """
        mine = {k: found.get(k) or rest() for k in wave.keys if self._waves.get(k) is wave}
        for failed in (False, True):
            for key, outcome in mine.items():
                if isinstance(outcome, ProviderError) is failed:
                    self._give(wave, key, outcome)
            for _ in range(
                3
            ):  # the loop goes round: those who were answered write it into the journal
                await asyncio.sleep(0)
        if not wave.answers:
            self._note(wave, "done")

    def _give(self, wave: Wave, key: str, outcome: Outcome) -> None:
        waiting = wave.waiting(key)
        if not waiting:
            wave.answers[key] = outcome
            return
        del self._waves[key], wave.asked[key]  # sent again, it goes into another wave
        for future in waiting:
            if isinstance(outcome, ProviderError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _late(self, wave: Wave, key: str) -> Mapping[str, Any]:
        """Return what an ended wave holds for a call that was asked for only now."""
        outcome = wave.answers.pop(key)
        del self._waves[key]
        if not wave.answers:
            asyncio.get_running_loop().call_soon(
                self._done, wave
            )  # after the caller has written it down
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    def _fail(self, wave: Wave, error: Exception) -> None:
        """Tell everybody who waits for a wave, or will ask for it, that it is not to be had."""
        log.warning(
            "batch %s: %s",
            wave.batch,
            error,
            extra={"event": "batch_failed", "wave": wave.id, "batch": wave.batch},
        )
        for key in wave.keys:
            if self._waves.get(key) is wave:
                del self._waves[key]
            for future in wave.waiting(key):
                future.set_exception(error)

    def _note(self, wave: Wave, status: str) -> None:
        if self.journal is not None:
            self.journal.set_wave(wave.id, self.identity, wave.batch, status, wave.keys)

    def _done(self, wave: Wave) -> None:
        with suppress(JournalError):  # a failed write stops the run by way of the journal
            self._note(wave, "done")

    async def _try(self, patience: float, what: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await patiently(self.identity, patience, what, *args)
