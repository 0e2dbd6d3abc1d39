"""Answers requests for chat and text with models of this machine, each under its name; what it
cannot do, it refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from culturepark.errors import InputError
from culturepark.local_models.local_model import LocalModel, find_models, name_models
from culturepark.local_models.schemas import schema_of
from culturepark.serving import completions, generation_options, parameters
from culturepark.serving.generation_options import Prompt, report_refusals
from culturepark.serving.requests import read_limit

if TYPE_CHECKING:
    from culturepark.local_models.engine import Engine, Generation, GenerationRequest, Token
    from culturepark.local_models.machine import Machine

WHO = "A server of models on this machine"
Answer = dict[str, Any] | AsyncIterator[dict[str, Any]]


class LocalAnswers:
    """The answers of tuned models and bases, one engine per base. `names` are those they have.

    `models` are folders of tuned models (or of several), `tiny`, folders of bases or hub names; the
    base of an adapter is served too. `rows` bounds a batch.

    >>> LocalAnswers(["outputs/first/models/sft"]).load().names
    """

    def __init__(
        self, models: Sequence[str], machine: Machine | None = None, rows: int = 32
    ) -> None:
        self.models: dict[str, LocalModel] = name_models(find_models(models))
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

    def load(self) -> LocalAnswers:
        """Load every base, each once, and every adapter."""
        from culturepark.local_models.engine import share_engine

        for name, model in self.models.items():
            engine = share_engine(model, self._machine, self._rows)
            self._loaded[name] = engine, engine.add(model)
        return self

    async def complete_chat(self, number: int, body: Mapping[str, Any]) -> Answer:
        """Return a chat completion, or its chunks as they come; Problem for what cannot be
        answered.
        """
        parameters.check_parameters(body, parameters.CHAT | parameters.LOGPROBS, WHO)
        engine, adapter = self._loaded[body["model"]]
        talk, how = (
            generation_options.read_messages(body["messages"]),
            generation_options.read_sampling(body),
        )
        how["top"], count = (
            generation_options.read_chat_logprobs(body),
            generation_options.read_count(body),
        )
        how["schema"] = await _read_schema(engine, body)
        with report_refusals("messages"):
            ask = await asyncio.to_thread(engine.ask, talk, adapter, read_limit(body), **how)
        asks, has_schema = _repeat_ask(ask, count), ask.schema is not None
        if body.get("stream"):
            frame = completions.build_frame(number, body["model"], "chat.completion.chunk")
            streams = [
                engine.stream(a) if has_schema else completions.part_thoughts(engine.stream(a))
                for a in asks
            ]
            return completions.stream_chunks(
                streams, frame, body, completions.build_chat_chunk, count
            )
        answers = await _complete_all(engine, asks)
        choices = [
            completions.build_chat_choice(i, one, ask.top is not None, not has_schema)
            for i, one in enumerate(answers)
        ]
        frame = completions.build_frame(number, body["model"], "chat.completion")
        return {**frame, "choices": choices, "usage": completions.count_usage(answers, 1)}

    async def complete_text(self, number: int, body: Mapping[str, Any]) -> Answer:
        """Return a text completion of each prompt, or its chunks as they come; Problem for what
        cannot be answered.
        """
        parameters.check_parameters(body, parameters.TEXT, WHO)
        engine, adapter = self._loaded[body["model"]]
        how = generation_options.read_sampling(body) | {
            "top": generation_options.read_text_logprobs(body)
        }
        limit, count, echo = (
            generation_options.read_text_limit(body),
            generation_options.read_count(body),
            generation_options.check_echo(body),
        )
        with report_refusals("prompt"):
            texts = await asyncio.to_thread(
                lambda: [_read_prompt(engine, p) for p in generation_options.read_prompts(body)]
            )
            asks = [
                ask
                for text in texts
                for ask in (
                    _repeat_ask(engine.ask_tokens(text.tokens, adapter, limit, **how), count)
                    if limit
                    else ()
                )
            ]
        frame = completions.build_frame(number, body["model"], "text_completion")
        if body.get("stream"):
            return completions.stream_chunks(
                [engine.stream(a) for a in asks], frame, body, completions.build_text_chunk, count
            )
        answers = (
            await _complete_all(engine, asks)
            if limit
            else [_complete_nothing(t) for t in texts for _ in range(count)]
        )
        if echo:
            texts = await _score_prompts(engine, texts, adapter, how["top"])
        prompts = [t for t in texts for _ in range(count)]
        choices = [
            _text_choice(i, engine, text if echo else None, one, how["top"])
            for i, (text, one) in enumerate(zip(prompts, answers, strict=True))
        ]
        return {**frame, "choices": choices, "usage": completions.count_usage(answers, len(texts))}


async def _read_schema(engine: Engine, body: Mapping[str, Any]) -> str | None:
    """Return the JSON schema that a request asks for, as text; Problem where an answer cannot be
    held to it.
    """
    with report_refusals("response_format"):
        schema = schema_of(body.get("response_format"))
        if schema is not None:
            await asyncio.to_thread(engine.check_schema, schema)
        return schema


def _repeat_ask(ask: GenerationRequest, count: int) -> list[GenerationRequest]:
    """Return a request so many times, each drawn with a seed of its own."""
    return [replace(ask, seed=ask.seed + i) for i in range(count)]


async def _complete_all(engine: Engine, asks: Sequence[GenerationRequest]) -> list[Generation]:
    with report_refusals("response_format"):
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


def _read_prompt(engine: Engine, prompt: Prompt) -> Text:
    """Return a prompt as tokens and text; InputError for tokens that the model does not have."""
    if not isinstance(prompt, str):
        return Text(engine.check_tokens(prompt), engine.write(prompt))
    tokens = engine.read_text(prompt)
    if not tokens:
        raise InputError("an empty prompt has no token to go on from")
    return Text(tokens, prompt)


def _complete_nothing(text: Text) -> Generation:
    from culturepark.local_models.engine import Generation

    return Generation("", "length", len(text.tokens), 0)


async def _score_prompts(
    engine: Engine, texts: Sequence[Text], adapter: str, top: int | None
) -> list[Text]:
    """Return prompts with how likely their tokens are; as they are where no log-probabilities are
    asked for.
    """
    if top is None:
        return list(texts)
    with report_refusals("prompt"):
        read = await asyncio.gather(*(engine.read(t.tokens, adapter, top) for t in texts))
    return [
        replace(text, weighed=(None, *tokens)) for text, tokens in zip(texts, read, strict=True)
    ]


def _text_choice(
    index: int, engine: Engine, before: Text | None, answer: Generation, top: int | None
) -> dict[str, Any]:
    """Return an answer as a choice, after the prompt where that is said back (`before`)."""
    text = (before.text if before else "") + answer.text
    if top is None:
        return completions.build_text_choice(index, text, answer.finish, None)
    pieces, tokens = list[str](), list["Token | None"]()
    if before:
        pieces, tokens = engine.write_pieces(before.tokens, before.text), list(before.weighed)
    said_tokens = [*answer.tokens, *([answer.end] if answer.end else [])]
    said_pieces = [*(t.text for t in answer.tokens), *([""] if answer.end else [])]
    logprobs = completions.build_text_logprobs([*pieces, *said_pieces], [*tokens, *said_tokens], 0)
    return completions.build_text_choice(index, text, answer.finish, logprobs)
