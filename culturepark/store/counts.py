"""Counts what a run holds, in the database: memory grows with cultures and questions, not with the
corpus.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from culturepark.records import MARKS
from culturepark.store.queries import READY
from culturepark.store.writer import RunStore

UNJUDGED = "dropped IN ('unverified', 'unrewritten')"  # no call came through that would judge it


class Counts(NamedTuple):
    """How much of everything a run holds; `dialogues` are those held to their end."""

    dialogues: int
    failed_dialogues: int
    turns: int
    marked_turns: int
    opinions: int
    kept: int
    samples: int


class StageCounts(NamedTuple):
    """How much of a culture has come through each stage; `unrefined` are dialogues that could not
    be refined.
    """

    scenes: int
    held: int
    failed: int
    refined: int
    unrefined: int
    turns: int
    opinions: int
    kept: int
    samples: int


class MarkedTurns(NamedTuple):
    """How many turns somebody has, how many of them are marked, and how many carry each mark."""

    whose: str
    turns: int
    marked: int
    marks: dict[str, int]


class OpinionCount(NamedTuple):
    """How many of a culture's opinions were dropped for one reason; empty: were kept."""

    culture: str
    dropped: str
    opinions: int


class RewriteCounts(NamedTuple):
    """How many opinions contradicted their answer at first, passed in the end, and were kept."""

    tried: int
    saved: int
    kept: int


class FaultCount(NamedTuple):
    """How many opinions carry a planted fault (empty: none) and ended so (empty: kept), and how
    many of them were reworded.
    """

    kind: str
    dropped: str
    opinions: int
    reworded: int


class SplitCount(NamedTuple):
    """How many samples a split has, and on how many questions."""

    split: str
    samples: int
    questions: int


class TopicCount(NamedTuple):
    """How many samples a culture has on a topic."""

    topic: str
    culture: str
    samples: int


class AnswerCount(NamedTuple):
    """How many samples of a culture give an answer (option code) to a question, and how many
    persons gave it, each once per dialogue.
    """

    culture: str
    question: str
    code: int
    samples: int
    answers: int


class ReasonCount(NamedTuple):
    """How often something failed for one reason."""

    reason: str
    times: int


class Failures(NamedTuple):
    """How many failures there are, of how many kinds, and the most frequent reasons."""

    total: int
    kinds: int
    top: list[ReasonCount]


# ---------------------------------------------------------------- in all


def count_all(store: RunStore) -> Counts:
    """Return how much of everything a run holds."""
    tables = (
        "scenes WHERE status = 'done'",
        "scenes WHERE status = 'failed'",
        "turns",
        "turns WHERE json_array_length(turn, '$.marks') > 0",
        "opinions",
        "opinions WHERE dropped = ''",
        "samples",
    )
    (row,) = store.select(f"SELECT {', '.join(f'(SELECT COUNT(*) FROM {t})' for t in tables)}")
    return Counts(*row)


def count_stages(store: RunStore, culture: str) -> StageCounts:
    """Return how much of a culture has come through each stage."""
    (scenes,) = store.select(
        "SELECT COUNT(*), COALESCE(SUM(status = 'done'), 0), COALESCE(SUM(status = 'failed'), 0),"
        " COALESCE(SUM(refined = 'ok'), 0), COUNT(read_failure(refined))"
        " FROM scenes WHERE culture = ?",
        culture,
    )
    (rest,) = store.select(
        "SELECT (SELECT COUNT(*) FROM scenes s JOIN turns t ON t.dialogue = s.id"
        " WHERE s.culture = ?1), (SELECT COUNT(*) FROM opinions WHERE culture = ?1),"
        " (SELECT COUNT(*) FROM opinions WHERE culture = ?1 AND dropped = ''),"
        " (SELECT COUNT(*) FROM samples WHERE culture = ?1)",
        culture,
    )
    return StageCounts(*scenes, *rest)


# ------------------------------------------------------------------- scenes


def count_held(store: RunStore, culture: str, first: int, end: int) -> int:
    """Return how many of a culture's scenes from place `first` to before `end` are held."""
    return _count_scenes(store, "status = 'done'", culture, first, end)


