"""Proxies: one rule for which one an address is reached through, as HTTP_PROXY, HTTPS_PROXY,
ALL_PROXY and NO_PROXY say.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from culturepark.errors import ModelError
from culturepark.keys import redact

SOCKS = ("socks", "socks4", "socks4a", "socks5", "socks5h")


def proxy_for(url: str) -> str | None:
    """Return the proxy for an address, None for a direct connection.

    ALL_PROXY stands in where the address's own scheme has no proxy. NO_PROXY names hosts (with
    their subdomains), `*.host` patterns, host:port, addresses, and ranges such as 10.0.0.0/8.
    ModelError for a SOCKS proxy that no library here speaks.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if proxy_bypass(parts.netloc.rpartition("@")[2]) or proxy_bypass(host) or _is_excluded(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    check_proxy(proxy)
    if is_socks(proxy):
        need_library("aiohttp_socks", proxy, f"{parts.scheme}://{host}")
    return proxy


def check_httpx_proxies(what: str) -> None:
    """Raise ModelError where a library that reads the proxies itself would fail on a SOCKS proxy,
    whatever NO_PROXY says.
    """
    for proxy in (p for p in getproxies().values() if is_socks(p)):
        need_library("socksio", proxy, what)


def check_proxy(proxy: str) -> None:
    """Raise ModelError for a proxy's address that is none."""
    try:
        parts = urlsplit(proxy)
        sound = parts.scheme.lower() in ("http", "https", *SOCKS) and bool(parts.hostname)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        sound = False
    if not sound:
        raise ModelError(
            f"the proxy {redact(proxy)} of the environment (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY)"
            " is no address: write http://HOST:PORT, or unset it"
        )


def is_socks(proxy: str) -> bool:
    """Say whether a proxy's address is that of a SOCKS proxy."""
    return proxy.partition("://")[0].lower() in SOCKS


def need_library(module: str, proxy: str, what: str) -> None:
    """Raise ModelError where the library that speaks SOCKS is not installed."""
    if find_spec(module) is None:
        raise ModelError(
            f"{what} would be reached through the SOCKS proxy {redact(proxy)} (ALL_PROXY or"
            " HTTP(S)_PROXY), and no library here speaks SOCKS: pip install 'culturepark[socks]',"
            " name the host in NO_PROXY, or unset the proxy"
        )


def socks_connector(proxy: str, **how: Any) -> Any:
    """Return aiohttp's connector through a SOCKS proxy."""
    from aiohttp_socks import ProxyConnector

    # The library knows socks5 with names resolved here or there (rdns), not curl's socks5h.
    scheme, _, rest = proxy.partition("://")
    remote = scheme.lower() in ("socks5h", "socks4a")
    plain = {"socks": "socks5", "socks5h": "socks5", "socks4a": "socks4"}.get(
        scheme.lower(), scheme
    )
    return ProxyConnector.from_url(f"{plain}://{rest}", rdns=remote, **how)


def _is_excluded(host: str) -> bool:
    """Say whether NO_PROXY names a host by a pattern or a range, which the standard library does
    not read.
    """
    entries = list(_list_exclusions())
    if any("*" in entry and fnmatch(host, entry) for entry in entries):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(
        address in network for network in map(_parse_network, entries) if network is not None
    )


def _list_exclusions() -> Iterator[str]:
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return (entry.strip().strip("[]").lower() for entry in named.split(",") if entry.strip())


def _parse_network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
