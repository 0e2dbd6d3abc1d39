"""Filters: `apply(batch, context) → [why it must go, or None, …]`, one reason per opinion of a
batch.

A batch holds the opinions of one dialogue that have passed so far. A rule about one opinion alone
is a function with `@each_opinion`; one that asks a model is `async` and takes the session as well:

    @each_opinion
    async def apply(opinion, context, session): ...

To add one, write a module here with an `apply` and name it in `registry.FILTERS`; or keep it in
your own package and name it `package.module:function` in the settings.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any

from culturepark.context import DialogueContext
from culturepark.errors import InputError
from culturepark.llm.session import Failure, Session
from culturepark.records import Opinion
from culturepark.registry import FILTERS

Batch = Sequence[Opinion]
Reason = str | Failure | None  # why an opinion must go; a Failure where that could not be found out
Filter = Callable[
    ..., Any
]  # (batch, context) → reasons; async: (batch, context, session) → reasons
OURS = "culturepark.curation.filters."


def each_opinion(rule: Callable[..., Any]) -> Filter:
    """Make a filter of a rule about one opinion, `rule(opinion, context) → reason or None`.

    An async rule takes the session as well; it is called for all opinions of a batch side by side.
    """
    if not inspect.iscoroutinefunction(rule):

        @wraps(rule)
        def apply(batch: Batch, context: DialogueContext) -> list[Reason]:
            return [rule(opinion, context) for opinion in batch]

        return apply

    @wraps(rule)
    async def ask(batch: Batch, context: DialogueContext, session: Session) -> list[Reason]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(rule(opinion, context, session)) for opinion in batch]
        return [task.result() for task in tasks]

    return ask


@lru_cache(maxsize=64)
def load(name: str) -> Filter:
    """Return the filter of this short name or `package.module:function`."""
    if name.startswith(OURS) and name.endswith(":sieve"):
        _warn_of_sieve(name)
        name = name.removesuffix("sieve") + "apply"
    rule: Filter = FILTERS.load(name)
    if inspect.iscoroutinefunction(rule) or len(inspect.signature(rule).parameters) != 3:
        return rule
    _warn_of_sieve(name)
    return _apply_sieve(rule)


async def apply_filter(
    name: str, batch: Batch, context: DialogueContext, session: Session
) -> list[Reason]:
    """Return a filter's reasons for a batch; InputError where it does not give one per opinion."""
    rule = load(name)
    if inspect.iscoroutinefunction(rule):
        reasons = list(await rule(batch, context, session))
    else:
        reasons = list(rule(batch, context))
    if len(reasons) != len(batch):
        raise InputError(
            f"filter {name!r} gave {len(reasons)} reasons for {len(batch)} opinions; it has to give"
            " one per opinion, None for those that pass"
        )
    return reasons


def _apply_sieve(sieve: Callable[..., str | None]) -> Filter:
    """Make a filter of a function of the old form: `sieve(opinion, context, earlier)`."""

    @wraps(sieve)
    def apply(batch: Batch, context: DialogueContext) -> list[Reason]:
        reasons: list[Reason] = []
        for opinion in batch:
            passed = [o for o, why in zip(batch, reasons, strict=False) if not why]
            reasons.append(sieve(opinion, context, passed))
        return reasons

    return apply


def _warn_of_sieve(name: str) -> None:
    warnings.warn(
        f"{name}: sieve(opinion, case, earlier) is now a filter, apply(batch, context); a rule"
        " about one opinion becomes one by @culturepark.curation.filters.each_opinion",
        DeprecationWarning,
        stacklevel=3,
    )
