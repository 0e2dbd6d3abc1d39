"""How near a model's answers come to what peoples answered: pure functions of distributions, and
the figures made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from culturepark.evaluation.intervals import POSITIVE, SHARE
from culturepark.evaluation.measure import Measure, mean
from culturepark.evaluation.types import Attempt
from culturepark.local_models.choices import compute_divergence
from culturepark.records import stream

# respondents; with no answer among so many, an option's share is below 3/400
# (`find_offered_options`)
ENOUGH_RESPONDENTS = 400
DRAWS = 100  # of imagined people, for the ceiling of sampled answers
Shares = Sequence[float]
Places = tuple[int, ...]  # of options, in the order they are asked

# ------------------------------------------------------------ distributions


def find_offered_options(shares: Shares, n: int) -> Places:
    """Return the places of the options that a people could choose from.

    Some national questionnaires asked a five-point question on three points: there, both outermost
    options have no answer at all. So both ends count as not offered where there are five options or
    more, neither end has any answer, and n ≥ 400 people answered: were an end offered and its true
    share 0.75%, nobody's choosing it would have had a chance below 5% (rule of three: Hanley &
    Lippman-Hand 1983, JAMA 249). One empty end is agreement, not a shorter scale, and stays.

    >>> find_offered_options([0, 0.2, 0.3, 0.5, 0], 1000)
    (1, 2, 3)
    >>> find_offered_options([0.6, 0.2, 0.1, 0.1, 0], 1000)
    (0, 1, 2, 3, 4)
    """
    places = tuple(range(len(shares)))
    return (
        places[1:-1]
        if len(shares) >= 5 and n >= ENOUGH_RESPONDENTS and shares[0] == shares[-1] == 0
        else places
    )


def fold(shares: Shares, places: Places) -> list[float]:
    """Return a distribution over some of its options; what lies on another goes to the nearest of
    them (the lower of two).

    >>> fold([0.25, 0.25, 0, 0.25, 0.25], (1, 2, 3))
    [0.5, 0.0, 0.5]
    """
    made = dict.fromkeys(places, 0.0)
    for i, share in enumerate(shares):
        made[min(places, key=lambda place: (abs(place - i), place))] += share
    return list(made.values())


def agreement(model: Shares, people: Shares, places: Places) -> float:
    """Return 1 − the Jensen–Shannon distance (0 to 1, base 2) of two distributions, folded onto
    some options.

    Source: Durmus et al. 2023, arXiv 2306.16388, §2.2.
    """
    return 1 - compute_divergence(fold(model, places), fold(people, places))


def variance(shares: Shares, ordered: bool) -> float:
    """Return the variance of one answer: of its place on the scale from 0 to 1, or, unordered,
    Gini's and Simpson's 1 − Σp².

    The latter is the variance of an answer told as a vector of zeros and a one (Simpson 1949,
    Nature 163).
    """
    if not ordered:
        return 1 - sum(p * p for p in shares)
    at = [i / (len(shares) - 1) for i in range(len(shares))]
    middle = sum(p * x for p, x in zip(shares, at, strict=True))
    return sum(p * (x - middle) ** 2 for p, x in zip(shares, at, strict=True))


@lru_cache(maxsize=8192)
def ceiling(people: tuple[float, ...], count: int) -> float:
    """Return the mean agreement with a people of `count` answers drawn from that people's own
    shares, in 100 draws.
    """
    rng, options = stream("ceiling", people, count), range(len(people))
    drawn = (Counter(rng.choices(options, people, k=count)) for _ in range(DRAWS))
    return (
        sum(1 - compute_divergence([d[i] / count for i in options], people) for d in drawn) / DRAWS
    )


# ------------------------------------------------------------------ answers


@dataclass(frozen=True)
class AnswerCell:
    """What a model answered to one question in one seed, under one culture's prompt, or under none
    (`people` is empty then).

    `shares` is empty where fewer than half of what was `asked` could be read. `count` answers were
    sampled; 0 where the model told its distribution. `places` are the options that this culture's
    `people` could choose from.
    """

    seed: int
    culture: str
    question: str
    subset: str
    topic: str
    shares: tuple[float, ...]
    count: int
    people: tuple[float, ...]
    places: Places
    countries: frozenset[str]
    of: int


def build_cells(attempts: Iterable[Attempt]) -> list[AnswerCell]:
    """Return a cell for each seed, culture and question.

    An attempt's `gold` lists the people's shares in the order of `facts["codes"]`; None where
    nobody's people is meant.
    """
    groups: dict[tuple[int, str, str], list[Attempt]] = {}
    for o in attempts:
        groups.setdefault((o.seed, o.culture, o.unit), []).append(o)
    return [_build_cell(group) for group in groups.values()]


def _build_cell(group: Sequence[Attempt]) -> AnswerCell:
    first, read = group[0], [o for o in group if o.status == "ok"]
    people, facts = tuple(first.gold or ()), first.facts
    rows = (
        [o.shares or [float(code == o.answer) for code in facts["codes"]] for o in read]
        if 2 * len(read) >= len(group)
        else []
    )
    return AnswerCell(
        seed=first.seed,
        culture=first.culture,
        question=first.unit,
        subset=first.subset,
        topic=facts.get("topic", ""),
        shares=tuple(sum(column) / len(rows) for column in zip(*rows, strict=True)),
        count=sum(not o.shares for o in read),
        people=people,
        places=find_offered_options(people, facts.get("n", 0)),
        countries=frozenset(facts.get("countries", ())),
        of=facts.get("of", 0),
    )


# ------------------------------------------------------------------ figures

Sums = tuple[float, float]  # a value and what it is divided by


@dataclass(frozen=True)
class OtherCells:
    """What a cell is held against besides its own people: all other cells, by seed and question."""

    others: Mapping[tuple[int, str], Sequence[AnswerCell]]
    bare: Mapping[tuple[int, str], AnswerCell]
    ordered: bool

    def rivals(self, cell: AnswerCell) -> list[AnswerCell]:
        """Return the cells of cultures none of whose countries is this one's."""
        return [
            c
            for c in self.others[cell.seed, cell.question]
            if c.culture != cell.culture and not c.countries & cell.countries
        ]


