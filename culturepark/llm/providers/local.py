"""A model on this machine at the table: a tuned adapter on its base, or a base; seats of one base
share it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from culturepark.errors import InputError
from culturepark.llm.codec import ask_for_schema, build_strict_schema
from culturepark.llm.reasoning import separate_thoughts
from culturepark.local_models.local_model import check_mixable, find_model
from culturepark.local_models.machine import find_machine
from culturepark.records import Reply, Request, Status

if TYPE_CHECKING:
    from culturepark.local_models.engine import Engine, Generation


class LocalProvider:
    """Answers with the model in a folder, or with a base by name. The weights are loaded when it is
    first asked.

    `identity` holds a hash of adapter and base. A prompt that does not fit is a failed reply, an
    answer that is cut is `truncated`, one without text `empty`. A request with options is answered
    by the distribution over them. InputError where there is no model of this name, ModelError where
    it cannot be loaded.
    """

    def __init__(self, name: str, **params: Any) -> None:
        odd = sorted(set(params) - {"top_p"})
        if odd:
            raise InputError(
                f"the model {name!r} of this machine takes no {', '.join(odd)}; of params it takes"
                " top_p"
            )
        self.local_model = find_model(name)
        self.identity = self.local_model.identity + (
            f"+top_p={params['top_p']:g}" if params else ""
        )
        self._params, self._adapter = params, ""
        self._engine: Engine | None = None

    def check(self) -> None:
        """Raise what would make every call fail: libraries that are not installed, an adapter that
        cannot share its base.
        """
        find_machine()
        if self.local_model.adapter is not None:
            check_mixable(self.local_model.adapter)

    async def complete(self, request: Request) -> Reply:
        """Answer one request, in one batch with whatever else waits for this base."""
        started = time.perf_counter()
        engine = self._engine
        if engine is None:
            engine = await asyncio.to_thread(self._load)
        try:
            if request.options:
                probs = await engine.weigh(_list_messages(request), request.options, self._adapter)
                return build_choice_reply(
                    request.options, probs, self.identity, (time.perf_counter() - started) * 1000
                )
            answer = await engine.complete(
                _list_messages(request),
                self._adapter,
                request.max_tokens,
                temperature=request.temperature,
                seed=(request.seed + request.index) % 2**31,
                stop=request.stop,
                **self._params,
            )
        except InputError as error:
            return Reply("failed", reason=str(error), model=self.identity, final=True)
        return _build_reply(answer, self.identity, (time.perf_counter() - started) * 1000)

    def _load(self) -> Engine:
        from culturepark.local_models import engine

        engine_in_use = engine.share_engine(self.local_model)
        self._adapter = engine_in_use.add(self.local_model)
        self._engine = engine_in_use
        return engine_in_use


def build_choice_reply(
    options: Sequence[str], probs: Sequence[float], identity: str, ms: float
) -> Reply:
    """Return a distribution over options as a reply, whose text is the likeliest one."""
    best = max(range(len(options)), key=probs.__getitem__)
    return Reply("ok", options[best], model=identity, ms=ms, option_probs=tuple(probs))


def _list_messages(request: Request) -> list[dict[str, str]]:
    """Return the messages; a structured answer is asked for in words."""
    body: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in request.messages]
    }
    if request.reply_schema is not None:
        ask_for_schema(body, request.role, build_strict_schema(request.reply_schema), "text")
    return list(body["messages"])


def _build_reply(answer: Generation, identity: str, ms: float) -> Reply:
    text = answer.text.strip()
    status: Status = "truncated" if answer.finish == "length" else "ok" if text else "empty"
    reason = {
        "truncated": "the answer was cut at max_tokens",
        "empty": "the answer holds no text",
    }.get(status, "")
    return separate_thoughts(
        Reply(status, text, reason, identity, answer.prompt_tokens, answer.completion_tokens, ms=ms)
    )
