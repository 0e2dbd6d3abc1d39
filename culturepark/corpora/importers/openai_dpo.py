"""Preferences as OpenAI, Together and Fireworks take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from culturepark.corpora.importers import Importer


def convert(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with TRL's keys."""
    asked = row["input"]
    return {
        **row,
        "prompt": asked.get("messages") if isinstance(asked, Mapping) else asked,
        "chosen": row["preferred_output"],
        "rejected": row["non_preferred_output"],
    }


IMPORTER = Importer("dpo", ("input", "preferred_output", "non_preferred_output"), convert)
