"""Writes the corpus of a run to files, each format whole or not at all."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from culturepark.corpus.build import crossing
from culturepark.corpus.formats import DEFAULT, FORMATS, SPLITS, lines
from culturepark.corpus.source import Source
from culturepark.errors import InputError, ParkError, RunFailed, nearest
from culturepark.journal import Journal

WHY = {  # there is none of it
    "samples": "no opinion has been kept. `culturepark report` shows why they were dropped.",
    "pairs": "no kept opinion contradicted its answer before a rewrite, and no two cultures of this run ({cultures}) answered "
    "one question differently",
    "shares": "no question of scenarios/{pack}.toml that this run asks has survey figures for {cultures}; `survey` in "
    "culture.toml names the countries asked",
}


def export(
    source: Source, folder: Path, formats: Sequence[str], about: str, *, by_culture: bool = False
) -> dict[str, Path]:
    """Write the corpus below `folder`, one folder a format (a culture); return format → folder.

    A format's folder appears only when it is complete and then replaces the last one; a culture of which a format has
    nothing gets none. Rejected opinions go to `rejects.jsonl`. RunFailed, before anything is written, if a format has
    nothing to write at all or a question stands in two splits.
    """
    writers = {name: writer(name) for name in formats}
    for name, form in writers.items():
        if why := lacking(source, form.READS):
            raise RunFailed(f"there is nothing to export as {name}: {why}")
    if crossed := crossing(source.journal):
        raise RunFailed(f"refusing to export: questions in more than one split: {', '.join(crossed)}")
    written = {}
    try:
        for name, form in writers.items():
            written[name] = _whole(folder / name, form, source, about, by_culture)
        _rejects(source.journal, folder / "rejects.jsonl")
    except OSError as error:
        raise ParkError(
            f"cannot write the corpus to {folder}: {error.strerror or error}. Nothing half-written was kept."
        ) from error
    return written


def writer(name: str) -> Any:
    """Return the module of a format, ready to write.

    InputError names the nearest format, or the package to install where a library is missing.
    """
    if name not in FORMATS:
        raise InputError(f"no export format {name!r}. {nearest(name, FORMATS)}")
    form = importlib.import_module(FORMATS[name])
    for library, extra in getattr(form, "NEEDS", {}).items():
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise InputError(
                f"the export format {name!r} needs {library}: pip install 'culturepark[{extra}]', "
                f"or choose formats that need nothing more: --to {','.join(DEFAULT)} ({error})"
            ) from error
    return form


def lacking(source: Source, what: str) -> str:
    """Return why a source has none of `what` (samples, pairs or shares); empty where it has some."""
    if any(next(getattr(source, what)(split), None) is not None for split in SPLITS):
        return ""
    if what == "pairs" and lacking(source, "samples"):
        what = "samples"
    return WHY[what].format(cultures=", ".join(source.cultures), pack=source.settings.scenario)


def _whole(target: Path, form: Any, source: Source, about: str, by_culture: bool) -> Path:
    """Write one format beside its place, then move it there."""
    partial, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if not by_culture:
            form.write(source, partial, about)
        for one in map(source.only, source.cultures if by_culture else ()):
            if not lacking(one, form.READS):
                form.write(one, partial / one.cultures[0], about)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


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
