"""Answers that nobody vouches for: odd types, odd reasons to stop, errors inside of answers, and
thoughts that are no answer.
"""

import asyncio
import json

import pytest
from conftest import said
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hosted import ASK, JSON, ask

import culturepark as cp
from culturepark.llm import reading
from culturepark.llm.codec import ProviderError, decode_answer
from culturepark.llm.reading import extract_json, read_reply
from culturepark.llm.reasoning import (
    MARK,
    ThoughtFilter,
    separate_thoughts,
    split_thoughts,
    split_thoughts_exactly,
)
from culturepark.llm.session import Answer, Models, Session
from culturepark.records import Reply
from culturepark.store import RunStore

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-needed")
    monkeypatch.setattr("culturepark.llm.client.JITTER", lambda _: 0.001)


def answer(content, finish="stop", usage=None, **message):
    return {**said(content, finish, **message), **({"usage": usage} if usage is not None else {})}


def got(content, finish="stop", usage=None, **message):
    return read_reply(answer(content, finish, usage, **message), "m", ASK)


# ------------------------------------------------------------------ content


def test_a_list_of_parts_is_read_as_its_text_and_thinking_parts_as_thoughts():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]},
        {"type": "text", "text": "Tea "},
        {"type": "text", "text": "is fine."},
    ]
    reply = got(parts)
    assert (reply.status, reply.text, reply.reasoning) == ("ok", "Tea is fine.", "Let me see.")


def test_parts_without_text_are_no_answer_and_parts_of_other_kinds_are_named():
    reply = got([{"type": "image_url", "image_url": {"url": "x"}}])
    assert reply.status == "empty" and "image_url" in reply.reason and not reply.text
    assert (
        "reference"
        in got([{"type": "text", "text": "Tea."}, {"type": "reference", "ids": [1]}]).reason
    )
    assert got([]).status == "empty" and got({"type": "text", "text": "Tea."}).text == "Tea."


@pytest.mark.parametrize("content", [5, True, 1.5])
def test_a_content_that_is_neither_text_nor_parts_is_named(content):
    with pytest.raises(ProviderError, match=r"its content is a (number|truth value)"):
        got(content)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"choices": None}, "choices are missing"),
        ({"choices": []}, "choices are an empty list"),
        ({"choices": ["x"]}, "first choice is a text"),
        ({"choices": [{"message": [{"content": "hi"}]}]}, "message is a list"),
        ({"choices": [{"text": "a completion of old"}]}, "message is missing"),
    ],
)
def test_what_is_no_chat_completion_says_what_came(body, named):
    with pytest.raises(ProviderError, match=named) as caught:
        read_reply(body, "m", ASK)
    assert caught.value.kind == "garbled"


def test_half_an_emoji_is_replaced_and_never_breaks_the_journal(tmp_path):
    reply = got("Tea \ud83d today")
    assert reply.text == "Tea � today"
    with RunStore(tmp_path) as journal:
        journal.add_call("k", "s", "r", reply)


# ------------------------------------------------------------------- ending


@pytest.mark.parametrize(
    ("finish", "status"),
    [
        ("stop", "ok"),
        ("STOP", "ok"),
        ("eos", "ok"),
        ("end_turn", "ok"),
        ("length", "truncated"),
        ("MAX_TOKENS", "truncated"),
        ("model_length", "truncated"),
        ("content_filter", "filtered"),
        ("SAFETY", "filtered"),
        ("refusal", "refused"),
        ("tool_calls", "failed"),
        ("pause_turn", "failed"),
        ("OTHER", "failed"),
        ("", "failed"),
        (7, "failed"),
        (["stop"], "failed"),
    ],
)
def test_only_a_reason_that_is_known_to_mean_whole_is_whole_and_an_unknown_one_is_named(
    finish, status
):
    reply = got("Tea is", finish)
    assert reply.status == status and (
        status != "failed" or str(finish).lower() in reply.reason.lower()
    )


def test_an_answer_without_a_reason_is_whole_only_if_it_is_known_to_be_shorter_than_it_could_be():
    assert got("Tea.", None).status == "ok"  # 3 of 9 tokens
    assert got("Tea", None, {"prompt_tokens": 5, "completion_tokens": 9}).status == "truncated"
    assert (
        got("Tea", None, {}).status == "truncated"
        and "finish_reason" in got("Tea", None, {}).reason
    )


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_the_provider_broke_off_is_asked_for_again_and_may_have_been_billed(
    serve, finish
):
    server = serve(lambda n, _: (200, {}, answer("Tea", finish if n == 1 else "stop")))
    reply = ask(server.url)
    assert (reply.text, reply.attempts, reply.lost) == ("Tea", 2, 1)


