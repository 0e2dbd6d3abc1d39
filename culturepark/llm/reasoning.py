"""Parts a model's thoughts from its answer, however it marks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from culturepark.records import Reply

# How models mark where thoughts begin and end. A closing mark ends thoughts of its own kind, or of
# one that has no other end.
NAMES = (
    "think",
    "thinking",
    "thoughts?",
    "reasoning",
    "seed:think",
    "analysis",
    "reflection",
    "scratch_?pad",
    "inner_(?:monologue|thoughts?)",
    "internal_(?:monologue|thoughts?)",
    "thought_process",
    "chain_of_thought",
)
LEFT, RIGHT = r"(?:<|＜|&lt;)\|?\s*", r"\s*\|?(?:>|＞|&gt;)"
MARKS = (
    *((rf"{LEFT}{name}{RIGHT}", rf"{LEFT}[/／]\s*{name}{RIGHT}") for name in NAMES),
    (r"\[THINK\]", r"\[/THINK\]"),  # Magistral
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (r"<\|channel>\s*(?:thoughts?\b|analysis\b)?", r"<channel\|>"),  # Gemma
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # Sky-T1
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    (r"<unused94>", r"<unused95>"),  # MedGemma
)
MARK = re.compile(
    # what every mark begins with, so that nearly every place is passed over at once
    r"(?=[<\[◁＜&])(?:"
    + "|".join(
        f"(?P<open{i}>{first})|(?P<close{i}>{last})" for i, (first, last) in enumerate(MARKS)
    )
    + ")",
    re.IGNORECASE,
)
# gpt-oss: `<|channel|>analysis<|message|>…`, and what is left of it where a server drops its
# special tokens.
CHANNEL = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>(\w+)[^<]*<\|message\|>(.*?)(?:<\|(?:end|return|call)\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)
BARE = (
    re.compile(r"\s*analysis(.*?)assistantfinal(.*)", re.DOTALL),
    re.compile(
        r"\s*analysis[ \t]*\n(.*?)\n[ \t]*(?:assistant[ \t]*\n[ \t]*)?final[ \t]*\n(.*)", re.DOTALL
    ),
    # Thoughts and answer by their names, as agents write them.
    re.compile(
        r"\s*\**(?:thoughts?|thought process|thinking)\**\s*:(.*?)\bfinal answer\**\s*:\**(.*)",
        re.DOTALL | re.IGNORECASE,
    ),
)
FENCE = re.compile(
    r"^[ \t]*```+[ \t]*(?:think|thinking|thoughts?|reasoning|scratchpad)[ \t]*\n(.*?)(?:(?<=\n)["
    r" \t]*```+[ \t]*$|\Z(?P<end>))",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
ANSWER = re.compile(
    r"\s*<(answer|final_answer|response)>((?:(?!</?\1>).)*)</\1>\s*", re.DOTALL | re.IGNORECASE
)
ANY = re.compile(
    r"[<\[◁＜]|&lt;|```|\A\s*\**(?:analysis|thought|thinking)", re.IGNORECASE
)  # no mark is without one of these
# What an answer in pieces may end with or begin with while nobody can tell yet whether it is a
# mark.
TAIL = re.compile(r"[<\[◁＜&`][^>\]▷＞\n]{0,30}\Z")
HEAD = re.compile(
    r"\s*(?:\**(?:analysis|thought|thinking)|<\|?(?:channel|start|answer|final_answer|response)\b)",
    re.IGNORECASE,
)
RARELY = 256  # a long answer is read anew once this part of it is new, not at each token
SHORTEST = 16  # characters that tell whether an answer begins with any of these
QUOTES = "\"'`“”‘’«»"
TALK = re.compile(
    r"[\W_]*(?:(?:and|or|und|et|y)[\W_]*)?", re.IGNORECASE
)  # between two marks that are talked of
ALONE = "the model thought and did not answer"
CUT = (
    "the answer was cut at max_tokens while the model was still thinking; raise max_tokens in"
    " agents/ROLE.toml"
)


@dataclass(frozen=True)
class SplitText:
    """A text without its thoughts.

    `endless`: the thoughts begin and never end; `unopened`: they end without a mark where they
    begin, as where the chat template has opened them.
    """

    reasoning: str
    text: str
    endless: bool = False
    unopened: bool = False


@dataclass(frozen=True)
class Mark:
    """A mark in a text: where it is, of which kind, and whether it opens thoughts or closes
    them.
    """

    start: int
    end: int
    kind: str
    opens: bool


def split_thoughts(text: str) -> SplitText:
    """Return thoughts and answer of a text.

    Thoughts stand between a pair of marks, after a first mark at the beginning that is never
    closed, and before a closing mark that nothing opens. A mark that is quoted, or stands inside a
    line without a partner, is part of the answer. Where the whole answer stands between marks of
    its own (`<answer>`), these are left out.
    """
    if not ANY.search(text):
        return SplitText("", text.strip())
    split = _split_text(text)
    whole = ANSWER.fullmatch(split.text)
    return replace(split, text=whole[2].strip()) if whole else split


def split_thoughts_exactly(text: str) -> SplitText:
    """Like `split_thoughts`; an answer that nothing is taken out of keeps the spaces around it."""
    split = split_thoughts(text)
    return replace(split, text=text) if split.text == text.strip() else split


def _split_text(text: str) -> SplitText:
    if text.lstrip().startswith(("<|channel|>", "<|start|>")) and (
        channels := CHANNEL.findall(text)
    ):
        return _split_channels(channels)
    if bare := next((m for form in BARE if (m := form.fullmatch(text))), None):
        return SplitText(bare[1].strip(), bare[2].strip())
    text = FENCE.sub(
        lambda m: f"<think>\n{m[1]}" + ("" if m["end"] is not None else "</think>"), text
    )
    return _split_at_marks(text, _find_marks(text))


def _split_channels(channels: Sequence[tuple[str, str]]) -> SplitText:
    thoughts = [text for name, text in channels if name != "final"]
    answer = [text for name, text in channels if name == "final"]
    return SplitText(_join_thoughts(thoughts), "".join(answer).strip(), endless=not answer)


def _find_marks(text: str) -> list[Mark]:
    """Return the marks of a text that nobody quotes."""
    marks = []
    for m in MARK.finditer(text):
        before, after = text[max(0, m.start() - 1) : m.start()], text[m.end() : m.end() + 1]
        if before and after and before in QUOTES and after in QUOTES:
            continue
        name = m.lastgroup or ""
        marks.append(
            Mark(
                m.start(),
                m.end(),
                name.removeprefix("open").removeprefix("close"),
                name.startswith("open"),
            )
        )
    return marks


def _split_at_marks(text: str, marks: Sequence[Mark]) -> SplitText:
    thoughts: list[str] = []
    answer: list[str] = []
    place, silent, unopened = 0, True, False  # silent: nothing but thoughts so far
    for mark, last in zip(marks, _match_closing_marks(marks), strict=True):
        if mark.start < place:
            continue
        before = text[place : mark.start]
        silent = silent and not before.strip()
        if not mark.opens:  # nothing opens it, so a server has left out the mark at the beginning
            thoughts += [*answer, before]
            answer, place, silent, unopened = [], mark.end, True, True
        elif last is None and (silent or _stands_alone(text, mark)):
            thoughts.append(text[mark.end :])
            return SplitText(
                _join_thoughts(thoughts),
                "".join([*answer, before]).strip(),
                endless=True,
                unopened=unopened,
            )
        elif last is not None:
            if silent or _holds_thoughts(text, mark, last):
                thoughts.append(text[mark.end : last.start])
                answer.append(before)
            else:  # both marks are talked of
                answer.append(text[place : last.end])
            place = last.end
    return SplitText(
        _join_thoughts(thoughts), "".join([*answer, text[place:]]).strip(), unopened=unopened
    )


def _match_closing_marks(marks: Sequence[Mark]) -> list[Mark | None]:
    """Return, for each mark, the next closing mark of its kind; for one that has none, the next
    that ends no other's thoughts.
    """
    own = _find_nearest_closing(marks, lambda mark: mark.kind)
    taken = {
        last.start for mark, last in zip(marks, own, strict=True) if mark.opens and last is not None
    }
    free = _find_nearest_closing(
        [m for m in marks if m.opens or m.start not in taken], lambda mark: ""
    )
    others = dict(
        zip((m.start for m in marks if m.opens or m.start not in taken), free, strict=True)
    )
    return [last or others.get(mark.start) for mark, last in zip(marks, own, strict=True)]


def _find_nearest_closing(marks: Sequence[Mark], kind: Callable[[Mark], str]) -> list[Mark | None]:
    """Return, for each mark, the next closing mark of its kind."""
    nearest: dict[str, Mark] = {}
    closing: list[Mark | None] = []
    for mark in reversed(marks):
        closing.append(nearest.get(kind(mark)))
        if not mark.opens:
            nearest[kind(mark)] = mark
    return closing[::-1]


def _stands_alone(text: str, mark: Mark) -> bool:
    """Say whether a mark has a line for itself."""
    before, after = text[max(0, mark.start - 200) : mark.start], text[mark.end : mark.end + 200]
    return not before.rpartition("\n")[2].strip() and not after.partition("\n")[0].strip()


def _holds_thoughts(text: str, first: Mark, last: Mark) -> bool:
    inside = text[first.end : last.start]
    return "\n" in inside or TALK.fullmatch(inside) is None or _stands_alone(text, first)


def _join_thoughts(thoughts: Sequence[str]) -> str:
    return "\n".join(filter(None, map(str.strip, thoughts)))


class ThoughtFilter:
    """Parts thoughts from an answer while it is said; what may still be a thought is kept back
    until that is clear.

    Thoughts that nothing opens are known only when they end: they have been passed on as text by
    then.
    """

    def __init__(self) -> None:
        self._received = ""
        self._passed = SplitText("", "")
        self._read = 0  # characters of it that have been looked at

    def feed(self, piece: str) -> SplitText:
        """Return which thoughts and which text are new and will stay, now that this piece was
        said.
        """
        self._received += piece
        if len(self._received) - self._read < len(self._received) // RARELY:
            return SplitText("", "")
        self._read = len(self._received)
        tail = TAIL.search(self._received)
        text = self._received[: tail.start()] if tail else self._received
        split = split_thoughts_exactly(text)
        if len(text) < SHORTEST or (HEAD.match(text) and not split.reasoning):
            return SplitText("", "")
        mark = MARK.search(split.text)
        shown = split.text[: mark.start()] if mark else split.text
        return self._pass(replace(split, text=shown))

    def finish(self) -> SplitText:
        """Return what was kept back, now that the answer is whole."""
        return self._pass(split_thoughts_exactly(self._received))

    def _pass(self, split: SplitText) -> SplitText:
        before = self._passed
        before_text = "" if split.unopened and not before.unopened else before.text
        known = next(
            (s for s in (before_text, before_text.strip()) if split.text.startswith(s)), split.text
        )
        new = split.text[len(known) :]
        thoughts = split.reasoning[len(before.reasoning) :]
        self._passed = replace(split, text=before_text + new, reasoning=before.reasoning + thoughts)
        return SplitText(thoughts, new)


def separate_thoughts(reply: Reply, *, opens_thoughts: bool = False) -> Reply:
    """Return a reply whose text holds no thoughts; one of thoughts alone is `truncated` or `empty`
    and says so.

    `opened` says that the chat template opens the thoughts: an answer that was cut before they end
    is nothing else.
    """
    opens_thoughts = opens_thoughts and reply.status == "truncated" and not reply.reasoning
    if not (opens_thoughts or reply.reasoning or ANY.search(reply.text)):
        return reply
    split = split_thoughts(reply.text)
    if opens_thoughts and not split.reasoning:
        split = SplitText(split.text, "", endless=True)
    reasoning = _join_thoughts([reply.reasoning, split.reasoning])
    if split.text or not reasoning or reply.status not in ("ok", "truncated"):
        return replace(reply, text=split.text, reasoning=reasoning)
    if reply.status == "truncated":
        return replace(reply, text="", reasoning=reasoning, reason=CUT)
    why = f"{ALONE}: its thoughts never end" if split.endless else ALONE
    return replace(reply, status="empty", text="", reasoning=reasoning, reason=why)
