"""Hofstede's VSM 2013: six dimensions from the answers of many simulated respondents, and how far
they are from published ones.

Formulas: Hofstede & Minkov (2013), Values Survey Module 2013 manual. Each has a constant C that is
the user's to choose, for only differences between groups mean anything; here it is zero, or fitted
on the other cultures alone, so that no culture's own figure helps its own distance. The instrument
compares groups: all figures are of means over respondents, and nothing scores one of them.

The squared error of a mean over few respondents is too large by its sampling variance, the more so
the more they differ: a model whose people all answer alike would seem near. So squared errors are
products of the errors of two halves of the respondents, whose noise is independent (the
cross-validated distance of Walther et al. 2016, NeuroImage 137). Where all answer alike it is
Euclid's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, product
from typing import Any

from culturepark import surveys
from culturepark.errors import InputError, nearest
from culturepark.evaluation.card import resolve_options
from culturepark.evaluation.intervals import POSITIVE
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure, mean
from culturepark.evaluation.types import Attempt, Benchmark, Item, Setup
from culturepark.llm import session
from culturepark.records import Culture, Persona, Question, Request, Role, stream
from culturepark.workspace import Workspace

# Each dimension is the sum of weight × (mean of the first item − mean of the second).
FORMULAS = {
    "pdi": ((35, "m07", "m02"), (25, "m20", "m23")),
    "idv": ((35, "m04", "m01"), (35, "m09", "m06")),
    "mas": ((35, "m05", "m03"), (35, "m08", "m10")),
    "uai": ((40, "m18", "m15"), (25, "m21", "m24")),
    "lto": ((40, "m13", "m14"), (25, "m19", "m22")),
    "ivr": ((35, "m12", "m11"), (40, "m17", "m16")),
}
ITEMS = tuple(f"m{n:02}" for n in range(1, 25))
CODES = (1, 2, 3, 4, 5)
CONSTANTS = ("fitted", "zero")
OTHERS = 2  # as many other cultures must have a dimension before its constant is fitted
FEW_CULTURES, MANY_PEOPLE, LEAST_PEOPLE = (
    3,
    50,
    20,
)  # the last two are the manual's, §4: an ideal sample, and one too small to use
PEERS = 4  # as many cultures must have a dimension before it is correlated
ASKED, ROWS = len(ITEMS), 5
HALVES = 4 * ASKED  # what a unit's sums hold of its two halves
TINY = 1e-9  # what varies less does so by rounding


def score(dimension: str, means: Mapping[str, Any]) -> Any:
    """Return a dimension with C = 0 from the item means of a group (numbers, or arrays of one
    shape).

    >>> score("mas", {"m05": 3.0, "m03": 2.0, "m08": 2.0, "m10": 2.5})
    17.5
    """
    return sum(weight * (means[more] - means[less]) for weight, more, less in FORMULAS[dimension])


def load_published(culture: Culture) -> dict[str, int]:
    """Return the published figures of a culture's row of Hofstede's table, by dimension; those that
    there are.
    """
    if culture.hofstede is None:
        return {}
    row = surveys.hofstede(culture.hofstede)
    return {d: value for d in FORMULAS if (value := getattr(row, d)) is not None}


# -------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Respondent:
    """Who is asked: a persona, or nobody in particular; `turn` counts how often the same one was
    asked before.

    `half` is the half of the respondents that they are in, 0 or 1.
    """

    name: str
    half: int = 0
    turn: int = 0
    me: Persona | None = None


def plan(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield the 24 items for every respondent of every culture that has published figures.

    InputError where none has, where an option is none, and where the pack lacks an item.
    """
    how = resolve_options(benchmark, setup.options)["constants"]
    if how not in CONSTANTS:
        raise InputError(
            f"benchmark {benchmark.name!r}: no constants {how!r}. {nearest(how, CONSTANTS)}"
        )
    questions = _load_questions(setup.workspace, benchmark.items.removeprefix("scenario:"))
    there = {
        name: held
        for name in setup.cultures
        if (held := load_published(setup.workspace.culture(name)))
    }
    if not there:
        named = ", ".join(setup.cultures)
        raise InputError(
            f"none of {named} has published dimensions: `hofstede` in a culture's card names"
            " its row"
        )
    left = [name for name in setup.cultures if name not in there]
    for name, held in there.items():
        yield from _build_items(
            benchmark, setup, questions, setup.workspace.culture(name), held, left
        )


