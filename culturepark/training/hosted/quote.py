"""What a hosted fine-tuning will send and about what it will cost, before anything leaves this
machine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from culturepark.errors import BudgetReached, InputError, nearest
from culturepark.records import digest
from culturepark.training.hosted.service import reach
from culturepark.training.hosted.uploads import Part, counter, parts

METHODS = {"sft": "supervised", "dpo": "dpo"}  # ours, and the protocol's
EPOCHS = 3
SUFFIX = 64  # characters of a name's suffix
WHOLE = ("n_epochs", "batch_size")
MILLION = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What will be asked of a service: a job a part. `counted` says how tokens were, `price` is USD
    per million of them.
    """

    folder: Path
    model: str
    base_url: str
    method: str
    hyperparameters: Mapping[str, float]
    seed: int | None
    suffix: str
    price: float | None
    counted: str
    parts: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are trained on, all passes together."""
        return sum(map(self.trained, self.parts))

    @property
    def usd(self) -> float | None:
        """What training costs, about; None where nobody told the price."""
        return None if self.price is None else self.tokens * self.price / MILLION

    def trained(self, part: Part) -> int:
        """Return the tokens that a job trains on, all passes together."""
        return part.tokens * int(self.hyperparameters["n_epochs"])

    def cost(self, part: Part) -> float | None:
        """Return what a job costs, about; None where nobody told the price."""
        return None if self.price is None else self.trained(part) * self.price / MILLION

    def named(self, part: Part) -> str:
        """Return the suffix of a tuned model's name."""
        return tidy("-".join(filter(None, (tidy(self.suffix), tidy(part.culture)))))

    def said(self, part: Part) -> dict[str, Any]:
        """Return all that determines a job."""
        return {
            "culture": part.culture,
            "corpus": part.hash,
            "model": self.model,
            "base_url": self.base_url,
            "method": self.method,
            "hyperparameters": dict(self.hyperparameters),
            "seed": self.seed,
            "suffix": self.named(part),
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
    """Return what tuning `model` (PROVIDER/NAME) on a folder of OpenAI's JSONL takes; nothing is
    sent.

    `FOLDER/CULTURE/train.jsonl` makes a job a culture, `FOLDER/train.jsonl` one; `validation.jsonl`
    goes with it. `lr` is the service's multiplier, `price` USD per million training tokens: without
    it the cost is unknown. InputError lists every row that a service would refuse; BudgetReached
    where the cost would pass `max_usd`.
    """
    if method not in METHODS:
        raise InputError(f"no method {method!r}. {nearest(method, METHODS)}")
    hyperparameters = _hyperparameters(method, epochs, batch_size, lr, beta)
    client, name = reach(model, base_url)
    counted, count = counter(name)
    folder = Path(corpus).expanduser()
    made = Plan(
        folder,
        model,
        client.base_url,
        method,
        hyperparameters,
        seed,
        suffix,
        _price(price),
        counted,
        parts(folder, method, count),
    )
    _afford(made, max_usd)
    return made


def _hyperparameters(
    method: str, epochs: int, batch_size: int | None, lr: float | None, beta: float | None
) -> dict[str, float]:
    given = {
        "n_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": lr,
        "beta": beta,
    }
    told = {name: value for name, value in given.items() if value is not None}
    for name, value in told.items():
        if not value > 0 or (name in WHOLE and value != int(value)):
            raise InputError(
                f"{name}: {value!r} is no {'whole ' if name in WHOLE else ''}number above 0"
            )
    if beta is not None and method != "dpo":
        raise InputError(f"beta: {beta} belongs to the method dpo, not to {method}")
    return {name: int(value) if name in WHOLE else value for name, value in told.items()}


def _price(price: float | None) -> float | None:
    if price is not None and not 0 <= price < float("inf"):
        raise InputError(f"price: {price!r} is no price, USD per million training tokens")
    return price


def _afford(made: Plan, max_usd: float | None) -> None:
    """Refuse what would pass the cap, and a cap that could not hold."""
    if max_usd is None:
        return
    if made.usd is None:
        raise InputError(
            "--max-usd needs the price of training, which is unknown: give --price, USD per million"
            " training tokens, as the service's price list has it"
        )
    if made.usd > max_usd:
        raise BudgetReached(
            f"training costs about {_usd(made.usd)} ({made.tokens:,} tokens at ${made.price:g} a"
            f" million), more than the cap of ${max_usd:g}; nothing was sent. A higher --max-usd,"
            " fewer --epochs or a smaller corpus goes on."
        )


# ---------------------------------------------------------------------- words


def tidy(text: str) -> str:
    """Return a text as a service takes it in a model's name: letters, digits and hyphens, at most
    64.

    >>> tidy("arabic (Jordan)"), tidy("português")
    ('arabic-Jordan', 'portugues')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    made = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")
    if text and (not made or len(made) > SUFFIX):
        made = f"{made[: SUFFIX - 9]}-{digest(text, size=4)}".strip("-")
    return made


def told(made: Plan) -> str:
    """Return a plan in words, the cost with it."""
    how = ", ".join(f"{name} {value:g}" for name, value in made.hyperparameters.items())
    jobs = f"{len(made.parts)} job{'s' if len(made.parts) > 1 else ''}"
    lines = [f"{made.model} at {made.base_url}: {jobs}, {METHODS[made.method]}, {how}"]
    for part in made.parts:
        checked = f" and {part.checked} to validate with" if part.checked else ""
        usd = made.cost(part)
        cost = "" if usd is None else f", about {_usd(usd)}"
        lines.append(
            f"  {part.culture}: {part.rows} rows{checked}, {made.trained(part):,} tokens{cost}"
        )
    known = None if made.usd is None else f"about {_usd(made.usd)} at ${made.price:g} a million"
    cost = known or "cost unknown: --price USD, of a million training tokens, tells"
    return "\n".join([*lines, f"in all {made.tokens:,} tokens, {cost} ({made.counted})"])


def _usd(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.2g}"


def figures(made: Plan) -> dict[str, Any]:
    """Return a plan for machines."""
    parts = [
        {
            "culture": p.culture,
            "rows": p.rows,
            "validation_rows": p.checked,
            "tokens": made.trained(p),
            "usd": made.cost(p),
            "corpus_hash": p.hash,
            "suffix": made.named(p),
        }
        for p in made.parts
    ]
    return {
        "corpus": str(made.folder),
        "model": made.model,
        "base_url": made.base_url,
        "method": made.method,
        "hyperparameters": dict(made.hyperparameters),
        "seed": made.seed,
        "tokens": made.tokens,
        "usd": made.usd,
        "price": made.price,
        "counted": made.counted,
        "jobs": parts,
    }
