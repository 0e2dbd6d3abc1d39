"""Renders conversations with a base's own chat template: one prefix for training, likelihoods and
sampling.

What stands before an answer in a finished conversation is the prompt, whatever the template writes
as its generation prompt: an empty block of thoughts that a template writes into finished
conversations alone belongs to the prompt everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from culturepark.errors import InputError

Talk = Sequence[dict[str, str]]
MARK = "@the-answer-stands-here@"
THOUGHTS = "</think>"  # ends the thoughts that templates take out of earlier turns
TODAY = datetime(
    2024, 7, 26
)  # for templates that write a date: one conversation is one prompt, on any day
DATED = "{% macro strftime_now(format) %}{{ fixed_dates.get(format, date_string) }}{% endmacro %}"
FORMATS = re.compile(r"strftime_now\(\s*['\"]([^'\"]*)['\"]")


@dataclass(frozen=True)
class Opening:
    """A conversation up to where the model speaks, as text and `tokens`.

    An answer there begins with `lead` (spaces, or nothing) and closes with `tail`, whose last token
    is `end`. `talk` is the conversation as the template took it; `before` and `after` stand around
    an answer in a finished conversation.
    """

    talk: Talk = field(repr=False)
    before: str = field(repr=False)
    after: str = field(repr=False)
    text: str
    tokens: tuple[int, ...]
    tail: str
    end: int

    @property
    def lead(self) -> str:
        """The spaces with which an answer begins, where the template writes them and its prompt
        does not.
        """
        return self.before[len(self.text) :]


def open_turns(tokenizer: Any, talks: Sequence[Talk]) -> list[Opening]:
    """Return conversations up to where the model speaks; equal ones are rendered once.

    InputError where the template refuses a conversation, leaves a message out, or does not write an
    answer as it stands.
    """
    different = {_key(talk): talk for talk in talks}
    openings = {key: _open_turn(tokenizer, talk) for key, talk in different.items()}
    return [openings[_key(talk)] for talk in talks]


def tokenize_answers(
    tokenizer: Any, talks: Sequence[Talk], answers: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """Return each conversation's (prompt, completion) as token ids: the prompt as sampling sees it,
    the end token last.
    """
    openings = open_turns(tokenizer, talks)
    replies = [_complete_turn(tokenizer, o, a) for o, a in zip(openings, answers, strict=True)]
    return [
        (list(o.tokens), ids)
        for o, ids in zip(openings, _continue(tokenizer, openings, replies), strict=True)
    ]


def tokenize_beginnings(
    tokenizer: Any, opening: Opening, texts: Sequence[str]
) -> list[tuple[int, ...]]:
    """Return texts with which an answer may begin, as the token ids that follow the opening's
    own.
    """
    beginnings = [opening.lead + text for text in texts]
    return [tuple(ids) for ids in _continue(tokenizer, [opening] * len(beginnings), beginnings)]


def render_finished(tokenizer: Any, talks: Sequence[Talk]) -> list[str]:
    """Return whole conversations as the template writes them; InputError where it refuses one."""
    return [_render_shaped(tokenizer, talk, [])[1] for talk in talks]


def find_end(tokenizer: Any) -> int | None:
    """Return the token with which the template ends an answer; None where it cannot open a plain
    conversation.
    """
    try:
        return _open_turn(tokenizer, [{"role": "user", "content": "?"}]).end
    except InputError:
        return None


# ----------------------------------------------------------------- rendering


def _key(talk: Talk) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in talk)


def _open_turn(tokenizer: Any, talk: Talk) -> Opening:
    shaped, finished = _render_shaped(tokenizer, talk, [{"role": "assistant", "content": MARK}])
    before, mark, after = finished.rpartition(MARK)
    if not mark:
        raise InputError("the chat template leaves out what the assistant says last")
    text = before.rstrip(" ")
    if text != before and _generation_prompt(tokenizer, shaped) == before:
        text = before
    tail = _tail(tokenizer, after)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    end = tokenizer(tail, add_special_tokens=False)["input_ids"][-1]
    return Opening(shaped, before, after, text, tuple(tokens), tail, end)


def _complete_turn(tokenizer: Any, opening: Opening, answer: str) -> str:
    """Return an answer as it follows an opening; InputError where the template writes it
    otherwise.
    """
    finished = _render(tokenizer, [*opening.talk, {"role": "assistant", "content": answer}])
    body = finished.removeprefix(opening.before).removesuffix(opening.after)
    if opening.before + body + opening.after != finished or body.strip() != answer.strip():
        raise InputError(
            "the chat template does not write this answer as it stands (thoughts in it, or marks"
            f" of the template's own?): {answer!r:.80}; take them out of the answer"
        )
    return opening.lead + body + opening.tail


def _render_shaped(
    tokenizer: Any, talk: Talk, answer: list[dict[str, str]]
) -> tuple[list[dict[str, str]], str]:
    """Return a conversation in the first shape that the template takes, and how it renders it
    before an answer.
    """
    problem = ""
    for shaped in _shapes(talk):
        try:
            rendered = _render(tokenizer, [*shaped, *answer])
        except InputError as error:
            problem = problem or str(error)
            continue
        lost = next((m["role"] for m in shaped if not _stands_in(m, rendered)), None)
        if lost is None:
            return shaped, rendered
        problem = problem or f"the chat template leaves out what the {lost} says"
    raise InputError(problem)


def _shapes(talk: Talk) -> list[list[dict[str, str]]]:
    """Return a conversation as it is, with neighbours of one role as one message, and with system
    messages as the user's.
    """
    shapes = [list(talk), join_neighbours(talk), fold(talk)]
    return [shape for i, shape in enumerate(shapes) if shape not in shapes[:i]]


def fold(talk: Talk) -> list[dict[str, str]]:
    """Return a conversation of user and assistant in turn: system messages open the next user
    message, neighbours of one role join.
    """
    return join_neighbours([{**m, "role": "user"} if m["role"] == "system" else m for m in talk])


def join_neighbours(talk: Talk) -> list[dict[str, str]]:
    """Return a conversation in which no two messages in a row have one role: their texts stand
    apart by a blank line.
    """
    joined: list[dict[str, str]] = []
    for message in talk:
        if joined and joined[-1]["role"] == message["role"]:
            text = f"{joined[-1]['content']}\n\n{message['content']}"
            joined[-1] = {**joined[-1], "content": text}
        else:
            joined.append(message)
    return joined


def _stands_in(message: dict[str, str], rendered: str) -> bool:
    text = message["content"]
    if message["role"] == "assistant":
        text = text.rpartition(THOUGHTS)[2]
    return text.strip() in rendered


def _generation_prompt(tokenizer: Any, talk: Talk) -> str:
    try:
        return _render(tokenizer, talk, add_generation_prompt=True)
    except InputError:
        return ""


def _render(tokenizer: Any, talk: Talk, *, add_generation_prompt: bool = False) -> str:
    """Render a conversation, without thoughts and as on one day where the template asks for
    either.
    """
    try:
        template = tokenizer.get_chat_template()
        dates = {form: TODAY.strftime(form) for form in FORMATS.findall(template)}
        rendered = tokenizer.apply_chat_template(
            list(talk),
            chat_template=(DATED if dates else "") + template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
            thinking=False,
            date_string=TODAY.strftime("%d %b %Y"),
            fixed_dates=dates,
        )
    except Exception as error:  # a template is a program of somebody else's
        reason = str(error).strip() or type(error).__name__
        raise InputError(f"the chat template refuses these messages: {reason}") from error
    return str(rendered)


def _tail(tokenizer: Any, after: str) -> str:
    """Return what closes an answer, up to the first special token; the tokenizer's end token where
    there is none.
    """
    marks = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    ends = [
        (at, mark)
        for mark in marks | set(tokenizer.all_special_tokens)
        if (at := after.find(mark)) >= 0
    ]
    if ends:
        at, mark = min(ends, key=lambda end: (end[0], -len(end[1])))
        return after[:at] + mark
    if tokenizer.eos_token is None:
        raise InputError(
            "nothing ends an answer: neither the chat template nor its tokenizer has an end token"
        )
    return str(tokenizer.eos_token)


# -------------------------------------------------------------------- tokens


def _continue(tokenizer: Any, openings: Sequence[Opening], texts: Sequence[str]) -> list[list[int]]:
    """Return texts as the token ids that follow their openings': read in one piece where that
    leaves the opening's alone.
    """
    if not texts:
        return []
    whole = [o.text + text for o, text in zip(openings, texts, strict=True)]
    joint = tokenizer(whole, add_special_tokens=False)["input_ids"]
    alone = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [
        list(ids[len(o.tokens) :] if tuple(ids[: len(o.tokens)]) == o.tokens else rest)
        for o, ids, rest in zip(openings, joint, alone, strict=True)
    ]