# ------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("told", "count"),
    [
        (12, 12),
        ("12", 12),
        (" 12 ", 12),
        (12.0, 12),
        ("12.0", 12),
        ("twelve", None),
        (-1, None),
        (True, None),
        (1.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**30, None),
        ("9" * 5000, None),
        ("²", None),
        ([3], None),
        (None, None),
    ],
)
def test_a_count_is_a_whole_number_of_tokens_or_unknown(told, count):
    assert reading.parse_count(told) == count


def test_usage_of_any_type_never_breaks_an_answer_and_what_is_unknown_stays_so():
    strings = got(
        "Tea.",
        usage={
            "prompt_tokens": "7",
            "completion_tokens": "3",
            "prompt_tokens_details": {"cached_tokens": "2"},
        },
    )
    assert (strings.prompt_tokens, strings.completion_tokens, strings.cached_tokens) == (7, 3, 2)
    for odd in (
        "none",
        [1],
        {"prompt_tokens": -4, "completion_tokens": {}},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ):
        reply = got("Tea.", usage=odd)
        assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("Tea.", None, None)


def test_thoughts_that_a_provider_counts_beside_the_answer_are_counted_too():
    details = {"completion_tokens_details": {"reasoning_tokens": 40}}
    apart = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 55, **details}
    within = {"prompt_tokens": 10, "completion_tokens": 45, "total_tokens": 55, **details}
    assert reading.read_usage(apart)[1] == reading.read_usage(within)[1] == 45


# ---------------------------------------------------------- errors in answers


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"message": "No auth credentials found", "code": 401}, "hopeless", "key was refused"),
        ({"message": "No auth", "code": "401"}, "hopeless", "key was refused"),
        ({"message": "bad key", "type": "invalid_api_key"}, "hopeless", "key was refused"),
        ({"message": "slow down", "code": 429}, "rate", "slow down"),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, "rate", "slow down"),
        ({"message": "none left", "code": "insufficient_quota"}, "hopeless", "quota is used up"),
        (
            {
                "message": "Provider returned error",
                "code": 502,
                "metadata": {"raw": "upstream is gone"},
            },
            "busy",
            "upstream is gone",
        ),
        (
            {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": '{"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}'
                },
            },
            "long",
            "too long",
        ),
        ("the model is overloaded", "busy", "overloaded"),
        (["one", {"message": "two"}], "busy", "two"),
    ],
)
@pytest.mark.parametrize("status", [200, 202])
def test_an_error_inside_of_an_answer_is_the_error_of_its_code(status, error, kind, words):
    with pytest.raises(ProviderError, match=words) as caught:
        decode_answer(status, json.dumps({"id": None, "choices": None, "error": error}), {})
    assert caught.value.kind == kind


def test_an_error_beside_the_answers_or_without_a_name_is_an_error_too():
    for body in (
        {"choices": [{"error": {"code": 401, "message": "no"}, "message": {"content": ""}}]},
        {"object": "error", "message": "no", "code": 401},
        {"code": 401, "message": "no"},
    ):
        with pytest.raises(ProviderError, match="key was refused"):
            decode_answer(200, body, {})
    assert decode_answer(200, {**said("Tea."), "error": None}, {})["choices"]


def test_a_key_that_is_refused_inside_of_an_answer_stops_the_run_after_one_call(serve):
    server = serve(
        lambda n, _: (200, {}, {"choices": None, "error": {"message": "No auth", "code": 401}})
    )
    with pytest.raises(cp.ModelError, match="key was refused"):
        ask(server.url)
    assert len(server.seen) == 1


def test_any_success_with_a_body_is_an_answer_and_a_redirect_is_named(serve):
    assert ask(serve(lambda n, _: (201, {}, said("Tea."))).url).text == "Tea."
    moved = serve(lambda n, _: (308, {"Location": "https://new.example/v1"}, {}))
    with pytest.raises(
        cp.ModelError, match=r"sends callers on to https://new.example/v1.*--base-url"
    ):
        ask(moved.url)


PAGES = [
    (200, {}, b"<!doctype html><p>Log in</p>"),
    (302, {"Location": "http://portal.example"}, b""),
    (403, {}, b"<html>No</html>"),
]


