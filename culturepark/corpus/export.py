"""Writes the corpus of a run to files, each format whole or not at all."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from culturepark.corpus.build import crossing
from culturepark.corpus.formats import FORMATS, Read, lines
from culturepark.errors import InputError, ParkError, RunFailed, nearest
from culturepark.journal import Journal
from culturepark.records import Sample


def export(
    journal: Journal, folder: Path, formats: Sequence[str], about: str, *, by_culture: bool = False
) -> dict[str, Path]:
    """Write the corpus below `folder`, one folder a format (a culture); return format → folder.

    A format's folder appears only when it is complete and then replaces the last one. Rejected opinions go to
    `rejects.jsonl`. RunFailed if the corpus is empty or a question stands in two splits.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"no export format {name!r}. {nearest(name, FORMATS)}")
    cultures = [c for (c,) in journal.count("SELECT DISTINCT culture FROM samples ORDER BY culture")]
    if not cultures:
        raise RunFailed(
            "there is no sample to export: no opinion has been kept. `culturepark report` shows why they were dropped."
        )
    if crossed := crossing(journal):
        raise RunFailed(f"refusing to export: questions in more than one split: {', '.join(crossed)}")
    written = {}
    try:
        for name in formats:
            written[name] = _whole(folder / name, name, journal, about, cultures if by_culture else None)
        _rejects(journal, folder / "rejects.jsonl")
    except OSError as error:
        raise ParkError(
            f"cannot write the corpus to {folder}: {error.strerror or error}. Nothing half-written was kept."
        ) from error
    return written


def _whole(target: Path, name: str, journal: Journal, about: str, cultures: Sequence[str] | None) -> Path:
    """Write one format beside its place, then move it there."""
    partial, old = target.with_name(f".{name}.partial"), target.with_name(f".{name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    write = importlib.import_module(FORMATS[name]).write
    try:
        if cultures is None:
            write(journal.samples, partial, about)
        for culture in cultures or ():
            write(only(journal, culture), partial / culture, about)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def only(journal: Journal, culture: str) -> Read:
    """Return a reader of one culture's samples."""

    def read(split: str) -> Iterator[Sample]:
        return (s for s in journal.samples(split) if s.culture == culture)

    return read


def _rejects(journal: Journal, path: Path) -> None:
    partial = path.with_suffix(".partial")
    rows = (
        {"culture": culture, "question": question, **json.loads(o.model_dump_json())}
        for culture, question, o in journal.rejected()
    )
    if lines(partial, rows):
        partial.replace(path)
    else:
        path.unlink(missing_ok=True)
