"""What a run is told to do: its frozen settings, as kept in run.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import Field, ValidationError, model_validator

from culturepark.errors import CardError, InputError
from culturepark.records import Name, Record
from culturepark.workspace import explain


class Refining(Record):
    """How opinions are filtered."""

    sieves: tuple[str, ...] = ("refusal", "form", "anchors", "repeat")
    embedder: str = "hashing"
    clusters: Annotated[int, Field(ge=1)] = 10
    rewrites: Annotated[int, Field(ge=0, le=5)] = 1


class Split(Record):
    """Shares of the seed questions that go to validation and test; the rest trains."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _leave_training(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave no question to train on")
        return self


class Settings(Record):
    """Everything that determines a run, save the cards; with the cards it determines every dialogue.

    `dialogues` counts dialogues a culture; `samples`, if set, asks for that many accepted samples a culture instead.
    `stance`: `persona` (the card's view, else drawn from the people's shares), `modal` (as in the paper) or `shares`
    (always drawn from the shares).
    """

    cultures: tuple[str, ...] = ()
    contact: str = "english-us"
    personas: tuple[str, ...] = ()
    scenario: Name = "world_values"
    questions: tuple[str, ...] = ()
    survey: str | None = None
    dialogues: Annotated[int, Field(gt=0)] = 10
    samples: Annotated[int, Field(gt=0)] | None = None
    turns: Annotated[int, Field(gt=0, le=400)] = 14
    modes: Annotated[tuple[Literal["cross", "in"], ...], Field(min_length=1)] = ("cross", "in")
    styles: Annotated[tuple[Literal["guided", "free"], ...], Field(min_length=1)] = ("guided", "free")
    stance: Literal["persona", "modal", "shares"] = "persona"
    seed: int = 0
    model: str = "embedded"
    base_url: str | None = None
    concurrency: Annotated[int, Field(gt=0, le=10_000)] = 200
    faults: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    refine: Refining = Refining()
    split: Split = Split()


def build(data: dict[str, Any], where: str = "settings") -> Settings:
    """Validate settings; CardError names every wrong key with the nearest right one."""
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise CardError([f"{where}: {line}" for line in explain(error, Settings)]) from error


def read(path: Path) -> Settings:
    """Read settings from a TOML file."""
    try:
        return build(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as settings: {error}") from error


def write(settings: Settings, path: Path) -> None:
    """Write settings as TOML, whole or not at all."""
    text = tomlkit.dumps(settings.model_dump(mode="json", exclude_none=True))
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
