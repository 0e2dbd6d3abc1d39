"""Errors of connections in plain words, whichever library they come from."""

import asyncio
import errno
import socket
import ssl

import pytest

import culturepark as cp
from culturepark.llm.codec import ProviderError
from culturepark.llm.providers.compatible import Compatible
from culturepark.llm.sockets import describe_unreached, explain_error, explain_text

ASK = cp.records.Request("delegate", (), max_tokens=9)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ECONNREFUSED, "Connection refused"), "nothing listens there"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "closed the connection"),
        (OSError(errno.ENETUNREACH, "x"), "no way leads"),
        (OSError(errno.EADDRINUSE, "x"), "another program uses"),
        (socket.gaierror(-2, "Name or service not known"), "no machine is known by that name"),
        (ssl.SSLError(1, "wrong version number"), "http instead of https"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_a_socket_error_is_said_in_plain_words_also_from_within_another(error, words):
    outer = RuntimeError("a library's own")
    outer.__cause__ = error
    assert words in explain_error(error) and (
        words in explain_error(outer) or isinstance(error, ValueError)
    )


def failure(url):
    async def once():
        client = Compatible("x", url, "none", timeout=2)
        try:
            await client.send({"model": "x"}, ASK)
        finally:
            await client.close()

    with pytest.raises(ProviderError) as caught:
        asyncio.run(once())
    return caught.value


def test_what_can_be_wrong_with_an_address_is_named():
    refused, unknown = failure("http://127.0.0.1:9/v1"), failure("http://nobody.invalid/v1")
    assert refused.kind == unknown.kind == "down"
    assert "nothing listens there (connection refused). Is it running?" in str(refused)
    assert "no machine is known by that name" in str(unknown) and "--base-url" in str(unknown)
    with cp.Server(lambda n, _: "ok") as server:
        assert "http instead of https" in str(failure(server.url.replace("http:", "https:")))


def test_a_text_of_an_error_is_enough_where_nothing_else_is_left():
    assert explain_text(
        "litellm.APIError: Cannot connect to host x:1 [Connect call failed ('1.2.3.4', 1)]"
    ).startswith("nothing listens")
    assert explain_text("anything else") is None and describe_unreached(
        "http://gpu:1/v1", "why"
    ).endswith("(--base-url)?")
