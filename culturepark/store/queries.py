"""Reads what a run keeps as records, one after another: memory does not grow with the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

from culturepark.errors import JournalError
from culturepark.records import Opinion, Sample, Scene
from culturepark.store.writer import RunStore

PAGE = 200  # scenes read at a time
READY = "status = 'done' AND (refined IS NULL OR refined != 'ok')"  # held, and not yet refined


class KeptOpinion(NamedTuple):
    """An opinion that was kept, and the scene in which it was given."""

    opinion: Opinion
    scene: Scene


class DroppedOpinion(NamedTuple):
    """An opinion that was dropped, with the culture and the question that it was given on."""

    culture: str
    question: str
    opinion: Opinion


class SampleKey(NamedTuple):
    """What tells samples of one question apart: place in the corpus, whose, option, words."""

    rank: int
    culture: str
    answer: int
    completion: str


@contextmanager
def hold_snapshot(store: RunStore) -> Iterator[None]:
    """See one moment of a run that may still be going on, so that all counts fit together."""
    store.select("SAVEPOINT snapshot")
    try:
        yield
    finally:
        store.select("RELEASE snapshot")


# ------------------------------------------------------------------- scenes


def iterate_scenes(store: RunStore, status: str | None = None) -> Iterator[Scene]:
    """Yield the scenes, or those with this status, by culture and ordinal."""
    return _iterate_scenes(store, "?1 IS NULL OR status = ?1", status)


def iterate_unrefined(store: RunStore) -> Iterator[Scene]:
    """Yield the scenes that are held and not yet refined, by culture and ordinal."""
    return _iterate_scenes(store, READY)


def _iterate_scenes(store: RunStore, where: str, status: str | None = None) -> Iterator[Scene]:
    after: tuple[Any, ...] = ("", -1)
    while True:
        rows = store.select(
            f"SELECT culture, ordinal, scene FROM scenes WHERE ({where}) AND (culture, ordinal)"
            f" > (?2, ?3) ORDER BY culture, ordinal LIMIT {PAGE}",
            status,
            *after,
        )
        for _, _, scene in rows:
            yield store.parse(Scene, scene)
        if len(rows) < PAGE:
            return
        after = rows[-1][:2]


def find_scene(store: RunStore, dialogue: str) -> Scene | None:
    """Return the scene of a dialogue; None where there is none of this id."""
    for (scene,) in store.select("SELECT scene FROM scenes WHERE id = ?", dialogue):
        return store.parse(Scene, scene)
    return None


def list_questions(store: RunStore) -> list[tuple[str, str]]:
    """Return culture and question of every scene once, in order."""
    rows = store.select("SELECT DISTINCT culture, question FROM scenes ORDER BY 1, 2")
    return [(culture, question) for culture, question in rows]


def list_cultures(store: RunStore) -> list[str]:
    """Return the cultures of all scenes and of all opinions' speakers, in order."""
    rows = store.select("SELECT culture FROM scenes UNION SELECT culture FROM opinions ORDER BY 1")
    return [culture for (culture,) in rows]


def list_scene_hashes(store: RunStore) -> set[str]:
    """Return the hashes of settings and cards that the scenes carry: one, in a sound run."""
    rows = store.select("SELECT DISTINCT json_extract(scene, '$.run') FROM scenes")
    return {run for (run,) in rows}


def list_refined(store: RunStore) -> list[str]:
    """Return the ids of the dialogues that are held and refined."""
    rows = store.select("SELECT id FROM scenes WHERE status = 'done' AND refined = 'ok'")
    return [dialogue for (dialogue,) in rows]


def find_example(store: RunStore, culture: str) -> str | None:
    """Return the id of a culture's first dialogue with an opinion that was kept."""
    rows = store.select(
        "SELECT s.id FROM scenes s JOIN opinions o ON o.dialogue = s.id WHERE s.culture = ? "
        "AND s.status = 'done' AND o.dropped = '' ORDER BY s.ordinal LIMIT 1",
        culture,
    )
    return str(rows[0][0]) if rows else None


# ----------------------------------------------------------------- opinions


def iterate_kept(store: RunStore) -> Iterator[KeptOpinion]:
    """Yield every opinion that was kept, by culture, dialogue and place."""
    rows = store.iterate(
        "SELECT s.scene, o.opinion FROM scenes s CROSS JOIN opinions o ON o.dialogue = s.id "
        "WHERE o.dropped = '' ORDER BY s.culture, s.ordinal, o.n"
    )
    for text, opinions in groupby(rows, key=lambda row: row[0]):
        scene = store.parse(Scene, text)
        for _, opinion in opinions:
            yield KeptOpinion(store.parse(Opinion, opinion), scene)


