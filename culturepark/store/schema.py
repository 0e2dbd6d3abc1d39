"""The tables of a run's store, and how those of an earlier version become today's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from culturepark.atomic import sync_folder

VERSION = 2
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE scenes (id TEXT PRIMARY KEY, ordinal INTEGER NOT NULL, culture TEXT NOT NULL,
    question TEXT NOT NULL, scene TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    refined TEXT);
CREATE INDEX scenes_order ON scenes (culture, ordinal);
CREATE TABLE turns (dialogue TEXT NOT NULL, n INTEGER NOT NULL, turn TEXT NOT NULL,
    PRIMARY KEY (dialogue, n)) WITHOUT ROWID;
CREATE TABLE calls (id INTEGER PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL,
    role TEXT NOT NULL, model TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    text TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER,
    usd REAL, ms REAL NOT NULL, attempts INTEGER NOT NULL, lost INTEGER NOT NULL,
    faults TEXT NOT NULL, shares TEXT NOT NULL DEFAULT '', reasoning TEXT NOT NULL DEFAULT '');
CREATE INDEX calls_key ON calls (key);
CREATE TABLE holds (id INTEGER PRIMARY KEY, usd REAL NOT NULL, tokens INTEGER NOT NULL,
    key TEXT NOT NULL);
CREATE TABLE waves (id TEXT PRIMARY KEY, line TEXT NOT NULL, batch TEXT, status TEXT NOT NULL,
    keys TEXT NOT NULL);
CREATE TABLE opinions (id TEXT PRIMARY KEY, dialogue TEXT NOT NULL, n INTEGER NOT NULL,
    culture TEXT NOT NULL, question TEXT NOT NULL, dropped TEXT NOT NULL, mark TEXT,
    opinion TEXT NOT NULL);
CREATE INDEX opinions_order ON opinions (dialogue, n);
CREATE INDEX opinions_mark ON opinions (culture, question, mark);
CREATE TABLE samples (rank INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, culture TEXT NOT NULL,
    question TEXT NOT NULL, split TEXT NOT NULL, sample TEXT NOT NULL);
CREATE INDEX samples_order ON samples (split, rank);
"""
# Columns that came later, by table: a store that is written gets those it lacks, in this order.
ADDED = {
    "calls": {
        "shares": "shares TEXT NOT NULL DEFAULT ''",
        "reasoning": "reasoning TEXT NOT NULL DEFAULT ''",
    },
}


def create_database(path: Path, shards: int = 1) -> None:
    """Make an empty database, one of so many `shards`, beside its place and move it there, so that
    one without tables is a damaged one.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    db = sqlite3.connect(partial, isolation_level=None)
    try:
        db.executescript(
            f"BEGIN;{TABLES}INSERT INTO meta VALUES ('version', '{VERSION}'),"
            f" ('shards', '{shards}');COMMIT;"
        )
    finally:
        db.close()
    partial.replace(path)
    sync_folder(path.parent)


def add_columns(db: sqlite3.Connection) -> None:
    """Give a database from before a column was kept what it lacks."""
    for table, columns in ADDED.items():
        kept = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
        for name, definition in columns.items():
            if name not in kept:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {definition}")
