"""What export formats read of a run: its samples, pairs of them, and what its peoples answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from culturepark.corpora.build import questions, splits
from culturepark.corpora.pairs import Before, pairs
from culturepark.corpora.shares import Row, Surveyed, culture_rows
from culturepark.records import Pair, Sample
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.store.queries import iterate_samples
from culturepark.workspace import Workspace


@dataclass(frozen=True)
class Source:
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

    def only(self, culture: str) -> Source:
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
