"""What export formats read: a corpus' samples, pairs and shares, of a run or of somebody's file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from culturepark.corpora.build import questions, splits
from culturepark.corpora.pairs import Before, pairs
from culturepark.corpora.shares import Row, Surveyed, culture_rows
from culturepark.records import Pair, Sample
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.store.queries import iterate_dropped, iterate_samples, list_crossing_questions
from culturepark.workspace import Workspace


class Source(Protocol):
    """A corpus as its exports see it: three readers, each of one split."""

    @property
    def cultures(self) -> tuple[str, ...]:
        """The cultures in it, or the one that is looked at."""
        ...

    def only(self, culture: str) -> Source:
        """Return what there is of one culture."""
        ...

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield a split's samples."""
        ...

    def pairs(self, split: str) -> Iterator[Pair]:
        """Yield a split's pairs; those of one prompt stand together."""
        ...

    def shares(self, split: str) -> Iterator[Row]:
        """Yield a split's rows of shares."""
        ...

    def explain_lacking(self, what: str) -> str:
        """Return why there is none of samples, pairs or shares."""
        ...

    def list_crossing(self) -> list[str]:
        """Return the questions that stand in more than one split."""
        ...

    def iterate_rejects(self) -> Iterator[dict[str, Any]]:
        """Yield what was dropped, each with its reason."""
        ...


WHY = {  # there is none of it in a run
    "samples": "no opinion has been kept. `culturepark report` shows why they were dropped.",
    "pairs": (
        "no kept opinion contradicted its answer before a rewrite, and no two cultures of this run"
        " ({cultures}) answered one question differently"
    ),
    "shares": (
        "no question of scenarios/{pack}.toml that this run asks has survey figures for {cultures};"
        " `survey` in culture.toml names the countries asked"
    ),
}


@dataclass(frozen=True)
class RunSource:
    """A run as its exports see it: three readers, each of one split, and nothing in memory.

    `cultures` are the run's, or the one that is looked at; `before` returns an opinion's wording
    before any rewrite, in the first person; `surveyed` returns what a culture's people answered,
    None where they were never asked.
    """

    workspace: Workspace
    settings: Settings
    store: RunStore
    cultures: tuple[str, ...]
    before: Before
    surveyed: Surveyed
    culture: str | None = None

    def only(self, culture: str) -> RunSource:
        """Return what there is of one culture. Its pairs may still reject what the others say."""
        return replace(self, cultures=(culture,), culture=culture)

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield a split's samples in the corpus' order."""
        samples = iterate_samples(self.store, split)
        return (s for s in samples if self.culture in (None, s.culture))

    def pairs(self, split: str) -> Iterator[Pair]:
        """Yield a split's pairs by question, culture and sample."""
        return pairs(
            self.workspace, self.store, self.before, self.settings.seed, split, self.culture
        )

    def shares(self, split: str) -> Iterator[Row]:
        """Yield a split's rows of shares by culture, in the order of the pack."""
        where = splits(self.workspace, self.settings)
        asked = [q for q in questions(self.workspace, self.settings) if where[q.id] == split]
        for name in self.cultures:
            yield from culture_rows(self.workspace.culture(name), asked, self.surveyed)

    def explain_lacking(self, what: str) -> str:
        """Return why there is none of samples, pairs or shares."""
        return WHY[what].format(cultures=", ".join(self.cultures), pack=self.settings.scenario)

    def list_crossing(self) -> list[str]:
        """Return the questions that stand in more than one split."""
        return list_crossing_questions(self.store)

    def iterate_rejects(self) -> Iterator[dict[str, Any]]:
        """Yield the opinions that were dropped, each with its reason."""
        for culture, question, opinion in iterate_dropped(self.store):
            yield {"culture": culture, "question": question} | opinion.model_dump(mode="json")
