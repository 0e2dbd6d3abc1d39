"""Takes a speaker's own turn out of what a model wrote: lines of others, loops and an unfinished
end are cut off.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from culturepark.records import Mark

Names = tuple[str, ...]
Span = tuple[int, int]  # where something begins and ends in a text


class OwnTurn(NamedTuple):
    """A turn's text, empty where the speaker said nothing whole of their own, and what was cut off
    it.
    """

    text: str
    marks: tuple[Mark, ...] = ()


def own_turn(reply: str, speaker: str, others: Sequence[str] = (), *, cut: bool = False) -> OwnTurn:
    """Return what `speaker` says in a model's reply, a part of it; `cut` says that the reply ended
    at max_tokens.

    The turn ends before the reply goes on as one of `others` or the moderator (mark `other_voice`),
    after the first round of a loop (`looped`), and where the reply was cut at its last whole
    sentence (`trimmed`).
    """
    text, marks = own_words(reply, speaker), list[Mark]()
    while True:
        before = text
        if (part := own_part(text, speaker, others)) is not None:
            cut = cut and text.endswith(part)
            text = own_words(part, speaker)
            marks.append("other_voice")
        if (end := first_round(text)) is not None:
            text, cut = text[:end], False
            marks.append("looped")
        if cut:
            text, cut = text[: last_sentence_end(text)], False
            marks.append("trimmed")
        text = own_words(text, speaker)
        if text == before:
            return OwnTurn(text, tuple(dict.fromkeys(marks)))


def own_words(text: str, name: str) -> str:
    """Strip what a model may put around its turn: label, chat template's tokens, quotes, JSON."""
    text = _unquote(text.strip())
    if lead := _lead(name).match(text):
        text = text[lead.end() :]
    if (tokens := _first_tokens(text)) and tokens[1] == len(text):
        text = text[: tokens[0]].rstrip()
    if '{"' in text and (said := _text_field(text, name)) is not None:
        text = said
    return _unquote(text)


def _unquote(text: str) -> str:
    """Strip one pair of quotes around the whole."""
    if len(text) > 1 and text[0] + text[-1] in ('""', "“”") and not re.search('["“”]', text[1:-1]):
        return text[1:-1].strip()
    return text


