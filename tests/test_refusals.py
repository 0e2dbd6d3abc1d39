"""What endpoints refuse: prompts that are too long, system messages, parameters; and what is
changed, once, with one notice.
"""

import json
from itertools import pairwise

import pytest
from conftest import TEA, said
from hypothesis import given
from hypothesis import strategies as st
from test_hosted import ASK, JSON, ask

import culturepark as cp
from culturepark.llm.codec import ProviderError, Style, classify_error, decode_answer
from culturepark.llm.provider_errors import read_refusal
from culturepark.local_models.chat import fold
from culturepark.records import Message, Request
from culturepark.store.queries import iterate_samples

TALK = Request(
    "delegate", (Message("system", "You bake."), Message("user", "Hello?")), max_tokens=9
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-needed")
    monkeypatch.setattr("culturepark.llm.client.JITTER", lambda _: 0.001)


# ----------------------------------------------------------------- too long

OVERFLOWS = [
    (
        400,
        {
            "error": {
                "message": (
                    "This model's maximum context length is 8192 tokens. However, your messages"
                    " resulted in 9001 tokens."
                ),
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
    ),
    (
        400,
        {
            "object": "error",
            "message": (
                "This model's maximum context length is 4096 tokens. However, you requested 4500"
                " tokens (4244 in the messages, 256 in the completion). Please reduce the length of"
                " the messages or completion."
            ),
            "code": 400,
        },
    ),
    (
        400,
        {
            "error": {
                "message": (
                    "The decoder prompt (length 5000) is longer than the maximum model length of"
                    " 4096."
                ),
                "code": 400,
            }
        },
    ),
    (
        400,
        {
            "error": {
                "code": 400,
                "type": "exceed_context_size_error",
                "n_ctx": 4096,
                "message": (
                    "request (4390 tokens) exceeds the available context size (4096 tokens), try"
                    " increasing it"
                ),
            }
        },
    ),
    (
        500,
        {
            "error": {
                "code": 500,
                "message": "Context size has been exceeded.",
                "type": "server_error",
            }
        },
    ),
    (400, {"error": "the input length exceeds the context length"}),
    (
        422,
        {
            "error": (
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given:"
                " 4000"
            ),
            "error_type": "validation",
        },
    ),
    (
        422,
        {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"},
    ),
    (
        400,
        {
            "object": "error",
            "message": (
                "The input (5000 tokens) is longer than the model's context length (4096 tokens)."
            ),
            "code": 400,
        },
    ),
    (
        400,
        {
            "error": {
                "message": (
                    "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens)"
                )
            }
        },
    ),
    (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 210000 tokens > 200000 maximum",
            },
        },
    ),
    (
        413,
        {
            "type": "error",
            "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"},
        },
    ),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "status": "INVALID_ARGUMENT",
                    "message": (
                        "The input token count (1100000) exceeds the maximum number of tokens"
                        " allowed (1048576)."
                    ),
                }
            }
        ],
    ),
    (
        400,
        {
            "object": "error",
            "type": "invalid_request_error",
            "message": (
                "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768"
                " maximum context length"
            ),
        },
    ),
    (
        413,
        {
            "error": {
                "message": (
                    "Request too large for model `x` on tokens per minute (TPM): Limit 6000,"
                    " Requested 12000, please reduce your message size and try again."
                ),
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
    ),
    (400, {"message": "Input is too long for requested model.", "__type": "ValidationException"}),
    (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "provider_name": "x",
                    "raw": (
                        '{"error":{"message":"Your request exceeded model token limit: the prompt'
                        ' exceeds the model\'s context window","type":"x"}}'
                    ),
                },
            }
        },
    ),
]


MORE_OVERFLOWS = [
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    (
        "The prompt (total length 5000) is too long to fit into the model (context length 4096)."
        " Make sure that `max_model_len` is no smaller than"
    ),
    (
        "the request exceeds the available context size. try increasing the context size or enable"
        " context shift"
    ),
    "input is too large to process. increase the physical batch size",
    "input length exceeds maximum context length",
    "Requested token count exceeds the model's maximum context length of 4096 tokens",
    (
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease"
        " input length or `max_tokens` and try again"
    ),
    "Request payload size exceeds the limit: 20971520 bytes.",
    (
        "The model returned the following errors: Input Tokens Exceeded: Number of input tokens"
        " exceeds maximum length."
    ),
    (
        "Malformed input request: expected maxLength: 2048, actual: 3000, please reformat your"
        " input and try again."
    ),
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292.",
    "The prompt is too long: 140000, model maximum context length: 131071",
    "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
    (
        "Please reduce the length of the messages or completion. Current length is 9000 while limit"
        " is 8192"
    ),
    (
        "Trying to keep the first 6402 tokens when context the overflows. However, the model is"
        " loaded with context length of only 4096 tokens"
    ),
    "The number of tokens to keep from the initial prompt is greater than the context length",
    "Range of input length should be [1, 30720]",
    "Prompt exceeds max length",
    "Invalid request: Your request exceeded model token limit: 8192",
    "invalid params, context window exceeds limit (2013)",
    "Too many input tokens. Max input tokens: 8192, request input token count: 9000",
    (
        "Token indices sequence length is longer than the specified maximum sequence length for"
        " this model (600 > 512)"
    ),
    "Context length exceeded",
    "The context window is full: prompt has 5000 tokens but the limit is 4096",
    "This model can only handle 4096 tokens, your prompt has 5000",
    "Prompt too long",
    "The total number of tokens (5000) exceeds the model's limit of 4096",
    "context window exceeded",
    "the prompt does not fit in the context",
]


