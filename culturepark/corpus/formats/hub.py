"""A Hugging Face dataset folder: Parquet a split and a dataset card, ready for `load_dataset(FOLDER)` or upload."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from culturepark.corpus.formats import SPLITS
from culturepark.corpus.source import Source
from culturepark.records import Sample

READS = "samples"
NEEDS = {"pyarrow.parquet": "hub"}
BATCH = 1000  # rows held in memory at once
COLUMNS = (
    "id",
    "culture",
    "question",
    "topic",
    "system",
    "prompt",
    "completion",
    "answer",
    "persona",
    "dialogue",
    "opinion",
)


def write(source: Source, folder: Path, about: str) -> None:
    """Write `data/SPLIT-00000-of-00001.parquet` and `README.md`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.int64() if name == "answer" else pa.string()) for name in COLUMNS])
    (folder / "data").mkdir(parents=True)
    for split in SPLITS:
        rows = source.samples(split)
        batch = list(islice(rows, BATCH))
        if not batch:
            continue
        with pq.ParquetWriter(folder / "data" / f"{split}-00000-of-00001.parquet", schema) as writer:
            while batch:
                writer.write_table(pa.Table.from_pylist([row(s) for s in batch], schema=schema))
                batch = list(islice(rows, BATCH))
    (folder / "README.md").write_text(about, encoding="utf-8")


def row(sample: Sample) -> dict[str, object]:
    """Return the columns of one sample."""
    return sample.model_dump(include=set(COLUMNS))
