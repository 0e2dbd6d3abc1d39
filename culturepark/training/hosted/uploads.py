"""The files of hosted fine-tuning jobs: found, checked row by row as a service would, hashed, and
their tokens counted.
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

FOLDERS = {"sft": "openai", "dpo": "openai-dpo"}  # where a run's corpus has them, by method
TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
LEAST = 10  # rows that a service wants
BYTES = 4  # of a text for one token, about
EXTRA = 4  # tokens of a message besides its text
SHOWN = 20  # mistakes that are listed
SLOW = 15.0  # seconds that tiktoken may take to fetch its vocabulary
ROLES = ("system", "developer", "user", "assistant", "tool")
ROW = {"sft": ("messages",), "dpo": ("input", "preferred_output", "non_preferred_output")}
MESSAGE = ("role", "content", "name", "weight")


@dataclass(frozen=True)
class Part:
    """The files of one job: rows to train on and to validate with, tokens of one pass, and the hash
    of what they hold.
    """

    culture: str
    train: Path
    validation: Path | None
    rows: int
    checked: int
    tokens: int
    hash: str


def parts(folder: Path, method: str, count: Callable[[str], int]) -> tuple[Part, ...]:
    """Read the files of every job; InputError lists what is wrong with any of them."""
    found = layout(folder)
    if not found:
        there = sorted(p.name for p in folder.iterdir())[:10] if folder.is_dir() else []
        raise InputError(
            f"{folder}: no {TRAIN} in it, nor in a folder of it for each culture; "
            f"{'it holds ' + ', '.join(there) if there else 'there is nothing'}. "
            f"`culturepark export RUN --to {FOLDERS[method]} --by-culture` writes them."
        )
    problems: list[str] = []
    read = tuple(_part(culture, place, method, count, problems) for culture, place in found)
    if problems:
        more = f"\nand {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(
            "nothing was sent: a fine-tuning service would refuse these files\n"
            + "\n".join(problems[:SHOWN])
            + more
        )
    return read


def layout(folder: Path) -> list[tuple[str, Path]]:
    """Return the jobs of a folder: culture and where its files are.

    A folder that holds all rows together and the same rows by culture (`export --by-culture`) makes
    a job per culture. InputError where the two hold different rows.
    """
    cultures = (
        sorted(p for p in folder.glob("[!._]*") if (p / TRAIN).is_file()) if folder.is_dir() else []
    )
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


def _part(
    culture: str, folder: Path, method: str, count: Callable[[str], int], problems: list[str]
) -> Part:
    """Read the files of a job; what is wrong with them is added to `problems`."""
    train, validation = folder / TRAIN, folder / VALIDATION
    files = [train, *([validation] if validation.is_file() else [])]
    data = [_bytes(path) for path in files]
    rows = [
        list(_rows(path, text, method, problems)) for path, text in zip(files, data, strict=True)
    ]
    if len(rows[0]) < LEAST and not any(p.startswith(f"{train}:") for p in problems):
        problems.append(f"{train}: {len(rows[0])} rows; a service takes at least {LEAST}")
    seen = {line for line, _ in rows[0]}
    both = sum(line in seen for line, _ in rows[1]) if len(rows) > 1 else 0
    if both:
        problems.append(
            f"{validation}: {both} of its rows stand in {TRAIN} too, so nothing would be validated"
            " by them"
        )
    tokens = sum(_tokens(row, count) for _, row in rows[0])
    return Part(
        culture,
        train,
        validation if len(rows) > 1 else None,
        len(rows[0]),
        len(rows[1]) if len(rows) > 1 else 0,
        tokens,
        hashed(*data),
    )


def hashed(*data: bytes) -> str:
    """Return the SHA-256 of files' contents, each with its length, as hex."""
    whole = hashlib.sha256()
    for part in data:
        whole.update(b"%d:" % len(part) + part)
    return whole.hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _rows(
    path: Path, data: bytes, method: str, problems: list[str]
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield every sound row with its line; what is wrong with the others is added to `problems`."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where, halves = f"{path}:{number}", Counter[str]()
        try:
            row = tables.parse_json(line, where, halves)
        except InputError as error:
            problems.append(str(error))
            continue
        why = (
            "it holds half a character, which a service would refuse"
            if halves
            else wrong(row, method)
        )
        if why is None:
            yield line, row
        else:
            problems.append(f"{where}: {why}")


def wrong(row: Any, method: str) -> str | None:
    """Say why a service would refuse a row; None where it would not."""
    known = ROW[method]
    if not isinstance(row, Mapping):
        return "it is no JSON object"
    if odd := next((key for key in row if key not in known), None):
        return f"the key {odd!r} has no place in it. {nearest(str(odd), known)}"
    if lacking := next((key for key in known if key not in row), None):
        return f"it has no {lacking!r}"
    if method == "sft":
        return _spoken(row["messages"], "messages") or _taught(row["messages"])
    asked = row["input"].get("messages") if isinstance(row["input"], Mapping) else None
    return _spoken(asked, "input.messages") or next(
        filter(None, (_answer(row[key], key) for key in known[1:])), None
    )


def _spoken(messages: Any, at: str) -> str | None:
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


def _taught(messages: Sequence[Mapping[str, Any]]) -> str | None:
    if messages[-1]["role"] != "assistant":
        return f"the last message is the {messages[-1]['role']}'s, not the assistant's"
    taught = any(m["role"] == "assistant" and m.get("weight", 1) for m in messages)
    return (
        None
        if taught
        else "no message of the assistant has the weight 1: there is nothing to learn"
    )


def _answer(output: Any, at: str) -> str | None:
    if not isinstance(output, list) or len(output) != 1:
        return f"{at} is no list of one message"
    return _spoken(output, at) or (
        f"{at}[0] is not the assistant's" if output[0]["role"] != "assistant" else None
    )


# --------------------------------------------------------------------- tokens


def counter(model: str) -> tuple[str, Callable[[str], int]]:
    """Return how a model's tokens are counted, in words, and a function that does it: tiktoken's,
    else bytes/4.
    """
    about = f"counted as bytes/{BYTES}, about"
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model.removeprefix("ft:").partition(":")[0])
    except ImportError:
        return f"{about}: tiktoken is not installed", _fourth
    except KeyError:
        return f"{about}: tiktoken does not know {model!r}", _fourth
    encode = _vocabulary(name)
    if encode is None:
        return f"{about}: tiktoken's vocabulary {name} could not be fetched", _fourth
    return f"counted by tiktoken, {name}", lambda text: len(encode(text))


