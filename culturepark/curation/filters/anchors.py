"""Drops what gives its speaker another age or home than the persona's card: the persona has
drifted.
"""

from __future__ import annotations

import re

from culturepark.context import DialogueContext
from culturepark.curation.filters import each_opinion
from culturepark.records import Opinion

SELF = r"(?:(?:^|[,;:.—] )as an?|\bbeing an?|\bi(?:['’]m| am)(?: an?)?)"  # not "as much as a man"
AGE = re.compile(SELF + r" (\d{1,3})[- ]years?[- ]old", re.IGNORECASE)
IDENTITY = re.compile(
    r"(?:^|[,;:.—] )[Aa]s an? (?P<who>[^,.;]{3,60}?) (?:from|in|of) (?P<home>[A-Z][^,.;]{1,40})"
)
GENDER = re.compile(
    SELF + r" (?:[\w-]+ ){0,2}?(woman|man|mother|father|grandmother|grandfather|husband|wife)\b",
    re.IGNORECASE,
)
WOMEN = {"woman", "mother", "grandmother", "wife"}


@each_opinion
def apply(opinion: Opinion, context: DialogueContext) -> str | None:
    """Return the anchor that is broken, as said and as on the card."""
    persona, culture = context.personas[opinion.seat], context.cultures[opinion.seat]
    for age in AGE.findall(opinion.text):
        if int(age) != persona.age:
            return f"says {age} years old; the card says {persona.age}"
    for match in IDENTITY.finditer(opinion.text):
        home = match["home"].split()[0].casefold()
        if home not in f"{persona.home} {culture.place} {culture.people}".casefold():
            return f"says {match['home']!r}; the card says {persona.home!r}"
    for word in GENDER.findall(opinion.text):
        if persona.gender != "nonbinary" and (word.casefold() in WOMEN) != (
            persona.gender == "woman"
        ):
            return f"says {word!r}; the card says {persona.gender!r}"
    return None
