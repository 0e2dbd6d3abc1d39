"""LLaMA-Factory's ShareGPT format: samples, and where there are pairs, preferences (DPO) and marked
answers (KTO), with their registry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from culturepark.corpora.formats import (
    Chat,
    Format,
    Subsets,
    kto,
    metadata,
    origin,
    prompt_messages,
    splits,
)
from culturepark.corpora.source import Source
from culturepark.records import Pair, Sample

REGISTRY = "dataset_info.json"  # by which LLaMA-Factory finds data sets in a folder
COLUMNS = {"messages": "conversations", "system": "system"}
KINDS: dict[str, dict[str, Any]] = {
    "sft": {"formatting": "sharegpt", "columns": COLUMNS},
    "dpo": {
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {**COLUMNS, "chosen": "chosen", "rejected": "rejected"},
    },
    "kto": {"formatting": "sharegpt", "columns": {**COLUMNS, "kto_tag": "kto_tag"}},
}


def write(source: Source, folder: Path) -> Subsets:
    """Write `KIND_SPLIT.jsonl`, and `dataset_info.json`, which names each of them `KIND_SPLIT`."""
    subsets = {
        "sft": splits(
            folder, "sft_{split}.jsonl", lambda split: map(sample_row, source.samples(split))
        ),
        "dpo": splits(
            folder, "dpo_{split}.jsonl", lambda split: map(pair_row, source.pairs(split))
        ),
        "kto": splits(folder, "kto_{split}.jsonl", lambda split: marked_rows(source.pairs(split))),
    }
    registry = {
        f"{kind}_{split}": {"file_name": path, **KINDS[kind]}
        for kind, files in subsets.items()
        for split, path in files.items()
    }
    (folder / REGISTRY).write_text(json.dumps(registry, indent=1) + "\n", encoding="utf-8")
    return {kind: files for kind, files in subsets.items() if files}


def sample_row(sample: Sample) -> dict[str, Any]:
    """Return `{conversations, system, metadata}`: a question and its answer."""
    talk = [*_talk(prompt_messages(sample)), _model(sample.completion)]
    return {"conversations": talk, "system": sample.system, "metadata": metadata(sample)}


def pair_row(pair: Pair) -> dict[str, Any]:
    """Return `{conversations, chosen, rejected, system, metadata}`: a question, and one message on
    each side.
    """
    return {
        "conversations": _talk(prompt_messages(pair)),
        "chosen": _model(pair.chosen),
        "rejected": _model(pair.rejected),
        "system": pair.system,
        "metadata": origin(pair),
    }


def marked_rows(pairs: Iterable[Pair]) -> Iterator[dict[str, Any]]:
    """Yield `{conversations, kto_tag, system, metadata}`: an answer, and whether it is one to
    give.
    """
    for row in kto.rows(pairs):
        prompt = row["prompt"]
        system = prompt[0]["content"] if prompt[0]["role"] == "system" else ""
        talk = [*_talk(prompt), _model(row["completion"][0]["content"])]
        yield {
            "conversations": talk,
            "kto_tag": row["label"],
            "system": system,
            "metadata": row["metadata"],
        }


def _talk(messages: Chat) -> list[dict[str, str]]:
    """Return what stands before an answer, the system's message aside."""
    say = {"user": _human, "assistant": _model}
    return [say[m["role"]](m["content"]) for m in messages if m["role"] in say]


def _human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def _model(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


FORMAT = Format(write, "samples", about=__doc__)
