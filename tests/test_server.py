"""The local server: any OpenAI client may use it, it faults on demand, and whole runs go through
it.
"""

import asyncio
import gc
import json
import time

import httpx
import openai
import pytest
from conftest import TEA

import culturepark as cp
from culturepark import workspace as cards
from culturepark.errors import InputError
from culturepark.llm.facts import FactSender, pack_request, unpack_request
from culturepark.llm.session import build_single_request
from culturepark.local_models.chat import fold
from culturepark.offline import Embedded
from culturepark.records import Request
from culturepark.testing.faults import KINDS
from culturepark.testing.server import Server
from culturepark.testing.templated import CannedAnswer

ASK = {
    "model": "embedded",
    "messages": [{"role": "user", "content": "Good morning, what is there to eat today?"}],
}


def hello(number, body):
    return f"Hello number {number}, " + "all is well here. " * 20


def post(server, path="/chat/completions", **more):
    """One plain HTTP request, as no client library would send it."""
    headers = more.pop("headers", {})
    return httpx.post(server.url + path, json={**ASK, **more}, headers=headers, timeout=5)


@pytest.fixture(scope="module")
def server():
    with Server(hello) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(api_key="any", base_url=server.url, max_retries=0) as made:
        yield made


@pytest.fixture
def offline(monkeypatch):
    """A key that no endpoint asks for."""
    monkeypatch.setenv("OPENAI_API_KEY", "unused")


def test_the_openai_client_chats_and_an_answer_is_cut_where_it_is_told(client):
    whole = client.chat.completions.create(**ASK)
    assert (
        whole.choices[0].message.content.startswith("Hello")
        and whole.choices[0].finish_reason == "stop"
    )
    assert whole.usage.prompt_tokens == 4 + len(ASK["messages"][0]["content"]) // 4
    short = client.chat.completions.create(**ASK, max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    assert len(short.choices[0].message.content) == 12


async def test_the_async_client_streams_the_same_text_and_its_usage(server):
    async with openai.AsyncOpenAI(api_key="any", base_url=server.url) as client:
        stream = await client.chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text.startswith("Hello") and text.endswith("all is well here. ") and len(chunks) > 20
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage.completion_tokens > 60


def test_embeddings_are_unit_vectors_that_know_shared_words(client):
    texts = ["tea with bread", "bread with tea", "a long road"]
    a, b, c = (d.embedding for d in client.embeddings.create(model="embedded", input=texts).data)
    assert len(a) == 256 and sum(x * x for x in a) == pytest.approx(1) and a == b != c
    plain = client.embeddings.create(
        model="embedded", input=texts[0], encoding_format="float", dimensions=32
    )
    assert len(plain.data[0].embedding) == 32 and plain.usage.total_tokens == 3


def test_models_are_listed_and_an_unknown_one_a_missing_field_and_a_second_choice_are_refused(
    client, server
):
    assert [m.id for m in client.models.list()] == ["embedded"] and client.models.retrieve(
        "embedded"
    ).id == "embedded"
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**ASK, "model": "gpt-9"})
    assert caught.value.code == "model_not_found"
    for wrong in (
        {"messages": None},
        {"messages": []},
        {"n": 2},
        {"max_tokens": 0},
        {"messages": [{"role": "cook"}]},
    ):
        answer = post(server, **wrong)
        assert (
            answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
        ), wrong
    assert httpx.post(f"{server.url}/chat/completions", content=b"{").status_code == 400
    assert httpx.get(f"{server.url}/nowhere").json()["error"]["code"] == "unknown_url"


def test_a_key_that_is_set_is_asked_for():
    with Server(hello, key="secret") as server:
        assert post(server).json()["error"]["code"] == "invalid_api_key"
        assert post(server, headers={"Authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "127.0.0.1.evil.example"},
    ],
)
def test_a_web_page_elsewhere_is_refused(server, headers):
    assert post(server, headers=headers).status_code == 403
    assert (
        post(server, headers={"Host": "localhost:1", "Origin": "http://localhost:3000"}).status_code
        == 200
    )


@pytest.mark.parametrize("kind", ["429", "500", "503"])
def test_errors_on_demand_are_real_ones(server, kind):
    answer = post(server, headers={"X-Fault": kind})
    assert (
        answer.status_code == int(kind) and "fault on demand" in answer.json()["error"]["message"]
    )
    assert (answer.headers.get("Retry-After") == "1") == (kind == "429")


