"""CulturePark: persona-driven agents from different cultures converse; their dialogues become grounded corpora.

>>> import culturepark as cp
>>> run = cp.run("demo", dialogues=2, cultures=("arabic",))   # simulate → refine → export → report
>>> run.corpus
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from culturepark.errors import CardError, InputError, Locked, ModelError, NotFound, ParkError, RunFailed
    from culturepark.models.hosted import Hosted
    from culturepark.models.scripted import Scripted
    from culturepark.runs import Run
    from culturepark.settings import Settings
    from culturepark.verbs import (
        check,
        explain,
        export,
        init,
        refine,
        report,
        resume,
        run,
        show,
        simulate,
        start,
    )
    from culturepark.workspace import Workspace, load

__version__ = "0.1.0"

# Loaded when first used, so that importing the package, and `culturepark --help`, cost nothing.
_HOMES = {
    "verbs": "check explain export init refine report resume run show simulate start",
    "errors": "CardError InputError Locked ModelError NotFound ParkError RunFailed",
    "runs": "Run",
    "settings": "Settings",
    "workspace": "Workspace load",
    "models.hosted": "Hosted",
    "models.scripted": "Scripted",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = [  # noqa: RUF022 - verbs first, as one reads them
    "init", "check", "show", "start", "resume", "simulate", "refine", "export", "report", "explain", "run",
    "Run", "Settings", "Workspace", "load", "Hosted", "Scripted",
    "ParkError", "InputError", "CardError", "NotFound", "Locked", "ModelError", "RunFailed",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'culturepark' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"culturepark.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
