"""Drops what says the same: within a dialogue all but one opinion per cluster (k-means on their
embeddings), across the corpus what an earlier dialogue said in the same words.
"""

from __future__ import annotations

from collections.abc import Sequence

from culturepark.curation.embedders import Embedder
from culturepark.curation.filters.repeat import fold_words
from culturepark.records import Opinion, digest
from culturepark.store import RunStore
from culturepark.store.queries import list_blocks, read_block


def mark_words(opinion: Opinion) -> str | None:
    """Return what makes two kept opinions the same: their words, whatever the case and punctuation;
    None for a dropped one.
    """
    return None if opinion.dropped else digest(fold_words(opinion.final))


def deduplicate(store: RunStore) -> None:
    """Drop the kept opinions of a corpus that an earlier dialogue gave in the same words.

    Each culture's opinions on one question are compared among themselves, a block at a time, in the
    order of their scenes; so the outcome is the same in any order of work.
    """
    for culture, question in list_blocks(store):
        first: dict[str, str] = {}
        for opinion, mark in read_block(store, culture, question):
            if first.setdefault(mark, opinion) != opinion:
                _drop_repeat(store, opinion, first[mark])
    store.commit()


def _drop_repeat(store: RunStore, repeat: str, first: str) -> None:
    opinion = store.find_opinion(repeat)
    assert opinion is not None, "a repeat was read from the same store"
    detail = f"same words as opinion {first}"
    store.drop_opinion(opinion.model_copy(update={"dropped": "duplicate", "detail": detail}))


def thin(opinions: Sequence[Opinion], embed: Embedder, clusters: int) -> tuple[Opinion, ...]:
    """Return all opinions, numbered by cluster; all but the most central one of each cluster
    dropped as redundant.

    k = min(clusters, n), as in the paper (arXiv 2405.15145, §3.2). With n ≤ k and no two texts
    alike every opinion is its own cluster, so nothing is computed.
    """
    if len(opinions) <= clusters and len({o.final for o in opinions}) == len(opinions):
        return tuple(o.model_copy(update={"cluster": i}) for i, o in enumerate(opinions))
    labels, distances = cluster(
        embed([o.final for o in opinions]), min(clusters, len({o.final for o in opinions}))
    )
    kept: dict[int, int] = {}
    for i in sorted(range(len(opinions)), key=lambda i: (round(distances[i], 9), i)):
        kept.setdefault(labels[i], i)
    return tuple(
        o.model_copy(update={"cluster": labels[i]})
        if kept[labels[i]] == i
        else o.model_copy(
            update={
                "cluster": labels[i],
                "dropped": "redundant",
                "detail": f"like opinion {opinions[kept[labels[i]]].n}",
            }
        )
        for i, o in enumerate(opinions)
    )


def cluster(vectors: object, k: int) -> tuple[list[int], list[float]]:
    """Return each row's cluster and its distance to that cluster's centre; seeded, so the same for
    the same rows.
    """
    from sklearn.cluster import KMeans

    model = KMeans(n_clusters=k, n_init=1, random_state=0).fit(vectors)
    distances = model.transform(vectors)
    return [int(label) for label in model.labels_], [
        float(row[label]) for row, label in zip(distances, model.labels_, strict=True)
    ]