def _alignment(cell: AnswerCell, around: OtherCells) -> Sums:
    return agreement(cell.shares, cell.people, cell.places), 1


def _others(cell: AnswerCell, around: OtherCells) -> Sums | None:
    found = [
        agreement(cell.shares, c.people, _find_common_options(cell, c)) for c in around.rivals(cell)
    ]
    return (sum(found) / len(found), 1) if found else None


def _margin(cell: AnswerCell, around: OtherCells) -> Sums | None:
    """Compare on the scale that both peoples had: on a shorter one, everything agrees more."""
    found = [
        agreement(cell.shares, cell.people, _find_common_options(cell, c))
        - agreement(cell.shares, c.people, _find_common_options(cell, c))
        for c in around.rivals(cell)
    ]
    return (sum(found) / len(found), 1) if found else None


def _steerability(cell: AnswerCell, around: OtherCells) -> Sums | None:
    bare = around.bare.get((cell.seed, cell.question))
    if bare is None or not bare.shares:
        return None
    return _alignment(cell, around)[0] - agreement(bare.shares, cell.people, cell.places), 1


def _variance(cell: AnswerCell, around: OtherCells) -> Sums | None:
    if cell.count == 1:
        return None
    # A sample's variance is too small by (count - 1) / count.
    spread = cell.count / (cell.count - 1) if cell.count else 1
    model, people = (
        variance(fold(side, cell.places), around.ordered) for side in (cell.shares, cell.people)
    )
    return model * spread, people


def _uniform(cell: AnswerCell, around: OtherCells) -> Sums:
    return agreement([1 / len(cell.people)] * len(cell.people), cell.people, cell.places), 1


