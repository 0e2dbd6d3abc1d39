"""Importers: how rows of somebody's file are read, one file each, named like the format that writes
such rows. To add one, write a module here and name it in `registry.IMPORTERS`; or keep it in your
own package and name it `package.module:NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Importer:
    """How a row becomes one of TRL's: a prompt and its completion (`trl`) or a prompt, what is
    chosen and what is rejected (`dpo`).

    A file is recognised by the `columns` that all its rows have. `convert` returns the row with
    TRL's keys; what else is in it (culture, question, topic, system, metadata) stays.
    """

    form: Literal["trl", "dpo"]
    columns: tuple[str, ...]
    convert: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
