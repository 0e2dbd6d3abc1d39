"""Reads an endpoint's error whatever its shape: what it says, its codes, and whether it means one
of a few known things.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEPTH, SHOWN = 8, 500  # levels of an error that are read, characters of it that are shown
SAYS = (
    "message",
    "msg",
    "detail",
    "error",
    "error_message",
    "errormessage",
    "description",
    "raw",
    "title",
    "reason",
)
CODES = (
    "code",
    "type",
    "status",
    "error_type",
    "__type",
    "error_code",
    "errorcode",
    "statuscode",
    "status_code",
)
ECHOES = (
    "input",
    "url",
    "request",
    "body",
    "prompt",
    "messages",
    "ctx",
    "failed_generation",
)  # what was sent, said back


@dataclass(frozen=True)
class Refusal:
    """What an error says. `codes` are lower case, `params` the parameters of the request that it
    names by their fields.
    """

    message: str
    codes: tuple[str, ...]
    params: tuple[str, ...]

    @property
    def text(self) -> str:
        """The message in lower case, with straight apostrophes."""
        return self.message.lower().replace("’", "'")

    @property
    def status(self) -> int | None:
        """The HTTP status that the codes name; None where they name none."""
        numbers = (int(c) for c in self.codes if c.isascii() and c.isdigit() and len(c) == 3)
        named = (STATUS[c] for c in self.codes if c in STATUS)
        return next((n for n in (*numbers, *named) if 300 <= n < 600), None)


# Codes and types that say in words what others say by the HTTP status.
STATUS = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unauthorized": 401,
    "unauthenticated": 401,
    "invalid_authentication": 401,
    "billing_error": 402,
    "insufficient_balance": 402,
    "payment_required": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "forbidden": 403,
    "accessdeniedexception": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "not_found": 404,
    "notfounderror": 404,
    "timeout": 408,
    "request_timeout": 408,
    "timeout_error": 408,
    "request_too_large": 413,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limited": 429,
    "resource_exhausted": 429,
    "insufficient_quota": 429,
    "throttlingexception": 429,
    "too_many_requests": 429,
    "engine_overloaded_error": 503,
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "invalid_argument": 400,
    "validationexception": 400,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "internal": 500,
    "api_error": 500,
    "overloaded_error": 529,
    "overloaded": 503,
    "unavailable": 503,
    "service_unavailable": 503,
    **dict.fromkeys(
        ("context_length_exceeded", "exceed_context_size_error", "content_filter"), 400
    ),
}


def read_refusal(body: Any) -> Refusal:
    """Return what the body of an error says; `body` is the text as it came, or what was read of
    it.
    """
    parsed = parse_text(body) if isinstance(body, str) else body
    leaves = list(_iterate_leaves(parsed, "", 0))
    messages = [text for kind, text in leaves if kind == "says"]
    if not messages and (
        rest := body if isinstance(body, str) else "" if parsed in (None, {}, []) else str(parsed)
    ):
        messages = [rest]
    codes = dict.fromkeys(
        text.strip().lower() for kind, text in leaves if kind == "code" and len(text) < 80
    )
    params = dict.fromkeys(text for kind, text in leaves if kind == "param" and len(text) < 80)
    return Refusal("; ".join(dict.fromkeys(messages)), tuple(codes), tuple(params))


def parse_text(text: str) -> Any:
    """Return what a text says if it is JSON, else the text itself."""
    try:
        return load_json(text)
    except ValueError:
        return text


def load_json(text: bytes | str) -> Any:
    """Return what a JSON text says; ValueError for what is none.

    Beside strict JSON, it takes a byte order mark, halves of characters, NaN and infinities.
    """
    from orjson import loads

    try:
        return loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def replace_halves(text: str) -> str:
    """Return a text whose halves of characters are replaced, so that it can be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# What stands in the place of an error where there is none.
NOTHING = {
    "",
    "ok",
    "okay",
    "none",
    "null",
    "nil",
    "n/a",
    "no",
    "false",
    "success",
    "successful",
    "succeeded",
    "completed",
    "no error",
    "no errors",
    "no_error",
    "undefined",
}


