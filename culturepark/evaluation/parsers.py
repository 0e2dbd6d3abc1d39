"""Reads answers strictly: what cannot be read is Unparsed, with the reason, and never a number.

A parser is a function of what was said and the item that was asked. Short names here, or
`package.module:name`.
"""

from __future__ import annotations

import re
from typing import Any

from culturepark.evaluation.types import Item, Parser, Unparsed
from culturepark.registry import PARSERS

# What may stand before an answer without making it another one.
LEAD = re.compile(
    r"^[\s*_\"'“”‘’`(\[]*(?:(?:my |the )?(?:answer|option|choice|rating|label)(?: is|:| would"
    r" be)?[\s:*\"'“`(\[]*)?",
    re.IGNORECASE,
)
NUMBER = re.compile(r"(\d+)(?![\d.,]\d)(?!\d)")
AFTER = re.compile(r"[\s.,;:!?)\]*\"'”’`—–-]|$")


def load(name: str) -> Parser:
    """Return a parser by short name or `package.module:name`; InputError names the nearest."""
    parser: Parser = PARSERS.load(name)
    return parser


def option(said: str, item: Item) -> Any:
    """Return the code of the option that an answer begins with, by its number or its words.

    `item.facts["codes"]` and `item.facts["labels"]` list them. Unparsed where it begins with
    neither, or goes on to name another option by number ("2 or 3").
    """
    codes, labels = item.facts["codes"], item.facts.get("labels", ())
    rest = said[LEAD.match(said).end() :]  # type: ignore[union-attr]
    found = NUMBER.match(rest)
    if found is not None:
        code = int(found[1])
        if code not in codes:
            return Unparsed(f"{code} is no option; there are {_join_values(codes)}")
        others = {
            int(n)
            for n in re.findall(r"(?:^|\bor |\band |/|–|-)\s*(\d+)\b", rest[found.end() :][:20])
        } & set(codes)
        return Unparsed(f"it names {code} and {min(others - {code})}") if others - {code} else code
    named = _find_beginning(rest, labels)
    return (
        codes[named] if named is not None else Unparsed(f"it begins with no option: {said[:80]!r}")
    )


def label(said: str, item: Item) -> Any:
    """Return the one of `item.facts["labels"]` that is the whole first line of an answer, case and
    punctuation aside.
    """
    labels = item.facts["labels"]
    line = next((part for part in said.splitlines() if part.strip()), "")
    rest = line[LEAD.match(line).end() :]  # type: ignore[union-attr]
    named = _find_beginning(rest, labels)
    if named is None:
        return Unparsed(f"it is none of {_join_values(labels)}: {said[:80]!r}")
    left = rest[len(labels[named]) :]
    others = [
        other
        for i, other in enumerate(labels)
        if i != named and re.search(rf"\b{re.escape(other)}\b", left, re.IGNORECASE)
    ]
    return Unparsed(f"it names {labels[named]!r} and {others[0]!r}") if others else labels[named]


def rating(said: str, item: Item) -> Any:
    """Return a whole number on the scale `item.facts["scale"]` ([low, high]); Unparsed for anything
    beyond it.
    """
    low, high = item.facts["scale"]
    rest = said[LEAD.match(said).end() :]  # type: ignore[union-attr]
    found = re.match(
        rf"(\d+)(?:\s*(?:/|out of)\s*{high})?(?![\d.,]\d)(?!\d)(?!\s*(?:-|–|to|or|/)\s*\d)", rest
    )
    if found is None:
        return Unparsed(f"it begins with no whole number: {said[:80]!r}")
    value = int(found[1])
    return (
        value
        if low <= value <= high
        else Unparsed(f"{value} is beyond the scale from {low} to {high}")
    )


def text(said: str, item: Item) -> Any:
    """Return the answer as it is."""
    return said


def _find_beginning(said: str, labels: Any) -> int | None:
    """Return the place of the longest label that a text begins with, as whole words; None where it
    begins with none.
    """
    low = said.casefold()
    found = [
        (len(text), -i)
        for i, text in enumerate(labels)
        if text and low.startswith(text.casefold()) and AFTER.match(said[len(text) :])
    ]
    return -max(found)[1] if found else None


def _join_values(values: Any) -> str:
    return ", ".join(map(str, values))


HEADS = ("option", "rating")  # they read the beginning of an answer and nothing else