def _text_field(text: str, name: str) -> str | None:
    """Return the text of `{"speaker": NAME, "text": …}` where it stands there letter by letter."""
    try:
        turn = json.loads(text.strip("[], \n"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(turn, dict):
        return None
    speakers = {str(turn[key]).casefold() for key in SPEAKER_KEYS if key in turn}
    texts = [turn[key] for key in TEXT_KEYS if key in turn]
    if not speakers or speakers - {name.casefold(), OWN_ROLE} or len(texts) != 1:
        return None
    return texts[0].strip() if isinstance(texts[0], str) and texts[0] in text else None


# ------------------------------------------------------------------- voices

MODERATOR = ("Moderator", "The moderator")
OWN_ROLE = "assistant"  # what chat templates call the one who answers
ROLES = (
    *"assistant user human ai system bot chatbot facilitator interviewer narrator".split(),
    *("ai assistant", "interviewee", "the facilitator", "the interviewer", "the narrator"),
)
NUMBERED_ROLES = r"(?:speaker|person|participant|agent)[ ](?:\d{1,2}|[a-d])"
STOP_TEXTS = 4  # as many as OpenAI's protocol takes
UNSEEN = "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # marks that give text its direction
BEFORE = rf"[\s*_#>~<\-–—\"“„«(\[{{【「{UNSEEN}]{{0,12}}"
AFTER = rf"[ \t*_\"”“»)\]}}】」{UNSEEN}]{{0,6}}"
VERBS = "says?|said|asks?|asked|adds?|added|answers?|answered|continues?|replies|replied|responds?|responded"  # noqa: E501
NO_TRADE = (  # Travis, the question is this: …
    "is|are|was|were|has|have|you|we|i|question|truth|answer|point|problem|thing|fact|trouble|rule"
)
TRADE = rf", the (?:(?!(?:{NO_TRADE})\b)[^\W\d_][\w'’-]{{0,20}}[ ]?){{1,4}}"
ASIDE = rf"(?:[(\[][^()\[\]\n]{{0,40}}[)\]]|{TRADE})?"  # Travis (smiling): or Travis, the rancher:
TURN_NUMBER = r"(?:turn|round)[ ]?#?\d{1,3}[\])]?\s{0,3}[-–—:.]?"
COUNT = rf"(?:{TURN_NUMBER}|\d{{1,3}}[.)])?\s{{0,3}}[*_]{{0,3}}"
TITLE = r"(?:(?:mr|mrs|ms|miss|mx|dr|prof|professor|señora?|herr|frau|monsieur|madame)\.?[ ])?"
SPEAKER_KEYS, TEXT_KEYS = ("speaker", "name", "role"), ("text", "content", "message", "utterance")
JSON_START = rf"[\s\[,]{{0,12}}(?={{\s?\"(?:{'|'.join(SPEAKER_KEYS)})\"\s?:\s?\""
TALK = "(?:conversation|dialogue|dialog|discussion|chat|transcript|scene|session|interview|turn)"
END_OF_TALK = rf"(?:the )?end of (?:the |this |our )?{TALK}"
END_NOTE = re.compile(rf"[\[(]{END_OF_TALK}[.!]?[\])]", re.IGNORECASE)
FRAME = r"[\s*_#~=\-–—<\[(]"
FRAMED_END = rf"\s{{0,12}}[*_#~=\-–—<\[(]{FRAME}{{0,12}}(?:the )?end[ .!]{{0,2}}[*_#~=\-–—>\])]"
END_LINE = rf"(?:{FRAME}{{0,12}}{END_OF_TALK}|{FRAMED_END})[^\w\n\r]{{0,12}}(?=[\n\r]|\Z)"
TEMPLATE_SIGN = (  # of ChatML, Llama 2 and 3, Gemma, Phi, DeepSeek
    r"(?:<[|｜][^<>|｜\n]{1,40}[|｜]>|</?s>|\[/?INST]|<</?SYS>>|<(?:start|end)_of_turn>|<[be]os>)"
)
HEAD_END = r"(?=[ \t]{0,3}(?:[\n\r<]|\Z))"
OTHER_HEAD = rf"[ \t]{{0,3}}(?:user|system|human|tool){HEAD_END}"  # of <|im_start|>user
OWN_HEAD = rf"[ \t]{{0,3}}(?:assistant|model){HEAD_END}"
TOKENS = re.compile(rf"(?:{TEMPLATE_SIGN}(?:{OTHER_HEAD}|{OWN_HEAD})?\s*)+", re.IGNORECASE)
LINE_BREAK = re.compile(r"[\n\r\u2028\u2029]\s*")


def stop_texts(others: Sequence[str]) -> tuple[str, ...]:
    """Return the texts at which an endpoint is to stop a speaker: a line that begins as another's
    or the moderator's.
    """
    return tuple(f"\n{name}:" for name in (MODERATOR[0], *others)[:STOP_TEXTS])


def own_part(text: str, speaker: str, others: Sequence[str]) -> str | None:
    """Return what stands before the first line of somebody else; None where nobody else speaks.

    Of a text that opens with another's line, what follows the speaker's own name is returned; empty
    where that never comes. Tokens of a chat template that end the text are nobody's.
    """
    roles = _other_roles(speaker)
    voices = [_first_label(text, (*MODERATOR, *others), roles), _first_note(text)]
    if (tokens := _first_tokens(text)) and tokens[1] < len(text):
        voices.append(tokens)
    line = min((voice for voice in voices if voice), default=None)
    if line is None:
        return None
    if before := text[: line[0]].strip():
        return before
    own = _first_label(text, (speaker,))
    return text[own[1] :].strip() if own else ""


@lru_cache(maxsize=4096)
def _other_roles(speaker: str) -> Names:
    return tuple(role for role in ROLES if role != speaker.casefold())


def _first_tokens(text: str) -> Span | None:
    """Return where the first tokens of a chat template begin and end."""
    found = TOKENS.search(text) if "<" in text or "INST]" in text else None
    return found.span() if found else None


def _first_note(text: str) -> Span | None:
    """Return where `[End of conversation]` begins and ends."""
    found = END_NOTE.search(text) if "end of " in text.lower() else None
    return found.span() if found else None


def _first_label(text: str, names: Names, roles: Names = ()) -> Span | None:
    """Return where one of these first begins to speak, and where what they say begins."""
    line, inline = _labels(names, roles)
    spans = []
    for start in (0, *(m.end() for m in LINE_BREAK.finditer(text))):
        if (found := line.match(text, start)) and (start or found["dash"] is None):
            spans.append(found.span())  # a turn may open with "Travis – I hear you"
            break
    if ":" in text or "：" in text:
        for found in inline.finditer(text):
            if _is_end(text, found.start(), found.end("ended")):
                spans.append((found.end("ended"), found.end()))
                break
    return min(spans, default=None)


@lru_cache(maxsize=4096)
def _labels(names: Names, roles: Names) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return how a script says who speaks at a line's start, and behind the end of a sentence."""
    name = _join_names(names)
    patterns = [_label(name), rf"{JSON_START}{name}\")"]
    if roles:
        role = rf"(?:{_join_names(roles)}|{NUMBERED_ROLES})"
        spoken = rf"[\s*_#>\[(<]{{0,12}}{role}{AFTER}[:：]\**"
        patterns += [spoken, rf"{JSON_START}{role}\")", END_LINE]
    ended = rf"(?P<ended>[{ENDS}][{CLOSERS}]{{0,6}})[ \t]{{0,6}}[*_\[]{{0,3}}"
    inline = rf"{ended}{TITLE}{name}{AFTER}[:：]\**"
    return re.compile("|".join(patterns), re.IGNORECASE), re.compile(inline, re.IGNORECASE)


@lru_cache(maxsize=4096)
def _lead(name: str) -> re.Pattern[str]:
    """Return what may stand before a speaker's own words: labels, tokens and `Assistant:`."""
    token = rf"(?!<[|｜](?:user|system|human|tool)){TEMPLATE_SIGN}(?:{OWN_HEAD})?(?!{OTHER_HEAD})"
    own = rf"{token}|\**{OWN_ROLE}\**:\**|{_label(_join_names((name,)))}"
    return re.compile(rf"(?:(?:{own})\s*)+", re.IGNORECASE)


def _label(name: str) -> str:
    """Return how a line says it: `Travis:`, `**Travis**`, `[Travis]`, `Turn 3 - Travis:`."""
    numbered = rf"{BEFORE}{COUNT}{TITLE}{name}"
    spoken = rf"{AFTER}{ASIDE}{AFTER}(?:{VERBS})?{AFTER}(?:[:：]|>{{1,3}})\**"
    dashed = r"[*_]{0,3}(?P<dash>[ \t]{1,3}[-–][ \t]{1,3})(?-i:(?=[^\sa-z]))"
    bold = rf"(?:\*\*|__|#+ ?){name}(?:\*\*|__)?[ \t]{{0,6}}(?=[\n\r]|\Z)"
    headed = rf"\s{{0,12}}(?:[\[【]{name}[\]】]|{bold})"
    return f"(?:{numbered}(?:{spoken}|{dashed})|{headed})"


def _join_names(names: Names) -> str:
    """Return the pattern of any of these names, in either spelling of Unicode."""
    spellings = {unicodedata.normalize(form, name) for name in names for form in ("NFC", "NFD")}
    return f"(?:{'|'.join(map(re.escape, sorted(spellings, key=len, reverse=True)))})"


# ---------------------------------------------------------------- sentences

ENDS = ".!?…。！？｡．؟।॥۔"
UNSPACED = "。！？｡．؟।॥۔"  # the next sentence may follow without a space
CLOSERS = "\"'”’»›)\\]}」』】）*_"
OPENERS = "\"'“‘„«‹([{「『【（*_¿¡"
END = re.compile(rf"[{ENDS}]+[{CLOSERS}]*")
LAST_WORD = re.compile(r"\S{1,40}\Z")
DOTTED = re.compile(r"(?:[^\W\d]\.)+[^\W\d]")  # e.g, U.S
ABBREVIATIONS = frozenset(
    "mr mrs ms mx dr dra prof st mt sr sra srta jr rev hon gen col lt sgt capt gov vs cf ca approx"
    " vol pp eds dept univ inc ltd corp exmo exma ud uds nr hr bzw vgl evtl sn vb".split()
)


def last_sentence_end(text: str) -> int:
    """Return the index behind the last whole sentence, 0 where there is none; half a number and
    `Dr.` end no sentence.

    Where no sentence is followed by one with a capital, a full stop before a small letter is an end
    too.
    """
    for careless in (False, True):
        if found := [
            m.end() for m in END.finditer(text) if _is_end(text, *m.span(), careless=careless)
        ]:
            return found[-1]
    return 0


def _is_end(text: str, start: int, end: int, *, careless: bool = False) -> bool:
    """Return whether the signs between `start` and `end` end a sentence, as far as the words around
    them tell.
    """
    signs, behind = text[start:end].rstrip(CLOSERS), text[end : end + 20].lstrip("\u200e\u200f")
    if (
        behind
        and signs[-1] not in UNSPACED
        and not behind[0].isspace()
        and unicodedata.category(behind[0]) != "So"
    ):
        return False  # 3.5, example.org; an emoji may follow
    following = behind.lstrip().lstrip(OPENERS)[:1]
    if (
        following.islower()
        and not (careless and text[start:end] == ".")
        and not _begins_small(text)
    ):
        return False  # "Really?" she asked
    return signs != "." or not _is_abbreviation(text[max(0, start - 50) : start], following)


def _begins_small(text: str) -> bool:
    return next((c.islower() for c in text if c.isalpha()), False)


def _is_abbreviation(before: str, following: str) -> bool:
    """Return whether a full stop after these words is an abbreviation's, a list's or a number's
    rather than a sentence's.
    """
    found = LAST_WORD.search(before)
    word = found.group().lstrip(OPENERS) if found else ""
    leading = before[: len(before) - len(word)].rstrip(" \t")[-1:]
    if word[-1:].isdigit():
        counts = word.isdigit() and len(word) < 4 and (not leading or leading in "\n:;" + ENDS)
        return counts or not following  # "1. First", or half of 3.5
    if word.casefold() == "no":
        return following.isdigit()
    initial = len(word) == 1 and word.isupper() and word != "I"
    return initial or word.casefold() in ABBREVIATIONS or DOTTED.fullmatch(word) is not None


# -------------------------------------------------------------------- loops

UNSPACED_LETTERS = (  # Chinese and Japanese: each counts as a word
    "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
)
UNSPACED_LETTER = re.compile(f"[{UNSPACED_LETTERS}]")
WORD = re.compile(rf"[{UNSPACED_LETTERS}]|[^\s{UNSPACED_LETTERS}]+")
EDGES = ".,;:!?…\"'“”‘’«»()[]{}*_-–—。、，！？؟،؛।۔"
NUMBER = re.compile(r"\d{1,3}[.)]")
WINDOW = 4  # words by which a repetition is recognised
LONG = 40  # letters from which a word may itself be a loop
STUTTER = re.compile(r"(\S.{0,7}?)\1{19,}", re.DOTALL)


def first_round(text: str) -> int | None:
    """Return where the first round of a loop ends, None where nothing loops.

    A loop is the same run of words said over and over with nothing between: a word eight times, a
    sentence four times, up to a whole passage twice and begun anew. Sentences that only begin
    alike, or are said twice or thrice for emphasis, are none. The round ends with its sentence;
    where it holds no whole one, with the last whole sentence before.
    """
    spaced = text.casefold().split()
    if _repeats(spaced) or UNSPACED_LETTER.search(text):
        words = list(WORD.finditer(text))
        if (found := _cycle([w.group() for w in words])) is not None:
            start, size = found
            first, second = words[start + size - 1], words[start + 2 * size - 1]
            return _round_end(text, first.start(), first.end(), second.end())
    if any(len(word) >= LONG for word in spaced) and (stutter := STUTTER.search(text)):
        return _round_end(text, stutter.start(), stutter.end(1), stutter.end(1))
    return None


def _key(word: str) -> str:
    """Return a word without case and punctuation; the numbers of a list are all the same."""
    numbered = word[:1].isdigit() and NUMBER.fullmatch(word)
    return "1." if numbered else word.casefold().strip(EDGES) or word


def _repeats(words: Sequence[str]) -> bool:
    """Return whether any run of WINDOW words is there twice: without one nothing loops, and most
    turns need no closer look.
    """
    keys = [word if word.isalpha() else _key(word) for word in words]  # words are casefolded
    windows = list(zip(*(keys[i:] for i in range(WINDOW)), strict=False))
    return len(set(windows)) < len(windows)


def _round_end(text: str, start: int, first: int, second: int) -> int:
    """Return the end of the sentence with which a round ends: in the second round at the latest,
    else before the loop.
    """
    ends = [m.end() for m in END.finditer(text, start) if _is_end(text, *m.span())]
    return next((end for end in ends if first <= end <= second), None) or last_sentence_end(
        text[:first]
    )


def _cycle(words: Sequence[str]) -> tuple[int, int] | None:
    """Return where a loop begins and how many words one round of it has."""
    keys = [_key(word) for word in words]
    seen: dict[tuple[str, ...], int] = {}
    size, end = 0, 0  # of the repetition that was looked at last
    for at in range(len(keys) - WINDOW + 1):
        window = tuple(keys[at : at + WINDOW])
        before = seen.get(window)
        seen[window] = at
        if before is None or (at - before == size and at < end):
            continue
        size, end = at - before, at + WINDOW
        while end < len(keys) and keys[end] == keys[end - size]:
            end += 1
        sentence = any(END.search(word) for word in words[before : before + size])
        if end - before >= _enough(size, sentence=sentence):
            return before, size
    return None


def _enough(size: int, *, sentence: bool) -> int:
    """Return how many words a repetition of `size` words spans at least to be a loop; fewer where
    it holds whole sentences.
    """
    if size >= 12:
        return 2 * size + 8
    return {1: 8, 2: 8 if sentence else 12, 3: 12 if sentence else 15, 4: 16, 5: 20}.get(
        size, 3 * size
    )
