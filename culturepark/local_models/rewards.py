"""What reward models give conversations: one text format for scoring and training, scores without
dropout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from culturepark.errors import InputError, ModelError
from culturepark.local_models import base, libraries, manifest
from culturepark.local_models.chat import render_finished
from culturepark.local_models.machine import Machine, require_libraries
from culturepark.records import Preference, Record

# For encoders that bring no chat template: turns apart by the separator, the classifier's token
# before them. On a question and an answer that is what `tokenizer(question, answer)` gives, as
# reward models on encoders were trained (OpenAssistant's).
ENCODER = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ sep_token }}{%"
    " endif %}{% endfor %}"
)
ROWS = 64  # texts scored at once


@dataclass
class Texts:
    """Conversations as token ids, each tokenised once, for scoring and training alike."""

    tokenizer: Any = field(repr=False)
    length: int
    cut: int = 0
    ids: dict[tuple[str, bool], tuple[int, ...]] = field(default_factory=dict, repr=False)

    def add(self, pairs: Iterable[Preference]) -> None:
        """Tokenise both sides of pairs."""
        new = [(p, side) for p in pairs for side in (True, False) if (p.id, side) not in self.ids]
        talks = [p.with_answer(p.chosen if side else p.rejected) for p, side in new]
        for (p, side), row in zip(new, tokenize_talks(self.tokenizer, talks), strict=True):
            self.cut += len(row) > self.length
            self.ids[p.id, side] = tuple(keep_last_tokens(self.tokenizer, row, self.length))

    def of(self, pair: Preference, chosen: bool) -> tuple[int, ...]:
        """Return one side of a pair."""
        return self.ids[pair.id, chosen]


def load_tokenizer(name: str) -> Any:
    """Return a base's tokenizer; encoders without a chat template get one that separates turns as
    their pairs are separated.
    """
    tokenizer = base.load_tokenizer(name)
    if tokenizer.cls_token is not None and str(tokenizer.chat_template).endswith(
        libraries.TEMPLATE
    ):
        tokenizer.chat_template = ENCODER
    return tokenizer


def tokenize_talks(tokenizer: Any, talks: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
    """Return whole conversations as token ids, in the base's chat template; encoders' own marks
    stand around them.
    """
    if not talks:
        return []
    rendered = render_finished(tokenizer, talks)
    return [
        list(ids)
        for ids in tokenizer(rendered, add_special_tokens=tokenizer.cls_token is not None)[
            "input_ids"
        ]
    ]


def keep_last_tokens(tokenizer: Any, ids: Sequence[int], length: int) -> list[int]:
    """Return the last `length` tokens, which hold the answer; the classifier's token stays in
    front.

    >>> clip(type("T", (), {"cls_token_id": 0}), [0, 1, 2, 3], 3)
    [0, 2, 3]
    """
    if len(ids) <= length:
        return list(ids)
    first = (
        [ids[0]] if tokenizer.cls_token_id is not None and ids[0] == tokenizer.cls_token_id else []
    )
    return [*first, *ids[len(ids) - length + len(first) :]]


class RewardResult(Record):
    """One model judged: how it was made, and r(chosen) − r(rejected) of every held-out pair, of all
    countries, by pair id.

    `pairs` counts the country's training pairs (of `share` of them), `kept` those it learnt from,
    `mass` the sum of their weights; `minority` names the country's held-out pairs on which most
    countries are on the other side. `split` is `validation` in sweeps. `loss` is None where nothing
    was trained.
    """

    country: str
    variant: str
    seed: int
    share: float = 1.0
    tau: float
    beta: float
    split: Literal["test", "validation"] = "test"
    pairs: int
    kept: int
    mass: float
    steps: int
    loss: float | None
    minority: tuple[str, ...]
    margins: dict[str, float] = Field(repr=False)


# ------------------------------------------------------------------ models


def is_reward_model(name: str) -> bool:
    """Say whether a name stands for a reward model: a folder with a reward manifest, or a
    classifier of one output by folder or hub name.
    """
    folder = Path(name).expanduser()
    if (folder / manifest.FILE).is_file():
        return manifest.read(folder).kind == "reward"
    config = _read_config(folder, name)
    return has_reward_head(config.get("architectures")) and len(config.get("id2label") or "ab") == 1


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return what config.json says, of a folder or at the hub; empty where there is none."""
    path = folder / "config.json"
    if (
        not folder.is_dir()
        and name != base.TINY
        and name.count("/") == 1
        and not name.startswith((".", "/", "~"))
    ):
        require_libraries()
        from huggingface_hub import hf_hub_download

        with suppress(OSError, ValueError):  # whoever loads it says why there is none
            path = Path(hf_hub_download(name, "config.json"))
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def has_reward_head(architectures: Iterable[str] | None) -> bool:
    """Say whether a configuration's `architectures` have a head that scores texts."""
    return any("SequenceClassification" in kind for kind in architectures or ())