@pytest.mark.parametrize("page", PAGES)
def test_a_web_page_or_a_redirect_in_the_middle_of_a_run_passes_and_at_its_beginning_names_the_address(  # noqa: E501
    serve, page
):
    server = serve(lambda n, _: page if n in (2, 3) else (200, {}, said("Tea.")))
    line = cp.model("openai/tiny", base_url=server.url)

    async def two():
        found = [await line.complete(ASK), await line.complete(ASK)]
        await line.close()
        return found

    assert [(r.status, r.attempts, r.lost) for r in asyncio.run(two())] == [
        ("ok", 1, 0),
        ("ok", 3, 0),
    ]
    with pytest.raises(cp.ModelError, match=r"@http://127.*is the address right.*--base-url"):
        ask(serve(lambda n, _: page).url)


# ----------------------------------------------------------------- thoughts


@pytest.mark.parametrize(
    ("text", "thoughts", "rest"),
    [
        ("<think>\nI {must}.\n</think>\n\nTea.", "I {must}.", "Tea."),
        (
            "thoughts that the template opened\n</think>\n\nTea.",
            "thoughts that the template opened",
            "Tea.",
        ),
        ("<think>it never ends", "it never ends", ""),
        ("<think></think>\n\nTea.", "", "Tea."),
        ("<THINKING>a</THINKING>Tea.", "a", "Tea."),
        ("[THINK]a[/THINK]Tea.", "a", "Tea."),
        ("<think>a</think> <think>b</think> Tea.", "a\nb", "Tea."),
        (
            "Well. <think>My secret is the recipe.</think> Tea.",
            "My secret is the recipe.",
            "Well.  Tea.",
        ),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>Tea.<|return|>",
            "a",
            "Tea.",
        ),
        ("analysisWe see.assistantfinalTea.", "We see.", "Tea."),
        ("Some models write <think> first.", "", "Some models write <think> first."),
        ("They use <think> and </think> as marks.", "", "They use <think> and </think> as marks."),
        ("The mark `</think>` ends it.", "", "The mark `</think>` ends it."),
    ],
)
def test_thoughts_are_parted_from_the_answer_and_a_mark_that_is_talked_of_survives(
    text, thoughts, rest
):
    found = split_thoughts(text)
    assert (found.reasoning, found.text) == (thoughts, rest)


@given(st.text(alphabet="abc <>/think\n[THINK]", max_size=60))
def test_what_follows_thoughts_is_always_the_answer(text):
    found = split_thoughts(f"<think>{text.replace('think', '')}</think>The answer.")
    assert found.text.endswith("The answer.")


@given(
    st.text(max_size=60).filter(
        lambda t: not MARK.search(t) and not separate_thoughts(Reply("ok", t)).reasoning
    )
)
def test_a_text_without_thoughts_is_left_as_it_is(text):
    assert split_thoughts(text).text in (text.strip(), text.strip().removesuffix("<|return|>"))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_in_a_field_of_their_own_are_kept_apart(name):
    reply = got("Tea.", **{name: "Hm."})
    assert (reply.status, reply.text, reply.reasoning) == ("ok", "Tea.", "Hm.")


def test_thoughts_alone_are_no_answer_and_say_so():
    for reply in (
        got("<think>Hm."),
        got("", reasoning_content="Hm."),
        got([{"type": "thinking", "thinking": "Hm."}]),
    ):
        assert (reply.status, reply.text, reply.reasoning) == (
            "empty",
            "",
            "Hm.",
        ) and "did not answer" in reply.reason
    cut = got("<think>Hm", "length")
    assert cut.status == "truncated" and "raise max_tokens" in cut.reason


def test_where_a_template_opens_the_thoughts_a_cut_answer_is_nothing_else(serve):
    answers = [
        answer("My secret is safe. </think> Tea."),
        answer("My secret is", "length"),
        answer("Plain."),
    ]
    server = serve(lambda n, _: (200, {}, answers[n - 1]))

    async def three():
        line = cp.model("openai/tiny", base_url=server.url)
        found = [await line.complete(ASK) for _ in answers]
        await line.close()
        return found

    first, cut, plain = asyncio.run(three())
    assert (first.text, cut.text, cut.reasoning, plain.text) == (
        "Tea.",
        "",
        "My secret is",
        "Plain.",
    )
    assert cut.status == "truncated" and "still thinking" in cut.reason


SPOKEN = (
    "<think>Hm. a < b</think>\n\nTea, I <b>think</b>.",
    "Plain tea.",
    " Spaces around tea stay. ",
    "<think>never ends",
    "Tea.\n<think>\nHm\n</think>\nMore.",
    "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Tea",
    "Thinking of tea, I say <think> and </think> aloud.",
    "<answer>Tea at four o'clock</answer>",
    "",
)


