"""CulturePark: persona-driven agents from different cultures converse; their dialogues become
grounded corpora.

>>> import culturepark as cp
>>> run = cp.run("demo", dialogues=2, cultures=("arabic",))   # simulate → refine → export → report
>>> run.corpus
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from culturepark._version import __version__ as __version__

if TYPE_CHECKING:
    from culturepark.api import (
        calls,
        check,
        compare,
        estimate,
        evaluate,
        explain,
        export,
        hosted,
        init,
        matrix,
        refine,
        replay,
        report,
        resume,
        run,
        scpo,
        show,
        simulate,
        start,
        tune,
    )
    from culturepark.errors import (
        BudgetReached,
        CardError,
        InputError,
        Locked,
        ModelError,
        NotFound,
        ParkError,
        ReplayMiss,
        RunFailed,
    )
    from culturepark.llm import model
    from culturepark.runs import Run
    from culturepark.settings import Endpoint, Settings
    from culturepark.testing.scripted import Scripted
    from culturepark.testing.server import Server
    from culturepark.workspace import Workspace, load

# Loaded when first used, so that importing the package, and `culturepark --help`, cost nothing.
_HOMES = {
    "api": (
        "calls check compare estimate evaluate explain export hosted init matrix refine replay"
        " report resume run scpo show simulate start tune"
    ),
    "errors": (
        "BudgetReached CardError InputError Locked ModelError NotFound ParkError ReplayMiss"
        " RunFailed"
    ),
    "runs": "Run",
    "settings": "Endpoint Settings",
    "workspace": "Workspace load",
    "llm": "model",
    "testing.scripted": "Scripted",
    "testing.server": "Server",
}
_RENAMED = {"grounding": "surveys"}  # rooms that the docs named; they go in the next version
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = [  # noqa: RUF022 - verbs first, as one reads them
    "init",
    "check",
    "show",
    "start",
    "resume",
    "replay",
    "estimate",
    "simulate",
    "refine",
    "export",
    "report",
    "explain",
    "calls",
    "run",
    "tune",
    "matrix",
    "scpo",
    "hosted",
    "evaluate",
    "compare",
    "Run",
    "Settings",
    "Endpoint",
    "Workspace",
    "load",
    "model",
    "Scripted",
    "Server",
    "ParkError",
    "InputError",
    "CardError",
    "NotFound",
    "Locked",
    "ModelError",
    "ReplayMiss",
    "BudgetReached",
    "RunFailed",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        return _load_renamed(name)
    if name not in _HOME:
        raise AttributeError(f"module 'culturepark' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"culturepark.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def _load_renamed(name: str) -> Any:
    import importlib
    import warnings

    new = _RENAMED[name]
    warnings.warn(f"culturepark.{name} is now culturepark.{new}", DeprecationWarning, stacklevel=3)
    return importlib.import_module(f"culturepark.{new}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
