"""Addresses without secrets, proxies by one rule, and bounds on what an endpoint may send and ask
for.
"""

import asyncio
import gzip
import json
import logging
import subprocess
import sys
import threading
import zlib
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from conftest import TEA, said
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark import keys
from culturepark.errors import ModelError, ParkError
from culturepark.keys import holds_secret, join_address, redact, strip_addresses
from culturepark.llm.codec import classify_error, parse_retry_after
from culturepark.llm.proxies import proxy_for
from culturepark.records import Message, Request

KEY = "sk-9d1f6e0c2b7a"
ASK = Request("delegate", (Message("user", "Hello?"),))
WITH_KEYS = (
    f"https://gate.example/v1?jwt={KEY}",
    f"https://gate.example/v1/{KEY}/x",
    f"https://gate.example/v1#{KEY}",
    f"me:{KEY}@gate.example/v1",
    f"http:\\\\me:{KEY}@gate.example/v1",
    f"https://user:{KEY}@gate.example/v1",
    f"http://{KEY}@127.0.0.1:1/v1",
    f"https://gate.example/v1?api_key={KEY}",
    f"https://gate.example/v1?x=1&subscription-key={KEY}#a",
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


# ------------------------------------------------------------------- secrets


@pytest.mark.parametrize("url", WITH_KEYS)
@pytest.mark.parametrize("model", ["openai/some", "anthropic/some", "hosted_vllm/some"])
def test_an_address_with_a_secret_is_refused_and_written_nowhere(park, model, url):
    command = [
        sys.executable,
        "-m",
        "culturepark",
        "run",
        "tea",
        "--model",
        model,
        "--base-url",
        url,
        "--turns",
        "4",
    ]
    done = subprocess.run(command, cwd=park, capture_output=True, text=True)
    assert done.returncode == 2 and "environment" in done.stderr
    written = [p.read_bytes() for p in (park / "outputs").rglob("*") if p.is_file()]
    assert not any(
        KEY.encode() in text for text in (*written, done.stdout.encode(), done.stderr.encode())
    )


def test_an_address_in_the_environment_is_held_to_the_same_rule(park, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", WITH_KEYS[0])
    with pytest.raises(ParkError, match="OPENAI_BASE_URL") as error:
        cp.run("tea", model="openai/some", **TEA)
    assert KEY not in str(error.value)


def test_a_key_in_the_place_of_its_variables_name_is_refused_unseen(park):
    with pytest.raises(ParkError, match="NAME of an environment variable") as error:
        cp.run("tea", model="openai/some", endpoints={"openai/some": {"key_env": KEY}}, **TEA)
    assert KEY not in str(error.value) and not (park / "outputs/tea/run.toml").exists()


@given(
    st.text(),
    st.sampled_from(
        [f"https://user:{KEY}@gate.example/v1", f"https://gate.example/v1?x=1&api_key={KEY}"]
    ),
    st.text(),
)
def test_no_text_around_an_address_brings_its_key_to_light(before, url, after):
    assert KEY not in redact(f"{before} {url} {after}")


@pytest.mark.parametrize(
    "spell",
    [
        str,
        lambda k: quote(k, safe=""),
        lambda k: b64encode(k.encode()).decode(),
        lambda k: k[:12] + "...",
        lambda k: k.replace("-", "\\u002d"),
    ],
)
def test_a_key_said_back_in_another_form_is_not_shown(spell):
    keys.remember("sk-proj/AbC+9d1f6e0c2b7a")
    shown = redact(f"invalid key {spell('sk-proj/AbC+9d1f6e0c2b7a')}, try again")
    assert "AbC" not in shown and "6e0c2" not in shown and shown.endswith("[key], try again")


def test_a_key_that_is_a_word_changes_no_answer(serve):
    server = serve(lambda n, body: (200, {}, said("Most people here are local people.")))
    model = cp.model("openai/some", base_url=server.url, key="people")
    assert asyncio.run(model.complete(ASK)).text == "Most people here are local people."
    asyncio.run(model.close())


def test_keys_that_litellm_finds_in_the_environment_are_not_shown(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-AbC/def+1234567")
    cp.model("anthropic/claude-some", base_url="http://127.0.0.1:9").check()
    assert redact("invalid sk-ant-AbC/def+1234567") == "invalid [key]"


def test_a_key_with_a_line_break_and_a_variable_that_is_not_set_are_errors_at_once():
    with pytest.raises(ModelError, match="line break"):
        cp.model("openai/some", base_url="http://127.0.0.1:9/v1", key="sk-abc\ndef-123456").check()
    with pytest.raises(ModelError, match="key_env names"):
        cp.model(
            "openai/some", base_url="http://127.0.0.1:9/v1", key_env="NOT_SET_ANYWHERE"
        ).check()


@pytest.mark.parametrize(
    "url", ["http://[::1/v1", "http://", "http://127.0.0.1:99999/v1", "ftp://a.example/v1"]
)
def test_what_is_no_address_is_one_error(url):
    with pytest.raises(ParkError, match=r"address|host|begin with"):
        cp.model("openai/some", base_url=url)


@pytest.mark.parametrize(
    "proxy", ["htp://127.0.0.1:1", "http://127.0.0.1:abc", "http://[::1", "http://"]
)
def test_a_proxy_that_is_no_address_is_one_error(no_proxies, proxy):
    no_proxies.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ModelError, match="is no address"):
        cp.model("openai/some", base_url="http://gate.example/v1").check()


def test_an_address_holds_for_hosted_readers_of_an_embedded_run_too():
    readers = {"extractor": "openai/m", "verifier": "openai/m"}
    settings = cp.Settings(models=readers, base_url="http://127.0.0.1:9101/v1")
    assert settings.endpoint("openai/m").base_url == "http://127.0.0.1:9101/v1"
    several = cp.Settings(
        models=readers | {"rewriter": "groq/n"}, base_url="http://127.0.0.1:9101/v1"
    )
    assert several.addressed_provider() is None


def test_ordinary_addresses_and_texts_are_left_as_they_are():
    for text in (
        "http://localhost:8000/v1",
        "https://a.example/v1?api-version=2024-02-01",
        "mail me@example.org",
        "1 < 2 @ 3",
    ):
        assert strip_addresses(text) == text
    assert not holds_secret("http://localhost:8000/v1") and not holds_secret(
        "https://a.example/v1?api-version=2024-02-01"
    )
    assert (
        join_address("https://a.example/v1/?api-version=2", "models")
        == "https://a.example/v1/models?api-version=2"
    )


# ------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://a.example/v1", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example/v1", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://a.example/v1", None),
        ({"ALL_PROXY": "http://p:1"}, "http://a.example/v1", "http://p:1"),
        ({"all_proxy": "p:1"}, "http://a.example/v1", "http://p:1"),
        (
            {"ALL_PROXY": "http://p:1", "HTTP_PROXY": "http://q:2"},
            "http://a.example/v1",
            "http://q:2",
        ),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "a.example"}, "http://a.example:8000/v1", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": ".example"}, "http://a.example/v1", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*.example, x"}, "http://a.example/v1", None),
        (
            {"ALL_PROXY": "http://p:1", "NO_PROXY": "a.example:80"},
            "http://a.example:81/v1",
            "http://p:1",
        ),
        (
            {"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8,::1"},
            "http://10.3.4.5:8000/v1",
            None,
        ),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://11.3.4.5/v1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, "http://[fd00::7]:8000/v1", None),
        (
            {"ALL_PROXY": "socks5://p:1", "NO_PROXY": "127.0.0.0/8"},
            "http://127.0.0.1:8000/v1",
            None,
        ),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://a.example/v1", None),
    ],
)
def test_which_proxy_an_address_is_reached_through(no_proxies, environment, url, proxy):
    for name, value in environment.items():
        no_proxies.setenv(name, value)
    assert proxy_for(url) == proxy


