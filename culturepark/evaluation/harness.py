"""Writes survey items as a task of EleutherAI's lm-evaluation-harness, so that a figure can be
checked by other code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from culturepark.errors import InputError, ParkError
from culturepark.evaluation.alignment import find_offered_options
from culturepark.evaluation.types import Item
from culturepark.records import Message

TASK = "culturepark_survey"
YAML = f"""\
# A model's distribution over the numbers of a survey question's options, held against what a people answered.
task: {TASK}
custom_dataset: !function metric.rows
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: choices
doc_to_target: 0  # of no use: no option is the right one
target_delimiter: ""
process_results: !function metric.alignment
metric_list:
  - metric: alignment
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""  # noqa: E501
METRIC = '''\
"""Rows and metric of the task: 1 - Jensen-Shannon distance (base 2) of a model's answers and a people's."""

import json
from math import exp, log2
from pathlib import Path


def rows(**_):
    """Return the items beside this file."""
    import datasets

    text = Path(__file__).with_name("items.jsonl").read_text(encoding="utf-8")
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in text.split("\\n") if line])}


def alignment(doc, results):
    """Return the figure of one item; `onto` says on which option each one counts."""
    logs = [log for log, _ in results]
    weights = [exp(log - max(logs)) for log in logs]
    model, people = [0.0] * len(weights), [0.0] * len(weights)
    for i, place in enumerate(doc["onto"]):
        model[place] += weights[i] / sum(weights)
        people[place] += doc["shares"][i]
    pairs = list(zip(model, people))
    bits = sum(x * log2(2 * x / (m + p)) for m, p in pairs for x in (m, p) if x > 0) / 2
    return {"alignment": 1 - max(bits, 0.0) ** 0.5}
'''  # noqa: E501


def write(folder: Path, items: Iterable[Item], text: Callable[[Sequence[Message]], str]) -> Path:
    """Write survey.yaml, metric.py and items.jsonl to a folder that need not be there; return it.
    Then, with that harness: `lm_eval --include_path FOLDER --tasks culturepark_survey --model hf
    --model_args pretrained=…`.

    `items` are those of the kinds survey or opinions, asked by number (method "sample"); each
    people's question is written once. Items without a people, and those with an option of two
    digits, whose first digit is another option, are left out. `text` renders messages as the model
    is to read them, its chat template included, since the harness adds nothing. InputError where
    nothing is left to write.
    """
    rows = {
        (i.culture, i.unit): _build_row(i, text)
        for i in items
        if i.gold is not None and all(0 <= c < 10 for c in i.facts["codes"])
    }
    if not rows:
        raise InputError(
            "none of these items has a people's shares and options of one digit; nothing was"
            " written"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "survey.yaml").write_text(YAML, encoding="utf-8")
        (folder / "metric.py").write_text(METRIC, encoding="utf-8")
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())
        (folder / "items.jsonl").write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise ParkError(f"cannot write the task to {folder}: {error.strerror or error}") from error
    return folder


def _build_row(item: Item, text: Callable[[Sequence[Message]], str]) -> dict[str, Any]:
    codes, places = item.facts["codes"], find_offered_options(item.gold, item.facts.get("n", 0))
    onto = [min(places, key=lambda place: (abs(place - i), place)) for i in range(len(codes))]
    return {
        "culture": item.culture,
        "question": item.unit,
        "prompt": text(item.request.messages),
        "choices": [str(c) for c in codes],
        "shares": list(item.gold),
        "onto": onto,
    }
