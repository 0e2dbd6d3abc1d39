"""Hosted models over real HTTP: what is sent, what comes back, what is tried again, what stops a
run at once.
"""

import asyncio
import json
import time
from dataclasses import replace

import pytest
from conftest import TEA, said

import culturepark as cp
from culturepark.llm.codec import Style, build_body, build_strict_schema, classify_error
from culturepark.records import Message, Request

KEY = "sk-secret-0123456789"
ASK = Request("delegate", (Message("user", "Hello?"),), temperature=0.2, max_tokens=9)
JSON = replace(
    ASK,
    role="verifier",
    reply_schema={"type": "object", "properties": {"a": {"type": "string", "default": "x"}}},
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A key in the environment, and pauses between attempts that tests can wait for."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("culturepark.llm.client.JITTER", lambda _: 0.01)


def ask(url, request=ASK, name="openai/tiny", **how):
    async def once():
        line = cp.model(name, base_url=url, **how)
        try:
            return await line.complete(request)
        finally:
            await line.close()

    return asyncio.run(once())


def test_a_request_is_sent_whole_and_the_reply_is_read(serve):
    server = serve(lambda n, body: (200, {}, said("Well met.")))
    reply = ask(server.url, prompt_price=1.0, completion_price=10.0)
    assert (reply.status, reply.text, reply.prompt_tokens, reply.completion_tokens) == (
        "ok",
        "Well met.",
        7,
        3,
    )
    assert reply.usd == pytest.approx(37e-6) and (reply.attempts, reply.lost) == (1, 0)
    sent = server.seen[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["seed"]) == (
        "tiny",
        0.2,
        9,
        0,
    )
    assert (
        sent["path"] == "/v1/chat/completions"
        and sent["headers"]["Authorization"] == f"Bearer {KEY}"
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
    codes = (429, 500, 503, 429, 502)
    server = serve(
        lambda n, _: (
            (200, {}, said("Sixth time."))
            if n == 6
            else (codes[n - 1], {"Retry-After": "0"}, {"error": {}})
        )
    )
    reply = ask(server.url)
    assert (
        reply.text == "Sixth time."
        and (reply.attempts, reply.lost) == (6, 0)
        and len(server.seen) == 6
    )


def test_what_never_passes_is_a_failed_reply_after_as_many_tries_as_its_kind_deserves(serve):
    reply = ask(serve(lambda n, _: (500, {}, {"error": {"message": f"boom {KEY}"}})).url)
    assert (
        reply.status == "failed" and "8 attempts" in reply.reason and "boom [key]" in reply.reason
    )


@pytest.mark.parametrize(
    ("kind", "lost"), [("reset", 1), ("truncated", 1), ("hang", 1), ("429", 0), ("500", 0)]
)
def test_each_fault_of_the_wire_passes_and_what_may_have_been_billed_is_counted(kind, lost):
    faulty = iter([kind])

    with cp.Server(lambda n, body: f"Answer {n}.") as server:
        server.faults.draw_for_request = lambda: next(faulty, "")
        reply = ask(server.url, replace(ASK, max_tokens=90), name="openai/embedded", timeout=0.5)
    assert (reply.status, reply.attempts, reply.lost) == ("ok", 2, lost), reply.reason


def test_retry_after_is_waited_for(serve):
    server = serve(
        lambda n, _: (
            (200, {}, said("ok")) if n > 1 else (429, {"Retry-After": "0.4"}, {"error": {}})
        )
    )
    start = time.perf_counter()
    assert ask(server.url).status == "ok" and time.perf_counter() - start > 0.4


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "key was refused"),
        (402, "no credit"),
        (403, "may not use"),
        (404, "no such model"),
        (400, "malformed"),
    ],
)
def test_a_hopeless_request_stops_the_run_at_once_with_advice_and_never_shows_the_key(
    serve, status, told
):
    server = serve(lambda n, _: (status, {}, {"error": {"message": f"bad key {KEY}"}}))
    with pytest.raises(cp.ModelError, match=told) as caught:
        ask(server.url)
    assert len(server.seen) == 1 and KEY not in str(caught.value)


def test_a_prompt_that_is_too_long_fails_alone_and_a_used_up_quota_stops_everything(serve):
    long = {
        "error": {
            "message": "This model's maximum context length is 8 tokens",
            "code": "context_length_exceeded",
        }
    }
    assert "context length" in ask(serve(lambda n, _: (400, {}, long)).url).reason
    quota = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with pytest.raises(cp.ModelError, match="quota is used up"):
        ask(serve(lambda n, _: (429, {}, quota)).url)


def test_a_dead_address_is_told_and_a_call_was_never_billed():
    reply = ask("http://127.0.0.1:9/v1")
    assert reply.status == "failed" and "no connection" in reply.reason and reply.lost == 0


# ------------------------------------------------------------------ learning


