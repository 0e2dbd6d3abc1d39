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
    """Return a conversation whose system message opens its first user message."""
    if len(talk) < 2 or talk[0]["role"] != "system" or talk[1]["role"] != "user":
        return list(talk)
    return [{"role": "user", "content": f"{talk[0]['content']}\n\n{talk[1]['content']}"}, *talk[2:]]
