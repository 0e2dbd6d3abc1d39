"""The plan of a hosted fine-tuning: what will be sent and about what it will cost."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from culturepark.errors import BudgetReached, InputError, nearest
from culturepark.records import digest
from culturepark.training.hosted.service import load_client
from culturepark.training.hosted.uploads import Part, load_counter, read_parts

METHODS = {"sft": "supervised", "dpo": "dpo"}  # ours, and the protocol's
EPOCHS = 3
SUFFIX = 64  # characters of a name's suffix
WHOLE = ("n_epochs", "batch_size")
MILLION = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What will be requested of a service, one job per part.

    `counting` says how tokens were counted, `price` is USD per million of them.
    """

    folder: Path
    model: str
    base_url: str
    method: str
    hyperparameters: Mapping[str, float]
    seed: int | None
    suffix: str
    price: float | None
    counting: str
    parts: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        """Tokens to train on, all epochs together."""
        return sum(map(self.count_trained_tokens, self.parts))

    @property
    def usd(self) -> float | None:
        """About what training costs, in USD; None if the price is unknown."""
        return None if self.price is None else self.tokens * self.price / MILLION

    def count_trained_tokens(self, part: Part) -> int:
        """Return the tokens that a job trains on, all epochs together."""
        return part.tokens * int(self.hyperparameters["n_epochs"])

    def estimate_usd(self, part: Part) -> float | None:
        """Return about what a job costs, in USD; None if the price is unknown."""
        return (
            None if self.price is None else self.count_trained_tokens(part) * self.price / MILLION
        )

    def build_suffix(self, part: Part) -> str:
        """Return the suffix of the tuned model's name."""
        return clean_name(
            "-".join(filter(None, (clean_name(self.suffix), clean_name(part.culture))))
        )

    def build_settings(self, part: Part) -> dict[str, Any]:
        """Return everything that determines a job."""
        return {
            "culture": part.culture,
            "corpus": part.hash,
            "model": self.model,
            "base_url": self.base_url,
            "method": self.method,
            "hyperparameters": dict(self.hyperparameters),
            "seed": self.seed,
            "suffix": self.build_suffix(part),
        }


def plan(
    corpus: str | Path,
    model: str,
    *,
    method: str = "sft",
    epochs: int = EPOCHS,
    batch_size: int | None = None,
    lr: float | None = None,
    beta: float | None = None,
    seed: int | None = None,
    suffix: str = "culturepark",
    price: float | None = None,
    max_usd: float | None = None,
    base_url: str | None = None,
) -> Plan:
    """Return the plan of tuning `model` (PROVIDER/NAME) on a folder of OpenAI's JSONL; nothing is
    sent.

    `FOLDER/CULTURE/train.jsonl` makes one job per culture, `FOLDER/train.jsonl` one in all;
    `validation.jsonl` beside it is used too. `lr` is the service's multiplier, `price` USD per
    million training tokens: without it the cost is unknown. Raises InputError with every row that a
    service would refuse, BudgetReached if the cost would exceed `max_usd`.
    """
    if method not in METHODS:
        raise InputError(f"no method {method!r}. {nearest(method, METHODS)}")
    hyperparameters = _build_hyperparameters(method, epochs, batch_size, lr, beta)
    client, name = load_client(model, base_url)
    counting, count = load_counter(name)
    folder = Path(corpus).expanduser()
    quote = Plan(
        folder,
        model,
        client.base_url,
        method,
        hyperparameters,
        seed,
        suffix,
        _check_price(price),
        counting,
        read_parts(folder, method, count),
    )
    _check_budget(quote, max_usd)
    return quote


def _build_hyperparameters(
    method: str, epochs: int, batch_size: int | None, lr: float | None, beta: float | None
) -> dict[str, float]:
    values = {
        "n_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": lr,
        "beta": beta,
    }
    chosen = {name: value for name, value in values.items() if value is not None}
    for name, value in chosen.items():
        if not value > 0 or (name in WHOLE and value != int(value)):
            raise InputError(
                f"{name}: {value!r} is no {'whole ' if name in WHOLE else ''}number above 0"
            )
    if beta is not None and method != "dpo":
        raise InputError(f"beta: {beta} belongs to the method dpo, not to {method}")
    return {name: int(value) if name in WHOLE else value for name, value in chosen.items()}


def _check_price(price: float | None) -> float | None:
    if price is not None and not 0 <= price < float("inf"):
        raise InputError(f"price: {price!r} is no price, USD per million training tokens")
    return price


def _check_budget(plan: Plan, max_usd: float | None) -> None:
    """Raise BudgetReached for a cost above the limit, InputError for a limit without a price."""
    if max_usd is None:
        return
    if plan.usd is None:
        raise InputError(
            "--max-usd needs the price of training, which is unknown: give --price, USD per million"
            " training tokens, as the service's price list has it"
        )
    if plan.usd > max_usd:
        raise BudgetReached(
            f"training costs about {_format_usd(plan.usd)} ({plan.tokens:,} tokens at"
            f" ${plan.price:g} per million), more than the limit of ${max_usd:g}; nothing was sent."
            " Raise --max-usd, lower --epochs or take a smaller corpus."
        )


# ---------------------------------------------------------------------- words


def clean_name(text: str) -> str:
    """Return a text as it may stand in a model's name: letters, digits and hyphens, at most 64.

    >>> clean_name("arabic (Jordan)"), clean_name("português")
    ('arabic-Jordan', 'portugues')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")
    if text and (not name or len(name) > SUFFIX):
        name = f"{name[: SUFFIX - 9]}-{digest(text, size=4)}".strip("-")
    return name


def format_plan(plan: Plan) -> str:
    """Return a plan and its cost as text."""
    how = ", ".join(f"{name} {value:g}" for name, value in plan.hyperparameters.items())
    jobs = f"{len(plan.parts)} job{'s' if len(plan.parts) > 1 else ''}"
    lines = [f"{plan.model} at {plan.base_url}: {jobs}, {METHODS[plan.method]}, {how}"]
    for part in plan.parts:
        validation = f" and {part.validation_rows} to validate with" if part.validation_rows else ""
        usd = plan.estimate_usd(part)
        cost = "" if usd is None else f", about {_format_usd(usd)}"
        tokens = plan.count_trained_tokens(part)
        lines.append(f"  {part.culture}: {part.rows} rows{validation}, {tokens:,} tokens{cost}")
    cost = "cost unknown: give --price, USD per million training tokens"
    if plan.usd is not None:
        cost = f"about {_format_usd(plan.usd)} at ${plan.price:g} per million"
    return "\n".join([*lines, f"in all {plan.tokens:,} tokens, {cost} ({plan.counting})"])


def _format_usd(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.2g}"


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON-able data."""
    parts = [
        {
            "culture": p.culture,
            "rows": p.rows,
            "validation_rows": p.validation_rows,
            "tokens": plan.count_trained_tokens(p),
            "usd": plan.estimate_usd(p),
            "corpus_hash": p.hash,
            "suffix": plan.build_suffix(p),
        }
        for p in plan.parts
    ]
    return {
        "corpus": str(plan.folder),
        "model": plan.model,
        "base_url": plan.base_url,
        "method": plan.method,
        "hyperparameters": dict(plan.hyperparameters),
        "seed": plan.seed,
        "tokens": plan.tokens,
        "usd": plan.usd,
        "price": plan.price,
        "counted": plan.counting,
        "jobs": parts,
    }
