"""Calls in waves through a batch API, over real HTTP: what is asked together is sent once, fetched
once, and paid half.
"""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from conftest import TEA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_reading import JSONS

import culturepark as cp
from culturepark.errors import ModelError
from culturepark.llm import load
from culturepark.llm.batch_backends import OpenAIBackend, parse_results
from culturepark.llm.budget import Budget
from culturepark.llm.codec import ProviderError
from culturepark.records import Message, Request
from culturepark.settings import Endpoint
from culturepark.store import RunStore
from culturepark.testing.server import Server

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, and a key that most of these servers do not ask for."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("LINGER", "POLL"):
        monkeypatch.setattr(f"culturepark.llm.batch.{name}", 0.05)
    for module in ("client", "batch_backends"):
        monkeypatch.setattr(f"culturepark.llm.{module}.JITTER", lambda state: 0.02)


def request(n):
    return Request("delegate", (Message("user", f"What is number {n}?"),), max_tokens=50, seed=n)


def line(server, journal=None, name="openai/embedded", **how):
    made = load(name, Endpoint(base_url=server.url, **how), batch=True)
    if journal is not None:
        made.attach(journal, None)
    return made


async def ask(line, numbers, journal=None):
    """Ask all at once, write the answers down as a run does, and return the replies."""

    async def one(n):
        reply = await line.complete(request(n))
        if journal is not None:
            journal.add_call(request(n).key(line.identity), "test", "delegate", reply)
        return reply

    try:
        return await asyncio.gather(*(one(n) for n in numbers))
    finally:
        await line.close()


def batches(server):
    return [s for s in server.seen if s["path"] == "/v1/batches"]


def echo(number, body):
    return "Answer to: " + body["messages"][-1]["content"]


def texts(numbers):
    return [f"Answer to: What is number {n}?" for n in numbers]


