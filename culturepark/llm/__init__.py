"""Who answers: one small protocol, and how a model's name becomes a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from culturepark.errors import InputError, nearest
from culturepark.keys import check_address, remember, secret
from culturepark.providers import PROVIDERS, Provider, find_provider, local_place
from culturepark.records import Reply, Request, digest
from culturepark.registry import import_attribute
from culturepark.settings import Endpoint, build_endpoint

if TYPE_CHECKING:
    from culturepark.llm.client import Client, EndpointClient
    from culturepark.llm.facts import FactSender


@runtime_checkable
class Model(Protocol):
    """Anything that answers requests. `identity` names all that can change its answers, save the
    request.
    """

    identity: str

    async def complete(self, request: Request) -> Reply:
        """Answer one request; failures are replies with a status, only hopeless ones raise
        ModelError.
        """
        ...


OFFLINE = "culturepark.offline:Embedded"  # a provider by name: nothing else here knows it
OWN = "CULTUREPARK_API_KEY"  # the key of an endpoint that is given by its address


def load(
    name: str,
    endpoint: Endpoint | None = None,
    *,
    faults: Mapping[str, float] | None = None,
    key: str | None = None,
    batch: bool = False,
) -> Model:
    """Return the model called `name`.

    `embedded`; `PROVIDER/NAME` (`openai/gpt-4o-mini`, `ollama/llama3.1`,
    `anthropic/claude-sonnet-4-5`, …), reached as `endpoint` says; `litellm/PROVIDER/NAME` to go
    through litellm all the same; `package.module:PROVIDER/NAME` for a Provider of one's own; the
    folder of a tuned model (`outputs/first/models/sft/arabic`; a
    reward model's is answered with the best of a request's options), or `local/NAME` for a base on
    this machine (`local/tiny`); or `package.module:NAME` for one of your own. `faults` are the
    embedded engine's, `key` is used in the place of the environment's, `batch` sends calls in
    batches. InputError for a name that is none.
    """
    provider, _, rest = name.partition("/")
    if ":" in name and "/" not in name:
        return _import_model(name)
    if not name.strip():
        raise InputError(
            "the model's name is empty; write embedded, PROVIDER/NAME, or leave the setting out"
        )
    if provider == "embedded":
        return cast(Model, import_attribute(OFFLINE, "cannot import model")(faults=faults or {}))
    if faults:
        raise InputError(f"faults are planted by the embedded engine only, not by {name!r}")
    if (place := local_place(name)) is not None:
        return _load_local(place, endpoint.params if endpoint else {})
    if not rest:
        known = ("embedded", "local/NAME", *(f"{p}/NAME" for p in PROVIDERS))
        raise InputError(
            f"model {name!r} names no model; write PROVIDER/NAME. {nearest(name, known)}"
        )
    return _build_endpoint_client(name, provider, rest, endpoint or Endpoint(), key, batch=batch)


def _load_local(place: str, params: Mapping[str, Any]) -> Model:
    from culturepark.local_models import rewards

    if rewards.is_reward_model(place):
        from culturepark.llm.providers.reward import RewardProvider

        return RewardProvider(place, **params)
    from culturepark.llm.providers.local import LocalProvider

    return LocalProvider(place, **params)


def model(name: str, *, key: str | None = None, **how: Any) -> Model:
    """Return a model by name for one's own code: `cp.model("openai/gpt-4o-mini", rpm=500)`; `how`
    is as in an `Endpoint`.
    """
    return load(name, build_endpoint(**how), key=key)


def find_address(name: str) -> str | None:
    """Return the address that the environment names for a model's provider; None where it names
    none.
    """
    provider = name.partition("/")[0]
    known = find_provider(name)
    url = (secret(known.address) or "").rstrip("/") if known and known.address else ""
    # Ollama's own variable names the server without /v1.
    if url:
        check_address(url, known.address if known else "the address")
    return (
        (url + "/v1" if provider == "ollama" and not url.endswith("/v1") else url) if url else None
    )


def _build_endpoint_client(
    name: str, provider: str, rest: str, how: Endpoint, key: str | None, *, batch: bool
) -> EndpointClient:
    from culturepark.llm import pricing
    from culturepark.llm.client import EndpointClient
    from culturepark.llm.rate_limiter import Limits

    client: Client
    known = find_provider(name)
    key = remember(key or (secret(how.key_env) if how.key_env else None))
    if known is not None:
        client, official = (
            _build_compatible(name, known, how, key),
            how.base_url is None and find_address(name) is None,
        )
    else:
        from culturepark.llm.providers.lite import Lite

        lite = rest if provider == "litellm" else name
        provider, _, rest = lite.partition("/")
        client, official = (
            Lite(_build_identity(name, how, how.base_url), lite, how.base_url, key, how.timeout),
            how.base_url is None,
        )
    facts = _find_fact_sender(client, rest, known)
    if batch:
        from culturepark.llm.batch import BatchClient

        client = BatchClient(client)
    limits = Limits(how.concurrency or 200, how.rpm, how.tpm, how.patience)
    price = pricing.find_price(provider, rest, how, official=official)
    return EndpointClient(
        client,
        rest,
        limits,
        price=price,
        structured=how.structured,
        params=how.params,
        max_wait=how.max_wait,
        missing_key=how.key_env is not None and key is None,
        facts=facts,
    )


def _find_fact_sender(client: Any, model: str, known: Provider | None) -> FactSender | None:
    """Return what sends facts to an endpoint on this machine; None for any other."""
    from culturepark.llm.facts import FactSender, is_on_this_machine

    if not is_on_this_machine(client.base_url):
        return None
    return FactSender(client.base_url, model, client.key, known.start if known else "")


def _build_compatible(name: str, known: Provider, how: Endpoint, key: str | None) -> Any:
    from culturepark.llm.providers.compatible import Compatible

    url = (how.base_url or find_address(name) or known.url).rstrip("/")
    is_own_address = how.base_url is not None or url != known.url
    secret_key = key or remember(secret(OWN, known.key) if is_own_address else secret(known.key))
    needs = () if is_own_address or known.local else (how.key_env or known.key,)
    return Compatible(
        _build_identity(name, how, url),
        url,
        secret_key,
        needs,
        how.timeout,
        known.start,
        how.max_reply_mb,
    )


def _build_identity(name: str, how: Endpoint, url: str | None) -> str:
    """Return what names all that can change a model's answers besides the request."""
    extra = (
        digest(how.params, how.structured, size=4)
        if how.params or how.structured != "schema"
        else ""
    )
    return f"{name}@{url or 'litellm'}" + (f"+{extra}" if extra else "")


def _import_model(name: str) -> Model:
    target = import_attribute(name, "cannot import model")
    model = target() if isinstance(target, type) else target
    if not isinstance(model, Model):
        raise InputError(f"{name!r} is no model: it needs `identity` and `async complete(request)`")
    return model
