"""A model's result on a benchmark, on disk: `evals/<benchmark>/<model>/{result.json,
attempts.jsonl}`, whole or not there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from culturepark.atomic import write_text
from culturepark.errors import InputError, ParkError
from culturepark.evaluation.kind import load_kind
from culturepark.evaluation.measure import Figure, Measure
from culturepark.evaluation.types import Attempt
from culturepark.records import Record, digest
from culturepark.toml import explain

FILE, OUTCOMES = "result.json", "outcomes.jsonl"
REASONS, REASON = 5, 200  # reasons that are told, and how many characters of one


class Result(Record):
    """What one model made of one benchmark.

    `model` is its name on tables, `models` what answered, by identity. `setup` says how it was
    asked (method, respondents, count, seeds, cultures, data, limit), `options` the benchmark's own
    settings. `counts` has the attempts by status, `reasons` why those hold no answer that do not,
    the most frequent first. `warning` says why the row is no model's, where it is not. `logs` are
    Inspect's, by file name in evals/logs. `hash` names all that determines it: another card, model
    or setup is another result.
    """

    benchmark: str
    title: str
    about: str
    source: str
    kind: str
    model: str
    models: tuple[str, ...]
    setup: dict[str, Any]
    options: dict[str, Any]
    counts: dict[str, int]
    reasons: dict[str, int] = Field(default_factory=dict)
    figures: tuple[Figure, ...]
    warning: str = ""
    logs: tuple[str, ...] = ()
    date: str = ""
    version: str = ""
    hash: str = ""

    def figure(self, name: str, culture: str = "", subset: str = "") -> Figure | None:
        """Return a figure; None where there is none of this name, culture and subset."""
        return next(
            (f for f in self.figures if (f.name, f.culture, f.subset) == (name, culture, subset)),
            None,
        )


def locate_result(evals: Path, benchmark: str, model: str) -> Path:
    """Return the folder of a result below a run's evals/; a model's name becomes a file name that
    no other one has.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[:60]
    return (
        evals
        / benchmark
        / (safe if safe == model else f"{safe or 'model'}-{digest(model, size=3)}")
    )


def write(folder: Path, result: Result, attempts: Iterable[Attempt]) -> None:
    """Write a result and its attempts; result.json is written last, so a folder that has one is
    whole.
    """
    try:
        (folder / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise ParkError(
            f"cannot write the result to {folder}: {error.strerror or error}"
        ) from error
    write_text(folder / OUTCOMES, "".join(o.model_dump_json() + "\n" for o in attempts))
    write_text(folder / FILE, result.model_dump_json(indent=1) + "\n")


def read(folder: Path) -> Result:
    """Read a result; InputError where there is none or it is damaged."""
    try:
        return Result.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no result at {folder}: {error.strerror or error}") from error
    except ValidationError as error:
        raise InputError(
            f"{folder / FILE} is no result ({explain(error, Result)[0]}); the same evaluate command"
            " makes it anew"
        ) from error


def load_attempts(folder: Path) -> list[Attempt]:
    """Read a result's attempts, in the order they were asked; InputError where they are damaged."""
    try:
        with (folder / OUTCOMES).open(encoding="utf-8") as file:
            return [Attempt.model_validate_json(line) for line in file]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"{folder / OUTCOMES} is damaged ({said}); the same evaluate command makes it anew"
        ) from error


def read_whole(folder: Path) -> Result | None:
    """Return the result in a folder; None where there is none, or where its files do not agree: it
    is made anew then.
    """
    try:
        made = read(folder)
        return made if count_statuses(load_attempts(folder)) == made.counts else None
    except InputError:
        return None


def find_results(run: Path) -> list[Path]:
    """Return the folders of all results of a run, by benchmark and model."""
    return sorted(p.parent for p in run.glob(f"evals/*/*/{FILE}"))


def measure(result: Result, held: Sequence[Attempt]) -> Sequence[Measure]:
    """Return the measures of a result's attempts."""
    return load_kind(result.kind).measure(held, result.options)


def count_statuses(held: Iterable[Attempt]) -> dict[str, int]:
    """Return how many attempts have each status, `ok` first."""
    made = Counter(o.status for o in held)
    return {s: made[s] for s in ("ok", *sorted(set(made) - {"ok"}))}


def count_reasons(held: Iterable[Attempt]) -> dict[str, int]:
    """Return the most frequent reasons why attempts hold no answer, each with its status, and how
    often.
    """
    made = Counter(
        f"{o.status}: {o.reason[:REASON] or 'no reason told'}" for o in held if o.status != "ok"
    )
    return dict(made.most_common(REASONS))
