"""A tuning objective: which rows it reads, how it learns from them, how it is described."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from culturepark.registry import OBJECTIVES
from culturepark.training.rows import Row

if TYPE_CHECKING:
    from culturepark.local_models.machine import Machine
    from culturepark.training.recipe import Recipe


@dataclass(frozen=True)
class TrainerParts:
    """What the trainer of one model is built from.

    `train` and `validation` are what the objective's `prepare` returned; `arguments` are those of
    transformers' TrainingArguments; `adapter` is peft's configuration, None for a whole model.
    """

    model: Any
    tokenizer: Any
    train: Any
    validation: Any
    arguments: dict[str, Any]
    recipe: Recipe
    machine: Machine
    adapter: Any


def keep_rows(
    tokenizer: Any, rows: Sequence[Row], beside: Sequence[Row], recipe: Recipe
) -> Sequence[Row]:
    """Return the rows as they are."""
    return rows


@dataclass(frozen=True)
class Objective:
    """A way to learn from rows.

    `reads` is the format of its rows (a key of `rows.KEYS`, and the export format of a run),
    `beside` that of additional rows, if any. `rates` are the default step sizes of adapters and of
    whole models. `build_trainer` returns a transformers Trainer; `prepare` turns the rows of one
    split (and the additional ones) into training data with a length, empty or None if there are
    none. `options` are the fields of the recipe that only objectives like this one use. `compares`:
    it learns which of two answers is better, and is judged on held-out pairs before and after.
    `about` is its line in the help, `title` and `loss` its names in the report.
    """

    about: str
    title: str
    loss: str
    reads: str
    rates: tuple[float, float]
    build_trainer: Callable[[TrainerParts], Any]
    prepare: Callable[[Any, Sequence[Row], Sequence[Row], Recipe], Any] = keep_rows
    beside: str = ""
    options: tuple[str, ...] = ()
    compares: bool = False


def load_objective(name: str) -> Objective:
    """Return the objective of this short name or `package.module:NAME`.

    Raises InputError with the nearest name.
    """
    objective: Objective = OBJECTIVES.load(name)
    return objective
