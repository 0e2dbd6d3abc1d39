"""Reads: takes opinions out of any English text, judges their side by their words, and words them the other way."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from culturepark.records import Culture, Question

SENTENCE = re.compile(r"(?<=[.!?…])[\"”’)]*\s+(?=[\"“‘(]?[A-Z0-9À-Þ])")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|e\.g|i\.e|etc|vs|No)\.$")
LEAD = re.compile(
    r"^(?:(?:well|yes|no|so|and|but|you know|honestly|frankly|to be honest|as i said|once more|of course),?:?\s+)*"
    r"(?:(?:i (?:think|believe|feel|would say|hold|tend to think|firmly believe|am convinced|am quite sure|have no doubt|lean towards saying|"
    r"have come to think)|on balance,? i would say|on the whole,? i think|my own sense is|it seems to me|it is my view|for me it is clear)(?: that)?|"
    r"in my (?:view|opinion)|as i see it|to my mind|if you ask me|speaking for myself|for me|where i stand|from where i stand|personally)\s*[,:]?\s+",
    re.IGNORECASE,
)
IDENTITY = re.compile(r"^(As an? [^,]{3,80}, )(?:i (?:think|believe|feel|would say) (?:that )?)", re.IGNORECASE)
REPORT = re.compile(
    r"\b(were asked about|of those asked|in the [\w ]*survey)\b", re.IGNORECASE
)  # what a survey found is no opinion
PERSONAL = re.compile(
    r"\b(i|me|my|mine|myself|we|us|our|ours|ourselves|you|your|yours|i['’]\w+|we['’]\w+|you['’]\w+)\b", re.IGNORECASE
)
PLACED = ((re.compile(r"\bwhere i (?:live|come from|grew up)\b", re.IGNORECASE), "in {place}"), (re.compile(r"\b(?:in )?my country\b", re.IGNORECASE), "in {place}"),
          (re.compile(r"\bpeople around me\b", re.IGNORECASE), "many people in {place}"), (re.compile(r"\bmy people\b", re.IGNORECASE), "many people in {place}"))  # fmt: skip
WORD = re.compile(r"[a-zà-ÿ]+(?:['’][a-z]+)?")
STOP = frozenset(  # words that tell neither matter nor side; negations and degrees are kept, they tell the side
    (
        "a an and are at be because been but by can could did do does for from had has have he her here his how if "
        "in into is it its itself just may might must of on one one's or other out over own she should so some "
        "such than that the their them then there these they this those to too up very was were what when where "
        "which while who why will with would people since given seeing reason above all only simple also both "
        "think believe feel say said view see mind sure firmly convinced doubt lean balance whole come sense seems "
        "hold speaking stand ever even way ways thing things something someone anyone everyone make makes made get "
        "gets "
    ).split()
)
NEGATIVE = re.compile(
    r"\b(not|no|never|hardly|rarely|seldom|nobody|none|neither|nor|without|cannot|\w+n['’]t|few|little|far from|need not)\b",
    re.IGNORECASE,
)
REJECTED = re.compile(
    r"\b(?:(?:it is|it's) (?:hard|difficult|wrong|a mistake|not true|not right|untrue|false|nonsense) to (?:accept|believe|say|think|claim|hold)|(?:it is|it's) "
    r"(?:not true|untrue|false|wrong|nonsense|not the case) that|doubts? (?:that|whether)|den(?:y|ies) that|reject(?:s)? the (?:idea|view|notion)|(?:do not|don't|"
    r"does not|doesn't|would not|cannot|can't) (?:agree|accept|believe|think|hold|say) that|few (?:people )?(?:here |there )?would (?:say|agree) that|disagree(?:s)? that)",
    re.IGNORECASE,
)
HEDGED = re.compile(
    r"\b(hard to say|both sides|(?<=it )depends(?! on)|both are true|cuts both ways|on the one hand|in between|either way)\b",
    re.IGNORECASE,
)
NEGATIONS = frozenset("not no never hardly rarely seldom nobody none neither nor without cannot scarcely".split())
COMMON = 0.3  # weight of a word that both sides of a question use: it tells the matter, not the side
NEAR = 0.3  # share of a clause's content that an opinion must hold to be on the question at all


def sentences(text: str) -> list[str]:
    """Split a text into sentences."""
    parts: list[str] = []
    for part in SENTENCE.split(" ".join(text.split())):
        if parts and ABBREVIATION.search(parts[-1]):
            parts[-1] += " " + part
        else:
            parts.append(part)
    return [p for p in parts if p]


def opinions_in(text: str, place: str) -> list[str]:
    """Return the opinions in a turn: declarative, free of pronouns for persons, able to stand alone."""
    found = (_opinion(s, place) for s in sentences(text))
    return [o for o in found if o]


def _opinion(sentence: str, place: str) -> str | None:
    if REPORT.search(sentence):
        return None
    if sentence.rstrip('"”’) ').endswith("?"):
        return None
    identity = IDENTITY.match(sentence)
    text = identity.group(1) + sentence[identity.end() :] if identity else LEAD.sub("", sentence, count=1)
    for pattern, instead in PLACED:
        text = pattern.sub(instead.format(place=place), text)
    text = text.replace("in in ", "in ")
    if PERSONAL.search(text) or len(text.split()) < 5:
        return None
    return text[0].upper() + text[1:].rstrip("!… ") + ("" if text.rstrip('"”’) ').endswith((".", "!", "…")) else ".")


# ------------------------------------------------------------------ judging


def stem(word: str) -> str:
    """Return a word's rough stem: enough to match "wins", "winning" and "win"."""
    word = word.split("'")[0].split("’")[0]
    for ending in (
        "ations",
        "ation",
        "ings",
        "ing",
        "ments",
        "ment",
        "ness",
        "ies",
        "ied",
        "ers",
        "ed",
        "es",
        "er",
        "ly",
        "s",
        "y",
        "e",
    ):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content(text: str) -> frozenset[str]:
    """Return the stems of a text's content words."""
    return frozenset(
        "not" if w in NEGATIONS or w.endswith(("n't", "n’t")) else stem(w)
        for w in WORD.findall(text.casefold().replace("not least", ""))
        if w not in STOP
    )