def test_answers_are_mistreated_on_their_way(server):
    before = server.counts["answered"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/chat/completions", json=ASK, headers={"X-Fault": "hang"}, timeout=0.3
        )
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        post(server, headers={"X-Fault": "reset"})
    with pytest.raises(json.JSONDecodeError):
        post(server, headers={"X-Fault": "truncated"}).json()
    start = time.perf_counter()
    assert (
        post(server, headers={"X-Fault": "drip"}).json()["choices"]
        and time.perf_counter() - start > 0.5
    )
    assert server.counts["answered"] - before == 3, (
        "what was cut on its way was made and counts as answered"
    )


def test_answers_say_what_a_client_must_not_take_for_data(server):
    said = {k: post(server, headers={"X-Fault": k}).json()["choices"][0] for k in KINDS[7:13]}
    content = {kind: choice["message"]["content"] for kind, choice in said.items()}
    assert list(said) == ["schema", "notjson", "empty", "length", "refusal", "filter"]
    assert (
        "unexpected" in json.loads(content["schema"])
        and "{" not in content["notjson"]
        and content["empty"] == ""
    )
    assert (said["length"]["finish_reason"], said["filter"]["finish_reason"]) == (
        "length",
        "content_filter",
    )
    assert said["refusal"]["message"]["refusal"] and content["refusal"] is None


def test_shares_of_faults_are_drawn_by_number_and_what_cannot_be_is_named():
    def statuses(seed):
        with Server(hello, faults={"429": 0.3, "empty": 0.2}, seed=seed) as server:
            return [post(server).status_code for _ in range(40)], server.counts

    (first, counts), (again, _), (other, _) = statuses(1), statuses(1), statuses(2)
    assert (
        first == again != other
        and counts["faults"]["429"] == first.count(429)
        and counts["faults"]["empty"]
    )
    with pytest.raises(InputError, match="Did you mean 'truncated'"):
        Server(hello, faults={"truncate": 0.1})
    with pytest.raises(InputError, match="at most one"):
        Server(hello, faults={"429": 0.6, "500": 0.6})


def test_a_limit_says_when_there_is_room_again(server):
    with Server(hello, rpm=2) as limited:
        answers = [post(limited) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        assert 58 <= int(answers[2].headers["Retry-After"]) <= 60
        assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert "unknown" not in post(server, headers={"X-Fault": "500"}).text
    assert "Did you mean" in post(server, headers={"X-Fault": "emtpy"}).json()["error"]["message"]


def rows(*bodies):
    """A batch's input file."""
    lines = [
        {"custom_id": f"row-{i}", "method": "POST", "url": "/v1/chat/completions", "body": b}
        for i, b in enumerate(bodies)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def batch(client, data, **more):
    """Upload, create, and wait for the end."""
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )
    while made.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.02)
        made = client.batches.retrieve(made.id)
    return made


def lines(client, file):
    return [json.loads(line) for line in client.files.content(file).text.splitlines()]


def test_a_batch_answers_line_by_line_and_parts_what_failed(client):
    done = batch(client, rows(ASK, {**ASK, "model": "gpt-9"}, ASK), metadata={"run": "x"})
    assert (
        done.status,
        done.metadata,
        done.request_counts.completed,
        done.request_counts.failed,
    ) == (
        "completed",
        {"run": "x"},
        2,
        1,
    )
    good, bad = lines(client, done.output_file_id), lines(client, done.error_file_id)
    assert [r["custom_id"] for r in good] == ["row-0", "row-2"] and good[0]["error"] is None
    assert good[0]["response"]["body"]["choices"][0]["message"]["content"].startswith("Hello")
    assert (bad[0]["custom_id"], bad[0]["response"]["status_code"]) == ("row-1", 404)
    assert done.id in [b.id for b in client.batches.list(limit=1)]
    client.files.delete(done.output_file_id)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(done.output_file_id)