class Front:
    """A server before a server: `alter` may answer (status, JSON body) by method and path, or see
    and change what it said.
    """

    def __init__(self, behind, alter):
        class Handler(BaseHTTPRequestHandler):
            def do(self):
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kept = {
                    k: v for k, v in self.headers.items() if k in ("Content-Type", "Authorization")
                }
                path = self.path.removeprefix("/v1")

                def ahead():
                    got = httpx.request(self.command, behind.url + path, content=data, headers=kept)
                    return got.status_code, got.content

                status, body = alter(self.command, path, ahead) or ahead()
                if status is None:  # the connection breaks
                    return
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header(
                    "Content-Type", "text/html" if body.startswith(b"<") else "application/json"
                )
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do  # noqa: N815

            def log_message(self, *args):
                """Keep quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def front():
    """Start a front before a server of echoes."""
    with Server(echo) as behind:
        fronts = []

        def start(alter):
            fronts.append(Front(behind, alter))
            fronts[-1].behind = behind
            return fronts[-1]

        yield start
        for made in fronts:
            made.http.shutdown()
            made.http.server_close()


def once(method, path, answer, then=None):
    """Alter the first exchange of this kind only."""
    met = []

    def alter(m, p, ahead):
        if m == method and p.partition("?")[0] == path and not met:
            met.append(p)
            if then:
                ahead()
            return answer
        return None

    return alter


@pytest.mark.parametrize("name", ["openai/embedded", "litellm/openai/embedded"])
async def test_what_is_asked_together_is_one_batch_answered_whole_and_paid_half(name):
    with Server(echo) as server:
        replies = await ask(
            line(server, name=name, prompt_price=2.0, completion_price=4.0), range(30)
        )
        assert [r.text for r in replies] == texts(range(30)) and len(batches(server)) == 1
        assert server.counts["requests"] == 30 and not [
            s for s in server.seen if "completions" in s["path"]
        ]
    for r in replies:
        full = (2.0 * r.prompt_tokens + 4.0 * r.completion_tokens) / 1e6
        assert (r.status, r.attempts) == ("ok", 1) and r.usd == pytest.approx(full / 2)


async def test_waves_are_bounded_and_several_are_pending_at_once_and_logged(monkeypatch, caplog):
    caplog.set_level("INFO", "culturepark")
    monkeypatch.setattr("culturepark.llm.batch.REQUESTS", 10)
    with Server(echo, batch_seconds=0.2) as server:
        assert [r.text for r in await ask(line(server), range(25))] == texts(range(25))
        assert len(batches(server)) == 3 and server.counts["requests"] == 25
    told = [(r.event, getattr(r, "requests", None)) for r in caplog.records if hasattr(r, "event")]
    told = sorted((t for t in told if t[0] != "batch_status"), key=str)
    assert told == [("batch_done", None)] * 3 + [("batch_sent", 10)] * 2 + [("batch_sent", 5)]


def stay(status, looks):
    """Let a batch have this status for so many looks at it."""
    seen = []

    def alter(method, path, ahead):
        if method == "GET" and path.startswith("/batches/batch_") and len(seen) < looks:
            seen.append(path)
            return 200, {**json.loads(ahead()[1]), "status": status, "output_file_id": None}
        return None

    return alter


async def test_where_a_batch_stands_is_told_at_the_first_look_and_when_it_changes(front, caplog):
    caplog.set_level("INFO", "culturepark")
    server = front(stay("Simmering", 3))
    assert [r.text for r in await ask(line(server), range(2))] == texts(range(2))
    told = [r.getMessage() for r in caplog.records if getattr(r, "event", "") == "batch_status"]
    assert (
        len(told) == 1
        and "'simmering', which CulturePark does not know" in told[0]
        and "in 0 s" in told[0]
    )


async def test_a_status_that_nobody_knows_is_waited_for_no_longer_than_a_failing_api(
    front, monkeypatch, tmp_path
):
    monkeypatch.setattr("culturepark.llm.batch.PENDING_PATIENCE", 0.2)
    with (
        RunStore(tmp_path) as journal,
        pytest.raises(ModelError, match=r"been 'simmering' for .* CulturePark does not know"),
    ):
        await ask(line(front(stay("simmering", 999)), journal), range(2), journal)
    with RunStore(tmp_path) as journal:
        assert [status for (status,) in journal.select("SELECT status FROM waves")] == ["pending"]


async def test_lines_that_fail_in_passing_go_into_later_waves():
    with Server(echo, faults={"429": 0.15, "500": 0.15}, seed=3) as server:
        replies = await ask(line(server), range(40))
        assert [r.text for r in replies] == texts(range(40))
        assert sum(server.counts["faults"].values()) == server.counts["requests"] - 40 > 5
        assert max(r.attempts for r in replies) > 1 and len(batches(server)) > 1


async def test_a_line_refused_for_a_parameter_is_sent_in_other_words_and_a_hopeless_one_ends_the_run():  # noqa: E501
    def picky(number, body):
        if "max_tokens" in body:
            said = {
                "message": "Use 'max_completion_tokens' instead of max_tokens.",
                "param": "max_tokens",
            }
            return 400, {}, {"error": said}
        return (
            (401, {}, {"error": {"message": f"bad key {KEY}"}})
            if "number 7?" in str(body)
            else echo(number, body)
        )

    with Server(picky) as server:
        assert [r.text for r in await ask(line(server), range(5))] == texts(range(5)) and len(
            batches(server)
        ) == 2
        with pytest.raises(ModelError, match="key was refused") as caught:
            await ask(line(server), range(6, 9))
        assert KEY not in str(caught.value)


async def test_what_a_batch_had_no_time_for_is_asked_again():
    with Server(echo, faults={"expire": 0.24}, seed=0) as server:
        replies = await ask(line(server), range(8))
        assert [r.text for r in replies] == texts(range(8)) and server.counts["faults"] == {
            "expire": 1
        }
        assert server.counts["requests"] == 8, (
            "what expired was not answered, and what was answered is not asked again"
        )


async def test_a_refused_batch_is_told_with_its_errors(front, tmp_path):
    errors = {
        "data": [
            {
                "code": "model_not_found",
                "message": f"No batches of this model for {KEY}.",
                "line": 1,
            }
        ]
    }

    def alter(method, path, ahead):
        if method == "GET" and path.startswith("/batches/batch_"):
            return 200, {
                **json.loads(ahead()[1]),
                "status": "failed",
                "errors": errors,
                "output_file_id": None,
            }
        return None

    with (
        RunStore(tmp_path) as journal,
        pytest.raises(ModelError, match="as a whole: line 1: No batches of") as caught,
    ):
        await ask(line(front(alter), journal), range(3), journal)
    assert KEY not in str(caught.value) and "model_not_found" in str(caught.value)


async def test_a_batch_for_which_the_queue_has_no_room_is_handed_in_again(front):
    full = {
        "data": [
            {
                "code": "token_limit_exceeded",
                "message": "Enqueued token limit reached.",
                "line": None,
            }
        ]
    }
    looks = []

    def alter(method, path, ahead):
        if method == "GET" and path.startswith("/batches/batch_") and len(looks) < 2:
            looks.append(path)
            return 200, {
                **json.loads(ahead()[1]),
                "status": "failed",
                "errors": full,
                "output_file_id": None,
            }
        return None

    server = front(alter)
    assert [r.text for r in await ask(line(server), range(3))] == texts(range(3))
    sent = batches(server.behind)
    assert (
        len(sent) == 3
        and len({s["input_file_id"] for s in sent}) == 1
        and len({s["metadata"]["culturepark"] for s in sent}) == 1
    )


@pytest.mark.parametrize("name", ["openai/embedded", "litellm/openai/embedded"])
async def test_an_endpoint_without_a_batch_api_is_told(front, name):
    server = front(lambda method, path, ahead: (404, {"error": {"message": "Not Found"}}))
    with pytest.raises(ModelError, match="this endpoint has no batch API; run without --batch"):
        await ask(line(server, name=name), range(3))


async def test_a_provider_whose_batches_litellm_does_not_know_and_a_wrong_key_are_told(front):
    with pytest.raises(ModelError, match="no batch API; run without --batch"):
        await ask(line(front(lambda *_: None), name="litellm/cohere/embedded"), range(2))
    with (
        Server(echo, key="another") as server,
        pytest.raises(ModelError, match="key was refused") as caught,
    ):
        await ask(line(server), range(2))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("POST", "/files", (503, {"error": {"message": "busy"}})),
        ("POST", "/files", (None, b"")),
        ("POST", "/batches", (429, {"error": {"message": "slow down"}})),
        ("GET", "/batches/batch_00000002", (500, {"error": {"message": "oops"}})),
        ("GET", "/batches/batch_00000002", (404, {"error": {"message": "not here yet"}})),
        ("GET", "/batches/batch_00000002", (200, b"<html>Welcome to the train's network</html>")),
        (
            "GET",
            "/files/file-00000003/content",
            (200, b"<html>Welcome to the train's network</html>"),
        ),
    ],
)
async def test_a_batch_api_that_fails_in_passing_is_asked_again(front, method, path, answer):
    server = front(once(method, path, answer))
    assert [r.text for r in await ask(line(server), range(4))] == texts(range(4))
    assert len(batches(server.behind)) == 1 and server.behind.counts["requests"] == 4


async def test_a_batch_whose_making_was_not_heard_of_is_found_and_not_made_twice(front):
    server = front(once("POST", "/batches", (None, b""), then=True))
    assert [r.text for r in await ask(line(server), range(4))] == texts(range(4))
    assert len(batches(server.behind)) == 1 and server.behind.counts["requests"] == 4


async def test_a_batch_api_that_stays_away_ends_the_run_and_leaves_the_batch_pending(
    front, monkeypatch, tmp_path
):
    monkeypatch.setattr("culturepark.llm.batch.PENDING_PATIENCE", 0.1)
    server = front(lambda method, path, ahead: (503, {}) if "/batches/" in path else None)
    with (
        RunStore(tmp_path) as journal,
        pytest.raises(ModelError, match="start it again when it is back"),
    ):
        await ask(line(server, journal), range(3), journal)
    with RunStore(tmp_path) as journal:
        ((_, batch, status, keys),) = journal.read_batches(line(server).identity)
        assert batch and status == "pending" and len(keys) == 3


async def interrupted(server, journal, numbers):
    """Ask, and be stopped when the batch is pending."""
    asking = asyncio.create_task(ask(line(server, journal), numbers, journal))
    while (
        not journal.read_batches(line(server).identity)
        or journal.read_batches(line(server).identity)[0][2] != "pending"
    ):
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_pending_batch_is_taken_over_when_the_run_goes_on(tmp_path):
    with Server(echo, batch_seconds=0.5) as server:
        with RunStore(tmp_path) as journal:
            await interrupted(server, journal, range(6))
        with RunStore(tmp_path) as journal:
            first = await ask(
                line(server, journal), range(2), journal
            )  # somebody asks for a part of it only
            assert journal.read_batches(line(server).identity), (
                "there is more in it that may be asked for"
            )
        with RunStore(tmp_path) as journal:
            replies = await ask(line(server, journal), range(2, 8), journal)
            assert [r.text for r in first + replies] == texts(
                range(8)
            ) and not journal.read_batches(line(server).identity)
        assert len(batches(server)) == 2 and server.counts["requests"] == 8, (
            "only what is new was sent"
        )


async def test_what_is_asked_late_of_a_fetched_batch_is_there(tmp_path):
    with Server(echo) as server, RunStore(tmp_path) as journal:
        await interrupted(server, journal, range(4))
        made = line(server, journal)
        replies = [await made.complete(request(n)) for n in range(4)]
        await made.close()
        assert [r.text for r in replies] == texts(range(4)) and server.counts["requests"] == 4
        assert not journal.read_batches(made.identity)


async def test_a_batch_whose_id_was_not_written_down_is_found_and_a_wave_that_never_left_is_forgotten(  # noqa: E501
    tmp_path,
):
    with Server(echo) as server, RunStore(tmp_path) as journal:
        await interrupted(server, journal, range(4))
        identity = line(server).identity
        ((wave, _, _, keys),) = journal.read_batches(identity)
        journal.set_batch(wave, identity, None, "sending", keys)
        journal.set_batch("never-left", identity, None, "sending", [request(9).key(identity)])
        assert [r.text for r in await ask(line(server, journal), [*range(4), 9], journal)] == texts(
            [*range(4), 9]
        )
        assert (
            len(batches(server)) == 2
            and server.counts["requests"] == 5
            and not journal.read_batches(identity)
        )


async def test_a_batch_that_is_gone_is_asked_again_and_one_that_was_cancelled_keeps_what_it_answered(  # noqa: E501
    tmp_path,
):
    with Server(echo) as server, RunStore(tmp_path) as journal:
        identity = line(server).identity
        journal.set_batch("gone", identity, "batch_gone", "pending", [request(0).key(identity)])
        assert [r.text for r in await ask(line(server, journal), [0], journal)] == texts([0])
    with Server(echo, batch_seconds=2.0) as server, RunStore(tmp_path / "other") as journal:
        asking = asyncio.create_task(ask(line(server, journal), range(20), journal))
        while server.counts["requests"] < 3:
            await asyncio.sleep(0.01)
        ((_, batch, _, _),) = journal.read_batches(line(server).identity)
        await asyncio.to_thread(httpx.post, f"{server.url}/batches/{batch}/cancel")
        with pytest.raises(ModelError, match=r"was cancelled, by somebody with access .* --resume"):
            await asking
        ((answered,),) = journal.select("SELECT COUNT(*) FROM calls WHERE status = 'ok'")
        assert answered == server.counts["answered"] >= 3 and not journal.read_batches(
            line(server).identity
        )


async def test_a_line_that_neither_file_has_is_asked_again(front):
    def alter(method, path, ahead):
        if path.endswith("/content") and not met:
            met.append(path)
            return 200, ahead()[1].split(b"\n")[0] + b"\nno json\n"
        return None

    met = []
    server = front(alter)
    replies = await ask(line(server), range(3))
    assert [r.text for r in replies] == texts(range(3)) and sum(r.lost for r in replies) == 2


async def test_a_mistake_in_here_reaches_everybody_who_waits(monkeypatch):
    async def broken(self, name, data):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(OpenAIBackend, "upload", broken)
    with Server(echo) as server, pytest.raises(RuntimeError, match="a mistake"):
        await asyncio.wait_for(ask(line(server), range(3)), 5)


def test_a_whole_run_goes_through_batches_and_writes_no_key(park):
    with Server(key=KEY) as server:
        run = cp.run(
            "tea",
            model="openai/embedded",
            base_url=server.url,
            batch=True,
            dialogues=3,
            turns=4,
            **TEA,
        )
        sent = len(batches(server))
        assert 0 < sent < server.counts["requests"] and not [
            s for s in server.seen if "completions" in s["path"]
        ]
        with run.open_store() as journal:
            assert not journal.select("SELECT 1 FROM waves WHERE status != 'done'")
    assert not [p for p in run.folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


async def test_a_capped_batch_that_was_interrupted_is_on_the_bill_once(tmp_path):
    async def capped(journal):
        made = line(server, journal, prompt_price=1.0, completion_price=1.0)
        made.budget = Budget(journal, max_usd=1.0)
        try:
            return await asyncio.gather(*(made.complete(request(n)) for n in range(6)))
        finally:
            await made.close()

    with Server(echo, batch_seconds=0.5) as server:
        with RunStore(tmp_path) as journal:
            asking = asyncio.create_task(capped(journal))
            while (
                not journal.read_batches(line(server).identity)
                or journal.read_batches(line(server).identity)[0][2] != "pending"
            ):
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        with RunStore(tmp_path) as journal:
            held, _ = journal.sum_spent()
            replies = await capped(journal)
            for n, reply in enumerate(replies):
                journal.add_call(f"k{n}", "s", "delegate", reply)
            spent, _ = journal.sum_spent()
            assert journal.select("SELECT COUNT(*) FROM holds") == [(0,)]
        assert spent == pytest.approx(sum(r.usd for r in replies)) and 0 < spent < held


async def test_a_wave_of_failures_is_no_dead_endpoint():
    with Server(
        lambda n, body: (500, {}, {}) if n <= 30 else echo(n, body), batch_seconds=0.3
    ) as server:
        replies = await ask(line(server, patience=0.1), range(15))
    assert [r.text for r in replies] == texts(range(15))


async def test_a_file_store_that_fails_is_told_at_the_first_retry_with_what_to_do(
    front, caplog, monkeypatch
):
    monkeypatch.setattr("culturepark.llm.batch.PATIENCE", 2.0)
    broken = front(lambda method, path, ahead: (500, {"error": {"message": "the store is full"}}))
    with pytest.raises(ModelError, match=r"the store is full.*--resume without --batch"):
        await ask(line(broken), [1])
    first = next(r for r in caplog.records if r.levelname == "WARNING")
    assert (
        "the batch API fails and is asked again" in first.message
        and "the store is full" in first.message
    )


@given(JSONS, JSONS, st.integers() | JSONS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_line_of_a_batchs_file_is_an_answer_or_a_failure_of_a_kind(response, error, status):
    rows = [
        {"custom_id": "a", "response": response, "error": error},
        {"custom_id": "b", "response": {"status_code": status, "body": response}},
    ]
    found = dict(parse_results("\n".join(json.dumps(r) for r in rows).encode()))
    assert all(isinstance(o, ProviderError | dict) for o in found.values())
