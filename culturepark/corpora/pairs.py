"""Pairs a sample with what is not to be said in its place: its own opinion unrewritten, or another
culture's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from culturepark.records import Opinion, Pair, Sample, Scene, digest, stream
from culturepark.store import RunStore
from culturepark.store.queries import find_scene, iterate_sample_keys, read_sample
from culturepark.wording import completion
from culturepark.workspace import Workspace

Before = Callable[[Opinion, Scene], str]


class Told(NamedTuple):
    """What is held of every sample of one question: its rank in the corpus, and its completion as a
    hash.
    """

    rank: int
    culture: str
    answer: int
    mark: str


def pairs(
    workspace: Workspace,
    store: RunStore,
    before: Before,
    seed: int,
    split: str,
    culture: str | None = None,
) -> Iterator[Pair]:
    """Yield a split's pairs (of one culture, where it is given) by question, culture and sample.

    A sample has at most one pair of each kind. Nothing is rejected that a sample of the same
    culture says to the same question. `before` returns an opinion's wording before any rewrite, in
    the first person. One question is held at a time.
    """
    for keys in iterate_sample_keys(store, split):
        crowd = Crowd(
            [Told(rank, whose, answer, digest(text)) for rank, whose, answer, text in keys]
        )
        for told in crowd.told:
            if culture in (None, told.culture):
                yield from _of(told, crowd, workspace, store, before, seed)


def _of(
    told: Told, crowd: Crowd, workspace: Workspace, store: RunStore, before: Before, seed: int
) -> Iterator[Pair]:
    sample = read_sample(store, told.rank)
    text = _unrewritten(sample, workspace, store, before)
    if text is not None and digest(text) not in crowd.hash_completions(told.culture):
        yield _pair("rewrite", sample, text, sample.opinion, sample.culture, sample.answer)
    if (other := crowd.other(told, seed, sample.id)) is not None:
        found = read_sample(store, other.rank)
        yield _pair("culture", sample, found.completion, found.id, found.culture, found.answer)


def _unrewritten(
    sample: Sample, workspace: Workspace, store: RunStore, before: Before
) -> str | None:
    """Return the completion that a sample would have had unrewritten; None where its first wording
    did not contradict.
    """
    opinion = store.find_opinion(sample.opinion)
    if (
        sample.answer is None
        or opinion is None
        or len(opinion.verdicts) < 2
        or opinion.verdicts[0].label != "contradict"
    ):
        return None
    scene = find_scene(store, sample.dialogue)
    assert scene is not None, "an opinion's scene is written before it"
    return completion(
        workspace.question(scene.scenario, scene.question), sample.answer, before(opinion, scene)
    )


def _pair(
    kind: str, sample: Sample, rejected: str, other: str, culture: str, answer: int | None
) -> Pair:
    told = sample.model_dump(
        include={"culture", "question", "topic", "system", "prompt", "answer", "split"}
    )
    return Pair(
        id=digest(kind, sample.id, other),
        kind=kind,
        chosen=sample.completion,
        rejected=rejected,
        sample=sample.id,
        other=other,
        other_culture=culture,
        other_answer=answer,
        **told,
    )


class Crowd:
    """Everything that was told to one question."""

    def __init__(self, told: list[Told]) -> None:
        self.told = told
        self._by: dict[str, list[Told]] = {}
        for one in told:
            self._by.setdefault(one.culture, []).append(one)
        self._said = {culture: {one.mark for one in those} for culture, those in self._by.items()}
        self._against: dict[tuple[str, int], list[list[Told]]] = {}

    def hash_completions(self, culture: str) -> set[str]:
        """Return the hashes of all that a culture's samples say."""
        return self._said[culture]

    def other(self, told: Told, seed: int, sample: str) -> Told | None:
        """Draw a sample with another answer from another culture, each culture as likely; None
        where there is none.
        """
        rng = stream(seed, "pair", sample)
        against = self._others(told.culture, told.answer)
        return rng.choice(rng.choice(against)) if against else None

    def _others(self, culture: str, answer: int) -> list[list[Told]]:
        """Return what may be rejected beside this answer of this culture, a list a culture."""
        if (culture, answer) not in self._against:
            said = self._said[culture]
            found = (
                [one for one in those if one.answer != answer and one.mark not in said]
                for other, those in self._by.items()
                if other != culture
            )
            self._against[culture, answer] = [those for those in found if those]
        return self._against[culture, answer]
