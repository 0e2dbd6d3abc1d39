"""Makes text from outside safe inside Markdown and its YAML front matter: it stays text, whatever
it holds.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

SPECIAL = re.compile(
    r"([\\`\[\]|~$#])"
)  # what begins code, links, images, table cells, headings, formulas


def format_inline(text: str) -> str:
    r"""Return text as one line of Markdown that shows it and does nothing else: no HTML, no link,
    no image, no table cell.

    >>> inline("<script>x</script> [a](javascript:b)")
    '&lt;script&gt;x&lt;/script&gt; \\[a\\](javascript:b)'
    """
    return SPECIAL.sub(r"\\\1", html.escape(one_line(text), quote=False))


def format_code(text: str) -> str:
    """Return text as a span of code, which it cannot end.

    >>> code("a`b")
    "`a'b`"
    """
    return f"`{one_line(text).replace('`', chr(39)).replace('|', '¦')}`"


def one_line(text: str) -> str:
    """Return text without line breaks, control characters and whatever else cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def render_front_matter(values: Mapping[str, Any]) -> str:
    r"""Return YAML front matter with its fences; every value is written as JSON, which YAML reads
    as that value alone.

    >>> front_matter({"name": "yes: no"})
    '---\nname: "yes: no"\n---'
    """
    return "\n".join(
        ["---", *(f"{key}:{_format_yaml(value)}" for key, value in values.items()), "---"]
    )


def _format_yaml(value: Any) -> str:
    """Return a value as JSON; a list of mappings an item per line."""
    if isinstance(value, Sequence) and value and all(isinstance(v, Mapping) for v in value):
        return "".join(f"\n-{_format_yaml(v)}" for v in value)
    return " " + json.dumps(_clean_text(value), ensure_ascii=False)


def _clean_text(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {one_line(k): _clean_text(v) for k, v in value.items()}
    return [_clean_text(v) for v in value] if isinstance(value, (list, tuple)) else value