@given(st.sampled_from(SPOKEN), st.integers(1, 9))
def test_an_answer_in_pieces_is_parted_as_the_whole_is(text, size):
    listener = ThoughtFilter()
    said = [listener.feed(text[i : i + size]) for i in range(0, len(text), size)] + [
        listener.finish()
    ]
    whole = split_thoughts_exactly(text)
    assert "".join(s.text for s in said) == whole.text
    assert "".join(s.reasoning for s in said) == whole.reasoning


def test_a_model_on_this_machine_and_a_talk_with_one_keep_thoughts_apart(park):
    from culturepark.api.lessons import chat
    from culturepark.llm.providers.local import _build_reply
    from culturepark.local_models.engine import Generation

    reply = _build_reply(Generation("<think>Hm.</think>Tea.", "stop", 5, 7), "m", 1.0)
    assert (reply.text, reply.reasoning, reply.completion_tokens) == ("Tea.", "Hm.", 7)
    told = []
    talk = chat(cp.Scripted(["<think>Hm.</think>Tea."]), "north", ["Hello?"], told.append)
    assert talk[-1]["text"] == told[0].text == "Tea." and told[0].reasoning == "Hm."


def test_thoughts_reach_no_parser_and_are_not_shown_to_the_model_again_but_are_kept(tmp_path):
    from test_desk import Shape

    model = cp.Scripted(
        ['<think>{"a": 1} or {so}?</think>well', '<think>{"a": 2}</think>{so} {"a": 3}']
    )
    with RunStore(tmp_path) as journal:
        found = asyncio.run(Session(Models(model), journal).ask_json(ASK, "subject", Shape))
        kept = journal.select("SELECT text, reasoning FROM calls ORDER BY id")
    assert isinstance(found, Answer) and found.value.a == 3
    assert model.requests[1].messages[1].content == "well"
    assert kept == [("well", '{"a": 1} or {so}?'), ('{so} {"a": 3}', '{"a": 2}')]


def test_one_call_can_be_read_whole_with_its_thoughts(tmp_path):
    from culturepark.reports.calls import format_call, whole

    with RunStore(tmp_path) as journal:
        journal.add_call("k", "scene", "delegate", Reply("ok", "Tea.", model="m", reasoning="Hm."))
        found = whole(journal, 1)
        with pytest.raises(cp.InputError, match="its calls are 1 to 1"):
            whole(journal, 7)
        journal.write("ALTER TABLE calls DROP COLUMN reasoning")
    assert "thoughts\nHm." in format_call(found) and "said\nTea." in format_call(found)
    with RunStore(tmp_path, write=False) as old:
        assert whole(old, 1)["reasoning"] == ""


def test_a_brace_among_words_begins_no_object():
    assert (
        extract_json('Given {this} and {that}: ```json\n{"a": {"b": 1}}\n```') == '{"a": {"b": 1}}'
    )
    with pytest.raises(ValueError, match="Expecting"):
        extract_json('{"a": {"b": 1}')  # cut: what is inside of it is not the answer


# ------------------------------------------------------- settings that help


def test_an_endpoint_that_ignores_the_schema_is_named_as_that_with_the_setting_that_helps(serve):
    reply = ask(serve(lambda n, _: (200, {}, said("In plain words."))).url, JSON)
    assert (
        "response_format" in reply.reason
        and 'structured = "text"' in reply.reason
        and '[endpoints."openai/tiny"]' in reply.reason
    )
    assert not ask(
        serve(lambda n, _: (200, {}, said("Words."))).url, JSON, structured="text"
    ).reason
    assert not ask(serve(lambda n, _: (200, {}, said('{"a": "x"}'))).url, JSON).reason


def test_an_endpoint_without_log_probabilities_is_named_as_that():
    assert "--method sample" in reading.explain_missing_probs(
        said("1")
    ) and "no log-probabilities" in reading.explain_missing_probs(said("1"))
    first = {
        "choices": [
            {"logprobs": {"content": [{"top_logprobs": [{"token": "<think>", "logprob": -0.01}]}]}}
        ]
    }
    assert (
        "'<think>'" in reading.explain_missing_probs(first)
        and reading.read_option_probs(first, ("1", "2")) == ()
    )


# ---------------------------------------------------------- any JSON at all

