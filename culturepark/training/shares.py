"""Tuning to distributions: the model's option probabilities are drawn to the shares of a people,
alone or beside its opinions.

The loss is KL(people ‖ model) over a question's options (Cao et al., NAACL 2025, arXiv 2502.07068,
§3.2; Suh et al. 2025, SubPOP, arXiv 2502.16761, §3.1). Where options share their first tokens, the
divergence is summed over the places where they part, each weighted by the people's share that comes
there: by the chain rule of relative entropy that is the divergence itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from culturepark.local_models import choices
from culturepark.local_models.chat import open_turns
from culturepark.records import stream
from culturepark.training.objective import Objective, TrainerParts
from culturepark.training.recipe import Recipe
from culturepark.training.rows import Row, tokenised


@dataclass(frozen=True)
class Place:
    """One place where a question's options part: tokens up to there, branch tokens, the people's
    shares of them, its weight.
    """

    ids: list[int]
    tokens: list[int]
    shares: list[float]
    weight: float


def places(tokenizer: Any, rows: Sequence[Row]) -> list[Place]:
    """Return every place where the options of each row part and that some of the people reach."""
    openings = open_turns(tokenizer, [row["prompt"] for row in rows])
    trees = choices.grow_trees(tokenizer, openings, [row["options"] for row in rows])
    made = []
    for row, opening, tree in zip(rows, openings, trees, strict=True):
        for fork in tree:
            held = [sum(row["shares"][i] for i in branch) for branch in fork.options]
            if (weight := sum(held)) > 0:
                made.append(
                    Place(
                        [*opening.tokens, *fork.prefix],
                        list(fork.tokens),
                        [h / weight for h in held],
                        weight,
                    )
                )
    return made


def loss(
    logits: Any,
    tokens: Sequence[Sequence[int]],
    shares: Sequence[Sequence[float]],
    weights: Sequence[float],
) -> Any:
    """Return the summed weighted KL(people ‖ model) over places, nats.

    `logits` has shape (places, vocabulary): those after each place's last token.
    """
    import torch

    total = logits.new_zeros(())
    for row, ids, people, weight in zip(logits.float(), tokens, shares, weights, strict=True):
        said = row[torch.tensor(list(ids), device=row.device)].log_softmax(-1)
        target = torch.tensor(list(people), device=row.device, dtype=said.dtype)
        total = total + weight * (torch.special.xlogy(target, target) - target * said).sum()
    return total


def dataset(
    tokenizer: Any, train: Sequence[Row], opinions: Sequence[Row], length: int, seed: int
) -> Any:
    """Return rows that hold a place each and, where there are opinions, one opinion each; the fewer
    are repeated in turn.
    """
    from datasets import Dataset

    held = places(tokenizer, train)
    said = tokenised(tokenizer, opinions, length)
    size = max(len(held), len(opinions))
    rng = stream(seed, "mix")
    order, talk = (
        [i for _ in range(0, size, n) for i in rng.sample(range(n), n)][:size] if n else []
        for n in (len(held), len(opinions))
    )
    made: dict[str, list[Any]] = {
        "place": [held[i].ids for i in order],
        "tokens": [held[i].tokens for i in order],
        "shares": [held[i].shares for i in order],
        "weight": [held[i].weight for i in order],
    }
    if opinions:
        made |= {name: [column[i] for i in talk] for name, column in said.items()}
    return Dataset.from_dict(made)


def prepare(tokenizer: Any, rows: Sequence[Row], opinions: Sequence[Row], recipe: Recipe) -> Any:
    """Return a dataset of shares; None where there are none."""
    return dataset(tokenizer, rows, (), recipe.length, recipe.seed) if rows else None


def prepare_mix(
    tokenizer: Any, rows: Sequence[Row], opinions: Sequence[Row], recipe: Recipe
) -> Any:
    """Return a dataset of shares beside opinions; None where either is lacking."""
    if not rows or not opinions:
        return None
    return dataset(tokenizer, rows, opinions, recipe.length, recipe.seed)


def build_mix_trainer(parts: TrainerParts) -> Any:
    """Return the trainer of one model whose distribution loss has the recipe's weight."""
    return build_trainer(parts, parts.recipe.weight)


