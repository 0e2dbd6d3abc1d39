"""Tuning to distributions: the model's option probabilities are fitted to the shares of a people,
alone or together with its opinions.

The loss is KL(people ‖ model) over a question's options (Cao et al., NAACL 2025, arXiv 2502.07068,
§3.2; Suh et al. 2025, SubPOP, arXiv 2502.16761, §3.1). If options share their first tokens, the
divergence is summed over the token positions where they diverge, each weighted by the people's
share that gets there: by the chain rule of relative entropy that sum is the divergence itself.
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
from culturepark.training.rows import Row, tokenize_completions


@dataclass(frozen=True)
class Place:
    """A position where a question's options diverge: token ids up to there, the tokens that may
    follow, the people's shares of these (sum 1), and the share of people that gets there.
    """

    ids: list[int]
    tokens: list[int]
    shares: list[float]
    weight: float


def find_places(tokenizer: Any, rows: Sequence[Row]) -> list[Place]:
    """Return every position at which options of a row diverge and that some of the people reach."""
    openings = open_turns(tokenizer, [row["prompt"] for row in rows])
    trees = choices.grow_trees(tokenizer, openings, [row["options"] for row in rows])
    places = []
    for row, opening, tree in zip(rows, openings, trees, strict=True):
        for fork in tree:
            branch_shares = [sum(row["shares"][i] for i in branch) for branch in fork.options]
            if (weight := sum(branch_shares)) > 0:
                places.append(
                    Place(
                        [*opening.tokens, *fork.prefix],
                        list(fork.tokens),
                        [h / weight for h in branch_shares],
                        weight,
                    )
                )
    return places


def compute_loss(
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
        log_probs = row[torch.tensor(list(ids), device=row.device)].log_softmax(-1)
        target = torch.tensor(list(people), device=row.device, dtype=log_probs.dtype)
        total = total + weight * (torch.special.xlogy(target, target) - target * log_probs).sum()
    return total


def build_dataset(
    tokenizer: Any, train: Sequence[Row], opinions: Sequence[Row], length: int, seed: int
) -> Any:
    """Return rows of one place and, if there are opinions, one opinion each; the fewer of the two
    are repeated, each time in a new order.
    """
    from datasets import Dataset

    places = find_places(tokenizer, train)
    columns = tokenize_completions(tokenizer, opinions, length)
    size = max(len(places), len(opinions))
    rng = stream(seed, "mix")
    place_order, opinion_order = (
        [i for _ in range(0, size, n) for i in rng.sample(range(n), n)][:size] if n else []
        for n in (len(places), len(opinions))
    )
    rows: dict[str, list[Any]] = {
        "place": [places[i].ids for i in place_order],
        "tokens": [places[i].tokens for i in place_order],
        "shares": [places[i].shares for i in place_order],
        "weight": [places[i].weight for i in place_order],
    }
    if opinions:
        rows |= {name: [column[i] for i in opinion_order] for name, column in columns.items()}
    return Dataset.from_dict(rows)


def prepare(tokenizer: Any, rows: Sequence[Row], opinions: Sequence[Row], recipe: Recipe) -> Any:
    """Return a dataset of shares; None if there are none."""
    return build_dataset(tokenizer, rows, (), recipe.length, recipe.seed) if rows else None


def prepare_mix(
    tokenizer: Any, rows: Sequence[Row], opinions: Sequence[Row], recipe: Recipe
) -> Any:
    """Return a dataset of shares and opinions; None if either is missing."""
    if not rows or not opinions:
        return None
    return build_dataset(tokenizer, rows, opinions, recipe.length, recipe.seed)


def build_mix_trainer(parts: TrainerParts) -> Any:
    """Return the trainer of one model whose distribution loss has the recipe's weight."""
    return build_trainer(parts, parts.recipe.weight)


def build_trainer(parts: TrainerParts, share: float = 1.0) -> Any:
    """Return the trainer of one model over datasets of `build_dataset`; `share` of its loss is the
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
    return _build_class(share)(
        model=model,
        args=TrainingArguments(**parts.arguments, remove_unused_columns=False, label_names=[]),
        train_dataset=parts.train,
        eval_dataset=parts.validation,
        data_collator=partial(_collate, parts.tokenizer, share < 1),
        processing_class=parts.tokenizer,
    )


def _build_class(share: float) -> Any:
    """Return a trainer class whose loss is `share` × the distribution loss and the rest that of
    opinions.
    """
    import torch
    from transformers import Trainer

    class DistributionTrainer(Trainer):
        """Adds the two losses of a batch; a step's losses are means over its batches
        and processes.
        """

        loss_is_scaled_for_ga = True

        def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
            """Return the divisors of a step's losses: weight of its places, tokens of
            its opinions.
            """
            sizes = torch.tensor([_sum_sizes(batch) for batch in batch_samples], device=device)
            return self.accelerator.reduce(sizes.sum(0), "sum")

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            at, here = inputs["place"], _sum_sizes(inputs)
            logits = model(input_ids=at["input_ids"], attention_mask=at["attention_mask"]).logits
            ends = at["attention_mask"].sum(1) - 1
            last = logits[range(len(ends)), ends]
            weights, tokens = here if num_items_in_batch is None else num_items_in_batch.tolist()
            total = (
                share
                * compute_loss(last, inputs["tokens"], inputs["shares"], inputs["weight"])
                / weights
            )
            if share < 1:
                total = total + (1 - share) * model(**inputs["opinion"]).loss * here[1] / tokens
            # gradients are averaged over processes; these are parts of one mean
            if num_items_in_batch is not None:
                total = total * self.accelerator.num_processes
            return (total, {}) if return_outputs else total

        def prediction_step(
            self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
        ) -> Any:
            with torch.no_grad():
                loss = self.compute_loss(model, self._prepare_inputs(inputs))
            return loss.detach(), None, None

    return DistributionTrainer


def _collate(tokenizer: Any, opinions: bool, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows as one batch: places padded on the right and, with `opinions`, opinions too."""
    batch: dict[str, Any] = {
        name: [r[name] for r in rows] for name in ("tokens", "shares", "weight")
    }
    batch["place"] = choices.pad_rows(tokenizer, [r["place"] for r in rows], "cpu")
    if opinions:
        batch["opinion"] = _pad_opinions(
            [r["input_ids"] for r in rows], [r["labels"] for r in rows], tokenizer.pad_token_id
        )
    return batch


def _sum_sizes(batch: dict[str, Any]) -> tuple[float, float]:
    """Return the summed weight of a batch's places and the number of its opinions'
    target tokens.
    """
    labels = batch["opinion"]["labels"][:, 1:] if "opinion" in batch else None
    return sum(batch["weight"]), 0.0 if labels is None else float((labels != -100).sum())


def _pad_opinions(ids: list[list[int]], labels: list[list[int]], pad: int) -> dict[str, Any]:
    """Return opinions as one batch, padded on the right; the loss leaves padding out."""
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