@lru_cache(maxsize=1024)
def _clauses(
    claim: tuple[str, ...], denial: tuple[str, ...], pros: tuple[str, ...], cons: tuple[str, ...]
) -> tuple[tuple[frozenset[str], float, int], ...]:
    """Return (stems, weight, side) of every clause of a question."""
    rows: list[tuple[frozenset[str], float, int]] = []
    for clauses, weight, side in ((claim, 1.0, 1), (denial, 1.0, -1), (pros, 0.9, 1), (cons, 0.9, -1)):
        rows += [(content(c), weight, side) for c in clauses]
    return tuple(rows)


@lru_cache(maxsize=1024)
def _common(claim: tuple[str, ...], denial: tuple[str, ...]) -> frozenset[str]:
    """Return the stems that stand on both sides of a question."""
    return frozenset(s for c in claim for s in content(c)) & frozenset(s for c in denial for s in content(c))


def _weight(stems: frozenset[str], common: frozenset[str]) -> float:
    return len(stems) - (1 - COMMON) * len(stems & common)


def sides(text: str, question: Question) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return how close a text comes to affirming and to denying the question's claim: share and amount of the best clause."""
    words, about, common = content(text), _about(question.about), _common(question.claim, question.denial)
    best = {1: (0.0, 0.0), -1: (0.0, 0.0)}
    for stems, weight, side in _clauses(question.claim, question.denial, question.pros, question.cons):
        # Naming the matter is not yet taking a side: something else of the clause must be there too.
        found = words & stems
        if found - about:
            amount = _weight(found, common)
            best[side] = max(best[side], (round(weight * amount / _weight(stems, common), 2), amount))
    return best[1], best[-1]


@lru_cache(maxsize=1024)
def _about(about: str) -> frozenset[str]:
    return content(about)


