"""A kind of benchmark: plan what is asked, run an item, measure what came of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from culturepark.evaluation.ask import ask_once
from culturepark.evaluation.measure import Measure
from culturepark.evaluation.types import Ask, Attempt, Benchmark, Item, Setup, Who
from culturepark.registry import KINDS


@dataclass(frozen=True)
class BenchmarkKind:
    """A kind of benchmark: three functions, and what is to be known of it before they are called.

    `plan` yields the items that a benchmark asks of a model in a setup. `run` asks one of them and
    returns the attempt; by default it asks once and reads the answer with the card's parser.
    `measure` gets all attempts of one model and the benchmark's options, and returns the measures
    that figures are made of; it needs no model and no card.

    `options` are those the kind knows, with their defaults. `needs` says which other models play a
    part in a benchmark, `respondents` who may answer. `culture_source`: cultures are those of
    culture `cards`, or whatever the `data` hold, all of them where none is named. `data_words` may
    stand in the place of data files. `graded`: what is not answered counts as wrong; elsewhere it
    is left out, of both models where two are compared. `surveyed`: it holds answers against what
    peoples answered in a survey (`Setup.survey_figures`). `axes`: what it can repeat besides seeds,
    orders of options and wordings of the prompt. `embedded_warning` says of a setup why the
    embedded engine's row is no model's, where it speaks as the last of `respondents`; "" where it
    is chance.
    """

    plan: Callable[[Benchmark, Setup], Iterable[Item]]
    measure: Callable[[Sequence[Attempt], Mapping[str, Any]], Sequence[Measure]]
    run: Callable[[Benchmark, Item, Ask], Awaitable[Attempt]] = ask_once
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Callable[[Benchmark], tuple[Who, ...]] = lambda benchmark: ()
    respondents: tuple[Literal["people", "personas"], ...] = ("people",)
    culture_source: Literal["cards", "data"] = "cards"
    data_words: tuple[str, ...] = ()
    graded: bool = False
    surveyed: bool = False
    axes: tuple[Literal["orders", "wordings"], ...] = ()
    embedded_warning: Callable[[Setup], str] = lambda setup: ""


def load_kind(name: str, where: str = "benchmark") -> BenchmarkKind:
    """Return a kind by short name or `package.module:NAME`; InputError names the nearest."""
    kind: BenchmarkKind = KINDS.load(name, f"{where}: kind: ")
    return kind
