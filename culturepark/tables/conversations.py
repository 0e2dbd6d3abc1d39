"""Checks rows of conversations and preferences in TRL's formats: their keys and their messages."""

from __future__ import annotations

from typing import Any

from culturepark.errors import InputError, nearest
from culturepark.records import CHAT_ROLES

KEYS = {
    "trl": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
    "shares": ("prompt", "options", "shares"),
}
Row = dict[str, Any]


def check_row(row: Row, form: str, where: str) -> Row:
    """Return a row with the keys of its form, conversations checked, plain texts made
    conversations.
    """
    if form == "trl" and "messages" in row:
        if not isinstance(row["messages"], list):
            raise InputError(f"{where}: messages: a list of messages, not {row['messages']!r:.60}")
        row = {**row, "prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    if lacking := [key for key in KEYS[form] if key not in row]:
        raise InputError(
            f"{where}: no {lacking[0]!r}; a row of this kind has {', '.join(KEYS[form])}."
            f" {nearest(lacking[0], row)}"
        )
    if not isinstance(row.get("metadata"), (dict, type(None))):
        raise InputError(f"{where}: metadata: an object, not {row['metadata']!r:.60}")
    made: Row = {
        "metadata": row.get("metadata") or {k: row[k] for k in ("culture", "question") if k in row}
    }
    for key in KEYS[form]:
        if key in ("prompt", "completion", "chosen", "rejected"):
            made[key] = _talk(
                row[key], "user" if key == "prompt" else "assistant", f"{where}: {key}"
            )
        else:
            made[key] = row[key]
    if form == "shares":
        _check_shares(made, where)
    if form == "kto" and not isinstance(made["label"], bool):
        raise InputError(f"{where}: label: {made['label']!r} is neither true nor false")
    return made


def _talk(value: Any, role: str, where: str) -> list[dict[str, str]]:
    """Return a conversation: a text is one message of `role`; answers hold exactly one message of
    the assistant's.
    """
    talk = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not isinstance(talk, list) or not talk:
        raise InputError(f"{where}: a text or a list of messages, not {value!r:.60}")
    for message in talk:
        if (
            not isinstance(message, dict)
            or message.get("role") not in CHAT_ROLES
            or not isinstance(message.get("content"), str)
        ):
            raise InputError(
                f"{where}: a message has a role ({', '.join(CHAT_ROLES)}) and content, not"
                f" {message!r:.60}"
            )
        if not message["content"].strip():
            raise InputError(f"{where}: an empty message teaches nothing")
    if role == "assistant" and (len(talk) != 1 or talk[0]["role"] != "assistant"):
        raise InputError(f"{where}: exactly one message of the assistant's, not {len(talk)}")
    return [{"role": m["role"], "content": m["content"]} for m in talk]


def _check_shares(row: Row, where: str) -> None:
    options, shares = row["options"], row["shares"]
    if (
        not isinstance(options, list)
        or not isinstance(shares, list)
        or len(options) != len(shares)
        or len(options) < 2
    ):
        raise InputError(f"{where}: options and shares are lists of the same length, at least 2")
    if any(not isinstance(o, str) or not o.strip() for o in options) or len(set(options)) < len(
        options
    ):
        raise InputError(f"{where}: options are different texts")
    if (
        any(not isinstance(s, (int, float)) or not s >= 0 for s in shares)
        or not abs(sum(shares) - 1) <= 1e-3
    ):
        raise InputError(f"{where}: shares are none below 0 and sum to 1, not {shares}")