def build_trainer(parts: TrainerParts, share: float = 1.0) -> Any:
    """Return the trainer of one model over datasets of `dataset`; `share` of its loss is the
    distribution's, the rest is that of opinions.
    """
    import peft
    from transformers import TrainingArguments, set_seed

    recipe, model = parts.recipe, parts.model
    set_seed(recipe.seed)
    if parts.adapter is not None:
        if recipe.method == "qlora":
            often = parts.arguments["gradient_checkpointing"]
            model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=often)
        model = peft.get_peft_model(model, parts.adapter)
    return _kind(share)(
        model=model,
        args=TrainingArguments(**parts.arguments, remove_unused_columns=False, label_names=[]),
        train_dataset=parts.train,
        eval_dataset=parts.validation,
        data_collator=partial(_collated, parts.tokenizer, share < 1),
        processing_class=parts.tokenizer,
    )


def _kind(share: float) -> Any:
    """Return a trainer whose loss is `share` of the distribution's and the rest of the
    opinions'.
    """
    import torch
    from transformers import Trainer

    class Matching(Trainer):
        """Adds what the two losses say of a batch; a step's losses are means over all its batches
        and processes.
        """

        loss_is_scaled_for_ga = True

        def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
            """Return what the losses of one step are divided by: the weight of its places and the
            tokens of its opinions.
            """
            sizes = torch.tensor([_sizes(batch) for batch in batch_samples], device=device)
            return self.accelerator.reduce(sizes.sum(0), "sum")

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            at, here = inputs["place"], _sizes(inputs)
            logits = model(input_ids=at["input_ids"], attention_mask=at["attention_mask"]).logits
            ends = at["attention_mask"].sum(1) - 1
            last = logits[range(len(ends)), ends]
            weights, spoken = here if num_items_in_batch is None else num_items_in_batch.tolist()
            total = (
                share * loss(last, inputs["tokens"], inputs["shares"], inputs["weight"]) / weights
            )
            if share < 1:
                total = total + (1 - share) * model(**inputs["opinion"]).loss * here[1] / spoken
            if (
                num_items_in_batch is not None
            ):  # gradients are averaged over processes; these are parts of one mean
                total = total * self.accelerator.num_processes
            return (total, {}) if return_outputs else total

        def prediction_step(
            self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
        ) -> Any:
            with torch.no_grad():
                found = self.compute_loss(model, self._prepare_inputs(inputs))
            return found.detach(), None, None

    return Matching


def _collated(tokenizer: Any, opinions: bool, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows as one batch: places padded on the right, and the opinions beside them where they
    are learnt too.
    """
    made: dict[str, Any] = {
        name: [r[name] for r in rows] for name in ("tokens", "shares", "weight")
    }
    made["place"] = choices.pad_rows(tokenizer, [r["place"] for r in rows], "cpu")
    if opinions:
        made["opinion"] = _padded(
            [r["input_ids"] for r in rows], [r["labels"] for r in rows], tokenizer.pad_token_id
        )
    return made


def _sizes(batch: dict[str, Any]) -> tuple[float, float]:
    """Return the summed weight of a batch's places and how many tokens of its opinions are
    learnt.
    """
    said = batch["opinion"]["labels"][:, 1:] if "opinion" in batch else None
    return sum(batch["weight"]), 0.0 if said is None else float((said != -100).sum())


def _padded(ids: list[list[int]], labels: list[list[int]], pad: int) -> dict[str, Any]:
    """Return opinions as one batch, padded on the right, padding outside the loss."""
    import torch

    width = max(map(len, ids))
    return {
        "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        "labels": torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
    }


OBJECTIVE = Objective(
    about="Match the survey's shares: KL between the people's answers and the model's.",
    title="matching the survey's shares",
    loss="KL(people ‖ model) over the options of a question, in nats",
    reads="shares",
    rates=(2e-4, 2e-5),
    build_trainer=build_trainer,
    prepare=prepare,
)
MIX = Objective(
    about="Match the survey's shares and learn the opinions, at a set weight.",
    title="matching the survey's shares beside learning opinions",
    loss=(
        "a weighted sum of KL(people ‖ model) over a question's options and the negative"
        " log-likelihood of opinions, in nats"
    ),
    reads="shares",
    beside="trl",
    rates=(2e-4, 2e-5),
    build_trainer=build_mix_trainer,
    prepare=prepare_mix,
    options=("weight",),
)
