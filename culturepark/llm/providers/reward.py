"""A reward model on this machine: says which of a request's options is best, with probabilities
from their rewards.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from math import exp, isfinite
from pathlib import Path
from typing import Any

from culturepark.errors import InputError, ModelError
from culturepark.local_models import base, libraries, local_model, machine, manifest, rewards
from culturepark.records import Reply, Request, digest

LINGER = 0.01  # seconds in which those that ask at once gather
LENGTH = (
    2**15
)  # the most tokens that are read of a conversation where neither manifest nor model says
Waiting = tuple[Request, Future[Reply]]


class RewardProvider:
    """Answers with the option that has the largest reward; `option_probs` are softmax(rewards), of
    two options σ(r₁ − r₂) and σ(r₂ − r₁).

    `name` is the folder of a reward model, or a sequence classifier of one output by folder or hub
    name. Rewards are told without dropout, of the whole conversation in the text that SCPO trained
    on; where it is longer than the model was trained on, its beginning is cut and the reply's
    `reason` says so. What waits is scored together; `batches` and `answered` count that. The
    weights are loaded when it is first asked, in float32 as SCPO judged them unless `dtype` says
    otherwise (coarser numbers tie more pairs). InputError for a name that is no reward model's,
    ModelError where it can't be loaded.
    """

    def __init__(self, name: str, **params: Any) -> None:
        if not rewards.is_reward_model(name):
            raise InputError(f"{name!r} is no reward model: it has no head that scores texts")
        if odd := sorted(set(params) - {"dtype"}):
            raise InputError(
                f"the reward model {name!r} takes no {', '.join(odd)}; of params it takes dtype"
            )
        self.name, self.dtype = name, str(params.get("dtype", "float32"))
        self.identity = _build_identity(name) + (f"+{self.dtype}" if params else "")
        self.batches = self.answered = 0
        self._loaded: tuple[Any, Any, int] | None = None
        self._waiting: list[Waiting] = []
        self._lock, self._busy = threading.Lock(), False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="culturepark-rewards")

    def check(self) -> None:
        """Raise what would make every call fail: libraries that are not installed, an unknown
        number format.
        """
        machine.find_machine(dtype=self.dtype)

    async def complete(self, request: Request) -> Reply:
        """Score a request's options after its messages, together with whatever else waits."""
        if len(request.options) < 2:
            return Reply(
                "failed",
                reason=(
                    "a reward model tells which of several options is best, and was given none to"
                    " compare"
                ),
                model=self.identity,
            )
        future: Future[Reply] = Future()
        with self._lock:
            self._waiting.append((request, future))
            if not self._busy:
                self._busy = True
                self._thread.submit(self._work)
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        """Score until nothing waits."""
        while True:
            time.sleep(LINGER)
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._busy = False
                    return
            try:
                self._score([row for row in batch if not row[1].cancelled()])
            except Exception as error:
                for _, future in batch:
                    _set_result(future, error)

    def _score(self, batch: Sequence[Waiting]) -> None:
        """Score the options of all requests, and answer each."""
        started = time.perf_counter()
        model, tokenizer, length = self._loaded = self._loaded or _load(self.name, self.dtype)
        read = [
            (request, future, *self._read(request, future, tokenizer, length))
            for request, future in batch
        ]
        flat = iter(
            rewards.score_rows(model, tokenizer, [row for _, _, rows, _ in read for row in rows])
        )
        self.batches += 1
        ms = (time.perf_counter() - started) * 1000 / max(1, len(batch))
        for request, future, rows, cut in read:
            if rows:
                scores = [next(flat) for _ in rows]
                _set_result(
                    future,
                    replace(
                        _build_reply(request.options, scores, cut),
                        model=self.identity,
                        prompt_tokens=sum(map(len, rows)),
                        ms=ms,
                    ),
                )
                self.answered += 1

    def _read(
        self, request: Request, future: Future[Reply], tokenizer: Any, length: int
    ) -> tuple[list[list[int]], str]:
        """Return the tokens of the conversation with each option, and what was cut; where the
        model's template refuses it, say so.
        """
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        try:
            whole = rewards.tokenize_talks(
                tokenizer,
                [[*messages, {"role": "assistant", "content": o}] for o in request.options],
            )
        except InputError as error:
            _set_result(future, Reply("failed", reason=str(error), model=self.identity, final=True))
            return [], ""
        rows = [rewards.keep_last_tokens(tokenizer, row, length) for row in whole]
        return (
            rows,
            (
                f"the beginning was cut: of a conversation, {length} tokens are read"
                if rows != whole
                else ""
            ),
        )


def _build_reply(options: Sequence[str], scores: Sequence[float], cut: str) -> Reply:
    """Return the rewards of options as a reply; probabilities are float64, small ones exact."""
    if not all(map(isfinite, scores)):
        return Reply("failed", reason=f"the rewards are no numbers: {', '.join(map(str, scores))}")
    best = max(scores)
    weights = [exp(score - best) for score in scores]
    probs = tuple(weight / sum(weights) for weight in weights)
    return Reply("ok", options[scores.index(best)], cut, option_probs=probs)


def _set_result(future: Future[Reply], what: Reply | Exception) -> None:
    with suppress(InvalidStateError):  # cancelled, or told already
        future.set_exception(what) if isinstance(what, Exception) else future.set_result(what)


# ------------------------------------------------------------------ loading


def _load(name: str, dtype: str) -> tuple[Any, Any, int]:
    """Return model, tokenizer and the most tokens of a conversation."""
    with libraries.quiet():
        tokenizer = rewards.load_tokenizer(name)
        model = rewards.load_model(name, tokenizer, machine.find_machine(dtype=dtype))
    own = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or LENGTH)
    tokenizer.model_max_length = 2**31  # or it warns of what is cut here anyway
    saved = _read_manifest(name)
    return model, tokenizer, min(own, int(saved.settings.get("length", own))) if saved else own


def _read_manifest(name: str) -> manifest.Manifest | None:
    folder = Path(name).expanduser()
    return manifest.read(folder) if (folder / manifest.FILE).is_file() else None


def _build_identity(name: str) -> str:
    """Return name and hash of all that shapes the rewards: weights, tokenizer, the length that is
    read, an adapter's base.
    """
    saved = _read_manifest(name)
    if saved is None:
        return local_model.find_model(name).identity
    folder = Path(name).expanduser()
    folders = [
        folder,
        *([rewards.find_base_folder(folder)] if base.read_adapter_config(folder) else []),
    ]
    files = [
        p
        for f in folders
        for p in [*map(f.joinpath, local_model.SHAPING), *sorted(f.glob("*.safetensors"))]
        if p.is_file()
    ]
    if not any(p.suffix == ".safetensors" for p in files):
        raise ModelError(
            f"the reward model at {folder} has no weights (*.safetensors); pickled ones are not"
            " loaded"
        )
    hashes = ((path.name, local_model.hash_file(path)) for path in files)
    return f"local/{saved.name}@{digest(*hashes, saved.settings.get('length'))}"