def test_a_socks_proxy_without_its_library_is_one_error_before_any_call(no_proxies, monkeypatch):
    import culturepark.llm.proxies as proxies

    monkeypatch.setattr(proxies, "find_spec", lambda name: None)
    no_proxies.setenv("ALL_PROXY", f"socks5://me:{KEY}@127.0.0.1:9")
    for name in ("openai/some", "anthropic/claude-some"):
        model = cp.model(name, base_url="http://gate.example/v1", key=None)
        with pytest.raises(ModelError, match=r"culturepark\[socks\]") as error:
            model.check()
        assert KEY not in str(error.value) and "\n" not in str(error.value)


def test_all_proxy_is_used_and_no_proxy_heeded(no_proxies, serve):
    server = serve(lambda n, body: (200, {}, said("Good day.")))
    no_proxies.setenv("ALL_PROXY", server.url.removesuffix("/v1"))
    assert asyncio.run(answer("http://gate.example/v1")).text == "Good day."
    assert server.seen[-1]["path"] == "http://gate.example/v1/chat/completions"
    no_proxies.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    no_proxies.setenv("NO_PROXY", "127.0.0.1")
    assert asyncio.run(answer(server.url)).text == "Good day."


def test_a_dead_proxy_is_named_in_the_error_without_its_password(no_proxies, monkeypatch):
    from culturepark.llm import rate_limiter

    monkeypatch.setattr(rate_limiter, "UNREACHED", 0.2)
    no_proxies.setenv("ALL_PROXY", f"http://me:{KEY}@127.0.0.1:9")
    with pytest.raises(
        ModelError, match=r"through the proxy http://127.0.0.1:9 of the environment"
    ) as error:
        asyncio.run(answer("http://gate.example/v1"))
    assert KEY not in str(error.value)