def list_blocks(store: RunStore) -> list[tuple[str, str]]:
    """Return the cultures and questions that opinions were kept for."""
    rows = store.select("SELECT DISTINCT culture, question FROM opinions WHERE dropped = ''")
    return [(culture, question) for culture, question in rows]


def read_block(store: RunStore, culture: str, question: str) -> list[tuple[str, str]]:
    """Return id and mark of a culture's kept opinions on one question, in the order of scenes."""
    rows = store.select(
        "SELECT o.id, o.mark FROM opinions o JOIN scenes s ON s.id = o.dialogue WHERE"
        " o.culture = ? AND o.question = ? AND o.dropped = '' ORDER BY s.ordinal, s.culture, o.n",
        culture,
        question,
    )
    return [(opinion, mark) for opinion, mark in rows]


def iterate_dropped(store: RunStore) -> Iterator[DroppedOpinion]:
    """Yield everything that was dropped, by culture, dialogue and place."""
    for culture, question, opinion in store.iterate(
        "SELECT o.culture, o.question, o.opinion FROM scenes s CROSS JOIN opinions o ON"
        " o.dialogue = s.id WHERE o.dropped != '' ORDER BY s.culture, s.ordinal, o.n"
    ):
        yield DroppedOpinion(culture, question, store.parse(Opinion, opinion))


def read_opinions(store: RunStore, dialogue: str) -> tuple[Opinion, ...]:
    """Return a dialogue's opinions, kept and dropped, in order."""
    rows = store.iterate("SELECT opinion FROM opinions WHERE dialogue = ? ORDER BY n", dialogue)
    return tuple(store.parse(Opinion, opinion) for (opinion,) in rows)


# ------------------------------------------------------------------ samples


def has_samples(store: RunStore) -> bool:
    """Say whether a corpus has been built."""
    return bool(store.select("SELECT 1 FROM samples LIMIT 1"))


def iterate_samples(store: RunStore, split: str | None = None) -> Iterator[Sample]:
    """Yield the corpus, or a split of it, in order."""
    where, values = ("split = ?", (split,)) if split else ("1", ())
    for (sample,) in store.iterate(
        f"SELECT sample FROM samples WHERE {where} ORDER BY rank", *values
    ):
        yield store.parse(Sample, sample)


def iterate_sample_keys(store: RunStore, split: str) -> Iterator[list[SampleKey]]:
    """Yield the keys of a split's samples, a question at a time, by culture."""
    rows = store.iterate(
        "SELECT question, rank, culture, json_extract(sample, '$.answer'), json_extract(sample,"
        " '$.completion') FROM samples WHERE split = ? ORDER BY question, culture, rank",
        split,
    )
    for _, same in groupby(rows, key=lambda row: row[0]):
        yield [SampleKey(*key) for _, *key in same]


def read_sample(store: RunStore, rank: int) -> Sample:
    """Return the sample at this place of the corpus; JournalError where there is none."""
    for (sample,) in store.select("SELECT sample FROM samples WHERE rank = ?", rank):
        return store.parse(Sample, sample)
    raise JournalError(f"{store.path} has no sample at rank {rank}")


def find_sample(store: RunStore, sample: str) -> Sample | None:
    """Return one sample by its id, or by the beginning of it where only one has it."""
    pattern = sample.replace("%", "").replace("_", "") + "%"
    rows = store.select("SELECT sample FROM samples WHERE id LIKE ? LIMIT 2", pattern)
    return store.parse(Sample, rows[0][0]) if len(rows) == 1 else None


def read_example_samples(store: RunStore, culture: str, limit: int) -> list[Sample]:
    """Return a culture's first sample of each of its first questions, at most `limit`."""
    rows = store.select(
        "SELECT sample, MIN(rank) FROM samples WHERE culture = ? GROUP BY question ORDER BY 2"
        " LIMIT ?",
        culture,
        limit,
    )
    return [store.parse(Sample, sample) for sample, _ in rows]


def list_crossing_questions(store: RunStore) -> list[str]:
    """Return the questions that stand in more than one split; a sound corpus has none."""
    rows = store.select(
        "SELECT question FROM samples GROUP BY question HAVING COUNT(DISTINCT split) > 1"
    )
    return [question for (question,) in rows]


def list_ids(store: RunStore) -> list[str]:
    """Return the ids of all samples and opinions."""
    return [
        name for (name,) in store.select("SELECT id FROM samples UNION SELECT id FROM opinions")
    ]