def _elsewhere(cell: AnswerCell, around: OtherCells) -> Sums | None:
    found = [
        fold(c.people, cell.places)
        for c in around.rivals(cell)
        if set(cell.places) <= set(c.places)
    ]
    if not found:
        return None
    middle = [sum(column) / len(found) for column in zip(*found, strict=True)]
    return 1 - compute_divergence(middle, fold(cell.people, cell.places)), 1


def _ceiling(cell: AnswerCell, around: OtherCells) -> Sums | None:
    return (ceiling(tuple(fold(cell.people, cell.places)), cell.count), 1) if cell.count else None


def _find_common_options(first: AnswerCell, second: AnswerCell) -> Places:
    return tuple(sorted(set(first.places) & set(second.places)))


@dataclass(frozen=True)
class FigureSpec:
    """A figure of this room: how it is reckoned in one cell (None where it cannot be), how it is
    told, and its bounds.
    """

    find: Callable[[AnswerCell, OtherCells], Sums | None]
    better: Literal["high", ""]
    note: str
    within: tuple[float, float] = SHARE


APART = (-1.0, 1.0)  # of differences of two alignments
AROUND = ("margin", "others")  # they depend on which other peoples were asked
CLAIMS = (
    "alignment",
    "margin",
)  # what models are compared by, though not on questions that they were tuned on
TUNED, HELD = (
    "training split",
    "held-out",
)  # questions of the corpus' training split, and of the others
FIGURES = {
    "alignment": FigureSpec(
        _alignment, "high", "1 − Jensen–Shannon distance to the shares of the culture's own people"
    ),
    "others": FigureSpec(
        _others,
        "",
        "the same answers held against the people of each other culture, on the scale that both"
        " had; mean",
    ),
    "margin": FigureSpec(
        _margin,
        "high",
        "nearer to the own people than to another culture's, on the scale that both had; mean over"
        " them",
        APART,
    ),
    "steerability": FigureSpec(
        _steerability,
        "high",
        "alignment with the culture in the prompt − alignment of the answer without any; 0: it does"
        " nothing",
        APART,
    ),
    "variance": FigureSpec(
        _variance,
        "",
        "variance of the model's answers ÷ variance of the people's; 1: as varied as they are",
        POSITIVE,
    ),
    "uniform": FigureSpec(
        _uniform, "", "for reference: alignment of a model to which every option is alike"
    ),
    "elsewhere": FigureSpec(
        _elsewhere,
        "",
        "for reference: alignment of the other cultures' people, their mean, where they had all"
        " options of this one",
    ),
    "ceiling": FigureSpec(
        _ceiling,
        "",
        "for reference: alignment of as many answers drawn from the people's own shares",
    ),
}
BY_SUBSET = ("alignment", "margin", "steerability")  # told for each subset too


def measure(attempts: Sequence[Attempt], ordered: bool, note: str = "") -> list[Measure]:
    """Return the figures of survey answers, over all and by culture; units are questions. `note` is
    told with the alignment.

    Over all, each culture's answer to each question weighs the same. `ordered`: whether options are
    scales.
    """
    held = build_cells(attempts)
    asked = [c for c in held if c.people]
    around = OtherCells(
        _group_by_question(asked), {(c.seed, c.question): c for c in held if not c.people}, ordered
    )
    sums = {
        name: [(c, s) for c in asked if c.shares and (s := shown.find(c, around)) is not None]
        for name, shown in FIGURES.items()
    }
    drawn = any(
        o.status == "ok" and not o.shares for o in attempts
    )  # shares of few answers lie further off than those of many
    made = [
        m
        for culture in ("", *sorted({c.culture for c in asked}))
        for m in _measure_culture(culture, asked, sums, note, drawn)
    ]
    made += [
        _build_measure(
            "alignment",
            sums["alignment"],
            "",
            f"topic:{topic}",
            headline=False,
            note="",
            drawn=drawn,
        )
        for topic in sorted({c.topic for c in asked} - {""})
    ]
    return [m for m in made if m.units] + list(_measure_unparsed(attempts))


