"""Trains reward models: TRL's RewardTrainer with a weight per pair, on the tokens that
are scored.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from culturepark.atomic import move
from culturepark.local_models import manifest
from culturepark.local_models.machine import Machine
from culturepark.local_models.manifest import Manifest
from culturepark.local_models.rewards import Texts
from culturepark.records import Preference

HEADS = ("score", "classifier")


@dataclass(frozen=True)
class RewardRecipe:
    """How a reward model is trained: optimiser steps, pairs per step, largest step size, seed.

    `rank` and `alpha` shape adapters (method `lora`).
    """

    steps: int
    batch: int
    lr: float
    seed: int
    method: str = "full"
    rank: int = 16
    alpha: float = 32


def compute_loss(chosen: Any, rejected: Any, weights: Any) -> Any:
    """Return −mean(w · log σ(r_θ(y⁺) − r_θ(y⁻))), nats (SCPO, arXiv 2606.18606, §3); all three of
    shape (pairs,).

    Raises ValueError for other shapes: (pairs,) and (pairs, 1) would be broadcast, so that each
    chosen answer would be compared with every rejected one.
    """
    from torch.nn.functional import logsigmoid

    shapes = [tuple(t.shape) for t in (chosen, rejected, weights)]
    if chosen.ndim != 1 or len(set(shapes)) > 1:
        raise ValueError(f"rewards and weights are of shape (pairs,), not {shapes}")
    return -(weights * logsigmoid(chosen - rejected)).mean()


def train_reward_model(
    model: Any,
    texts: Texts,
    pairs: Sequence[Preference],
    weights: Sequence[float],
    recipe: RewardRecipe,
    machine: Machine,
    work: Path,
) -> tuple[Any, float]:
    """Train a model on weighted pairs with TRL's RewardTrainer; return it (with an adapter for
    `lora`) and its last loss.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import RewardConfig

    texts.add(pairs)
    gpu = machine.device != "cpu"
    config = RewardConfig(
        output_dir=str(work),
        use_cpu=not gpu,
        bf16=gpu and machine.dtype == "bfloat16",
        fp16=gpu and machine.dtype == "float16",
        gradient_checkpointing=gpu,
        dataloader_pin_memory=gpu,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.lr,
        seed=recipe.seed,
        data_seed=recipe.seed,
        max_length=None,
        logging_strategy="steps",
        logging_steps=max(1, recipe.steps // 4),
        disable_dropout=False,
    )
    rows = Dataset.from_dict(
        {
            "chosen_ids": [list(texts.of(p, True)) for p in pairs],
            "rejected_ids": [list(texts.of(p, False)) for p in pairs],
            "weight": [float(w) for w in weights],
        }
    )
    classes = _build_classes()
    trainer = classes[0](
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=texts.tokenizer,
        peft_config=_build_adapter(model, recipe),
        data_collator=classes[1](pad_token_id=texts.tokenizer.pad_token_id),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    shutil.rmtree(work, ignore_errors=True)
    return trainer.accelerator.unwrap_model(trainer.model).eval(), losses[-1]


def _build_classes() -> tuple[Any, Any]:
    """Return the classes of the trainer and the collator that handle a weight per pair."""
    import torch
    from trl import RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class WeightedCollator(DataCollatorForPreference):
        """Adds each pair's weight to the batch."""

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            weights = torch.tensor([e["weight"] for e in examples], dtype=torch.float32)
            return {**super().torch_call(examples), "weight": weights}

    class WeightedTrainer(RewardTrainer):
        """Computes the loss of a batch whose first half is chosen, its second rejected."""

        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["chosen_ids", "rejected_ids", "weight"]

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            chosen, rejected = out.logits.float().squeeze(-1).chunk(2)
            loss = compute_loss(chosen, rejected, inputs["weight"])
            return (loss, out) if return_outputs else loss

    return WeightedTrainer, WeightedCollator


def _build_adapter(model: Any, recipe: RewardRecipe) -> Any:
    """Return an adapter on every linear layer and the head as it is; None for whole models."""
    if recipe.method != "lora":
        return None
    from peft import LoraConfig, TaskType

    heads = [h for h in (*HEADS, "pooler") if hasattr(model, h)]
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=heads,
    )


def save_reward_model(
    model: Any, tokenizer: Any, folder: Path, about: Mapping[str, Any], below: Path | None = None
) -> Path:
    """Write a reward model (safetensors) with its manifest, whole or not at all; return the folder.

    `about` holds the manifest's fields but kind, versions and time; `below` is the folder of the
    model that an adapter belongs to.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), safe_serialization=True)
    tokenizer.save_pretrained(str(partial))
    config = partial / "adapter_config.json"
    if config.is_file() and below is not None:
        import json

        config.write_text(
            json.dumps(
                json.loads(config.read_text()) | {"base_model_name_or_path": str(below.resolve())},
                indent=1,
            )
        )
    manifest.write(
        Manifest(
            kind="reward", versions=manifest.list_versions(), created=manifest.format_now(), **about
        ),
        partial,
    )
    move(partial, folder)
    return folder
