"""Preference tuning with TRL's trainers: DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), ORPO
(Hong et al. 2024, arXiv 2403.07691, eq. 6) and KTO (Ethayarajh et al. 2024, arXiv 2402.01306, eq.
8), and what a run did to its model.

A preference run can make a model worse (Banerjee et al. 2025, arXiv 2410.12880, table 5: DPO
tripled harm), so `judge_pairs` measures margins and accuracies on held-out pairs before and after
it, and `measure_drift` the distance from the base.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from culturepark.local_models import choices
from culturepark.local_models.chat import tokenize_answers
from culturepark.training.objective import Objective, TrainerParts
from culturepark.training.rows import Row, tokenize_side


def build_trainer(load_classes: Callable[[], tuple[Any, Any]], parts: TrainerParts) -> Any:
    """Return the trainer of one model; its reference is the base without the adapter.

    `load_classes` returns TRL's configuration and trainer.
    """
    config, trainer = load_classes()
    recipe, tokenizer = parts.recipe, parts.tokenizer
    args = config(**parts.arguments, beta=recipe.beta, max_length=recipe.length)
    train, validation = (
        build_dataset(tokenizer, rows, recipe.length, args.per_device_train_batch_size)
        if rows
        else None
        for rows in (parts.train, parts.validation)
    )
    return _accept_tokens(trainer)(
        model=parts.model,
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=parts.adapter,
    )


def _load_dpo() -> tuple[Any, Any]:
    import trl

    return trl.DPOConfig, trl.DPOTrainer


def _load_kto() -> tuple[Any, Any]:
    import trl

    return trl.KTOConfig, trl.KTOTrainer


def _load_orpo() -> tuple[Any, Any]:
    # TRL keeps it among its experimental trainers, and says so at import.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return ORPOConfig, ORPOTrainer


def _accept_tokens(kind: Any) -> Any:
    """Return a trainer class that accepts token ids: TRL's own would render prompts in another way
    than sampling does.
    """

    def prepare(self: Any, dataset: Any, *how: Any) -> Any:
        return dataset

    def tokenize_row(self: Any, feature: Any, model: Any = None) -> Any:
        return feature

    return type(kind.__name__, (kind,), {"_prepare_dataset": prepare, "tokenize_row": tokenize_row})


def build_dataset(tokenizer: Any, rows: Sequence[Row], length: int, batch: int) -> Any:
    """Return rows as the columns of token ids that TRL's trainers learn from: pairs (DPO, ORPO) or
    labelled answers (KTO).

    KTO's divergence is estimated on answers to other prompts: within each `batch` they are shifted
    by one (§4.1 there). Raises InputError for a row longer than `length` tokens.
    """
    from datasets import Dataset

    if "label" in rows[0]:
        parts = tokenize_side(tokenizer, rows, "completion", length)
        answers = [ids for _, ids in parts]
        rotated = [
            i
            for at in range(0, len(answers), batch)
            for i in _rotate(range(at, min(at + batch, len(answers))))
        ]
        return Dataset.from_dict(
            {
                "prompt_ids": [prompt for prompt, _ in parts],
                "completion_ids": answers,
                "KL_completion_ids": [answers[i] for i in rotated],
                "label": [row["label"] for row in rows],
            }
        )
    chosen, rejected = (
        tokenize_side(tokenizer, rows, side, length) for side in ("chosen", "rejected")
    )
    columns = {"prompt": [prompt for prompt, _ in chosen]}
    columns |= {"chosen": [ids for _, ids in chosen], "rejected": [ids for _, ids in rejected]}
    return Dataset.from_dict(
        {f"{name}_ids": ids for name, ids in columns.items()} | _build_orpo_columns(columns)
    )


def _rotate(places: Sequence[int]) -> list[int]:
    return [*places[-1:], *places[:-1]]


def _build_orpo_columns(columns: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """Return the columns that ORPO's collator reads: whole rows, their attention, and labels of the
    answers alone.
    """
    result = {
        "prompt_input_ids": columns["prompt"],
        "prompt_attention_mask": [[1] * len(p) for p in columns["prompt"]],
    }
    for side in ("chosen", "rejected"):
        pairs = list(zip(columns["prompt"], columns[side], strict=True))
        result[f"{side}_input_ids"] = [prompt + ids for prompt, ids in pairs]
        result[f"{side}_attention_mask"] = [[1] * len(prompt + ids) for prompt, ids in pairs]
        result[f"{side}_labels"] = [[-100] * len(prompt) + ids for prompt, ids in pairs]
    return result


def judge_pairs(model: Any, tokenizer: Any, rows: Sequence[Row], *, base: bool) -> dict[str, float]:
    """Return how a model judges held-out pairs (of KTO rows: good and bad answers).

    `accuracy` is the share of pairs whose chosen answer it finds likelier (mean log-probability per
    token), `margin` the mean difference (nats per token), `chosen` and `rejected` the means
    themselves. With `base` the adapter is disabled.
    """
    from contextlib import nullcontext

    with model.disable_adapter() if base and hasattr(model, "disable_adapter") else nullcontext():
        if "label" in rows[0]:
            good, bad = ([r for r in rows if r["label"] is label] for label in (True, False))
            if not good or not bad:
                return {}
            chosen, rejected = (
                _score_answers(model, tokenizer, part, "completion") for part in (good, bad)
            )
            good_mean, bad_mean = fmean(chosen), fmean(rejected)
            return {"chosen": good_mean, "rejected": bad_mean, "margin": good_mean - bad_mean}
        chosen, rejected = (
            _score_answers(model, tokenizer, rows, side) for side in ("chosen", "rejected")
        )
    apart = [c - r for c, r in zip(chosen, rejected, strict=True)]
    return {
        "accuracy": fmean([float(a > 0) for a in apart]),
        "margin": fmean(apart),
        "chosen": fmean(chosen),
        "rejected": fmean(rejected),
    }


def _score_answers(model: Any, tokenizer: Any, rows: Sequence[Row], side: str) -> list[float]:
    return choices.compute_likelihoods(
        model, tokenizer, [r["prompt"] for r in rows], [r[side][0]["content"] for r in rows]
    )


def measure_drift(
    model: Any, tokenizer: Any, rows: Sequence[Row], side: str, batch: int = 16
) -> float:
    """Return how far an adapter took its model from the base: KL(tuned ‖ base), nats per token,
    over the answers of rows.

    The mean over answer tokens of the divergence of whole next-token distributions; not an estimate
    from samples.
    """
    import torch

    parts = tokenize_answers(
        tokenizer, [r["prompt"] for r in rows], [r[side][0]["content"] for r in rows]
    )
    whole = [prompt + answer for prompt, answer in parts]
    total, count, was = 0.0, 0, model.training
    model.eval()
    for at in range(0, len(whole), batch):
        part = choices.pad_rows(tokenizer, whole[at : at + batch], model.device)
        starts = torch.tensor(
            [[len(prompt)] for prompt, _ in parts[at : at + batch]], device=model.device
        )
        places = torch.arange(part["input_ids"].shape[1], device=model.device)
        mask = (
            (places >= starts - 1)
            & (part["attention_mask"] == 1)
            & (places < part["attention_mask"].sum(1, keepdim=True) - 1)
        )
        with torch.inference_mode():
            adapted = model(**part).logits.float().log_softmax(-1)
            with model.disable_adapter():
                original = model(**part).logits.float().log_softmax(-1)
        total += float((adapted.exp() * (adapted - original)).sum(-1)[mask].sum())
        count += int(mask.sum())
    model.train(was)
    return total / count


DPO = Objective(
    about="Direct preference optimisation on pairs.",
    title="direct preference optimisation",
    loss=(
        "DPO's own, in nats a pair: 0.693 is a model that prefers neither answer more than its base"
        " does"
    ),
    reads="dpo",
    rates=(5e-6, 5e-7),
    build_trainer=partial(build_trainer, _load_dpo),
    options=("beta",),
    compares=True,
)
ORPO = Objective(
    about="Odds-ratio preference optimisation on pairs: no reference model.",
    title="odds-ratio preference optimisation",
    loss=(
        "ORPO's own: the negative log-likelihood of the chosen answer, in nats per token, and the"
        " odds-ratio term"
    ),
    reads="dpo",
    rates=(8e-6, 8e-6),
    build_trainer=partial(build_trainer, _load_orpo),
    options=("beta",),
    compares=True,
)
KTO = Objective(
    about="Kahneman-Tversky optimisation on answers that are marked good or bad.",
    title="Kahneman-Tversky optimisation",
    loss="KTO's own, from 0 to 1: 0.5 is a model that has not moved from its base",
    reads="kto",
    rates=(5e-6, 5e-7),
    build_trainer=partial(build_trainer, _load_kto),
    options=("beta",),
    compares=True,
)
