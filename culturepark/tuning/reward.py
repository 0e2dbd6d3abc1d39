"""Reward models: one text format for scoring and training, scores without dropout, TRL's RewardTrainer with a weight a pair."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from culturepark.errors import InputError, ModelError
from culturepark.tuning.votes import Pair
from culturepark.weights import base, manifest
from culturepark.weights.chat import texts
from culturepark.weights.machine import Machine
from culturepark.weights.manifest import Manifest

# For encoders that bring no chat template: turns apart by the separator, the classifier's token before them. On a question
# and an answer that is what `tokenizer(question, answer)` gives, as reward models on encoders were trained (OpenAssistant's).
ENCODER = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ sep_token }}{% endif %}{% endfor %}"
)
HEADS = ("score", "classifier")
ROWS = 64  # texts scored at once


@dataclass(frozen=True)
class Drill:
    """How a reward model is trained: optimiser steps, pairs a step, largest step size, seed; `rank` and `alpha` shape adapters."""

    steps: int
    batch: int
    lr: float
    seed: int
    method: str = "full"
    rank: int = 16
    alpha: float = 32


@dataclass
class Texts:
    """Conversations as token ids, each tokenised once, for scoring and training alike."""

    tokenizer: Any = field(repr=False)
    length: int
    cut: int = 0
    ids: dict[tuple[str, bool], tuple[int, ...]] = field(default_factory=dict, repr=False)

    def add(self, pairs: Iterable[Pair]) -> None:
        """Tokenise both sides of pairs."""
        new = [(p, side) for p in pairs for side in (True, False) if (p.id, side) not in self.ids]
        talks = [p.talk(p.chosen if side else p.rejected) for p, side in new]
        for (p, side), row in zip(new, tokens(self.tokenizer, talks), strict=True):
            self.cut += len(row) > self.length
            self.ids[p.id, side] = tuple(clip(self.tokenizer, row, self.length))

    def of(self, pair: Pair, chosen: bool) -> tuple[int, ...]:
        """Return one side of a pair."""
        return self.ids[pair.id, chosen]


def tokenizer(name: str) -> Any:
    """Return a base's tokenizer; encoders without a chat template get one that separates turns as their pairs are separated."""
    found = base.tokenizer(name)
    if found.cls_token is not None and found.chat_template == base.TEMPLATE:
        found.chat_template = ENCODER
    return found


