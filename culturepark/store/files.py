"""The files of a run's store: the database, its lock, its checksum, and the mark that it was
begun.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from culturepark.errors import JournalError, Locked

NAME = "journal.sqlite"
LOCK = "journal.lock"
BEGUN = "journal.begun"  # stays when the database is lost: one that is gone is not one to be begun
CHECKSUM = ".crc"  # the ending of the file beside a database that holds its length and CRC-32
# What only a folder with a database gets.
LEFT = (f"{NAME}-wal", f"{NAME}{CHECKSUM}", BEGUN, "corpus", "report")
GO_ON = "then go on: the same command, or --resume"
DAMAGED = (
    "The file is damaged: put a backup of it in its place, or throw the run away with --fresh."
)
GONE = (
    "what was asked, answered and paid for is in the journal. Put it back, choose another name, or"
    " throw the run away with --fresh."
)
ADVICE = {  # what to do about a failed write or read, by SQLite's error code
    sqlite3.SQLITE_FULL: f"Free disk space, {GO_ON}.",
    sqlite3.SQLITE_IOERR: f"Free disk space and look whether the disk is sound, {GO_ON}.",
    sqlite3.SQLITE_READONLY: f"Make the folder and its files writable, {GO_ON}.",
    sqlite3.SQLITE_BUSY: f"Another program holds the file; close it, {GO_ON}.",
    sqlite3.SQLITE_ERROR: DAMAGED,  # a table, column or JSON that is not there any more
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep every other process from writing the store in `folder` meanwhile; Locked where one
    does.
    """
    lock = FileLock(str(folder / LOCK), blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise Locked(describe_lock(folder)) from error
    try:
        yield
    finally:
        lock.release()


def describe_lock(folder: Path) -> str:
    """Return what is said where another process holds the lock."""
    return (
        f"{folder} is being written by another process; wait for it, or give this run another name"
    )


def require_database(folder: Path) -> None:
    """Raise JournalError where the database in `folder` is gone though there was one; a new run has
    none yet.
    """
    path = folder / NAME
    left = [place for name in LEFT if _holds_something(place := folder / name)]
    # In this order: another process may be making both, the database first.
    if left and not path.exists():
        raise JournalError(f"{path} is gone, but {left[0].name} is there: {GONE}")


def _holds_something(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.stat().st_size > 0)


def find_checksum(path: Path) -> Path:
    """Return where the checksum of a database stands."""
    return path.with_name(path.name + CHECKSUM)


def compute_checksum(path: Path) -> str:
    """Return a file's length and CRC-32, as its checksum file holds them."""
    total = length = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total, length = zlib.crc32(block, total), length + len(block)
    return f"{length} {total:08x}\n"


def read_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; 0 where Python itself complains."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
