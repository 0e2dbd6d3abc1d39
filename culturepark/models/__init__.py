"""Who answers: one small protocol, and how a model's name becomes a model."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from culturepark.errors import InputError, nearest
from culturepark.records import Reply, Request


@runtime_checkable
class Model(Protocol):
    """Anything that answers requests. `identity` names all that can change its answers, save the request."""

    identity: str

    async def complete(self, request: Request) -> Reply:
        """Answer one request; failures are replies with a status, only hopeless ones raise ModelError."""
        ...


def _embedded(name: str, options: Mapping[str, Any]) -> Model:
    from culturepark.models.embedded import Embedded

    return Embedded(faults=options.get("faults") or {})


def _openai(name: str, options: Mapping[str, Any]) -> Model:
    from culturepark.models.hosted import Hosted

    return Hosted(name, base_url=options.get("base_url"), concurrency=options.get("concurrency") or 64)


PROVIDERS: dict[str, Callable[[str, Mapping[str, Any]], Model]] = {"embedded": _embedded, "openai": _openai}


def load(name: str, **options: Any) -> Model:
    """Return the model called `name`: `embedded`, `openai/NAME` (any compatible endpoint), or `package.module:NAME`.

    Options that a provider does not use are ignored: `base_url`, `concurrency` (hosted), `faults` (embedded).
    """
    provider, _, rest = name.partition("/")
    if ":" in name and "/" not in name:
        return _imported(name)
    if provider not in PROVIDERS:
        raise InputError(f"no model provider {provider!r} in {name!r}. {nearest(provider, PROVIDERS)} "
                         f"Or package.module:NAME for a model of your own.")  # fmt: skip
    if provider != "embedded" and not rest:
        raise InputError(f"model {name!r} names no model; write {provider}/NAME")
    if options.get("faults") and provider != "embedded":
        raise InputError(f"faults are planted by the embedded engine only, not by {name!r}")
    return PROVIDERS[provider](rest, options)


def _imported(name: str) -> Model:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot import model {name!r}: {error}") from error
    model = found() if isinstance(found, type) else found
    if not isinstance(model, Model):
        raise InputError(f"{name!r} is no model: it needs `identity` and `async complete(request)`")
    return model


def secret(*names: str) -> str | None:
    """Return the first of these environment variables that is set and not blank."""
    return next((value for n in names if (value := os.environ.get(n, "").strip())), None)
