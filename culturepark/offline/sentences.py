"""Cuts texts into sentences and words opinions so that they stand alone: no lead-ins, no pronouns
for persons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from culturepark.offline.lexicon import load_lexicon, load_wordset

END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+")
ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|cf|No|approx|[A-Z]|[A-Z]\.[A-Z])\.$"
)

LETTERS = re.compile(r"[^\W\d_]+")
FIRST_WORD = r"(?:i|me|my|mine|myself|we|us|our|you|your)(?:['’](?:m|ve|d|ll|re))?"
# Each pattern takes away one way of beginning; they are tried again until none fits.
ASIDE = re.compile(
    r"^(?:(?:well|yes|no|still|then|honestly|frankly|personally|indeed|besides|after all|not only"
    r" that|then again|of course|to be (?:honest|frank|fair|sure)|all in all|on the whole|"
    r"in short|in the end|for one thing|admittedly|again|once more|to say it once more|even so|that"
    r" said|by and large|to begin with|first of all|moreover|"
    r"furthermore|seriously|simply put|so)\s*,\s+|(?:and|but|so|yet)\s+(?=[a-z]))",
    re.IGNORECASE,
)
PHRASE = re.compile(
    r"^(?:as|in|to|if|the way|the"
    rf" (?:longer|more)|from|for|looking|speaking|when|whenever|though|seen|at|on|with|like|since|where)\b(?=[^,;:.]*\b{FIRST_WORD}\b)[^,;:.]{{0,70}},\s+",  # noqa: E501
    re.IGNORECASE,
)
NOT_LEADING = re.compile(r"[;:.]|\bbecause\b", re.IGNORECASE)
BARE = re.compile(
    r"^(?:and |but |so )?(?:i|we)(?:['’]d)? (?:\w+"
    r" )?(?:think|believe|feel|guess|suppose|say|find|hold),? "
    r"(?!about\b|of\b|in\b|so\b|like\b|to\b|for\b|with\b|this\b|that\b|it hard\b|it"
    r" difficult\b|myself\b|you\b|as\b|and\b|when\b)",
    re.IGNORECASE,
)
COLON = re.compile(r"^(?P<lead>[^:.]{1,90}):\s+(?P<rest>.{12,})$")
HARD = re.compile(
    r"^(?:i find it|it is) (?:very |quite |rather )?(?:hard|difficult)(?: for me)? to ",
    re.IGNORECASE,
)
JOINT = re.compile(r"(?:(?:and|but|yet|so|still) )+", re.IGNORECASE)
GRANTING = re.compile(
    r"^i (?:know(?: well)?|do not (?:overlook|deny)|admit|grant|concede) that(?="
    r" .+\b(?:but|yet|still)\b)",
    re.IGNORECASE,
)
TURNING = re.compile(
    r"\b(?:not|cannot|never|nobody|nothing|hard|difficult|(?<!some"
    r" )doubt|doubts|doubted|deny|disagree|reject|wrong|no|hardly|\w+n['’]t)\b",
    re.IGNORECASE,
)
WHERE = re.compile(
    r"^(?:where (?:i|we) (?:live|come from|grew up|am from|was born)|in (?:my|our)"
    r" (?:country|homeland|culture)|at home|with us|among (?:us|the people i know)|back home),\s+",
    re.IGNORECASE,
)
SELF = re.compile(
    r"^(?P<who>(?:as|being) an? [^,.;:]{3,90}), (?:i|we) (?:[\w']+ ){0,4}?that (?P<rest>.{12,})$",
    re.IGNORECASE,
)
EMPTY = re.compile(
    r"^(?:thank|thanks|good"
    r" (?:morning|day|evening|afternoon|to)|hello|hi|dear|goodbye|sorry|welcome|pleased|it is (?:a"
    r" pleasure|good to))\b",
    re.IGNORECASE,
)
DANGLING = re.compile(
    r"^(?:that|this|those|these|they|them|he|she|such|both of|it (?:is|was) (?:like|from"
    r" there))\b(?! (?:one|a|an|people|who|with|is why)\b)",
    re.IGNORECASE,
)
SURVEYED = re.compile(r"\bsurvey\b|\bpoll found\b|\bof those asked\b|\bwere asked\b", re.IGNORECASE)
LEADS = ((ASIDE, False), (PHRASE, True), (BARE, True))
# What may take the place of words that hold a pronoun; {place} is the culture's. The first entry of
# a row is a word that must be there: asking for it is much faster than trying the pattern.
SWAPS = tuple(
    (hint, re.compile(pattern, re.IGNORECASE), new)
    for hint, pattern, new in (
        (
            "live among",
            r"\bi live among people who know that (?P<x>.+?), and most of them would say that\b",
            "in {place}, \\g<x>, and many people would say that",
        ),
        (
            "people",
            r"\b(?:the )?people (?:around me|where i live|i live among|i know|at home)\b",
            "many people in {place}",
        ),
        ("around me", r"\b(?:all )?around me\b", "in {place}"),
        ("where", r"\bwhere (?:i|we) (?:live|come from|grew up|am from)\b", "in {place}"),
        ("country", r"\b(?:in|of) (?:my|our) country\b", "in {place}"),
        ("country", r"\b(?:my|our) country\b", "{place}"),
        ("people", r"\b(?:my|our) people\b", "many people in {place}"),
        (
            " of ",
            (
                r"\b(?P<x>many|most|some|few) of (?:my|our)"
                r" (?P<y>neighbours|neighbors|friends|colleagues|relatives|pupils|patients)\b"
            ),
            "\\g<x> \\g<y>",
        ),
        (" my ", r"\b(?:my|our) (?P<y>neighbours|neighbors|friends|colleagues)\b", "many \\g<y>"),
        (
            "in ",
            r"\bin (?:my|our) (?P<y>neighbourhood|neighborhood|street|town|village|city|quarter)\b",
            "in this \\g<y>",
        ),
        ("tell you", r"\bcan tell you\b", "can say"),
        ("tell you", r"\b(?P<x>would|will)(?P<y>(?: often)?) tell you\b", "\\g<x>\\g<y> say"),
        (
            " and ",
            (
                r",? and (?:i (?:think so too|agree(?: with (?:them|that))?|see it the same way|do"
                r" too)|so do i)(?=[.,]|$)"
            ),
            "",
        ),
        ("because", r", and i (?:say|think) (?:so|this|that) because\b", " because"),
        (
            " i ",
            (
                r"\b(?P<x>and|but|yet|so|why|because|or)(?: that)? (?:still i|i still|i)(?:"
                r" would)?(?: still| also)? (?:think|believe|say|feel|find|hold|am"
                r" sure|(?:have|'ve) come to (?:think|believe))(?: that)? "
            ),
            "\\g<x> ",
        ),
        (" me", r"\b(?P<x>but|yet|and) (?:to|for) me,? ", "\\g<x> "),
        (
            ", ",
            (
                r", (?:i (?:think|believe|feel|suppose|would say|am sure)|to my mind|in my"
                r" (?:view|opinion)|for me|if you ask me|as i see it),"
            ),
            "",
        ),
        (", i ", r", i (?:think|believe|would say|find|feel|shall think|hold)(?: that)? ", ", "),
        ("heard", r"\bi have (?P<x>(?:often )?)heard (?:it said )?that\b", "one \\g<x>hears that"),
        ("i have learned that", r"\bi have learned that\b", "many have learned that"),
        (" i ", r"(?<=\w) i (?:find|feel|think|believe) that\b", " it seems that"),
        ("convince", r"\b(?:does|do|did) not convince (?:me|us)\b", "does not convince"),
        (" us", r"\b(?:amongst?|with) us\b", "in {place}"),
        (" us", r"\b(?P<x>for|to) us\b", "\\g<x> many people in {place}"),
    )
)


@lru_cache(maxsize=4096)
def split_sentences(text: str) -> tuple[str, ...]:
    """Split a text into sentences; stops of abbreviations and initials, and stops before small
    letters, end none.
    """
    text = " ".join(text.split())
    parts, start = [], 0
    for end in END.finditer(text):
        head = text[start : end.end()].rstrip()
        if text[end.end() : end.end() + 1].islower() or ABBREVIATION.search(head):
            continue
        parts.append(head)
        start = end.end()
    return tuple(p for p in (*parts, text[start:].strip()) if p)


def collect_words(text: str) -> set[str]:
    """Return a text's words, small; "I've" counts as "i"."""
    return set(LETTERS.findall(text.casefold()))