def says_nothing(error: Any) -> bool:
    """Say whether what stands in the place of an error says that there is none, as `{"code": 0,
    "message": "ok"}`.
    """
    if isinstance(error, bool) or not isinstance(error, (Mapping, list, tuple)):
        return error is False or _is_nothing("" if error is None else str(error))
    leaves = [text for kind, text in _iterate_leaves(error, "", 0) if kind != "param"]
    return all(map(_is_nothing, leaves))


def _is_nothing(text: str) -> bool:
    word = text.strip().lower().strip(".! ")
    return word in NOTHING or (
        word.isascii() and word.isdigit() and (len(word) < 3 or word[0] in "123") and len(word) < 4
    )


def _iterate_leaves(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield what an error says, piece by piece: (says, code or param; text)."""
    if depth > DEPTH:
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _iterate_field(str(key).lower(), part, name, depth)
    elif isinstance(value, (list, tuple)):
        for part in value[:50]:
            yield from _iterate_leaves(part, name, depth + 1)
    elif isinstance(value, str) and value.strip():
        yield from _iterate_text(value, depth)


def _iterate_field(key: str, part: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if key in ECHOES:
        return
    if key in CODES and isinstance(part, (str, int)) and not isinstance(part, bool):
        yield "code", str(part)
    elif key == "param" and isinstance(part, str):
        yield "param", part
    elif key in ("loc", "fieldpath") and isinstance(part, (list, tuple)):
        yield from (("param", str(p)) for p in part if isinstance(p, str) and p != "body")
    elif key in SAYS or isinstance(part, (Mapping, list, tuple)):
        yield from _iterate_leaves(part, key, depth + 1)


def _iterate_text(value: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield what a text says; one that is JSON itself (a proxy's copy of a provider's error) is
    read as such.
    """
    inner = parse_text(value) if value.lstrip().startswith(("{", "[")) else value
    leaves = [] if isinstance(inner, str) else list(_iterate_leaves(inner, "", depth + 1))
    yield from leaves or [("says", value.strip())]


def format_refusal(refusal: Refusal, body: str) -> str:
    """Return an error for people, no longer than a few lines."""
    text = refusal.message or body.strip() or "no text"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


# ------------------------------------------------------------ what it means

# What an error says in words where no code says it.
WORDS = (
    (
        re.compile(
            r"unauthori[sz]ed|(invalid|incorrect|wrong|missing|bad|no|expired) (api["
            r" _-]?)?(key|token|credentials)\b|unauthenticated"
        ),
        401,
    ),
    (re.compile(r"\bforbidden\b|permission denied|access denied"), 403),
    (
        re.compile(r"rate[ _-]?limit|too many requests|too fast|slow down|请求过于频繁|速率限制"),
        429,
    ),
)


def infer_status(refusal: Refusal) -> int | None:
    """Return the HTTP status that an error's words stand for; None where they stand for none."""
    return next((status for pattern, status in WORDS if pattern.search(refusal.text)), None)


TOO_LONG_CODES = re.compile(
    r"context_?(length|window|size)|(prompt|input|context|message)s?_too_(long|large)|too_many_(input_)?tokens|input_tokens_exceeded"
    r"|string_above_max_length|request_too_large"
)
TOO_LONG = re.compile(
    "|".join(
        (
            # OpenAI, vLLM, SGLang, Together, DeepSeek
            r"(maximum|max|model's) (model )?context (length|window|size)",
            # llama.cpp, LM Studio
            (
                r"context[ _]?(length|window|size|limit) (has been |is |was"
                r" )?(exceed|too)|context[^.]{0,12} overflow"
            ),
            # llama.cpp, Ollama, Together
            r"exceed\w* (the )?(available |maximum |model'?s? |allowed |total )*(model )?context",
            (
                r"(longer|larger|greater|more) than (the )?(model'?s? |maximum |available )*(model"
                r" length|context|max_model_len)"
            ),
            r"\bn_ctx\b|\bmax_model_len\b|\bnum_ctx\b",
            # Anthropic, SGLang
            r"prompt (is )?too long|(prompt|input) (text )?(is |was )?too (long|large) (for|to)",
            r"input is too long",  # Bedrock
            r"input length (and `?max_tokens`? )?exceed",  # Anthropic, Ollama
            r"input token count .{0,40}exceeds the maximum",  # Gemini
            # TGI
            (
                r"`?inputs`?( tokens)? (length )?(\+|must have|must be)[^.]{0,40}(less"
                r" than|max_new_tokens|max_total_tokens|<=)"
            ),
            (
                r"(prompt|input)[^.]{0,80} exceeds? (the |this )?(model'?s?"
                r" )?(maximum|max|limit|allowed|context)"
            ),
            r"(prompt|input|messages?|request)[^.]{0,40}(contains|has|with|is|of)\b[^.]{0,30}\d+"
            r" tokens?[^.]{0,60}"
            r"(too large|exceed|longer|limit|maximum|but)",  # Mistral, Fireworks
            r"too many (input tokens|tokens (in|for) (the )?(prompt|input|context|request|model))",
            # Moonshot
            r"exceed\w*[^.]{0,30}(token|context) limit|token limit (has been |is |was )?exceed",
            # xAI, transformers, Bedrock
            r"maximum (prompt|input|sequence) length|expected maxlength",
            (
                r"payload (size|is|too)[^.]{0,20}(exceed|large)|(request )?(body|entity) (is )?too"
                r" large|exceeds the maximum size"
            ),
            # OpenAI, Groq
            (
                r"reduce the length of (the|your) (messages|prompt|input)|reduce your"
                r" (prompt|message size)"
            ),
            r"(total number of tokens|number of (input )?tokens)[^.]{0,60}exceed",  # Cohere
            # OpenAI, Groq: more than a minute's
            r"request too large for|larger than the (maximum )?(number of )?tokens per minute",
            (
                r"max length[^.]{0,40}exceed|exceed\w*[^.]{0,30}max(imum)?["
                r" _](input|prompt|seq\w*)[ _](length|tokens)"
            ),
            r"range of input length should be",  # DashScope
            r"(prompt|input|messages|request|conversation)[^.]{0,30}(not|n't) fit",
            (
                r"(only|at most|limited to|up to)[^.]{0,30}\d+"
                r" tokens[^.]{0,60}(prompt|input|request|messages)"
            ),
        )
    )
)
# The kind: something of the prompt, near a word for too much of it. Underscores are spaces here.
PROMPT = (
    r"\b(prompts?|inputs?|sequences?|context|conversations?|messages?|chat history|tokens?|token"
    r" count)\b"
)
TOO_MUCH = (
    r"(too (long|large|big|lengthy)\b|\bexceed\w*|\bsurpass\w*|(more|longer|larger|greater|bigger)"
    r" than\b|over the (limit|maximum)"
    r"|\d ?> ?\d|\bmax(imum)?\b[^.;\n]{0,40}\d{3})"
)
LIKELY_TOO_LONG = re.compile(
    "|".join(
        (
            rf"{PROMPT}[^.;\n]{{0,80}}?{TOO_MUCH}",
            rf"too many tokens|\bexceed\w*[^.;\n]{{0,30}}{PROMPT}",
            rf"(shorten|reduce|trim|truncate)\b[^.;\n]{{0,20}}{PROMPT}",
            (
                r"\b(text|requests?|query|history|chat)\b( (is|was|are))? too"
                r" (long|lengthy)\b|max(imum)? seq(uence)? len|\bn positions\b"
            ),
            r"kv cache slot|kv cache (is )?full|position embeddings",
            r"(eingabe|anfrage|kontext\w*|nachricht|konversation|unterhaltung|gespräch|sequenz|prompt)\b[^.;\n]{0,60}"
            r"(zu (lang|groß)|überschr\w+|länger als|mehr als)",
            r"(上下文|输入|提示|消息|对话|文本|内容|序列|请求|tokens?)[^。"
            r";\n]{0,40}(过长|太长|超长|超出|超过|超限|过大)"
            r"|(超出|超过)[^。;\n]{0,30}(上下文|最大长度|长度限制|tokens?|输入)",
        )
    )
)
PICTURE = re.compile(
    r"\b(image|audio|video|file|attachment|picture)s?\b[^.;\n]{0,30}(too (large|big|long)|exceed)"
)
# What only sounds like it: other parameters, the pace, the account, pictures, time, and lower
# bounds.
NOT_TOO_LONG = re.compile(
    "|".join(
        (
            (
                r"\bmax (completion |new |output"
                r" )?tokens\b\W{0,3}(is|are|must|should|cannot|can|may|too|exceed|parameter|value|larger|greater|:|=|\d)"  # noqa: E501
            ),
            (
                r"maximum tokens (you|value|parameter|requested)|\d (completion|output)"
                r" tokens|number of (output|completion) tokens"
            ),
            (
                r"per (minute|second|hour|day|month)|\b[tr]p[mdsh]\b|\brates?\b|quota|bucket|credit|balance|billing|budget|\bplan\b|concurren"  # noqa: E501
            ),
            r"temperature|\btop ?[pkn]\b|logprobs?|logit|penalty|\bseed\b|\bstop\b|best of",
            r"\b(image|audio|video|file|attachment|picture|pixel|tool|function|schema|header|url|field|metadata|batch)s?\b",
            (
                r"deadline|time ?out|timed out|took too long|retries|recursion|attempts|too many"
                r" (requests|messages|connections)"
            ),
            (
                r"(must|should|has to|have to|needs to)"
                r" (be|have|contain|hold)\b[^.;\n]{0,20}(more|longer|larger|greater) than"
            ),
            r"zeit|ratenlimit|kontingent|guthaben|频率|频繁|速率|并发|余额|次数|每分钟|超时|图片|文件",
        )
    )
)
TOO_MUCH_AT_ONCE = re.compile(
    r"request too large for|larger than the (maximum )?(number of )?tokens per minute"
)
FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "content_filter_error",
    "contentfiltererror",
    "data_inspection_failed",
    "datainspectionfailed",
    "moderation_blocked",
    "responsibleaipolicyviolation",
    "guardrail_intervened",
    "safety",
    "prohibited_content",
}
FILTERED = re.compile(
    r"content management policy|input was flagged|requires moderation|content[_ ]policy|content"
    r" filter\w* (policy|trigger)"
)
QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "exceeded_current_quota_error",
    "insufficient_balance",
    "credits_exhausted",
}
UNREADABLE_CODES = {
    "json_validate_failed",
    "tool_use_failed",
    "output_parse_failed",
}  # Groq: the model's answer fitted no schema
NO_SYSTEM = re.compile(
    "|".join(
        (
            (
                r"\bsystem\b['\"`]? ?(role|message|prompt|instruction)s?[^.;]{0,30}(not|n't|un)["
                r" -]?\w*(support|allow|enabl|permit|accept)"
            ),
            (
                r"(not|n't|un)["
                r" -]?(support\w*|allow\w*|enabl\w*|permit\w*|accept\w*)[^.;]{0,40}\bsystem\b"
            ),
            r"developer instruction is not enabled",  # Gemini's Gemma
            (
                r"(unexpected|invalid|unknown|unsupported|bad|wrong) (message )?role:?"
                r" ?['\"`]*system|role:? ?['\"`]*system['\"`]* (is )?(in|un|not )"
            ),
            r"no system (role|message|prompt)|without (a )?system (role|message|prompt)",
            (
                r"(invalid|unexpected) value:? ['\"]?system|role must be[^.;]{0,20}user|messages?"
                r" (must|should)[^.;]{0,20}alternat"
            ),
            r"only (the )?['\"`]?user['\"`]?(,| and| or)[^.;]{0,60}assistant",
            (
                r"roles? (must|should|have to|need to|is to|are to)[^.;]{0,20}alternat|should be"
                r" alternating|alternate between"
            ),
            r"input should be 'user'",
            (
                r"first message must be (from |of )?(the )?['\"`]?user|(must|should) (start|begin)"
                r" with (a |the )?['\"`]?user"
            ),
        )
    )
)

