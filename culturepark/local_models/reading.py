"""How likely a model finds a text that is given, token by token, each after those before it."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from culturepark.local_models import choices

PIECE_BYTES = 256 * 2**20  # of float32 logits at once: a long text is read piece by piece
Read = tuple[
    float, list[tuple[int, float]]
]  # a token's log-probability (nats), and the likeliest tokens with theirs


def read_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    top: int,
    names: Sequence[str] | None = None,
) -> list[list[Read]]:
    """Return what the model makes of each token of each row but the first, which nothing stands
    before.

    `top` likeliest tokens come with each; `names` are the adapters that read, one per row. Dropout
    is off.
    """
    import torch

    batch = choices.pad_rows(tokenizer, rows, model.device)
    ids, mask, cache = batch["input_ids"], batch["attention_mask"], None
    step = max(1, PIECE_BYTES // (4 * len(rows) * model.config.get_text_config().vocab_size))
    adapters: dict[str, Any] = {"adapter_names": list(names)} if names else {}
    cache_name = _cache_name(model)
    readings: list[list[Read]] = [[] for _ in rows]
    with torch.inference_mode():
        for at in range(0, ids.shape[1], step):
            end = min(at + step, ids.shape[1])
            out = model(
                input_ids=ids[:, at:end],
                attention_mask=mask[:, :end],
                use_cache=end < ids.shape[1] or at > 0,
                **adapters,
                **{cache_name: cache},
            )
            cache = out.get(cache_name)
            following = ids[:, at + 1 : end + 1]
            logs = out.logits[:, : following.shape[1]].float().log_softmax(-1)
            for row, part in enumerate(_pieces(logs, following, top)):
                readings[row] += part
    return [part[: len(row) - 1] for part, row in zip(readings, rows, strict=True)]


def _cache_name(model: Any) -> str:
    """Return what the model's `forward` calls the keys and values of the tokens before:
    transformers has renamed it.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "cache" if "cache" in signature(whole.forward).parameters else "past_key_values"


def _pieces(logs: Any, following: Any, top: int) -> list[list[Read]]:
    """Return, per row and place, the log-probability of the token that follows and of the likeliest
    ones.
    """
    single = logs.gather(-1, following[..., None])[..., 0].tolist()
    if not top:
        return [[(value, []) for value in row] for row in single]
    values, tokens = (part.tolist() for part in logs.topk(min(top, logs.shape[-1]), -1))
    return [
        [(value, list(zip(t, v, strict=True))) for value, t, v in zip(row, ts, vs, strict=True)]
        for row, ts, vs in zip(single, tokens, values, strict=True)
    ]
