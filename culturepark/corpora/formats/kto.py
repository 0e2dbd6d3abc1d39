"""TRL's conversational format of unpaired preferences: each completion once, labelled as one to
give or not to give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from culturepark.corpora.formats import (
    WHOLE,
    Format,
    Subsets,
    answer_message,
    origin,
    prompt_messages,
    splits,
)
from culturepark.corpora.source import Source
from culturepark.records import Pair


def write(source: Source, folder: Path) -> Subsets:
    """Write one JSONL file per split."""
    return {WHOLE: splits(folder, "{split}.jsonl", lambda split: rows(source.pairs(split)))}


def rows(pairs: Iterable[Pair]) -> Iterator[dict[str, Any]]:
    """Yield both sides of each pair, a text once a prompt: chosen where it is chosen anywhere, with
    its first pair's origin.

    Pairs of one prompt stand together, so that no more than these are held.
    """
    for _, same in groupby(pairs, key=lambda pair: (pair.system, pair.history, pair.prompt)):
        group = list(same)
        done, chosen = set[str](), {pair.chosen for pair in group}
        for pair in group:
            for text in (pair.chosen, pair.rejected):
                if text not in done:
                    done.add(text)
                    yield row(pair, text, text in chosen)


def row(pair: Pair, text: str, label: bool) -> dict[str, Any]:
    """Return `{prompt, completion, label, metadata}`."""
    return {
        "prompt": prompt_messages(pair),
        "completion": answer_message(text),
        "label": label,
        "metadata": origin(pair),
    }


FORMAT = Format(write, "pairs", about=__doc__)
