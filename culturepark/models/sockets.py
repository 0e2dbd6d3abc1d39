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
NAMED = {
    "ServerDisconnectedError": "the other side closed the connection without an answer",
    "ClientPayloadError": "the answer broke off half-way",
    "ConnectionTimeoutError": "the machine did not answer in time",
    "SocketTimeoutError": "the machine stopped answering",
    "ServerTimeoutError": "the machine stopped answering",
    "InvalidURL": "the address is no URL",
}


def plain(error: BaseException) -> str:
    """Return in plain words what a socket error, or a library's error around one, means; its own text where that is unknown."""
    from socket import gaierror
    from ssl import SSLCertVerificationError, SSLError

    for found in _within(error):
        if isinstance(found, gaierror):
            return "no machine is known by that name (DNS)"
        if isinstance(found, SSLCertVerificationError):
            return f"its certificate is not trusted ({found.verify_message})"
        if isinstance(found, SSLError):
            return "it does not speak TLS as it should (http instead of https, or the other way round?)"
        if isinstance(found, OSError) and found.errno in WORDS:
            return WORDS[found.errno]
    return next((NAMED[name] for found in _within(error) if (name := type(found).__name__) in NAMED), None) or (
        f"{type(error).__name__}: {error}"
    )


def _within(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was made of."""
    seen = 0
    while error is not None and seen < 8:
        yield error
        inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
        error, seen = inner or error.__cause__ or error.__context__, seen + 1