@pytest.mark.parametrize("message", MORE_OVERFLOWS)
def test_more_words_for_a_prompt_that_does_not_fit(message):
    assert classify_error(400, json.dumps({"error": {"message": message}}), {}).kind == "long"


@pytest.mark.parametrize(("status", "body"), OVERFLOWS)
def test_a_prompt_that_does_not_fit_is_known_in_any_providers_words_and_status(status, body):
    found = classify_error(status, json.dumps(body), {})
    assert found.kind == "long" and "too long for this model" in str(found)
    with pytest.raises(ProviderError) as caught:  # the same inside of an answer
        decode_answer(200, {**(body if isinstance(body, dict) else body[0]), "choices": None}, {})
    assert caught.value.kind == "long"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (
            429,
            (
                "Rate limit reached for x on tokens per min (TPM): Limit 30000, Used 29000,"
                " Requested 2000."
            ),
            "rate",
        ),
        (429, "Too many tokens, please wait before trying again.", "rate"),
        (
            400,
            "max_tokens is too large: 99999. This model supports at most 4096 completion tokens.",
            "refused",
        ),
        (500, "The server had an error while processing your request.", "busy"),
        (503, "The system is overloaded; your message was not processed.", "busy"),
        (400, "messages: at least one message is required", "hopeless"),
    ],
)
def test_what_only_sounds_like_it_is_not_taken_for_it(status, message, kind):
    assert classify_error(status, json.dumps({"error": {"message": message}}), {}).kind == kind


def test_a_prompt_that_is_too_long_is_sent_once_and_never_tells_the_breaker(serve):
    server = serve(lambda n, _: (500, {}, OVERFLOWS[4][1]))
    reply = ask(server.url)
    assert (reply.status, reply.attempts, len(server.seen)) == (
        "failed",
        1,
        1,
    ) and "too long" in reply.reason


def test_a_dialogue_that_grows_too_long_fails_and_the_others_give_their_samples(park):
    def reply(number, body):
        prompt, last = body["messages"][0]["content"], body["messages"][-1]["content"]
        if '"opinions"' in last:
            return json.dumps(
                {"opinions": [{"turn": 1, "text": f"Drinking tea is good for {number} reasons."}]}
            )
        if '"verdict"' in last:
            return '{"verdict": "entail", "reason": "yes"}'
        return (
            (400, {}, OVERFLOWS[3][1])
            if len(body["messages"]) > 3 and len(prompt) % 2
            else f"Tea {number} is good."
        )

    with cp.Server(reply, models=("tiny",)) as server:
        asked = {**TEA, "model": "openai/tiny", "base_url": server.url, "dialogues": 8, "turns": 6}
        run = cp.run("long", asked, formats=("trl",))
    with run.open_store(write=False) as journal:
        ended = dict(journal.select("SELECT status, COUNT(*) FROM scenes GROUP BY 1"))
        ((why,),) = journal.select("SELECT reason FROM scenes WHERE status = 'failed' LIMIT 1")
        assert (
            min(ended["done"], ended["failed"]) > 0
            and "too long" in why
            and next(iterate_samples(journal))
        )
        asked = journal.select(
            "SELECT COUNT(*), COUNT(DISTINCT key) FROM calls WHERE status = 'failed'"
        )
        assert asked == [(ended["failed"], ended["failed"])]  # not once more at the stage's end


# -------------------------------------------------------------- system role

