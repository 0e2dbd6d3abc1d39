"""Holds answers to JSON schemas while they are drawn: at each place only tokens that keep the text
within the schema.

llguidance reads schema and tokenizer. A model that would rather end its turn inside a JSON text
closes what is open there.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from typing import Any

from culturepark.errors import InputError

ANY_OBJECT: dict[str, Any] = {"type": "object"}  # what JSON mode asks for
CLOSING = ('"', "]", "}", '"}', '"]')
# One way to lay out JSON: a small model would fill its answer with spaces otherwise.
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Guides:
    """Begins answers that keep to schemas, with one base's tokenizer; `size` is how many tokens the
    model scores.
    """

    def __init__(self, tokenizer: Any, size: int, ends: Iterable[int]) -> None:
        if importlib.util.find_spec("llguidance") is None:
            raise InputError(
                "JSON mode and JSON schemas need llguidance: pip install 'culturepark[serve]'"
            )
        import llguidance.hf

        self._read = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=sorted(ends))
        closings = tokenizer(list(CLOSING), add_special_tokens=False)["input_ids"]
        self.size, self.ends = size, tuple(sorted(ends))
        self.closing = sorted({ids[0] for ids in closings if len(ids) == 1})

    def begin(self, schema: str) -> Guide:
        """Return the guide of one answer; InputError where the schema cannot be kept."""
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, defaults=LAYOUT)
        except ValueError as error:
            raise InputError(f"this schema cannot be read: {error}") from error
        guide = Guide(self, LLMatcher(self._read, grammar, log_level=0))
        guide.check()
        return guide


class Guide:
    """Follows one answer, token by token."""

    def __init__(self, guides: Guides, matcher: Any) -> None:
        self._guides, self._matcher = guides, matcher

    def check(self) -> None:
        """Raise InputError where the schema cannot be kept, or asks for more than there is memory
        and time for.
        """
        if self._matcher.is_error():
            raise InputError(
                f"this schema cannot be kept to: {_first_line(self._matcher.get_error())}"
            )

    def narrow(self, scores: Any) -> Any:
        """Return logits, shape (vocabulary,), with -inf for every token that would leave the
        schema.
        """
        import torch

        allowed = self._list_allowed(scores.shape[-1], scores.device)
        if int(scores.argmax()) in self._guides.ends:
            closing = torch.zeros_like(allowed)
            closing[self._guides.closing] = True
            ends = torch.zeros_like(allowed)
            ends[list(self._guides.ends)] = True
            allowed = next(
                (part for part in (allowed & ends, allowed & closing) if part.any()), allowed
            )
        return scores.masked_fill(~allowed, float("-inf"))

    def take(self, token: int) -> bool:
        """Follow a token that was drawn, and say whether the answer is whole."""
        self._matcher.consume_token(token)
        self.check()
        return bool(self._matcher.is_stopped())

    def _list_allowed(self, size: int, device: Any) -> Any:
        import numpy as np
        import torch

        bits = np.unpackbits(
            np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little"
        )
        allowed = torch.zeros(size, dtype=torch.bool)
        count = min(size, len(bits))
        allowed[:count] = torch.from_numpy(bits[:count].astype(bool))
        self.check()
        return allowed.to(device)


def schema_of(shape: Mapping[str, Any] | None) -> str | None:
    """Return the JSON schema that a request's `response_format` asks for, as text; None where it
    asks for plain text.

    InputError where there is no schema in it.
    """
    kind = (shape or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return json.dumps(ANY_OBJECT)
    schema = ((shape or {}).get("json_schema") or {}).get("schema")
    if not isinstance(schema, dict):
        raise InputError("response_format.json_schema.schema: there is no schema")
    return json.dumps(schema)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason is given"