def test_a_batch_fails_expires_and_is_cancelled_as_theirs_do(client):
    failed = batch(client, rows(ASK) + b"\nno json\n" + rows(ASK))
    assert failed.status == "failed"
    assert [(e.code, e.line) for e in failed.errors.data] == [
        ("invalid_json_line", 2),
        ("duplicate_custom_id", 3),
    ]
    late = batch(client, rows(ASK, ASK), extra_headers={"X-Fault": "expire"})
    assert (
        late.status == "expired"
        and lines(client, late.error_file_id)[0]["error"]["code"] == "batch_expired"
    )
    faulty = batch(client, rows(ASK, ASK), extra_headers={"X-Fault": "429"})
    assert {r["response"]["status_code"] for r in lines(client, faulty.error_file_id)} == {
        429
    } and not faulty.output_file_id
    with (
        Server(hello, batch_seconds=20) as slow,
        openai.OpenAI(api_key="any", base_url=slow.url) as other,
    ):
        file = other.files.create(file=("in.jsonl", rows(*[ASK] * 50)), purpose="batch")
        made = other.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert made.status == "validating" and other.batches.cancel(made.id).status == "cancelling"


def test_your_own_answers_may_be_texts_completions_or_statuses():
    script = [
        "text",
        {"choices": [], "usage": {"prompt_tokens": 5}},
        (418, {"X-Tea": "yes"}, {"a": 1}),
    ]
    with Server(lambda number, body: script[number - 1]) as server:
        first, second, third, fourth = (post(server) for _ in range(4))
    assert (
        first.json()["choices"][0]["message"]["content"] == "text"
        and second.json()["choices"] == []
    )
    assert (third.status_code, third.headers["X-Tea"], third.json()) == (418, "yes", {"a": 1})
    assert fourth.status_code == 500 and "IndexError" in fourth.text
    assert [s["path"] for s in server.seen] == ["/v1/chat/completions"] * 4 and server.counts[
        "answered"
    ] == 2


def test_a_prompt_that_no_card_renders_gets_an_honest_templated_answer(park):
    shape = {
        "type": "object",
        "required": ["n", "tags", "kind"],
        "properties": {
            "n": {"type": "integer", "minimum": 3},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1},
            "kind": {"enum": ["a", "b"]},
        },
        "$defs": {"tag": {"type": "string"}},
    }
    with Server() as server:
        said = [
            post(server, response_format=f).json()["choices"][0]["message"]["content"]
            for f in (
                None,
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "x", "schema": shape}},
            )
        ]
        assert httpx.get(server.url.removesuffix("/v1") + "/counts").json()["answered"] == 3
    assert "templated text by the embedded engine" in said[0] and "note" in json.loads(said[1])
    assert json.loads(said[2]) == {
        "n": 3,
        "tags": ["templated text by the embedded engine"],
        "kind": "a",
    }


def over_the_wire(request):
    """A request as the server reads it out of a body."""
    return unpack_request(json.loads(json.dumps(pack_request(request))))


@pytest.mark.parametrize("role", ["main_contact", "delegate", "extractor", "verifier", "rewriter"])
@pytest.mark.parametrize("style", ["guided", "free"])
async def test_facts_of_every_role_and_of_edited_cards_arrive_as_they_were(park, role, style):
    card = park / "agents/delegate.toml"
    card.write_text(card.read_text().replace("{{ me.age }}", "{{ me.age + 9 }}"))
    turn = 5 if role == "delegate" else 6
    request = cp.show(role, question="T3", style=style, turn=turn, settings=cp.Settings(**TEA))
    arrived = over_the_wire(request)
    records = {k: v for k, v in request.facts.items() if k not in ("survey", "speakers")}
    assert {k: arrived.facts[k] for k in records} == records
    assert pack_request(arrived) == pack_request(request)
    assert await Embedded().complete(arrived) == await Embedded().complete(request)


async def test_facts_serve_however_the_messages_are_put(park, offline):
    request = cp.show("delegate", question="T3", turn=5, settings=cp.Settings(**TEA))
    talk = fold([{"role": m.role, "content": m.content} for m in request.messages])
    with Server() as server:
        answer = post(server, messages=talk, facts=pack_request(request)).json()
    said = (await Embedded().complete(request)).text
    assert answer["choices"][0]["message"]["content"] == said


def test_facts_that_are_none_are_refused_and_other_clients_get_text_that_says_what_it_is():
    with Server() as server:
        for facts in ("x", {}, {"role": "delegate", "seed": 1, "index": 0, "facts": {"me": {}}}):
            assert post(server, facts=facts).json()["error"]["param"] == "facts"
        said = post(server).json()["choices"][0]["message"]["content"]
    assert said.startswith("This is templated text by the embedded engine")


