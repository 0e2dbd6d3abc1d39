"""What a model's tokens cost: as the settings say, else as litellm's price list has it, else
unknown and never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from culturepark.settings import Endpoint

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """USD per million tokens of prompts, of answers, and of prompts that the provider had cached;
    `source` says whose figures.
    """

    prompt: float
    completion: float
    cached: float
    source: str

    def compute(self, prompt: int, completion: int, cached: int = 0) -> float:
        """Return what so many tokens cost, in USD."""
        cached = min(cached, prompt)
        return (
            (prompt - cached) * self.prompt + cached * self.cached + completion * self.completion
        ) / MILLION

    def compute_most(self, prompt: int, completion: int) -> float:
        """Return what they cost where nothing was cached, or caching costs more than it saves."""
        return (prompt * max(self.prompt, self.cached) + completion * self.completion) / MILLION

    def discount(self, factor: float) -> Price:
        """Return the price at a discount."""
        return Price(
            self.prompt * factor, self.completion * factor, self.cached * factor, self.source
        )


def find_price(provider: str, name: str, endpoint: Endpoint, *, official: bool) -> Price | None:
    """Return the price of a model; None where nobody told. `official`: at the provider's own
    address, where its list holds.
    """
    if endpoint.prompt_price is not None and endpoint.completion_price is not None:
        cached = endpoint.prompt_price if endpoint.cached_price is None else endpoint.cached_price
        return Price(endpoint.prompt_price, endpoint.completion_price, cached, "settings")
    if not official:
        return None
    version, prices = _load_price_list()
    for key in (f"{provider}/{name}", name):
        entry = prices.get(key, {})
        costs = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
        if entry.get("litellm_provider") in (provider, f"{provider}_chat") and None not in costs:
            cached = entry.get("cache_read_input_token_cost")
            prompt, completion = (float(c) * MILLION for c in costs)
            return Price(
                prompt,
                completion,
                prompt if cached is None else float(cached) * MILLION,
                f"litellm {version}",
            )
    return None


@lru_cache(maxsize=1)
def _load_price_list() -> tuple[str, Mapping[str, Any]]:
    """Return litellm's version and its price list, read as a file: importing litellm takes
    seconds.
    """
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec
    from pathlib import Path

    from orjson import loads

    try:
        edition, spec = version("litellm"), find_spec("litellm")
        assert spec is not None and spec.origin is not None, "an installed package has a place"
        return edition, loads(
            (Path(spec.origin).parent / "model_prices_and_context_window_backup.json").read_bytes()
        )
    except (PackageNotFoundError, OSError, ValueError):
        return "", {}
