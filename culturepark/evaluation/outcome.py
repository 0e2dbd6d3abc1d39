"""What is asked and what came of it: Item, Outcome, and the Kind of benchmark that makes one of the
other.

Benchmark card + Setup ──plan──▶ Item… ──hold──▶ Outcome… ──measures──▶ Measure… ──▶ Figure…
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from culturepark.records import Question, Record, Reply, Request
from culturepark.surveys import Figures, load_shipped
from culturepark.wording import opening

if TYPE_CHECKING:
    from culturepark.evaluation.card import Benchmark
    from culturepark.evaluation.measure import Measure
    from culturepark.workspace import Workspace

STRIDE = 1_000  # seeds of one replica, at most: an outcome's seed is replica × STRIDE + seed
Who = Literal["model", "judge", "learner"]
# Only `ok` holds an answer. `unparsed` was answered and cannot be read; the others are a Reply's
# own.
Status = Literal["ok", "unparsed", "refused", "truncated", "filtered", "empty", "failed"]


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
    numbers: bool = False
    held: Mapping[str, str] = field(default_factory=dict)
    data: tuple[Path, ...] = ()
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    figures: Figures | None = None

    @property
    def surveyed(self) -> Figures:
        """What peoples answered: the figures that were given, else the shipped ones."""
        return self.figures or load_shipped()

    @property
    def numbered(self) -> bool:
        """Whether a question asks for the number of an option."""
        return self.numbers or self.method == "sample"

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
    both are JSON-like and go into the outcome.
    """

    id: str
    culture: str
    unit: str
    request: Request
    subset: str = ""
    seed: int = 0
    gold: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Outcome(Record):
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


Parser = Callable[
    [str, Item], Any
]  # what was said, and what was asked → what was read, or Unparsed
Hold = Callable[["Benchmark", Item, Ask], Awaitable[Outcome]]


def outcome(
    item: Item, reply: Reply, answer: Any = None, score: float | None = None, **more: Any
) -> Outcome:
    """Return the outcome of an item that was asked once; `answer` is what was read (Unparsed where
    it cannot be).
    """
    status: Any = (
        reply.status
        if reply.status != "ok"
        else "unparsed"
        if isinstance(answer, Unparsed)
        else "ok"
    )
    read = status == "ok"
    talk = (*((m.role, m.content) for m in item.request.messages), ("assistant", reply.text))
    return Outcome(
        item=item.id,
        culture=item.culture,
        unit=item.unit,
        subset=item.subset,
        seed=item.seed,
        status=status,
        reason=answer.reason if isinstance(answer, Unparsed) else reply.reason,
        answer=answer if read else None,
        shares=reply.shares if read else (),
        score=score if read else None,
        gold=item.gold,
        facts=dict(item.facts),
        said=reply.text,
        talk=more.pop("talk", talk),
        **more,
    )


async def once(benchmark: Benchmark, item: Item, ask: Ask) -> Outcome:
    """Ask once and read the answer with the benchmark's parser; where a distribution was told, that
    is the answer.

    An answer that was cut still holds what it begins with, for parsers that read no more than that.
    """
    from culturepark.evaluation import parsers

    reply = await ask(item.request)
    if reply.status == "truncated" and benchmark.parser in parsers.HEADS:
        found = parsers.load(benchmark.parser)(reply.text, item)
        return outcome(
            item,
            reply if isinstance(found, Unparsed) else replace(reply, status="ok", reason=""),
            found,
        )
    if reply.status != "ok" or reply.shares:
        best = (
            None
            if not reply.shares
            else max(range(len(reply.shares)), key=reply.shares.__getitem__)
        )
        codes = item.facts.get("codes")
        return outcome(item, reply, codes[best] if codes and best is not None else best)
    return outcome(item, reply, parsers.load(benchmark.parser)(reply.text, item))


@dataclass(frozen=True)
class Kind:
    """A kind of benchmark: how its items are made, how one is held, and which figures its outcomes
    give.

    `measures` gets all outcomes of one model and the benchmark's options; it needs no model and no
    card. `options` are those the kind knows, with their defaults. `needs` says which other models
    play a part in a benchmark, `respondents` who may answer. `graded`: what is not answered counts
    as wrong; elsewhere it is left out, of both models where two are compared. `surveyed`: it holds
    answers against what peoples answered in a survey (`Setup.surveyed`). `constructed` says of a
    setup why the embedded engine's row is no model's, where it speaks as the last of `respondents`;
    "" where it is chance. `words` may stand in the place of data. `peoples`: cultures are those of
    culture `cards`, or whatever the `data` hold, all of them where none is named.
    """

    plan: Callable[[Benchmark, Setup], Iterable[Item]]
    measures: Callable[[Sequence[Outcome], Mapping[str, Any]], Sequence[Measure]]
    hold: Hold = once
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Callable[[Benchmark], tuple[Who, ...]] = lambda benchmark: ()
    respondents: tuple[Literal["people", "personas"], ...] = ("people",)
    peoples: Literal["cards", "data"] = "cards"
    graded: bool = False
    surveyed: bool = False
    constructed: Callable[[Setup], str] = lambda setup: ""
    words: tuple[str, ...] = ()