async def answer(url, **how):
    model = cp.model("openai/some", base_url=url, **how)
    try:
        return await model.complete(ASK)
    finally:
        await model.close()


# -------------------------------------------------------------------- bounds


class Raw:
    """A server that answers every request with these bytes and headers."""

    def __init__(self, data, **headers):
        outer = self
        outer.served = 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.served += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                """Keep quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


BODY = json.dumps(said("Good day.")).encode()
BOMB = gzip.compress(b'{"choices": "' + b"0" * 50_000_000 + b'"}')


@pytest.mark.parametrize(("data", "packed"), [(b" " * 3_000_000 + BODY, None), (BOMB, "gzip")])
def test_an_answer_that_is_too_large_fails_alone_and_is_asked_once(data, packed):
    with Raw(data, **({"Content_Encoding": packed} if packed else {})) as server:
        reply = asyncio.run(answer(server.url, max_reply_mb=2))
    assert (
        reply.status == "failed"
        and "larger than 2 MB" in reply.reason
        and "max_reply_mb" in reply.reason
    )
    assert (server.served, reply.lost) == (1, 1)  # it may have been billed


@pytest.mark.parametrize(
    ("data", "packed"),
    [
        (gzip.compress(BODY), "gzip"),
        (gzip.compress(BODY[:20]) + gzip.compress(BODY[20:]), "gzip"),
        (gzip.compress(gzip.compress(BODY)), "gzip, gzip"),
        (zlib.compress(BODY), "deflate"),
        (zlib.compress(BODY, wbits=-15), "deflate"),
        (BODY, "UTF-8"),
    ],
)
def test_packed_answers_are_read(data, packed):
    with Raw(data, Content_Encoding=packed) as server:
        assert asyncio.run(answer(server.url)).text == "Good day."


def test_a_packing_that_was_not_asked_for_or_is_broken_is_named(monkeypatch):
    from culturepark.llm import client

    monkeypatch.setitem(client.TRIES, "garbled", 1)
    for data, packed in (
        (BODY, "br"),
        (b"\x1f\x8b nonsense", "gzip"),
        (gzip.compress(BODY)[:-9], "gzip"),
    ):
        with Raw(data, Content_Encoding=packed) as server:
            assert "packed" in asyncio.run(answer(server.url)).reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500", "Retry-After": "7"}, 1.5),
        ({"retry-after-ms": "abc"}, None),
        ({"retry-after-ms": "abc", "Retry-After": "7"}, 7.0),
        ({"Retry-After": "inf"}, float("inf")),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Mon, 01 Jan 99999 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_how_long_a_provider_asks_to_wait(headers, seconds):
    assert classify_error(429, "{}", headers).wait == seconds


@given(st.text(), st.text())
def test_no_header_of_waiting_is_an_error(ms, after):
    wait = parse_retry_after({"retry-after-ms": ms, "retry-after": after})
    assert wait is None or wait >= 0


def test_a_wait_without_end_is_bounded_and_reported(serve, caplog):
    forever = {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}
    server = serve(lambda n, body: (429, forever, {}) if n == 1 else (200, {}, said("Good day.")))
    with caplog.at_level(logging.WARNING, "culturepark"):
        assert asyncio.run(answer(server.url, max_wait=0.1)).text == "Good day."
    assert "asked again after 0.1 s (max_wait)" in caplog.text
