"""Training files: what a fine-tuning service refuses in one, by line, and figures for it that are
made up, for nothing is trained.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from culturepark.serving.requests import ROLES
from culturepark.tables import safe_cell
from culturepark.testing.completions import count_prompt_tokens

LEAST = 10  # rows
TOLD = ("messages", "tools", "parallel_tool_calls", "functions")
SAID = (
    "role",
    "content",
    "name",
    "weight",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
)
PAIR = ("input", "preferred_output", "non_preferred_output")
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
MADE_UP = "made up: this server does not train"
POINTS = 1000  # rows of a result file, at most


class InvalidFile(Exception):
    """A training file that no job can be run on: code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class TrainingFile:
    """A sound file: its rows, and about how many tokens they hold."""

    rows: int
    tokens: int


def read_training_file(data: bytes, method: str, kind: str = "training") -> TrainingFile:
    """Read a training (or validation) file for `supervised` or `dpo`; InvalidFile names the first
    line that is wrong.
    """
    rows = tokens = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError):
            row = None
        why = "it is no JSON object" if not isinstance(row, dict) else find_mistake(row, method)
        if why is not None:
            message = (
                f"The job failed due to an invalid {kind} file. Invalid file format. Line {number}:"
                f" {why}."
            )
            raise InvalidFile(f"invalid_{kind}_file", message)
        rows, tokens = rows + 1, tokens + _count_row_tokens(row)
    least = LEAST if kind == "training" else 1
    if rows < least:
        raise InvalidFile(
            "invalid_n_examples",
            f"{kind.capitalize()} file has {rows} example(s), but must have at least {least} "
            "examples.",
        )
    return TrainingFile(rows, tokens)


def find_mistake(row: Mapping[str, Any], method: str) -> str | None:
    """Say what is wrong with a row; None for nothing."""
    if method != "dpo":
        return (
            _check_keys(row, "messages", TOLD)
            or _check_messages(row["messages"], "messages")
            or _check_taught(row["messages"])
        )
    if why := next(filter(None, (_check_keys(row, key, PAIR) for key in PAIR)), None):
        return why
    asked = row["input"]
    if not isinstance(asked, dict):
        return "'input' is no object"
    return (
        _check_keys(asked, "messages", TOLD, "input.")
        or _check_messages(asked["messages"], "input.messages")
        or _check_answer(row["preferred_output"], "preferred_output")
        or _check_answer(row["non_preferred_output"], "non_preferred_output")
    )


def _check_keys(
    row: Mapping[str, Any], needed: str, known: Sequence[str], at: str = ""
) -> str | None:
    if needed not in row:
        return f"missing key '{at}{needed}'"
    odd = next((key for key in row if key not in known), None)
    return f"unknown key '{at}{odd}'; there are: {', '.join(known)}" if odd is not None else None


def _check_messages(messages: Any, at: str) -> str | None:
    if not isinstance(messages, list) or not messages:
        return f"'{at}' is no array with at least one message"
    found = (_check_message(message, f"{at}[{i}]") for i, message in enumerate(messages))
    return next(filter(None, found), None)


def _check_message(message: Any, at: str) -> str | None:
    if not isinstance(message, dict):
        return f"'{at}' is no object"
    if message.get("role") not in ROLES:
        return f"'{at}.role' is {message.get('role')!r}; there are: {', '.join(ROLES)}"
    if odd := next((key for key in message if key not in SAID), None):
        return f"unknown key '{at}.{odd}'"
    assistant = message["role"] == "assistant"
    if not isinstance(message.get("content"), (str, list)) and not (
        assistant and message.get("tool_calls")
    ):
        return f"'{at}.content' is no text"
    weight = message.get("weight", 0)
    if "weight" in message and (not assistant or isinstance(weight, bool) or weight not in (0, 1)):
        return f"'{at}.weight' is {weight!r}; it is 0 or 1, and of an assistant's message"
    return None


def _check_taught(messages: Sequence[Mapping[str, Any]]) -> str | None:
    if messages[-1]["role"] != "assistant":
        return "the last message must be from the assistant"
    if not any(m["role"] == "assistant" and m.get("weight", 1) for m in messages):
        return "at least one message of the assistant must have weight 1"
    return None


def _check_answer(output: Any, at: str) -> str | None:
    if not isinstance(output, list) or len(output) != 1:
        return f"'{at}' is no array of one message"
    why = _check_message(output[0], f"{at}[0]")
    return why or (
        f"'{at}[0].role' must be 'assistant'" if output[0]["role"] != "assistant" else None
    )


def _count_row_tokens(row: Mapping[str, Any]) -> int:
    if "messages" in row:
        return count_prompt_tokens(row["messages"])
    return count_prompt_tokens(
        [*row["input"]["messages"], *row["preferred_output"], *row["non_preferred_output"]]
    )


# ------------------------------------------------------------- made-up figures


def invent_figures(step: int, steps: int, checked: bool) -> dict[str, float | None]:
    """Return the made-up figures of a step: losses that fall and accuracies that rise, alike for
    every job of its length.
    """
    loss = 0.6 + 1.4 * math.exp(-3 * step / steps)
    valid = loss + 0.15 if checked else None
    return {
        "train_loss": round(loss, 5),
        "train_accuracy": round(1 - loss / 4, 5),
        "valid_loss": None if valid is None else round(valid, 5),
        "valid_mean_token_accuracy": None if valid is None else round(1 - valid / 4, 5),
    }


def write_results(steps: int, checked: bool) -> bytes:
    """Return the result file of a job, CSV of COLUMNS, with made-up figures: at most POINTS steps,
    the last among them.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for step in spread_steps(steps, POINTS):
        found = invent_figures(step, steps, checked)
        table.writerow([step, *(safe_cell(found[column]) for column in COLUMNS[1:])])
    return text.getvalue().encode()


def spread_steps(steps: int, most: int) -> list[int]:
    """Return steps from the first to the last, at most so many, evenly spread."""
    count = min(steps, most)
    return [math.ceil(steps * (i + 1) / count) for i in range(count)]
