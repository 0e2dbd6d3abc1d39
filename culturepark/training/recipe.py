"""The recipe of a tuning job, its presets, and its file tune.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import AfterValidator, Field, ValidationError, model_validator

from culturepark.atomic import write_text
from culturepark.errors import CardError, InputError, nearest
from culturepark.options import comment_toml, setting
from culturepark.records import Record
from culturepark.toml import explain, misread, read_toml
from culturepark.training.objective import load_objective

# the factor on the step sizes for the offline base, which is small (4e-3 by default for SFT)
TINY = 20


def _check_objective(name: str) -> str:
    try:
        load_objective(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    return name


class Recipe(Record):
    """Everything that determines a tuning job but its data."""

    objective: Annotated[str, AfterValidator(_check_objective)] = setting(
        "sft", "What is learnt from a row, by name or package.module:NAME.", hidden=True
    )
    base: str = setting(
        ..., "A folder, a hub name, or tiny (built here, no download).", "-b", metavar="MODEL"
    )
    method: Literal["lora", "qlora", "full"] = setting(
        "lora",
        "Adapters (Hu et al. 2022, arXiv 2106.09685), adapters over a base in 4 bits (Dettmers et"
        " al. 2023, arXiv 2305.14314), or whole models.",
    )
    rank: Annotated[int, Field(gt=0, le=1024)] = setting(16, "Rank of the adapters.", metavar="N")
    alpha: Annotated[float, Field(gt=0)] = setting(32, "Scale of the adapters.", metavar="X")
    dropout: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, "Dropout of the adapters.", metavar="X"
    )
    lr: Annotated[float, Field(gt=0)] | None = setting(
        None, "Largest step size (default: by objective and method).", metavar="X"
    )
    epochs: Annotated[float, Field(gt=0)] = setting(3.0, "Passes over the rows.", metavar="N")
    steps: Annotated[int, Field(gt=0)] | None = setting(
        None, "Stop after so many steps instead.", metavar="N"
    )
    batch: Annotated[int, Field(gt=0)] | None = setting(
        None, "Rows of one forward pass (default: by memory).", metavar="N", changes="handling"
    )
    rows: Annotated[int, Field(gt=0)] = setting(16, "Rows of one step, accumulated.", metavar="N")
    length: Annotated[int, Field(ge=16)] = setting(
        1024, "Most tokens of a row; a longer one is an error.", metavar="N"
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.1, "Share of the steps in which the step size grows.", metavar="X"
    )
    decay: Annotated[float, Field(ge=0)] = setting(0.0, "Weight decay.", metavar="X")
    packing: bool | None = setting(None, "Several rows in one (default: only with FlashAttention).")
    patience: Annotated[int, Field(ge=0)] = setting(
        2, "Stop after N checks of the validation split without progress; 0: never.", metavar="N"
    )
    checks: Annotated[int, Field(gt=0)] = setting(
        1, "Checks and checkpoints per epoch.", metavar="N"
    )
    pooled: bool = setting(False, "One model of all cultures instead of one each.")
    cultures: tuple[str, ...] = setting(
        (),
        "Only these (default: all in the corpus).",
        "-c",
        metavar="A,B",
        changes="handling",
    )
    answers: Literal["opinions", "modal"] = setting(
        "opinions", "Learn the corpus' opinions, or the majority's answer alone."
    )
    beta: Annotated[float, Field(gt=0)] = setting(0.1, "The loss' own.", metavar="X")
    weight: Annotated[float, Field(ge=0, le=1)] = setting(
        0.5, "Share of the distribution loss, 0 to 1.", metavar="X"
    )
    seed: int = setting(0, "Seed of everything random.", metavar="N")
    device: str | None = setting(
        None,
        "Where it is done (default: the fastest there is).",
        metavar="cuda|mps|cpu",
        changes="handling",
    )
    dtype: str | None = setting(
        None,
        "Numbers to compute with (default: the device's).",
        metavar="bfloat16|float16|float32",
    )
    attention: str | None = setting(
        None,
        "How attention is computed (default: the fastest there is).",
        metavar="flash_attention_2|sdpa|eager",
        changes="handling",
    )
    track: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = setting(
        (),
        "Send curves there too.",
        metavar="tensorboard|wandb|trackio",
        changes="handling",
    )

    @model_validator(mode="after")
    def _check_rows(self) -> Recipe:
        if self.batch is not None and self.rows % self.batch:
            raise ValueError(f"rows: {self.rows} per step is no multiple of batch {self.batch}")
        if self.answers == "modal" and "answers" not in load_objective(self.objective).options:
            raise ValueError("answers: only sft can learn the majority's answer alone")
        return self

    @property
    def rate(self) -> float:
        """The largest step size."""
        if self.lr is not None:
            return self.lr
        rates = load_objective(self.objective).rates
        return rates[self.method == "full"] * (TINY if self.base == "tiny" else 1)

    @property
    def reads(self) -> str:
        """The export format that it learns from."""
        return "shares" if self.answers == "modal" else load_objective(self.objective).reads


PRESETS: dict[str, dict[str, Any]] = {
    # Li et al. 2024 (arXiv 2405.15145), Llama-2-70B: nf4, r 64, alpha 16, dropout 0.1, 2e-4, 6
    # epochs, batch 4.
    "culturepark-llama": {
        "objective": "sft",
        "base": "meta-llama/Llama-2-70b-hf",
        "method": "qlora",
        "rank": 64,
        "alpha": 16,
        "dropout": 0.1,
        "lr": 2e-4,
        "epochs": 6,
        "rows": 4,
        "patience": 0,
    },
    # Yin et al. 2024 (arXiv 2412.06483) name base and objective; step size, beta and epochs are
    # those of the recipe for DPO of the base's own authors (Tunstall et al. 2023, arXiv
    # 2310.16944).
    "safeworld-dpo": {
        "objective": "dpo",
        "base": "alignment-handbook/zephyr-7b-sft-full",
        "method": "full",
        "lr": 5e-7,
        "beta": 0.1,
        "epochs": 1,
        "rows": 32,
        "patience": 0,
    },
}


def build_recipe(
    fields: Mapping[str, Any], preset: str | None = None, where: str = "recipe"
) -> Recipe:
    """Return the recipe of a preset, with `fields` replacing its own.

    Raises CardError with every mistake, InputError for an unknown preset.
    """
    if preset is not None and preset not in PRESETS:
        raise InputError(f"no preset {preset!r} for tuning. {nearest(preset, (*PRESETS, 'scpo'))}")
    data = {
        **(PRESETS[preset] if preset else {}),
        **{k: v for k, v in fields.items() if v is not None},
    }
    if preset and data["objective"] != PRESETS[preset]["objective"]:
        raise InputError(
            f"preset {preset} is for `tune {PRESETS[preset]['objective']}`, not `tune"
            f" {data['objective']}`"
        )
    if "base" not in data:
        raise InputError(
            "which base? Give --base with a folder, a hub name, or `tiny` (built here, no"
            " download), or a --preset"
        )
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise CardError([f"{where}: {line}" for line in explain(error, Recipe)]) from error
    if odd := [f"{where}: {line}" for line in misread(data, recipe)]:
        raise CardError(odd)
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Read the recipe of a job."""
    return build_recipe(read_toml(path), where=str(path))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as TOML, whole or not at all."""
    text = tomlkit.dumps(recipe.model_dump(mode="json", exclude_none=True))
    write_text(path, comment_toml(text, Recipe))