NO_SYSTEM = [
    (
        400,
        {
            "object": "error",
            "message": "System role not supported",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    (
        500,
        {
            "error": {
                "code": 500,
                "message": "Jinja Exception: System role not supported",
                "type": "server_error",
            }
        },
    ),
    (
        400,
        {
            "error": {
                "message": "Conversation roles must alternate user/assistant/user/assistant/...",
                "code": 400,
            }
        },
    ),
    (
        422,
        {
            "error": (
                "Template error: syntax error: Conversation roles must alternate user/assistant (in"
                " <string>:1)"
            )
        },
    ),
    (
        400,
        {
            "error": {
                "message": (
                    "Unsupported value: 'messages[0].role' does not support 'system' with this"
                    " model."
                ),
                "param": "messages[0].role",
                "code": "unsupported_value",
            }
        },
    ),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "Developer instruction is not enabled for models/gemma-3-27b-it",
                }
            }
        ],
    ),
    (
        400,
        {
            "message": (
                "This model doesn't support system messages. Try again without a system message."
            )
        },
    ),
    (
        400,
        {
            "error": {
                "message": (
                    'messages: Unexpected role "system". The Messages API accepts a top-level'
                    " `system` parameter."
                )
            }
        },
    ),
    (400, {"error": {"message": "Only user and assistant roles are supported!"}}),
    (
        422,
        {
            "detail": [
                {
                    "loc": ["body", "messages", 0, "role"],
                    "msg": "Input should be 'user' or 'assistant'",
                    "type": "enum",
                }
            ]
        },
    ),
]


MORE_NO_SYSTEM = [
    "System role not supported",
    "System messages are not supported",
    "`system` role unsupported",
    "this model does not support the system role",
    "Unsupported role: system",
    "role 'system' is not allowed",
    "the system role isn't supported",
    "System prompt is not supported for this model",
    "This model does not support system prompts",
    "Jinja Exception: Only user and assistant messages are supported!",
    "messages must alternate between user and assistant",
    "Expected user role, got system",
    "unexpected role: system",
    "invalid role 'system'",
    "Invalid value: 'system'. Supported values are: 'assistant' and 'user'.",
    "role must be 'user' or 'assistant'",
    (
        "After the optional system message, conversation roles must alternate"
        " user/assistant/user/assistant/..."
    ),
    (
        "Chat message input roles must alternate between 'user' and 'assistant' roles and must end"
        " with 'user'."
    ),
    "After the (optional) system message(s), user and assistant roles should be alternating.",
    "System instruction is not enabled for this model",
    "system message not allowed",
    "No system messages please",
    "the template has no system role",
    "This chat template rejects messages with the role system",
    'The role "system" is not valid',
    "Unknown message role 'system'",
    "system is not a valid role",
    "Please remove the system message",
    "A system message cannot be used with this model",
    "System role is disabled",
    "Found system role in messages; only user/assistant are accepted",
    "Gemma does not accept system turns",
]


@pytest.mark.parametrize("message", MORE_NO_SYSTEM)
def test_more_words_for_a_system_message_that_is_refused(message):
    found = classify_error(400, json.dumps({"error": {"message": message}}), {})
    assert found.kind == "refused" and "first user message" in Style().learn(
        found.refusal, TALK, 400
    )


@pytest.mark.parametrize(("status", "body"), NO_SYSTEM)
def test_a_system_message_that_is_refused_opens_the_first_user_message_from_then_on_with_one_notice(
    serve, caplog, status, body
):
    def reply(n, asked):
        if any(m["role"] == "system" for m in asked["messages"]):
            return status, {}, body
        return 200, {}, said(asked["messages"][0]["content"])

    assert ask(serve(reply).url, TALK).text == "You bake.\n\nHello?"
    assert [r.event for r in caplog.records if r.name == "culturepark"] == [
        "adapted"
    ] and "first user message" in caplog.text


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant"]), st.text(min_size=1, max_size=5)
        ),
        min_size=1,
    )
)
def test_a_folded_talk_alternates_and_holds_every_word(said_in_turn):
    folded = fold([{"role": role, "content": text} for role, text in said_in_turn])
    roles = [m["role"] for m in folded]
    assert "system" not in roles and all(a != b for a, b in pairwise(roles))
    assert "\n\n".join(m["content"] for m in folded) == "\n\n".join(
        text for _, text in said_in_turn
    )


# --------------------------------------------------------------- parameters


def test_the_parameter_is_found_wherever_a_long_refusal_names_it(serve, caplog):
    entries = [
        {
            "type": "string_too_long",
            "loc": ["body", "user"],
            "msg": "x" * 900,
            "input": "a seed of temperature",
        },
        {
            "type": "extra_forbidden",
            "loc": ["body", "response_format"],
            "msg": "Extra inputs are not permitted",
        },
        {
            "type": "extra_forbidden",
            "loc": ["body", "seed"],
            "msg": "Extra inputs are not permitted",
        },
    ]

    def reply(n, body):
        left = [e for e in entries if e["loc"][1] == "user" or e["loc"][1] in body]
        return (422, {}, {"detail": left}) if len(left) > 1 else (200, {}, said("{}"))

    server = serve(reply)
    assert ask(server.url, JSON).status == "ok" and len(server.seen) == 3
    assert (
        "temperature" in server.seen[-1]
        and "seed" not in server.seen[-1]
        and caplog.text.count("from now on") == 2
    )


