"""Embeddings of hashed words: deterministic unit vectors that know which words two texts share, and
nothing of meaning.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from typing import Any

from culturepark.serving.problems import Problem
from culturepark.serving.requests import check_model
from culturepark.testing.completions import count_tokens

SIZE = 256
LARGEST = 4096
MOST = 2048  # inputs a request
WORD = re.compile(r"\w+")


def embed_texts(body: Any, models: Sequence[str]) -> dict[str, Any]:
    """Return the answer to an embeddings request; Problem where it cannot be answered."""
    check_model(body, models)
    inputs = _read_inputs(body.get("input"))
    size = body.get("dimensions")
    size = SIZE if size is None else size
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST:
        raise Problem(
            400, f"Invalid value for 'dimensions': expected 1 to {LARGEST}.", param="dimensions"
        )
    form = body.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise Problem(
            400, "Invalid value for 'encoding_format': float or base64.", param="encoding_format"
        )
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": _encode_vector(hash_text(text, size), form),
        }
        for i, text in enumerate(inputs)
    ]
    used = sum(map(count_tokens, inputs))
    return {
        "object": "list",
        "data": data,
        "model": body["model"],
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def hash_text(text: str, size: int = SIZE) -> list[float]:
    """Return a text's unit vector: each word adds or takes one at the place its hash names."""
    vector = [0.0] * size
    for word in WORD.findall(text.casefold()) or [text]:
        place, sign = _hash_word(word)
        vector[place % size] += sign
    length = sqrt(sum(x * x for x in vector))
    if not length:  # words that cancel one another out
        vector[_hash_word(text)[0] % size] = length = 1.0
    return [x / length for x in vector]


@lru_cache(maxsize=65_536)
def _hash_word(word: str) -> tuple[int, float]:
    number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return number >> 1, 1.0 if number & 1 else -1.0


def _encode_vector(found: list[float], form: str) -> list[float] | str:
    return (
        found
        if form == "float"
        else base64.b64encode(struct.pack(f"<{len(found)}f", *found)).decode()
    )


def _read_inputs(given: Any) -> list[str]:
    """Return the texts of a request; a list of token numbers is taken as the words they are."""
    if isinstance(given, list) and given and all(isinstance(x, int) for x in given):
        given = [given]
    texts = given if isinstance(given, list) else [given]
    found = [" ".join(map(str, t)) if isinstance(t, list) else t for t in texts]
    if not found or len(found) > MOST or not all(isinstance(t, str) and t for t in found):
        problem = f"Invalid value for 'input': expected a text, or 1 to {MOST} of them, none empty."
        raise Problem(
            400,
            problem,
            param="input",
            code="missing_required_parameter" if given is None else "invalid_value",
        )
    return found
