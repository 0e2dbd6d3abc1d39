"""A benchmark is one file: what is asked, with which prompt, how answers are read, and how they are
scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from culturepark.errors import CardError, InputError, NotFound, nearest
from culturepark.evaluation.kind import load_kind
from culturepark.evaluation.types import Benchmark
from culturepark.toml import explain, misread, read_toml

TAKEN = ("board", "logs")  # folders of a run's evals/ that are no benchmark's
SUFFIX = ".toml"


# What an option may be, by its default.
TYPES: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    dict: (dict,),
    tuple: (tuple, list, str),
}


def list_shipped() -> dict[str, Path]:
    """Return the benchmarks that come with the package, by name."""
    folder = Path(str(files("culturepark.evaluation").joinpath("cards")))
    return {p.stem: p for p in sorted(folder.glob(f"*{SUFFIX}"))}


def load(name: str | Path, *, code: bool = False) -> Benchmark:
    """Return the benchmark of this name, or in this file; CardError names every mistake in it,
    NotFound the nearest name.

    A file may come from anywhere, so one that names Python code (`package.module:name`) is refused
    unless `code` is allowed.
    """
    path = Path(name).expanduser()
    known = list_shipped()
    if str(name) in known:
        path = known[str(name)]
    elif path.suffix != SUFFIX:
        raise NotFound(
            "benchmark",
            str(name),
            "culturepark/evaluation/cards (or write the path of a .toml file)",
            known,
        )
    elif not path.is_file():
        raise InputError(f"no benchmark at {path}")
    data = read_toml(path)
    try:
        card = Benchmark.model_validate(data)
    except ValidationError as error:
        raise CardError([f"{path}: {line}" for line in explain(error, Benchmark)]) from error
    if odd := [f"{path}: {line}" for line in misread(data, card)]:
        raise CardError(odd)
    if card.name in TAKEN:
        raise CardError(
            [f"{path}: name: {card.name!r} is a folder of every run's evaluations; choose another"]
        )
    check_code_allowed((card.kind, card.parser, card.score), str(path), code=code)
    kind = load_kind(card.kind, str(path))
    if odd := sorted(set(card.options) - set(kind.options)):
        raise CardError([f"{path}: options.{odd[0]}: unknown. {nearest(odd[0], kind.options)}"])
    return card.model_copy(update={"home": path.parent})


def check_code_allowed(names: Iterable[str], where: str, *, code: bool) -> None:
    """Raise InputError for names of Python code where no code is allowed."""
    named = [name for name in names if ":" in name]
    if named and not code:
        raise InputError(
            f"{where} names Python code that would be run: {', '.join(named)}. If you trust it:"
            " --allow-code (code=True)"
        )


def resolve_options(card: Benchmark, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kind's options: its defaults, the card's above them, what was given on top;
    InputError for one there is not.
    """
    known = load_kind(card.kind).options
    for name in given:
        if name not in known:
            raise InputError(
                f"benchmark {card.name!r} has no option {name!r}. {nearest(name, known)}"
            )
    made = {**known, **card.options, **given}
    for name, default in known.items():
        wanted = TYPES.get(type(default), (object,))
        if not isinstance(made[name], wanted) or (
            isinstance(made[name], bool) and bool not in wanted
        ):
            said = {
                "bool": "true or false",
                "int": "a whole number",
                "float": "a number",
                "str": "a text",
                "dict": "a table",
            }
            raise InputError(
                f"benchmark {card.name!r}: option {name} = {made[name]!r}: it is"
                f" {said.get(type(default).__name__, 'a list')}"
            )
    return made