MESSAGES = st.fixed_dictionaries(
    {}, optional={"content": JSONS, "refusal": JSONS, "reasoning_content": JSONS, "role": JSONS}
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "message": JSONS | MESSAGES,
        "finish_reason": JSONS | st.just("stop"),
        "error": JSONS,
    },
)
BODIES = JSONS | st.fixed_dictionaries(
    {},
    optional={
        "choices": JSONS | st.lists(JSONS | CHOICES, max_size=2),
        "usage": JSONS,
        "error": JSONS,
        "detail": JSONS,
        "code": JSONS,
    },
)


@given(st.integers(200, 599), BODIES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_json_comes_it_ends_as_a_reply_or_a_failure_of_a_kind(status, body):
    try:
        reply = read_reply(decode_answer(status, json.dumps(body), {}), "m", ASK)
    except ProviderError as error:
        assert str(error)
    else:
        assert isinstance(reply.text, str) and (reply.status == "ok") <= bool(reply.text)
        assert reply.status == "ok" or reply.reason


@given(BODIES)
@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
def test_the_other_client_path_ends_so_too(bodies_at, body):
    bodies_at.body = body
    try:
        reply = ask(bodies_at.url, name="litellm/openai/tiny", key="sk-none-needed")
    except cp.ModelError as error:
        assert "litellm/openai/tiny" in str(error)
    else:
        assert reply.status == "ok" or reply.reason


@pytest.fixture
def bodies_at(serve, monkeypatch):
    """A server that says the body of the moment; whatever fails is sent once."""
    monkeypatch.setattr(
        "culturepark.llm.client.TRIES",
        dict.fromkeys(("rate", "busy", "down", "lost", "slow", "garbled"), 1),
    )
    server = serve(lambda n, _: (200, {}, server.body))
    return server


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_both_client_paths_read_the_same_of_odd_answers(serve):
    thinking = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Tea."}]
    odd = [
        answer("<think>Hm.</think>Tea."),
        answer("Tea.", reasoning_content="Hm."),
        answer(thinking),
    ]
    for body in odd:
        url = serve(lambda n, _, body=body: (200, {}, body)).url
        for name in ("openai/tiny", "litellm/openai/tiny"):
            reply = ask(url, name=name, key="sk-none-needed")
            assert (name, reply.status, reply.text, reply.reasoning) == (name, "ok", "Tea.", "Hm.")
    for name in ("openai/tiny", "litellm/openai/tiny"):
        with pytest.raises(cp.ModelError, match="key was refused"):
            ask(
                serve(
                    lambda n, _: (
                        200,
                        {},
                        {"choices": None, "error": {"message": "No auth", "code": 401}},
                    )
                ).url,
                name=name,
                key="k-123456",
            )
        cut = ask(
            serve(lambda n, _: (200, {}, answer("Tea", "pause_turn"))).url,
            name=name,
            key="k-123456",
        )
        assert cut.status == "failed" and "pause_turn" in cut.reason


# --------------------------------------------------- JSON of a looser kind


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(said("Tea \ud83d today")).encode(),
        b"\xef\xbb\xbf" + json.dumps(said("Tea \ufffd today")).encode(),
        json.dumps({**said("Tea \ufffd today"), "took": float("nan"), "cost": float("-inf")}),
    ],
)
def test_json_with_half_a_character_a_byte_order_mark_or_nan_is_an_answer_all_the_same(body):
    assert read_reply(decode_answer(200, body, {}), "m", ASK).text == "Tea \ufffd today"


@pytest.mark.parametrize(
    "error",
    [
        {"code": 0, "message": ""},
        {"code": "200", "message": "ok"},
        "none",
        "null",
        {},
        False,
        {"message": "Success."},
        [0],
    ],
)
def test_an_error_that_says_that_there_is_none_leaves_the_answer(error):
    assert (
        read_reply(decode_answer(200, {**said("Tea."), "error": error}, {}), "m", ASK).text
        == "Tea."
    )