def test_an_endpoint_that_refuses_a_parameter_is_asked_without_it_from_then_on(serve):
    def reply(n, body):
        for name in ("max_tokens", "temperature", "seed"):
            if name in body:
                return (
                    400,
                    {},
                    {
                        "error": {
                            "message": (
                                f"Unsupported parameter: '{name}'. Use 'max_completion_tokens'"
                                " instead."
                                if name == "max_tokens"
                                else f"Unsupported value: '{name}'"
                            ),
                            "param": name,
                        }
                    },
                )
        return 200, {}, said("fine")

    server = serve(reply)
    assert (
        ask(server.url).text == "fine"
        and len(server.seen) == 4
        and server.seen[-1]["max_completion_tokens"] == 9
    )


def test_structured_answers_are_asked_for_by_schema_then_json_mode_then_words(serve):
    def reply(n, body):
        if "response_format" in body:
            return (
                400,
                {},
                {
                    "error": {
                        "message": (
                            f"response_format {body['response_format']['type']} is not supported"
                        )
                    }
                },
            )
        return 200, {}, said("{}")

    server = serve(reply)
    assert ask(server.url, JSON).status == "ok"
    asked = [s.get("response_format", {}).get("type") for s in server.seen]
    assert asked == ["json_schema", "json_object", None]
    assert '"additionalProperties":false' in server.seen[2]["messages"][-1]["content"]


def test_a_strict_schema_requires_everything_and_adds_nothing():
    schema = {
        "$defs": {
            "f": {
                "title": "F",
                "type": "object",
                "properties": {"title": {"type": "string"}, "n": {"default": 1}},
            }
        }
    }
    assert build_strict_schema(schema)["$defs"]["f"] == {
        "type": "object",
        "properties": {"title": {"type": "string"}, "n": {}},
        "required": ["title", "n"],
        "additionalProperties": False,
    }