def _load_questions(workspace: Workspace, pack: str) -> tuple[Question, ...]:
    """Return a pack's 24 items in order; InputError where one is missing or has other options."""
    known = {q.id: q for q in workspace.scenario(pack).questions}
    for item in ITEMS:
        codes = [o.code for o in known[item].options] if item in known else []
        if sorted(codes) != list(CODES):
            told = f"has the options {codes}, not 1 to 5" if codes else "is missing"
            raise InputError(
                f"scenarios/{pack}.toml: {item} {told}; the formulas need {ITEMS[0]} to {ITEMS[-1]}"
            )
    return tuple(known[item] for item in ITEMS)


def _build_items(
    benchmark: Benchmark,
    setup: Setup,
    questions: Sequence[Question],
    culture: Culture,
    held: Mapping[str, int],
    left: Sequence[str],
) -> Iterator[Item]:
    people, gold = choose_respondents(setup, culture), dict(held)
    told = {
        "respondents": setup.respondents,
        "count": _count_respondents(setup),
        "limit": setup.limit,
        "left": list(left),
    }
    for replica in setup.list_replicas():
        role, seed = benchmark.asks(setup.workspace, wording=replica.wording), replica.number
        for who, card in product(people, questions):
            question = card.model_copy(update={"options": replica.arrange(card.options)})
            name = f"{culture.name}/{who.name}/{question.id}/{who.turn}/{seed}"
            unit = f"{culture.name}/{who.name}"
            facts = {"item": question.id, **_list_answers(question), "half": who.half, **told}
            request = _build_request(role, benchmark.name, setup, culture, who, question, name)
            yield Item(name, culture.name, unit, request, seed=seed, gold=gold, facts=facts)


def _build_request(
    role: Role,
    benchmark: str,
    setup: Setup,
    culture: Culture,
    who: Respondent,
    question: Question,
    name: str,
) -> Request:
    told = _list_answers(question)
    view = who.me.views.get(question.id) if who.me else None
    facts = {
        "me": who.me,
        "culture": culture,
        "country": None,
        "question": question,
        "numbered": setup.is_numbered,
        "view": view,
        "options": told["codes"],
        **told,
    }
    made = session.build_single_request(role, facts, None, benchmark, name)
    weighed = told["codes"] if setup.method == "likelihood" else ()
    return replace(made, options=tuple(setup.begins(question, code) for code in weighed))


def _list_answers(question: Question) -> dict[str, list[Any]]:
    return {
        "codes": [o.code for o in question.options],
        "labels": [o.label for o in question.options],
    }


def _count_respondents(setup: Setup) -> int:
    return setup.count if setup.limit is None else min(setup.count, setup.limit)


