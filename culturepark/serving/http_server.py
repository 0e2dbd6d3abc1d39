"""Serves OpenAI's protocol over HTTP: a port of this machine, who may ask, what a request may hold,
and how an answer is sent, whole or in chunks.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, contextmanager, suppress
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import orjson

from culturepark.errors import InputError
from culturepark.executor.pool import loop_factory
from culturepark.llm.sockets import explain_error
from culturepark.serving.limits import LimitMonitor, ServerLimits
from culturepark.serving.problems import Problem
from culturepark.serving.requests import unknown_model

if TYPE_CHECKING:
    from aiohttp.web import AbstractRouteDef, Application, Request, Response, StreamResponse

    Handler = Callable[[Request], Awaitable[StreamResponse]]

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HOST = "127.0.0.1"  # nobody but this machine
LOCAL = frozenset(["localhost", HOST, "::1"])
HOSTS = 64  # names of this machine that are remembered as such
BACKLOG = 16_384  # connections that may wait to be taken
GRACE = 0.2  # seconds that answers under way get when the server stops
JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
DONE = b"data: [DONE]\n\n"


class HttpServer:
    """A server on 127.0.0.1, in a thread of its own or in the caller's event loop.

    A subclass gives `models` (the names it answers to) and `routes`. `key` is asked of every
    caller, `limits` are what it takes at most; `tell` gets a sentence when one is reached (default:
    a warning in the log). `counts` is shown at /counts.
    """

    def __init__(
        self,
        *,
        key: str | None = None,
        port: int = 0,
        limits: ServerLimits | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._key, self._port, self.url = key, port, ""
        self.counts: dict[str, Any] = {
            "requests": 0,
            "answered": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "faults": {},
            "limits": {},
            "in_flight": 0,
            "peak_in_flight": 0,
        }
        self.monitor = LimitMonitor(limits or ServerLimits(), self.counts["limits"], tell)
        self._started, self._known_hosts = int(time()), set[str]()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def models(self) -> Sequence[str]:
        """The names it answers to."""
        raise NotImplementedError

    def routes(self) -> Sequence[AbstractRouteDef]:
        """Return the routes besides /v1/models and /counts."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop what works in the background."""

    # --------------------------------------------------------------- running

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start in a thread and an event loop of its own; `url` is set on return. InputError where
        the port is taken.
        """
        if self._thread is not None:
            raise InputError(f"this server runs already, at {self.url}")
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run_thread, args=(ready,), name="culturepark-server", daemon=True
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
        await self._serve_until(asyncio.Event(), Future())

    def _run_thread(self, ready: Future[None]) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            try:
                runner.run(self._serve_until(asyncio.Event(), ready))
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

    async def _serve_until(self, stopping: asyncio.Event, ready: Future[None]) -> None:
        """Open the port, serve until told to stop, and leave nothing behind."""
        from aiohttp.web import AppRunner

        loop, idle = asyncio.get_running_loop(), self.monitor.limits.idle
        runner = AppRunner(
            self._build_app(),
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=2 * idle,
            shutdown_timeout=GRACE,
        )
        await runner.setup()

        def connect() -> Any:
            assert runner.server is not None
            connection = runner.server()
            self.monitor.start_waiting(connection)
            return connection

        _allow_many_files()
        try:
            listener = await loop.create_server(connect, HOST, self._port, backlog=BACKLOG)
        except OSError as error:
            await runner.cleanup()
            raise InputError(
                f"cannot open port {self._port} on {HOST}: {explain_error(error)}; choose another"
                " with --port"
            ) from error
        self.url = f"http://{HOST}:{listener.sockets[0].getsockname()[1]}/v1"
        self._loop, self._stopping = loop, stopping
        watching = loop.create_task(self.monitor.close_idle_connections())
        ready.set_result(None)
        try:
            await stopping.wait()
        finally:
            listener.close()
            watching.cancel()
            await self.close()
            await runner.cleanup()
            await listener.wait_closed()

    def _build_app(self) -> Application:
        from aiohttp import web

        @web.middleware
        async def guard(request: Request, handler: Handler) -> StreamResponse:
            self.monitor.stop_waiting(request.protocol)
            try:
                return await self._guard(request, handler)
            finally:
                self.monitor.start_waiting(request.protocol)

        app = web.Application(middlewares=[guard], client_max_size=self.monitor.limits.request)
        app.router.add_routes(
            [
                web.get("/counts", self._show_counts),
                web.get("/v1/models", self._list_models),
                web.get("/v1/models/{model}", self._show_model),
                *self.routes(),
            ]
        )
        return app

    # ------------------------------------------------------------- admission

    async def _guard(self, request: Request, handler: Handler) -> StreamResponse:
        """Answer one request; whatever goes wrong is answered as OpenAI words it."""
        from aiohttp import web

        method, path = request.method, request.path
        try:
            self._admit(request)
            return await handler(request)
        except Problem as problem:
            return self.respond_problem(problem)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
            message = f"Not allowed to {method} on {path}; {allowed} it."
            return self.respond_problem(Problem(405, message, headers={"Allow": allowed}))
        except web.HTTPNotFound:
            message = f"Invalid URL ({method} {path})."
            return self.respond_problem(Problem(404, message, code="unknown_url"))
        except web.HTTPRequestEntityTooLarge:
            return self.respond_problem(self._refuse_size())
        except ConnectionError:
            raise  # the caller has gone; nobody is left to be told
        except Exception as error:
            logging.getLogger(__name__).exception("%s %s", method, path)
            message = f"This server failed: {type(error).__name__}: {error}"
            return self.respond_problem(Problem(500, message))

    def _admit(self, request: Request) -> None:
        """Refuse what a web page elsewhere could send (another host's name, another origin), and a
        wrong key.
        """
        headers = request.headers
        host = headers.get("Host", "")
        if host not in self._known_hosts:
            if _hostname(f"//{host}") not in LOCAL:
                message = "This server answers to localhost and 127.0.0.1 only."
                raise Problem(403, message, code="host_refused")
            if len(self._known_hosts) < HOSTS:
                self._known_hosts.add(host)
        origin = headers.get("Origin")
        if origin is not None and _hostname(origin) not in LOCAL:
            raise Problem(403, "This server answers to local origins only.", code="origin_refused")
        if self._key is not None and request.path.startswith("/v1/"):
            key = headers.get("Authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(key.encode(), self._key.encode()):
                raise Problem(401, "Incorrect API key provided.", code="invalid_api_key")

    # --------------------------------------------------------- what all serve

    async def _show_counts(self, request: Request) -> Response:
        return self.respond(self.counts)

    async def _list_models(self, request: Request) -> Response:
        return self.respond({"object": "list", "data": [*map(self.describe_model, self.models)]})

    async def _show_model(self, request: Request) -> Response:
        name = request.match_info["model"]
        if name not in self.models:
            raise unknown_model(name, self.models)
        return self.respond(self.describe_model(name))

    def describe_model(self, name: str) -> dict[str, Any]:
        """Return a model's entry in the list of models."""
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "culturepark",
        }

    @contextmanager
    def count_in_flight(self) -> Iterator[None]:
        """Count a request among those in flight."""
        counts = self.counts
        counts["in_flight"] += 1
        counts["peak_in_flight"] = max(counts["peak_in_flight"], counts["in_flight"])
        try:
            yield
        finally:
            counts["in_flight"] -= 1

    def count_tokens(self, completion: Any) -> None:
        """Count an answer and the tokens that its usage tells, if any."""
        usage = completion.get("usage") if isinstance(completion, Mapping) else None
        if isinstance(usage, Mapping):
            self.counts["answered"] += 1
            self.counts["prompt_tokens"] += usage.get("prompt_tokens", 0)
            self.counts["completion_tokens"] += usage.get("completion_tokens", 0)

    # --------------------------------------------------------------- reading

    async def read_json(self, request: Request) -> Any:
        """Return a request's body; Problem where it is too large, too slow, or no JSON."""
        if (request.content_length or 0) > self.monitor.limits.request:
            raise self._refuse_size()
        if request.content.is_eof():  # all of it has arrived
            raw = await request.read()
        else:
            async with self.monitor.expect_arrival():
                raw = await request.read()
        try:
            return orjson.loads(raw)
        except ValueError:
            raise Problem(400, "We could not parse the JSON body of your request.") from None

    def _refuse_size(self) -> Problem:
        most = self.monitor.limits.request
        message = f"The request is larger than {most} bytes, which is what this server takes."
        return self.monitor.reach("request", message)

    # --------------------------------------------------------------- sending

    def respond(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return a value as JSON (bytes as they are)."""
        from aiohttp.web import Response

        body = value if isinstance(value, bytes) else encode_json(value)
        return Response(body=body, status=status, headers={**JSON, **headers} if headers else JSON)

    def respond_problem(self, problem: Problem) -> Response:
        """Return the error that a problem is."""
        return self.respond(problem.body, problem.status, problem.headers)

    async def stream_events(
        self, request: Request, chunks: AsyncIterator[Any], headers: Mapping[str, str] | None = None
    ) -> StreamResponse:
        """Send chunks as server-sent events, as they come."""
        return await self.write(request, 200, {**EVENTS, **(headers or {})}, _events(chunks))

    async def write(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str],
        pieces: AsyncIterator[bytes],
        *,
        cut: bool = False,
    ) -> StreamResponse:
        """Write an answer piece by piece; `cut` breaks the connection off after the last, a caller
        who reads none does too.
        """
        from aiohttp.web import StreamResponse

        response, idle = StreamResponse(status=status, headers=headers), self.monitor.limits.idle
        with suppress(ConnectionError):
            await response.prepare(request)
            async for piece in pieces:
                try:
                    async with asyncio.timeout(idle):
                        await response.write(piece)
                except TimeoutError:
                    self.monitor.reach(
                        "idle", f"A caller that read nothing for {idle:g} s was left."
                    )
                    cut = True
                    break
            if cut and request.transport is not None:
                # What was written must be on its way before the connection goes.
                await asyncio.sleep(0.01)
                if request.transport is not None:
                    request.transport.abort()
        return response


async def _events(chunks: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async with aclosing(chunks):  # type: ignore[type-var]  # an async generator
        async for chunk in chunks:
            yield encode_event(chunk)
    yield DONE


def encode_event(chunk: Any) -> bytes:
    """Return a chunk as a server-sent event."""
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def encode_json(value: Any) -> bytes:
    """Return JSON; what orjson does not take (whole numbers beyond 64 bits) the standard library
    does.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _allow_many_files() -> None:
    """Let this process hold as many connections as the system allows it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
