"""Supervised fine-tuning: TRL's SFTTrainer on tokenised rows, with the loss on the completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from culturepark.local_models.machine import Machine
from culturepark.training.objective import Objective, TrainerParts
from culturepark.training.recipe import Recipe
from culturepark.training.rows import Row, keep_modal_answers, tokenize_completions


def is_packed(recipe: Recipe, machine: Machine) -> bool:
    """Return whether rows are packed: by default only with FlashAttention, which keeps them apart;
    other kinds of attention would mix or slow them.
    """
    return machine.attention == "flash_attention_2" if recipe.packing is None else recipe.packing


def prepare(
    tokenizer: Any, rows: Sequence[Row], beside: Sequence[Row], recipe: Recipe
) -> Sequence[Row]:
    """Return the rows to learn: opinions as they are, or the majority's answers of shares."""
    return keep_modal_answers(rows) if recipe.answers == "modal" else rows


def build_trainer(parts: TrainerParts) -> Any:
    """Return the trainer of one model."""
    from trl import SFTConfig

    recipe, tokenizer = parts.recipe, parts.tokenizer
    packing = is_packed(recipe, parts.machine)
    config = SFTConfig(
        **parts.arguments,
        packing=packing,
        eval_packing=False,
        max_length=recipe.length if packing else None,
        shuffle_dataset=packing,
        train_sampling_strategy="random" if packing else "group_by_length",
        dataset_kwargs=None if packing else {"skip_prepare_dataset": True},
    )
    return _build_class()(
        model=parts.model,
        args=config,
        train_dataset=build_dataset(tokenizer, parts.train, recipe.length),
        eval_dataset=(
            build_dataset(tokenizer, parts.validation, recipe.length) if parts.validation else None
        ),
        processing_class=tokenizer,
        peft_config=parts.adapter,
    )


def build_dataset(tokenizer: Any, rows: Sequence[Row], length: int) -> Any:
    """Return rows as a dataset of `input_ids` and `labels`."""
    from datasets import Dataset

    return Dataset.from_dict(tokenize_completions(tokenizer, rows, length))


def _build_class() -> Any:
    """Return TRL's trainer class, changed to score only the completions on a CPU."""
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class CompletionTrainer(SFTTrainer):
        """Projects to the vocabulary only from the first label on.

        Without kernels for its fused head (Triton), TRL projects every position, the prompt's too.
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
            targets = labels[:, first:]
            total = cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
            )
            is_target = targets != -100
            mode, right = (
                "train" if self.model.training else "eval",
                (logits.detach().argmax(-1) == targets)[is_target].sum() / is_target.sum(),
            )
            self._metrics[mode]["mean_token_accuracy"].append(float(right))
            if num_items_in_batch is None:
                return total / is_target.sum()
            return (
                total
                / num_items_in_batch
                * (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1)
            )

    return CompletionTrainer


OBJECTIVE = Objective(
    about="Supervised fine-tuning on samples (TRL's prompt-completion rows).",
    title="supervised fine-tuning",
    loss="the mean negative log-likelihood of an answer's tokens, in nats per token",
    reads="trl",
    rates=(2e-4, 2e-5),
    build_trainer=build_trainer,
    prepare=prepare,
    options=("answers",),
)
