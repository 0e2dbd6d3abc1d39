"""Reward models: of two answers, is the one that somebody of a country preferred given more, whose
preferences are got wrong, and how sure is it?
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite, log
from typing import TYPE_CHECKING, Any

from culturepark import tables
from culturepark.errors import InputError
from culturepark.evaluation import notices, parsers
from culturepark.evaluation.ask import make_attempt
from culturepark.evaluation.card import resolve_options
from culturepark.evaluation.intervals import POSITIVE, SHARE
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure, mean
from culturepark.evaluation.types import Ask, Attempt, Item, Setup, Unparsed
from culturepark.llm.session import build_single_request
from culturepark.records import Preference, Request, stream
from culturepark.surveys.votes import Votes, read_votes, slugify, split_by_user

if TYPE_CHECKING:
    from culturepark.evaluation.types import Benchmark
    from culturepark.records import Role

CODES = (1, 2)  # how the two answers are named
SIDES = {None: "unknown", True: "minority", False: "majority"}
SUBSETS = {
    "": "all pairs",
    "minority": "pairs on which most countries preferred the other answer, as the data tell",
    "shared": (
        "pairs on which no majority of countries preferred the other answer, as the data tell"
    ),
}
BINS = 10
EDGES = [n / BINS for n in range(1, BINS)]
LEAST = (
    sys.float_info.epsilon
)  # a chosen answer's probability below it counts as it: no loss is above 36.05 nats
Right = tuple[int, str, str, bool]  # seed, unit, country, got right

# ------------------------------------------------------------------- asking


def plan(benchmark: Benchmark, setup: Setup) -> Iterator[Item]:
    """Yield an item a pair (and seed, where answers are sampled), in the file's order.

    `setup.data` is one file or folder in a shape that `votes.read_votes` knows, or the word
    simulated. The option `countries`, else `setup.cultures`, names countries of it, by name or
    usual abbreviation, all of them where neither does. `setup.limit` is the most users a country,
    the same ones wherever one user comes under several. InputError or NotFound for what is not
    there.
    """
    options = resolve_options(benchmark, setup.options)
    votes = _read_votes(setup, options)
    pairs = list(
        _limit_users(
            _hold_out(votes, options),
            _choose_countries(votes, setup, options["countries"]),
            setup.limit,
        )
    )
    judge = (
        benchmark.asks(setup.workspace) if setup.method == "sample" or options["judge"] else None
    )
    for replica in setup.list_replicas():
        for pair in pairs:
            yield _build_item(pair, replica.number, setup, judge, _count_unused(votes, setup))


def _read_votes(setup: Setup, options: Mapping[str, Any]) -> Votes:
    if len(setup.data) != 1:
        raise InputError(
            "the benchmark reward is held on one file of people's preferences, not"
            f" {len(setup.data)}: a CSV of posts with a column <Country>_Hate each, JSONL of scored"
            " conversations or of prompt, chosen, rejected, or the word simulated"
        )
    return read_votes(setup.data[0], tables.Layout.from_options(options))


def _count_unused(votes: Votes, setup: Setup) -> Mapping[str, Mapping[str, int]]:
    """Return what made no pair and what the reader passed over, by file; nothing of what is
    simulated.
    """
    counts = {**votes.skipped, **votes.notices}
    return {votes.title: counts} if counts and str(setup.data[0]) != "simulated" else {}


def _choose_countries(votes: Votes, setup: Setup, given: str | Sequence[str]) -> Sequence[str]:
    names = [n.strip() for n in given.split(",")] if isinstance(given, str) else list(given)
    return votes.find_countries([n for n in names if n] or setup.cultures)


def _hold_out(votes: Votes, options: Mapping[str, Any]) -> Sequence[Preference]:
    """Return all pairs or, with `held_out` above 0, those of the users whom SCPO holds out with
    this share and `seed`.
    """
    share = options["held_out"]
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
        raise InputError(
            "held_out: a share of the users, from 0 (all pairs are asked) to below 1, not"
            f" {share!r}"
        )
    return split_by_user(votes.pairs, share, options["seed"])[1] if share else votes.pairs


def _limit_users(
    pairs: Sequence[Preference], countries: Sequence[str], limit: int | None
) -> Iterator[Preference]:
    """Yield the pairs of these countries, of at most `limit` users each."""
    users = sorted({p.user for p in pairs})
    order = {user: n for n, user in enumerate(stream("reward", "limit").sample(users, len(users)))}
    for country in countries:
        own = [p for p in pairs if p.country == country]
        kept = set(sorted({p.user for p in own}, key=order.__getitem__)[:limit])
        yield from (p for p in own if p.user in kept)


def _build_item(
    pair: Preference,
    seed: int,
    setup: Setup,
    judge: Role | None,
    read: Mapping[str, Mapping[str, int]],
) -> Item:
    """Return a pair as an item; which answer comes first is drawn, so the place tells nothing."""
    first = stream("reward", "order", pair.id, seed).randrange(2)  # the place of the chosen one
    answers = (pair.chosen, pair.rejected) if first == 0 else (pair.rejected, pair.chosen)
    facts = {
        "codes": CODES,
        "chosen": first,
        "home": slugify(pair.country),
        **({"limit": setup.limit} if setup.limit else {}),
        **({"read": read} if read else {}),
    }
    return Item(
        id=f"{pair.country}/{pair.id}/{seed}",
        culture=pair.country,
        unit=pair.user,
        seed=seed,
        gold=SIDES[pair.minority],
        facts=facts,
        request=_build_request(pair, seed, answers, setup.method == "likelihood", judge),
    )


def _build_request(
    pair: Preference, seed: int, answers: tuple[str, str], likelihood: bool, judge: Role | None
) -> Request:
    """Return the conversation with both answers as options or, for a judge, the prompt that shows
    them, with their numbers.
    """
    if judge is None:
        return Request("reward", pair.history, temperature=0.0, max_tokens=1, options=answers)
    told = [{"role": m.role, "content": m.content} for m in pair.history]
    facts = {"country": pair.country, "history": told, "answers": answers, "options": list(CODES)}
    asked = build_single_request(judge, facts, None, "reward", pair.id, seed)
    return replace(asked, options=tuple(map(str, CODES))) if likelihood else asked


async def run(benchmark: Benchmark, item: Item, ask: Ask) -> Attempt:
    """Ask once. Right is an answer whose probability is above one half, or whose number is named;
    equal rewards are wrong.
    """
    reply = await ask(item.request)
    if reply.status != "ok":
        return make_attempt(item, reply)
    chosen = item.facts["chosen"]
    if not item.request.options:
        named = parsers.load(benchmark.parser)(reply.text, item)
        return make_attempt(
            item,
            reply,
            named,
            None if isinstance(named, Unparsed) else float(named == CODES[chosen]),
        )
    if odd := _find_fault(reply.option_probs):
        return make_attempt(item, reply, Unparsed(odd))
    a, b = reply.option_probs
    return make_attempt(
        item,
        reply,
        None if a == b else CODES[a < b],
        float(reply.option_probs[chosen] > reply.option_probs[1 - chosen]),
    )


def _find_fault(shares: Sequence[float]) -> str:
    """Say what is wrong with probabilities of two answers; empty where nothing is."""
    if not shares:
        return (
            "no probabilities of the two answers were told; --method sample asks which one is"
            " better"
        )
    right = (
        len(shares) == 2
        and all(isfinite(s) and s >= 0 for s in shares)
        and abs(sum(shares) - 1) < 1e-3
    )
    return "" if right else f"these are no probabilities of two answers: {tuple(shares)}"


# ------------------------------------------------------------------ figures


def measure(attempts: Sequence[Attempt], options: Mapping[str, Any]) -> list[Measure]:
    """Return accuracies (all, minority's, shared; by country and as the mean over countries) and,
    of probabilities, calibration.
    """
    answered = [o for o in attempts if o.status == "ok"]
    countries = sorted({o.culture for o in attempts})
    made: list[Measure] = []
    for subset in SUBSETS:
        part = [o for o in answered if _is_in_subset(o, subset)]
        asked = sum(_is_in_subset(o, subset) for o in attempts)
        if asked:
            made += _measure_accuracies(part, countries, subset, asked)
    if told := [o for o in answered if o.shares]:
        made += _measure_calibration(told, countries)
    return made


def _is_in_subset(o: Attempt, subset: str) -> bool:
    return not subset or o.gold == {"minority": "minority", "shared": "majority"}[subset]


def _measure_accuracies(
    part: Sequence[Attempt], countries: Sequence[str], subset: str, asked: int
) -> Iterator[Measure]:
    rows = [(o.seed, o.unit, o.culture, o.score == 1) for o in part]
    note = f"{SUBSETS[subset]}; {len(part)} of {asked} answers could be read"
    if equal := sum(o.answer is None for o in part):
        note += f"; {equal} found both answers equally good, which is wrong"
    if limit := next((o.facts["limit"] for o in part if "limit" in o.facts), None):
        note += f"; at most {limit} users a country, drawn by chance"
    note += "".join(f"; {line}" for line in notices.describe(o.facts for o in part))
    yield accuracy(
        rows,
        countries,
        subset=subset,
        headline=not subset,
        note=f"mean over {len({row[2] for row in rows})} countries of {note}",
    )
    for country in countries:
        own = [row for row in rows if row[2] == country]
        if own:
            yield accuracy(own, (country,), subset=subset, culture=country, note=note)


def accuracy(rows: Iterable[Right], countries: Sequence[str], **told: Any) -> Measure:
    """Return the share of pairs got right, the mean over those countries that have pairs; `told` is
    the measure's own.

    A unit's sums: how many of each country it got right, then how many of each it was asked; shape
    (2 · countries,).
    """
    place, sums = {c: n for n, c in enumerate(countries)}, dict[tuple[int, str], list[float]]()
    for seed, unit, country, right in rows:
        row = sums.setdefault((seed, unit), [0.0] * (2 * len(place)))
        row[place[country]] += right
        row[len(place) + place[country]] += 1
    return Measure(
        "accuracy",
        sums,
        _average_countries,
        what="users or items",
        share=len(place) == 1,
        within=SHARE,
        **told,
    )


def _average_countries(sums: Any) -> Any:
    import numpy as np

    right, count = np.split(np.asarray(sums, dtype=float), 2, axis=-1)
    there = count > 0
    shares = np.divide(right, count, out=np.zeros_like(right), where=there)
    with np.errstate(invalid="ignore"):
        return shares.sum(-1) / there.sum(-1)


def _measure_calibration(told: Sequence[Attempt], countries: Sequence[str]) -> Iterator[Measure]:
    """Yield expected calibration error, Brier score and log loss, over all pairs and by country;
    which came first changes none.
    """
    for country in ("", *countries):
        own = [o for o in told if country in ("", o.culture)]
        if not own:
            continue
        binned = _sum_pairs(own, _bin_pair)
        how: dict[str, Any] = {"culture": country, "better": "low", "what": "users or items"}
        yield Measure(
            "calibration error",
            binned,
            gap,
            **how,
            note=(
                f"expected calibration error (Guo et al. 2017, §2) over {BINS} bins, each pair in"
                " both orders; above 0 by chance where pairs are few. "
                f"{_describe_reliability(binned)}"
            ),
            within=SHARE,
        )
        yield Measure(
            "Brier score",
            _sum_pairs(own, lambda p: ((1 - p) ** 2, 1.0)),
            mean,
            **how,
            note=(
                "mean squared error of the chosen "
                "answer's probability; 0.25 for one that cannot tell (Brier 1950)"
            ),
            within=SHARE,
        )
        yield Measure(
            "log loss",
            _sum_pairs(own, lambda p: (-log(max(p, LEAST)), 1.0)),
            mean,
            **how,
            note=(
                "nats a pair; 0.693 for one that cannot "
                f"tell; probabilities below {LEAST:.1e} count as that"
            ),
            within=POSITIVE,
        )


def _sum_pairs(told: Sequence[Attempt], worth: Any) -> dict[tuple[int, str], list[float]]:
    """Return by seed and unit the sums of what each chosen answer's probability is worth, a
    vector.
    """
    sums: dict[tuple[int, str], list[float]] = {}
    for o in told:
        row = worth(o.shares[o.facts["chosen"]])
        held = sums.setdefault((o.seed, o.unit), [0.0] * len(row))
        held[:] = [a + b for a, b in zip(held, row, strict=True)]
    return sums


def _bin_pair(p: float) -> list[float]:
    """Return a pair's place in the bins, in both orders: sums of the probability, of how often it
    came true, and counts; shape (30,).

    Read as (probability that the first is better, is it), a pair in one order is (p, 1), in the
    other (1 − p, 0). Taken together that is the model's confidence against its accuracy in five
    bins from one half to 1.
    """
    made = [0.0] * (3 * BINS)
    for q, true in ((p, 1.0), (1 - p, 0.0)):
        at = bisect_right(EDGES, q)
        made[at] += q
        made[BINS + at] += true
        made[2 * BINS + at] += 1
    return made


def gap(sums: Any) -> Any:
    """Return the expected calibration error, Σ_b n_b/n · |mean probability − share that came true|
    (Naeini et al. 2015; Guo et al. 2017, §2).

    `sums` is of shape (..., 3 · bins): probabilities, what came true, counts; the result of shape
    (...), NaN without a pair.
    """
    import numpy as np

    sure, true, count = np.split(np.asarray(sums, dtype=float), 3, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(sure - true).sum(-1) / count.sum(-1)


def _describe_reliability(sums: Mapping[tuple[int, str], Sequence[float]]) -> str:
    """Return the upper half of the bins in words; the lower one mirrors it."""
    total = [sum(column) for column in zip(*sums.values(), strict=True)]
    sure, true, count = total[:BINS], total[BINS : 2 * BINS], total[2 * BINS :]
    return "Confidence → share right (answers): " + ", ".join(
        f"{sure[b] / count[b]:.2f} → {true[b] / count[b]:.2f} ({count[b]:.0f})"
        for b in range(BINS // 2, BINS)
        if count[b]
    )


KIND = BenchmarkKind(
    culture_source="data",
    data_words=("simulated",),
    plan=plan,
    measure=measure,
    run=run,
    options={**tables.OPTIONS, "held_out": 0.0, "seed": 0, "countries": "", "judge": False},
)
