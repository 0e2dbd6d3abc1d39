"""The one folder outside runs that anything is kept in: CULTUREPARK_CACHE, else one below the home folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from culturepark.errors import InputError

VARIABLE = "CULTUREPARK_CACHE"


def cache_folder() -> Path:
    """Return the cache folder, made where there is none; InputError where nothing can be written to it."""
    named = os.environ.get(VARIABLE, "").strip()
    try:
        folder = Path(named).expanduser() if named else Path.home() / ".cache" / "culturepark"
    except RuntimeError as error:
        raise InputError(f"no home folder for the cache ({error}). {_ADVICE}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the cache folder {folder}: {error.strerror or error}. {_ADVICE}") from error
    return folder


_ADVICE = f"Set {VARIABLE} to a folder that can be written."
