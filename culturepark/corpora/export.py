"""Writes the corpus of a run to files, each format whole or not at all."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from hashlib import blake2b, file_digest
from pathlib import Path

from culturepark.atomic import move, recover
from culturepark.corpora.card import Card, page
from culturepark.corpora.formats import DEFAULT, SPLITS, WHOLE, Format, Subsets, lines
from culturepark.corpora.source import Source
from culturepark.errors import InputError, ParkError, RunFailed
from culturepark.registry import FORMATS


def export(
    source: Source, folder: Path, formats: Sequence[str], card: Card, *, by_culture: bool = False
) -> dict[str, Path]:
    """Write the corpus below `folder`, one folder per format; return format → folder.

    `by_culture` writes each culture's rows once more, in a folder of its own beside the files of
    all. A format's folder appears only when it is complete and then takes the last one's place in
    one step; a culture of which a format has nothing gets none. Every folder has a card that names
    its files. Rejected opinions go to `rejects.jsonl`. RunFailed, before anything is written, if a
    format has nothing to write at all or a question stands in two splits.
    """
    writers = {name: load_format(name) for name in formats}
    for name, form in writers.items():
        if why := explain_absence(source, form.reads):
            raise RunFailed(f"there is nothing to export as {name}: {why}")
    if crossed := source.list_crossing():
        raise RunFailed(
            f"refusing to export: questions in more than one split: {', '.join(crossed)}"
        )
    written = {}
    try:
        for name, form in writers.items():
            target = folder / folder_name(name)
            written[name] = _whole(target, form, source, card, by_culture)
        _rejects(source, folder / "rejects.jsonl")
    except OSError as error:
        raise ParkError(
            f"cannot write the corpus to {folder}: {error.strerror or error}. Nothing half-written"
            " was kept."
        ) from error
    return written


def load_format(name: str) -> Format:
    """Return a format by short name or `package.module:NAME`, ready to write.

    InputError names the nearest format, or the package to install where a library is missing.
    """
    form: Format = FORMATS.load(name)
    for library, extra in form.needs.items():
        try:
            importlib.import_module(library)
        except ImportError as error:
            package = f"'culturepark[{extra}]'" if extra else library
            raise InputError(
                f"the export format {name!r} needs {library}: pip install {package}, "
                f"or choose formats that need nothing more: --to {','.join(DEFAULT)} ({error})"
            ) from error
    return form


def folder_name(form: str) -> str:
    """Return the name of a format's folder: its short name, or `package.module.NAME`."""
    return form.replace(":", ".")


def explain_absence(source: Source, what: str) -> str:
    """Return why a source has none of `what` (samples, pairs or shares); empty where it has
    some.
    """
    if any(next(getattr(source, what)(split), None) is not None for split in SPLITS):
        return ""
    if what == "pairs" and explain_absence(source, "samples"):
        what = "samples"
    return source.explain_lacking(what)


def _whole(target: Path, form: Format, source: Source, card: Card, by_culture: bool) -> Path:
    """Write one format beside its place, then move it there."""
    partial = target.with_name(f".{target.name}.partial")
    recover(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        subsets = form.write(source, partial)
        for one in map(source.only, source.cultures if by_culture else ()):
            if not explain_absence(one, form.reads):
                subsets |= _culture(partial, form, one, card)
        _describe(partial, form, card, subsets)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    move(partial, target)
    return target


def _culture(folder: Path, form: Format, source: Source, card: Card) -> Subsets:
    """Write one culture's rows to a folder of its own in `folder`; return its subsets as they are
    seen from there.
    """
    culture = source.cultures[0]
    own: Subsets = form.write(source, folder / culture)
    _describe(folder / culture, form, card, own)
    return {
        culture if name == WHOLE else f"{culture}-{name}": {
            split: f"{culture}/{path}" for split, path in files.items()
        }
        for name, files in own.items()
    }


def _describe(folder: Path, form: Format, card: Card, subsets: Subsets) -> None:
    """Write the card of a folder."""
    about = " ".join((form.about or "").partition("\n\n")[0].split())
    text = page(card, about, subsets, _hash_files(folder, subsets))
    (folder / "README.md").write_text(text, encoding="utf-8")


def _hash_files(folder: Path, subsets: Subsets) -> str:
    """Return the hash of the contents of every file of every subset, in their order."""
    found = blake2b(digest_size=8)
    for path in [folder / path for files in subsets.values() for path in files.values()]:
        with path.open("rb") as file:
            found.update(file_digest(file, "sha256").digest())
    return found.hexdigest()


def _rejects(source: Source, path: Path) -> None:
    partial = path.with_suffix(".partial")
    if lines(partial, source.iterate_rejects()):
        partial.replace(path)
    else:
        path.unlink(missing_ok=True)
