"""Thins out a dialogue's opinions: k-means on their embeddings, one opinion kept a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from culturepark.curation.embedders import Embedder
from culturepark.records import Opinion


def thin_each(
    opinions: Sequence[Opinion], key: Callable[[Opinion], str], embed: Embedder, clusters: int
) -> tuple[Opinion, ...]:
    """Thin out the opinions of each key (their culture) by themselves; the order stays."""
    groups: dict[str, list[Opinion]] = {}
    for opinion in opinions:
        groups.setdefault(key(opinion), []).append(opinion)
    thinned = {k: iter(thin(group, embed, clusters)) for k, group in groups.items()}
    return tuple(next(thinned[key(opinion)]) for opinion in opinions)


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
