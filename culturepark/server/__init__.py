"""A local server that speaks OpenAI's protocol, with the embedded engine or your own answers behind
it: the public test double.

Real HTTP on 127.0.0.1 for any OpenAI client: chat completions (streamed too), embeddings of hashed
words, models, files, batches and fine-tuning jobs; faults, latency, a rate limit and a key on
demand. Tokens are approximate, texts of the engine are templated, and nothing is trained: a tuned
model answers as its base does, and its losses and accuracies are made up.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from culturepark import workspace as cards
from culturepark.errors import InputError
from culturepark.executor.pool import loop_factory
from culturepark.llm.sockets import plain
from culturepark.server import faults as planting
from culturepark.server.batches import Shelf
from culturepark.server.bounds import Limits, Watch
from culturepark.server.desk import Answer, Desk
from culturepark.server.faults import KINDS
from culturepark.server.templated import Canned, canned
from culturepark.server.tunes import Tunes
from culturepark.server.wire import Wire
from culturepark.workspace import Workspace

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

__all__ = ["KINDS", "Answer", "Canned", "Limits", "Server", "canned"]

HOST = "127.0.0.1"  # nobody but this machine
BACKLOG = 16_384  # connections that may wait to be taken
GRACE = 0.2  # seconds that answers under way get when the server stops


class Server:
    """An OpenAI-compatible server on this machine.

    `answer` maps a request's number (from 1) and body to the text to say, a whole completion, or
    (status, headers, JSON body), or is awaited for one of these (or for a stream's chunks); None
    lets the embedded engine answer from the cards of `workspace`. `faults` maps kinds (KINDS) to
    shares of the requests, drawn by number and `seed`; the header `X-Fault: kind` forces one.
    `latency` is in seconds, `rpm` bounds the requests of any minute, `key` is asked of every
    caller, `batch_seconds` is what a batch takes and `tune_seconds` what a fine-tuning job does,
    `keep` fills `seen`. `chat_only` serves chat and text completions and models alone: nothing is
    made up. `limits` are what it takes at most; `tell` gets a sentence when one is reached
    (default: a warning in the log).

    >>> with Server(lambda number, body: "Hello.") as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        models: Sequence[str] = ("embedded",),
        faults: Mapping[str, float] | None = None,
        latency: float = 0.0,
        rpm: int | None = None,
        key: str | None = None,
        port: int = 0,
        seed: int = 0,
        workspace: Workspace | None = None,
        batch_seconds: float = 0.0,
        tune_seconds: float = 0.0,
        keep: bool = True,
        chat_only: bool = False,
        limits: Limits | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        if not models or isinstance(models, str):
            raise InputError(f"models: {models!r} is no list of at least one name")
        if min(latency, batch_seconds, tune_seconds) < 0:
            raise InputError(
                "latency, batch_seconds and tune_seconds are seconds, "
                f"not {latency}, {batch_seconds} and {tune_seconds}"
            )
        if rpm is not None and rpm < 1:
            raise InputError(f"rpm: {rpm} requests a minute; give at least 1, or None for no limit")
        if answer is None and workspace is None:
            workspace = cards.load()
        self._desk = Desk(
            answer,
            models,
            planting.Draws(planting.checked(faults or {}), seed),
            latency,
            rpm,
            workspace,
            chat_only,
        )
        self._key, self._port, self._keep = key, port, keep
        self._watch = Watch(limits or Limits(), self._desk.counts["limits"], tell)
        self._batch_seconds, self._tune_seconds = batch_seconds, tune_seconds
        self.url = ""
        self.seen: list[dict[str, Any]] = []
        self.counts = self._desk.counts
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Server:
        """Start in a thread and an event loop of its own; `url` is set on return. InputError where
        the port is taken.
        """
        if self._thread is not None:
            raise InputError(f"this server runs already, at {self.url}")
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._work, args=(ready,), name="culturepark-server", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self

    def stop(self) -> None:
        """Stop; answers under way get a moment, then their connections are closed."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None

    def wait(self) -> None:
        """Wait until the server is stopped or the process interrupted."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.5)

    async def serve(self) -> None:
        """Serve in the caller's loop until cancelled; `url` is set as soon as the port is open."""
        await self._hold(Future(), asyncio.Event())

    def _work(self, ready: Future[None]) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            try:
                runner.run(self._hold(ready, asyncio.Event()))
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

    async def _hold(self, ready: Future[None], stopping: asyncio.Event) -> None:
        """Open the port, serve until told to stop, and leave nothing behind."""
        from aiohttp.web import BaseRequest
        from aiohttp.web import Server as Protocol

        loop = asyncio.get_running_loop()
        watch = self._watch
        shelf = Shelf(self._desk, self._batch_seconds, watch)
        tunes = Tunes(self._desk, shelf, self._tune_seconds)
        wire = Wire(
            self._desk, shelf, tunes, self._key, self.seen.append if self._keep else None, watch
        )

        def request(
            message: Any, payload: Any, protocol: Any, writer: Any, task: Any
        ) -> BaseRequest:
            most = (
                watch.limits.file if message.path.startswith("/v1/files") else watch.limits.request
            )
            return BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=most)

        protocol = Protocol(
            wire.handle,
            request_factory=request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=2 * watch.limits.idle,
        )

        def connect() -> Any:
            connection = protocol()
            watch.wait_for(connection)
            return connection

        _many_files()
        try:
            listener = await loop.create_server(connect, HOST, self._port, backlog=BACKLOG)
        except OSError as error:
            raise InputError(
                f"cannot open port {self._port} on {HOST}: {plain(error)}; choose another with"
                " --port"
            ) from error
        self.url = f"http://{HOST}:{listener.sockets[0].getsockname()[1]}/v1"
        self._loop, self._stopping = loop, stopping
        idle = loop.create_task(watch.close_idle())
        ready.set_result(None)
        try:
            await stopping.wait()
        finally:
            listener.close()
            idle.cancel()
            await shelf.close()
            await tunes.close()
            await protocol.shutdown(GRACE)
            await listener.wait_closed()


def _many_files() -> None:
    """Let this process hold as many connections as the system allows it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
