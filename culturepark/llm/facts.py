"""Sends the facts that a prompt was rendered from along with it, to our own offline endpoint alone.

The offline engine answers from a request's facts. In this process it has them; behind HTTP it is
sent them in the body's field `facts`. Only an endpoint on this machine whose entry of the model
says `takes_facts` gets them; any other is sent messages and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from culturepark import context, records
from culturepark.keys import join_address
from culturepark.llm.codec import ProviderError
from culturepark.llm.sockets import describe_unreached, explain_error
from culturepark.records import Record, Request

FIELD = "facts"
RECORD = "$record"
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
PATIENCE = 20.0  # seconds in which an endpoint on this machine describes a model
_KINDS: dict[str, type[Record]] = {
    name: kind
    for module in (records, context)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Record)
}


def pack_request(request: Request) -> dict[str, Any]:
    """Return as JSON what the offline engine answers a request from.

    Facts that are neither records, plain values, nor lists and mappings of these are left out.
    """
    return {
        "role": request.role,
        "seed": request.seed,
        "index": request.index,
        "facts": {k: _pack(v) for k, v in request.facts.items() if _is_packable(v)},
    }


def unpack_request(packed: Any) -> Request:
    """Return the request that `pack_request` packed, without messages; ValueError where it is
    none.
    """
    try:
        facts = {name: _unpack(value) for name, value in packed["facts"].items()}
        return Request(packed["role"], (), facts, seed=packed["seed"], index=packed["index"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"these are no facts of a request ({error!r})") from None


def _is_packable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_packable(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_packable, value))
    kind = type(value)
    return value is None or kind in (str, int, float, bool) or _KINDS.get(kind.__name__) is kind


def _pack(value: Any) -> Any:
    if isinstance(value, Record):
        fields = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {**fields, RECORD: type(value).__name__}
    if isinstance(value, Mapping):
        return {k: _pack(v) for k, v in value.items()}
    return [*map(_pack, value)] if isinstance(value, (list, tuple)) else value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        if RECORD in value:
            fields = {k: v for k, v in value.items() if k != RECORD}
            return _KINDS[value[RECORD]].model_validate(fields)
        return {k: _unpack(v) for k, v in value.items()}
    return tuple(map(_unpack, value)) if isinstance(value, list) else value


def is_on_this_machine(url: str | None) -> bool:
    """Say whether an address is this machine's own.

    >>> is_on_this_machine("http://127.0.0.1:8765/v1"), is_on_this_machine("https://example.org/v1")
    (True, False)
    """
    return url is not None and urlsplit(url).hostname in THIS_MACHINE


class FactSender:
    """Adds facts to the requests to one model of an endpoint on this machine, if it takes them."""

    def __init__(self, base_url: str, model: str, key: str | None, start: str = "") -> None:
        self._base_url, self._model, self._key, self._start = base_url, model, key, start
        self._answer: asyncio.Task[bool] | None = None

    async def add_facts(self, body: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
        """Return a request's body, with its facts where the endpoint takes them; ProviderError
        where the endpoint cannot be asked.
        """
        if self._answer is None or _has_failed(self._answer):
            self._answer = asyncio.get_running_loop().create_task(self._ask_endpoint())
            # Its failure is looked at, whoever waits no more: else asyncio prints a traceback.
            self._answer.add_done_callback(_has_failed)
        takes_facts = await asyncio.shield(self._answer)
        return {**body, FIELD: pack_request(request)} if takes_facts else body

    async def _ask_endpoint(self) -> bool:
        from aiohttp import ClientError, ClientSession, ClientTimeout

        url = join_address(self._base_url, f"models/{quote(self._model, safe='')}")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=PATIENCE), headers=headers) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                entry = await answer.json(content_type=None) if answer.status == 200 else None
        except (ValueError, TimeoutError):  # whoever cannot describe a model is no server of ours
            return False
        except (ClientError, OSError) as error:
            why = describe_unreached(self._base_url, explain_error(error), self._start)
            raise ProviderError("down", why) from None
        return isinstance(entry, dict) and entry.get("takes_facts") is True


def _has_failed(answer: asyncio.Task[bool]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)
