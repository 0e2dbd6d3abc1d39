"""Answers of models of this machine as OpenAI words them: chat and text completions, whole or in
chunks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from culturepark.llm.reasoning import SplitText, ThoughtFilter, split_thoughts_exactly
from culturepark.serving.problems import Problem

if TYPE_CHECKING:
    from culturepark.local_models.engine import Generation, Token

LEAST = -9999.0  # OpenAI's log-probability of what cannot be; JSON has no infinity
Piece = tuple[str, tuple["Token", ...]]
ChatPiece = tuple[str | SplitText, tuple["Token", ...]]


def build_frame(number: int, model: str, kind: str) -> dict[str, Any]:
    """Return what stands around the choices of an answer."""
    prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
    return {
        "id": f"{prefix}-{number:08x}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def count_usage(answers: Sequence[Generation], prompts: int) -> dict[str, int]:
    """Return the tokens of answers, and of `prompts` prompts that they are answers to, each counted
    once.
    """
    each = len(answers) // prompts
    return build_usage(
        sum(a.prompt_tokens for a in answers[::each]), sum(a.completion_tokens for a in answers)
    )


def build_usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return the usage of an answer."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


# ---------------------------------------------------------------------- chat


def build_chat_choice(
    index: int, answer: Generation, logprobs: bool, free: bool = True
) -> dict[str, Any]:
    """Return an answer as a choice of a chat completion; one that is `free` of a schema may hold
    thoughts.
    """
    parts = split_thoughts_exactly(answer.text) if free else SplitText("", answer.text)
    message = {"role": "assistant", "content": parts.text, "refusal": None}
    if parts.reasoning:
        message["reasoning_content"] = parts.reasoning
    logs = build_chat_logprobs(answer.tokens) if logprobs else None
    return {"index": index, "message": message, "logprobs": logs, "finish_reason": answer.finish}


def build_chat_chunk(
    index: int, piece: ChatPiece | Generation | None, logprobs: bool
) -> dict[str, Any]:
    """Return a choice of a chunk: a piece of an answer, its end, or its beginning (None)."""
    delta: dict[str, Any] = {}
    logs = finish = None
    if piece is None:
        delta = {"role": "assistant", "content": ""}
    elif isinstance(piece, tuple):
        delta = _build_delta(piece[0])
        logs = build_chat_logprobs(piece[1]) if logprobs and piece[1] else None
    else:
        finish = piece.finish
    return {"index": index, "delta": delta, "logprobs": logs, "finish_reason": finish}


async def part_thoughts(
    stream: AsyncGenerator[Piece | Generation, None],
) -> AsyncGenerator[ChatPiece | Generation, None]:
    """Yield what a stream says with its thoughts apart; the tokens of what is kept back come with
    what follows.
    """
    listener, tokens = ThoughtFilter(), list["Token"]()
    async with aclosing(stream):
        async for piece in stream:
            if isinstance(piece, tuple):
                new = listener.feed(piece[0])
                tokens += piece[1]
            else:
                new = listener.finish()
            if new.reasoning or new.text or (tokens and not isinstance(piece, tuple)):
                yield new, tuple(tokens)
                tokens = []
            if not isinstance(piece, tuple):
                yield piece


def _build_delta(piece: str | SplitText) -> dict[str, str]:
    if isinstance(piece, str):
        return {"content": piece}
    thoughts = {"reasoning_content": piece.reasoning} if piece.reasoning else {}
    return thoughts | ({"content": piece.text} if piece.text or not thoughts else {})


def build_chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """Return tokens as the log-probabilities of a chat completion."""
    entries = [
        {**_build_token(t.text, t.logprob), "top_logprobs": [_build_token(*pair) for pair in t.top]}
        for t in tokens
    ]
    return {"content": entries, "refusal": None}


def _build_token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, LEAST), "bytes": list(text.encode())}


# ---------------------------------------------------------------------- text


def build_text_choice(
    index: int, text: str, finish: str, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    """Return an answer as a choice of a text completion."""
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}


def build_text_chunk(
    index: int, piece: Piece | Generation | None, logprobs: bool
) -> dict[str, Any] | None:
    """Return a choice of a chunk: a piece of an answer, or its end; its beginning (None) says
    nothing.
    """
    if piece is None:
        return None
    if not isinstance(piece, tuple):
        return build_text_choice(index, "", piece.finish, None)
    logs = (
        build_text_logprobs([t.text for t in piece[1]], piece[1], 0)
        if logprobs and piece[1]
        else None
    )
    return {**build_text_choice(index, piece[0], "", logs), "finish_reason": None}


def build_text_logprobs(
    pieces: Sequence[str], tokens: Sequence[Token | None], start: int
) -> dict[str, Any]:
    """Return tokens as the log-probabilities of a text completion.

    `pieces` are what each adds to the text, `start` is where the first begins; a token that nothing
    stands before is None.
    """
    offsets = [start]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    return {
        "tokens": [t.text if t else piece for t, piece in zip(tokens, pieces, strict=True)],
        "token_logprobs": [max(t.logprob, LEAST) if t else None for t in tokens],
        "top_logprobs": [_list_alternatives(t) if t else None for t in tokens],
        "text_offset": offsets[:-1],
    }


def _list_alternatives(token: Token) -> dict[str, float]:
    """Return a token's alternatives by text, itself among them; of two that look alike the
    likelier.
    """
    alternatives = {text: max(logprob, LEAST) for text, logprob in reversed(token.top)}
    return {token.text: max(token.logprob, LEAST)} | alternatives


# -------------------------------------------------------------------- chunks


async def stream_chunks(
    streams: Sequence[AsyncGenerator[Any, None]],
    around: Mapping[str, Any],
    body: Mapping[str, Any],
    shape: Callable[[int, Any, bool], dict[str, Any] | None],
    each: int,
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield answers as they are said, `each` to a prompt: beginnings, pieces, ends, and the usage
    where asked for.
    """
    with_usage, logprobs = (
        bool((body.get("stream_options") or {}).get("include_usage")),
        _wants_logprobs(body),
    )
    usage: dict[str, Any] = {"usage": None} if with_usage else {}
    answers: dict[int, Generation] = {}
    try:
        for index in range(len(streams)):
            if choice := shape(index, None, logprobs):
                yield {**around, "choices": [choice], **usage}
        async with aclosing(_merge_streams(streams)) as pieces:
            async for index, piece in pieces:
                if not isinstance(piece, tuple):
                    answers[index] = piece
                yield {**around, "choices": [shape(index, piece, logprobs)], **usage}
        if with_usage:
            whole = [answers[i] for i in range(len(streams))]
            yield {**around, "choices": [], "usage": count_usage(whole, len(streams) // each)}
    except Exception as error:  # the status has been sent: the caller is told here
        yield Problem(
            500, f"The answer of this server failed: {type(error).__name__}: {error}"
        ).body


def _wants_logprobs(body: Mapping[str, Any]) -> bool:
    return body.get("logprobs") not in (None, False)


async def _merge_streams(
    streams: Sequence[AsyncGenerator[Any, None]],
) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield what streams say as it comes, with each stream's number; the first that fails ends them
    all.
    """
    queue = asyncio.Queue[tuple[int, Any, Exception | None]]()

    async def pump(index: int, stream: AsyncGenerator[Any, None]) -> None:
        try:
            async with aclosing(stream):
                async for piece in stream:
                    queue.put_nowait((index, piece, None))
        except Exception as error:
            queue.put_nowait((index, None, error))
        else:
            queue.put_nowait((index, None, None))

    tasks = [asyncio.create_task(pump(i, stream)) for i, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            index, piece, error = await queue.get()
            if error is not None:
                raise error
            if piece is None:
                left -= 1
            else:
                yield index, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
