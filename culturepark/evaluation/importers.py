"""Turns files of other benchmarks' own shapes into rows of questions: `python -m
culturepark.evaluation.importers SHAPE FILE`.

    safeworld   SafeWorld's type1.json to type4.json (Yin et al. 2024, arXiv 2412.06483), trailing
                commas and cut records included
    blend       BLEnD's annotations, COUNTRY_data.json, or its multiple-choice CSV (Myung et al.
                2024, arXiv 2406.09948)

It prints JSON Lines with `id`, `question`, `reference`, `country`, `topic` and, of choices,
`options`: what `kind = "answers"` reads. What had to be left out is counted on standard error.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from culturepark import tables
from culturepark.errors import InputError, ParkError, nearest
from culturepark.tables import lines

CUT = "records that are cut or no JSON, left out"
GUIDELINES = (
    "violated_specific_norm",
    "violated_specific_policy",
    "specific_norm",
    "specific_policy",
)
ASKS = "Without any explanation"  # how BLEnD's multiple-choice prompts go on after the question
HOW = "python -m culturepark.evaluation.importers {shape} {path} > items.jsonl"


def convert(shape: str, path: Path) -> tuple[list[dict[str, Any]], Mapping[str, int]]:
    """Return a file's questions as rows, and how often each thing was left out; InputError for a
    file of another shape.
    """
    notices: Counter[str] = Counter()
    if shape not in SHAPES:
        raise InputError(f"no shape {shape!r}. {nearest(shape, SHAPES)}")
    rows = list(SHAPES[shape](path, notices))
    if not rows:
        raise InputError(f"{path}: no question of the shape {shape}")
    return rows, +notices


def hint(path: Path) -> str:
    """Return how to convert a file that looks like one of another shape; empty for any other."""
    try:
        head = "".join(
            line
            for _, line in zip(
                range(40), (text for _, text in lines.read_lines(path)), strict=False
            )
        )
    except InputError:
        return ""
    shape = (
        "safeworld"
        if '"query"' in head and ('_norm"' in head or '_policy"' in head or '"country"' in head)
        else ""
    )
    shape = "blend" if '"en_question"' in head or head.startswith("MCQID") else shape
    return (
        f" It looks like a file of {shape}; this converts it: {HOW.format(shape=shape, path=path)}"
        if shape
        else ""
    )


# --------------------------------------------------------------- SafeWorld


def _safeworld(path: Path, notices: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the queries of a file, its records read one by one; `reference` holds the guidelines,
    none in type 3.
    """
    for line, text in _records(path):
        try:
            record = tables.parse_json(text, f"{path}:{line}", notices)
        except InputError:
            notices[CUT] += 1
            continue
        if isinstance(record.get("query"), str) and record["query"].strip():
            yield _query(record, f"{tables.stem_of(path)}-{line}", path)
        else:
            notices["records without a query, left out"] += 1


def _query(record: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    country = str(record.get("country") or "").replace("_", " ")
    guidelines = [record[key] for key in GUIDELINES if record.get(key)]
    flat = [str(g) for held in guidelines for g in (held if isinstance(held, list) else [held])]
    return {
        "id": name,
        "question": record["query"],
        "reference": flat,
        "country": country,
        "topic": tables.stem_of(path),
        "subject": record.get("topic") or "",
    }


def _records(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each record's line and text, without the comma before its closing bracket; one begins
    on a line of { alone.
    """
    begun, held = 0, list[str]()
    for number, line in lines.read_lines(path):
        if line.strip() == "{":
            if held:
                yield begun, _close_record(held)
            begun, held = number, []
        if begun:
            held.append(line)
    if held:
        yield begun, _close_record(held)


def _close_record(held: Sequence[str]) -> str:
    text = "".join(held).strip().removesuffix("]").strip().removesuffix(",").strip()
    return text.removesuffix("}").rstrip().removesuffix(",") + "}"


# ------------------------------------------------------------------- BLEnD


def _blend(path: Path, notices: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield short questions with every answer that annotators gave, or choices with the right
    one.
    """
    if tables.kind_of(path) in tables.TABLES:
        yield from _choices(path, notices)
        return
    held = tables.parse_json(
        "".join(line for _, line in lines.read_lines(path, notices=notices)), str(path), notices
    )
    if not isinstance(held, dict):
        raise InputError(f"{path}: an object of questions by their id, as in COUNTRY_data.json")
    country = tables.stem_of(path).removesuffix("_data").replace("_", " ")
    for name, entry in held.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str):
            raise InputError(f"{path}: {name}: no question with its annotations")
        answers = list(dict.fromkeys(_answers(entry.get("annotations"), f"{path}: {name}")))
        notices["questions that nobody answered, without a reference"] += not answers
        yield {
            "id": name,
            "question": entry["question"],
            "reference": answers,
            "country": country,
            "topic": "short answer",
            "english": entry.get("en_question") or "",
        }


def _answers(annotations: Any, where: str) -> Iterator[str]:
    """Yield the answers that annotators gave, in the people's language and in English."""
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise InputError(f"{where}: annotations: a list of objects with answers")
    for one in annotations:
        for key in ("answers", "en_answers"):
            held = one.get(key)
            yield from (
                str(answer).strip()
                for answer in (held if isinstance(held, list) else [])
                if str(answer).strip()
            )


def _choices(path: Path, notices: Counter[str]) -> Iterator[dict[str, Any]]:
    table = tables.read(path)
    notices.update(table.notices)
    for line, row in table.rows:
        where = f"{path}:{line}"
        if lacking := [
            key for key in ("MCQID", "country", "prompt", "choices", "answer_idx") if key not in row
        ]:
            raise InputError(f"{where}: no column {lacking[0]!r}. {nearest(lacking[0], row)}")
        choices = tables.parse_json(row["choices"], f"{where}: choices", notices)
        if not isinstance(choices, dict) or row["answer_idx"].strip() not in choices:
            raise InputError(f"{where}: answer_idx {row['answer_idx']!r} is none of the choices")
        yield {
            "id": row["MCQID"],
            "question": row["prompt"].partition(ASKS)[0].strip(),
            "options": list(map(str, choices.values())),
            "reference": str(choices[row["answer_idx"].strip()]),
            "country": row["country"],
            "topic": "choice",
        }


SHAPES = {"safeworld": _safeworld, "blend": _blend}


def main(arguments: Iterable[str]) -> int:
    """Print a file's rows as JSON Lines, and on standard error what was left out; return the exit
    code.
    """
    given = list(arguments)
    if len(given) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        rows, notices = convert(given[0], Path(given[1]).expanduser())
    except ParkError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.buffer.write(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    )
    told = "".join(f"; {what}: {n:,}" for what, n in notices.items())
    sys.stderr.write(f"{len(rows):,} questions{told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
