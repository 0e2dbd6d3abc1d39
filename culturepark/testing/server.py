"""A provider's server with faults on demand, the public test double: it speaks OpenAI's protocol,
with the embedded engine or your own answers behind it.

Real HTTP on 127.0.0.1 for any OpenAI client: chat completions (streamed too), embeddings of hashed
words, models, files, batches and fine-tuning jobs; faults, latency, a rate limit and a key on
demand. Tokens are approximate, texts of the engine are templated, and nothing is trained: a tuned
model answers as its base does, and its losses and accuracies are made up.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from culturepark.errors import InputError
from culturepark.serving.http_server import (
    CHAT,
    DONE,
    EVENTS,
    JSON,
    TEXT,
    HttpServer,
    encode_event,
    encode_json,
)
from culturepark.serving.limits import ServerLimits
from culturepark.serving.problems import Problem, missing_parameter
from culturepark.testing.batch_jobs import BatchJobs
from culturepark.testing.completions import has_message, split_completion, split_text_completion
from culturepark.testing.faults import FaultSchedule, check_kind, check_shares
from culturepark.testing.file_store import FileStore
from culturepark.testing.fine_tuning_jobs import FineTuningJobs
from culturepark.testing.model_double import EMBEDDINGS, Answer, ModelDouble, Response
from culturepark.workspace import Workspace

if TYPE_CHECKING:
    from aiohttp import BodyPartReader
    from aiohttp.web import AbstractRouteDef, Request, StreamResponse

DRIP = 0.1  # seconds between two pieces of a dripping answer
DRIPS = 10  # pieces of it, about
CHUNK = 2**18  # bytes of an upload that are read at once
JOBS = "/v1/fine_tuning/jobs"


class Server(HttpServer):
    """An OpenAI-compatible server on this machine.

    `answer` maps a request's number (from 1) and body to the text to say, a whole completion, or
    (status, headers, JSON body), or is awaited for one of these (or for a stream's chunks); None
    lets the embedded engine answer from the facts that CulturePark's own requests bring, and say to
    others that its text is templated. `faults` maps kinds (KINDS) to
    shares of the requests, drawn by number and `seed`; the header `X-Fault: kind` forces one.
    `latency` is in seconds, `rpm` bounds the requests of any minute, `key` is asked of every
    caller, `batch_seconds` is what a batch takes and `tune_seconds` what a fine-tuning job does,
    `keep` fills `seen`. `chat_only` serves chat and text completions and models alone. `limits` are
    what it takes at most; `tell` gets a sentence when one is reached (default: a warning in the
    log).

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
        limits: ServerLimits | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(key=key, port=port, limits=limits, tell=tell)
        if not models or isinstance(models, str):
            raise InputError(f"models: {models!r} is no list of at least one name")
        if min(latency, batch_seconds, tune_seconds) < 0:
            raise InputError(
                "latency, batch_seconds and tune_seconds are seconds, "
                f"not {latency}, {batch_seconds} and {tune_seconds}"
            )
        if rpm is not None and rpm < 1:
            raise InputError(f"rpm: {rpm} requests a minute; give at least 1, or None for no limit")
        if workspace is not None:
            why = "Server(workspace=…) has no effect: requests bring the facts of their own cards"
            warnings.warn(why, DeprecationWarning, stacklevel=2)
        self._is_engine = answer is None
        self.faults = FaultSchedule(check_shares(faults or {}), seed)
        self.seen: list[dict[str, Any]] = []
        self._model = ModelDouble(
            answer,
            models,
            self.faults,
            latency,
            rpm,
            self.counts,
            self.count_tokens,
        )
        self._keep, self._chat_only = keep, chat_only
        self._tasks: set[asyncio.Task[None]] = set()
        self._files = FileStore(self.monitor)
        self._batches = BatchJobs(self._model, self._files, batch_seconds, self._start_task)
        self._jobs = FineTuningJobs(self._model, self._files, tune_seconds, self._start_task)

    @property
    def models(self) -> Sequence[str]:
        """The names it answers to, those of tuned models among them."""
        return self._model.models

    def routes(self) -> Sequence[AbstractRouteDef]:
        """Return the routes of completions, embeddings, files, batches and fine-tuning jobs."""
        from aiohttp.web import delete, get, post

        routes = [post(CHAT, self._answer), post(TEXT, self._answer)]
        if self._chat_only:
            return routes
        return [
            *routes,
            post(EMBEDDINGS, self._answer),
            post("/v1/files", self._upload_file),
            get("/v1/files", self._list_files),
            get("/v1/files/{id}", self._show_file),
            delete("/v1/files/{id}", self._delete_file),
            get("/v1/files/{id}/content", self._send_file),
            post("/v1/batches", self._create_batch),
            get("/v1/batches", self._list_batches),
            get("/v1/batches/{id}", self._show_batch),
            post("/v1/batches/{id}/cancel", self._cancel_batch),
            post(JOBS, self._create_job),
            get(JOBS, self._list_jobs),
            get(JOBS + "/{id}", self._show_job),
            post(JOBS + "/{id}/cancel", self._cancel_job),
            get(JOBS + "/{id}/events", self._list_events),
            get(JOBS + "/{id}/checkpoints", self._list_checkpoints),
        ]

    async def close(self) -> None:
        """Stop working on batches and jobs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def describe_model(self, name: str) -> dict[str, Any]:
        """Return a model's entry in the list; the engine's says that it takes facts."""
        return {**super().describe_model(name), "takes_facts": self._is_engine}

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _remember(self, request: Request, body: Any) -> None:
        """Keep what was asked in `seen`."""
        if self._keep:
            kept = body if isinstance(body, dict) else {"body": body}
            self.seen.append({**kept, "path": request.path, "headers": dict(request.headers)})

    # ----------------------------------------------------------- completions

    async def _answer(self, request: Request) -> StreamResponse:
        body = await self.read_json(request)
        self._remember(request, body)
        with self.count_in_flight():
            response = await self._model.answer(request.path, body, _read_fault(request))
            if isinstance(response.body, AsyncIterator):
                return await self.stream_events(request, response.body, response.headers)
            chunks = _split(request.path, body, response)
            if chunks is not None:
                return await self._stream(request, response, chunks)
            return await self._send(request, response)

    async def _stream(
        self, request: Request, response: Response, chunks: Iterable[dict[str, Any]]
    ) -> StreamResponse:
        """Send an answer as server-sent events; a truncated one lacks its second half and its
        end.
        """
        fault, events = response.network_fault, [*map(encode_event, chunks), DONE]
        if fault in ("truncated", "reset"):
            events = events[: len(events) // 2]
        pieces = _pace(events, DRIP if fault == "drip" else 0.0)
        headers = {**EVENTS, **response.headers}
        return await self.write(request, 200, headers, pieces, cut=fault == "reset")

    async def _send(self, request: Request, response: Response) -> StreamResponse:
        """Send an answer, whole or as its fault has it."""
        fault, status = response.network_fault, response.status
        if not fault:
            return self.respond(response.body, status, response.headers)
        data = response.body if isinstance(response.body, bytes) else encode_json(response.body)
        half = data[: len(data) // 2]
        if fault == "truncated":
            return self.respond(half, status, response.headers)
        headers = {**JSON, **response.headers, "Content-Length": str(len(data))}
        if fault == "reset":
            return await self.write(request, status, headers, _pace([half], 0.0), cut=True)
        size = max(16, len(data) // DRIPS)
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        return await self.write(request, status, headers, _pace(pieces, DRIP))

    # ----------------------------------------------------------------- files

    async def _upload_file(self, request: Request) -> StreamResponse:
        name, purpose, data = await self._read_upload(request)
        self._remember(request, {"filename": name, "purpose": purpose, "bytes": len(data)})
        fault = await self._draw_file_fault(request, purpose)
        entry = self._files.add_file(name, purpose, data)
        return await self._send(request, Response(200, entry, network_fault=fault))

    async def _list_files(self, request: Request) -> StreamResponse:
        fault = await self._draw_file_fault(request, request.query.get("purpose", ""))
        page = self._files.list_files(request.query)
        return await self._send(request, Response(200, page, network_fault=fault))

    async def _show_file(self, request: Request) -> StreamResponse:
        return self.respond(self._files.get_file(request.match_info["id"]).entry)

    async def _delete_file(self, request: Request) -> StreamResponse:
        return self.respond(self._files.delete_file(request.match_info["id"]))

    async def _send_file(self, request: Request) -> StreamResponse:
        file = self._files.get_file(request.match_info["id"])
        fault = await self._draw_file_fault(request, file.purpose)
        headers = {"Content-Type": "application/octet-stream"}
        return await self._send(request, Response(200, file.data, headers, fault))

    async def _draw_file_fault(self, request: Request, purpose: str) -> str:
        """Return the network fault to inject for a request about a file; only those of fine-tuning
        have any.
        """
        if not purpose.startswith("fine-tune"):
            return ""
        return await self._model.draw_tuning_fault(_read_fault(request))

    async def _read_upload(self, request: Request) -> tuple[str, str, bytes]:
        """Return an uploaded file's name, purpose and bytes; Problem for anything else, or where
        there is no room for it.
        """
        from aiohttp import BodyPartReader

        if not request.content_type.startswith("multipart/"):
            raise Problem(400, "Expected a multipart/form-data request with 'purpose' and 'file'.")
        parts: dict[str | None, bytes] = {}
        name = ""
        try:
            with self._files.reserve_room() as reserve:
                async for part in await request.multipart():
                    if isinstance(part, BodyPartReader):
                        parts[part.name] = await self._read_part(part, reserve)
                        name = part.filename or "file" if part.name == "file" else name
        except (ValueError, AssertionError) as error:
            raise Problem(400, f"The multipart body cannot be read: {error}.") from None
        for needed in ("file", "purpose"):
            if needed not in parts:
                raise missing_parameter(needed)
        return name, parts["purpose"].decode(errors="replace"), parts["file"]

    async def _read_part(self, part: BodyPartReader, reserve: Callable[[int], None]) -> bytes:
        """Return a part of an upload, each piece of which must arrive in time and find room."""
        data, most = bytearray(), self.monitor.limits.file
        while True:
            async with self.monitor.expect_arrival():
                chunk = await part.read_chunk(CHUNK)
            if not chunk:
                return bytes(data)
            data += chunk
            if len(data) > most:
                message = f"The file is larger than {most} bytes, which is what this server takes."
                raise self.monitor.reach("file", message, param="file")
            reserve(len(chunk))

    # --------------------------------------------------------------- batches

    async def _create_batch(self, request: Request) -> StreamResponse:
        body = await self.read_json(request)
        self._remember(request, body)
        return self.respond(self._batches.create_batch(body, _read_fault(request)))

    async def _list_batches(self, request: Request) -> StreamResponse:
        return self.respond(self._batches.list_batches(request.query))

    async def _show_batch(self, request: Request) -> StreamResponse:
        return self.respond(self._batches.get_batch(request.match_info["id"]))

    async def _cancel_batch(self, request: Request) -> StreamResponse:
        return self.respond(self._batches.cancel_batch(request.match_info["id"]))

    # ----------------------------------------------------------- fine-tuning

    async def _create_job(self, request: Request) -> StreamResponse:
        body = await self.read_json(request)
        self._remember(request, body)
        return await self._send_job(request, lambda: self._jobs.create_job(body))

    async def _list_jobs(self, request: Request) -> StreamResponse:
        return await self._send_job(request, lambda: self._jobs.list_jobs(request.query))

    async def _show_job(self, request: Request) -> StreamResponse:
        return await self._send_job(request, lambda: self._jobs.get_job(request.match_info["id"]))

    async def _cancel_job(self, request: Request) -> StreamResponse:
        name = request.match_info["id"]
        return await self._send_job(request, lambda: self._jobs.cancel_job(name))

    async def _list_events(self, request: Request) -> StreamResponse:
        name, query = request.match_info["id"], request.query
        return await self._send_job(request, lambda: self._jobs.list_events(name, query))

    async def _list_checkpoints(self, request: Request) -> StreamResponse:
        name, query = request.match_info["id"], request.query
        return await self._send_job(request, lambda: self._jobs.list_checkpoints(name, query))

    async def _send_job(
        self, request: Request, work: Callable[[], dict[str, Any]]
    ) -> StreamResponse:
        """Send what `work` returns, unless the request's fault comes first."""
        fault = await self._model.draw_tuning_fault(_read_fault(request))
        return await self._send(request, Response(200, work(), network_fault=fault))


def _split(path: str, body: Any, response: Response) -> Iterable[dict[str, Any]] | None:
    """Return an answer's chunks where the request wants them and there are any, else None."""
    if path == EMBEDDINGS or response.status != 200 or not body.get("stream"):
        return None
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    if path == TEXT and isinstance(response.body, dict):
        return split_text_completion(response.body, with_usage)
    return split_completion(response.body, with_usage) if has_message(response.body) else None


async def _pace(pieces: Sequence[bytes], pause: float) -> AsyncIterator[bytes]:
    for i, piece in enumerate(pieces):
        if i and pause:
            await asyncio.sleep(pause)
        yield piece


def _read_fault(request: Request) -> str:
    """Return the fault that a request asks for by its header; Problem for one that there is not."""
    kind = request.headers.get("X-Fault", "")
    try:
        return check_kind(kind) if kind else ""
    except InputError as error:
        raise Problem(400, str(error), param="X-Fault") from None
