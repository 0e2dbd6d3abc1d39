"""What is asked and what came of it: Benchmark, Setup, Item and Attempt, without a way to ask.

Benchmark card + Setup ──plan──▶ Item… ──run──▶ Attempt… ──measure──▶ Measure… ──▶ Figure…
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field

from culturepark.records import Name, PromptText, Question, Record, Reply, Request, Role, Text
from culturepark.surveys import Figures, load_shipped
from culturepark.wording import opening
from culturepark.workspace import Workspace

STRIDE = 1_000  # an attempt's seed is training × STRIDE + the number of its replica
SEEDS = 100  # seeds of one order and wording, where there are several of these
ORDERS = 2  # of options: as they are, and reversed
WORDINGS = STRIDE // SEEDS // ORDERS  # of a prompt, the card's own included
T = TypeVar("T")
Who = Literal["model", "judge", "learner"]
# Only `ok` holds an answer. `unparsed` was answered and cannot be read; the others are a Reply's
# own.
Status = Literal["ok", "unparsed", "refused", "truncated", "filtered", "empty", "failed"]


@dataclass(frozen=True)
class Replica:
    """One of the ways in which everything is asked: with this seed, with the options in this order
    (1: reversed, their numbers stay with them), by this wording of the prompt (0: the card's own,
    n: its n-th further one).
    """

    seed: int = 0
    order: int = 0
    wording: int = 0

    @property
    def number(self) -> int:
        """What tells it from every other one below STRIDE; of a plain one the seed."""
        return self.seed + SEEDS * (self.order + ORDERS * self.wording)

    def arrange(self, options: Sequence[T]) -> tuple[T, ...]:
        """Return options, or what belongs to them, in this order."""
        return tuple(reversed(options)) if self.order else tuple(options)


class Prompt(Record):
    """A prompt of the benchmark's own: the same templates and settings as a role card has."""

    system: PromptText
    prompt: str = ""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(gt=0)] = 256


class Benchmark(Record):
    """A benchmark card.

    `kind` is a short name or `package.module:NAME` of a BenchmarkKind. `role` names the role card
    in agents/ that asks, unless `prompt` (and `judge`) hold prompts of its own. `items` names a
    scenario (`scenario:vsm13`) or a file beside the card (JSONL, JSON or CSV), or stands in the
    card as [[item]]; `fields` says which of a file's columns is which. `parser` and `score` are
    short names or `package.module:name`. `wordings` are further prompts, that ask the same in other
    words. `options` are the kind's own settings.
    """

    name: Name
    title: Text
    about: Text
    source: Text
    kind: Text
    role: str = ""
    prompt: Prompt | None = None
    judge: Prompt | None = None
    wordings: tuple[Prompt, ...] = ()
    items: str = ""
    item: tuple[dict[str, Any], ...] = ()
    fields: dict[str, str] = Field(default_factory=dict)
    parser: str = ""
    score: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    home: Path | None = Field(
        default=None, exclude=True
    )  # the card's own folder; never in the file

    def asks(self, workspace: Workspace, part: str = "prompt", wording: int = 0) -> Role:
        """Return the role that asks: the card's own prompt or one of its further wordings, else a
        role card; NotFound names the nearest.
        """
        own: Prompt | None = self.wordings[wording - 1] if wording else getattr(self, part)
        if own is None:
            return workspace.role(self.role if part == "prompt" else part)
        return Role(
            name=f"{self.name}-{part}"[:48],
            purpose=self.about,
            system=own.system,
            prompt=own.prompt,
            temperature=own.temperature,
            max_tokens=own.max_tokens,
        )


