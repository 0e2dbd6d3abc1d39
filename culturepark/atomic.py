"""Writes a file or folder whole or not at all, so that a kill, a crash or a full disk leaves the
old one or the new one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from culturepark.errors import WriteError

TRASH = ".old-"  # in the name of a folder that was discarded

AT_FDCWD = -100  # of Linux: paths are taken from the current folder
EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all; WriteError says why it could not be
    written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all, and wait until it is on the disk; WriteError
    says why not.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk, where the system can open a folder at all
    (Windows cannot).
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(partial: Path, target: Path) -> None:
    """Put a whole file or folder in the place of what stands at `target`, in one step where the
    system can.

    Where it cannot (neither Linux nor macOS, or a file system without exchange), an old folder is
    out of its place for a moment; `recover` puts it back after a kill at that moment. OSError where
    it cannot be moved.
    """
    old = target.with_name(f".{target.name}.old")
    if not target.is_dir() or target.is_symlink():
        partial.replace(target)
    elif _exchange(partial, target):
        shutil.rmtree(partial, ignore_errors=True)
    else:
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def discard(folder: Path) -> None:
    """Take a folder out of its place in one step, then delete its files; `sweep` deletes what a
    kill leaves of it.
    """
    trash = folder.with_name(f".{folder.name}{TRASH}{uuid4().hex[:8]}")
    folder.rename(trash)
    sync_folder(trash.parent)
    shutil.rmtree(trash, ignore_errors=True)


def sweep(parent: Path, name: str = "*") -> list[Path]:
    """Delete what is left below `parent` of folders of this name that were discarded; return those
    that cannot be deleted.
    """
    left = list(parent.glob(f".{name}{TRASH}*"))
    for trash in left:
        shutil.rmtree(trash, ignore_errors=True)
    return [trash for trash in left if trash.exists()]


def recover(target: Path) -> None:
    """Put back the folder that `move` had taken from its place when the process was killed; remove
    one that is replaced.
    """
    old = target.with_name(f".{target.name}.old")
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or file system has no such call."""
    name, here = {"linux": ("renameat2", (AT_FDCWD,)), "darwin": ("renamex_np", ())}.get(
        sys.platform, ("", ())
    )
    call = getattr(ctypes.CDLL(None), name, None) if name else None
    return (
        call is not None and call(*here, os.fsencode(one), *here, os.fsencode(other), EXCHANGE) == 0
    )
