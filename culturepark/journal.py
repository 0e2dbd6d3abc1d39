"""A run's memory: one SQLite file that holds every call, turn, opinion, verdict and sample as it happens."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from culturepark.errors import InputError, JournalError, Locked
from culturepark.records import MARKS, Dialogue, Fault, Opinion, Reply, Sample, Scene, Turn

VERSION = 2
COMMIT_EVERY = 0.05  # seconds between commits outside of an event loop
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
TOLD = tuple(f.name for f in fields(Reply))


class Journal:
    """One run's journal. Open it for writing once at a time; any number of readers may look on."""

    def __init__(self, folder: Path, *, write: bool = True) -> None:
        self.path = folder / "journal.sqlite"
        self._lock = FileLock(str(folder / "journal.lock"), blocking=False) if write else None
        if not write and not self.path.exists():
            raise InputError(f"no run at {folder}: there is no journal.sqlite in it")
        try:
            if self._lock:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
            self._db = self._connect(write)
        except Timeout:
            raise Locked(
                f"{folder} is being written by another process; wait for it, or give this run another name"
            ) from None
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise InputError(f"cannot open the journal in {folder}: {error}") from error
        self._last, self._open, self._due = time.monotonic(), True, False

    def _connect(self, write: bool) -> sqlite3.Connection:
        new = not self.path.exists()
        where = str(self.path) if write else f"{self.path.absolute().as_uri()}?mode=ro"
        db = sqlite3.connect(where, uri=not write, isolation_level=None, check_same_thread=False)
        if write:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
        if new:
            db.executescript("BEGIN;" + SCHEMA + f"INSERT INTO meta VALUES ('version', '{VERSION}');COMMIT;")
        try:
            (found,) = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() or ("0",)
        except sqlite3.DatabaseError as error:
            db.close()
            self._unlock()
            raise JournalError(f"{self.path} is no journal: {error}") from error
        if int(found) != VERSION:
            db.close()
            self._unlock()
            raise JournalError(f"{self.path} has version {found}, this CulturePark reads version {VERSION}; "
                               f"{'update CulturePark' if int(found) > VERSION else 'run it again from its run.toml'}")  # fmt: skip
        self._told = _columns(db, write=write)
        return db

    def _unlock(self) -> None:
        if self._lock:
            self._lock.release()

    def close(self) -> None:
        """Commit what is pending and let go of the run."""
        db: sqlite3.Connection | None = getattr(self, "_db", None)
        self._open = False
        if db is not None:
            try:
                self.commit()
            finally:
                db.close()
        self._unlock()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------- writing

    def _write(self, sql: str, values: Iterable[Any], *, hold: bool = False) -> None:
        """Write now; commit with whatever else this round of the event loop brings, unless told to hold.

        So a kill costs what was in flight, and nothing that was answered.
        """
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute(sql, tuple(values))
        except sqlite3.Error as error:
            raise JournalError(
                f"cannot write to {self.path}: {error}. What was committed is safe: mend the cause, then --resume."
            ) from error
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
        if self._open:
            self.commit()

    def commit(self) -> None:
        """Make everything written so far survive a kill."""
        self._last = time.monotonic()
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(
                f"cannot write to {self.path}: {error}. What was committed is safe: mend the cause, then --resume."
            ) from error

    def open_scene(self, scene: Scene) -> None:
        """Note that a dialogue is to be held; a known one is left as it is."""
        self._write("INSERT OR IGNORE INTO scenes VALUES (?, ?, ?, ?, ?, 'open', '', NULL)",
                    (scene.id, scene.ordinal, scene.culture, scene.question, scene.model_dump_json()))  # fmt: skip

    def add_turn(self, dialogue: str, turn: Turn) -> None:
        """Keep one turn. A turn is written once: a second one in its place is an error."""
        self._write("INSERT INTO turns VALUES (?, ?, ?)", (dialogue, turn.n, turn.model_dump_json()))

    def end_scene(self, dialogue: str, status: str, reason: str) -> None:
        """Say that a dialogue has ended, and why."""
        self._write("UPDATE scenes SET status = ?, reason = ? WHERE id = ?", (status, reason, dialogue))

    def add_call(self, key: str, subject: str, role: str, reply: Reply) -> None:
        """Keep one model call and what came of it."""
        faults = "[" + ",".join(f.model_dump_json() for f in reply.faults) + "]" if reply.faults else ""
        self._write("INSERT INTO calls VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (key, subject, role, reply.model, reply.status, reply.reason, reply.text, reply.prompt_tokens,
                     reply.completion_tokens, reply.cached_tokens, reply.usd, round(reply.ms, 2), reply.attempts, reply.lost,
                     faults, json.dumps(reply.shares) if reply.shares else "", reply.reasoning))  # fmt: skip

    def unparsed(self, key: str, why: str) -> None:
        """Note that the answer of a call cannot be read, so that it is not taken for one when the run goes on."""
        self._write("UPDATE calls SET status = 'unparsed', reason = ? WHERE id = (SELECT MAX(id) FROM calls WHERE key = ?)",
                    (why, key))  # fmt: skip

    def refined(self, scene: Scene, opinions: Iterable[tuple[Opinion, str | None]], outcome: str) -> None:
        """Keep what came of refining one dialogue. Done again after a kill, it overwrites itself with the same."""
        for opinion, mark in opinions:
            self._write("INSERT OR REPLACE INTO opinions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (opinion.id, opinion.dialogue, opinion.n, scene.culture, scene.question, opinion.dropped, mark,
                         opinion.model_dump_json()))  # fmt: skip
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
        """Return USD and tokens of all calls so far, and of every call that was sent and never heard of again."""
        ((usd, tokens),) = self._rows(
            "SELECT TOTAL(usd), CAST(TOTAL(tokens) AS INTEGER) FROM (SELECT usd, COALESCE(prompt_tokens, 0) + "
            "COALESCE(completion_tokens, 0) AS tokens FROM calls UNION ALL SELECT usd, tokens FROM holds)"
        )
        return float(usd), int(tokens)

    def hold(self, usd: float, tokens: int, key: str) -> int:
        """Write down, at once, what a call that is about to be sent can cost at most; return the hold's number."""
        self._write("INSERT INTO holds VALUES (NULL, ?, ?, ?)", (usd, tokens, key), hold=True)
        ((number,),) = self._rows("SELECT last_insert_rowid()")
        self.commit()
        return int(number)

    def held(self) -> dict[str, tuple[int, float, int]]:
        """Return the holds of calls that can still be answered (those with a key): number, USD and tokens by key."""
        return {
            key: (number, usd, tokens) for number, usd, tokens, key in self._rows("SELECT * FROM holds WHERE key != ''")
        }

    def free(self, hold: int) -> None:
        """Forget a hold, in one transaction with the call that is written next."""
        self._write("DELETE FROM holds WHERE id = ?", (hold,), hold=True)

    # ---------------------------------------------------------------- waves

    def set_wave(self, wave: str, line: str, batch: str | None, status: str, keys: Iterable[str]) -> None:
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
            "SELECT id, batch, status, keys FROM waves WHERE line = ? AND status != 'done' ORDER BY rowid", line
        )
        return [(wave, batch, status, keys.split()) for wave, batch, status, keys in rows]

    # -------------------------------------------------------------- reading

    def _rows(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise JournalError(f"cannot read {self.path}: {error}") from error

    def known(self, key: str) -> Reply | None:
        """Return the answer that this run got for a call; None where it got none."""
        return self._reply(key, "AND status = 'ok'")

    def reply(self, key: str) -> Reply | None:
        """Return the last reply to a call, whatever came of it; an answer that could not be read comes back as the text it is."""
        return self._reply(key)

    def _reply(self, key: str, only: str = "") -> Reply | None:
        columns = ", ".join(self._told)
        for row in self._rows(f"SELECT {columns} FROM calls WHERE key = ? {only} ORDER BY id DESC LIMIT 1", key):
            told: dict[str, Any] = dict(zip(self._told, row, strict=True))
            told["shares"] = tuple(json.loads(told["shares"])) if told.get("shares") else ()
            told["faults"] = tuple(map(Fault.model_validate, json.loads(told["faults"]))) if told["faults"] else ()
            return Reply(**told | ({"status": "ok", "reason": ""} if told["status"] == "unparsed" else {}))
        return None

    def status(self, dialogue: str) -> str | None:
        """Return a dialogue's status, None when it was never opened."""
        return next((s for (s,) in self._rows("SELECT status FROM scenes WHERE id = ?", dialogue)), None)

    def outcome(self, dialogue: str) -> str | None:
        """Return how refining a dialogue ended, None when it has not been refined."""
        return next((r for (r,) in self._rows("SELECT refined FROM scenes WHERE id = ?", dialogue)), None)

    def turns(self, dialogue: str) -> tuple[Turn, ...]:
        """Return a dialogue's turns in order."""
        rows = self._rows("SELECT turn FROM turns WHERE dialogue = ? ORDER BY n", dialogue)
        return tuple(Turn.model_validate_json(t) for (t,) in rows)

    def marked_turns(self, by: Literal["culture", "model"]) -> list[dict[str, Any]]:
        """Return how many turns each culture or model has, how many of them are marked, and how many carry each mark."""
        column = {
            "culture": "(SELECT culture FROM scenes WHERE id = t.dialogue)",
            "model": "COALESCE((SELECT model FROM calls WHERE key = json_extract(t.turn, '$.call') LIMIT 1), '')",
        }[by]
        sums = ", ".join(f"""TOTAL(INSTR(json_extract(t.turn, '$.marks'), '"{mark}"') > 0)""" for mark in MARKS)
        marked = "TOTAL(json_array_length(t.turn, '$.marks') > 0)"
        rows = self._rows(f"SELECT {column}, COUNT(*), {marked}, {sums} FROM turns t GROUP BY 1 ORDER BY 1")
        names = ("turns", "marked", *MARKS)
        return [{by: who} | dict(zip(names, map(int, counts), strict=True)) for who, *counts in rows]

    def dialogue(self, dialogue: str) -> Dialogue | None:
        """Return a dialogue as far as it has come."""
        for scene, status, reason in self._rows("SELECT scene, status, reason FROM scenes WHERE id = ?", dialogue):
            return Dialogue(
                scene=Scene.model_validate_json(scene),
                turns=self.turns(dialogue),
                status=status,
                reason=reason,
            )
        return None

    def scenes(self, where: str = "1", *values: Any) -> Iterator[Scene]:
        """Yield scenes in order, a page at a time, so that memory does not grow with the run."""
        after = ("", -1)
        while True:
            rows = list(self._rows(f"SELECT culture, ordinal, scene FROM scenes WHERE ({where}) AND (culture, ordinal) > (?, ?) "
                                   "ORDER BY culture, ordinal LIMIT 200", *values, *after))  # fmt: skip
            for _, _, scene in rows:
                yield Scene.model_validate_json(scene)
            if len(rows) < 200:
                return
            after = rows[-1][:2]

    def opinions(self, dialogue: str) -> tuple[Opinion, ...]:
        """Return a dialogue's opinions, kept and dropped, in order."""
        rows = self._rows("SELECT opinion FROM opinions WHERE dialogue = ? ORDER BY n", dialogue)
        return tuple(Opinion.model_validate_json(o) for (o,) in rows)

    def opinion(self, opinion: str) -> Opinion | None:
        """Return one opinion by its id."""
        rows = self._rows("SELECT opinion FROM opinions WHERE id = ?", opinion)
        return next((Opinion.model_validate_json(o) for (o,) in rows), None)

    def rejected(self) -> Iterator[tuple[str, str, Opinion]]:
        """Yield culture, question and opinion of everything that was dropped, in order."""
        for culture, question, opinion in self._rows(
            "SELECT o.culture, o.question, o.opinion FROM scenes s CROSS JOIN opinions o ON o.dialogue = s.id "
            "WHERE o.dropped != '' ORDER BY s.culture, s.ordinal, o.n"
        ):
            yield culture, question, Opinion.model_validate_json(opinion)

    def twins(self) -> list[tuple[str, str]]:
        """Return the ids of kept opinions that repeat an earlier one of the same culture and question, each with that one's."""
        seen = self._rows(
            "SELECT id, first FROM (SELECT o.id AS id, FIRST_VALUE(o.id) OVER ("
            "PARTITION BY o.culture, o.question, o.mark ORDER BY s.ordinal, o.n) AS first "
            "FROM opinions o JOIN scenes s ON s.id = o.dialogue WHERE o.dropped = '') WHERE id != first"
        )
        return [(twin, first) for twin, first in seen]

    def kept(self) -> Iterator[tuple[Opinion, str]]:
        """Yield every kept opinion with its dialogue's scene (JSON), by culture, dialogue and place."""
        for opinion, scene in self._rows(
            "SELECT o.opinion, s.scene FROM scenes s CROSS JOIN opinions o ON o.dialogue = s.id "
            "WHERE o.dropped = '' ORDER BY s.culture, s.ordinal, o.n"
        ):
            yield Opinion.model_validate_json(opinion), scene

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        """Yield the corpus in order."""
        where, values = ("split = ?", (split,)) if split else ("1", ())
        for (sample,) in self._rows(f"SELECT sample FROM samples WHERE {where} ORDER BY rank", *values):
            yield Sample.model_validate_json(sample)

    def sample(self, sample: str) -> Sample | None:
        """Return one sample by its id, or by the beginning of it where only one has it."""
        pattern = sample.replace("%", "").replace("_", "") + "%"
        rows = list(self._rows("SELECT sample FROM samples WHERE id LIKE ? LIMIT 2", pattern))
        return Sample.model_validate_json(rows[0][0]) if len(rows) == 1 else None

    def ranked(self, rank: int) -> Sample:
        """Return the sample that stands at this place of the corpus; JournalError where none does."""
        for (sample,) in self._rows("SELECT sample FROM samples WHERE rank = ?", rank):
            return Sample.model_validate_json(sample)
        raise JournalError(f"{self.path} has no sample at rank {rank}")

    def asked(self, split: str) -> Iterator[list[tuple[int, str, int, str]]]:
        """Yield, a question of the split at a time, the rank, culture, answer and completion of its samples, by culture."""
        rows = self._rows(
            "SELECT question, rank, culture, json_extract(sample, '$.answer'), json_extract(sample, '$.completion') "
            "FROM samples WHERE split = ? ORDER BY question, culture, rank",
            split,
        )
        for _, same in groupby(rows, key=lambda row: row[0]):
            yield [(rank, culture, answer, completion) for _, rank, culture, answer, completion in same]

    @property
    def keeps_reasoning(self) -> bool:
        """Whether the journal has a place for what models thought; one from before that, only read, has none."""
        return "reasoning" in self._told

    def count(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a counting query (reports and benchmarks)."""
        return list(self._rows(sql, *values))


def _columns(db: sqlite3.Connection, *, write: bool) -> tuple[str, ...]:
    """Return the columns of a call that its reply is made of; an older journal that is written gets those it lacks, in order."""
    there = {name for _, name, *_ in db.execute("PRAGMA table_info(calls)")}
    for name in ("shares", "reasoning"):
        if write and name not in there:
            db.execute(f"ALTER TABLE calls ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
            there.add(name)
    return tuple(name for name in TOLD if name in there)
