"""What a server takes at most: sizes and seconds, each an option, and a word when it is reached."""

import asyncio
import dataclasses
import socket
import time

import httpx
import pytest

from culturepark.errors import InputError
from culturepark.serving.limits import ServerLimits
from culturepark.serving.local_answers import LocalAnswers
from culturepark.serving.model_server import ModelServer
from culturepark.testing.server import Server

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
)


@pytest.fixture
def said():
    return []


@pytest.fixture
def server(said):
    limits = ServerLimits(request=2_000, file=3_000, files=5_000, idle=0.4)
    with Server(lambda number, body: "Tea.", limits=limits, tell=said.append) as running:
        yield running


def chat(server, text):
    body = {"model": "embedded", "messages": [{"role": "user", "content": text}]}
    return httpx.post(f"{server.url}/chat/completions", json=body)


def upload(server, size):
    files = {"file": ("a.jsonl", b"x" * size), "purpose": (None, "batch")}
    return httpx.post(f"{server.url}/files", files=files)


def connect(server):
    return socket.create_connection(
        ("127.0.0.1", int(server.url.split(":")[2].split("/")[0])), timeout=30
    )


def test_a_request_beyond_its_limit_is_refused_said_once_and_counted(server, said):
    assert [chat(server, "tea " * n).status_code for n in (9, 900, 900)] == [200, 413, 413]
    assert "larger than 2000 bytes" in chat(server, "tea " * 900).json()["error"]["message"]
    assert len(said) == 1 and server.counts["limits"] == {"request": 3}


def test_a_request_without_a_length_is_measured_as_it_comes(server):
    made = httpx.post(f"{server.url}/chat/completions", content=(b"x" * 500 for _ in range(9)))
    assert made.status_code == 413 and server.counts["limits"] == {"request": 1}


def test_files_are_bounded_one_by_one_and_together_until_some_are_deleted(server):
    assert (
        upload(server, 4_000)
        .json()["error"]["message"]
        .startswith("The file is larger than 3000 bytes")
    )
    kept = [upload(server, 2_400) for _ in range(3)]
    assert [r.status_code for r in kept] == [200, 200, 413]
    assert "All files together are larger than 5000 bytes" in kept[2].json()["error"]["message"]
    httpx.delete(f"{server.url}/files/{kept[0].json()['id']}")
    assert upload(server, 2_400).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", HEAD])
def test_a_connection_that_sends_no_whole_request_is_closed(server, said, sent):
    with connect(server) as open_one:
        open_one.sendall(sent)
        assert open_one.recv(1) == b""
    assert "closed" in said[0] and server.counts["limits"] == {"idle": 1}


def test_a_connection_that_dribbles_is_closed_all_the_same(server):
    with connect(server) as open_one, pytest.raises(OSError):
        for byte in HEAD * 99:
            open_one.sendall(bytes([byte]))
            time.sleep(0.02)


def test_a_body_that_does_not_arrive_is_given_up_and_said_so(server):
    with connect(server) as open_one:
        open_one.sendall(HEAD + b'Content-Length: 900\r\n\r\n{"model"')
        assert b"408" in open_one.recv(999) or b"did not arrive" in open_one.recv(999)


async def test_a_slow_answer_is_no_idle_connection():
    async def slow(number, body):
        await asyncio.sleep(1.0)
        return "Tea."

    with Server(slow, limits=ServerLimits(idle=0.3)) as running:
        made = await asyncio.to_thread(chat, running, "tea")
    assert made.status_code == 200 and running.counts["limits"] == {}


def test_every_limit_is_an_option_of_its_server_and_is_named_by_its_refusal(server, said):
    from culturepark.cli.commands import serve_embedded
    from culturepark.serving.limits import OPTIONS

    assert set(OPTIONS) == {f.name for f in dataclasses.fields(ServerLimits)}
    assert set(OPTIONS.values()) <= {name for o in serve_embedded.params for name in o.opts}
    assert "--max-file raises" in upload(server, 4_000).json()["error"]["message"]
    chat(server, "tea " * 900)
    assert "--max-request raises" in said[1]


def test_limits_are_numbers_above_0():
    with pytest.raises(InputError, match="idle is 0"):
        ServerLimits(idle=0)


def test_a_prompt_that_cannot_fit_is_refused_without_being_read_whole(small):
    with ModelServer(LocalAnswers([str(small)]).load()) as running:
        for path, body in (
            (
                "/chat/completions",
                {"messages": [{"role": "user", "content": "tea and rye " * 10**6}]},
            ),
            ("/completions", {"prompt": "tea and rye " * 10**6}),
        ):
            before = time.process_time()
            made = httpx.post(running.url + path, json={"model": "small", **body}, timeout=60)
            assert (
                made.status_code == 400
                and made.json()["error"]["code"] == "context_length_exceeded"
            )
            assert time.process_time() - before < 3  # reading all of it takes twelve
        assert httpx.get(running.url.removesuffix("/v1") + "/counts").json()["limits"] == {}
