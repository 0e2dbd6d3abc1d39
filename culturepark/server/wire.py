"""Speaks HTTP: who may ask, which path means what, and how an answer is sent, whole or
mistreated.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from culturepark.errors import InputError
from culturepark.server.batches import Shelf
from culturepark.server.bounds import Watch
from culturepark.server.completions import chunks, spoken, text_chunks, unknown_model
from culturepark.server.desk import CHAT, EMBEDDINGS, TEXT, Desk, Outcome
from culturepark.server.faults import known
from culturepark.server.problems import Problem
from culturepark.server.tunes import Tunes

if TYPE_CHECKING:
    from aiohttp import BodyPartReader
    from aiohttp.web import BaseRequest, StreamResponse

LOCAL = frozenset(["localhost", "127.0.0.1", "::1"])
HOSTS = 64  # names of this machine that are remembered as such
DRIP = 0.1  # seconds between two pieces of a dripping answer
DRIPS = 10  # pieces of it, about
JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
DONE = b"data: [DONE]\n\n"


class Wire:
    """Handles the HTTP requests of one server. `saw` gets what is kept of each request."""

    def __init__(
        self,
        desk: Desk,
        shelf: Shelf,
        tunes: Tunes,
        key: str | None,
        saw: Callable[[dict[str, Any]], None] | None,
        watch: Watch,
    ) -> None:
        from orjson import dumps, loads

        self._desk, self._shelf, self._tunes, self._key, self._saw = desk, shelf, tunes, key, saw
        self._dumps, self._loads = dumps, loads
        self._started, self._watch = int(time()), watch
        self._hosts: set[str] = set()

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request; its connection waits for the next one afterwards."""
        self._watch.serve(request.protocol)
        try:
            return await self._handle(request)
        finally:
            self._watch.wait_for(request.protocol)

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        from aiohttp.web import HTTPRequestEntityTooLarge

        try:
            self._admit(request)
            return await self._route(request)
        except Problem as problem:
            return self._json(problem.body, problem.status, problem.headers)
        except HTTPRequestEntityTooLarge:
            return self._json(self._too_large().body, 413)
        except ConnectionError:
            raise  # the caller has gone; nobody is left to be told
        except Exception as error:
            logging.getLogger(__name__).exception("%s %s", request.method, request.path)
            return self._json(
                Problem(500, f"This server failed: {type(error).__name__}: {error}").body, 500
            )

    # ------------------------------------------------------------ admission

    def _admit(self, request: BaseRequest) -> None:
        """Refuse what a web page elsewhere could send (another host's name, another origin), and a
        wrong key.
        """
        headers = request.headers
        host = headers.get("Host", "")
        if host not in self._hosts:
            if _hostname(f"//{host}") not in LOCAL:
                raise Problem(
                    403, "This server answers to localhost and 127.0.0.1 only.", code="host_refused"
                )
            if len(self._hosts) < HOSTS:
                self._hosts.add(host)
        origin = headers.get("Origin")
        if origin is not None and _hostname(origin) not in LOCAL:
            raise Problem(403, "This server answers to local origins only.", code="origin_refused")
        if self._key is not None and request.path.startswith("/v1/"):
            given = headers.get("Authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), self._key.encode()):
                raise Problem(401, "Incorrect API key provided.", code="invalid_api_key")

    # --------------------------------------------------------------- routes

    async def _route(self, request: BaseRequest) -> StreamResponse:
        path, method = request.path, request.method
        if path == "/counts":
            _only("GET", method, path)
            return self._json(self._desk.counts)
        if self._desk.chat_only and path not in (CHAT, TEXT) and not path.startswith("/v1/models"):
            raise _nowhere(method, path)
        if path in (CHAT, TEXT, EMBEDDINGS):
            _only("POST", method, path)
            return await self._ask(request, path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["v1", "models"] and method == "GET" and len(parts) <= 3:
            return self._json(self._models(parts[2:]))
        if parts[:2] == ["v1", "files"] and len(parts) <= 4:
            return await self._files(request, method, parts[2:])
        if parts[:2] == ["v1", "batches"] and len(parts) <= 4:
            return await self._batches(request, method, parts[2:])
        if parts[:3] == ["v1", "fine_tuning", "jobs"] and len(parts) <= 5:
            return await self._tuning(request, method, parts[3:])
        raise _nowhere(method, path)

    async def _ask(self, request: BaseRequest, path: str) -> StreamResponse:
        body = await self._body(request)
        self._keep(request, path, body)
        forced, counts = _forced(request), self._desk.counts
        counts["in_flight"] += 1
        counts["peak_in_flight"] = max(counts["peak_in_flight"], counts["in_flight"])
        try:
            outcome = await self._desk.ask(path, body, forced)
            if isinstance(outcome.body, AsyncIterator):
                return await self._write(
                    request, 200, {**EVENTS, **outcome.headers}, _events(outcome.body, self._dumps)
                )
            if path != EMBEDDINGS and body.get("stream") and outcome.status == 200:
                with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
                if path == TEXT and isinstance(outcome.body, dict):
                    return await self._stream(
                        request, outcome, text_chunks(outcome.body, with_usage)
                    )
                if spoken(outcome.body):
                    return await self._stream(request, outcome, chunks(outcome.body, with_usage))
            return await self._send(request, outcome)
        finally:
            counts["in_flight"] -= 1

    def _models(self, rest: list[str]) -> dict[str, Any]:
        models = [
            {"id": name, "object": "model", "created": self._started, "owned_by": "culturepark"}
            for name in self._desk.models
        ]
        if not rest:
            return {"object": "list", "data": models}
        found = next((m for m in models if m["id"] == rest[0]), None)
        if found is None:
            raise unknown_model(rest[0], self._desk.models)
        return found

    async def _files(self, request: BaseRequest, method: str, rest: list[str]) -> StreamResponse:
        match (method, *rest):
            case ("POST",):
                name, purpose, data = await self._upload(request)
                self._keep(
                    request,
                    request.path,
                    {"filename": name, "purpose": purpose, "bytes": len(data)},
                )
                fault = await self._befallen(request, purpose)
                return await self._send(
                    request, Outcome(200, self._shelf.put(name, purpose, data), {}, fault)
                )
            case ("GET",):
                fault = await self._befallen(request, request.query.get("purpose", ""))
                return await self._send(
                    request, Outcome(200, self._shelf.files(request.query), {}, fault)
                )
            case ("GET", str(file)):
                return self._json(self._shelf.file(file).shown)
            case ("DELETE", str(file)):
                return self._json(self._shelf.drop(file))
            case ("GET", str(file), "content"):
                stored = self._shelf.file(file)
                fault = await self._befallen(request, stored.purpose)
                headers = {"Content-Type": "application/octet-stream"}
                return await self._send(request, Outcome(200, stored.data, headers, fault))
        raise _nowhere(method, request.path)

    async def _befallen(self, request: BaseRequest, purpose: str) -> str:
        """Return the fault that befalls a file on its way; only those of fine-tuning have any."""
        return (
            await self._desk.befallen(_forced(request)) if purpose.startswith("fine-tune") else ""
        )

    async def _tuning(self, request: BaseRequest, method: str, rest: list[str]) -> StreamResponse:
        body = None
        if method == "POST" and not rest:
            body = await self._body(request)
            self._keep(request, request.path, body)
        fault = await self._desk.befallen(_forced(request))
        return await self._send(
            request, Outcome(200, self._tuned(request, method, rest, body), {}, fault)
        )

    def _tuned(
        self, request: BaseRequest, method: str, rest: list[str], body: Any
    ) -> dict[str, Any]:
        match (method, *rest):
            case ("POST",):
                return self._tunes.create(body)
            case ("GET",):
                return self._tunes.jobs(request.query)
            case ("GET", str(job)):
                return self._tunes.job(job)
            case ("POST", str(job), "cancel"):
                return self._tunes.cancel(job)
            case ("GET", str(job), "events"):
                return self._tunes.events(job, request.query)
            case ("GET", str(job), "checkpoints"):
                return self._tunes.checkpoints(job, request.query)
        raise _nowhere(method, request.path)

    async def _batches(self, request: BaseRequest, method: str, rest: list[str]) -> StreamResponse:
        match (method, *rest):
            case ("POST",):
                body = await self._body(request)
                self._keep(request, request.path, body)
                return self._json(self._shelf.create(body, _forced(request)))
            case ("GET",):
                return self._json(self._shelf.batches(request.query))
            case ("GET", str(batch)):
                return self._json(self._shelf.batch(batch))
            case ("POST", str(batch), "cancel"):
                return self._json(self._shelf.cancel(batch))
        raise _nowhere(method, request.path)

    async def _body(self, request: BaseRequest) -> Any:
        if (request.content_length or 0) > self._watch.limits.request:
            raise self._too_large()
        with self._arriving():
            async with asyncio.timeout(self._watch.limits.idle):
                raw = await request.read()
        try:
            return self._loads(raw)
        except ValueError:
            raise Problem(400, "We could not parse the JSON body of your request.") from None

    async def _upload(self, request: BaseRequest) -> tuple[str, str, bytes]:
        """Return an uploaded file's name, purpose and bytes; Problem for anything else, or where
        there is no room for it.
        """
        from aiohttp import BodyPartReader

        if not request.content_type.startswith("multipart/"):
            raise Problem(400, "Expected a multipart/form-data request with 'purpose' and 'file'.")
        name, purpose, data = "", "", bytearray()
        seen: set[str | None] = set()
        try:
            with self._shelf.room() as room:
                async for part in await request.multipart():
                    if not isinstance(part, BodyPartReader):
                        continue
                    seen.add(part.name)
                    taken = await self._part(part, room)
                    if part.name == "file":
                        name, data = part.filename or "file", taken
                    elif part.name == "purpose":
                        purpose = taken.decode(errors="replace")
        except (ValueError, AssertionError) as error:
            raise Problem(400, f"The multipart body cannot be read: {error}.") from None
        for needed in ("file", "purpose"):
            if needed not in seen:
                raise Problem(400, f"Missing required parameter: '{needed}'.", param=needed)
        return name, purpose, bytes(data)

    async def _part(self, part: BodyPartReader, room: Callable[[int], None]) -> bytearray:
        """Return a part of an upload, each piece of which must arrive in time and find `room`."""
        taken = bytearray()
        while True:
            with self._arriving():
                async with asyncio.timeout(self._watch.limits.idle):
                    chunk = await part.read_chunk(1 << 18)
            if not chunk:
                return taken
            taken += chunk
            if len(taken) > (most := self._watch.limits.file):
                message = f"The file is larger than {most} bytes, which is what this server takes."
                raise self._watch.reach("file", message, param="file")
            room(len(chunk))

    def _too_large(self) -> Problem:
        most = self._watch.limits.request
        return self._watch.reach(
            "request", f"The request is larger than {most} bytes, which is what this server takes."
        )

    @contextmanager
    def _arriving(self) -> Iterator[None]:
        """Refuse a request that takes too long to arrive."""
        try:
            yield
        except TimeoutError:
            seconds = self._watch.limits.idle
            raise self._watch.reach(
                "idle", f"A request did not arrive within {seconds:g} s."
            ) from None

    def _keep(self, request: BaseRequest, path: str, body: Any) -> None:
        if self._saw is not None:
            self._saw(
                {
                    **(body if isinstance(body, dict) else {"body": body}),
                    "path": path,
                    "headers": dict(request.headers),
                }
            )

    # -------------------------------------------------------------- sending

    def _json(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> StreamResponse:
        from aiohttp.web import Response

        return Response(
            body=self._dumps(value), status=status, headers={**JSON, **headers} if headers else JSON
        )

    async def _send(self, request: BaseRequest, outcome: Outcome) -> StreamResponse:
        """Send an answer, whole or as its fault has it."""
        from aiohttp.web import Response

        headers = {**JSON, **outcome.headers} if outcome.headers else JSON
        data = (
            outcome.body if isinstance(outcome.body, bytes) else _encoded(outcome.body, self._dumps)
        )
        if outcome.wire == "truncated":
            data = data[: len(data) // 2]
        if outcome.wire not in ("reset", "drip"):
            return Response(body=data, status=outcome.status, headers=headers)
        if outcome.wire == "reset":
            return await self._write(
                request,
                outcome.status,
                {**headers, "Content-Length": str(len(data))},
                _pieces([data[: len(data) // 2]], 0.0),
                cut=True,
            )
        size = max(16, len(data) // DRIPS)
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        return await self._write(
            request,
            outcome.status,
            {**headers, "Content-Length": str(len(data))},
            _pieces(pieces, DRIP),
        )

    async def _write(
        self,
        request: BaseRequest,
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

        response = StreamResponse(status=status, headers=headers)
        with suppress(ConnectionError):
            await response.prepare(request)
            async for piece in pieces:
                try:
                    async with asyncio.timeout(self._watch.limits.idle):
                        await response.write(piece)
                except TimeoutError:
                    self._watch.reach(
                        "idle",
                        f"A caller that read nothing for {self._watch.limits.idle:g} s was left.",
                    )
                    cut = True
                    break
            if cut and request.transport is not None:
                # What was written must be on its way before the connection goes.
                await asyncio.sleep(0.01)
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _stream(
        self, request: BaseRequest, outcome: Outcome, said: Iterable[dict[str, Any]]
    ) -> StreamResponse:
        """Send an answer as server-sent events; a truncated one lacks its second half and its
        end.
        """
        events = [b"data: " + self._dumps(chunk) + b"\n\n" for chunk in said]
        events.append(DONE)
        if outcome.wire in ("truncated", "reset"):
            events = events[: len(events) // 2]
        headers = {**EVENTS, **outcome.headers}
        pieces = _pieces(events, DRIP if outcome.wire == "drip" else 0.0)
        return await self._write(request, 200, headers, pieces, cut=outcome.wire == "reset")


async def _events(made: AsyncIterator[Any], dumps: Callable[[Any], bytes]) -> AsyncIterator[bytes]:
    """Yield chunks as server-sent events, as they come."""
    async with aclosing(made):  # type: ignore[type-var]  # an async generator
        async for chunk in made:
            yield b"data: " + dumps(chunk) + b"\n\n"
    yield DONE


async def _pieces(pieces: list[bytes], pause: float) -> AsyncIterator[bytes]:
    for i, piece in enumerate(pieces):
        if i and pause:
            await asyncio.sleep(pause)
        yield piece


def _encoded(value: Any, dumps: Callable[[Any], bytes]) -> bytes:
    """Return JSON; what orjson does not take (whole numbers beyond 64 bits) the standard library
    does.
    """
    try:
        return dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _forced(request: BaseRequest) -> str:
    """Return the fault that a request asks for by its header; Problem for one that there is not."""
    kind = request.headers.get("X-Fault", "")
    try:
        return known(kind) if kind else ""
    except InputError as error:
        raise Problem(400, str(error), param="X-Fault") from None


def _only(allowed: str, method: str, path: str) -> None:
    if method != allowed:
        raise Problem(
            405, f"Not allowed to {method} on {path}; {allowed} it.", headers={"Allow": allowed}
        )


def _nowhere(method: str, path: str) -> Problem:
    return Problem(404, f"Invalid URL ({method} {path}).", code="unknown_url")