def test_a_refusal_that_nothing_can_be_changed_about_stops_with_what_was_refused(serve):
    server = serve(
        lambda n, _: (
            400,
            {},
            {
                "error": {
                    "message": "Unsupported parameter: 'top_q'. Is it temperature that you mean?"
                }
            },
        )
    )
    with pytest.raises(cp.ModelError, match=r"refused.*top_q.*own `params`"):
        ask(server.url, params={"top_q": 1})


def test_an_error_is_read_whatever_its_shape():
    for body in (
        {"error": {"message": "boom"}},
        {"error": "boom"},
        {"message": "boom"},
        {"detail": "boom"},
        {"errors": ["boom"]},
        [{"error": {"message": "boom"}}],
        {"detail": [{"msg": "boom", "loc": ["body"]}]},
        {"error": '{"message": "boom"}'},
    ):
        assert read_refusal(json.dumps(body)).message == "boom"
    assert (
        read_refusal("<html>502</html>").message == "<html>502</html>"
        and read_refusal(ASK.key("m")).status is None
    )


# ------------------------------------------------------ the kind, not the case

LIKELY_OVERFLOWS = [
    "Prompt contains 9123 tokens, which is more than the 8192 the model can take",
    "Input too long: 9000 tokens",
    "Requested token count exceeds the model's maximum of 8192",
    "The sequence length 9000 exceeds max_seq_len 8192",
    "input sequence is longer than position embeddings (2048)",
    "prompt_too_long",
    "Sequence too long",
    "Please shorten your prompt",
    "The message you submitted was too long",
    "Conversation too long, please start a new one",
    "CUDA error: index out of range, sequence length 9000 > 8192",
    "failed to find KV cache slot",
    "The text is too long",
    "This model's max seq len is 2048, got 3000",
    "Your conversation of 40 messages is larger than what fits",
    "Die Eingabe ist zu lang (9000 Token)",
    "Der Kontext überschreitet die maximale Länge von 8192 Token",
    "输入长度超过模型最大长度限制",
    "上下文过长",
    "请求的token数超出限制",
]
NO_OVERFLOWS = [
    "max_tokens is too large: 99999. This model supports at most 4096 completion tokens.",
    "max_tokens: 99999 > 4096, which is the maximum allowed number of output tokens for this model",
    "max_tokens must be less than 4096",
    "The maximum tokens you requested exceeds the model limit of 4096",
    "Rate limit: tokens per minute exceeded",
    "You exceeded your token quota for today",
    "temperature must be less than 2",
    "payload image too large: 20000000 pixels",
    "messages[0].content: image exceeds the maximum of 5242880 bytes",
    "input image exceeds the maximum size",
    "context deadline exceeded",
    "The request took too long; the prompt was not processed",
    "Max retries exceeded while the message was sent",
    "prompt must have more than 0 characters",
    "stop: at most 4 sequences, yours has more than that",
    "Too many messages in flight",
    "请求频率超过限制",
    "token bucket exceeded",
    "Zeitüberschreitung der Anfrage",
    "messages: at least one message is required",
    "The model produced an invalid token",
]


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("message", LIKELY_OVERFLOWS)
def test_a_word_for_the_prompt_near_one_for_too_much_is_a_prompt_that_is_too_long(message, status):
    assert classify_error(status, json.dumps({"error": {"message": message}}), {}).kind == "long"


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("message", NO_OVERFLOWS)
def test_other_limits_are_no_prompt_that_is_too_long(message, status):
    assert classify_error(status, json.dumps({"error": {"message": message}}), {}).kind != "long"


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(
    "message",
    [
        "unknown variant `system`, expected `user` or `assistant`",
        "The first message must be a user message",
        "Unexpected role",
        "Message has unsupported role",
        "messages[0]: invalid role",
        "Roles must be one of those that the template knows",
        "role not recognized",
    ],
)
def test_a_role_that_is_refused_is_a_system_message_that_is_refused(message, status):
    found = classify_error(status, json.dumps({"error": {"message": message}}), {})
    assert found.kind == "refused" and "first user message" in Style().learn(
        found.refusal, TALK, status
    )
    assert Style().learn(found.refusal, ASK, status) is None  # nothing to fold


@pytest.mark.parametrize(
    "message", ["The IAM role is invalid", "unknown variant `top_q`", "boom", "invalid user name"]
)
def test_other_refusals_are_no_refusal_of_a_system_message(message):
    found = classify_error(500, json.dumps({"error": {"message": message}}), {})
    assert found.kind == "busy"