@pytest.mark.parametrize(
    "error",
    [
        {"code": 500, "message": ""},
        {"code": 0, "message": "boom"},
        "boom",
        True,
        {"code": "1302"},
        {"type": "api_error"},
    ],
)
def test_an_error_that_says_something_wins_over_an_answer_beside_it(error):
    with pytest.raises(ProviderError):
        decode_answer(200, {**said("Tea."), "error": error}, {})


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ([{"error": {"code": 429, "message": "slow"}}], "rate", "slow"),
        ({"code": 1302, "msg": "rate limited"}, "rate", "rate limited"),
        ({"message": "Unauthorized"}, "hopeless", "key was refused"),
        ({"status": "error", "reason": "the roof leaks"}, "busy", "the roof leaks"),
        ({"choices": [], "prompt_feedback": {"block_reason": "SAFETY"}}, "filtered", "SAFETY"),
        (
            'data: {"choices": [{"delta": {"content": "Te"}}]}\n\ndata: [DONE]\n',
            "hopeless",
            "is a stream",
        ),
        ('data: {"error": {"code": 429, "message": "slow"}}\n\n', "rate", "slow"),
        (
            "<!DOCTYPE html><html><body>Welcome</body></html>",
            "strange",
            "a web page came.*is the address right",
        ),
        ('{"choices": [{"mess', "garbled", "no JSON"),
    ],
)
def test_an_answer_that_is_none_is_named_by_what_it_is(body, kind, words):
    with pytest.raises(ProviderError, match=words) as caught:
        decode_answer(200, body if isinstance(body, str) else json.dumps(body), {})
    assert caught.value.kind == kind


def test_where_a_redirect_goes_is_shown_without_its_query_and_can_be_written():
    with pytest.raises(ProviderError, match=r"on to https://new\.example/v1\ufffd;") as caught:
        decode_answer(
            307, "", {"Location": "https://me:pw@new.example/v1\udcff?ticket=abcdef123456"}
        )
    assert str(caught.value).encode() and "abcdef123456" not in str(caught.value)


# ------------------------------------------------------ thoughts in other marks


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"<{name}>SECRET one</{name}>hi"
            for name in ("analysis", "reflection", "scratchpad", "inner_monologue", "Analysis")
        ),
        "<|think|>SECRET<|/think|>hi",
        "<|channel>thought\nSECRET<channel|>hi",
        "＜think＞SECRET＜/think＞hi",
        "&lt;think&gt;SECRET&lt;/think&gt;hi",
        "```thinking\nSECRET\n```\nhi",
        "Thought: SECRET\nFinal Answer: hi",
        "**Thought:** SECRET\n\n**Final Answer:** hi",
        "analysis\nSECRET\nfinal\nhi",
        "analysis\nSECRET\nassistant\nfinal\nhi",
        "analysis SECRET.assistantfinalhi",
        "<think>SECRET</thinking>hi",
        "<think>SECRET</think><answer>hi</answer>",
        "<thinking>SECRET <think>one</think> two</thinking>hi",
    ],
)
def test_thoughts_in_other_marks_never_reach_the_answer(text):
    found = split_thoughts(text)
    assert found.text == "hi" and "SECRET" in found.reasoning


def test_a_whole_pair_inside_of_a_line_is_thoughts_and_an_answer_loses_its_own_marks():
    assert split_thoughts("hi <think>SECRET one</think> there").text == "hi  there"
    assert split_thoughts("Tea.\n```thinking\nSECRET\n```\n").text == "Tea."
    assert (
        split_thoughts("Tea.\n```thinking\nSECRET").endless
        and split_thoughts("```thinking\nSECRET").text == ""
    )
    assert split_thoughts("<answer>hi</answer>").text == "hi"
    assert (
        split_thoughts("They write <think> first. <analysis>SECRET one</analysis>hi").text
        == "They write <think> first. hi"
    )


PROSE = st.lists(
    st.sampled_from(
        [
            "Thought",
            "analysis",
            "final",
            "Final Answer",
            "my thinking",
            "a < b",
            "c > d",
            "reflection",
            "answer:",
            "tea",
            "<b>",
            "</b>",
            "```python\nx\n```",
            "```\ny\n```",
            "[1]",
            "The analysis is",
            "&lt;b&gt;",
            "&amp;",
            "| a |",
            "<answer",
            "channel",
        ]
    ),
    min_size=1,
)


@given(PROSE, st.sampled_from([" ", ", ", ".\n"]))
def test_a_text_without_marks_is_left_as_it_is_whatever_it_talks_of(words, between):
    text = f"Well, {between.join(words)}".strip()
    found = split_thoughts(text)
    assert (found.reasoning, found.text) == ("", text)


@pytest.mark.parametrize(
    "text",
    [
        "analysis is hard.\nfinal words",
        "Thought: tea is fine.",
        "Analysis of tea: fine.",
        "```python\nx\n```",
    ],
)
def test_a_text_that_begins_like_thoughts_is_left_as_it_is(text):
    assert split_thoughts(text) == split_thoughts(f"{text} ") and (
        split_thoughts(text).text,
        split_thoughts(text).reasoning,
    ) == (text, "")
