"""What `serve` says over /v1/completions and /v1/chat/completions: texts, given tokens weighed,
several answers, JSON.
"""

import importlib.util
import json

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturepark.local_models import base, libraries, machine
from culturepark.local_models.engine import Generation
from culturepark.serving import completions
from culturepark.serving.local_answers import LocalAnswers
from culturepark.serving.model_server import ModelServer
from culturepark.testing.server import Server

SMALL = {"model": "small"}
TEXT = {**SMALL, "max_tokens": 6, "temperature": 0}
TALK = [
    {"role": "system", "content": "You are from Korea."},
    {"role": "user", "content": "Is tea good?"},
]
CHAT = {**SMALL, "messages": TALK, "max_tokens": 8}
guided = pytest.mark.skipif(
    not importlib.util.find_spec("llguidance"),
    reason="llguidance is not here: pip install 'culturepark[serve]'",
)


@pytest.fixture(scope="module")
def answer(small):
    return LocalAnswers([str(small)]).load()


@pytest.fixture(scope="module")
def server(answer):
    with ModelServer(answer) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(api_key="any", base_url=server.url, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def eng(answer):
    return answer.engines[0]


@pytest.fixture(scope="module")
def plain(small):
    """The base as anybody would load it, whatever adapters the one that is served bears."""
    with libraries.quiet():
        return base.load_model(str(small), machine.find_machine("cpu")).eval()


def plain_logprobs(model, ids):
    """The log-probability of each token but the first, by one plain forward pass."""
    import torch

    with torch.inference_mode():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(logs[i, ids[i + 1]]) for i in range(len(ids) - 1)]


# ------------------------------------------------------------------- thoughts


def think(number, body):
    """A model of this machine that thinks before it answers, as the server words it."""
    made = Generation("<think>Hm.</think>\n\nTea.", "stop", 5, 9)

    async def say():
        for piece in ("<thi", "nk>Hm.</", "think>\n\nTe", "a."):
            yield piece, ()
        yield made

    frame = completions.build_frame(number, body["model"], "chat.completion")
    if body.get("stream"):
        return completions.stream_chunks(
            [completions.part_thoughts(say())], frame, body, completions.build_chat_chunk, 1
        )
    choices = [completions.build_chat_choice(0, made, False)]
    return {**frame, "choices": choices, "usage": completions.count_usage([made], 1)}


def test_thoughts_are_a_field_of_their_own_whole_and_streamed_and_are_counted():
    with (
        Server(think, models=["m"]) as server,
        openai.OpenAI(api_key="any", base_url=server.url) as asks,
    ):
        whole = asks.chat.completions.create(model="m", messages=TALK)
        stream = asks.chat.completions.create(model="m", messages=TALK, stream=True)
        deltas = [c.choices[0].delta.model_dump() for c in stream]
    message = whole.choices[0].message.model_dump()
    assert (message["content"], message["reasoning_content"], whole.usage.completion_tokens) == (
        "Tea.",
        "Hm.",
        9,
    )
    for name in ("content", "reasoning_content"):
        assert "".join(d.get(name) or "" for d in deltas) == message[name]


# ---------------------------------------------------------------- completions


def test_a_text_goes_on_as_the_model_goes_on_from_its_tokens(client, eng):
    made = client.completions.create(prompt="Is tea good", **TEXT)
    said = eng.submit(eng.ask_tokens(eng.read_text("Is tea good"), limit=6)).result(60)
    assert (made.choices[0].text, made.object) == (said.text, "text_completion")
    assert made.usage.total_tokens == said.prompt_tokens + said.completion_tokens
    tokens = client.completions.create(prompt=list(eng.read_text("Is tea good")), **TEXT)
    assert tokens.choices[0].text == said.text