@dataclass(frozen=True)
class Setup:
    """How a benchmark is put to one model.

    `method`: `likelihood` reads the model's own distribution over the options (Request.options),
    `sample` its answers. `respondents`: who answers: `people` (the culture is named, nobody in
    particular), or its `personas` one by one. `count` respondents a culture are sampled. `seeds`:
    each item is asked once a seed; a figure is their mean, with its spread. `numbers`: options are
    answered by their numbers, as endpoints want it that tell the first token's log-probabilities;
    otherwise a distribution is read over the words with which a tuned model's answer begins. `held`
    maps question ids to the split of the corpus that the models were tuned on; empty where no
    corpus is known. `figures` are what peoples answered in a survey, where not the shipped ones:
    the run's, or a file's of the user's own. `options` are the benchmark's own, from its card and
    the command.
    """

    workspace: Workspace
    cultures: tuple[str, ...]
    method: Literal["likelihood", "sample"] = "sample"
    respondents: Literal["people", "personas"] = "people"
    count: int = 20
    seeds: tuple[int, ...] = (0,)
    orders: tuple[int, ...] = (0,)
    wordings: tuple[int, ...] = (0,)
    numbers: bool = False
    held: Mapping[str, str] = field(default_factory=dict)
    data: tuple[Path, ...] = ()
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    figures: Figures | None = None

    @property
    def survey_figures(self) -> Figures:
        """What peoples answered: the figures that were given, else the shipped ones."""
        return self.figures or load_shipped()

    @property
    def is_numbered(self) -> bool:
        """Whether a question asks for the number of an option."""
        return self.numbers or self.method == "sample"

    def list_replicas(self, likelihood: bool | None = None) -> tuple[Replica, ...]:
        """Return the ways in which each item is asked, by wording, order and seed.

        A `likelihood` (default: by `method`) is asked with one seed alone: it holds no chance.
        """
        if likelihood is None:
            likelihood = self.method == "likelihood"
        seeds = self.seeds[:1] if likelihood else self.seeds
        return tuple(
            Replica(seed, order, wording)
            for wording, order, seed in product(self.wordings, self.orders, seeds)
        )

    def begins(self, question: Question, code: int) -> str:
        """Return how an answer with this option begins, where a distribution is read."""
        return str(code) if self.numbers else opening(question, code)


@dataclass(frozen=True)
class Item:
    """One thing asked of a model.

    `id` is unique in a benchmark, culture and seed included, and says what it is (`arabic/Q27/0`).
    `unit` names what is drawn again as one when intervals are made: items of one unit are not
    independent (a respondent, a question, a text). `subset` parts a benchmark (`held-out`, a data
    set, a functionality). `gold` is what it is held against, `facts` what is told of it besides;
    both are JSON-like and go into the attempt. `task` is a record of the kind's own with what `run`
    needs besides (who judges, what is taught): it is neither sent nor kept.
    """

    id: str
    culture: str
    unit: str
    request: Request
    subset: str = ""
    seed: int = 0
    gold: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    task: Any = None


class Attempt(Record):
    """What came of an item. `answer` is what was read of what was `said`, `shares` the distribution
    over its options where told.

    `score` is what a single answer is worth, where it is worth anything by itself; None otherwise,
    and never for a failure. `talk` is what was sent, and what came back, in order: role and text.
    """

    item: str
    culture: str
    unit: str
    subset: str = ""
    seed: int = 0
    status: Status
    reason: str = ""
    answer: Any = None
    shares: tuple[float, ...] = ()
    score: float | None = None
    gold: Any = None
    facts: dict[str, Any] = Field(default_factory=dict)
    said: str = ""
    talk: tuple[tuple[str, str], ...] = ()


class Ask(Protocol):
    """Puts a request to the model that is evaluated, or to another one that plays a part in it."""

    def __call__(self, request: Request, who: Who = "model") -> Awaitable[Reply]:
        """Return the reply; failures are replies with a status."""
        ...


@dataclass(frozen=True)
class Unparsed:
    """An answer that cannot be read, and why."""

    reason: str


# (what was said, what was asked) → what was read, or Unparsed
Parser = Callable[[str, Item], Any]
