"""The one folder outside runs that anything is kept in: CULTUREPARK_CACHE, else one below the home
folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from culturepark.errors import InputError

VARIABLE = "CULTUREPARK_CACHE"


def cache_folder() -> Path:
    """Return the cache folder, made where there is none; InputError where nothing can be written to
    it.
    """
    named = os.environ.get(VARIABLE, "").strip()
    try:
        folder = Path(named).expanduser() if named else Path.home() / ".cache" / "culturepark"
    except RuntimeError as error:
        raise InputError(f"no home folder for the cache ({error}). {_ADVICE}") from error
    if (refusal := _build_refusal(folder)) is not None:
        raise InputError(
            f"cannot write to the cache folder {folder}: {refusal.strerror or refusal}. {_ADVICE}"
        ) from refusal
    return folder


def lend_home() -> None:
    """Let libraries that keep files below the home folder keep them in the cache folder, where the
    home cannot be written.
    """
    for variable, usual in (("XDG_DATA_HOME", "~/.local/share"), ("XDG_CACHE_HOME", "~/.cache")):
        folder = Path(os.environ.get(variable) or os.path.expanduser(usual))  # noqa: PTH111 - never raises
        if _build_refusal(folder) is not None:
            os.environ[variable] = str(cache_folder())


def _build_refusal(folder: Path) -> OSError | None:
    """Return why nothing can be written to a folder, which is made where there is none; None where
    something can.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


_ADVICE = f"Set {VARIABLE} to a folder that can be written."