def test_a_text_that_is_said_back_comes_with_the_log_probability_of_every_token(client, eng, plain):
    text = "Is tea good? — I think that tea is good."
    made = client.completions.create(
        prompt=text, echo=True, logprobs=2, **{**TEXT, "max_tokens": 0}
    ).choices[0]
    ids = list(eng.read_text(text))
    assert made.text == text and made.logprobs.token_logprobs[0] is None
    assert made.logprobs.token_logprobs[1:] == pytest.approx(plain_logprobs(plain, ids), abs=1e-4)
    assert made.logprobs.tokens[1:] == [eng.write([i]) for i in ids[1:]]
    assert all(2 <= len(top) <= 3 for top in made.logprobs.top_logprobs[1:])


def test_the_likeliest_token_is_among_the_alternatives_with_the_very_same_number(client):
    logs = (
        client.completions.create(prompt="Is tea good?", echo=True, logprobs=1, **TEXT)
        .choices[0]
        .logprobs
    )
    for token, logprob, top in zip(
        logs.tokens[1:], logs.token_logprobs[1:], logs.top_logprobs[1:], strict=True
    ):
        assert top[token] == logprob <= max(top.values())
    assert (
        len(logs.tokens)
        == len(logs.text_offset)
        == len(logs.token_logprobs)
        == len(logs.top_logprobs)
    )


