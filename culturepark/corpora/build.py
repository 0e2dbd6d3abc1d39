"""Makes fine-tuning samples of kept opinions and splits them so that no question crosses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from culturepark.records import Opinion, Question, Sample, Scene, digest, stream
from culturepark.settings import Settings, Split
from culturepark.store import RunStore
from culturepark.store.queries import iterate_kept
from culturepark.wording import SYSTEM, completion
from culturepark.workspace import Workspace

Splits = dict[str, str]


def build(workspace: Workspace, settings: Settings, store: RunStore) -> dict[str, int]:
    """Fill the store's corpus from its kept opinions; return how many samples each culture has.

    With `settings.samples`, a culture's first that many are taken, in the order of its scenes.
    """
    counts: Counter[str] = Counter()
    store.write_samples(_samples(workspace, settings, store, splits(workspace, settings), counts))
    return dict(counts)


def _samples(
    workspace: Workspace,
    settings: Settings,
    store: RunStore,
    splits: Splits,
    counts: Counter[str],
) -> Iterator[Sample]:
    for opinion, scene in iterate_kept(store):
        culture = scene.seats[opinion.seat].culture
        if settings.samples and counts[culture] >= settings.samples:
            continue
        counts[culture] += 1
        yield sample(workspace, opinion, scene, splits[scene.question])


def sample(workspace: Workspace, opinion: Opinion, scene: Scene, split_name: str) -> Sample:
    """Return the sample of one kept opinion: system, question with options, "{option}. {opinion in
    the first person}".
    """
    question, seat = workspace.question(scene.scenario, scene.question), scene.seats[opinion.seat]
    answer = scene.answer_of(opinion.seat)
    return Sample.model_validate(
        {
            "id": digest(opinion.id, opinion.spoken),
            "culture": seat.culture,
            "question": question.id,
            "topic": question.topic,
            "system": SYSTEM.format(title=workspace.culture(seat.culture).title),
            "prompt": question.prompt,
            "completion": completion(question, answer, opinion.spoken),
            "answer": answer,
            "opinion": opinion.id,
            "dialogue": scene.id,
            "persona": seat.persona,
            "split": split_name,
        }
    )


def questions(workspace: Workspace, settings: Settings) -> tuple[Question, ...]:
    """Return the questions that a run asks, in the order of its pack."""
    pack = workspace.scenario(settings.scenario).questions
    return tuple(q for q in pack if not settings.questions or q.id in settings.questions)


def splits(workspace: Workspace, settings: Settings) -> Splits:
    """Return the split of every question that a run asks: samples, pairs and shares all follow
    it.
    """
    return split([q.id for q in questions(workspace, settings)], settings.split, settings.seed)


def split(questions: Sequence[str], shares: Split, seed: int) -> Splits:
    """Give every question to one split. Small packs keep at least one question to train on."""
    order = stream(seed, "split").sample(sorted(questions), len(questions))
    tests = min(round(len(order) * shares.test), max(0, len(order) - 1))
    validations = min(round(len(order) * shares.validation), max(0, len(order) - 1 - tests))
    return {
        name: "test" if i < tests else "validation" if i < tests + validations else "train"
        for i, name in enumerate(order)
    }
