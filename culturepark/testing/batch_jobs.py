"""Batches, in memory: read from a file, worked through, and written to files, under OpenAI's
names.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from culturepark.serving.http_server import CHAT
from culturepark.serving.problems import Problem, invalid_body
from culturepark.testing.file_store import FileStore, StoredFile, build_page
from culturepark.testing.model_double import EMBEDDINGS, ModelDouble

StartTask = Callable[[Coroutine[Any, Any, None]], None]
LINES = 50_000  # requests a batch
DAY = 86_400  # seconds
SHOWN = 20  # mistakes of an input file that are listed
TURN = 50  # lines after which others get their turn
LOST = ("hang", "reset", "truncated")  # network faults that inside a batch lose the answer


class BatchJobs:
    """The batches of one server. A batch takes `seconds` from its start to its end; `start_task`
    works in the background.
    """

    def __init__(
        self, model: ModelDouble, files: FileStore, seconds: float, start_task: StartTask
    ) -> None:
        self._model, self._files, self._seconds = model, files, seconds
        self._start_task = start_task
        self._batches: dict[str, dict[str, Any]] = {}

    def get_batch(self, name: str) -> dict[str, Any]:
        """Return a batch; Problem 404 where there is none."""
        if name not in self._batches:
            raise Problem(404, f"No such Batch object: {name}", param="batch_id")
        return self._batches[name]

    def list_batches(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the list of batches, the newest first; `after` and `limit` choose."""
        return build_page([dict(b) for b in reversed(self._batches.values())], query, 20)

    def create_batch(self, body: Any, forced: str) -> dict[str, Any]:
        """Start a batch and return it as it stands; Problem for a parameter that cannot be."""
        if not isinstance(body, dict):
            raise invalid_body()
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
        stored = self._files.get_file(body["input_file_id"])
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
            "id": self._files.create_id("batch_"),
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
        late = self._model.faults.draw_expiry() or forced == "expire"
        if late:
            self._model.count_fault("expire")
        self._start_task(self._run_batch(batch, stored, late, forced))
        return dict(batch)

    def cancel_batch(self, name: str) -> dict[str, Any]:
        """Ask a batch to stop; what is done by then can be read."""
        batch = self.get_batch(name)
        if batch["status"] not in ("validating", "in_progress", "cancelling"):
            raise Problem(400, f"Cannot cancel a batch with status '{batch['status']}'.")
        _set_status(batch, "cancelling")
        return dict(batch)

    async def _run_batch(
        self, batch: dict[str, Any], stored: StoredFile, late: bool, forced: str
    ) -> None:
        """Take a batch through its states."""
        start = time.monotonic()
        await asyncio.sleep(self._seconds / 10)
        lines, errors = read_batch_file(stored.data, batch["endpoint"])
        if errors:
            batch["errors"] = {"object": "list", "data": errors[:SHOWN]}
            _set_status(batch, "failed")
            return
        batch["request_counts"] = {"total": len(lines), "completed": 0, "failed": 0}
        if batch["status"] == "validating":
            _set_status(batch, "in_progress")
        good, bad = await self._answer_lines(
            batch, lines, late, "" if forced == "expire" else forced, start
        )
        if batch["status"] == "in_progress" and not late:
            _set_status(batch, "finalizing")
            await asyncio.sleep(self._seconds / 10)
        for key, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
                batch[key] = self._files.add_file(
                    f"{batch['id']}_{key.partition('_')[0]}.jsonl", "batch_output", data
                )["id"]
        if batch["status"] == "cancelling":
            _set_status(batch, "cancelled")
        else:
            _set_status(batch, "expired" if late else "completed")

    async def _answer_lines(
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
                "id": self._files.create_id("batch_req_"),
                "custom_id": line["custom_id"],
                "response": None,
                "error": None,
            }
            if late and i >= len(lines) // 2:
                message = "This request could not be executed before the completion window expired."
                bad.append({**row, "error": {"code": "batch_expired", "message": message}})
                continue
            status, body = await self._answer_line(batch["endpoint"], line["body"], forced)
            row["response"] = {
                "status_code": status,
                "request_id": self._files.create_id("req_"),
                "body": body,
            }
            (good if status == 200 else bad).append(row)
            batch["request_counts"]["completed" if status == 200 else "failed"] += 1
        return good, bad

    async def _answer_line(
        self, endpoint: str, body: dict[str, Any], forced: str
    ) -> tuple[int, Any]:
        try:
            response = await self._model.answer(
                endpoint, {**body, "stream": None}, forced, batched=True
            )
        except Problem as problem:
            return problem.status, problem.body
        if response.network_fault in LOST:
            return (
                500,
                Problem(
                    500, f"The answer was lost ({response.network_fault}, a fault on demand)."
                ).body,
            )
        return response.status, (
            json.loads(response.body) if isinstance(response.body, bytes) else response.body
        )


def _set_status(batch: dict[str, Any], status: str) -> None:
    batch["status"] = status
    batch[f"{status}_at"] = int(time.time())


def read_batch_file(
    data: bytes, endpoint: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
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