ANY_SYSTEM = re.compile(
    r"\bsystem\b.{0,20}\b(role|message|prompt|instruction|turn)s?\b|\b(role|user)s?\b.{0,30}\bsystem\b|\bsystem\b['\"`]?"
    r" is not"
)
WRONG = (
    r"(unsupported|unexpected|unknown|invalid|unrecogni[sz]ed|illegal|must (be|start|begin)|not"
    r" (supported|allowed|valid|recogni[sz]ed))"
)
ANY_ROLE = re.compile(
    rf"{WRONG}[^.;\n]{{0,30}}\broles?\b|\broles?\b[^.;\n]{{0,30}}{WRONG}|{WRONG}[^.;\n]{{0,20}}['\"`]system\b"
    r"|(first|initial) message[^.;\n]{0,30}\buser\b"
)
OTHER_ROLE = re.compile(
    r"\b(iam|arn|database|account|permissions?|assume\w*)\b|\brole\b[^.;\n]{0,20}\btool\b"
)  # no role of a message


def is_too_long(refusal: Refusal, status: int | None) -> bool:
    """Say whether a prompt does not fit: into the model's context, or into what the account may
    send in a minute at all.
    """
    if status == 413 or any(TOO_LONG_CODES.search(code) for code in refusal.codes):
        return True
    if PICTURE.search(refusal.text):
        return False
    # "Too many tokens" of a minute is a matter of pace, unless one request alone is more than that.
    is_known = bool((TOO_MUCH_AT_ONCE if status == 429 else TOO_LONG).search(refusal.text))
    return is_known or (
        status in (400, 422, 500) and _sounds_too_long(refusal.text.replace("_", " "))
    )


