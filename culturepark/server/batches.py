"""Files and batches, in memory: uploaded, worked through, and read back, under OpenAI's names."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from culturepark.server.bounds import Watch
from culturepark.server.desk import CHAT, EMBEDDINGS, Desk
from culturepark.server.problems import Problem

T = TypeVar("T")
PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")
OUTPUTS = ("batch_output", "fine-tune-results")  # purposes of the files that the server makes
LINES = 50_000  # requests a batch
DAY = 86_400  # seconds
SHOWN = 20  # mistakes of an input file that are listed
TURN = 50  # lines after which others get their turn
LOST = ("hang", "reset", "truncated")  # faults of the wire, which inside a batch lose the answer


@dataclass(frozen=True)
class Stored:
    """One file."""

    id: str
    filename: str
    purpose: str
    created_at: int
    data: bytes = field(repr=False)

    @property
    def shown(self) -> dict[str, Any]:
        """The file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": self.created_at,
            "expires_at": None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Shelf:
    """The files and batches of one server. A batch takes `seconds` from its start to its end."""

    def __init__(self, desk: Desk, seconds: float, watch: Watch) -> None:
        self._desk, self._seconds, self._watch, self._coming = desk, seconds, watch, 0
        self._files: dict[str, Stored] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._made = 0

    async def close(self) -> None:
        """Stop working."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def name(self, kind: str) -> str:
        """Return a new id that begins with `kind`."""
        self._made += 1
        return f"{kind}{self._made:08x}"

    # -------------------------------------------------------------- files

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Yield what asks for room for so many more bytes of one upload; Problem where all files
        would be too large.
        """
        taken = 0

        def ask(size: int) -> None:
            nonlocal taken
            taken, self._coming = taken + size, self._coming + size
            held, most = (
                sum(len(f.data) for f in self._files.values()) + self._coming,
                self._watch.limits.files,
            )
            if held > most:
                message = (
                    f"All files together are larger than {most} bytes, which is what this server"
                    " keeps; delete some."
                )
                raise self._watch.reach("files", message, param="file")

        try:
            yield ask
        finally:
            self._coming -= taken

    def put(self, filename: str, purpose: str, data: bytes) -> dict[str, Any]:
        """Keep a file and return its object; Problem for a purpose that there is not."""
        if purpose not in (*PURPOSES, *OUTPUTS):
            raise Problem(
                400,
                f"Invalid value for 'purpose': {purpose!r}; there are: {', '.join(PURPOSES)}.",
                param="purpose",
            )
        stored = Stored(self.name("file-"), filename, purpose, int(time.time()), data)
        self._files[stored.id] = stored
        return stored.shown

    def file(self, name: str) -> Stored:
        """Return a file; Problem 404 where there is none."""
        if name not in self._files:
            raise Problem(404, f"No such File object: {name}", param="id")
        return self._files[name]

    def files(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the list of files, the newest first; `purpose`, `after` and `limit` choose."""
        purpose = query.get("purpose")
        found = [f.shown for f in reversed(self._files.values()) if purpose in (None, f.purpose)]
        return listed(found, query, 10_000)

    def drop(self, name: str) -> dict[str, Any]:
        """Forget a file."""
        self.file(name)
        del self._files[name]
        return {"id": name, "object": "file", "deleted": True}

    # ------------------------------------------------------------ batches

    def batch(self, name: str) -> dict[str, Any]:
        """Return a batch; Problem 404 where there is none."""
        if name not in self._batches:
            raise Problem(404, f"No such Batch object: {name}", param="batch_id")
        return self._batches[name]

    def batches(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the list of batches, the newest first; `after` and `limit` choose."""
        return listed([dict(b) for b in reversed(self._batches.values())], query, 20)

    def create(self, body: Any, forced: str) -> dict[str, Any]:
        """Start a batch and return it as it stands; Problem for a parameter that cannot be."""
        if not isinstance(body, dict):
            raise Problem(
                400, "We could not parse the JSON body of your request: it is not an object."
            )
        for name, allowed in (("endpoint", (CHAT, EMBEDDINGS)), ("completion_window", ("24h",))):
            if body.get(name) not in allowed:
                raise Problem(
                    400,
                    f"Invalid value for '{name}': there is {' and '.join(allowed)}.",
                    param=name,
                )
        if not isinstance(body.get("input_file_id"), str):
            raise Problem(
                400, "Missing required parameter: 'input_file_id'.", param="input_file_id"
            )
        stored = self.file(body["input_file_id"])
        if stored.purpose != "batch":
            raise Problem(
                400,
                f"File {stored.id} has the purpose {stored.purpose!r}, not 'batch'.",
                param="input_file_id",
            )
        now = int(time.time())
        stamps = (
            "in_progress_at",
            "finalizing_at",
            "completed_at",
            "failed_at",
            "expired_at",
            "cancelling_at",
            "cancelled_at",
        )
        batch = {
            "id": self.name("batch_"),
            "object": "batch",
            "endpoint": body["endpoint"],
            "errors": None,
            "input_file_id": stored.id,
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            **dict.fromkeys(stamps),
            "expires_at": now + DAY,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": body.get("metadata"),
        }
        self._batches[batch["id"]] = batch
        late = self._desk.draws.expires() or forced == "expire"
        if late:
            self._desk.met("expire")
        task = asyncio.get_running_loop().create_task(self._run(batch, stored, late, forced))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return dict(batch)

    def cancel(self, name: str) -> dict[str, Any]:
        """Ask a batch to stop; what is done by then can be read."""
        batch = self.batch(name)
        if batch["status"] not in ("validating", "in_progress", "cancelling"):
            raise Problem(400, f"Cannot cancel a batch with status '{batch['status']}'.")
        _step(batch, "cancelling")
        return dict(batch)

    async def _run(self, batch: dict[str, Any], stored: Stored, late: bool, forced: str) -> None:
        """Take a batch through its states."""
        start = time.monotonic()
        await asyncio.sleep(self._seconds / 10)
        lines, errors = parsed(stored.data, batch["endpoint"])
        if errors:
            batch["errors"] = {"object": "list", "data": errors[:SHOWN]}
            _step(batch, "failed")
            return
        batch["request_counts"] = {"total": len(lines), "completed": 0, "failed": 0}
        if batch["status"] == "validating":
            _step(batch, "in_progress")
        good, bad = await self._answered(
            batch, lines, late, "" if forced == "expire" else forced, start
        )
        if batch["status"] == "in_progress" and not late:
            _step(batch, "finalizing")
            await asyncio.sleep(self._seconds / 10)
        for key, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
                batch[key] = self.put(
                    f"{batch['id']}_{key.partition('_')[0]}.jsonl", "batch_output", data
                )["id"]
        if batch["status"] == "cancelling":
            _step(batch, "cancelled")
        else:
            _step(batch, "expired" if late else "completed")

    async def _answered(
        self,
        batch: dict[str, Any],
        lines: list[dict[str, Any]],
        late: bool,
        forced: str,
        start: float,
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Work through a batch's lines; one that is late gets half of them done. Return the
        output's rows and the errors'.
        """
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for i, line in enumerate(lines):
            ahead = start + self._seconds * (0.1 + 0.8 * (i + 1) / len(lines)) - time.monotonic()
            if ahead > 0.005 or i % TURN == 0:
                await asyncio.sleep(max(0.0, ahead))
            if batch["status"] == "cancelling":
                break
            row: dict[str, Any] = {
                "id": self.name("batch_req_"),
                "custom_id": line["custom_id"],
                "response": None,
                "error": None,
            }
            if late and i >= len(lines) // 2:
                message = "This request could not be executed before the completion window expired."
                bad.append({**row, "error": {"code": "batch_expired", "message": message}})
                continue
            status, body = await self._one(batch["endpoint"], line["body"], forced)
            row["response"] = {"status_code": status, "request_id": self.name("req_"), "body": body}
            (good if status == 200 else bad).append(row)
            batch["request_counts"]["completed" if status == 200 else "failed"] += 1
        return good, bad

    async def _one(self, endpoint: str, body: dict[str, Any], forced: str) -> tuple[int, Any]:
        try:
            outcome = await self._desk.ask(endpoint, {**body, "stream": None}, forced, batched=True)
        except Problem as problem:
            return problem.status, problem.body
        if outcome.wire in LOST:
            return (
                500,
                Problem(500, f"The answer was lost ({outcome.wire}, a fault on demand).").body,
            )
        return outcome.status, (
            json.loads(outcome.body) if isinstance(outcome.body, bytes) else outcome.body
        )


def _step(batch: dict[str, Any], status: str) -> None:
    batch["status"] = status
    batch[f"{status}_at"] = int(time.time())


def parsed(data: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the requests of an input file, and its mistakes as a failed batch lists them."""
    lines: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    ids: set[str] = set()

    def wrong(number: int | None, code: str, message: str, param: str | None = None) -> None:
        errors.append({"code": code, "message": message, "param": param, "line": number})

    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict):
            wrong(number, "invalid_json_line", "This line is not parseable as valid JSON.")
        elif not isinstance(line.get("custom_id"), str) or not isinstance(line.get("body"), dict):
            param = "body" if isinstance(line.get("custom_id"), str) else "custom_id"
            wrong(
                number,
                "missing_required_parameter",
                f"Missing required parameter: '{param}'.",
                param,
            )
        elif line["custom_id"] in ids:
            wrong(
                number,
                "duplicate_custom_id",
                f"The custom_id {line['custom_id']!r} has been used before.",
                "custom_id",
            )
        elif line.get("method") != "POST":
            wrong(number, "invalid_method", "The method of a request is POST.", "method")
        elif line.get("url") != endpoint:
            wrong(
                number,
                "mismatched_url",
                f"The URL {line.get('url')!r} is not the batch's endpoint {endpoint!r}.",
                "url",
            )
        else:
            ids.add(line["custom_id"])
            lines.append(line)
    if not lines and not errors:
        wrong(None, "empty_file", "The input file holds no request.")
    if len(lines) > LINES:
        wrong(
            None,
            "too_many_requests",
            f"The input file holds {len(lines)} requests; a batch has at most {LINES}.",
        )
    return lines, errors


def listed(found: Iterable[dict[str, Any]], query: Mapping[str, str], limit: int) -> dict[str, Any]:
    """Return a page of a list: what comes `after` an id, at most `limit`; Problem for a page that
    cannot be.
    """
    rows = list(found)
    try:
        size = int(query.get("limit", limit))
    except ValueError:
        size = 0
    if size < 1:
        raise Problem(
            400,
            f"Invalid value for 'limit': {query['limit']!r} is not a whole number of at least 1.",
            param="limit",
        )
    if (after := query.get("after")) is not None:
        place = next((i for i, row in enumerate(rows) if row["id"] == after), None)
        if place is None:
            raise Problem(404, f"Nothing in this list has the id {after!r}.", param="after")
        rows = rows[place + 1 :]
    page = rows[:size]
    ends = (
        {"first_id": page[0]["id"], "last_id": page[-1]["id"]}
        if page
        else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": page, **ends, "has_more": len(rows) > size}
