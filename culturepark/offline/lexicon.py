"""Knows single words: what they count as, what turns a statement round, and what only looks as if
it did.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[,;:—–]")
WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
IDIOM = re.compile(
    r"\b(?:rather than|far from|anything but|instead of|other (?P<other>\w+) than|too"
    r" (?P<excess>little|few|small|much|many|heavily|great)|"
    r"(?P<equal>no difference)|(?P<most>nothing) (?=(?:\S+ ){1,6}(?:more|better) )|"
    r"(?:hard|difficult|impossible|wrong) (?:for \w+ )?to "
    r"(?:(?P<deny>deny|doubt|dispute|ignore|overlook)|accept|believe|agree|say"
    r" that|think|see|maintain|argue|claim|share))\b"
)
IDIOM_HINTS = (
    "rather",
    "far from",
    "anything but",
    "instead of",
    "other ",
    "too ",
    "nothing",
    "no difference",
    "hard",
    "difficult",
    "impossible",
    "wrong",
)
EQUAL = re.compile(
    r"\b(?:equally|alike|same|equal|just as|as (?!soon|long|far)\w+ as|as \w+ \w+ as|at least"
    r" as|every bit as)\b"
)
RANKED = re.compile(r"\b(?:than|before|ahead|prefer|preference)\b")
ENDINGS = (
    "isation",
    "ization",
    "ations",
    "ation",
    "ments",
    "ment",
    "ness",
    "ings",
    "ing",
    "ions",
    "ion",
    "ied",
    "ies",
    "ers",
    "ors",
    "ed",
    "es",
    "er",
    "or",
    "ly",
    "al",
    "s",
)


@lru_cache(maxsize=1)
def load_words() -> dict[str, Any]:
    """Return the file of words."""
    return tomllib.loads(
        resources.files(__package__).joinpath("words.toml").read_text(encoding="utf-8")
    )


@lru_cache(maxsize=64)
def load_wordset(name: str) -> frozenset[str]:
    """Return a set of words that sentences are handled by."""
    return frozenset(load_words()["sentences"][name].split())


class Phrases:
    """A set of phrases to look for as whole words.

    Most texts hold none of them, and asking for each as a plain substring is ten times faster than
    one large pattern.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._phrases = tuple(phrases)
        longest_first = sorted(map(re.escape, self._phrases), key=len, reverse=True)
        self._pattern = re.compile(rf"\b(?:{'|'.join(longest_first)})\b")

    def within(self, text: str) -> bool:
        """Say whether one of the phrases stands in the text."""
        return any(p in text for p in self._phrases) and bool(self._pattern.search(text))

    def without(self, text: str) -> str:
        """Return the text without the phrases."""
        return self._pattern.sub("", text) if any(p in text for p in self._phrases) else text


@dataclass(frozen=True)
class Lexicon:
    """The reader's words, made ready for look-up."""

    negators: frozenset[str]
    amounts: frozenset[str]
    poles: dict[str, tuple[str, int]]
    same: dict[str, str]
    plain: frozenset[str]
    idioms: Phrases
    hedges: Phrases
    granting: Phrases


@lru_cache(maxsize=1)
def load_lexicon() -> Lexicon:
    """Return the reader's words."""
    held = load_words()
    ends = [
        (w, f"={scale}", pole)
        for scale, both in held["scales"].items()
        for key, pole in (("up", 1), ("down", -1))
        for w in both[key]
    ]
    # Inflected forms count as well ("harmed" as "harm"), where they are long enough to be told
    # apart.
    poles = {cut_ending(w): (scale, pole) for w, scale, pole in ends if len(cut_ending(w)) > 3} | {
        w: (scale, pole) for w, scale, pole in ends
    }
    return Lexicon(
        negators=frozenset(held["negators"]),
        amounts=frozenset(held["amounts"]),
        poles=poles,
        same={w: group[0] for group in held["same"]["groups"] for w in group},
        plain=frozenset(held["plain"]["words"].split()),
        idioms=Phrases(held["idioms"]),
        hedges=Phrases(held["hedges"]),
        granting=Phrases(held["granting"]),
    )


def simplify_text(text: str) -> str:
    """Return the text case-folded, with straight apostrophes, and with its idioms put as plain
    negations or left out.
    """
    low = load_lexicon().idioms.without(text.casefold().replace("’", "'"))
    return IDIOM.sub(_replace_idiom, low) if any(h in low for h in IDIOM_HINTS) else low


def _replace_idiom(found: re.Match[str]) -> str:
    """Put one idiom plainly: what is hard to deny is affirmed, what is hard to believe is not."""
    if found["other"]:
        return f"{found['other']} not"
    if found["excess"]:
        return "toolittle" if found["excess"] in ("little", "few", "small") else "toomuch"
    if found["equal"]:
        return "equal"
    return "" if found["deny"] or found["most"] else "not"


@lru_cache(maxsize=65_536)
def stem_word(word: str) -> str | None:
    """Return what a word counts as: its pole, its group, or its rough stem; None where it weighs
    nothing.
    """
    known = load_lexicon()
    bare = word.removesuffix("'s").removesuffix("'")
    if pole := _find_pole(bare):
        return pole[0]
    if bare in known.same:
        return known.same[bare]
    if bare in known.plain or bare in known.negators or len(bare) < 3 or bare.endswith("n't"):
        return None
    return cut_ending(bare)


@lru_cache(maxsize=65_536)
def _find_pole(word: str) -> tuple[str, int] | None:
    """Return the scale that a word stands on, and its end of it."""
    known = load_lexicon()
    if word in known.poles or word in known.same or word in known.plain:
        return known.poles.get(word)
    return known.poles.get(cut_ending(word))


def cut_ending(word: str) -> str:
    """Return a word's rough stem: "robberies", "robbery" and "robbed" come close enough to one
    another.
    """
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word.rstrip("eiy") if len(word) > 4 else word


def collect_stems(tokens: Iterable[str]) -> set[str]:
    """Return the stems of the words that weigh something."""
    return {s for t in tokens if (s := stem_word(t))}


def is_negation(word: str) -> bool:
    """Say whether a word is a plain negation."""
    return word in load_lexicon().negators or word.endswith("n't")


def is_reversing(word: str, topical: frozenset[str]) -> bool:
    """Say whether a word turns a statement round. `topical` holds amounts that belong to the matter
    itself.
    """
    if word in load_lexicon().amounts:
        return word not in topical
    return is_negation(word) or (_find_pole(word) or ("", 1))[1] < 0


def read_sign(tokens: Iterable[str], topical: frozenset[str]) -> int:
    """Return -1 where a statement is turned round an odd number of times, else 1."""
    return -1 if sum(is_reversing(t, topical) for t in tokens) % 2 else 1


def read_comparison(tokens: Sequence[str]) -> int:
    """Return 1 where a statement ranks two things, -1 where it sets them equal, 0 where it compares
    nothing.

    A negation turns the one into the other: "no better than" sets equal.
    """
    joined = " ".join(tokens)
    found = -1 if EQUAL.search(joined) else 1 if RANKED.search(joined) else 0
    return -found if found and sum(map(is_negation, tokens)) % 2 else found