def choose_respondents(setup: Setup, culture: Culture) -> list[Respondent]:
    """Return who is asked: `count` people, or personas in turns until they are as many, each at
    least once.

    For likelihoods that is one of the people, or each persona once. A limit holds for respondents;
    personas are then drawn.
    """
    likelihood = setup.method == "likelihood"
    if setup.respondents == "people":
        return (
            [Respondent("people")]
            if likelihood
            else [Respondent(f"{n:04}", n % 2) for n in range(_count_respondents(setup))]
        )
    cast = setup.workspace.people(culture.name)
    if not cast:
        raise InputError(
            f"culture {culture.name!r} has no persona in personas/{culture.name}/; ask its people"
            " instead"
        )
    if setup.limit is not None and setup.limit < len(cast):
        cast = tuple(stream("limit", "vsm", culture.name).sample(cast, setup.limit))
    rounds = len(cast) if likelihood else max(_count_respondents(setup), len(cast))
    return [
        Respondent((me := cast[i % len(cast)]).name, i % len(cast) % 2, i // len(cast), me)
        for i in range(rounds)
    ]


# ------------------------------------------------------------------ people


@dataclass(frozen=True)
class GroupAnswers:
    """The answers of one culture. `units` hold a table, flat, of 5 rows of 24 items: for each half
    of the respondents the sums of answers and their counts, then the sums of all squared answers.
    """

    culture: str
    published: Mapping[str, int]
    units: Mapping[tuple[int, str], Sequence[float]]
    asked: Sequence[Attempt]

    @cached_property
    def totals(self) -> Any:
        """The sums over all respondents of each seed, shape (seeds, 120)."""
        import numpy as np

        seeds = sorted({seed for seed, _ in self.units})
        each = [
            np.sum([sums for (s, _), sums in self.units.items() if s == seed], axis=0)
            for seed in seeds
        ]
        return np.array(each).reshape(-1, ROWS * ASKED)

    @cached_property
    def missing(self) -> list[str]:
        """The items without any answer, in one of the seeds at least."""
        counts = _split_halves(self.totals)[..., 1, :].sum(-2)
        return [item for i, item in enumerate(ITEMS) if not len(counts) or not counts[:, i].all()]

    @property
    def who(self) -> str:
        """Who answered, in words."""
        facts = self.asked[0].facts
        drawn = any(o.shares for o in self.asked)
        cut = f" (limit {facts['limit']})" if facts["limit"] else ""
        if facts["respondents"] == "people":
            many = f"{facts['count']} respondents{cut}"
            return (
                f"{many} drawn from the model's own distribution, as many as one likes: nothing is"
                " tested"
                if drawn
                else many
            )
        cast = len({o.unit for o in self.asked})
        if drawn:
            return f"{cast} personas{cut}, each by the distribution that the model tells"
        return f"{cast} personas{cut}, {self.interviews} interviews"

    @property
    def interviews(self) -> int:
        """How many people answered in each seed: those drawn from a distribution, the interviews of
        personas, or respondents.
        """
        facts = self.asked[0].facts
        if facts["respondents"] == "people":
            return int(facts["count"])
        return len({o.item for o in self.asked}) // ASKED // len({o.seed for o in self.asked})

    @property
    def is_drawn(self) -> bool:
        """Whether its respondents are drawn from a distribution that was asked once, so that their
        number says nothing.
        """
        return self.asked[0].facts["respondents"] == "people" and any(o.shares for o in self.asked)

    @property
    def what(self) -> str:
        """What units are called."""
        return "respondents" if self.asked[0].facts["respondents"] == "people" else "personas"


def group_answers(attempts: Sequence[Attempt]) -> list[GroupAnswers]:
    """Return what each culture's respondents answered, by the cultures' names."""
    groups: dict[str, list[Attempt]] = {}
    for o in attempts:
        groups.setdefault(o.culture, []).append(o)
    return [
        GroupAnswers(culture, asked[0].gold, _sum_answers(asked), asked)
        for culture, asked in sorted(groups.items())
    ]


def _sum_answers(attempts: Iterable[Attempt]) -> dict[tuple[int, str], list[float]]:
    """Return each unit's sums; what is no answer adds nothing, and who answered nothing is no
    unit.
    """
    made: dict[tuple[int, str], list[float]] = {}
    for o in attempts:
        place = ITEMS.index(o.facts["item"])
        for unit, half, answer, square in list_answers(o):
            sums = made.setdefault((o.seed, unit), [0.0] * (ROWS * ASKED))
            sums[2 * half * ASKED + place] += answer
            sums[(2 * half + 1) * ASKED + place] += 1
            sums[4 * ASKED + place] += square
    return made


def list_answers(o: Attempt) -> Iterator[tuple[str, int, float, float]]:
    """Yield unit, half, answer and its square: one answer, a persona's expected one, or those of
    people drawn from a distribution.
    """
    codes, half = o.facts["codes"], o.facts["half"]
    if o.status != "ok":
        return
    if not o.shares:
        yield o.unit, half, o.answer, o.answer**2
    elif o.facts["respondents"] == "personas":
        first, second = (
            sum(s * c**power for s, c in zip(o.shares, codes, strict=True)) for power in (1, 2)
        )
        yield o.unit, half, first, second
    else:
        count, purpose = o.facts["count"], (o.culture, o.facts["item"])
        # Each half keeps to the distribution by itself: what one lacks the other does not make up
        # for.
        for part in (0, 1):
            for n, answer in enumerate(
                draw_answers(codes, o.shares, (count + 1 - part) // 2, *purpose, part)
            ):
                yield f"{o.unit}/{2 * n + part:04}", part, answer, answer**2


def draw_answers(
    codes: Sequence[int], shares: Sequence[float], count: int, *purpose: Any
) -> list[int]:
    """Return the answers of `count` people to one item, by systematic sampling (Cochran 1977, ch.
    8), in random order.

    Every person's answer has the distribution `shares`, and as a group they keep to it: no option
    is further than one person off.
    """
    rng, edges = stream("vsm", *purpose), list(accumulate(shares))
    start = rng.random()
    places = (
        bisect_right(edges, (k + start) / count * edges[-1])
        for k in rng.sample(range(count), count)
    )
    return [codes[min(place, len(codes) - 1)] for place in places]


# ----------------------------------------------------------------- figures


def _split_halves(sums: Any) -> Any:
    """Return total sums, shape (..., at least 96), as sums and counts of each half and item, shape
    (..., 2, 2, 24).
    """
    return sums[..., :HALVES].reshape(*sums.shape[:-1], 2, 2, ASKED)


def scores(sums: Any) -> Any:
    """Return the six dimensions with C = 0 from total sums, shape (..., at least 96), as shape
    (..., 6); NaN without an answer.
    """
    return _score_means(_means(_split_halves(sums).sum(-3)))


def score_halves(sums: Any) -> Any:
    """Return the dimensions of each half, shape (..., 2, 6); an item that a half did not answer is
    taken from the other.
    """
    import numpy as np

    halves = _split_halves(sums)
    each = _means(halves)
    return _score_means(np.where(np.isnan(each), _means(halves.sum(-3))[..., None, :], each))


def _means(table: Any) -> Any:
    """Return sums and counts, shape (..., 2, 24), as means of items, shape (..., 24)."""
    import numpy as np

    return mean(np.moveaxis(table, -2, -1))


def _score_means(means: Any) -> Any:
    import numpy as np

    held = dict(zip(ITEMS, np.moveaxis(means, -1, 0), strict=True))
    return np.stack([score(d, held) for d in FORMULAS], axis=-1)


def spread(sums: Any) -> Any:
    """Return the standard deviation of answers, the mean over items that were answered, from total
    sums of shape (..., 120).
    """
    import numpy as np

    total, counts = (_split_halves(sums)[..., i, :].sum(-2) for i in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = sums[..., HALVES:] / counts - (total / counts) ** 2
        there = counts > 0
        return np.sqrt(np.where(there, variance.clip(0), 0)).sum(-1) / there.sum(-1)


def fit_constants(gaps: Any) -> tuple[Any, Any]:
    """Return constants from `gaps` = published − score, NaN where there is none, shape (...,
    cultures, 6), and on how many they rest.

    A culture's constant is the mean gap of the other cultures; 0 where fewer than OTHERS have the
    dimension.
    """
    import numpy as np

    there = np.isfinite(gaps)
    known = np.where(there, gaps, 0)
    others = there.sum(-2, keepdims=True) - there
    total = known.sum(-2, keepdims=True) - known
    return np.where(others >= OTHERS, total / np.maximum(others, 1), 0.0), others


def measure_distance(errors: Any, held: Any) -> Any:
    """Return distances from the errors of both halves, shape (..., 2, 6), over the dimensions that
    are published: `held`, (..., 6).

    Euclidean where the halves agree; 0 where they err to opposite sides.
    """
    import numpy as np

    return np.sqrt(np.maximum(square_distance(errors, held), 0))


def square_distance(errors: Any, held: Any) -> Any:
    """Return the squares of `measure_distance`, below 0 where the halves err to opposite sides:
    without the noise, on average right.
    """
    import numpy as np

    return np.where(held, errors[..., 0, :] * errors[..., 1, :], 0).sum(-1)


def measure(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> list[Measure]:
    """Return distances and the six dimensions, how dimensions go together with published ones,
    spread, and what was unreadable.
    """
    import numpy as np

    found = group_answers(attempts)
    if not found:
        return []
    table = np.array([[p.published.get(d, np.nan) for d in FORMULAS] for p in found])
    fit = options.get("constants", KIND.options["constants"]) == "fitted"
    sums = np.array([p.totals.sum(0) for p in found])
    constants, others = fit_constants(table - scores(sums))
    halves, _ = fit_constants(table - np.moveaxis(score_halves(sums), -2, 0))
    errors = table - scores(sums) - (constants if fit else 0)
    plain = measure_distance(np.stack([errors, errors], -2), np.isfinite(table))
    warning = _warn_uninformative(found)
    made = [
        *_measure_overall(found, table, fit, plain, warning),
        _measure_unread(attempts, "", found[0].what),
    ]
    for i, people in enumerate(found):
        note = _describe_constants(people, constants[i], others[i]) if fit else "constants zero"
        made += _measure_distances(
            people,
            table[i],
            halves[:, i] if fit else 0.0,
            plain[i],
            note,
            ("cultures",) if fit else (),
            warning,
        )
        made += _measure_dimensions(people)
        made.append(_measure_unread(people.asked, people.culture, people.what))
    return made


def _measure_distances(
    people: GroupAnswers,
    row: Any,
    constants: Any,
    plain: float,
    note: str,
    alike: tuple[str, ...],
    warning: str,
) -> Iterator[Measure]:
    """Yield a culture's distance, whole and a dimension; constants, of each half, stay when
    respondents are drawn again.
    """
    held = row == row  # NaN is not
    many = len(people.published)
    parts = (
        f"{many} of {len(FORMULAS)} dimensions",
        note,
        people.who,
        _describe_noise(plain),
        _explain_missing([people]),
    )

    def far(sums: Any) -> Any:
        return measure_distance(row - score_halves(sums) - constants, held)

    def square(sums: Any) -> Any:
        return square_distance(row - score_halves(sums) - constants, held)

    common: dict[str, Any] = {
        "culture": people.culture,
        "better": "low",
        "what": people.what,
        "note": _join_notes(parts),
        "alike": alike,
        "warning": warning,
        "tested": not people.is_drawn,
    }
    yield Measure("distance", people.units, far, headline=True, square=square, **common)
    yield Measure(
        "distance a dimension",
        people.units,
        lambda sums: far(sums) / many**0.5,
        square=lambda sums: square(sums) / many,
        **common,
    )


def _warn_uninformative(found: Sequence[GroupAnswers]) -> str:
    """Say why distances tell little, where they do: of few cultures, or of few respondents, chance
    makes most of them.
    """
    few = min(p.interviews for p in found)
    why = (
        [f"{len(found)} culture{'s' if len(found) > 1 else ''}"]
        if len(found) <= FEW_CULTURES
        else []
    )
    if few < MANY_PEOPLE:
        why.append(
            f"{few} respondents in a culture, where the manual wants {MANY_PEOPLE} and forbids"
            f" fewer than {LEAST_PEOPLE}"
        )
    if not why:
        return ""
    return (
        f"Not informative: {' and '.join(why)}. Chance makes most of such a distance; ask more than"
        f" {FEW_CULTURES} cultures and --count 200."
    )


def _describe_noise(plain: float) -> str:
    """Tell the distance that one reckons from the six dimensions as they are."""
    return f"sampling noise taken out, with it {plain:.1f}" if plain == plain else ""


def _join_notes(parts: Iterable[str]) -> str:
    return "; ".join(filter(None, parts))


def _describe_constants(people: GroupAnswers, constants: Any, others: Any) -> str:
    """Say which constants were fitted on how many other cultures, and which were left zero."""
    groups: dict[str, list[str]] = {}
    for d, constant, many in zip(FORMULAS, constants, others, strict=True):
        if d in people.published:
            few = f"constants zero, for fewer than {OTHERS} other cultures have a figure"
            how = few if many < OTHERS else f"constants fitted on the other {many} cultures"
            groups.setdefault(how, []).append(
                d.upper() if many < OTHERS else f"{d.upper()} {constant:+.1f}"
            )
    return "; ".join(f"{how}: {', '.join(told)}" for how, told in groups.items())


def _explain_missing(found: Iterable[GroupAnswers], dimensions: Iterable[str] | None = None) -> str:
    """Say why there is no figure: which items nobody answered that these dimensions need, else
    those that are published.
    """
    lost = []
    for people in found:
        needed = {
            item
            for d in dimensions or people.published
            for _, *pair in FORMULAS[d]
            for item in pair
        }
        if items := [item for item in people.missing if item in needed]:
            lost.append(f"{', '.join(items)} ({people.culture})")
    return f"no figure: nobody answered {', '.join(lost)}" if lost else ""


def _measure_dimensions(people: GroupAnswers) -> Iterator[Measure]:
    """Yield the six dimensions with C = 0, and the spread of answers."""
    common: dict[str, Any] = {"culture": people.culture, "better": "", "what": people.what}
    for i, d in enumerate(FORMULAS):
        told = people.published.get(d, "none")
        note = _join_notes(
            (f"constant zero; published {told}", people.who, _explain_missing([people], [d]))
        )
        yield Measure(d.upper(), people.units, partial(_score_dimension, i), note=note, **common)
    note = (
        f"standard deviation over respondents, mean over {ASKED - len(people.missing)} items; 0:"
        f" all answer alike; {people.who}"
    )
    yield Measure("spread", people.units, spread, note=note, within=POSITIVE, **common)


def _score_dimension(dimension: int, sums: Any) -> Any:
    return scores(sums)[..., dimension]


def _measure_unread(attempts: Sequence[Attempt], culture: str, what: str) -> Measure:
    """Return the share of answers that cannot be read; what was never answered is told beside
    it.
    """
    units: dict[tuple[int, str], list[float]] = {}
    for o in attempts:
        sums = units.setdefault((o.seed, o.unit), [0.0, 0.0])
        sums[0] += o.status == "unparsed"
        sums[1] += 1
    counts = Counter(o.status for o in attempts if o.status not in ("ok", "unparsed"))
    rest = "".join(f"; {many} {status}" for status, many in sorted(counts.items()))
    note = f"of {len(attempts)} answers{rest}; none of them is a number"
    return Measure(
        "unparsed", units, mean, culture=culture, better="low", what=what, note=note, share=True
    )


# ------------------------------------------------------------ all cultures


def _measure_overall(
    found: Sequence[GroupAnswers], table: Any, fit: bool, plain: Any, warning: str
) -> Iterator[Measure]:
    """Yield the means over cultures, constants fitted anew whenever respondents are drawn again,
    and the correlations.
    """
    import numpy as np

    units = {
        key: _place_block(sums, i, len(found))
        for i, p in enumerate(found)
        for key, sums in p.units.items()
    }
    held = np.isfinite(table)
    many = held.sum(1)
    full = many == many.max()

    def far(sums: Any) -> Any:
        gaps = table - np.moveaxis(
            score_halves(sums.reshape(*sums.shape[:-1], len(found), HALVES)), -2, 0
        )
        return measure_distance(
            np.moveaxis(gaps - fit_constants(gaps)[0] if fit else gaps, 0, -2), held
        )

    common: dict[str, Any] = {
        "units": units,
        "better": "low",
        "within": POSITIVE,
        "warning": warning,
        "what": found[0].what,
        "tested": not any(p.is_drawn for p in found),
    }
    like = _describe_mean(found, [p for p, whole in zip(found, full, strict=True) if whole], fit)
    like = _join_notes((like, _describe_noise(plain[full].mean())))
    yield Measure(
        "distance",
        value=lambda sums: far(sums)[..., full].mean(-1),
        headline=True,
        note=like,
        **common,
    )
    each = _describe_mean(found, found, fit)
    yield Measure(
        "distance a dimension",
        value=lambda sums: (far(sums) / many**0.5).mean(-1),
        note=each,
        **common,
    )
    yield from _measure_correlations(units, table, found[0].what)


def _measure_correlations(
    units: Mapping[tuple[int, str], Sequence[float]], table: Any, what: str
) -> Iterator[Measure]:
    """Yield how scores go together with published figures, for dimensions that PEERS cultures
    have.
    """
    import numpy as np

    known = np.isfinite(table)
    for i, d in enumerate(FORMULAS):
        if (there := known[:, i]).sum() >= PEERS:
            note = (
                f"Pearson, score with published figure, over {there.sum()} cultures, which are not"
                " drawn again; no constant matters"
            )
            yield Measure(
                "correlation",
                units,
                _correlate(table[there, i], there, i),
                subset=d.upper(),
                what=what,
                note=note,
                within=(-1.0, 1.0),
            )


def _place_block(sums: Sequence[float], place: int, count: int) -> list[float]:
    """Return a unit's sums and counts in its own culture's place among all."""
    return [0.0] * (HALVES * place) + list(sums[:HALVES]) + [0.0] * (HALVES * (count - place - 1))


def _describe_mean(found: Sequence[GroupAnswers], used: Sequence[GroupAnswers], fit: bool) -> str:
    """Say which cultures a mean is over, and with which constants."""
    many = sorted({len(p.published) for p in used})
    parts = (
        (
            f"mean over {len(used)} cultures, {' or '.join(map(str, many))} of {len(FORMULAS)}"
            " dimensions each"
        ),
        (
            "constants fitted on the other cultures"
            if fit and len(found) > OTHERS
            else (
                "constants"
                f" zero{f', for fewer than {OTHERS} other cultures were asked' if fit else ''}"
            )
        ),
        f"in each {' or '.join(dict.fromkeys(p.who for p in used))}",
        "".join(
            f"left out: {p.culture}, {len(p.published)} dimensions; "
            for p in found
            if p not in used
        ).rstrip("; "),
        (
            f"left out, no published figures: {', '.join(left)}"
            if (left := found[0].asked[0].facts["left"])
            else ""
        ),
        _explain_missing(used),
    )
    return _join_notes(parts)


def _correlate(row: Any, there: Any, dimension: int) -> Callable[[Any], Any]:
    def value(sums: Any) -> Any:
        import numpy as np

        held = scores(sums.reshape(*sums.shape[:-1], len(there), HALVES))[..., there, dimension]
        held, known = held - held.mean(-1, keepdims=True), row - row.mean()
        varies = (held**2).sum(-1) * (known**2).sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(varies > TINY, (held * known).sum(-1) / np.sqrt(varies), np.nan)

    return value


KIND = BenchmarkKind(
    plan=plan,
    measure=measure,
    axes=("orders", "wordings"),
    options={"constants": "fitted"},
    respondents=("people", "personas"),
)
