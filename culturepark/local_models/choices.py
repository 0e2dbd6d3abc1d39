"""What a model would answer: its distribution over a question's options, and how likely it finds a
given answer.

An answer's options are told apart token by token, as in a tree: `distribution` multiplies, along
each option's way, the model's probability of the next token among those that some option has there.
Where all options differ in their first token that is the first-token distribution of Cao et al.
(NAACL 2025, arXiv 2502.07068, §3) and Suh et al. (2025, SubPOP, arXiv 2502.16761, §3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from culturepark.errors import InputError
from culturepark.local_models.chat import (
    Opening,
    Talk,
    open_turns,
    tokenize_answers,
    tokenize_beginnings,
)


@dataclass(frozen=True)
class Fork:
    """A place where options part: what stands before it, each branch's next token, and which
    options take each branch.
    """

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


def find_forks(answers: Sequence[Sequence[int]]) -> tuple[Fork, ...]:
    """Return the places where tokenised options part, the root first; InputError where one is the
    beginning of another.

    >>> forks([(5, 1), (5, 2), (7,)])[0].tokens
    (5, 7)
    """
    return tuple(_iterate_forks([tuple(a) for a in answers], tuple(range(len(answers))), 0))


def _iterate_forks(
    answers: Sequence[tuple[int, ...]], options: tuple[int, ...], depth: int
) -> Iterator[Fork]:
    if len(options) < 2:
        return
    branches: dict[int, list[int]] = {}
    for i in options:
        if len(answers[i]) <= depth:
            raise InputError(
                f"option {i + 1} is the beginning of another option; nothing tells them apart"
            )
        branches.setdefault(answers[i][depth], []).append(i)
    if len(branches) > 1:
        yield Fork(
            answers[options[0]][:depth], tuple(branches), tuple(tuple(b) for b in branches.values())
        )
    for branch in branches.values():
        yield from _iterate_forks(answers, tuple(branch), depth + 1)


def tokenize_options(
    tokenizer: Any, opening: Opening, options: Sequence[str]
) -> list[tuple[int, ...]]:
    """Return each option as a model would begin its answer there: its words and the full stop after
    them.
    """
    return tokenize_beginnings(tokenizer, opening, [f"{option}." for option in options])


def tokenize_prompts(tokenizer: Any, prompts: Sequence[Talk]) -> list[list[int]]:
    """Return conversations as token ids, up to where the model speaks."""
    return [list(opening.tokens) for opening in open_turns(tokenizer, prompts)]


def grow_trees(
    tokenizer: Any, openings: Sequence[Opening], options: Sequence[Sequence[str]]
) -> list[tuple[Fork, ...]]:
    """Return where the options of each conversation part; those of equal ones are found once."""
    keys = [(opening.text, *labels) for opening, labels in zip(openings, options, strict=True)]
    different = dict(zip(keys, zip(openings, options, strict=True), strict=True))
    trees = {
        key: find_forks(tokenize_options(tokenizer, opening, labels))
        for key, (opening, labels) in different.items()
    }
    return [trees[key] for key in keys]


def compute_distributions(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Talk],
    options: Sequence[Sequence[str]],
    rows: int = 32,
) -> list[list[float]]:
    """Return, for each prompt, the model's probabilities of its options; each list sums to 1.
    Dropout is off.
    """
    openings = open_turns(tokenizer, prompts)
    trees = grow_trees(tokenizer, openings, options)
    prefixes = [opening.tokens for opening in openings]
    return weigh_forks(model, tokenizer, prefixes, trees, [len(o) for o in options], rows=rows)


def weigh_forks(
    model: Any,
    tokenizer: Any,
    prefixes: Sequence[Sequence[int]],
    trees: Sequence[Sequence[Fork]],
    counts: Sequence[int],
    names: Sequence[str] | None = None,
    rows: int = 32,
) -> list[list[float]]:
    """Return the distributions over options whose prompts are tokens and whose ways are trees;
    `names` are adapters, one a prompt.
    """
    places = [(i, fork) for i, tree in enumerate(trees) for fork in tree]
    places.sort(key=lambda place: len(prefixes[place[0]]) + len(place[1].prefix))
    probs = [[1.0] * n for n in counts]
    for at in range(0, len(places), rows):
        part = places[at : at + rows]
        asked_of = [names[i] for i, _ in part] if names else None
        logits = compute_last_logits(
            model, tokenizer, [[*prefixes[i], *f.prefix] for i, f in part], asked_of
        )
        for (i, fork), row in zip(part, logits, strict=True):
            for share, branch in zip(
                row[list(fork.tokens)].softmax(-1).tolist(), fork.options, strict=True
            ):
                for option in branch:
                    probs[i][option] *= share
    return probs


def compute_last_logits(
    model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], names: Sequence[str] | None = None
) -> Any:
    """Return the logits after each row's last token, shape (rows, vocabulary), float32, without
    gradients.

    `names` are the adapters that answer, one a row.
    """
    import torch

    batch = pad_rows(tokenizer, rows, model.device)
    was, ends = model.training, batch["attention_mask"].sum(1) - 1
    model.eval()
    with torch.inference_mode():
        logits = model(**batch, **({"adapter_names": list(names)} if names else {})).logits
    model.train(was)
    return logits[torch.arange(len(rows), device=logits.device), ends].float()


def pad_rows(tokenizer: Any, rows: Sequence[Sequence[int]], device: Any) -> Any:
    """Return rows of token ids as one batch, padded on the right."""
    batch = tokenizer.pad(
        {"input_ids": [list(r) for r in rows]}, padding_side="right", return_tensors="pt"
    )
    return {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


def compute_likelihoods(
    model: Any, tokenizer: Any, prompts: Sequence[Talk], answers: Sequence[str], rows: int = 32
) -> list[float]:
    """Return the mean log-probability (nats) a token of each answer, end of turn included. Dropout
    is off.
    """
    import torch

    parts = tokenize_answers(tokenizer, prompts, answers)
    whole = [prompt + answer for prompt, answer in parts]
    order = sorted(range(len(whole)), key=lambda i: len(whole[i]))
    likelihoods, was = [0.0] * len(whole), model.training
    model.eval()
    for at in range(0, len(order), rows):
        part = order[at : at + rows]
        batch = pad_rows(tokenizer, [whole[i] for i in part], model.device)
        with torch.inference_mode():
            logs = model(**batch).logits[:, :-1].float().log_softmax(-1)
        answer = batch["input_ids"][:, 1:]
        logs = logs.gather(-1, answer[..., None])[..., 0]
        places = torch.arange(1, answer.shape[1] + 1, device=answer.device)
        starts = torch.tensor([[len(parts[i][0])] for i in part], device=answer.device)
        mask = (places >= starts) & (batch["attention_mask"][:, 1:] == 1)
        for i, mean in zip(part, ((logs * mask).sum(1) / mask.sum(1)).tolist(), strict=True):
            likelihoods[i] = mean
    model.train(was)
    return likelihoods


def compute_divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """Return the Jensen–Shannon distance (square root of the divergence in bits, from 0 to 1) of
    two distributions.

    Endres & Schindelin 2003; the measure of GlobalOpinionQA (Durmus et al. 2023, arXiv 2306.16388,
    §2.2).
    """
    from math import log2

    if len(p) != len(q):
        raise InputError(f"distributions over {len(p)} and {len(q)} options cannot be compared")
    mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    parts = [x * log2(x / m) for side in (p, q) for x, m in zip(side, mean, strict=True) if x > 0]
    return float(max(0.0, sum(parts) / 2) ** 0.5)