def count_unrefined(store: RunStore, culture: str, first: int, end: int) -> int:
    """Return how many of a culture's scenes from place `first` to before `end` are held and not
    yet refined.
    """
    return _count_scenes(store, READY, culture, first, end)


def _count_scenes(store: RunStore, where: str, culture: str, first: int, end: int) -> int:
    ((count,),) = store.select(
        f"SELECT COUNT(*) FROM scenes WHERE {where} AND culture = ? AND ordinal >= ?"
        " AND ordinal < ?",
        culture,
        first,
        end,
    )
    return int(count)


def count_all_unrefined(store: RunStore) -> int:
    """Return how many dialogues are held and not yet refined."""
    ((count,),) = store.select(f"SELECT COUNT(*) FROM scenes WHERE {READY}")
    return int(count)


def count_refined(store: RunStore) -> tuple[int, int]:
    """Return how many dialogues are refined, and how many could not be."""
    ((refined, failed),) = store.select(
        "SELECT COALESCE(SUM(refined = 'ok'), 0), COUNT(read_failure(refined)) FROM scenes"
    )
    return int(refined), int(failed)


def count_marked_turns(store: RunStore, by: Literal["culture", "model"]) -> list[MarkedTurns]:
    """Return how many turns each culture or model has and how many of them are marked, in order."""
    column = {
        "culture": "(SELECT culture FROM scenes WHERE id = t.dialogue)",
        "model": (
            "COALESCE((SELECT model FROM calls WHERE key = json_extract(t.turn, '$.call') LIMIT"
            " 1), '')"
        ),
    }[by]
    sums = ", ".join(
        f"""TOTAL(INSTR(json_extract(t.turn, '$.marks'), '"{mark}"') > 0)""" for mark in MARKS
    )
    marked = "TOTAL(json_array_length(t.turn, '$.marks') > 0)"
    rows = store.select(
        f"SELECT {column}, COUNT(*), {marked}, {sums} FROM turns t GROUP BY 1 ORDER BY 1"
    )
    return [
        MarkedTurns(whose, turns, int(marked), dict(zip(MARKS, map(int, marks), strict=True)))
        for whose, turns, marked, *marks in rows
    ]


def count_planted(store: RunStore) -> dict[str, int]:
    """Return how many turns carry each kind of planted fault."""
    return dict(
        store.select(
            "SELECT json_extract(f.value, '$.kind'), COUNT(*) FROM turns t, json_each(t.turn,"
            " '$.faults') f GROUP BY 1 ORDER BY 1"
        )
    )


# ----------------------------------------------------------------- opinions


def count_kept(store: RunStore, culture: str, dialogues: int) -> int:
    """Return how many opinions of a culture's people were kept in its own first dialogues."""
    ((count,),) = store.select(
        "SELECT COUNT(*) FROM opinions o JOIN scenes s ON s.id = o.dialogue "
        "WHERE o.dropped = '' AND o.culture = s.culture AND s.culture = ? AND s.ordinal < ?",
        culture,
        dialogues,
    )
    return int(count)


def count_dropped(store: RunStore, culture: str | None = None) -> Counter[str]:
    """Return how many opinions of a run, or of one culture, were dropped for each reason."""
    dropped: Counter[str] = Counter()
    for count in count_opinions(store, culture):
        if count.dropped:
            dropped[count.dropped] += count.opinions
    return dropped


def count_opinions(store: RunStore, culture: str | None = None) -> list[OpinionCount]:
    """Return how many opinions of each culture, or of one, were kept and dropped, by reason."""
    rows = store.select(
        "SELECT culture, dropped, COUNT(*) FROM opinions WHERE ?1 IS NULL OR culture = ?1"
        " GROUP BY culture, dropped",
        culture,
    )
    return [OpinionCount(*row) for row in rows]


