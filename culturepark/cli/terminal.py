"""Text for a terminal: control characters from outside are made visible, so that nothing they order
happens.
"""

from __future__ import annotations

import re

import click

# Everything that moves a cursor, changes a colour or turns the direction of writing: C0 but for tab
# and line break, DEL and C1, and Unicode's overrides and isolates of direction.
ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def echo(text: str, *, err: bool = False) -> None:
    """Print text, on stderr with `err`; whatever it holds is shown and never obeyed."""
    click.echo(printable(text), err=err)


def printable(text: str) -> str:
    r"""Return text with its control characters written out, as in `\x1b[31m`."""
    return ORDERS.sub(_write_out, text)


def _write_out(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")
