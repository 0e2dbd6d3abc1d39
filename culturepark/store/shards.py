"""Spreads a run's scenes over several databases by the hash of their ids, and reads them as one.

A scene's turns and opinions lie in its shard; calls, reservations, batches, samples and what the
run is lie in the first, so that a call and its reservation are settled in one file.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path

SPREAD = ("scenes", "turns", "opinions")


def list_shards(path: Path, count: int) -> list[Path]:
    """Return the databases of a store whose first is `path`."""
    return [path, *(path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(1, count))]


def name_schemas(count: int) -> list[str]:
    """Return the names under which a connection has its databases."""
    return ["main", *(f"shard_{n}" for n in range(1, count))]


def choose_shard(scene: str, count: int) -> str:
    """Return the name of the database in which a scene, by its id, has its place."""
    return name_schemas(count)[zlib.crc32(scene.encode()) % count] if count > 1 else "main"


def attach_shard(db: sqlite3.Connection, schema: str, path: Path, *, write: bool) -> None:
    """Open a database under this name beside the first."""
    where = str(path) if write else f"{path.absolute().as_uri()}?mode=ro"
    db.execute(f"ATTACH ? AS {schema}", (where,))


def join_tables(db: sqlite3.Connection, schemas: Sequence[str]) -> None:
    """Put views of all databases before the tables that are spread over several."""
    if len(schemas) > 1:
        for table in SPREAD:
            tables = (f"SELECT * FROM {schema}.{table}" for schema in schemas)
            db.execute(f"CREATE TEMP VIEW {table} AS {' UNION ALL '.join(tables)}")
