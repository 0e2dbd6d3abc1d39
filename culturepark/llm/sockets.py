"""Says in plain words why a connection failed."""

from __future__ import annotations

import errno
from collections.abc import Iterator

WORDS = {
    errno.ECONNREFUSED: "nothing listens there (connection refused)",
    errno.ECONNRESET: "the other side closed the connection (reset)",
    errno.ECONNABORTED: "the connection was given up on the way",
    errno.EPIPE: "the other side closed the connection",
    errno.EHOSTUNREACH: "no way leads to that machine (host unreachable)",
    errno.ENETUNREACH: "no way leads to that network (network unreachable)",
    errno.ETIMEDOUT: "the machine did not answer in time",
    errno.EADDRINUSE: "another program uses this address and port already",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "the system does not allow it (permission denied)",
    errno.EMFILE: "too many connections are open (raise `ulimit -n`, or lower --concurrency)",
    errno.ENFILE: "too many files are open on this machine",
}
NO_NAME = "no machine is known by that name (DNS)"
NAMED = {
    "ServerDisconnectedError": "the other side closed the connection without an answer",
    "ClientPayloadError": "the answer broke off half-way",
    "ConnectionTimeoutError": "the machine did not answer in time",
    "SocketTimeoutError": "the machine stopped answering",
    "ServerTimeoutError": "the machine stopped answering",
    "InvalidURL": "the address is no URL",
}


# The same by the words that libraries leave of a system's error.
TEXTS = {
    "Connect call failed": WORDS[errno.ECONNREFUSED],
    "Connection refused": WORDS[errno.ECONNREFUSED],
    "All connection attempts failed": WORDS[errno.ECONNREFUSED],
    "Name or service not known": NO_NAME,
    "nodename nor servname": NO_NAME,
    "name resolution": NO_NAME,
    "No address associated": NO_NAME,
    "getaddrinfo failed": NO_NAME,
    "Network is unreachable": WORDS[errno.ENETUNREACH],
    "No route to host": WORDS[errno.EHOSTUNREACH],
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted",
    "Cannot connect": "the machine cannot be reached",
}


def explain_error(error: BaseException) -> str:
    """Return in plain words what a socket error, or a library's error around one, means; its own
    text where that is unknown.
    """
    from socket import gaierror
    from ssl import SSLCertVerificationError, SSLError

    for cause in _iterate_causes(error):
        if isinstance(cause, gaierror):
            return NO_NAME
        if isinstance(cause, SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, SSLError):
            return (
                "it does not speak TLS as it should (http instead of https, or the other way"
                " round?)"
            )
        if isinstance(cause, OSError) and cause.errno in WORDS:
            return WORDS[cause.errno]
    return next(
        (
            NAMED[name]
            for cause in _iterate_causes(error)
            if (name := type(cause).__name__) in NAMED
        ),
        None,
    ) or (f"{type(error).__name__}: {error}")


def explain_text(text: str) -> str | None:
    """Return in plain words what a socket error means that is known by its text alone; None for any
    other text.
    """
    return next((words for part, words in TEXTS.items() if part in text), None)


def describe_unreached(url: str, why: str, start: str = "") -> str:
    """Return that no connection could be made, and what to look at."""
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    near = host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")  # noqa: S104
    question = " Is it running?" if near or start else " Is the address right (--base-url)?"
    return f"no connection to {url}: {why}.{question}" + (
        f" It is started with: {start}" if start else ""
    )


def _iterate_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was made of."""
    seen = 0
    while error is not None and seen < 8:
        yield error
        inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
        error, seen = inner or error.__cause__ or error.__context__, seen + 1
