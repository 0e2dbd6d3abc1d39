"""Turns a kept opinion into the first person, word by whole word, so that no word is ever
mangled.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from culturepark.records import stream

TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\s+|.", re.DOTALL)
IRREGULAR = {
    "is": "am",
    "was": "was",
    "has": "have",
    "does": "do",
    "goes": "go",
    "isn't": "am not",
    "doesn't": "don't",
    "hasn't": "haven't",
}
BETWEEN = {
    "also",
    "often",
    "still",
    "strongly",
    "firmly",
    "truly",
    "really",
    "always",
    "never",
    "usually",
    "sometimes",
    "generally",
    "personally",
    "therefore",
    "too",
}
SAYS = {
    "believes",
    "thinks",
    "feels",
    "says",
    "holds",
    "agrees",
    "disagrees",
    "argues",
    "considers",
    "hopes",
    "fears",
    "finds",
    "sees",
    "knows",
    "wants",
    "likes",
    "prefers",
    "values",
    "trusts",
    "doubts",
    "supports",
    "opposes",
    "accepts",
    "rejects",
    "expects",
    "wishes",
    "worries",
    "thanks",
    "lives",
    "works",
    "comes",
    "grows",
    "remembers",
    "emphasizes",
    "emphasises",
    "stresses",
    "notes",
    "adds",
    "suggests",
    "respects",
    "teaches",
    "practises",
    "practices",
    "cares",
    "cooks",
    "keeps",
    "takes",
    "gives",
    "makes",
    "tries",
    "carries",
    "studies",
    "wears",
    "watches",
    "misses",
    "reaches",
    "discusses",
    "supposes",
}
LEADS = (
    "I think that {}",
    "In my view, {}",
    "As I see it, {}",
    "To my mind, {}",
    "I believe that {}",
    "For me, {}",
    "I would say that {}",
    "I hold that {}",
)
OPENERS = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "there",
        "in",
        "on",
        "at",
        "for",
        "from",
        "with",
        "without",
        "by",
        "to",
        "of",
        "as",
        "if",
        "when",
        "where",
        "since",
        "because",
        "although",
        "though",
        "while",
        "many",
        "some",
        "most",
        "few",
        "several",
        "both",
        "all",
        "each",
        "every",
        "any",
        "no",
        "not",
        "people",
        "families",
        "parents",
        "children",
        "men",
        "women",
        "mothers",
        "fathers",
        "elders",
        "neighbours",
        "neighbors",
        "young",
        "older",
        "younger",
        "old",
        "being",
        "having",
        "making",
        "keeping",
        "taking",
        "caring",
        "working",
        "science",
        "religion",
        "work",
        "immigration",
        "roughly",
        "about",
        "around",
        "nearly",
        "almost",
        "often",
        "sometimes",
        "usually",
        "perhaps",
        "even",
        "only",
        "one",
        "two",
        "three",
        "half",
        "voters",
        "votes",
        "elections",
    ]
)


def first_person(
    text: str, names: Collection[str], *purpose: object, common: Collection[str] = ()
) -> str:
    """Return an opinion in the first person.

    Where the text names its speaker (`names`), the name becomes "I", "my" or "me" and the verb
    after it follows; elsewhere the opinion is introduced ("I think that …"). Only whole words are
    ever replaced. `common` holds words known to be written small inside a sentence.
    """
    tokens = TOKEN.findall(text)
    if any(_names_speaker(t, names) for t in tokens):
        return "".join(_speak(tokens, names))
    lead = stream("voice", text, *purpose).choice(LEADS)
    small = decapitalise(text, common)
    return lead.format(small) if small else f"My view is this: {text}"


def decapitalise(text: str, common: Collection[str] = ()) -> str | None:
    """Return the text with its first letter small, or None where the first word may be a proper
    noun.
    """
    word = TOKEN.findall(text)[0] if text else ""
    if word and (word.islower() or word.casefold() in OPENERS or word.casefold() in common):
        return text[0].lower() + text[1:]
    return None


def _names_speaker(token: str, names: Collection[str]) -> bool:
    return token in names or token.removesuffix("'s").removesuffix("’s") in names


def _speak(tokens: list[str], names: Collection[str]) -> list[str]:
    """Replace the speaker's name, and bend the verb that follows it."""
    out: list[str] = []
    bend = False
    for i, token in enumerate(tokens):
        if token in names:
            subject = _is_subject(tokens, i)
            out.append("I" if subject else "me")
            bend = subject
        elif _names_speaker(token, names):
            out.append("My" if not out else "my")
            bend = False
        elif bend and token[0].isalpha():
            out.append(token if token.casefold() in BETWEEN else bend_verb(token))
            bend = token.casefold() in BETWEEN
        else:
            out.append(token)
    return out


def _is_subject(tokens: list[str], place: int) -> bool:
    """Say whether a verb in the third person follows the name (adverbs between allowed)."""
    following = (t.casefold() for t in tokens[place + 1 :] if t[0].isalpha())
    word = next((w for w in following if w not in BETWEEN), "")
    return place == 0 or word in SAYS or word in IRREGULAR


def bend_verb(verb: str) -> str:
    """Return a third-person verb in the first person; any other word as it is.

    >>> bend_verb("believes"), bend_verb("carries"), bend_verb("health")
    ('believe', 'carry', 'health')
    """
    word = verb.casefold()
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word not in SAYS:
        return verb
    if word.endswith("ies"):
        return verb[:-3] + "y"
    return verb[:-2] if re.search(r"(sh|ch|ss|x)es$", word) else verb[:-1]