def test_the_users_own_parameters_win():
    body = build_body("m", ASK, Style(), {"temperature": 1.0, "top_p": 0.9})
    assert (body["temperature"], body["top_p"]) == (1.0, 0.9)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "2"}, 2),
        ({"retry-after-ms": "150"}, 0.15),
        ({}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_what_a_provider_says_of_waiting_is_read_whatever_its_form(headers, seconds):
    assert classify_error(429, "{}", headers).wait == seconds


# --------------------------------------------------------------------- names


def test_models_are_named_as_users_know_them(monkeypatch):
    assert cp.model("ollama/llama3.1").identity == "ollama/llama3.1@http://localhost:11434/v1"
    monkeypatch.setenv("OLLAMA_API_BASE", "http://gpu:11434")
    assert cp.model("ollama/llama3.1").identity == "ollama/llama3.1@http://gpu:11434/v1"
    assert cp.model("hosted_vllm/org/name").model == "org/name"
    assert cp.model("anthropic/claude-sonnet-4-5").identity == "anthropic/claude-sonnet-4-5@litellm"
    assert cp.model("openai/x", params={"top_p": 0.5}).identity != cp.model("openai/x").identity


def test_an_address_from_the_environment_is_written_down_so_that_the_run_means_the_same_without_it(
    park, monkeypatch
):
    monkeypatch.setenv("OLLAMA_API_BASE", "http://gpu:11434/")
    run = cp.start("x", {**TEA, "model": "ollama/llama3.1"})
    monkeypatch.delenv("OLLAMA_API_BASE")
    assert (
        cp.resume(run.folder).settings.endpoint("ollama/llama3.1").base_url == "http://gpu:11434/v1"
    )


def test_prices_come_from_settings_or_the_price_list_at_the_providers_own_address_and_are_never_guessed():  # noqa: E501
    assert cp.model("openai/gpt-4o-mini").price.source.startswith("litellm ")
    assert cp.model("openai/gpt-4o-mini", base_url="http://localhost:1/v1").price is None
    assert cp.model("openai/no-such-model").price is None
    mine = cp.model("ollama/llama3.1", prompt_price=0, completion_price=0).price
    assert (mine.compute(1000, 1000), mine.source) == (0, "settings")
    listed = cp.model("openai/gpt-4o-mini").price
    assert listed.compute(1_000_000, 0, 1_000_000) < listed.compute(
        1_000_000, 0
    ) and listed.compute_most(10, 1) >= listed.compute(10, 1, 10)


def test_keys_come_from_the_environment_a_named_variable_or_the_call_and_only_go_where_they_belong(
    serve, monkeypatch
):
    server = serve(lambda n, _: (200, {}, said("ok")))
    monkeypatch.setenv("MINE", "key-of-mine-1")
    monkeypatch.setenv("CULTUREPARK_API_KEY", "key-of-park-2")
    ask(server.url, key_env="MINE")
    ask(server.url)
    ask(server.url, name="hosted_vllm/tiny", key="key-by-hand-3")
    assert [s["headers"]["Authorization"].split()[1] for s in server.seen] == [
        "key-of-mine-1",
        "key-of-park-2",
        "key-by-hand-3",
    ]
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(cp.ModelError, match="set OPENAI_API_KEY"):
        cp.model("openai/gpt").check()


def test_a_password_in_the_address_or_a_key_in_the_parameters_is_refused_before_it_is_written_anywhere():  # noqa: E501
    with pytest.raises(cp.InputError, match="password"):
        cp.model("openai/gpt", base_url="https://me:secret@localhost/v1")
    with pytest.raises(cp.CardError, match="key_env"):
        cp.run("x", {**TEA, "endpoints": {"openai/gpt": {"params": {"api_key": "sk"}}}})


# -------------------------------------------------------------- whole runs


def test_a_whole_run_with_a_model_a_role_and_a_model_a_seat(park):
    with cp.Server(models=("talks", "checks", "north")) as server:
        cp.run(
            "h",
            {
                **TEA,
                "model": "openai/talks",
                "base_url": server.url,
                "dialogues": 4,
                "turns": 4,
                "modes": ("cross",),
                "models": {"verifier": "openai/checks"},
                "seats": {"north": "openai/north"},
            },
            formats=("trl",),
        )
        asked = {
            (
                m,
                "Verdict" in b["messages"][-1]["content"]
                or '"verdict"' in b["messages"][-1]["content"],
            )
            for b in server.seen
            for m in [b["model"]]
        }
        speakers = {
            b["model"]
            for b in server.seen
            if b["messages"][0]["content"].startswith("You are Nort")
        }
    assert (
        ("checks", True) in asked
        and ("talks", True) not in asked
        and ("checks", False) not in asked
    )
    assert speakers == {"north"}


def test_no_key_in_anything_that_a_run_wrote_whoever_repeats_it(park, caplog):
    def reply(number, body):
        if number % 7 == 0:
            return 500, {}, {"error": {"message": f"cannot serve Bearer {KEY}"}}
        if number % 11 == 0:
            return {
                "choices": [
                    {
                        "message": {"content": "", "refusal": f"I refuse {KEY}"},
                        "finish_reason": "stop",
                    }
                ]
            }
        text = body["messages"][-1]["content"]
        if '"opinions"' in text:
            return json.dumps(
                {"opinions": [{"turn": 1, "text": f"Drinking tea is good for {number} reasons."}]}
            )
        return (
            '{"verdict": "entail", "reason": "yes"}'
            if '"verdict"' in text
            else f"Tea is good, number {number}."
        )

    with cp.Server(reply, models=("tiny",), key=KEY) as server:
        run = cp.run(
            "h",
            {
                **TEA,
                "model": "openai/tiny",
                "base_url": server.url,
                "dialogues": 6,
                "turns": 4,
                "modes": ("cross",),
            },
        )
        cp.calls(run)
    written = [p for p in run.folder.rglob("*") if p.is_file()]
    assert len(written) > 10 and not [p for p in written if KEY.encode() in p.read_bytes()]
    assert KEY not in caplog.text and KEY not in json.dumps(cp.calls(run)) and KEY not in repr(run)


def test_a_run_that_cannot_be_paid_or_reached_is_told_before_anything_is_written(park):
    with pytest.raises(cp.InputError, match="price"):
        cp.run(
            "x",
            {
                **TEA,
                "model": "openai/unheard-of",
                "base_url": "http://localhost:1/v1",
                "max_usd": 1.0,
            },
        )
    with pytest.raises(cp.InputError, match="Did you mean 'north'"):
        cp.run("x", {**TEA, "seats": {"nroth": "embedded"}})
    with pytest.raises(cp.InputError, match="no model provider 'antropic'"):
        cp.run("x", {**TEA, "model": "antropic/claude"})
    assert not (park / "outputs/x").exists()


# ------------------------------------------------------------------- litellm


def test_the_other_client_path_gives_the_same_reply_the_same_failures_and_the_same_advice(
    monkeypatch,
):
    faulty = iter(["", "429", "500", "", "length", "refusal", "empty"])
    with cp.Server(lambda n, _: "Well met.", key=KEY) as server:
        server.faults.draw_for_request = lambda: next(faulty, "")
        replies = [
            ask(
                server.url,
                name="litellm/openai/embedded",
                key=KEY,
                prompt_price=1.0,
                completion_price=1.0,
            )
            for _ in range(5)
        ]
        with pytest.raises(cp.ModelError, match="key was refused") as caught:
            ask(server.url, name="litellm/openai/embedded", key="sk-wrong-0123")
        sent = server.seen[0]
    assert [r.status for r in replies] == ["ok", "ok", "truncated", "refused", "empty"] and replies[
        1
    ].attempts == 3
    assert (replies[0].text, replies[0].prompt_tokens, replies[0].usd) == (
        "Well met.",
        5,
        pytest.approx(7e-6),
    )
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("embedded", 0.2, 9)
    assert "sk-wrong" not in str(caught.value)


def test_a_dead_address_is_told_through_litellm_too():
    reply = ask("http://127.0.0.1:9/v1", name="litellm/openai/tiny", key=KEY)
    assert reply.status == "failed" and "gave up after 8 attempts" in reply.reason