def read_opinion(sentence: str, place: str) -> tuple[str, bool] | None:
    """Return a sentence as an opinion that stands alone, and whether its speaker marked it as one;
    None if it is none.
    """
    if sentence.rstrip("\"'”’)] ").endswith("?") or EMPTY.match(sentence):
        return None
    words = collect_words(sentence)
    if words & load_wordset("reported") and SURVEYED.search(sentence):
        return None
    bare, marked = strip_lead_ins(sentence, place, own=bool(words & load_wordset("first")))
    if words & load_wordset("first"):
        if load_wordset("yours") & (words := collect_words(bare)) and "tell you" not in bare:
            return None
        if words & load_wordset("first"):
            bare = _replace_pronouns(bare, place)
            words = collect_words(bare)
    bare = bare.strip(' ,;:–—"“”')
    if words & load_wordset("persons") or DANGLING.match(bare) or bare.count(" ") < 3:
        return None
    return finish_sentence(bare), marked


def is_cultural(text: str) -> bool:
    """Say whether a text speaks of what many do or keep."""
    return bool(collect_words(text) & load_wordset("many"))


def _replace_pronouns(text: str, place: str) -> str:
    """Put words without pronouns for those that hold one, as far as grammar allows."""
    low = f" {text.casefold()}"
    for hint, pattern, new in SWAPS:
        if hint in low:
            text = pattern.sub(new.replace("{place}", place.replace("\\", r"\\")), text)
    return text