def side_of(text: str, question: Question) -> int:
    """Return 1 if a text affirms the question's claim, -1 if it denies it, 0 if it does neither or both."""
    if not question.claim and not question.denial:
        return _label_side(text, question)
    affirm, deny = sides(text, question)
    share = max(affirm[0], deny[0])
    if share < NEAR or (share < 0.5 and len(content(text) & _about(question.about)) < 2) or affirm == deny:
        return 0
    # Where both fit about as well, the one of which more was said: a denial is often the claim and a "not".
    close = abs(affirm[0] - deny[0]) < 0.08
    side = 1 if (affirm[1] > deny[1] if close and affirm[1] != deny[1] else affirm > deny) else -1
    # The words are the claim's, the sentence turns it round.
    return -side if REJECTED.search(text) else side


def _label_side(text: str, question: Question) -> int:
    """Judge by about and negation alone, for questions that bring no clauses."""
    if not content(text) & (content(question.about) | content(question.text)):
        return 0
    return -1 if NEGATIVE.search(text) or REJECTED.search(text) else 1


def judge(text: str, question: Question, answer: int) -> tuple[str, str]:
    """Return verdict and reason: does this opinion go with this answer?"""
    degree, side = question.option(answer).degree, side_of(text, question)
    hedged = bool(HEDGED.search(text))
    near = max(sides(text, question))[0] >= NEAR or bool(content(text) & content(question.about))
    if degree == 0:
        if hedged and near:
            return "entail", "it leaves both sides standing, as the answer does"
        return (
            ("contradict", "it takes a side where the answer takes none")
            if side
            else ("irrelevant", "it does not bear on the question")
        )
    if hedged and near:
        return "contradict", "it takes no side where the answer does"
    if side == 0:
        return "irrelevant", "it does not bear on the question"
    if side * degree > 0:
        return (
            "entail",
            f"it {'affirms' if side > 0 else 'denies'} what the answer {'affirms' if degree > 0 else 'denies'}",
        )
    return (
        "contradict",
        f"it {'affirms' if side > 0 else 'denies'} what the answer {'affirms' if degree > 0 else 'denies'}",
    )


# ------------------------------------------------------------------- roles


def extract(facts: Mapping[str, Any]) -> str:
    """Answer as the extractor."""
    place = facts["culture"].place
    found = [{"turn": t.n, "text": o} for t in facts["turns"] for o in opinions_in(t.text, place)]
    return json.dumps({"opinions": found}, ensure_ascii=False)


def verify(facts: Mapping[str, Any]) -> str:
    """Answer as the verifier."""
    verdict, reason = judge(facts["opinion"], facts["question"], facts["answer"])
    return json.dumps({"verdict": verdict, "reason": reason})


def rewrite(facts: Mapping[str, Any], rng: random.Random) -> str:
    """Answer as the rewriter: keep the norm that an opinion tells, word its stance to agree with the answer."""
    question: Question = facts["question"]
    degree = question.option(facts["answer"]).degree
    kept = _norm_in(facts["opinion"], facts["culture"])
    if degree == 0:
        a, b = _one(question.claim, rng, question.about), _one(question.denial, rng, question.about)
        stance = f"it is hard to say, because {a}, but {b}"
    else:
        clause = _one(
            question.claim if degree > 0 else question.denial,
            rng,
            f"{question.about} {'deserves' if degree > 0 else 'does not deserve'} a yes",
        )
        stance = f"{clause} because {_one(question.pros if degree > 0 else question.cons, rng, 'people have seen it work out that way')}"
    text = (
        f"In {facts['culture'].place}, {kept[0].lower()}{kept[1:].rstrip('.')}, and {stance}."
        if kept
        else f"{stance[0].upper()}{stance[1:]}."
    )
    return json.dumps({"opinion": text}, ensure_ascii=False)


def _one(clauses: Iterable[str], rng: random.Random, instead: str) -> str:
    bank = list(clauses)
    return rng.choice(bank) if bank else instead


def _norm_in(text: str, culture: Culture) -> str | None:
    """Return the norm of the culture that a text tells, if any."""
    words = content(text)
    told = ((len(words & stems) / len(stems), norm.text) for norm in culture.norms if (stems := content(norm.text)))
    share, best = max(told, default=(0.0, ""))
    return best if share > 0.8 else None