def find_base_folder(folder: Path) -> Path:
    """Return the whole model that a kept adapter is put on: where it was, or beside it if the run's
    folder was moved.
    """
    saved = Path(base.read_adapter_config(folder).get("base_model_name_or_path") or "")
    near = folder.parent / saved.name
    return near if near.is_dir() else saved


def load_model(name: str, tokenizer: Any, machine: Machine, seed: int = 0) -> Any:
    """Return a reward model, one number a text; `seed` draws the head of a base that has none.

    `name` is a base as for `base.load_model`, or a folder that `keep` wrote: adapters are put on
    the model they were trained on.
    """
    from transformers import set_seed

    set_seed(seed)
    folder = Path(name).expanduser()
    if folder.is_dir() and base.read_adapter_config(folder):
        from peft import PeftModel

        head = _load_head(str(find_base_folder(folder)), machine)
        with libraries.explain_damage(f"cannot load the adapter at {folder}"):
            model = PeftModel.from_pretrained(head, str(folder))
    else:
        model = _load_head(name, machine)
    if getattr(model.config, "num_labels", 1) != 1:
        raise InputError(
            f"{name!r} gives {model.config.num_labels} numbers a text; a reward model gives one"
        )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # a text is read once
    return model.eval()


def _load_head(name: str, machine: Machine) -> Any:
    """Return a base with a head of one number; on the plainest attention where its kind knows no
    other (DeBERTa).
    """
    try:
        return base.load_model(name, machine, scores=True)
    except ModelError as error:
        if machine.attention == "eager" or "attention" not in str(error).casefold():
            raise
        return base.load_model(name, replace(machine, attention="eager"), scores=True)


def score_rows(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Return the reward of each row of token ids. Dropout is off, whatever mode the model is in;
    equal rows are scored once.
    """
    import torch

    order = sorted({tuple(row) for row in rows}, key=lambda row: (len(row), row))
    scores: dict[tuple[int, ...], float] = {}
    was = model.training
    model.eval()
    for at in range(0, len(order), ROWS):
        part = order[at : at + ROWS]
        batch = tokenizer.pad(
            {"input_ids": [list(r) for r in part]}, padding_side="right", return_tensors="pt"
        )
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            scores.update(
                zip(part, model(**inputs).logits.float().reshape(len(part)).tolist(), strict=True)
            )
    model.train(was)
    return [scores[tuple(row)] for row in rows]


def compute_rewards(
    model: Any, texts: Texts, pairs: Sequence[Preference]
) -> dict[str, tuple[float, float]]:
    """Return (r⁺, r⁻) of each pair by id: the rewards of what was chosen and of what was
    rejected.
    """
    texts.add(pairs)
    flat = score_rows(
        model, texts.tokenizer, [texts.of(p, side) for p in pairs for side in (True, False)]
    )
    return {p.id: (flat[2 * i], flat[2 * i + 1]) for i, p in enumerate(pairs)}
