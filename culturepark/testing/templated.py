"""Answers that are no model's: the canned ones of load tests, and the embedded engine's to requests
that bring no facts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from culturepark.testing.completions import BYTES, count_tokens

WORDS = (
    "tea bread market river song table window garden letter morning neighbour bridge market lamp"
    " stone season road".split()
)
DEPTH = 12  # levels of a schema below which only what must be there is made
NOTE = "templated text by the embedded engine"


def write_templated_answer(body: Mapping[str, Any]) -> str:
    """Return a short answer to a request that brings no facts; it says what it is.

    Where a JSON schema is asked for, it is a minimal instance of that schema.
    """
    shape = body.get("response_format") or {}
    if shape.get("type") == "json_schema":
        schema = (shape.get("json_schema") or {}).get("schema")
        return json.dumps(build_instance(schema if isinstance(schema, dict) else {}))
    if shape.get("type") == "json_object":
        return json.dumps({"note": f"This is {NOTE}."})
    count = len(body["messages"])
    return (
        f"This is {NOTE}; no facts came with this prompt of {count}"
        f" message{'s' if count != 1 else ''}."
    )


def build_instance(
    schema: Mapping[str, Any] | bool, root: Mapping[str, Any] | None = None, depth: int = 0
) -> Any:
    """Return a small value that fits a JSON schema; patterns and formats are not met."""
    if isinstance(schema, bool) or depth > 2 * DEPTH:
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        return build_instance(_resolve_reference(str(schema["$ref"]), root), root, depth + 1)
    if "const" in schema or schema.get("enum"):
        return schema.get("const") if "const" in schema else schema["enum"][0]
    if "default" in schema:
        return schema["default"]
    ways = schema.get("anyOf") or schema.get("oneOf")
    if ways:
        # Deep inside, a way that ends is better than one that goes round.
        return build_instance(
            min(ways, key=lambda w: depth > DEPTH and w != {"type": "null"}), root, depth + 1
        )
    if schema.get("allOf"):
        made = [build_instance(part, root, depth + 1) for part in schema["allOf"]]
        return (
            {k: v for part in made for k, v in part.items()}
            if all(isinstance(m, dict) for m in made)
            else made[0]
        )
    kind = schema.get("type") or (
        "object" if "properties" in schema else "array" if "items" in schema else "string"
    )
    return _build_kind(kind[0] if isinstance(kind, list) else kind, schema, root, depth)


def _build_kind(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        known = schema.get("properties") or {}
        return {
            name: build_instance(known.get(name, {}), root, depth + 1)
            for name in schema.get("required", ())
        }
    if kind == "array":
        return [
            build_instance(schema.get("items") or {}, root, depth + 1)
            for _ in range(schema.get("minItems", 0))
        ]
    if kind in ("integer", "number"):
        least = (
            schema["exclusiveMinimum"] + 1
            if "exclusiveMinimum" in schema
            else schema.get("minimum", 0)
        )
        return min(max(0, least), schema.get("maximum", max(0, least)))
    if kind == "string":
        return NOTE[: schema.get("maxLength", len(NOTE))].ljust(schema.get("minLength", 0), ".")
    return False if kind == "boolean" else None


def _resolve_reference(path: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in path.removeprefix("#").strip("/").split("/") if path != "#" else ():
        found = (
            found.get(part.replace("~1", "/").replace("~0", "~"), {})
            if isinstance(found, Mapping)
            else {}
        )
    return found if isinstance(found, Mapping) else {}


class CannedAnswer:
    """An answer of about `size` tokens with the request's number in it, so that no two are alike;
    made for load tests: `Server(CannedAnswer(60))`.
    """

    def __init__(self, size: int = 60) -> None:
        start = "Answer number {:010d}: "
        length = max(size * BYTES - len(start.format(0)), 1)
        filling = " ".join(WORDS[i % len(WORDS)] for i in range(length // 4 + 1))[:length]
        self._text = start + filling
        self.tokens = count_tokens(self._text.format(0))
        self._rest = (
            f'"choices":[{{"index":0,"message":{{"role":"assistant","content":"{start}{filling}","refusal":null}},'
            '"logprobs":null,"finish_reason":"stop"}],"usage":'
        )
        before, _, after = self._rest.partition("{:010d}")
        self._parts = before.encode(), after.encode()

    def __call__(self, number: int, body: Mapping[str, Any]) -> str:
        """Return the text for the request of this number."""
        return self._text.format(number)

    def encode(self, number: int, model: bytes, used: int, created: int) -> bytes:
        """Return the whole completion as it goes over the wire; `model` is the model's name as
        JSON.
        """
        before, after = self._parts
        return (
            b'{"id":"chatcmpl-%08x","object":"chat.completion","created":%d,"model":%b,%b%010d%b'
            b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d},"system_fingerprint":null}'
            % (number, created, model, before, number, after, used, self.tokens, used + self.tokens)
        )
