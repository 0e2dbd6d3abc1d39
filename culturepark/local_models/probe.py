"""Tries a base's chat template in a process of its own before it is trusted to end: a template is a
program of somebody else's.

The process has a limit of time and, where the system knows one, of memory; what the template says
there is thrown away but for its length. Only Jinja is loaded in it, as transformers sets it up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache

from culturepark.errors import ModelError

SECONDS, MEMORY = 5, 1 << 30  # of the trial: time of one processor core, bytes of memory
PATIENCE = 12  # times as long by the clock, where the machine is busy or knows no such limits
LONGEST = 1 << 20  # characters that a template may write around a few short messages
PROMPT, MORE, ANSWER = (
    {"role": role, "content": "Is tea good?"} for role in ("system", "user", "assistant")
)
TALKS = [[MORE], [PROMPT, MORE], [MORE, ANSWER], [PROMPT, MORE, ANSWER, MORE]]
TRIAL = """
import json, sys
from contextlib import suppress
with suppress(ImportError):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
    resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.nodes import Scope

class Generation(Extension):
    tags = {{"generation"}}
    def parse(self, parser):
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)

def refuse(message):
    raise ValueError(message)

told = json.load(sys.stdin)
room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
room.filters["tojson"] = lambda x, **how: json.dumps(x)
room.globals |= {{"raise_exception": refuse, "strftime_now": lambda form: "26 Jul 2024"}}
longest = 0
for talk in told["talks"]:
    for begin in (True, False):
        try:
            made = room.from_string(told["template"]).render(messages=talk, add_generation_prompt=begin, **told["marks"])
            longest = max(longest, len(made))
        except MemoryError:
            sys.exit("memory")
        except Exception:
            pass
print(longest)
"""  # noqa: E501

_SLOW = f"the base's chat template did not end within {SECONDS} s of work on a few short messages"


@lru_cache(maxsize=32)
def try_template(template: str, marks: tuple[tuple[str, str], ...]) -> None:
    """Raise ModelError for a chat template that takes more time, memory or text than one needs;
    `marks` are the tokenizer's own.
    """
    payload = json.dumps({"template": template, "talks": TALKS, "marks": dict(marks)})
    try:
        process = subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-c", TRIAL.format(memory=MEMORY, seconds=SECONDS)],
            input=payload,
            capture_output=True,
            text=True,
            timeout=PATIENCE * SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{_SLOW}; it is not used") from None
    if process.returncode < 0:
        raise ModelError(f"{_SLOW}; it is not used")
    if process.returncode > 0:
        raise ModelError(
            "the base's chat template took more memory than a prompt needs; it is not used"
        )
    if int(process.stdout) > LONGEST:
        raise ModelError(
            f"the base's chat template writes more than {LONGEST} characters for four short"
            " messages"
        )
