"""Preference tuning with TRL's trainers: DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), ORPO (Hong et al. 2024,
arXiv 2403.07691, eq. 6) and KTO (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8), and what a run did to its model.

A preference run can make a model worse (Banerjee et al. 2025, arXiv 2410.12880, table 5: DPO tripled harm), so `judged` tells
margins, accuracies and the distance from the base on held-out pairs, before and after.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from culturepark.tuning.recipe import Recipe
from culturepark.tuning.rows import Row
from culturepark.weights import choices
from culturepark.weights.chat import fold, texts


def trainer(model: Any, tokenizer: Any, train: Sequence[Row], validation: Sequence[Row], told: dict[str, Any], recipe: Recipe,
            adapter: Any) -> Any:  # fmt: skip
    """Return the trainer of one model; its reference is the base, which an adapter leaves as it was."""
    config, kind = _kind(recipe.objective)
    args = config(**told, beta=recipe.beta, max_length=recipe.length)
    return kind(
        model=model, args=args, train_dataset=dataset(tokenizer, train),
        eval_dataset=dataset(tokenizer, validation) if validation else None, processing_class=tokenizer, peft_config=adapter,
    )  # fmt: skip


def _kind(objective: str) -> tuple[Any, Any]:
    import trl

    if objective == "orpo":  # TRL keeps it among its experimental trainers, and says so at import
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOConfig, ORPOTrainer
    return (trl.DPOConfig, trl.DPOTrainer) if objective == "dpo" else (trl.KTOConfig, trl.KTOTrainer)


def dataset(tokenizer: Any, rows: Sequence[Row]) -> Any:
    """Return rows as a conversational preference dataset, system messages folded where the base's template refuses them."""
    from datasets import Dataset
    from jinja2.exceptions import TemplateError

    made = [{k: v for k, v in row.items() if k != "metadata"} for row in rows]
    try:
        tokenizer.apply_chat_template(made[0]["prompt"], tokenize=False, add_generation_prompt=True)
    except TemplateError:
        made = [{**row, "prompt": fold(row["prompt"])} for row in made]
    return Dataset.from_list(made)


def judged(model: Any, tokenizer: Any, rows: Sequence[Row], *, base: bool) -> dict[str, float]:
    """Return what a model makes of held-out pairs (KTO rows: of its good and bad answers).

    `accuracy` is the share of pairs whose chosen answer it finds likelier (mean log-probability a token), `margin` the mean
    difference (nats a token), `chosen` and `rejected` the means themselves. With `base` the adapter is left out.
    """
    from contextlib import nullcontext

    with model.disable_adapter() if base and hasattr(model, "disable_adapter") else nullcontext():
        if "label" in rows[0]:
            good, bad = ([r for r in rows if r["label"] is label] for label in (True, False))
            if not good or not bad:
                return {}
            chosen, rejected = (_said(model, tokenizer, part, "completion") for part in (good, bad))
            good_mean, bad_mean = _mean(chosen), _mean(rejected)
            return {"chosen": good_mean, "rejected": bad_mean, "margin": good_mean - bad_mean}
        chosen, rejected = (_said(model, tokenizer, rows, side) for side in ("chosen", "rejected"))
    apart = [c - r for c, r in zip(chosen, rejected, strict=True)]
    return {
        "accuracy": _mean([float(a > 0) for a in apart]),
        "margin": _mean(apart),
        "chosen": _mean(chosen),
        "rejected": _mean(rejected),
    }


def _said(model: Any, tokenizer: Any, rows: Sequence[Row], side: str) -> list[float]:
    return choices.likelihood(model, tokenizer, [r["prompt"] for r in rows], [r[side][0]["content"] for r in rows])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def drift(model: Any, tokenizer: Any, rows: Sequence[Row], side: str, batch: int = 16) -> float:
    """Return how far an adapter took its model from the base: KL(tuned ‖ base), nats a token, over the answers of rows.

    The mean over answer tokens of the divergence of whole next-token distributions; not an estimate from samples.
    """
    import torch

    prompts = [r["prompt"] for r in rows]
    begun = choices.asked(tokenizer, prompts)
    talks = [[*p, *r[side]] for p, r in zip(prompts, rows, strict=True)]
    whole = tokenizer(texts(tokenizer, talks, begin=False), add_special_tokens=False)["input_ids"]
    total, count, was = 0.0, 0, model.training
    model.eval()
    for at in range(0, len(whole), batch):
        part = choices.padded(tokenizer, whole[at : at + batch], model.device)
        starts = torch.tensor([[len(b)] for b in begun[at : at + batch]], device=model.device)
        places = torch.arange(part["input_ids"].shape[1], device=model.device)
        mask = (
            (places >= starts - 1)
            & (part["attention_mask"] == 1)
            & (places < part["attention_mask"].sum(1, keepdim=True) - 1)
        )
        with torch.inference_mode():
            tuned = model(**part).logits.float().log_softmax(-1)
            with model.disable_adapter():
                plain = model(**part).logits.float().log_softmax(-1)
        total += float((tuned.exp() * (tuned - plain)).sum(-1)[mask].sum())
        count += int(mask.sum())
    model.train(was)
    return total / count
