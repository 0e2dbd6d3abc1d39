"""Any endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp, `transformers serve` and many more.

The openai SDK gives address, key and headers; calls then go over the transport that the SDK offers for concurrency, aiohttp,
directly. Through the SDK's own `create` a whole turn costs some four times as much (`python -m benchmarks frameworks`: `aio`
beside `park`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from culturepark.errors import InputError, ModelError
from culturepark.models.secrets import remember
from culturepark.models.sockets import plain, unreached
from culturepark.models.wire import Trouble, opened
from culturepark.records import Request

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from openai import AsyncOpenAI

CONNECT = 20.0  # seconds that making a connection may take


class Compatible:
    """A client for one endpoint. `needs` names the environment variables of which one must hold the key, if any must.

    `start` is the command that starts such a server.
    """

    gated, discount = True, 1.0

    def __init__(
        self,
        identity: str,
        base_url: str,
        key: str | None,
        needs: tuple[str, ...] = (),
        timeout: float = 120.0,
        start: str = "",
    ) -> None:
        if "@" in base_url.split("//")[-1].split("/")[0]:
            raise InputError("the base URL holds a user name or password, which would end up in run.toml; "
                             "set the key in the environment")  # fmt: skip
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"the base URL {base_url!r} does not begin with http:// or https://")
        self.identity, self.base_url, self.timeout, self.start = identity, base_url, timeout, start
        self._key, self._needs = remember(key), needs
        self._session: ClientSession | None = None
        self._proxy: str | None = None

    def check(self) -> None:
        """Raise ModelError where no key is set and one is needed."""
        if self._key is None and self._needs:
            raise ModelError(
                f"{self.identity}: no key: set {self._needs[0]}, or give --base-url for an endpoint that needs none"
            )

    def sdk(self) -> AsyncOpenAI:
        """Return the SDK's client for this endpoint."""
        from openai import AsyncOpenAI

        self.check()
        return AsyncOpenAI(api_key=self._key or "none", base_url=self.base_url, max_retries=0, timeout=self.timeout)

    def _open(self) -> ClientSession:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        import culturepark

        sdk = self.sdk()
        told = {**sdk.default_headers, **sdk.auth_headers, "User-Agent": f"CulturePark/{culturepark.__version__}"}
        # X-Stainless-… says that the SDK itself is calling, which it is not.
        headers = {k: v for k, v in told.items() if isinstance(v, str) and not k.lower().startswith("x-stainless")}
        return ClientSession(
            connector=TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=ClientTimeout(total=self.timeout, sock_connect=CONNECT),
            headers=headers,
        )

    async def send(self, body: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
        """Post one chat completion and return the answer's body; Trouble when there is none."""
        from aiohttp import ClientConnectorError, ClientError, ConnectionTimeoutError
        from orjson import dumps

        if self._session is None:
            self._session, self._proxy = self._open(), proxy(self.base_url)
        try:
            url = f"{self.base_url}/chat/completions"
            post = self._session.post(url, data=dumps(body), proxy=self._proxy, allow_redirects=False)
            async with post as answer:
                data = await answer.read()
                status, headers = answer.status, answer.headers
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            raise Trouble("down", unreached(self.base_url, plain(error), self.start)) from None
        except TimeoutError:
            raise Trouble("slow", f"no answer within {self.timeout:g} s") from None
        except (ClientError, OSError) as error:
            raise Trouble("lost", f"the connection to {self.base_url} broke: {plain(error)}") from None
        return opened(status, data, headers)

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def proxy(url: str) -> str | None:
    """Return the proxy that the environment names for an address; aiohttp's own look at it costs two threads a call."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