def _sounds_too_long(text: str) -> bool:
    return LIKELY_TOO_LONG.search(text) is not None and NOT_TOO_LONG.search(text) is None


def is_filtered(refusal: Refusal) -> bool:
    """Say whether a provider's filter would not read the prompt."""
    return bool(FILTER_CODES.intersection(refusal.codes) or FILTERED.search(refusal.text))


def is_out_of_quota(refusal: Refusal) -> bool:
    """Say whether the account has nothing left, as opposed to being too fast."""
    return bool(QUOTA_CODES.intersection(refusal.codes))


def refuses_system(refusal: Refusal, status: int | None) -> bool:
    """Say whether the roles of the messages are refused: a system message, or two of one role in a
    row.

    A request that is refused (4xx) with any word of system messages is taken so; a failure (5xx)
    only by words that are known.
    """
    named = (
        any(p == "role" or p.endswith(".role") for p in refusal.params) and "system" in refusal.text
    )
    loose = status is not None and status < 500 and ANY_SYSTEM.search(refusal.text)
    likely = (
        status in (400, 422, 500)
        and ANY_ROLE.search(refusal.text)
        and not OTHER_ROLE.search(refusal.text)
    )
    return named or bool(loose or likely or NO_SYSTEM.search(refusal.text))


def find_parameters(refusal: Refusal, known: Sequence[str]) -> tuple[str, ...]:
    """Return which of these parameters an error names: all of its own fields, else the first in its
    words, quoted ones first.
    """
    own = tuple(k for k in known if any(k in re.split(r"[.\[\]]", p) for p in refusal.params))
    if own:
        return own
    text = refusal.text
    for pattern in (r"['\"`]{}['\"`]", r"(?<!\w){}(?!\w)"):
        places = [
            (m.start(), k) for k in known if (m := re.search(pattern.format(re.escape(k)), text))
        ]
        if places:
            return (min(places)[1],)
    return ()