def _group_by_question(held: Iterable[AnswerCell]) -> dict[tuple[int, str], list[AnswerCell]]:
    made: dict[tuple[int, str], list[AnswerCell]] = {}
    for cell in held:
        made.setdefault((cell.seed, cell.question), []).append(cell)
    return made


def _measure_culture(
    culture: str,
    asked: Sequence[AnswerCell],
    sums: Mapping[str, Sequence[tuple[AnswerCell, Sums]]],
    note: str,
    drawn: bool,
) -> Iterator[Measure]:
    here = [c for c in asked if culture in ("", c.culture)]
    seen = any(
        c.subset == TUNED for c in here
    )  # then the whole is no claim: part of it was learnt by heart
    for name in FIGURES:
        parts = ("", *sorted({c.subset for c in here} - {""})) if name in BY_SUBSET else ("",)
        for subset in parts:
            told = (
                _describe_sample(
                    [c for c in here if subset in ("", c.subset)], note, whole=not subset
                )
                if name == "alignment"
                else ""
            )
            claimed = name in CLAIMS and subset != TUNED and not (seen and not subset)
            yield _build_measure(
                name, sums[name], culture, subset, headline=claimed, note=told, drawn=drawn
            )


def _build_measure(
    name: str,
    sums: Sequence[tuple[AnswerCell, Sums]],
    culture: str,
    subset: str,
    headline: bool,
    note: str,
    drawn: bool,
) -> Measure:
    units: dict[tuple[int, str], list[float]] = {}
    for cell, (value, over) in sums:
        if culture in ("", cell.culture) and subset in ("", cell.subset, f"topic:{cell.topic}"):
            total = units.setdefault((cell.seed, cell.question), [0.0, 0.0])
            total[0] += value
            total[1] += over
    shown = FIGURES[name]
    told = ". ".join(filter(None, (shown.note, note)))
    alike = (*(["count"] if drawn else []), *(["cultures"] if name in AROUND else []))
    return Measure(
        name,
        units,
        mean,
        culture,
        subset,
        shown.better,
        headline,
        "questions",
        told,
        alike,
        within=shown.within,
    )


def _describe_sample(held: Sequence[AnswerCell], note: str, whole: bool) -> str:
    """Return what was left out of, or changed in, a comparison, with counts."""
    seeds = len({c.seed for c in held}) or 1
    each = [c for c in held if c.seed == held[0].seed]
    asked, of = len(each), sum({c.culture: c.of for c in each}.values())
    short = Counter(c.culture for c in each if len(c.places) < len(c.people))
    unread, counts = sum(not c.shares for c in held), sorted({c.count for c in held if c.shares})
    said = [
        f"{asked} pairs of a question and a people"
        + (f", drawn from {of}" if whole and of > asked else "")
    ]
    if short:
        listed = ", ".join(f"{n} of {culture}" for culture, n in sorted(short.items()))
        said.append(
            f"Both ends of the scale were not offered in {listed}: the model's share of them counts"
            " for their neighbours"
        )
    if unread:
        said.append(
            f"Without a figure, for fewer than half of the answers could be read: {unread} of"
            f" {asked * seeds}"
        )
    if counts and counts[-1]:
        span = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
        said.append(
            f"{span} sampled answers a question, whose shares lie further off than the model's own"
            " would: see ceiling"
        )
    return ". ".join([*said, *filter(None, [note])])


def _measure_unparsed(attempts: Sequence[Attempt]) -> Iterator[Measure]:
    """Yield the share of what was asked that gave no option."""
    for culture in ("", *sorted({o.culture for o in attempts} - {""})):
        here = [o for o in attempts if culture in ("", o.culture)]
        units: dict[tuple[int, str], list[float]] = {}
        for o in here:
            total = units.setdefault((o.seed, o.unit), [0.0, 0.0])
            total[0] += o.status != "ok"
            total[1] += 1
        kinds = Counter(o.status for o in here if o.status != "ok")
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none"
        yield Measure(
            "unparsed",
            units,
            mean,
            culture,
            "",
            "low",
            False,
            "questions",
            f"answers that gave no option: {told}",
            share=True,
        )
