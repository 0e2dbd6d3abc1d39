"""Which parameters of a request are heeded, which ask for nothing, and which are refused: closed
lists, nothing is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from culturepark.errors import nearest
from culturepark.serving.problems import Problem

# Whose request it is and where it is kept: no answer depends on these.
NO_EFFECT = frozenset(
    [
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
    ]
)
CHAT = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "stream",
        "stream_options",
        "response_format",
        "stop",
        "temperature",
        "top_p",
        "seed",
        "n",
    ]
)
LOGPROBS = frozenset(["logprobs", "top_logprobs"])
TEXT = (CHAT - {"messages", "max_completion_tokens", "response_format"}) | {
    "prompt",
    "echo",
    "logprobs",
}
# What may be asked for but is not done here, with the values that ask for nothing.
NOTHING: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "n": (1,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "top_k": (0, -1),
    "min_p": (0,),
    "length_penalty": (1,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "chat_template_kwargs": ({}, {"enable_thinking": False}, {"thinking": False}),
    "add_generation_prompt": (True,),
}


def check_parameters(body: Mapping[str, Any], heeded: frozenset[str], who: str) -> None:
    """Raise the Problem with the first parameter that would change an answer and that `who` (a
    server) does not heed.
    """
    for name, value in body.items():
        if name in heeded or name in NO_EFFECT or value is None or value in NOTHING.get(name, ()):
            continue
        if name in NOTHING:
            message = f"Unsupported parameter: '{name}'. {who} does not take it."
            raise Problem(400, message, code="unsupported_parameter", param=name)
        known = sorted(heeded | NO_EFFECT | set(NOTHING))
        message = f"Unrecognized request argument supplied: {name}. {nearest(name, known)}"
        raise Problem(400, message, code="unknown_parameter", param=name)