@given(st.text("añ東😀 b.\n", min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_offsets_lie_where_tokens_begin_whatever_the_characters(eng, text):
    ids = eng.read_text(text)
    pieces = eng.write_pieces(ids, text)
    assert len(pieces) == len(ids) and "".join(pieces) == text


def test_a_long_text_is_read_piece_by_piece_and_rows_of_other_lengths_together(
    eng, plain, monkeypatch
):
    from culturepark.local_models import reading

    rows = [eng.read_text("Is tea good? " * 9), eng.read_text("Yes, it is.")]
    whole = reading.read_rows(plain, eng.tokenizer, rows, 1)
    monkeypatch.setattr(reading, "PIECE_BYTES", 8 * 7 * len(eng.tokenizer))
    pieces = reading.read_rows(plain, eng.tokenizer, rows, 1)
    for row, part, ids in zip(whole, pieces, rows, strict=True):
        assert [x for x, _ in row] == pytest.approx([x for x, _ in part], abs=1e-4)
        assert [x for x, _ in row] == pytest.approx(plain_logprobs(plain, list(ids)), abs=1e-4)


def test_prompts_of_a_batch_get_their_choices_in_order_and_n_of_them_each(client):
    prompts = ["Is tea good", "Is rye bad"]
    made = client.completions.create(
        prompt=prompts, n=2, echo=True, **{**TEXT, "temperature": 1.0, "seed": 5}
    )
    assert [c.index for c in made.choices] == [0, 1, 2, 3]
    assert [
        c.text.startswith(p)
        for c, p in zip(made.choices, [p for p in prompts for _ in "ab"], strict=True)
    ]
    assert made.choices[0].text != made.choices[1].text
    alone = client.completions.create(prompt=prompts[0], **{**TEXT, "temperature": 1.0, "seed": 6})
    assert made.choices[1].text == prompts[0] + alone.choices[0].text


def test_a_stop_text_ends_a_text_completion_before_it_and_the_end_token_is_counted_with_log_probabilities(  # noqa: E501
    client, eng
):
    whole = (
        client.completions.create(prompt="Is tea good", **{**TEXT, "max_tokens": 12})
        .choices[0]
        .text
    )
    cut = client.completions.create(
        prompt="Is tea good", stop=whole[2:5], **{**TEXT, "max_tokens": 12}
    ).choices[0]
    assert cut.text == whole[: whole.index(whole[2:5])] and cut.finish_reason == "stop"
    one = client.completions.create(
        prompt="Is tea", logprobs=0, **{**TEXT, "max_tokens": 1}
    ).choices[0]
    assert len(one.logprobs.token_logprobs) == 1


def test_a_streamed_text_says_the_same(client):
    whole = client.completions.create(prompt="Is tea good", **TEXT)
    chunks = list(
        client.completions.create(
            prompt="Is tea good", stream=True, stream_options={"include_usage": True}, **TEXT
        )
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


WRONG = [
    ({"prompt": []}, "prompt"),
    ({"prompt": ""}, "empty prompt"),
    ({"prompt": [10**6]}, "no token 1000000"),
    ({"prompt": [["a"]]}, "prompt"),
    ({"prompt": ["a"] * 300}, "at most 256"),
    ({"prompt": ["a"] * 9, "n": 128}, "at most 1024"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"n": 0}, "'n'"),
    ({"n": 129}, "'n'"),
    ({"echo": 1}, "echo"),
    ({"echo": True, "stream": True}, "stream prompts"),
    ({"best_of": 2}, "best_of"),
    ({"suffix": "."}, "suffix"),
    ({"temprature": 1}, "Did you mean 'temperature'"),
    ({"messages": TALK}, "messages"),
    ({"prompt": "tea " * 9_000}, "maximum context length"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_what_a_text_completion_cannot_be_is_refused_in_openais_words(client, wrong, told):
    with pytest.raises(openai.BadRequestError, match=told):
        client.post("/completions", body={**TEXT, "prompt": "Tea", **wrong}, cast_to=object)


# ------------------------------------------------------------------------ chat


def test_n_answers_are_drawn_apart_and_one_seed_draws_the_same_ones(client):
    made, again = (
        client.chat.completions.create(n=3, seed=7, temperature=1.2, **CHAT) for _ in range(2)
    )
    texts = [c.message.content for c in made.choices]
    assert len(set(texts)) > 1 and texts == [c.message.content for c in again.choices]
    assert [c.index for c in made.choices] == [0, 1, 2]
    assert made.usage.prompt_tokens == client.chat.completions.create(**CHAT).usage.prompt_tokens


def test_n_streamed_answers_come_with_their_numbers(client):
    whole = client.chat.completions.create(n=2, seed=7, temperature=1.2, **CHAT)
    chunks = list(client.chat.completions.create(n=2, seed=7, temperature=1.2, stream=True, **CHAT))
    for choice in whole.choices:
        said = [
            c.choices[0].delta.content or "" for c in chunks if c.choices[0].index == choice.index
        ]
        assert "".join(said) == choice.message.content


@pytest.mark.parametrize(
    "nothing",
    [
        {"tools": []},
        {"tool_choice": "none"},
        {"presence_penalty": 0},
        {"logit_bias": {}},
        {"user": "me"},
        {"store": False},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_what_asks_for_nothing_is_taken(client, nothing):
    assert client.post("/chat/completions", body={**CHAT, **nothing}, cast_to=object)


@pytest.mark.parametrize(
    "wish",
    [
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"frequency_penalty": 0.5},
        {"top_k": 40},
        {"logit_bias": {"5": 100}},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"modalities": ["audio"]},
        {"reasoning_effort": "high"},
        {"guided_json": {}},
        {"prompt": "tea"},
    ],
)
def test_whatever_would_change_an_answer_and_is_not_done_is_refused(client, wish):
    with pytest.raises(openai.BadRequestError, match=next(iter(wish))):
        client.post("/chat/completions", body={**CHAT, **wish}, cast_to=object)


# ------------------------------------------------------------------------ JSON

PERSON = {
    "type": "object",
    "additionalProperties": False,
    "required": ["answer", "guests", "words"],
    "properties": {
        "answer": {"enum": ["Agree", "Disagree"]},
        "guests": {"type": "integer", "minimum": 1, "maximum": 20},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 2},
    },
}


def shape(schema):
    return {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": schema, "strict": True},
    }


@guided
@pytest.mark.parametrize("seed", range(3))
def test_an_answer_keeps_to_its_schema_whatever_is_drawn(client, seed):
    made = client.chat.completions.create(
        response_format=shape(PERSON), seed=seed, temperature=1.5, **{**CHAT, "max_tokens": 200}
    )
    said = json.loads(made.choices[0].message.content)
    assert made.choices[0].finish_reason == "stop" and said["answer"] in ("Agree", "Disagree")
    assert 1 <= said["guests"] <= 20 and len(said["words"]) <= 2


@guided
def test_json_mode_says_an_object_and_a_batch_of_free_and_held_answers_changes_neither(eng):
    how = {"limit": 60, "temperature": 0.8, "seed": 3}
    asks = [
        eng.ask(TALK, **how),
        eng.ask(TALK, schema=json.dumps(PERSON), **how),
        eng.ask(TALK, schema='{"type": "object"}', **how),
    ]
    together = [f.result(60) for f in [eng.submit(a) for a in asks]]
    assert [m.text for m in together] == [eng.submit(a).result(60).text for a in asks]
    assert together[2].text.startswith("{") and json.loads(together[1].text)


@guided
def test_a_model_that_would_end_its_turn_closes_what_is_open(eng):
    import torch

    from culturepark.local_models.schemas import Guides

    guides = Guides(eng.tokenizer, len(eng.tokenizer), eng.ends)
    guide, scores = (
        guides.begin(
            '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}'
        ),
        torch.zeros(len(eng.tokenizer)),
    )
    scores[list(eng.ends)] = 9.0
    said = []
    for _ in range(40):
        said.append(int(guide.narrow(scores).argmax()))
        if guide.take(said[-1]):
            break
    assert (
        json.loads(eng.tokenizer.decode(said, skip_special_tokens=True))["a"] is not None
        and len(said) < 40
    )


@guided
@pytest.mark.parametrize(
    "schema", [{"type": "nothing"}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "("}]
)
def test_a_schema_that_cannot_be_kept_is_refused_and_the_others_go_on(client, schema):
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.chat.completions.create(response_format=shape(schema), **CHAT)
    assert client.chat.completions.create(**CHAT).choices


def test_without_llguidance_a_schema_is_refused_with_what_to_install(client, eng, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(eng, "_guides", None)
    with pytest.raises(openai.BadRequestError, match=r"pip install 'culturepark\[serve\]'"):
        client.chat.completions.create(response_format={"type": "json_object"}, **CHAT)


# ------------------------------------------------------------------ the double


@pytest.fixture(scope="module")
def double():
    with (
        Server() as running,
        openai.OpenAI(api_key="any", base_url=running.url, max_retries=0) as made,
    ):
        yield made


@pytest.mark.parametrize(
    "wish",
    [
        {"logprobs": True},
        {"top_logprobs": 2},
        {"tools": [{"type": "function"}]},
        {"n": 2},
        {"logit_bias": {"5": 1}},
        {"functions": [{}]},
        {"presence_penalty": 1},
        {"temprature": 1},
        {"audio": {}},
    ],
)
def test_the_embedded_engine_refuses_what_it_does_not_heed(double, wish):
    body = {"model": "embedded", "messages": TALK, **wish}
    with pytest.raises(openai.BadRequestError, match=next(iter(wish))):
        double.post("/chat/completions", body=body, cast_to=object)


def test_the_embedded_engine_stops_at_a_stop_text_and_continues_texts(double):
    talk = {"model": "embedded", "messages": TALK}
    assert (
        double.chat.completions.create(stop="templated", **talk).choices[0].message.content
        == "This is "
    )
    made = double.completions.create(
        model="embedded", prompt=["Tea", "Rye"], echo=True, max_tokens=50
    )
    assert [c.text[:3] for c in made.choices] == ["Tea", "Rye"]
    streamed = double.completions.create(model="embedded", prompt="Tea", max_tokens=50, stream=True)
    assert "".join(c.choices[0].text for c in streamed).startswith("This is templated text")
    for wrong in ({"prompt": [1, 2]}, {"logprobs": 1}, {"suffix": "x"}):
        with pytest.raises(openai.BadRequestError):
            double.post(
                "/completions", body={"model": "embedded", "prompt": "Tea", **wrong}, cast_to=object
            )
