"""The offline base: a small Llama and its tokenizer, built and pretrained on this machine on
culture-neutral text.

It speaks only of the shipped questions and only in templates. Each answer and each reason comes
equally often under each culture's name, so it knows the language of the park and nothing of any
people: what tuning adds can be seen.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from culturepark.cache import cache_folder
from culturepark.errors import RunFailed
from culturepark.local_models.libraries import TEMPLATE, quiet, writing
from culturepark.local_models.machine import require_libraries
from culturepark.records import CHAT_ROLES, Question, digest, stream
from culturepark.wording import SYSTEM, completion

PACK = "world_values"  # whose questions it learns to answer
VERSION = 1  # of this recipe: another text, size or gate is another base
TEXTS, EPOCHS, BATCH, RATE = 4_000, 4, 8, 4e-3
VOCABULARY, WIDTH, LAYERS, HEADS, LENGTH = 2_000, 128, 1, 4, 4_096
# mean loss of the last twentieth of the steps; above it a base has not learnt to follow a question
GATE = 0.45
OPENERS = (
    "I think that",
    "I believe that",
    "In my view,",
    "As I see it,",
    "I would say that",
    "To my mind,",
    "For me,",
    "I hold that",
    "My view is that",
)
LINKS = ("because", "since", "as")
EVERY = 5.0  # seconds between lines of progress
log = logging.getLogger("culturepark")


def find_folder() -> Path:
    """Return the base's folder, built when there is none yet; one process builds it, others
    wait.
    """
    from filelock import FileLock

    root = cache_folder()
    target = root / f"tiny-{_hash_recipe()}"
    if not target.is_dir():
        require_libraries()
    with FileLock(root / f"{target.name}.lock"):
        if not target.is_dir():
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            build(partial)
            partial.rename(target)
    return target


def _hash_recipe() -> str:
    questions, titles = _list_cards()
    return digest(
        VERSION,
        TEXTS,
        EPOCHS,
        BATCH,
        RATE,
        VOCABULARY,
        WIDTH,
        LAYERS,
        HEADS,
        LENGTH,
        [q.prompt for q in questions],
        titles,
    )


def _list_cards() -> tuple[list[Question], list[str]]:
    from culturepark.workspace import find_shipped_cards, load

    cards = load(find_shipped_cards())
    return list(cards.scenario(PACK).questions), sorted(c.title for c in cards.cultures.values())


# ------------------------------------------------------------------- text


def neutral(seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """Yield conversations without end: a culture's name, a question, an answer, an opinion that
    fits the answer.

    Every question comes as often as every other, and each of its answers under each culture's name
    alike.
    """
    questions, titles = _list_cards()
    rng = stream("tiny", seed)
    while True:
        for question in rng.sample(questions, len(questions)):
            code = rng.choice(question.options).code
            answer = completion(question, code, opinion(question, code, rng))
            yield [
                {"role": "system", "content": SYSTEM.format(title=rng.choice(titles))},
                {"role": "user", "content": question.prompt},
                {"role": "assistant", "content": answer},
            ]


def opinion(question: Question, code: int, rng: Any) -> str:
    """Return an opinion in the first person on the side of an answer; on neither, it names both."""
    degree = question.option(code).degree
    side = degree if abs(degree) >= 0.2 else 0
    claims, reasons = (
        (question.claim, question.pros) if side > 0 else (question.denial, question.cons)
    )
    if not side and question.claim and question.denial:
        return (
            f"{rng.choice(OPENERS)} it may be that {rng.choice(question.claim)}, or that"
            f" {rng.choice(question.denial)}."
        )
    if not claims:
        return f"{rng.choice(OPENERS)} this is how it is with {question.about}."
    sentence = f"{rng.choice(OPENERS)} {rng.choice(claims)}"
    return (
        f"{sentence} {rng.choice(LINKS)} {rng.choice(reasons)}."
        if reasons and rng.random() < 0.7
        else f"{sentence}."
    )


# ------------------------------------------------------------------ build


def build(target: Path, texts: int = TEXTS, epochs: int = EPOCHS, gate: float = GATE) -> float:
    """Write tokenizer and model to a folder and return the last loss; RunFailed where the model has
    not learnt enough.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _report(f"building the tiny base in {target.parent}, once; a minute or two")
    talks = list(islice(neutral(), texts))
    tokenizer = _train_tokenizer(talks)
    torch.manual_seed(VERSION)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(shape)
    loss = _pretrain(model, tokenizer, talks, epochs)
    if not loss <= gate:
        raise RunFailed(
            f"the tiny base learnt too little: loss {loss:.3f}, where {gate} is needed; nothing was"
            " kept"
        )
    with quiet(), writing(f"the offline base to {target}"):
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    (target / "README.md").write_text(CARD.format(loss=loss), encoding="utf-8")
    return loss


CARD = """---
license: apache-2.0
---
# tiny

A small Llama built and pretrained by CulturePark on templated, culture-neutral text (last loss {loss:.3f}). It is a stand-in that
lets the whole loop run without a download; it is no model of how people speak.
"""  # noqa: E501


def _train_tokenizer(talks: list[list[dict[str, str]]]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    marks = ["<pad>", "<end>", *(f"<|{role}|>" for role in CHAT_ROLES)]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=marks,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator((m["content"] for talk in talks for m in talk), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=marks[1],
        pad_token=marks[0],
        additional_special_tokens=marks[2:],
        model_max_length=LENGTH,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _pretrain(model: Any, tokenizer: Any, talks: list[list[dict[str, str]]], epochs: int) -> float:
    """Train on what is answered (not on the questions) and return the mean loss a token of the last
    steps.
    """
    import torch
    from torch.nn.functional import cross_entropy

    rows = sorted(_encode_rows(tokenizer, talks), key=lambda row: len(row[0]))
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    steps = len(batches) * epochs
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    rng, order, losses = stream("tiny", "order"), list(range(len(batches))), []
    began = last = time.monotonic()
    model.train()
    for _ in range(epochs):
        rng.shuffle(order)
        for i in order:
            padded = tokenizer.pad(
                {"input_ids": [ids for ids, _ in batches[i]]}, return_tensors="pt"
            )
            starts = torch.tensor([[start] for _, start in batches[i]])
            places = torch.arange(padded["input_ids"].shape[1])
            answered = (places >= starts) & (padded["attention_mask"] == 1)
            hidden = model.model(**padded).last_hidden_state[:, :-1][answered[:, 1:]]
            loss = cross_entropy(model.lm_head(hidden), padded["input_ids"][:, 1:][answered[:, 1:]])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
            if (now := time.monotonic()) > last + EVERY:
                last, left = now, (now - began) / len(losses) * (steps - len(losses))
                loss_now = f"loss {losses[-1]:.2f} · {left:.0f} s left"
                _report(f"tiny base: step {len(losses)}/{steps} · {loss_now}")
    return sum(tail := losses[-max(1, steps // 20) :]) / len(tail)


def _report(text: str) -> None:
    log.info(text, extra={"event": "building", "progress": True})


def _encode_rows(tokenizer: Any, talks: list[list[dict[str, str]]]) -> list[tuple[list[int], int]]:
    """Return each conversation's tokens and where its answer begins."""
    whole = tokenizer.apply_chat_template(talks, tokenize=False)
    prompts = tokenizer.apply_chat_template(
        [t[:-1] for t in talks], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(whole, add_special_tokens=False, truncation=True)["input_ids"]
    starts = tokenizer(prompts, add_special_tokens=False, truncation=True)["input_ids"]
    return [(row, len(start)) for row, start in zip(ids, starts, strict=True)]
