"""Everything with a short name: filters, embedders, export formats, importers, benchmark kinds,
parsers, scores and tuning objectives, each a line here and loaded when it is used.

What is yours needs no line: name it `package.module:NAME` wherever a short name may stand.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by short name, in the order in which they are listed.

    `kind` is the word for one of them; `entries` hold `package.module:NAME`, or the thing itself;
    `type` is what each must be, as `package.module:CLASS` (default: something that can be called).
    """

    kind: str
    entries: Mapping[str, str | T]
    type: str = ""

    def __getitem__(self, name: str) -> T:
        """Return what a short name stands for; KeyError where it is none."""
        entry = self.entries[name]
        return self._import(entry, "") if isinstance(entry, str) else entry

    def __iter__(self) -> Iterator[str]:
        """Yield the short names."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return how many short names there are."""
        return len(self.entries)

    def load(self, name: str, where: str = "") -> T:
        """Return what a short name or `package.module:NAME` stands for.

        InputError, which begins with `where`, names the nearest short name, or says why what was
        named cannot be imported or is nothing of this kind.
        """
        if name in self.entries:
            return self[name]
        if not is_path(name):
            from culturepark.errors import InputError, nearest

            raise InputError(
                f"{where}no {self.kind} {name!r}. {nearest(name, self.entries)} Or"
                " package.module:NAME for one of your own."
            )
        return self._import(name, where)

    def _import(self, path: str, where: str) -> T:
        from culturepark.errors import InputError

        found = import_attribute(path, f"{where}cannot import {self.kind}")
        expected = import_attribute(self.type, "cannot import") if self.type else None
        if isinstance(found, expected) if expected else callable(found):
            return found  # type: ignore[no-any-return]
        wanted = f"a {self.type.rpartition(':')[2]}" if expected else "a function"
        raise InputError(f"{where}{path!r} is no {self.kind}: it has to be {wanted}")


def is_path(name: str) -> bool:
    """Say whether a name has the shape of `package.module:NAME`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and module.replace(".", "_").isidentifier()


def import_attribute(path: str, failure: str) -> Any:
    """Return what `package.module:NAME` stands for; InputError, which begins as `failure`, where it
    cannot be imported.

    >>> import_attribute("culturepark.wording:SYSTEM", "cannot import text")[:7]
    'You are'
    """
    from culturepark.errors import InputError  # here: `culturepark --help` loads this module

    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        hint = ". For a module in this folder: PYTHONPATH=." if missing else ""
        raise InputError(f"{failure} {path!r}: {error}{hint}") from error


FILTERS: Registry[Any] = Registry(
    "filter",
    {
        name: f"culturepark.curation.filters.{name}:apply"
        for name in ("refusal", "form", "anchors", "repeat")
    },
)
EMBEDDERS: Registry[Any] = Registry(
    "embedder", {"hashing": "culturepark.curation.embedders:hashing"}
)
FORMATS: Registry[Any] = Registry(
    "export format",
    {
        "trl": "culturepark.corpora.formats.trl:FORMAT",
        "openai": "culturepark.corpora.formats.openai:FORMAT",
        "hub": "culturepark.corpora.formats.hub:FORMAT",
        "dpo": "culturepark.corpora.formats.dpo:FORMAT",
        "kto": "culturepark.corpora.formats.kto:FORMAT",
        "openai-dpo": "culturepark.corpora.formats.openai_dpo:FORMAT",
        "shares": "culturepark.corpora.formats.shares:FORMAT",
        "llamafactory": "culturepark.corpora.formats.llamafactory:FORMAT",
    },
    "culturepark.corpora.formats:Format",
)
IMPORTERS: Registry[Any] = Registry(
    "importer",
    {
        "trl": "culturepark.corpora.importers.trl:IMPORTER",
        "openai": "culturepark.corpora.importers.openai:IMPORTER",
        "dpo": "culturepark.corpora.importers.dpo:IMPORTER",
        "openai-dpo": "culturepark.corpora.importers.openai_dpo:IMPORTER",
    },
    "culturepark.corpora.importers:Importer",
)
KINDS: Registry[Any] = Registry(
    "benchmark kind",
    {
        name: f"culturepark.evaluation.kinds.{name}:KIND"
        for name in ("vsm", "survey", "opinions", "moderation", "education", "reward", "answers")
    },
    "culturepark.evaluation.kind:BenchmarkKind",
)
PARSERS: Registry[Any] = Registry(
    "parser",
    {
        name: f"culturepark.evaluation.parsers:{name}"
        for name in ("option", "label", "rating", "text")
    },
)
SCORES: Registry[Any] = Registry(
    "score",
    {name: f"culturepark.evaluation.kinds.answers:{name}" for name in ("exact", "contains")},
)
OBJECTIVES: Registry[Any] = Registry(
    "tuning objective",
    {
        "sft": "culturepark.training.sft:OBJECTIVE",
        "dpo": "culturepark.training.preference:DPO",
        "orpo": "culturepark.training.preference:ORPO",
        "kto": "culturepark.training.preference:KTO",
        "shares": "culturepark.training.shares:OBJECTIVE",
        "mix": "culturepark.training.shares:MIX",
    },
    "culturepark.training.objective:Objective",
)
