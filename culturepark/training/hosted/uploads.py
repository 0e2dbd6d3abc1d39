"""Reads the files of hosted fine-tuning jobs: checks each row as a service would, hashes the files
and counts tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, nearest
from culturepark.training.rows import POOLED, same_rows

FOLDERS = {"sft": "openai", "dpo": "openai-dpo"}  # of a run's corpus, by method
TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
LEAST = 10  # rows that a service requires
BYTES = 4  # of text per token, about
EXTRA = 4  # tokens of a message besides its text
SHOWN = 20  # mistakes that are listed
SLOW = 15.0  # seconds that tiktoken may take to fetch its vocabulary
ROLES = ("system", "developer", "user", "assistant", "tool")
ROW = {"sft": ("messages",), "dpo": ("input", "preferred_output", "non_preferred_output")}
MESSAGE = ("role", "content", "name", "weight")


@dataclass(frozen=True)
class Part:
    """The files of one job, how many rows they hold, their tokens per epoch, and their hash."""

    culture: str
    train: Path
    validation: Path | None
    rows: int
    validation_rows: int
    tokens: int
    hash: str


def read_parts(folder: Path, method: str, count: Callable[[str], int]) -> tuple[Part, ...]:
    """Read the files of every job; raises InputError with every mistake in them."""
    jobs = find_jobs(folder)
    if not jobs:
        there = sorted(p.name for p in folder.iterdir())[:10] if folder.is_dir() else []
        raise InputError(
            f"{folder}: no {TRAIN} in it, nor in a folder of it for each culture; "
            f"{'it holds ' + ', '.join(there) if there else 'there is nothing'}. "
            f"`culturepark export RUN --to {FOLDERS[method]} --by-culture` writes them."
        )
    problems: list[str] = []
    parts = tuple(_read_part(culture, place, method, count, problems) for culture, place in jobs)
    if problems:
        more = f"\nand {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(
            "nothing was sent: a fine-tuning service would refuse these files\n"
            + "\n".join(problems[:SHOWN])
            + more
        )
    return parts


def find_jobs(folder: Path) -> list[tuple[str, Path]]:
    """Return the jobs of a folder: each culture and the folder of its files.

    A folder that holds all rows together and the same rows by culture (`export --by-culture`) makes
    one job per culture. Raises InputError if the two hold different rows.
    """
    cultures = sorted(p for p in folder.glob("[!._]*") if (p / TRAIN).is_file())
    if not (folder / TRAIN).is_file() or (
        cultures and same_rows(folder / TRAIN, [p / TRAIN for p in cultures])
    ):
        return [(p.name, p) for p in cultures]
    if cultures:
        raise InputError(
            f"{folder} has a {TRAIN} of its own and others in"
            f" {', '.join(p.name for p in cultures)}: keep all cultures together or each apart"
        )
    return [(POOLED, folder)]


def _read_part(
    culture: str, folder: Path, method: str, count: Callable[[str], int], problems: list[str]
) -> Part:
    """Read the files of a job; mistakes in them are added to `problems`."""
    train, validation = folder / TRAIN, folder / VALIDATION
    files = [train, *([validation] if validation.is_file() else [])]
    data = [_read_bytes(path) for path in files]
    rows = [
        list(_parse_rows(path, text, method, problems))
        for path, text in zip(files, data, strict=True)
    ]
    if len(rows[0]) < LEAST and not any(p.startswith(f"{train}:") for p in problems):
        problems.append(f"{train}: {len(rows[0])} rows; a service takes at least {LEAST}")
    training_lines = {line for line, _ in rows[0]}
    shared = sum(line in training_lines for line, _ in rows[1]) if len(rows) > 1 else 0
    if shared:
        problems.append(
            f"{validation}: {shared} of its rows stand in {TRAIN} too, so nothing would be"
            " validated by them"
        )
    tokens = sum(_count_tokens(row, count) for _, row in rows[0])
    return Part(
        culture,
        train,
        validation if len(rows) > 1 else None,
        len(rows[0]),
        len(rows[1]) if len(rows) > 1 else 0,
        tokens,
        hash_files(*data),
    )


def hash_files(*data: bytes) -> str:
    """Return the SHA-256 of files' contents, each with its length, as hex."""
    whole = hashlib.sha256()
    for part in data:
        whole.update(b"%d:" % len(part) + part)
    return whole.hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _parse_rows(
    path: Path, data: bytes, method: str, problems: list[str]
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield every valid row with its line; mistakes in the others are added to `problems`."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where, halves = f"{path}:{number}", Counter[str]()
        try:
            row = tables.parse_json(line, where, halves)
        except InputError as error:
            problems.append(str(error))
            continue
        why = explain_refusal(row, method)
        if halves:
            why = "it holds half a character, which a service would refuse"
        if why is None:
            yield line, row
        else:
            problems.append(f"{where}: {why}")


def explain_refusal(row: Any, method: str) -> str | None:
    """Return why a service would refuse a row; None if it would not."""
    keys = ROW[method]
    if not isinstance(row, Mapping):
        return "it is no JSON object"
    if odd := next((key for key in row if key not in keys), None):
        return f"the key {odd!r} has no place in it. {nearest(str(odd), keys)}"
    if lacking := next((key for key in keys if key not in row), None):
        return f"it has no {lacking!r}"
    if method == "sft":
        return _check_messages(row["messages"], "messages") or _check_assistant(row["messages"])
    prompt = row["input"].get("messages") if isinstance(row["input"], Mapping) else None
    return _check_messages(prompt, "input.messages") or next(
        filter(None, (_check_answer(row[key], key) for key in keys[1:])), None
    )


def _check_messages(messages: Any, at: str) -> str | None:
    if not isinstance(messages, list) or not messages:
        return f"{at} is no list of messages"
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, Mapping) else message
            return f"{at}[{i}] has the role {role!r}. {nearest(str(role), ROLES)}"
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            return f"{at}[{i}] says nothing"
        if odd := next((key for key in message if key not in MESSAGE), None):
            return f"{at}[{i}] has the key {odd!r}. {nearest(str(odd), MESSAGE)}"
        weight = message.get("weight", 0)
        if "weight" in message and (
            message["role"] != "assistant" or isinstance(weight, bool) or weight not in (0, 1)
        ):
            return (
                f"{at}[{i}] has the weight {weight!r}; it is 0 or 1, and of an assistant's message"
            )
    return None


