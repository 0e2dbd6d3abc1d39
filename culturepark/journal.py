"""A run's memory: one SQLite file that holds every call, turn, opinion, verdict and sample as it
happens.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from culturepark.atomic import sync_folder, write_text
from culturepark.errors import InputError, JournalError, Locked, ParkError
from culturepark.records import MARKS, Dialogue, Fault, Opinion, Record, Reply, Sample, Scene, Turn

R = TypeVar("R", bound=Record)
VERSION = 2
COMMIT_EVERY = 0.05  # seconds between commits outside of an event loop
BUSY = 5.0  # seconds that another program may hold the file before a write fails
GO_ON = "then go on: the same command, or --resume"
DAMAGED = (
    "The file is damaged: put a backup of it in its place, or throw the run away with --fresh."
)
# a file beside every journal: one that is gone is never taken for one that is not yet there
BEGUN = "journal.begun"
LEFT = (
    "journal.sqlite-wal",
    "journal.sqlite.crc",
    BEGUN,
    "corpus",
    "report",
)  # what only a folder with a journal gets
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
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE scenes (id TEXT PRIMARY KEY, ordinal INTEGER NOT NULL, culture TEXT NOT NULL, question TEXT NOT NULL,
    scene TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, refined TEXT);
CREATE INDEX scenes_order ON scenes (culture, ordinal);
CREATE TABLE turns (dialogue TEXT NOT NULL, n INTEGER NOT NULL, turn TEXT NOT NULL,
    PRIMARY KEY (dialogue, n)) WITHOUT ROWID;
CREATE TABLE calls (id INTEGER PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL, role TEXT NOT NULL,
    model TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER, usd REAL, ms REAL NOT NULL,
    attempts INTEGER NOT NULL, lost INTEGER NOT NULL, faults TEXT NOT NULL, shares TEXT NOT NULL DEFAULT '',
    reasoning TEXT NOT NULL DEFAULT '');
CREATE INDEX calls_key ON calls (key);
CREATE TABLE holds (id INTEGER PRIMARY KEY, usd REAL NOT NULL, tokens INTEGER NOT NULL, key TEXT NOT NULL);
CREATE TABLE waves (id TEXT PRIMARY KEY, line TEXT NOT NULL, batch TEXT, status TEXT NOT NULL, keys TEXT NOT NULL);
CREATE TABLE opinions (id TEXT PRIMARY KEY, dialogue TEXT NOT NULL, n INTEGER NOT NULL, culture TEXT NOT NULL,
    question TEXT NOT NULL, dropped TEXT NOT NULL, mark TEXT, opinion TEXT NOT NULL);
CREATE INDEX opinions_order ON opinions (dialogue, n);
CREATE INDEX opinions_mark ON opinions (culture, question, mark);
CREATE TABLE samples (rank INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, culture TEXT NOT NULL, question TEXT NOT NULL,
    split TEXT NOT NULL, sample TEXT NOT NULL);
CREATE INDEX samples_order ON samples (split, rank);
"""
TOLD = tuple(f.name for f in fields(Reply) if f.name != "final")


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep every other process from writing the journal in `folder` meanwhile; Locked where one
    does.
    """
    lock = FileLock(str(folder / "journal.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise Locked(_taken(folder)) from error
    try:
        yield
    finally:
        lock.release()


def _taken(folder: Path) -> str:
    return (
        f"{folder} is being written by another process; wait for it, or give this run another name"
    )


def require(folder: Path) -> None:
    """Raise JournalError where the journal in `folder` is gone though there was one; a new run has
    none yet.
    """
    path = folder / "journal.sqlite"
    left = [
        found
        for name in LEFT
        if (found := folder / name).is_dir() or (found.is_file() and found.stat().st_size)
    ]
    if (
        left and not path.exists()
    ):  # in this order: another process may be making both, the journal first
        raise JournalError(f"{path} is gone, but {left[0].name} is there: {GONE}")


class Journal:
    """One run's journal. Open it for writing once at a time; any number of readers may look on."""

    def __init__(self, folder: Path, *, write: bool = True) -> None:
        self.path = folder / "journal.sqlite"
        self._lock = FileLock(str(folder / "journal.lock"), blocking=False) if write else None
        self._failure: JournalError | None = (
            None  # the first write that failed: from then on every write does
        )
        self._raised = False  # whether somebody has met it
        self._stop: Callable[[], object] | None = None
        if not write:
            require(folder)
        if not write and not self.path.exists():
            raise InputError(f"no run at {folder}: there is no journal.sqlite in it")
        try:
            if self._lock:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
            require(folder)
            if not self.path.exists():
                self._create()
            self._db = self._connect(write)
            if write and not (mark := folder / BEGUN).exists():
                write_text(mark, f"{self.path.name} was begun here.\n")
            self._check(write)
            self._told = _columns(self._db, write=write)
        except (Timeout, OSError, sqlite3.Error) as error:
            self._leave()
            raise self._unopened(error) from error
        except BaseException:
            self._leave()
            raise
        self._last, self._open, self._due = time.monotonic(), True, False

    def _create(self) -> None:
        """Make an empty journal beside its place and move it there, so that a journal without
        tables is a damaged one.
        """
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.unlink(missing_ok=True)
        db = sqlite3.connect(partial, isolation_level=None)
        try:
            db.executescript(
                "BEGIN;" + SCHEMA + f"INSERT INTO meta VALUES ('version', '{VERSION}');COMMIT;"
            )
        finally:
            db.close()
        partial.replace(self.path)
        sync_folder(self.path.parent)

    def _connect(self, write: bool) -> sqlite3.Connection:
        where = str(self.path) if write else f"{self.path.absolute().as_uri()}?mode=ro"
        db = sqlite3.connect(
            where, BUSY, uri=not write, isolation_level=None, check_same_thread=False
        )
        if write:
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
            except sqlite3.Error:
                db.close()
                raise
        return db

    def _check(self, write: bool) -> None:
        """Raise JournalError for a journal of another version, or one that is not as it was
        left.
        """
        version = self.meta("version") or "0"
        if version != str(VERSION):
            newer = version.isdecimal() and int(version) > VERSION
            raise JournalError(
                f"{self.path} has version {version}, this CulturePark reads version {VERSION}; "
                f"{'update CulturePark' if newer else 'run it again from its run.toml'}"
            )
        checksum = self._beside(".crc")
        if not checksum.exists():
            if (
                write
            ):  # killed, or from before there were checksums: is at least its structure sound?
                self._check_structure()
        elif (
            checksum.read_bytes() != _crc(self.path).encode() and checksum.exists()
        ):  # a writer takes it away first
            raise JournalError(
                f"{self.path} is not as it was left: it was damaged, or changed by another program."
                " Put a backup of it in its place, or throw the run away with --fresh; if the"
                f" change is right, delete {checksum.name}."
            )
        if write and checksum.exists():
            checksum.unlink()
            sync_folder(checksum.parent)

    def _check_structure(self) -> None:
        ((found,),) = self._rows("PRAGMA quick_check(1)")
        if found != "ok":
            raise JournalError(f"{self.path}: {' '.join(str(found).split())}. {DAMAGED}")

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _unopened(self, error: Exception) -> ParkError:
        """Return the error with which opening ends."""
        folder = self.path.parent
        if isinstance(error, Timeout):
            return Locked(_taken(folder))
        if isinstance(error, sqlite3.Error) and _code(error) in ADVICE:
            return JournalError(f"cannot open {self.path}: {error}. {ADVICE[_code(error)]}")
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
                with suppress(
                    ParkError, OSError
                ):  # without a checksum the next one looks at the structure alone
                    write_text(self._beside(".crc"), _crc(self.path))
            self._leave()

    def _leave(self) -> None:
        db: sqlite3.Connection | None = getattr(self, "_db", None)
        if db is not None:
            db.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------- writing

    def _write(self, sql: str, values: Iterable[Any], *, hold: bool = False) -> None:
        """Write now; commit with whatever else this round of the event loop brings, unless told to
        hold.

        So a kill costs what was in flight, and nothing that was answered.
        """
        self.check()
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute(sql, tuple(values))
        except (
            sqlite3.IntegrityError
        ) as error:  # this statement alone is wrong: the journal is sound
            raise JournalError(f"cannot write to {self.path}: {error}") from error
        except sqlite3.Error as error:
            raise self._give_up(error) from error
        if hold or self._due:
            return
        try:
            asyncio.get_running_loop().call_soon(self._tick)
            self._due = True
        except RuntimeError:
            if time.monotonic() - self._last > COMMIT_EVERY:
                self.commit()

    def _tick(self) -> None:
        self._due = False
        if self._open and self._failure is None:
            try:
                self.commit()
            except (
                JournalError
            ):  # nobody is here to meet it: the guarded task will, or whoever writes next
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

    async def committed(self) -> None:
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
        advice = ADVICE.get(_code(error), f"Mend the cause, {GO_ON}.")
        self._raised = True
        self._failure = JournalError(
            f"cannot write to {self.path}: {error}. {self._safe()}{advice}"
        )
        if self._stop is not None:
            self._stop()
        return self._failure

    def _safe(self) -> str:
        """Return what is committed, in words; nothing where even that cannot be read."""
        try:
            ((calls, turns),) = self._db.execute(
                "SELECT (SELECT COUNT(*) FROM calls), (SELECT COUNT(*) FROM turns)"
            )
        except sqlite3.Error:
            return ""
        return f"Safe in it are {calls:,} calls and {turns:,} turns. "

    def open_scene(self, scene: Scene) -> None:
        """Note that a dialogue is to be held; a known one is left as it is."""
        self._write(
            "INSERT OR IGNORE INTO scenes VALUES (?, ?, ?, ?, ?, 'open', '', NULL)",
            (scene.id, scene.ordinal, scene.culture, scene.question, scene.model_dump_json()),
        )

    def add_turn(self, dialogue: str, turn: Turn) -> None:
        """Keep one turn. A turn is written once: a second one in its place is an error."""
        self._write(
            "INSERT INTO turns VALUES (?, ?, ?)", (dialogue, turn.n, turn.model_dump_json())
        )

    def end_scene(self, dialogue: str, status: str, reason: str) -> None:
        """Say that a dialogue has ended, and why."""
        self._write(
            "UPDATE scenes SET status = ?, reason = ? WHERE id = ?", (status, reason, dialogue)
        )

    def add_call(self, key: str, subject: str, role: str, reply: Reply) -> None:
        """Keep one model call and what came of it."""
        faults = (
            "[" + ",".join(f.model_dump_json() for f in reply.faults) + "]" if reply.faults else ""
        )
        # By name: in a journal from before a column was kept, it stands at the end.
        self._write(
            "INSERT INTO calls (key, subject, role, model, status, reason, text, prompt_tokens,"
            " completion_tokens, cached_tokens, usd, ms, attempts, lost, faults, shares, reasoning)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                subject,
                role,
                reply.model,
                reply.status,
                reply.reason,
                reply.text,
                reply.prompt_tokens,
                reply.completion_tokens,
                reply.cached_tokens,
                reply.usd,
                round(reply.ms, 2),
                reply.attempts,
                reply.lost,
                faults,
                json.dumps(reply.shares) if reply.shares else "",
                reply.reasoning,
            ),
        )

    def unparsed(self, key: str, why: str) -> None:
        """Note that the answer of a call cannot be read, so that it is not taken for one when the
        run goes on.
        """
        self._write(
            "UPDATE calls SET status = 'unparsed', reason = ? WHERE id = (SELECT MAX(id) FROM calls"
            " WHERE key = ?)",
            (why, key),
        )

    def refined(
        self, scene: Scene, opinions: Iterable[tuple[Opinion, str | None]], outcome: str
    ) -> None:
        """Keep what came of refining one dialogue. Done again after a kill, it overwrites itself
        with the same.
        """
        for opinion, mark in opinions:
            self._write(
                "INSERT OR REPLACE INTO opinions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    opinion.id,
                    opinion.dialogue,
                    opinion.n,
                    scene.culture,
                    scene.question,
                    opinion.dropped,
                    mark,
                    opinion.model_dump_json(),
                ),
            )
        self._write("UPDATE scenes SET refined = ? WHERE id = ?", (outcome, scene.id))

    def set_samples(self, samples: Iterable[Sample]) -> int:
        """Replace the corpus in one transaction; return how many samples it has."""
        self.commit()
        count = 0
        self._write("DELETE FROM samples", (), hold=True)
        for count, s in enumerate(samples, 1):
            row = (count, s.id, s.culture, s.question, s.split, s.model_dump_json())
            self._write("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?)", row, hold=True)
        self.commit()
        return count

    def drop(self, opinion: Opinion) -> None:
        """Overwrite an opinion that a later comparison has dropped."""
        self._write(
            "UPDATE opinions SET dropped = ?, opinion = ? WHERE id = ?",
            (opinion.dropped, opinion.model_dump_json(), opinion.id),
        )

    # --------------------------------------------------------------- ledger

    def spent(self) -> tuple[float, int]:
        """Return USD and tokens of all calls so far, and of every call that was sent and never
        heard of again.
        """
        ((usd, tokens),) = self._rows(
            "SELECT TOTAL(usd), CAST(TOTAL(tokens) AS INTEGER) FROM (SELECT usd,"
            " COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0) AS tokens FROM calls"
            " UNION ALL SELECT usd, tokens FROM holds)"
        )
        return float(usd), int(tokens)

    def hold(self, usd: float, tokens: int, key: str) -> int:
        """Write down, at once, what a call that is about to be sent can cost at most; return the
        hold's number.
        """
        self._write("INSERT INTO holds VALUES (NULL, ?, ?, ?)", (usd, tokens, key), hold=True)
        ((number,),) = self._rows("SELECT last_insert_rowid()")
        self.commit()
        return int(number)

    def held(self) -> dict[str, tuple[int, float, int]]:
        """Return the holds of calls that can still be answered (those with a key): number, USD and
        tokens by key.
        """
        return {
            key: (number, usd, tokens)
            for number, usd, tokens, key in self._rows("SELECT * FROM holds WHERE key != ''")
        }

    def free(self, hold: int) -> None:
        """Forget a hold, in one transaction with the call that is written next."""
        self._write("DELETE FROM holds WHERE id = ?", (hold,), hold=True)

    def lower(self, hold: int, usd: float, tokens: int) -> None:
        """Lower a hold to what stays of it, in one transaction with the call that is written
        next.
        """
        self._write(
            "UPDATE holds SET usd = ?, tokens = ?, key = '' WHERE id = ?",
            (usd, tokens, hold),
            hold=True,
        )

    # ---------------------------------------------------------------- waves

    def set_wave(
        self, wave: str, line: str, batch: str | None, status: str, keys: Iterable[str]
    ) -> None:
        """Write down, at once, where a wave of batched calls stands; `keys` are the calls in it."""
        self._write(
            "INSERT OR REPLACE INTO waves VALUES (?, ?, ?, ?, ?)",
            (wave, line, batch, status, " ".join(keys)),
            hold=True,
        )
        self.commit()

    def waves(self, line: str) -> list[tuple[str, str | None, str, list[str]]]:
        """Return the waves of a line that are not done: id, the provider's batch, status, keys."""
        rows = self._rows(
            "SELECT id, batch, status, keys FROM waves WHERE line = ? AND status != 'done' ORDER BY"
            " rowid",
            line,
        )
        return [(wave, batch, status, keys.split()) for wave, batch, status, keys in rows]

    # -------------------------------------------------------------- reading

    def _rows(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            advice = f". {ADVICE[_code(error)]}" if _code(error) in ADVICE else ""
            raise JournalError(f"cannot read {self.path}: {error}{advice}") from error

    def _parse(self, kind: type[R], text: Any) -> R:
        """Return a record as it was kept; JournalError where it is not one any more."""
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise self._unread(kind.__name__.lower(), error) from error

    def _unread(self, what: str, error: Exception) -> JournalError:
        return JournalError(
            f"{self.path} holds a {what} that cannot be read ({str(error).splitlines()[0]})."
            f" {DAMAGED}"
        )

    def meta(self, key: str) -> str | None:
        """Return what the journal says of itself under `key`; None where it says nothing."""
        return next(
            (str(value) for (value,) in self._rows("SELECT value FROM meta WHERE key = ?", key)),
            None,
        )

    def set_meta(self, key: str, value: str) -> None:
        """Write down, at once, what the journal says of itself under `key`."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value), hold=True)
        self.commit()

    def known(self, key: str) -> Reply | None:
        """Return the answer that this run got for a call; None where it got none."""
        return self._reply(key, "AND status = 'ok'")

    def reply(self, key: str) -> Reply | None:
        """Return the last reply to a call, whatever came of it; an answer that could not be read
        comes back as the text it is.
        """
        return self._reply(key)

    def _reply(self, key: str, only: str = "") -> Reply | None:
        columns = ", ".join(self._told)
        for row in self._rows(
            f"SELECT {columns} FROM calls WHERE key = ? {only} ORDER BY id DESC LIMIT 1", key
        ):
            told: dict[str, Any] = dict(zip(self._told, row, strict=True))
            try:
                told["shares"] = tuple(json.loads(told["shares"])) if told.get("shares") else ()
                told["faults"] = (
                    tuple(map(Fault.model_validate, json.loads(told["faults"])))
                    if told["faults"]
                    else ()
                )
            except (ValueError, TypeError) as error:
                raise self._unread("call", error) from error
            return Reply(
                **told | ({"status": "ok", "reason": ""} if told["status"] == "unparsed" else {})
            )
        return None

    def status(self, dialogue: str) -> str | None:
        """Return a dialogue's status, None when it was never opened."""
        return next(
            (s for (s,) in self._rows("SELECT status FROM scenes WHERE id = ?", dialogue)), None
        )

    def outcome(self, dialogue: str) -> str | None:
        """Return how refining a dialogue ended, None when it has not been refined."""
        return next(
            (r for (r,) in self._rows("SELECT refined FROM scenes WHERE id = ?", dialogue)), None
        )

    def turns(self, dialogue: str) -> tuple[Turn, ...]:
        """Return a dialogue's turns in order."""
        rows = self._rows("SELECT turn FROM turns WHERE dialogue = ? ORDER BY n", dialogue)
        return tuple(self._parse(Turn, t) for (t,) in rows)

    def marked_turns(self, by: Literal["culture", "model"]) -> list[dict[str, Any]]:
        """Return how many turns each culture or model has, how many of them are marked, and how
        many carry each mark.
        """
        column = {
            "culture": "(SELECT culture FROM scenes WHERE id = t.dialogue)",
            "model": (
                "COALESCE((SELECT model FROM calls WHERE key = json_extract(t.turn, '$.call') LIMIT"
                " 1), '')"
            ),
        }[by]
        sums = ", ".join(
            f"""TOTAL(INSTR(json_extract(t.turn, '$.marks'), '"{mark}"') > 0)""" for mark in MARKS
        )
        marked = "TOTAL(json_array_length(t.turn, '$.marks') > 0)"
        rows = self._rows(
            f"SELECT {column}, COUNT(*), {marked}, {sums} FROM turns t GROUP BY 1 ORDER BY 1"
        )
        names = ("turns", "marked", *MARKS)
        return [
            {by: who} | dict(zip(names, map(int, counts), strict=True)) for who, *counts in rows
        ]

    def dialogue(self, dialogue: str) -> Dialogue | None:
        """Return a dialogue as far as it has come."""
        for scene, status, reason in self._rows(
            "SELECT scene, status, reason FROM scenes WHERE id = ?", dialogue
        ):
            return Dialogue(
                scene=self._parse(Scene, scene),
                turns=self.turns(dialogue),
                status=status,
                reason=reason,
            )
        return None

    def scenes(self, where: str = "1", *values: Any) -> Iterator[Scene]:
        """Yield scenes in order, a page at a time, so that memory does not grow with the run."""
        after = ("", -1)
        while True:
            rows = list(
                self._rows(
                    f"SELECT culture, ordinal, scene FROM scenes WHERE ({where}) AND (culture,"
                    " ordinal) > (?, ?) ORDER BY culture, ordinal LIMIT 200",
                    *values,
                    *after,
                )
            )
            for _, _, scene in rows:
                yield self._parse(Scene, scene)
            if len(rows) < 200:
                return
            after = rows[-1][:2]

    def opinions(self, dialogue: str) -> tuple[Opinion, ...]:
        """Return a dialogue's opinions, kept and dropped, in order."""
        rows = self._rows("SELECT opinion FROM opinions WHERE dialogue = ? ORDER BY n", dialogue)
        return tuple(self._parse(Opinion, o) for (o,) in rows)

    def opinion(self, opinion: str) -> Opinion | None:
        """Return one opinion by its id."""
        rows = self._rows("SELECT opinion FROM opinions WHERE id = ?", opinion)
        return next((self._parse(Opinion, o) for (o,) in rows), None)

    def rejected(self) -> Iterator[tuple[str, str, Opinion]]:
        """Yield culture, question and opinion of everything that was dropped, in order."""
        for culture, question, opinion in self._rows(
            "SELECT o.culture, o.question, o.opinion FROM scenes s CROSS JOIN opinions o ON"
            " o.dialogue = s.id WHERE o.dropped != '' ORDER BY s.culture, s.ordinal, o.n"
        ):
            yield culture, question, self._parse(Opinion, opinion)

    def twins(self) -> list[tuple[str, str]]:
        """Return the ids of kept opinions that repeat an earlier one of the same culture and
        question, each with that one's.
        """
        seen = self._rows(
            "SELECT id, first FROM (SELECT o.id AS id, FIRST_VALUE(o.id) OVER (PARTITION BY"
            " o.culture, o.question, o.mark ORDER BY s.ordinal, o.n) AS first FROM opinions o JOIN"
            " scenes s ON s.id = o.dialogue WHERE o.dropped = '') WHERE id != first"
        )
        return [(twin, first) for twin, first in seen]

    def kept(self) -> Iterator[tuple[Opinion, str]]:
        """Yield every kept opinion with its dialogue's scene (JSON), by culture, dialogue and
        place.
        """
        for opinion, scene in self._rows(
            "SELECT o.opinion, s.scene FROM scenes s CROSS JOIN opinions o ON o.dialogue = s.id "
            "WHERE o.dropped = '' ORDER BY s.culture, s.ordinal, o.n"
        ):
            yield self._parse(Opinion, opinion), scene

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        """Yield the corpus in order."""
        where, values = ("split = ?", (split,)) if split else ("1", ())
        for (sample,) in self._rows(
            f"SELECT sample FROM samples WHERE {where} ORDER BY rank", *values
        ):
            yield self._parse(Sample, sample)

    def sample(self, sample: str) -> Sample | None:
        """Return one sample by its id, or by the beginning of it where only one has it."""
        pattern = sample.replace("%", "").replace("_", "") + "%"
        rows = list(self._rows("SELECT sample FROM samples WHERE id LIKE ? LIMIT 2", pattern))
        return self._parse(Sample, rows[0][0]) if len(rows) == 1 else None

    def ranked(self, rank: int) -> Sample:
        """Return the sample that stands at this place of the corpus; JournalError where none
        does.
        """
        for (sample,) in self._rows("SELECT sample FROM samples WHERE rank = ?", rank):
            return self._parse(Sample, sample)
        raise JournalError(f"{self.path} has no sample at rank {rank}")

    def asked(self, split: str) -> Iterator[list[tuple[int, str, int, str]]]:
        """Yield, a question of the split at a time, the rank, culture, answer and completion of its
        samples, by culture.
        """
        rows = self._rows(
            "SELECT question, rank, culture, json_extract(sample, '$.answer'), json_extract(sample,"
            " '$.completion') FROM samples WHERE split = ? ORDER BY question, culture, rank",
            split,
        )
        for _, same in groupby(rows, key=lambda row: row[0]):
            yield [
                (rank, culture, answer, completion) for _, rank, culture, answer, completion in same
            ]

    @property
    def keeps_reasoning(self) -> bool:
        """Whether the journal has a place for what models thought; one from before that, only read,
        has none.
        """
        return "reasoning" in self._told

    def count(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a counting query (reports and benchmarks)."""
        return list(self._rows(sql, *values))


def _columns(db: sqlite3.Connection, *, write: bool) -> tuple[str, ...]:
    """Return the columns of a call that its reply is made of; an older journal that is written gets
    those it lacks, in order.
    """
    there = {name for _, name, *_ in db.execute("PRAGMA table_info(calls)")}
    for name in ("shares", "reasoning"):
        if write and name not in there:
            db.execute(f"ALTER TABLE calls ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
            there.add(name)
    return tuple(name for name in TOLD if name in there)


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; 0 where Python itself complains."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _crc(path: Path) -> str:
    """Return a file's length and CRC-32."""
    total = length = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total, length = zlib.crc32(block, total), length + len(block)
    return f"{length} {total:08x}\n"