def strip_lead_ins(text: str, place: str, own: bool) -> tuple[str, bool]:
    """Take away what leads into an opinion; return the rest and whether the lead-in marked it as an
    opinion.

    `own` says whether the text holds a pronoun of the first or second person: most lead-ins do.
    """
    marked = False
    who = SELF.match(text) if own else None
    if who:
        # The speaker's identity stays, so that a later filter can see who the speaker claims to be.
        return f"{who['who']}, {who['rest']}", True
    for _ in range(6):
        shorter, opines = _strip_lead_in(text, place, own)
        if shorter == text:
            break
        text, marked = shorter, marked or opines
    return text, marked


def _strip_lead_in(text: str, place: str, own: bool) -> tuple[str, bool]:
    """Take one lead-in away; the text itself where there is none."""
    if found := WHERE.match(text):
        return f"In {place}, {text[found.end() :]}", False
    if found := HARD.match(text):
        return f"It is hard to {text[found.end() :]}", True
    if own and (found := GRANTING.match(text)):
        return f"It is true that{text[found.end() :]}", True
    for pattern, opines in LEADS if own else LEADS[:1]:
        if (found := pattern.match(text)) and len(text) - found.end() > 12:
            return text[found.end() :], opines
    if ":" in text and (found := COLON.match(text)):
        mine = bool(collect_words(found["lead"]) & load_wordset("first"))
        if load_lexicon().hedges.within(found["lead"].casefold()):
            return (f"It is hard to say: {found['rest']}" if mine else text), True
        if mine or len(found["lead"].split()) < 8:
            return found["rest"], True
    return _strip_that(text) if own else (text, False)


def _strip_that(text: str) -> tuple[str, bool]:
    """Take away "I think that" and its like, turned into a doubt where it turns the rest round."""
    lead, _, rest = text.partition(" that ")
    if len(lead) > 110 or len(rest) < 12 or NOT_LEADING.search(lead):
        return text, False
    head, _, lead = lead.rpartition(", ")
    words = LETTERS.findall(lead.casefold())
    if (
        not words
        or words[-1] not in load_wordset("leading")
        or not load_wordset("first").intersection(words)
        or not load_wordset("opining").intersection(words)
    ):
        return text, False
    if len(TURNING.findall(lead)) % 2:
        rest = f"it is hard to accept that {rest}"
    if head and (joint := JOINT.match(lead)):
        rest = joint[0] + rest
    # A reason that stands before "…, I think that" is kept.
    return (
        f"{head}, {rest}" if head and not collect_words(head) & load_wordset("first") else rest
    ), True


def finish_sentence(text: str) -> str:
    """Return the text as a sentence: first letter capital, one full stop."""
    text = text.rstrip(" .!…,;:")
    return f"{capitalize_start(text)}." if text else ""


def capitalize_start(text: str) -> str:
    """Return the text with its first letter capital, whatever opens it."""
    for i, letter in enumerate(text):
        if letter.isalnum():
            return text[:i] + letter.upper() + text[i + 1 :]
    return text


def lower_start(text: str, known: Iterable[str] = ()) -> str | None:
    """Return the text with a small first letter, or None where its first word may be a name."""
    first = text.split(maxsplit=1)[0].rstrip(",.;:") if text.split() else ""
    if first.islower() or first.casefold() in load_wordset("small") or first.casefold() in known:
        return text[:1].lower() + text[1:]
    return None
