"""Renders the templates of role cards, which are untrusted, in a sandbox that shows them only card
fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from traceback import walk_tb
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes

from culturepark.errors import CardError, nearest
from culturepark.sandbox import SANDBOX

LONGEST = 100_000  # characters of a template
TOKENS = {  # what Jinja calls the signs of its language
    "end of print statement": "}}",
    "begin of print statement": "{{",
    "end of statement block": "%}",
    "begin of statement block": "{%",
    "end of template": "the end of the text",
}


@lru_cache(maxsize=512)
def _compile(source: str) -> Template:
    if len(source) > LONGEST:
        raise ValueError(f"longer than {LONGEST:,} characters")
    return SANDBOX.from_string(source)


def render(source: str, facts: Mapping[str, Any], where: str) -> str:
    """Render a card's template with `facts`; CardError names the card's key (`where`) when it
    cannot be.
    """
    try:
        return _compile(source).render(facts).strip()
    except Exception as error:  # whatever goes wrong in a template is the card's mistake
        raise CardError([f"{where}: {_explain(error, source)}"]) from error


def parse(source: str, where: str) -> nodes.Template:
    """Return a template's tree once it compiles; CardError as `render` raises it."""
    try:
        _compile(source)
        return SANDBOX.parse(source)
    except Exception as error:
        raise CardError([f"{where}: {_explain(error, source)}"]) from error


def _explain(error: Exception, source: str) -> str:
    """Return line, words and text of what is wrong in a template."""
    line, lines = _find_line(error), source.splitlines()
    words = " ".join(_format_words(error).split())
    if line is None:
        return words
    line_text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return f"line {line} ({line_text if len(line_text) <= 80 else line_text[:79] + '…'}): {words}"


def _find_line(error: Exception) -> int | None:
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    lines = [
        line
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename == "<template>"
    ]
    return lines[-1] if lines else None


def _format_words(error: Exception) -> str:
    if isinstance(
        error, (RecursionError, SyntaxError)
    ):  # Python's own: so many blocks do not go into one another
        return "it is nested, or calls itself, too deeply"
    if isinstance(error, MemoryError):
        return "it takes more memory than a prompt may"
    message = str(error) or type(error).__name__
    if message.startswith("Exceeds the limit"):
        return "a number of too many digits"
    for jinja, sign in TOKENS.items():
        message = message.replace(f"'{jinja}'", f"'{sign}'").replace(jinja, f"'{sign}'")
    for kind, known in (("filter", SANDBOX.filters), ("test", SANDBOX.tests)):
        if message.startswith(f"No {kind} named"):
            return (
                f"no {message[3:].rstrip('.')}."
                f" {nearest(message.split(chr(39))[1], filter(str.isidentifier, known))}"
            )
    return message
