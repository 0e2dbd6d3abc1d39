"""Files in memory: uploaded, listed, read and deleted, under OpenAI's names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from culturepark.serving.limits import LimitMonitor
from culturepark.serving.problems import Problem

PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")
OUTPUTS = ("batch_output", "fine-tune-results")  # purposes of the files that the server makes


@dataclass(frozen=True)
class StoredFile:
    """One file."""

    id: str
    filename: str
    purpose: str
    created_at: int
    data: bytes = field(repr=False)

    @property
    def entry(self) -> dict[str, Any]:
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


class FileStore:
    """The files of one server, and the ids of all that it makes."""

    def __init__(self, monitor: LimitMonitor) -> None:
        self._monitor, self._arriving, self._ids = monitor, 0, 0
        self._files: dict[str, StoredFile] = {}

    def create_id(self, prefix: str) -> str:
        """Return a new id that begins with `prefix`."""
        self._ids += 1
        return f"{prefix}{self._ids:08x}"

    @contextmanager
    def reserve_room(self) -> Iterator[Callable[[int], None]]:
        """Yield what reserves so many more bytes for one upload; Problem where all files together
        would be too large.
        """
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            reserved, self._arriving = reserved + size, self._arriving + size
            total = sum(len(f.data) for f in self._files.values()) + self._arriving
            if total > (most := self._monitor.limits.files):
                message = (
                    f"All files together are larger than {most} bytes, which is what this server"
                    " keeps; delete some."
                )
                raise self._monitor.reach("files", message, param="file")

        try:
            yield reserve
        finally:
            self._arriving -= reserved

    def add_file(self, filename: str, purpose: str, data: bytes) -> dict[str, Any]:
        """Keep a file and return its object; Problem for a purpose that there is not."""
        if purpose not in (*PURPOSES, *OUTPUTS):
            message = f"Invalid value for 'purpose': {purpose!r}; there are: {', '.join(PURPOSES)}."
            raise Problem(400, message, param="purpose")
        file = StoredFile(self.create_id("file-"), filename, purpose, int(time.time()), data)
        self._files[file.id] = file
        return file.entry

    def get_file(self, name: str) -> StoredFile:
        """Return a file; Problem 404 where there is none."""
        if name not in self._files:
            raise Problem(404, f"No such File object: {name}", param="id")
        return self._files[name]

    def list_files(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the list of files, the newest first; `purpose`, `after` and `limit` choose."""
        purpose = query.get("purpose")
        files = [f.entry for f in reversed(self._files.values()) if purpose in (None, f.purpose)]
        return build_page(files, query, 10_000)

    def delete_file(self, name: str) -> dict[str, Any]:
        """Forget a file; Problem 404 where there is none."""
        self.get_file(name)
        del self._files[name]
        return {"id": name, "object": "file", "deleted": True}


def build_page(
    entries: Iterable[dict[str, Any]], query: Mapping[str, str], limit: int
) -> dict[str, Any]:
    """Return a page of a list: what comes `after` an id, at most `limit`; Problem for a page that
    cannot be.
    """
    rows = list(entries)
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
