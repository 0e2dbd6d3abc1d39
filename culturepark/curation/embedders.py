"""Turns texts into vectors for clustering and diversity: offline by default, pluggable by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from culturepark.registry import EMBEDDERS

Embedder = Callable[
    [Sequence[str]], Any
]  # texts (n) → float array (n, dimensions), each row of length 1
DIMENSIONS = 256  # as in the paper


@lru_cache(maxsize=1)
def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        n_features=DIMENSIONS, ngram_range=(1, 2), norm="l2", alternate_sign=True
    )


def hashing(texts: Sequence[str]) -> Any:
    """Embed by hashed words and word pairs: needs no download and knows no meaning, so paraphrases
    look different.
    """
    return _vectorizer().transform(texts).toarray()


def load(name: str) -> Embedder:
    """Return the embedder of this short name, or `package.module:function`."""
    embedder: Embedder = EMBEDDERS.load(name)
    return embedder


def diversity(generated: Any, seeds: Any) -> float:
    """Return the diversity gain: mean over generated i of min over seeds j of ‖e(xᵢ) − e(yⱼ)‖₂.

    Arrays of shape (n, d) and (m, d) (CulturePark, arXiv 2405.15145, §5.1).
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    return float(pairwise_distances_argmin_min(generated, seeds)[1].mean())
