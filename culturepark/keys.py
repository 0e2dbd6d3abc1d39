"""Keys: where they are looked for, and how they are kept out of everything that is written or
printed.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode, urlsafe_b64encode
from functools import lru_cache
from urllib.parse import quote, urlsplit

_SEEN: set[str] = set()
HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")
USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*:(?://|\\\\))[^/\s?#@]*(?:@[^/\s?#@]*)*@")
NAMES = r"(?:[\w.%-]*(?:key|token|secret|password|passwd|signature|credential)|sig|pwd|pass|auth|authorization|code|jwt)"  # noqa: E501
QUERY = re.compile(rf"(?i)([?&;#]{NAMES}=)[^&;#\s\"']+")
HARMLESS = re.compile(
    r"(?i)(?:api[-_]?)?version|v|region|location|deployment|model|stage|env"
)  # of a query
IN_PATH = re.compile(r"(?i)/(?:sk|pk|gsk|xai|hf|rk|key)[-_][\w-]{6,}|/AIza[\w-]{20,}")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
ESCAPED = re.compile(r"\\u00([2-7][0-9a-fA-F])")  # an ASCII character as JSON may write it
PREFIX = 8  # characters of a key by whose beginning it is known, where an endpoint shows only that
LIKE_A_KEY = re.compile(r"(?=.*\d)(?=.*[A-Za-z])\S{10,}|\S{20,}")


def secret(*names: str) -> str | None:
    """Return the first of these environment variables that is set and not blank."""
    return next((value for n in names if (value := os.environ.get(n, "").strip())), None)


def remember(key: str | None) -> str | None:
    """Note a key, so that `redact` knows it, and return it."""
    if key and len(key) > 4:
        _SEEN.add(key)
    return key


def mask_answer(text: str) -> str:
    """Return an answer's text without any key that was ever used here and looks like one.

    A key such as `ollama` or `dummy`, as local servers take it, is a word like any other: an answer
    keeps it.
    """
    for key in _SEEN:
        if LIKE_A_KEY.fullmatch(key):
            text = text.replace(key, "[key]")
    return text


def redact(text: str) -> str:
    """Return the text without any key ever used here, authorization headers, and addresses' users,
    passwords and keys.

    A key is known in quotes for addresses, in base64, in JSON's escapes, and by its first
    characters alone too.
    """
    plain = ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    shown = plain if any(key in plain and key not in text for key in _SEEN) else text
    for key in _SEEN:
        shown = _spellings(key).sub("[key]", shown)
    return strip_addresses(HEADER.sub(r"\1 [key]", shown))


@lru_cache(maxsize=256)
def _spellings(key: str) -> re.Pattern[str]:
    data = key.encode()
    spelled = (key, quote(key, safe=""), b64encode(data).decode(), urlsafe_b64encode(data).decode())
    known = [re.escape(s) for s in sorted(set(spelled), key=len, reverse=True)]
    if LIKE_A_KEY.fullmatch(key):
        known.append(re.escape(key[:PREFIX]) + r"[^\s\"'<>,;)]*")
    return re.compile("|".join(known))


def strip_addresses(text: str) -> str:
    """Return the text with user names, passwords and keys taken out of the addresses in it.

    >>> strip_addresses("at https://me:pw@host/v1?api_key=abc&v=2 now")
    'at https://host/v1?api_key=[key]&v=2 now'
    """
    return QUERY.sub(r"\1[key]", USER.sub(r"\1", text))


def holds_secret(url: str) -> bool:
    """Say whether an address may hold a user, a password or a key: before its host, in its path,
    query or fragment.
    """
    query = url.partition("?")[2]
    names = [part.partition("=")[0] for part in re.split("[&;]", query) if part]
    odd = "#" in url or any(not HARMLESS.fullmatch(name) for name in names)
    return odd or "@" in url.partition("?")[0] or IN_PATH.search(url) is not None


def check_address(url: str, what: str = "the base URL") -> str:
    """Return an address as it may be written down; InputError for one that may hold a secret or is
    no web address.
    """
    from culturepark.errors import InputError

    if holds_secret(url):
        raise InputError(
            f"{what} holds a user name, a password, a key or a parameter that may be one (it is not"
            " shown), which would end up in run.toml and logs; leave it out, and set the key in"
            " the environment"
        )
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{what} {url!r} does not begin with http:// or https://")
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise InputError(f"{what} {url!r} is no address: {error}") from None
    if not named:
        raise InputError(f"{what} {url!r} names no host")
    return url


def check_key(key: str | None, what: str) -> None:
    """Raise ModelError for a key that no header can carry."""
    from culturepark.errors import ModelError

    if key is not None and not (key.isascii() and key.isprintable()):
        raise ModelError(
            f"{what}: the key holds a line break or another character that no key has; set it anew"
        )


def join_address(url: str, path: str) -> str:
    """Return the address of a path below a base URL, whose query stays at the end.

    >>> join_address("https://host/v1?api-version=2", "chat/completions")
    'https://host/v1/chat/completions?api-version=2'
    """
    base, mark, query = url.partition("?")
    return f"{base.rstrip('/')}/{path}{mark}{query}"


def named_key(option: str, name: str | None) -> str | None:
    """Return the key in the environment variable that an option names; InputError where it is not
    set, or no name.
    """
    from culturepark.errors import InputError

    if name is None:
        return None
    if not is_variable(name):
        raise InputError(
            f"{option} takes the NAME of an environment variable (capitals), not a key"
        )
    if (key := secret(name)) is None:
        raise InputError(f"{option} {name}: this variable is not set")
    return key


def is_variable(name: str) -> bool:
    """Say whether a text names an environment variable (capitals, digits, underscores), and is no
    key itself.
    """
    return VARIABLE.fullmatch(name) is not None
