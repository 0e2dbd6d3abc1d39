"""What a tuning objective is: which rows it reads, how they are learnt, and how it is described."""

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

    `reads` is the form of its rows (a key of `rows.KEYS`, and the export format of a run), `beside`
    that of rows that stand beside them, if any. `rates` are the step sizes by default, of adapters
    and of whole models. `build_trainer` returns a transformers Trainer; `prepare` turns the rows of
    one split (and those beside them) into what is learnt, before the number of steps is known:
    something with a length, empty or None where there is nothing. `options` are the fields of the
    recipe that only objectives like this one heed. `compares`: it learns which of two answers is
    better, and is judged on held-out pairs before and after. `about` is its line in the help,
    `title` and `loss` are what the report calls it and its loss.
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
    """Return the objective of this short name or `package.module:NAME`; InputError names the
    nearest.
    """
    objective: Objective = OBJECTIVES.load(name)
    return objective
