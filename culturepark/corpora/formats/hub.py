"""A Hugging Face dataset in Parquet: conversations, so that trainers keep system prompt and chat
template; origin in one nested column.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from culturepark.corpora.formats import SPLITS, WHOLE, Format, Subsets
from culturepark.corpora.formats.trl import row
from culturepark.corpora.source import Source

BATCH = 1000  # rows held in memory at once
NUMBERS = ("answer", "line")  # of `metadata`; the others are texts


def write(source: Source, folder: Path) -> Subsets:
    """Write `data/SPLIT-00000-of-00001.parquet` with the columns `prompt`, `completion` and
    `metadata`.
    """
    files = {split: f"data/{split}-00000-of-00001.parquet" for split in SPLITS}
    return {
        WHOLE: {
            split: path
            for split, path in files.items()
            if _write_split(source, split, folder / path)
        }
    }


def _write_split(source: Source, split: str, path: Path) -> bool:
    """Write a split in batches; say whether it has any row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = source.samples(split)
    batch = list(islice(rows, BATCH))
    if not batch:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = _schema(list(row(batch[0])["metadata"]))
    with pq.ParquetWriter(path, schema) as writer:
        while batch:
            writer.write_table(pa.Table.from_pylist([row(s) for s in batch], schema=schema))
            batch = list(islice(rows, BATCH))
    return True


def _schema(origin_names: list[str]) -> Any:
    import pyarrow as pa

    chat = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    origin = pa.struct(
        [(name, pa.int64() if name in NUMBERS else pa.string()) for name in origin_names]
    )
    return pa.schema([("prompt", chat), ("completion", chat), ("metadata", origin)])


FORMAT = Format(write, "samples", about=__doc__, needs={"pyarrow.parquet": "hub"})
