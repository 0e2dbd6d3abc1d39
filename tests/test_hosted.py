"""The hosted path, over real HTTP against a local server that speaks the protocol."""

import asyncio

import pytest
from conftest import TEA, said

import culturepark as cp
from culturepark.records import Message, Request

ASK = Request(role="delegate", messages=(Message(role="user", content="Hello?"),), temperature=0.2, max_tokens=9)
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("culturepark.models.hosted.wait_random_exponential", lambda *_: 0)


def ask(url):
    return asyncio.run(cp.Hosted("tiny", base_url=url).complete(ASK))


def test_a_request_is_sent_whole_and_the_reply_is_read(serve):
    server = serve(lambda n, body: (200, {}, said("Well met.")))
    reply = ask(server.url)
    assert (reply.status, reply.text, reply.prompt_tokens, reply.completion_tokens) == ("ok", "Well met.", 7, 3)
    sent = server.seen[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["path"]) == (
        "tiny",
        0.2,
        9,
        "/v1/chat/completions",
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (said("cut of", finish="length"), "truncated"),
        (said("", finish="content_filter"), "filtered"),
        (said("", refusal="I won't"), "refused"),
        (said("   "), "empty"),
        ({"choices": []}, "failed"),
        ([], "failed"),
    ],
)
def test_every_way_to_get_no_answer_has_its_own_status_and_a_reason(serve, body, status):
    reply = ask(serve(lambda n, _: (200, {}, body)).url)
    assert reply.status == status and reply.reason


def test_passing_failures_are_tried_again_and_the_last_success_counts(serve):
    server = serve(
        lambda n, _: (
            (200, {}, said("Sixth time.")) if n == 6 else ((429, 500, 503)[n % 3], {"Retry-After": "0"}, {"error": {}})
        )
    )
    assert ask(server.url).text == "Sixth time." and len(server.seen) == 6


def test_what_never_passes_is_a_failed_reply(serve):
    reply = ask(serve(lambda n, _: (500, {}, {"error": {"message": "boom"}})).url)
    assert reply.status == "failed" and "6 attempts" in reply.reason


@pytest.mark.parametrize(("status", "told"), [(401, "key was refused"), (404, "no such model"), (400, "malformed")])
def test_a_hopeless_request_stops_the_run_at_once_and_never_shows_the_key(serve, status, told):
    server = serve(lambda n, _: (status, {}, {"error": {"message": f"bad key {KEY}"}}))
    with pytest.raises(cp.ModelError, match=told) as caught:
        ask(server.url)
    assert len(server.seen) == 1 and KEY not in str(caught.value)


def test_no_key_and_no_endpoint_is_told_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(cp.ModelError, match="OPENAI_API_KEY"):
        cp.Hosted("gpt")


def test_a_password_in_the_address_is_refused_before_it_is_written_anywhere():
    with pytest.raises(cp.InputError, match="password"):
        cp.Hosted("gpt", base_url="https://me:secret@localhost/v1")


def test_a_whole_run_over_http_and_no_key_in_anything_it_wrote(serve, park):
    def reply(n, body):
        text = body["messages"][-1]["content"]
        if '"opinions"' in text:
            return (
                200,
                {},
                said(
                    '{"opinions": [{"turn": 1, "text": "Drinking tea is good for NN reasons."}]}'.replace("NN", str(n))
                ),
            )
        if '"verdict"' in text:
            return 200, {}, said('{"verdict": "Entail", "reason": "yes"}')
        return 200, {}, said(f"Tea is good, number {n}.")

    server = serve(reply)
    run = cp.run(
        "h",
        {**TEA, "model": "openai/tiny", "base_url": server.url, "dialogues": 6, "turns": 4, "modes": ("cross",)},
        formats=("trl",),
    )
    assert (run.corpus / "trl/train.jsonl").exists()
    assert server.seen[0]["headers"]["Authorization"] == f"Bearer {KEY}"
    assert not [p for p in run.folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