def _check_assistant(messages: Sequence[Mapping[str, Any]]) -> str | None:
    if messages[-1]["role"] != "assistant":
        return f"the last message is the {messages[-1]['role']}'s, not the assistant's"
    has_lesson = any(m["role"] == "assistant" and m.get("weight", 1) for m in messages)
    if not has_lesson:
        return "no message of the assistant has the weight 1: there is nothing to learn"
    return None


def _check_answer(output: Any, at: str) -> str | None:
    if not isinstance(output, list) or len(output) != 1:
        return f"{at} is no list of one message"
    return _check_messages(output, at) or (
        f"{at}[0] is not the assistant's" if output[0]["role"] != "assistant" else None
    )


# --------------------------------------------------------------------- tokens


def load_counter(model: str) -> tuple[str, Callable[[str], int]]:
    """Return how a model's tokens are counted, in words, and the function that counts them:
    tiktoken's, else bytes/4.
    """
    about = f"counted as bytes/{BYTES}, about"
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model.removeprefix("ft:").partition(":")[0])
    except ImportError:
        return f"{about}: tiktoken is not installed", _estimate_tokens
    except KeyError:
        return f"{about}: tiktoken does not know {model!r}", _estimate_tokens
    encode = _load_vocabulary(name)
    if encode is None:
        return f"{about}: tiktoken's vocabulary {name} could not be fetched", _estimate_tokens
    return f"counted by tiktoken, {name}", lambda text: len(encode(text))


def _estimate_tokens(text: str) -> int:
    return max(1, len(text.encode()) // BYTES)


def _load_vocabulary(name: str) -> Callable[[str], list[int]] | None:
    """Return tiktoken's encoder, from litellm's copies if possible; None if its vocabulary cannot
    be fetched within SLOW seconds.
    """
    import os
    import threading
    from importlib.util import find_spec

    import tiktoken

    encoders: list[Callable[[str], list[int]]] = []

    def fetch() -> None:
        with suppress(Exception):
            encoders.append(tiktoken.get_encoding(name).encode_ordinary)

    variable, spec = "TIKTOKEN_CACHE_DIR", find_spec("litellm")
    origin = spec.origin if spec and spec.origin else ""
    place = Path(origin).parent / "litellm_core_utils" / "tokenizers"
    unset = variable not in os.environ and "DATA_GYM_CACHE_DIR" not in os.environ
    borrowed = bool(origin) and place.is_dir() and unset
    if borrowed:
        os.environ[variable] = str(place)
    try:
        # a daemon: behind a firewall it may never end
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(SLOW)
    finally:
        if borrowed:
            del os.environ[variable]
    return encoders[0] if encoders else None


def _count_tokens(row: Mapping[str, Any], count: Callable[[str], int]) -> int:
    """Return the tokens of a row; in a preference both answers count."""
    messages = row.get("messages") or [
        *row["input"]["messages"],
        *row["preferred_output"],
        *row["non_preferred_output"],
    ]
    return sum(count(message["content"]) + EXTRA for message in messages)
