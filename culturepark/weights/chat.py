"""Renders conversations with a base's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Talk = Sequence[dict[str, str]]


def texts(tokenizer: Any, talks: Sequence[Talk], *, begin: bool) -> list[str]:
    """Render conversations with the base's template; where it refuses system messages, they open the first user message."""
    from jinja2.exceptions import TemplateError

    talks = [list(talk) for talk in talks]
    try:
        return list(tokenizer.apply_chat_template(talks, tokenize=False, add_generation_prompt=begin)) if talks else []
    except TemplateError:
        folded = [fold(talk) for talk in talks]
        if folded == talks:
            raise
        return list(tokenizer.apply_chat_template(folded, tokenize=False, add_generation_prompt=begin))


def fold(talk: Talk) -> list[dict[str, str]]:
    """Return a conversation of user and assistant in turn: system messages open the next user message, neighbours of one role join."""
    folded: list[dict[str, str]] = []
    for message in talk:
        role = "user" if message["role"] == "system" else message["role"]
        if folded and folded[-1]["role"] == role:
            folded[-1] = {"role": role, "content": f"{folded[-1]['content']}\n\n{message['content']}"}
        else:
            folded.append({"role": role, "content": message["content"]})
    return folded
