"""Keys: where they are looked for, and how they are kept out of everything that is written or printed."""

from __future__ import annotations

import os
import re

_SEEN: set[str] = set()
HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")
USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s?#@]*(?:@[^/\s?#@]*)*@")
NAMES = r"(?:[\w.%-]*(?:key|token|secret|password|passwd|signature|credential)|sig|pwd|pass|auth|authorization|code)"
QUERY = re.compile(rf"(?i)([?&;#]{NAMES}=)[^&;#\s\"']+")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


def secret(*names: str) -> str | None:
    """Return the first of these environment variables that is set and not blank."""
    return next((value for n in names if (value := os.environ.get(n, "").strip())), None)


def remember(key: str | None) -> str | None:
    """Note a key, so that `redact` knows it, and return it."""
    if key and len(key) > 4:
        _SEEN.add(key)
    return key


def masked(text: str) -> str:
    """Return the text without any key that was ever used here."""
    for key in _SEEN:
        text = text.replace(key, "[key]")
    return text


def redact(text: str) -> str:
    """Return the text without any key ever used here, authorization headers, and addresses' users, passwords and keys."""
    return strip_addresses(HEADER.sub(r"\1 [key]", masked(text)))


def strip_addresses(text: str) -> str:
    """Return the text with user names, passwords and keys taken out of the addresses in it.

    >>> strip_addresses("at https://me:pw@host/v1?api_key=abc&v=2 now")
    'at https://host/v1?api_key=[key]&v=2 now'
    """
    return QUERY.sub(r"\1[key]", USER.sub(r"\1", text))


def holds_secret(url: str) -> bool:
    """Say whether an address holds a user, a password, or a key in its query."""
    return strip_addresses(url) != url


def check_address(url: str, what: str = "the base URL") -> str:
    """Return an address as it may be written down; InputError for one that holds a secret or is no web address."""
    from culturepark.errors import InputError

    if holds_secret(url):
        raise InputError(
            f"{what} ({strip_addresses(url)} without it) holds a user name, a password or a key, which would end up in "
            "run.toml and logs; leave it out, and set the key in the environment"
        )
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{what} {url!r} does not begin with http:// or https://")
    return url


def join_address(url: str, path: str) -> str:
    """Return the address of a path below a base URL, whose query stays at the end.

    >>> join_address("https://host/v1?api-version=2", "chat/completions")
    'https://host/v1/chat/completions?api-version=2'
    """
    base, mark, query = url.partition("?")
    return f"{base.rstrip('/')}/{path}{mark}{query}"


def named_key(option: str, name: str | None) -> str | None:
    """Return the key in the environment variable that an option names; InputError where it is not set, or no name."""
    from culturepark.errors import InputError

    if name is None:
        return None
    if not is_variable(name):
        raise InputError(f"{option} takes the NAME of an environment variable (capitals), not a key")
    if (key := secret(name)) is None:
        raise InputError(f"{option} {name}: this variable is not set")
    return key


def is_variable(name: str) -> bool:
    """Say whether a text names an environment variable (capitals, digits, underscores), and is no key itself."""
    return VARIABLE.fullmatch(name) is not None
