"""Supervised fine-tuning: TRL's SFTTrainer on rows that were tokenised once, with the loss on the
completions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from culturepark.local_models.machine import Machine
from culturepark.training.objective import Objective, TrainerParts
from culturepark.training.recipe import Recipe
from culturepark.training.rows import Row, modal, tokenised


def packs(recipe: Recipe, machine: Machine) -> bool:
    """Say whether rows are packed: only where attention keeps them apart (FlashAttention);
    elsewhere it mixes or slows them.
    """
    return machine.attention == "flash_attention_2" if recipe.packing is None else recipe.packing


def prepare(
    tokenizer: Any, rows: Sequence[Row], beside: Sequence[Row], recipe: Recipe
) -> Sequence[Row]:
    """Return the rows to learn: opinions as they are, or the majority's answers of shares."""
    return modal(rows) if recipe.answers == "modal" else rows


def build_trainer(parts: TrainerParts) -> Any:
    """Return the trainer of one model."""
    from trl import SFTConfig

    recipe, tokenizer = parts.recipe, parts.tokenizer
    packing = packs(recipe, parts.machine)
    config = SFTConfig(
        **parts.arguments,
        packing=packing,
        eval_packing=False,
        max_length=recipe.length if packing else None,
        shuffle_dataset=packing,
        train_sampling_strategy="random" if packing else "group_by_length",
        dataset_kwargs=None if packing else {"skip_prepare_dataset": True},
    )
    return _kind()(
        model=parts.model,
        args=config,
        train_dataset=dataset(tokenizer, parts.train, recipe.length),
        eval_dataset=(
            dataset(tokenizer, parts.validation, recipe.length) if parts.validation else None
        ),
        processing_class=tokenizer,
        peft_config=parts.adapter,
    )


def dataset(tokenizer: Any, rows: Sequence[Row], length: int) -> Any:
    """Return rows as a dataset of `input_ids` and `labels`."""
    from datasets import Dataset

    return Dataset.from_dict(tokenised(tokenizer, rows, length))


def _kind() -> Any:
    """Return TRL's trainer; where its fused head has no kernels (no Triton), one that scores the
    completions alone.
    """
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class Completions(SFTTrainer):
        """On a CPU TRL projects every position to the vocabulary, the prompt's too; the loss needs
        those from the first label on.
        """

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if inputs["input_ids"].device.type == "cuda" or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs.pop("labels")
            first = int((labels != -100).any(0).nonzero()[0])
            logits = (
                model(**inputs, logits_to_keep=labels.shape[1] - first + 1, use_cache=False)
                .logits[:, :-1]
                .float()
            )
            said = labels[:, first:]
            total = cross_entropy(
                logits.flatten(0, 1), said.flatten(), ignore_index=-100, reduction="sum"
            )
            spoken = said != -100
            mode, right = (
                "train" if self.model.training else "eval",
                (logits.detach().argmax(-1) == said)[spoken].sum() / spoken.sum(),
            )
            self._metrics[mode]["mean_token_accuracy"].append(float(right))
            if num_items_in_batch is None:
                return total / spoken.sum()
            return (
                total
                / num_items_in_batch
                * (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1)
            )

    return Completions


OBJECTIVE = Objective(
    about="Supervised fine-tuning on samples (TRL's prompt-completion rows).",
    title="supervised fine-tuning",
    loss="the mean negative log-likelihood of an answer's tokens, in nats a token",
    reads="trl",
    rates=(2e-4, 2e-5),
    build_trainer=build_trainer,
    prepare=prepare,
    options=("answers",),
)