def count_rewrites(store: RunStore) -> RewriteCounts:
    """Return what became of the opinions that contradicted their answer at first."""
    (row,) = store.select(
        "SELECT COUNT(*), COALESCE(SUM(last = 'entail'), 0),"
        " COALESCE(SUM(last = 'entail' AND dropped = ''), 0) FROM ("
        "SELECT dropped, json_extract(opinion, '$.verdicts[#-1].label') AS last FROM opinions "
        "WHERE json_extract(opinion, '$.verdicts[0].label') = 'contradict')"
    )
    return RewriteCounts(*row)


def count_faults(store: RunStore) -> list[FaultCount]:
    """Return what became of the opinions by the planted faults that they carry."""
    rows = store.select(
        "SELECT COALESCE(f.value, ''), o.dropped, COUNT(DISTINCT o.id), COUNT(DISTINCT CASE WHEN"
        " json_extract(o.opinion, '$.final') != json_extract(o.opinion, '$.text') THEN o.id END)"
        " FROM opinions o LEFT JOIN json_each(o.opinion, '$.faults') f GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return [FaultCount(*row) for row in rows]


# ------------------------------------------------------------------ samples


def count_splits(store: RunStore) -> list[SplitCount]:
    """Return how many samples and questions each split has."""
    rows = store.select(
        "SELECT split, COUNT(*), COUNT(DISTINCT question) FROM samples GROUP BY split"
    )
    return [SplitCount(*row) for row in rows]


def count_topics(store: RunStore) -> list[TopicCount]:
    """Return how many samples each culture has on each topic, in order."""
    rows = store.select(
        "SELECT json_extract(sample, '$.topic'), culture, COUNT(*) FROM samples GROUP BY 1, 2"
        " ORDER BY 1, 2"
    )
    return [TopicCount(*row) for row in rows]


def count_answers(store: RunStore) -> list[AnswerCount]:
    """Return how often each culture answers what to each question, in order."""
    rows = store.select(
        "SELECT culture, question, json_extract(sample, '$.answer'), COUNT(*), COUNT(DISTINCT"
        " json_extract(sample, '$.dialogue') || ' ' || json_extract(sample, '$.persona')) FROM"
        " samples GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [AnswerCount(*row) for row in rows]


def count_personas(store: RunStore) -> tuple[int, int]:
    """Return how many personas speak in more than one split, and how many speak at all."""
    ((several, everybody),) = store.select(
        "SELECT COALESCE(SUM(splits > 1), 0), COUNT(*) FROM (SELECT COUNT(DISTINCT split) AS splits"
        " FROM samples GROUP BY json_extract(sample, '$.persona'))"
    )
    return int(several), int(everybody)


# ----------------------------------------------------------------- failures


def count_failed(store: RunStore, culture: str | None, top: int) -> Failures:
    """Return why dialogues failed, of a run or of one culture, with the `top` reasons."""
    return _count_failures(
        store, "strip_place(reason)", "scenes", "status = 'failed'", culture, top
    )


def count_not_refined(store: RunStore, culture: str | None, top: int) -> Failures:
    """Return why dialogues could not be refined, with the `top` reasons."""
    reason = "read_failure(refined)"
    return _count_failures(store, reason, "scenes", f"{reason} IS NOT NULL", culture, top)


def count_unjudged(store: RunStore, culture: str | None, top: int) -> Failures:
    """Return why opinions have no verdict, with the `top` reasons."""
    reason = "dropped || ': ' || json_extract(opinion, '$.detail')"
    return _count_failures(store, reason, "opinions", UNJUDGED, culture, top)


def _count_failures(
    store: RunStore, reason: str, table: str, where: str, culture: str | None, top: int
) -> Failures:
    grouped = (
        f"SELECT name_cause({reason}) AS why, COUNT(*) AS n FROM {table}"
        f" WHERE {where} AND (?1 IS NULL OR culture = ?1) GROUP BY 1"
    )
    ((total, kinds),) = store.select(
        f"SELECT COALESCE(SUM(n), 0), COUNT(*) FROM ({grouped})", culture
    )
    rows = store.select(
        f"SELECT why, n FROM ({grouped}) ORDER BY n DESC, why LIMIT ?2", culture, top
    )
    return Failures(total, kinds, [ReasonCount(*row) for row in rows])
