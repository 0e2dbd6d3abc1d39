"""Any endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp,
`transformers serve` and many more.

The openai SDK gives address, key and headers; calls then go over the transport that the SDK offers
for concurrency, aiohttp, directly. Through the SDK's own `create` a whole turn costs some four
times as much (`python -m benchmarks frameworks`: `aio` beside `park`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from culturepark._version import __version__
from culturepark.errors import ModelError
from culturepark.keys import check_address, check_key, join_address, remember
from culturepark.llm.codec import ProviderError, decode_answer
from culturepark.llm.proxies import is_socks, need_library, proxy_for, socks_connector
from culturepark.llm.sockets import describe_unreached, explain_error
from culturepark.records import Request

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from openai import AsyncOpenAI

CONNECT = 20.0  # seconds that making a connection may take


class Compatible:
    """A client for one endpoint. `needs` names the environment variables of which one must hold the
    key, if any must.

    `start` is the command that starts such a server, `max_reply_mb` the largest answer that is read
    (megabytes, unpacked).
    """

    limited, discount = True, 1.0

    def __init__(
        self,
        identity: str,
        base_url: str,
        key: str | None,
        needs: tuple[str, ...] = (),
        timeout: float = 120.0,
        start: str = "",
        max_reply_mb: float = 16.0,
    ) -> None:
        check_address(base_url)
        self.identity, self.base_url, self.timeout, self.start = identity, base_url, timeout, start
        self.max_reply_mb = max_reply_mb
        self.key, self._needs = remember(key), needs
        self._session: ClientSession | None = None
        self._proxy: str | None = None

    def check(self) -> None:
        """Raise ModelError where no key is set and one is needed, or for a proxy that cannot be
        spoken to.
        """
        proxy_for(self.base_url)
        check_key(self.key, self.identity)
        if self.key is None and self._needs:
            raise ModelError(
                f"{self.identity}: no key: set {self._needs[0]}, or give --base-url for an endpoint"
                " that needs none"
            )

    def build_sdk_client(self) -> AsyncOpenAI:
        """Return the SDK's client for this endpoint."""
        import ssl

        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self.check()
        proxy = proxy_for(self.base_url)
        if proxy and is_socks(proxy):
            need_library("socksio", proxy, self.base_url)
        # Proxies go by our own rule; the system's certificates, and those that SSL_CERT_FILE names,
        # by OpenSSL's.
        http = DefaultAsyncHttpxClient(
            trust_env=False, proxy=proxy, verify=ssl.create_default_context()
        )
        return AsyncOpenAI(
            api_key=self.key or "none",
            base_url=self.base_url,
            max_retries=0,
            timeout=self.timeout,
            http_client=http,
        )

    def _open_session(self) -> ClientSession:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        sdk = self.build_sdk_client()
        all_headers = {
            **sdk.default_headers,
            **sdk.auth_headers,
            "User-Agent": f"CulturePark/{__version__}",
        }
        # X-Stainless-… says that the SDK itself is calling, which it is not.
        headers = {
            k: v
            for k, v in all_headers.items()
            if isinstance(v, str) and not k.lower().startswith("x-stainless")
        }
        proxy = proxy_for(self.base_url)
        through = proxy is not None and is_socks(proxy)
        self._proxy = None if through else proxy
        return ClientSession(
            connector=(
                socks_connector(proxy, limit=0)
                if proxy and through
                else TCPConnector(limit=0, ttl_dns_cache=300)
            ),
            timeout=ClientTimeout(total=self.timeout, sock_connect=CONNECT),
            headers=headers | {"Accept-Encoding": "gzip, deflate"},
            auto_decompress=False,
        )

    async def send(self, body: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
        """Post one chat completion and return the answer's body; ProviderError when there is
        none.
        """
        from aiohttp import ClientConnectorError, ClientError, ConnectionTimeoutError
        from orjson import dumps

        if self._session is None:
            self._session = self._open_session()
        try:
            url = join_address(self.base_url, "chat/completions")
            post = self._session.post(
                url, data=dumps(body), proxy=self._proxy, allow_redirects=False
            )
            async with post as answer:
                data = await read_bounded(answer, self.max_reply_mb)
                status, headers = answer.status, answer.headers
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            raise ProviderError("down", self._why_unreached(explain_error(error))) from None
        except TimeoutError:
            raise ProviderError("slow", f"no answer within {self.timeout:g} s") from None
        except (ClientError, OSError) as error:
            raise ProviderError(
                "lost", f"the connection to {self.base_url} broke: {explain_error(error)}"
            ) from None
        return decode_answer(status, data, headers)

    def _why_unreached(self, why: str) -> str:
        if self._proxy:
            return (
                f"no connection to {self.base_url} through the proxy {self._proxy} of the"
                f" environment: {why}"
            )
        return describe_unreached(self.base_url, why, self.start)

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def read_bounded(answer: ClientResponse, most_mb: float) -> bytes:
    """Return an answer's body, unpacked; ProviderError once it is larger than `most_mb` megabytes,
    packed or unpacked.
    """
    most = int(most_mb * 1e6)
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > most:
            raise _build_size_error(most_mb)
    text = bytes(data)
    named = answer.headers.get("Content-Encoding", "").lower()
    for packing in reversed([part.strip() for part in named.split(",")]):
        if packing in ("gzip", "x-gzip", "deflate"):
            text = _decompress(text, most_mb)
        elif packing in UNREADABLE:
            raise ProviderError(
                "garbled", f"the answer is packed as {packing!r}, which was not asked for"
            )
    return text


UNREADABLE = (
    "br",
    "zstd",
    "compress",
    "x-compress",
    "dcb",
    "dcz",
)  # other names say nothing of packing


def _decompress(data: bytes, most_mb: float) -> bytes:
    """Return what was packed as gzip, of one member or several, or as deflate with its header or
    without.
    """
    import zlib

    text, most = b"", int(most_mb * 1e6)
    wbits = 31 if data[:2] == b"\x1f\x8b" else 15 if data[:1] == b"\x78" else -15
    while data:
        unpacker = zlib.decompressobj(wbits=wbits)
        try:
            text += unpacker.decompress(data, most - len(text) + 1)
        except zlib.error as error:
            raise ProviderError(
                "garbled", f"the answer is packed and cannot be unpacked: {error}"
            ) from None
        if len(text) > most:
            raise _build_size_error(most_mb)
        if not unpacker.eof:
            raise ProviderError("garbled", "the answer is packed and was cut")
        data = unpacker.unused_data.lstrip(b"\0")
    return text


def _build_size_error(most_mb: float) -> ProviderError:
    return ProviderError(
        "large",
        f"the answer is larger than {most_mb:g} MB and was not read on; "
        "max_reply_mb under [endpoints] reads larger ones",
    )