def tokens(tokenizer: Any, talks: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
    """Return whole conversations as token ids, in the base's chat template; encoders' own marks stand around them."""
    if not talks:
        return []
    rendered = texts(tokenizer, talks, begin=False)
    return [list(ids) for ids in tokenizer(rendered, add_special_tokens=tokenizer.cls_token is not None)["input_ids"]]


def clip(tokenizer: Any, ids: Sequence[int], length: int) -> list[int]:
    """Return the last `length` tokens, which hold the answer; the classifier's token stays in front.

    >>> clip(type("T", (), {"cls_token_id": 0}), [0, 1, 2, 3], 3)
    [0, 2, 3]
    """
    if len(ids) <= length:
        return list(ids)
    first = [ids[0]] if tokenizer.cls_token_id is not None and ids[0] == tokenizer.cls_token_id else []
    return [*first, *ids[len(ids) - length + len(first) :]]


# ------------------------------------------------------------------ models


def load(name: str, tokenizer: Any, machine: Machine, seed: int = 0) -> Any:
    """Return a reward model, one number a text; `seed` draws the head of a base that has none.

    `name` is a base as for `base.model`, or a folder that `keep` wrote: adapters are put on the model they were trained on.
    """
    from transformers import set_seed

    set_seed(seed)
    folder = Path(name).expanduser()
    adapter = base.adapter(folder) if folder.is_dir() else {}
    if adapter:
        from peft import PeftModel

        below = Path(adapter["base_model_name_or_path"])
        near = folder.parent / below.name  # the run's folder may have been moved
        model = _head(str(near if near.is_dir() else below), machine)
        model = PeftModel.from_pretrained(model, str(folder))
    else:
        model = _head(name, machine)
    if getattr(model.config, "num_labels", 1) != 1:
        raise InputError(f"{name!r} gives {model.config.num_labels} numbers a text; a reward model gives one")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # a text is read once
    return model.eval()


def _head(name: str, machine: Machine) -> Any:
    """Return a base with a head of one number; on the plainest attention where its kind knows no other (DeBERTa)."""
    try:
        return base.model(name, machine, scores=True)
    except ModelError as error:
        if machine.attention == "eager" or "attention" not in str(error).casefold():
            raise
        return base.model(name, replace(machine, attention="eager"), scores=True)


def score(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Return the reward of each row of token ids. Dropout is off, whatever mode the model is in; equal rows are scored once."""
    import torch

    order = sorted({tuple(row) for row in rows}, key=lambda row: (len(row), row))
    found: dict[tuple[int, ...], float] = {}
    was = model.training
    model.eval()
    for at in range(0, len(order), ROWS):
        part = order[at : at + ROWS]
        batch = tokenizer.pad({"input_ids": [list(r) for r in part]}, padding_side="right", return_tensors="pt")
        told = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            found.update(zip(part, model(**told).logits.float().reshape(len(part)).tolist(), strict=True))
    model.train(was)
    return [found[tuple(row)] for row in rows]


def rewards(model: Any, held: Texts, pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    """Return (r⁺, r⁻) of each pair by id: the rewards of what was chosen and of what was rejected."""
    held.add(pairs)
    flat = score(model, held.tokenizer, [held.of(p, side) for p in pairs for side in (True, False)])
    return {p.id: (flat[2 * i], flat[2 * i + 1]) for i, p in enumerate(pairs)}


# ---------------------------------------------------------------- training


def loss(chosen: Any, rejected: Any, weights: Any) -> Any:
    """Return −mean(w · log σ(r_θ(y⁺) − r_θ(y⁻))), nats (SCPO, arXiv 2606.18606, §3); all three of shape (pairs,).

    ValueError for any other shape: (pairs,) against (pairs, 1) would be broadcast to every chosen answer against every rejected.
    """
    from torch.nn.functional import logsigmoid

    shapes = [tuple(t.shape) for t in (chosen, rejected, weights)]
    if chosen.ndim != 1 or len(set(shapes)) > 1:
        raise ValueError(f"rewards and weights are of shape (pairs,), not {shapes}")
    return -(weights * logsigmoid(chosen - rejected)).mean()


def train(model: Any, held: Texts, pairs: Sequence[Pair], weights: Sequence[float], drill: Drill, machine: Machine,
          work: Path) -> tuple[Any, float]:  # fmt: skip
    """Train a model on weighted pairs with TRL's RewardTrainer; return it (an adapter on it for `lora`) and its last loss."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import RewardConfig

    held.add(pairs)
    gpu = machine.device != "cpu"
    told = RewardConfig(
        output_dir=str(work), use_cpu=not gpu, bf16=gpu and machine.dtype == "bfloat16", fp16=gpu and machine.dtype == "float16",
        gradient_checkpointing=gpu, dataloader_pin_memory=gpu, disable_tqdm=True, report_to="none", save_strategy="no", max_steps=drill.steps,
        per_device_train_batch_size=drill.batch, learning_rate=drill.lr, seed=drill.seed, data_seed=drill.seed, max_length=None,
        logging_strategy="steps", logging_steps=max(1, drill.steps // 4), disable_dropout=False,
    )  # fmt: skip
    rows = Dataset.from_dict({
        "chosen_ids": [list(held.of(p, True)) for p in pairs], "rejected_ids": [list(held.of(p, False)) for p in pairs],
        "weight": [float(w) for w in weights],
    })  # fmt: skip
    kinds = _kinds()
    made = kinds[0](model=model, args=told, train_dataset=rows, processing_class=held.tokenizer, peft_config=_lora(model, drill),
                    data_collator=kinds[1](pad_token_id=held.tokenizer.pad_token_id))  # fmt: skip
    made.remove_callback(PrinterCallback)
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    shutil.rmtree(work, ignore_errors=True)
    return made.accelerator.unwrap_model(made.model).eval(), losses[-1]


def _kinds() -> tuple[Any, Any]:
    """Return the trainer and the collator that carry a weight a pair."""
    import torch
    from trl import RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class Collator(DataCollatorForPreference):
        """Passes each pair's weight on."""

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            weights = torch.tensor([e["weight"] for e in examples], dtype=torch.float32)
            return {**super().torch_call(examples), "weight": weights}

    class Weighted(RewardTrainer):
        """Takes `loss` of the rewards of a batch: its first half chosen, its second rejected."""

        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["chosen_ids", "rejected_ids", "weight"]

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            chosen, rejected = out.logits.float().squeeze(-1).chunk(2)
            found = loss(chosen, rejected, inputs["weight"])
            return (found, out) if return_outputs else found

    return Weighted, Collator


def _lora(model: Any, drill: Drill) -> Any:
    """Return an adapter on every linear layer, with the head trained whole; None where the whole model is trained."""
    if drill.method != "lora":
        return None
    from peft import LoraConfig, TaskType

    heads = [h for h in (*HEADS, "pooler") if hasattr(model, h)]
    return LoraConfig(task_type=TaskType.SEQ_CLS, r=drill.rank, lora_alpha=drill.alpha, lora_dropout=0.0, target_modules="all-linear",
                      modules_to_save=heads)  # fmt: skip


def keep(model: Any, tokenizer: Any, folder: Path, about: Mapping[str, Any], below: Path | None = None) -> Path:
    """Write a reward model with its manifest, whole or not at all, and return the folder; safetensors only.

    `about` is what the manifest says beside kind, versions and time; `below` is the whole model that an adapter belongs to.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), safe_serialization=True)
    tokenizer.save_pretrained(str(partial))
    config = partial / "adapter_config.json"
    if config.is_file() and below is not None:
        import json

        config.write_text(
            json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(below.resolve())}, indent=1)
        )
    manifest.write(Manifest(kind="reward", versions=manifest.versions(), created=manifest.now(), **about), partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
