"""Answers requests for chat and text with models of this machine, each under its name; what it
cannot do, it refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from culturepark.errors import InputError
from culturepark.local_models.local_model import Graduate, found, named
from culturepark.local_models.schemas import schema_of
from culturepark.server import answers, completions, parameters, wishes
from culturepark.server.wishes import Prompt, refusals

if TYPE_CHECKING:
    from culturepark.local_models.engine import Ask, Engine, Made, Token
    from culturepark.local_models.machine import Machine

WHO = "A server of models on this machine"
Answered = dict[str, Any] | AsyncIterator[dict[str, Any]]


class Graduates:
    """The answer of a Server: tuned models and bases, one engine a base. `names` are those it
    answers to.

    `models` are folders of tuned models (or of several), `tiny`, folders of bases or hub names; the
    base of an adapter is served too. `rows` bounds a batch.

    >>> with Server(answer := Graduates(["outputs/first/models/sft"]), models=answer.names, chat_only=True) as server: ...
    """

    def __init__(
        self, models: Sequence[str], machine: Machine | None = None, rows: int = 32
    ) -> None:
        self.models: dict[str, Graduate] = named(found(models))
        self._machine, self._rows = machine, rows
        self._loaded: dict[str, tuple[Engine, str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, bases first."""
        return tuple(self.models)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines, one a base."""
        return tuple({id(e): e for e, _ in self._loaded.values()}.values())

    def load(self) -> Graduates:
        """Load every base, each once, and every adapter."""
        from culturepark.local_models.engine import shared

        for name, model in self.models.items():
            engine = shared(model, self._machine, self._rows)
            self._loaded[name] = engine, engine.add(model)
        return self

    async def __call__(self, number: int, body: Mapping[str, Any]) -> Answered:
        """Return a chat completion, or its chunks as they come; Problem for what cannot be
        answered.
        """
        parameters.check_parameters(body, parameters.CHAT | parameters.LOGPROBS, WHO)
        engine, adapter = self._loaded[body["model"]]
        talk, how = wishes.read_talk(body["messages"]), wishes.read_sampling(body)
        how["top"], count = wishes.read_chat_logprobs(body), wishes.read_count(body)
        how["schema"] = await _checked_schema(engine, body)
        with refusals("messages"):
            ask = await asyncio.to_thread(engine.ask, talk, adapter, completions.limit(body), **how)
        asks, held = _repeat(ask, count), ask.schema is not None
        if body.get("stream"):
            frame = answers.frame(number, body["model"], "chat.completion.chunk")
            said = [
                engine.stream(a) if held else answers.part_thoughts(engine.stream(a)) for a in asks
            ]
            return answers.stream_chunks(said, frame, body, answers.chat_chunk, count)
        made = await _say_all(engine, asks)
        choices = [
            answers.chat_choice(i, one, ask.top is not None, not held) for i, one in enumerate(made)
        ]
        frame = answers.frame(number, body["model"], "chat.completion")
        return {**frame, "choices": choices, "usage": answers.count_usage(made, 1)}

    async def continue_text(self, number: int, body: Mapping[str, Any]) -> Answered:
        """Return a text completion of each prompt, or its chunks as they come; Problem for what
        cannot be answered.
        """
        parameters.check_parameters(body, parameters.TEXT, WHO)
        engine, adapter = self._loaded[body["model"]]
        how = wishes.read_sampling(body) | {"top": wishes.read_text_logprobs(body)}
        limit, count, echo = (
            wishes.read_text_limit(body),
            wishes.read_count(body),
            wishes.check_echo(body),
        )
        with refusals("prompt"):
            texts = await asyncio.to_thread(
                lambda: [_read(engine, p) for p in wishes.read_prompts(body)]
            )
            asks = [
                ask
                for text in texts
                for ask in (
                    _repeat(engine.ask_tokens(text.tokens, adapter, limit, **how), count)
                    if limit
                    else ()
                )
            ]
        frame = answers.frame(number, body["model"], "text_completion")
        if body.get("stream"):
            return answers.stream_chunks(
                [engine.stream(a) for a in asks], frame, body, answers.text_chunk, count
            )
        made = (
            await _say_all(engine, asks)
            if limit
            else [_say_nothing(t) for t in texts for _ in range(count)]
        )
        if echo:
            texts = await _weigh_all(engine, texts, adapter, how["top"])
        shown = [t for t in texts for _ in range(count)]
        choices = [
            _text_choice(i, engine, text if echo else None, one, how["top"])
            for i, (text, one) in enumerate(zip(shown, made, strict=True))
        ]
        return {**frame, "choices": choices, "usage": answers.count_usage(made, len(texts))}


async def _checked_schema(engine: Engine, body: Mapping[str, Any]) -> str | None:
    """Return the JSON schema that a request asks for, as text; Problem where an answer cannot be
    held to it.
    """
    with refusals("response_format"):
        schema = schema_of(body.get("response_format"))
        if schema is not None:
            await asyncio.to_thread(engine.check_schema, schema)
        return schema


def _repeat(ask: Ask, count: int) -> list[Ask]:
    """Return a request so many times, each drawn with a seed of its own."""
    return [replace(ask, seed=ask.seed + i) for i in range(count)]


async def _say_all(engine: Engine, asks: Sequence[Ask]) -> list[Made]:
    with refusals("response_format"):
        return list(
            await asyncio.gather(*(asyncio.wrap_future(engine.submit(ask)) for ask in asks))
        )


# ---------------------------------------------------------------------- text


@dataclass(frozen=True)
class Text:
    """A prompt of a text completion: its tokens, its text, and how likely each token was, where
    that was asked for.
    """

    tokens: tuple[int, ...]
    text: str
    weighed: tuple[Token | None, ...] = ()


def _read(engine: Engine, prompt: Prompt) -> Text:
    """Return a prompt as tokens and text; InputError for tokens that the model does not have."""
    if not isinstance(prompt, str):
        return Text(engine.check_tokens(prompt), engine.write(prompt))
    tokens = engine.read_text(prompt)
    if not tokens:
        raise InputError("an empty prompt has no token to go on from")
    return Text(tokens, prompt)


def _say_nothing(text: Text) -> Made:
    from culturepark.local_models.engine import Made

    return Made("", "length", len(text.tokens), 0)


async def _weigh_all(
    engine: Engine, texts: Sequence[Text], adapter: str, top: int | None
) -> list[Text]:
    """Return prompts with how likely their tokens are; as they are where no log-probabilities are
    asked for.
    """
    if top is None:
        return list(texts)
    with refusals("prompt"):
        read = await asyncio.gather(*(engine.read(t.tokens, adapter, top) for t in texts))
    return [
        replace(text, weighed=(None, *tokens)) for text, tokens in zip(texts, read, strict=True)
    ]


def _text_choice(
    index: int, engine: Engine, before: Text | None, made: Made, top: int | None
) -> dict[str, Any]:
    """Return an answer as a choice, after the prompt where that is said back (`before`)."""
    text = (before.text if before else "") + made.text
    if top is None:
        return answers.text_choice(index, text, made.finish, None)
    pieces, tokens = list[str](), list["Token | None"]()
    if before:
        pieces, tokens = engine.write_pieces(before.tokens, before.text), list(before.weighed)
    said = [*made.tokens, *([made.end] if made.end else [])]
    shown = [*(t.text for t in made.tokens), *([""] if made.end else [])]
    logprobs = answers.text_logprobs([*pieces, *shown], [*tokens, *said], 0)
    return answers.text_choice(index, text, made.finish, logprobs)
