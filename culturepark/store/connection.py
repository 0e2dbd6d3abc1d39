"""One open database: locked, checked, committed once per round of the event loop, and closed with a
checksum.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from culturepark.atomic import sync_folder, write_text
from culturepark.errors import InputError, JournalError, Locked, ParkError
from culturepark.records import Record
from culturepark.store.files import (
    ADVICE,
    BEGUN,
    DAMAGED,
    GO_ON,
    GONE,
    LOCK,
    NAME,
    compute_checksum,
    describe_lock,
    find_checksum,
    read_code,
    require_database,
)
from culturepark.store.reasons import register_reasons
from culturepark.store.schema import VERSION, add_columns, create_database
from culturepark.store.shards import (
    attach_shard,
    choose_shard,
    join_tables,
    list_shards,
    name_schemas,
)

R = TypeVar("R", bound=Record)
COMMIT_EVERY = 0.05  # seconds between commits outside of an event loop
BUSY = 5.0  # seconds that another program may hold the file before a write fails


class Connection:
    """A run's database. Open it for writing once at a time; any number of readers may look on.

    `path` is its file, the first of as many `shards` as it was created with. Locked where another
    process writes it, InputError where there is none to read, JournalError where it is damaged,
    lost or of another version.
    """

    def __init__(self, folder: Path, *, write: bool = True, shards: int = 1) -> None:
        self.path = folder / NAME
        self._lock = FileLock(str(folder / LOCK), blocking=False) if write else None
        # The first write that failed: from then on every write does.
        self._failure: JournalError | None = None
        self._raised = False  # whether somebody has met it
        self._stop: Callable[[], object] | None = None
        if not write:
            require_database(folder)
        if not write and not self.path.exists():
            raise InputError(f"no run at {folder}: there is no {NAME} in it")
        try:
            if self._lock:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
            require_database(folder)
            if not self.path.exists():
                # The first one last: where it is, all are.
                for path in reversed(list_shards(self.path, shards)):
                    create_database(path, shards)
            self._db = self._connect(write)
            if write and not (mark := folder / BEGUN).exists():
                write_text(mark, f"{NAME} was begun here.\n")
            self._check_version()
            self._check_content("main", self.path, write)
            self._shards = list_shards(self.path, self._count_shards())
            self._attach(write)
            if write:
                self._remove_checksums()
                add_columns(self._db)
        except (Timeout, OSError, sqlite3.Error) as error:
            self._leave()
            raise self._explain_opening(error) from error
        except BaseException:
            self._leave()
            raise
        self._last, self._open, self._due = time.monotonic(), True, False

    def _connect(self, write: bool) -> sqlite3.Connection:
        where = str(self.path) if write else f"{self.path.absolute().as_uri()}?mode=ro"
        db = sqlite3.connect(
            where, BUSY, uri=not write, isolation_level=None, check_same_thread=False
        )
        register_reasons(db)
        if write:
            try:
                _log_ahead(db, "main")
            except sqlite3.Error:
                db.close()
                raise
        return db

    def _attach(self, write: bool) -> None:
        """Open the other shards beside the first; JournalError names the one that cannot be."""
        schemas = name_schemas(len(self._shards))
        for schema, path in zip(schemas[1:], self._shards[1:], strict=True):
            if not path.exists():
                raise JournalError(f"{path} is gone, but {NAME} is there: {GONE}")
            try:
                attach_shard(self._db, schema, path, write=write)
                if write:
                    _log_ahead(self._db, schema)
            except sqlite3.Error as error:
                raise JournalError(f"cannot open {path}: {error}. {DAMAGED}") from error
            self._check_content(schema, path, write)
        join_tables(self._db, schemas)

    def choose_shard(self, scene: str) -> str:
        """Return the name of the database in which a scene, by its id, has its place."""
        return choose_shard(scene, len(self._shards))

    def _check_version(self) -> None:
        version = self.read_meta("version") or "0"
        if version != str(VERSION):
            newer = version.isdecimal() and int(version) > VERSION
            raise JournalError(
                f"{self.path} has version {version}, this CulturePark reads version {VERSION}; "
                f"{'update CulturePark' if newer else 'run it again from its run.toml'}"
            )

    def _check_content(self, schema: str, path: Path, write: bool) -> None:
        """Raise JournalError for a database that is not as it was left."""
        checksum = find_checksum(path)
        if not checksum.exists():
            # Killed, or from before there were checksums: is at least its structure sound?
            if write:
                self._check_structure(schema, path)
            return
        # A writer that came between takes the checksum away first.
        if checksum.read_bytes() != compute_checksum(path).encode() and checksum.exists():
            raise JournalError(
                f"{path} is not as it was left: it was damaged, or changed by another program."
                " Put a backup of it in its place, or throw the run away with --fresh; if the"
                f" change is right, delete {checksum.name}."
            )

    def _remove_checksums(self) -> None:
        for path in self._shards:
            find_checksum(path).unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _count_shards(self) -> int:
        count = self.read_meta("shards") or "1"  # stores of the first versions have one
        if not count.isdecimal():
            raise JournalError(f"{self.path} does not say how many files it has. {DAMAGED}")
        return int(count)

    def _check_structure(self, schema: str, path: Path) -> None:
        ((answer,),) = self.select(f"PRAGMA {schema}.quick_check(1)")
        if answer != "ok":
            raise JournalError(f"{path}: {' '.join(str(answer).split())}. {DAMAGED}")

    def _explain_opening(self, error: Exception) -> ParkError:
        """Return the error with which opening ends."""
        folder = self.path.parent
        if isinstance(error, Timeout):
            return Locked(describe_lock(folder))
        if isinstance(error, sqlite3.Error) and read_code(error) in ADVICE:
            return JournalError(f"cannot open {self.path}: {error}. {ADVICE[read_code(error)]}")
        return InputError(f"cannot open the journal in {folder}: {error}")

    def close(self) -> None:
        """Commit what is pending and let go of the run; JournalError for a failed write that nobody
        has met yet.
        """
        if not self._open:
            return
        self._open = False
        try:
            if self._failure is None:
                self.commit()
            elif not self._raised:
                self.check()
        finally:
            self._db.close()
            if self._lock and self._failure is None:
                # Without a checksum the next one looks at the structure alone.
                with suppress(ParkError, OSError):
                    for path in self._shards:
                        write_text(find_checksum(path), compute_checksum(path))
            self._leave()

    def _leave(self) -> None:
        db: sqlite3.Connection | None = getattr(self, "_db", None)
        if db is not None:
            db.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------- writing

    def write(self, sql: str, values: Iterable[Any] = (), *, wait: bool = False) -> None:
        """Write now; commit with whatever else this round of the event loop brings, or with the
        next write, where it can `wait`.

        So a kill costs what was in flight, and nothing that was answered.
        """
        self.check()
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute(sql, tuple(values))
        except sqlite3.IntegrityError as error:
            # This statement alone is wrong: the database is sound.
            raise JournalError(f"cannot write to {self.path}: {error}") from error
        except sqlite3.Error as error:
            raise self._give_up(error) from error
        if wait or self._due:
            return
        try:
            asyncio.get_running_loop().call_soon(self._commit_round)
            self._due = True
        except RuntimeError:
            if time.monotonic() - self._last > COMMIT_EVERY:
                self.commit()

    def _commit_round(self) -> None:
        self._due = False
        if self._open and self._failure is None:
            try:
                self.commit()
            except JournalError:
                # Nobody is here to meet it: the guarded task will, or whoever writes next.
                self._raised = False

    def commit(self) -> None:
        """Make everything written so far survive a kill."""
        self.check()
        self._last = time.monotonic()
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._give_up(error) from error

    def check(self) -> None:
        """Raise the first failure of a write, if there was one: nothing that is asked after it
        could be kept.
        """
        if self._failure is not None:
            self._raised = True
            raise self._failure

    async def wait_for_commit(self) -> None:
        """Wait until what was written so far is committed; raise the failure if it could not be."""
        if self._due:
            await asyncio.sleep(0)
        self.check()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Cancel the current task as soon as a write fails; it ends with that failure, whatever
        else it ends with.
        """
        task = asyncio.current_task()
        self._stop = task.cancel if task else None
        try:
            yield
        except BaseException:
            self.check()
            raise
        finally:
            self._stop = None
        self.check()

    def _give_up(self, error: sqlite3.Error) -> JournalError:
        """Remember a failed write, undo what was written since the last commit, and stop the work
        that goes on.
        """
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        advice = ADVICE.get(read_code(error), f"Mend the cause, {GO_ON}.")
        self._raised = True
        self._failure = JournalError(
            f"cannot write to {self.path}: {error}. {self._describe_committed()}{advice}"
        )
        if self._stop is not None:
            self._stop()
        return self._failure

    def _describe_committed(self) -> str:
        """Return what is committed, in words; nothing where even that cannot be read."""
        try:
            ((calls, turns),) = self._db.execute(
                "SELECT (SELECT COUNT(*) FROM calls), (SELECT COUNT(*) FROM turns)"
            )
        except sqlite3.Error:
            return ""
        return f"Safe in it are {calls:,} calls and {turns:,} turns. "

    # -------------------------------------------------------------- reading

    def iterate(self, sql: str, *values: Any) -> Generator[tuple[Any, ...]]:
        """Yield the rows of a query; JournalError says why it cannot be read."""
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            code = read_code(error)
            advice = f". {ADVICE[code]}" if code in ADVICE else ""
            raise JournalError(f"cannot read {self.path}: {error}{advice}") from error

    def select(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query; JournalError says why it cannot be read."""
        return list(self.iterate(sql, *values))

    def parse(self, kind: type[R], text: Any) -> R:
        """Return a record as it was kept; JournalError where it is not one any more."""
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise self.explain_unreadable(kind.__name__.lower(), error) from error

    def explain_unreadable(self, what: str, error: Exception) -> JournalError:
        """Return the error for a row that does not hold what it held once."""
        return JournalError(
            f"{self.path} holds a {what} that cannot be read ({str(error).splitlines()[0]})."
            f" {DAMAGED}"
        )

    def read_meta(self, key: str) -> str | None:
        """Return what the database says of itself under `key`; None where it says nothing."""
        rows = self.select("SELECT value FROM meta WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Write down, at once, what the database says of itself under `key`."""
        self.write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value), wait=True)
        self.commit()


def _log_ahead(db: sqlite3.Connection, schema: str) -> None:
    """Let readers look on while a database is written; a commit waits for no disk."""
    db.execute(f"PRAGMA {schema}.journal_mode=WAL")
    db.execute(f"PRAGMA {schema}.synchronous=NORMAL")