async def test_a_server_that_never_describes_its_models_is_sent_no_facts(monkeypatch):
    monkeypatch.setattr("culturepark.llm.facts.PATIENCE", 0.1)
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1"
    async with silent:
        body = await FactSender(url, "any", None).add_facts({"model": "any"}, Request("judge", ()))
    assert body == {"model": "any"}


async def test_a_question_for_facts_that_nobody_waits_for_any_more_fails_quietly(caplog):
    sender = FactSender("http://127.0.0.1:9/v1", "any", None)
    waiting = asyncio.create_task(sender.add_facts({}, Request("judge", ())))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0.5)
    del sender
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_no_other_server_is_sent_facts(park, offline):
    with Server(lambda number, body: "Tea is good.", models=("tiny",)) as server:
        run = cp.start("tea", model="openai/tiny", base_url=server.url, dialogues=1, **TEA)
        cp.simulate(run)
    assert server.seen and not any("facts" in body for body in server.seen)


def test_a_whole_run_over_http_makes_a_corpus(park, offline):
    with Server() as server:
        run = cp.run(
            "tea", model="openai/embedded", base_url=server.url, dialogues=3, turns=6, **TEA
        )
        assert server.counts["requests"] == server.counts["answered"] > 20
    train = [json.loads(line) for line in (run.corpus / "trl/train.jsonl").read_text().splitlines()]
    assert train and all("templated text" not in row["completion"][0]["content"] for row in train)
    assert {row["metadata"]["culture"] for row in train} == {"north"}


@pytest.mark.parametrize("how", ["json", "text"])
def test_structured_answers_are_understood_however_they_are_asked_for(park, offline, how):
    with Server() as server:
        told = {"openai/embedded": {"structured": how}}
        run = cp.run(
            "tea",
            model="openai/embedded",
            base_url=server.url,
            endpoints=told,
            dialogues=2,
            turns=4,
            **TEA,
        )
    assert cp.calls(run)["failed"] == [] and (run.corpus / "trl/train.jsonl").read_text()


def test_a_run_with_the_shipped_cards_speaks_as_the_engine_does(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        run = cp.start(
            "real",
            model="openai/embedded",
            base_url=server.url,
            cultures=("arabic",),
            dialogues=4,
            turns=6,
        )
        cp.simulate(run)
        cp.refine(run)
        asked = [unpack_request(body["facts"]) for body in server.seen]
    assert {r.role for r in asked} >= {
        "main_contact",
        "delegate",
        "extractor",
        "verifier",
    }
    assert all(r.facts["answer"] is not None for r in asked if r.role in ("delegate", "verifier"))
    assert all(len(r.facts["norms"]) == 8 for r in asked if r.role == "delegate")


async def test_a_thousand_connections_are_held_at_once_and_no_two_answers_are_alike():
    import aiohttp

    with Server(CannedAnswer(40), latency=3.0, keep=False) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one():
                async with session.post(f"{server.url}/chat/completions", json=ASK) as answer:
                    return (await answer.json())["choices"][0]["message"]["content"]

            said = await asyncio.gather(*(one() for _ in range(1200)))
        assert (
            len(set(said)) == 1200
            and 1000 < server.counts["peak_in_flight"] <= 1200
            and not server.seen
        )
    assert server.counts["in_flight"] == 0 and server.counts["completion_tokens"] == 1200 * 40


async def test_it_serves_in_the_callers_loop_and_a_taken_port_is_named():
    server = Server(hello)
    task = asyncio.create_task(server.serve())
    while not server.url:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{server.url}/chat/completions", json=ASK)).status_code == 200
    port = int(server.url.rsplit(":", 1)[1].removesuffix("/v1"))
    with pytest.raises(InputError, match=f"cannot open port {port}"):
        await asyncio.to_thread(Server(hello, port=port).start)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_sits_a_survey_with_a_personas_own_view_and_any_option_for_nobody_in_particular():
    park = cards.load()
    question, me = park.question("world_values", "Q38"), park.persona("arabic/ghadeer")
    options = [o.code for o in question.options]
    told = {
        "culture": park.culture("arabic"),
        "country": None,
        "question": question,
        "numbered": True,
        "options": options,
    }
    for who, view in ((me, me.views["Q38"]), (None, None)):
        facts = {**told, "me": who, "view": view}
        asked = build_single_request(park.role("respondent"), facts, None, "test")
        assert over_the_wire(asked).facts == {**facts, "options": tuple(options)}
        assert await Embedded().complete(over_the_wire(asked)) == await Embedded().complete(asked)