def _fourth(text: str) -> int:
    return max(1, len(text.encode()) // BYTES)


def _vocabulary(name: str) -> Callable[[str], list[int]] | None:
    """Return tiktoken's encoder; None where its vocabulary cannot be had soon. litellm brings those
    that matter along.
    """
    import os
    import threading
    from importlib.util import find_spec

    import tiktoken

    found: list[Callable[[str], list[int]]] = []

    def fetch() -> None:
        with suppress(Exception):
            found.append(tiktoken.get_encoding(name).encode_ordinary)

    own, spec = "TIKTOKEN_CACHE_DIR", find_spec("litellm")
    place = (
        Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
        if spec and spec.origin
        else None
    )
    lent = (
        place is not None
        and place.is_dir()
        and own not in os.environ
        and "DATA_GYM_CACHE_DIR" not in os.environ
    )
    if lent:
        os.environ[own] = str(place)
    try:
        thread = threading.Thread(
            target=fetch, daemon=True
        )  # a firewall may leave it waiting: nobody waits for it
        thread.start()
        thread.join(SLOW)
    finally:
        if lent:
            del os.environ[own]
    return found[0] if found else None


def _tokens(row: Mapping[str, Any], count: Callable[[str], int]) -> int:
    """Return the tokens of a row; of a preference both answers count."""
    messages = row.get("messages") or [
        *row["input"]["messages"],
        *row["preferred_output"],
        *row["non_preferred_output"],
    ]
    return sum(count(message["content"]) + EXTRA for message in messages)
