"""Finds the side that a text takes on a question, by its words: what it quotes, paraphrases, grants
and turns round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log, sqrt
from typing import NamedTuple

from culturepark.offline.lexicon import (
    TOKEN,
    WORD,
    collect_stems,
    load_lexicon,
    load_wordset,
    read_comparison,
    read_sign,
    simplify_text,
)
from culturepark.records import Question

QUOTED = 0.75  # share of a clause's word pairs that make it a quotation of that clause
RELEVANT = 1.25  # weight of the question's own words below which a text is on another matter
CLOSE = 1.0  # evidence from which a text is on the question, however few of its words it names
STANCE = 0.15  # evidence below which a text takes no side
REASON = 0.6  # what a reason weighs beside a claim
CONDITION = 0.3  # what "when …" and "if …" bring in
NAMED = 0.3  # what a text weighs that only names the matter
GRANTED = 0.25  # what is granted to the other side still weighs a little


class Evidence(NamedTuple):
    """How much of a text affirms and denies a question's claim, and how much of it is on the
    question at all.
    """

    affirm: float
    deny: float
    relevance: float
    hedged: bool

    @property
    def bears(self) -> bool:
        """Whether the text is on the question at all: it names its matter, or comes close to one of
        its clauses.
        """
        return self.relevance >= RELEVANT or self.affirm + self.deny >= CLOSE

    @property
    def lean(self) -> float:
        """From -1 (denies) to 1 (affirms); 0 where it does neither or both."""
        total = self.affirm + self.deny
        return (self.affirm - self.deny) / total if total >= STANCE else 0.0


# ----------------------------------------------------------------- profile


class Clause(NamedTuple):
    """One clause of a question, taken apart."""

    side: int
    core: bool
    stems: dict[str, float]
    norm: float
    sign: int
    shape: int
    pairs: int


@dataclass(frozen=True)
class Profile:
    """A question made ready to be held against texts."""

    clauses: tuple[Clause, ...]
    pairs: dict[tuple[str, str], tuple[int, ...]]
    index: dict[str, tuple[int, ...]]
    weights: dict[str, float]
    topical: frozenset[str]
    about: tuple[str, ...]


def build_profile(question: Question) -> Profile:
    """Return a question's profile, made once.

    Kept by its strings, whose hashes Python remembers; a record's own hash would walk the whole
    record each time.
    """
    q = question
    labels = () if q.claim or q.denial else tuple((o.label, o.degree) for o in q.options if o.label)
    return _build_profile(q.about, q.text, q.claim, q.denial, q.pros, q.cons, labels)


@lru_cache(maxsize=1024)
def _build_profile(
    about: str,
    text: str,
    claim: tuple[str, ...],
    denial: tuple[str, ...],
    pros: tuple[str, ...],
    cons: tuple[str, ...],
    labels: tuple[tuple[str, float], ...],
) -> Profile:
    rows = (
        [(1, True, c) for c in claim]
        + [(-1, True, c) for c in denial]
        + [(1, False, c) for c in pros]
        + [(-1, False, c) for c in cons]
    )
    # A card without clauses is read through its labels and the statement it asks about.
    rows += [(1 if degree > 0 else -1, True, label) for label, degree in labels if degree]
    rows += [(1, True, text)] if labels else []
    split = [(side, core, WORD.findall(simplify_text(c))) for side, core, c in rows]
    topical = _collect_shared_amounts(split)
    found: dict[str, float] = {}
    for _, core, tokens in [*split, (1, True, WORD.findall(simplify_text(f"{about} {text}")))]:
        for s in collect_stems(tokens):
            found[s] = max(
                found.get(s, 0.0), (1.0 if core else 0.5) * (0.3 if s[0] == "=" else 1.0)
            )
    held = [collect_stems(tokens) for _, _, tokens in split]
    rarity = {s: log(1 + len(held) / sum(s in h for h in held)) for h in held for s in h}
    clauses, pairs, index = [], dict[tuple[str, str], list[int]](), dict[str, list[int]]()
    for i, ((side, core, tokens), stems) in enumerate(zip(split, held, strict=True)):
        weighed = {s: rarity[s] for s in stems}
        own = set(pairwise(tokens))
        clauses.append(
            Clause(
                side,
                core,
                weighed,
                sqrt(sum(w * w for w in weighed.values())) or 1.0,
                read_sign(tokens, topical),
                read_comparison(tokens),
                len(own),
            )
        )
        for pair in own:
            pairs.setdefault(pair, []).append(i)
        for s in stems:
            index.setdefault(s, []).append(i)
    return Profile(
        tuple(clauses),
        {k: tuple(v) for k, v in pairs.items()},
        {k: tuple(v) for k, v in index.items()},
        found,
        topical,
        tuple(WORD.findall(simplify_text(about))),
    )


def _collect_shared_amounts(rows: Sequence[tuple[int, bool, list[str]]]) -> frozenset[str]:
    """Return the amounts that both sides speak of: they belong to the matter and turn nothing
    round.
    """
    both = [{t for side, _, tokens in rows if side == s for t in tokens} for s in (1, -1)]
    return frozenset(load_lexicon().amounts & both[0] & both[1])


# ----------------------------------------------------------------- reading


def weigh_text(text: str, question: Question) -> Evidence:
    """Hold a text against a question."""
    known = build_profile(question)
    low = simplify_text(text)
    tokens = TOKEN.findall(low)
    quoted = find_quotations(tokens, known)
    hedged = load_lexicon().hedges.within(_cut_around(tokens, quoted) if quoted else low)
    relevance = 9.0 if quoted else sum(known.weights.get(s, 0.0) for s in collect_stems(tokens))
    if quoted:
        return Evidence(*_weigh_quotations(tokens, quoted, known), relevance, hedged)
    rest = drop_named_matter(tokens, known)
    affirm, deny = _weigh_paraphrases(rest, known)
    # A custom that is only said to bear on the matter takes no side by its own words.
    share = 1.0 if rest is tokens else NAMED
    return Evidence(affirm * share, deny * share, relevance, hedged)


def drop_named_matter(tokens: list[str], known: Profile) -> list[str]:
    """Leave out the matter where it is only named ("when people talk about …"): naming it takes no
    side.
    """
    size = len(known.about)
    for i in range(1, len(tokens) - size + 1):
        if tokens[i] == known.about[0] and tuple(tokens[i : i + size]) == known.about:
            named = tokens[i - 1] in load_wordset("naming")
            return tokens[:i] + tokens[i + size :] if named else tokens
    return tokens


def _cut_around(tokens: Sequence[str], quoted: Sequence[Quotation]) -> str:
    """Return what a text says around its quotations."""
    ends = [0, *(q.end for q in quoted)]
    starts = [*(q.start for q in quoted), len(tokens)]
    return " | ".join(" ".join(tokens[a:b]) for a, b in zip(ends, starts, strict=True))


class Quotation(NamedTuple):
    """Where a text says a clause of the question nearly word for word."""

    clause: int
    start: int
    end: int
    share: float


def find_quotations(tokens: Sequence[str], known: Profile) -> list[Quotation]:
    """Return the clauses that a text quotes, in the order of the text, none overlapping."""
    words = [(i, t) for i, t in enumerate(tokens) if len(t) > 1 or t.isalnum()]
    hits: dict[int, list[tuple[int, tuple[str, str]]]] = {}
    for (i, a), (_, b) in pairwise(words):
        for clause in known.pairs.get((a, b), ()):
            hits.setdefault(clause, []).append((i, (a, b)))
    found = []
    for clause, places in hits.items():
        pairs = known.clauses[clause].pairs
        if len(places) >= QUOTED * pairs:
            first, last, count = _find_densest(places, pairs + 3)
            if count >= QUOTED * pairs:
                found.append(Quotation(clause, first, last + 2, min(1.0, count / pairs)))
    found.sort(key=lambda q: (-q.share, q.start - q.end))
    kept: list[Quotation] = []
    for q in found:
        if all(q.end <= k.start or q.start >= k.end for k in kept):
            kept.append(q)
    return sorted(kept, key=lambda q: q.start)


def _find_densest(places: Sequence[tuple[int, tuple[str, str]]], room: int) -> tuple[int, int, int]:
    """Return the first and last place of the most different pairs within `room`, and how many they
    are.
    """
    best, start = (0, 0, 0), 0
    seen: dict[tuple[str, str], int] = {}
    for end, (place, pair) in enumerate(places):
        seen[pair] = end
        # What comes again later in the window, or lies too far back, is left behind.
        while place - places[start][0] > room or seen[places[start][1]] > start:
            if seen[places[start][1]] == start:
                del seen[places[start][1]]
            start += 1
        if len(seen) > best[2]:
            best = (places[start][0], place, len(seen))
    return best


def _weigh_quotations(
    tokens: Sequence[str], quoted: Sequence[Quotation], known: Profile
) -> tuple[float, float]:
    """Weigh quotations: turned round by what stands before or in them, lighter where they are
    granted or reasons.
    """
    sides = {1: 0.0, -1: 0.0}
    weights: list[tuple[int, float]] = []
    end = 0
    for i, q in enumerate(quoted):
        clause, gap = known.clauses[q.clause], tokens[end : q.start]
        if i and {"but", "yet", "still", "however"} & set(gap):
            weights = [(side, w * GRANTED) for side, w in weights]
        granted = load_lexicon().granting.within(" ".join(gap))
        after = tokens[q.end : quoted[i + 1].start if i + 1 < len(quoted) else len(tokens)]
        lead, own = _split_lead(gap, tokens[q.start : q.end], after, q.share)
        turned = (
            (read_sign(own, known.topical) != clause.sign)
            ^ _is_turned(lead, known.topical)
            ^ _is_dismissed(gap, after)
        )
        weights.append(
            (
                -clause.side if turned else clause.side,
                (1.0 if clause.core else REASON) * (GRANTED if granted else 1.0),
            )
        )
        end = q.end
    for side, weight in weights:
        sides[side] += weight
    return sides[1], sides[-1]


def _split_lead(
    gap: Sequence[str], quoted: Sequence[str], after: Sequence[str], share: float
) -> tuple[list[str], list[str]]:
    """Part what leads into a quotation from the statement itself, which may differ from the clause
    at its ends.
    """
    start = max((i + 1 for i, t in enumerate(gap) if t in load_wordset("breaks")), default=0)
    if share == 1:
        return list(gap), list(quoted)
    end = next((i for i, t in enumerate(after) if t in load_wordset("breaks")), len(after))
    return list(gap[:start]), [*gap[start:], *quoted, *after[: min(end, 3)]]


def _is_turned(lead: Sequence[str], topical: frozenset[str]) -> bool:
    """Say whether the words that lead into a clause ("it is hard to accept that …") turn it
    round.
    """
    if not lead or lead[-1] not in {
        "that",
        "say",
        "whether",
        "think",
        "believe",
        "how",
        "claim",
        "why",
    }:
        return False
    start = max(
        (i + 1 for i, t in enumerate(lead) if t in load_wordset("breaks") - {"that"}), default=0
    )
    return read_sign((t for t in lead[start:][-12:] if t not in load_lexicon().poles), topical) < 0


def _is_dismissed(gap: Sequence[str], after: Sequence[str]) -> bool:
    """Say whether a clause named as an idea is turned round by what is said of it ("… does not
    convince").
    """
    named = "that" in gap[-1:] and bool(
        {"idea", "claim", "notion", "view", "belief", "saying"} & set(gap[-3:])
    )
    head = list(after[:5])
    return named and read_sign(head, frozenset()) < 0


def _weigh_paraphrases(tokens: Sequence[str], known: Profile) -> tuple[float, float]:
    """Weigh what a text says in its own words, piece by piece."""
    sides = {1: 0.0, -1: 0.0}
    for piece, weight in _split_pieces(tokens):
        near = _compare_clauses(piece, known)
        turned, compared = read_sign(piece, known.topical), read_comparison(piece)
        for i, closeness in near.items():
            clause = known.clauses[i]
            if compared and clause.shape and clause.core:
                same = compared * clause.shape
            else:
                same = turned * clause.sign if clause.core or closeness > 0.5 else 1
            sides[clause.side * same] += weight * closeness**2 * (1.0 if clause.core else 0.9)
    return sides[1], sides[-1]


def _compare_clauses(piece: Sequence[str], known: Profile) -> dict[int, float]:
    """Return how close a piece comes to each clause (cosine of weighted stems)."""
    stems = collect_stems(piece)
    dots: dict[int, float] = {}
    length = 0.0
    for s in stems:
        for i in known.index.get(s, ()):
            w = known.clauses[i].stems[s]
            dots[i] = dots.get(i, 0.0) + w * w
        length += (known.clauses[known.index[s][0]].stems[s] if s in known.index else 1.0) ** 2
    if not dots or all(s[0] == "=" for s in stems if s in known.index):
        return {}
    size = sqrt(length)
    return {i: dot / (size * known.clauses[i].norm) for i, dot in dots.items()}


STARTS = {
    "because": REASON,
    "since": REASON,
    "although": GRANTED,
    "though": GRANTED,
    "whereas": GRANTED,
    "while": GRANTED,
    "despite": GRANTED,
}


def _split_pieces(tokens: Sequence[str]) -> list[tuple[list[str], float]]:
    """Cut a text at its connectors; what precedes a "but" is granted, and so is what "although"
    brings in.
    """
    pieces: list[tuple[list[str], float]] = []
    piece: list[str] = []
    weight = 1.0
    if tokens and tokens[0] in {"when", "if", "where", "wherever", "whenever"}:
        weight = CONDITION
    for i, t in enumerate(tokens):
        if t in {"but", "yet", "however"} and i:
            pieces = [(p, w * GRANTED) for p, w in [*pieces, (piece, weight)]]
            piece, weight = [], 1.0
        elif t in STARTS or (t == "even" and tokens[i + 1 : i + 2] in (["if"], ["though"])):
            pieces.append((piece, weight))
            piece, weight = [], STARTS.get(t, GRANTED)
        elif t in ",;:" and weight < 1 and len(piece) > 3:
            pieces.append((piece, weight))
            piece, weight = [], 1.0
        elif t.isalnum() or len(t) > 1:
            piece.append(t)
    return [(p, w) for p, w in [*pieces, (piece, weight)] if p]


def read_side(text: str, question: Question) -> int:
    """Return 1 where a text affirms the question's claim, -1 where it denies it, 0 where it does
    neither or both.
    """
    found = weigh_text(text, question)
    if not found.bears or found.hedged or abs(found.lean) < 0.2:
        return 0
    return 1 if found.lean > 0 else -1
