"""Tests of VSM 2013: its formulas, whom it asks, what it makes of answers that are none, and what
distances and constants are.
"""

import asyncio
import random
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from culturepark.errors import InputError
from culturepark.evaluation import card
from culturepark.evaluation.kinds import vsm
from culturepark.evaluation.measure import compare, estimate
from culturepark.evaluation.types import Setup
from culturepark.offline import Embedded
from culturepark.records import Reply
from culturepark.workspace import load

PARK, CARD = load(), card.load("vsm13")
EIGHT = ("arabic", "bengali", "chinese", "german", "korean", "portuguese", "spanish", "turkish")
PACK = {q.id: q for q in PARK.scenario("vsm13").questions}

# The manual's formulas once more, typed apart: a row a dimension, a column an item.
WEIGHTS = np.zeros((6, 24))
for row, terms in enumerate(
    (
        "+35*7 -35*2 +25*20 -25*23",
        "+35*4 -35*1 +35*9 -35*6",
        "+35*5 -35*3 +35*8 -35*10",
        "+40*18 -40*15 +25*21 -25*24",
        "+40*13 -40*14 +25*19 -25*22",
        "+35*12 -35*11 +40*17 -40*16",
    )
):
    for weight, item in (term.split("*") for term in terms.split()):
        WEIGHTS[row, int(item) - 1] = float(weight)


def setup(**how):
    return Setup(
        **{"workspace": PARK, "cultures": EIGHT, "options": {"constants": "fitted"}, **how}
    )


def held(say, **how):
    """Ask everybody; `say` makes a text, a Reply or shares of a request."""

    async def ask(request, who="model"):
        said = say(request)
        if isinstance(said, tuple):
            return Reply("ok", "", option_probs=said)
        return said if isinstance(said, Reply) else Reply("ok", str(said))

    async def all_of_it():
        return [await vsm.KIND.run(CARD, item, ask) for item in vsm.KIND.plan(CARD, setup(**how))]

    return asyncio.run(all_of_it())


def figures(attempts, constants="fitted"):
    """Return figures by name and culture."""
    found = vsm.KIND.measure(attempts, {"constants": constants})
    return {
        (f.name, f.culture) if not f.subset else (f.name, f.culture, f.subset): f
        for f in map(estimate, found)
    }


def at_random(seed=0):
    """Somebody who answers anything."""
    rng = random.Random(seed)
    return lambda request: rng.choice((1, 2, 3, 4, 5))


def told(request):
    return request.facts["question"].id, request.facts["culture"].name


# -------------------------------------------------------------------- pack


@pytest.mark.parametrize(
    ("items", "first", "last"),
    [
        ((*range(1, 15),), "Extremely important", "Hardly or not at all important"),
        ((15, 16, 17), "Always", "Never"),
        ((18,), "Very good", "Very bad"),
        ((19,), "Very proud", "Not at all proud"),
        ((20,), "Never", "Always"),
        ((21, 22, 23, 24), "Strongly agree", "Strongly disagree"),
    ],
)
def test_the_scales_point_where_the_formulas_need_them(items, first, last):
    for question in (PACK[f"m{n:02}"] for n in items):
        assert [o.code for o in question.options] == [1, 2, 3, 4, 5]
        assert (question.options[0].label, question.options[-1].label) == (first, last)


def test_a_request_reads_as_a_tuned_model_was_taught():
    item = next(iter(vsm.KIND.plan(CARD, setup(method="likelihood"))))
    system, user = item.request.messages
    assert (
        system.content.startswith("You are a person from the Arabic culture.")
        and user.content == PACK["m01"].prompt
    )
    assert item.request.options == tuple(o.label for o in PACK["m01"].options)


def test_nobody_can_talk_about_the_pack_and_the_command_says_so(tmp_path):
    args = (
        "run",
        "x",
        "--scenario",
        "vsm13",
        "--workspace",
        ROOT,
        "--out",
        tmp_path / "out",
        "-c",
        "german",
    )
    done = subprocess.run(
        [sys.executable, "-m", "culturepark", *args], cwd=tmp_path, capture_output=True, text=True
    )
    assert (
        done.returncode == 2
        and len(done.stderr.splitlines()) == 1
        and not (tmp_path / "out").exists()
    )
    assert (
        "no seed for culture 'german' in scenarios/vsm13.toml: none of its 24 questions"
        in done.stderr
    )


# ---------------------------------------------------------------- formulas


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), min_size=24, max_size=24), min_size=1, max_size=6))
def test_dimensions_are_the_manuals(people):
    answers = iter(np.array(people).ravel())
    found = figures(held(lambda r: next(answers), cultures=("korean",), count=len(people)))
    expected = WEIGHTS @ np.mean(people, axis=0)
    assert [found[d.upper(), "korean"].value for d in vsm.FORMULAS] == pytest.approx(expected)


def test_a_group_with_chosen_means_has_the_dimensions_one_reckons_by_hand():
    # Everything else being 3: PDI 35·(4−2) + 25·(3−1), IDV 35·(3−5), UAI 40·(3−4), LTO 25·(3−1),
    # IVR 35·½ + 40·½.
    first = {"m07": 4, "m02": 2, "m23": 1, "m01": 5, "m15": 4, "m22": 1, "m12": 3, "m17": 3}
    second = {**first, "m12": 4, "m17": 4}
    answers = (who.get(item, 3) for who in (first, second) for item in PACK)
    found = figures(held(lambda r: next(answers), cultures=("german",), count=2))
    values = [found[d.upper(), "german"].value for d in vsm.FORMULAS]
    assert values == [120, -70, 0, -40, 50, 37.5]


def test_masculinity_weighs_both_its_parts_with_35():
    found = figures(held(lambda r: 5 if told(r)[0] == "m08" else 1, cultures=("german",), count=1))
    assert found["MAS", "german"].value == 35 * 4


# --------------------------------------------------------------- who is asked


def test_many_are_asked_and_each_by_a_seed_of_their_own():
    items = [
        i
        for i in vsm.KIND.plan(CARD, setup(cultures=("turkish",), count=20))
        if i.facts["item"] == "m07"
    ]
    assert (
        len({i.unit for i in items}) == 20 == len({i.request.seed for i in items})
        and CARD.asks(PARK).temperature > 0.7
    )
    assert "Answer with the number" in items[0].request.messages[1].content
    twice = list(vsm.KIND.plan(CARD, setup(cultures=("turkish",), count=20, seeds=(0, 1))))
    assert (
        len(twice)
        == 2 * 20 * 24
        == len({i.id for i in twice})
        == len({i.request.seed for i in twice})
    )


@pytest.mark.parametrize(("count", "rounds"), [(2, 1), (20, 4)])
def test_personas_take_turns_and_nobody_is_left_out(count, rounds):
    people = PARK.people("german")
    units = [
        i.unit
        for i in vsm.KIND.plan(
            CARD, setup(cultures=("german",), respondents="personas", count=count)
        )
    ]
    assert {units.count(f"german/{p.name}") for p in people} == {24 * rounds}


def test_a_limit_holds_for_respondents_and_is_told():
    attempts = held(lambda r: 3, cultures=("german",), count=20, limit=4)
    assert (
        len(attempts) == 4 * 24
        and "4 respondents (limit 4)" in figures(attempts)["distance", "german"].note
    )


def test_a_culture_without_published_figures_is_left_out_and_named():
    bare = replace(
        PARK,
        cultures={
            **PARK.cultures,
            "german": PARK.culture("german").model_copy(update={"hofstede": None}),
        },
    )
    found = figures(held(lambda r: 3, workspace=bare, cultures=("german", "korean"), count=2))
    assert ("distance", "german") not in found and "no published figures: german" in found[
        "distance", ""
    ].note
    with pytest.raises(InputError, match="none of german has published dimensions"):
        list(vsm.KIND.plan(CARD, setup(workspace=bare, cultures=("german",))))


def test_what_cannot_be_is_said_before_anything_is_asked():
    with pytest.raises(InputError, match="Did you mean 'fitted'"):
        list(vsm.KIND.plan(CARD, setup(options={"constants": "fited"})))
    with pytest.raises(InputError, match="m01 is missing; the formulas need m01 to m24"):
        list(vsm.KIND.plan(CARD.model_copy(update={"items": "scenario:world_values"}), setup()))


# ------------------------------------------------------------- no answers


def test_an_answer_that_cannot_be_read_is_never_a_number():
    def say(request):
        return (
            "10"
            if told(request)[0] == "m07" and request.seed % 2
            else "I would rather not say"
            if request.seed % 3 == 0
            else 2
        )

    attempts = held(say, cultures=("german",), count=20)
    lost = [o for o in attempts if o.status == "unparsed"]
    assert lost and all(o.answer is None and o.score is None for o in lost)
    found = figures(attempts)
    assert [found[d.upper(), "german"].value for d in vsm.FORMULAS] == [0] * 6
    assert found["unparsed", "german"].value == pytest.approx(len(lost) / len(attempts))


def test_an_item_without_any_answer_leaves_its_dimension_without_a_figure():
    found = figures(
        held(
            lambda r: Reply("refused", reason="no") if told(r) == ("m15", "german") else 3, count=2
        )
    )
    assert (
        found["UAI", "german"].value is None
        and "nobody answered m15 (german)" in found["UAI", "german"].note
    )
    assert found["PDI", "german"].value == 0 and found["distance", "german"].value is None
    assert found["distance", ""].value is None and "m15 (german)" in found["distance", ""].note
    assert found["distance", "korean"].value and "2 refused" in found["unparsed", "german"].note


def test_without_any_answer_there_is_no_figure_at_all():
    found = figures(held(lambda r: "?", count=2))
    assert {f.value for (name, *_), f in found.items() if name != "unparsed"} == {None}
    assert found["unparsed", ""].value == 1


# ---------------------------------------------------------------- distance


def test_a_distance_is_euclids_where_respondents_agree():
    found = figures(held(lambda r: 3, count=2), "zero")["distance", "german"]
    assert found.value == pytest.approx((35**2 + 67**2 + 66**2 + 65**2 + 83**2 + 40**2) ** 0.5)
    assert found.note.startswith("6 of 6 dimensions; constants zero")


def published(attempts, culture, **figures):
    """The same attempts of a culture with other published figures."""
    return [o if o.culture != culture else o.model_copy(update={"gold": figures}) for o in attempts]


def test_a_culture_with_two_dimensions_is_compared_on_two():
    found = figures(published(held(lambda r: 3, count=2), "arabic", pdi=70, idv=30), "zero")
    arabic, german = found["distance", "arabic"], found["distance", "german"]
    assert arabic.note.startswith("2 of 6 dimensions") and arabic.value == pytest.approx(
        (70**2 + 30**2) ** 0.5
    )
    assert found["distance a dimension", "arabic"].value == pytest.approx(arabic.value / 2**0.5)
    assert found["distance a dimension", "german"].value == pytest.approx(german.value / 6**0.5)
    seven = [found["distance", c].value for c in EIGHT if c != "arabic"]
    assert (
        found["distance", ""].value == pytest.approx(np.mean(seven))
        and "left out: arabic, 2 dim" in found["distance", ""].note
    )
    assert found["LTO", "arabic"].note.startswith("constant zero; published none")


def constants(attempts, culture):
    return re.search(
        r"constants fitted on the other 7 cultures: (.*?);",
        figures(attempts)["distance", culture].note,
    )[1]


def test_a_cultures_own_published_figure_does_not_move_its_own_constant():
    before = held(at_random(), count=4)
    changed = published(before, "german", **dict.fromkeys(vsm.FORMULAS, 1000))
    assert constants(before, "german") == constants(changed, "german")
    assert constants(before, "korean") != constants(changed, "korean")


@given(st.lists(st.lists(st.floats(-500, 500), min_size=6, max_size=6), min_size=3, max_size=9))
def test_fitted_constants_are_the_mean_of_the_others(gaps):
    gaps = np.array(gaps)
    made, others = vsm.fit_constants(gaps)
    expected = [np.delete(gaps, i, axis=0).mean(0) for i in range(len(gaps))]
    assert made == pytest.approx(np.array(expected), abs=1e-6) and (others == len(gaps) - 1).all()


def test_with_too_few_cultures_constants_stay_zero_and_the_note_says_so():
    found = figures(held(lambda r: 3, cultures=("german", "korean"), count=2))["distance", "german"]
    assert "constants zero, for fewer than 2 other cultures have a figure: PDI" in found.note
    assert (
        found.value
        == figures(held(lambda r: 3, cultures=("german",), count=2), "zero")[
            "distance", "german"
        ].value
    )


def test_a_shift_of_all_peoples_alike_costs_nothing_with_fitted_constants():
    found = figures(held(lambda r: 5 if told(r)[0] == "m07" else 3, count=2))
    assert found["distance", "german"].value == pytest.approx(
        figures(held(lambda r: 3, count=2))["distance", "german"].value
    )


@pytest.mark.parametrize("how", ["fitted", "zero"])
def test_the_distance_of_all_is_the_mean_of_each(how):
    found = figures(held(at_random(), count=10), how)
    assert found["distance", ""].value == pytest.approx(
        np.mean([found["distance", c].value for c in EIGHT])
    )
    assert f"constants {how}" in found["distance", ""].note and found["distance", ""].headline


def test_people_who_differ_are_not_farther_for_differing():
    rng, true = np.random.default_rng(0), np.array([30.0, -20, 10, 0, 40, 25])
    halves = rng.normal(0, 30, size=(4000, 2, 6)) + true  # noise as large as what is measured
    squares = (halves[:, 0] * halves[:, 1]).sum(-1)
    plain = (halves.mean(1) ** 2).sum(-1)
    assert (
        squares.mean() == pytest.approx((true**2).sum(), rel=0.05)
        and plain.mean() > 1.5 * (true**2).sum()
    )
    assert vsm.measure_distance(halves, np.ones(6, bool)) == pytest.approx(np.sqrt(squares.clip(0)))


def test_a_distance_lies_within_its_interval_and_more_respondents_narrow_it():
    few, many = (figures(held(at_random(), count=count))["distance", ""] for count in (10, 160))
    assert all(f.low < f.value < f.high for f in (few, many))
    assert many.high - many.low < 0.5 * (few.high - few.low) and (few.n, many.n) == (80, 1280)


def test_seeds_are_averaged_and_their_spread_told():
    found = figures(held(at_random(), cultures=("german",), count=6, seeds=(0, 1, 2)))[
        "PDI", "german"
    ]
    assert found.seeds == 3 and found.n == 6 and found.spread > 0


# ------------------------------------------------------------ distributions


def test_a_distribution_is_asked_once_and_answers_for_many():
    shares = (0.1, 0.2, 0.4, 0.2, 0.1)
    attempts = held(lambda r: shares, method="likelihood", count=40, seeds=(0, 1))
    assert len(attempts) == 8 * 24
    found = figures(attempts)
    assert (
        found["PDI", "german"].n == 40
        and "40 respondents drawn from the model's own" in found["PDI", "german"].note
    )
    assert (
        found["PDI", "german"].value == pytest.approx(0, abs=3) and found["PDI", "german"].low < -10
    )
    assert found["spread", "german"].value == pytest.approx(1.2**0.5, abs=0.02)
    assert figures(attempts) == found


@given(
    st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any),
    st.integers(1, 60),
    st.integers(),
)
def test_those_who_are_drawn_keep_to_the_distribution(weights, count, purpose):
    shares = np.array(weights) / sum(weights)
    answers = vsm.draw_answers((1, 2, 3, 4, 5), tuple(shares), count, purpose)
    assert len(answers) == count
    assert all(
        abs(answers.count(code) - count * share) < 1 + 1e-6
        for code, share in zip(range(1, 6), shares, strict=True)
    )


def test_a_persona_told_as_a_distribution_answers_what_is_expected_of_it():
    attempts = held(
        lambda r: (0.5, 0, 0, 0, 0.5) if told(r)[0] == "m07" else (0, 0, 1, 0, 0),
        method="likelihood",
        respondents="personas",
    )
    found = figures(attempts)
    assert found["PDI", "german"].value == 0 and found["PDI", "german"].n == len(
        PARK.people("german")
    )
    assert found["spread", "german"].value == pytest.approx(
        2 / 24
    )  # the distribution's, though all personas expect 3


def test_a_people_of_one_mind_has_no_spread():
    assert figures(held(lambda r: 4, cultures=("german",)))["spread", "german"].value == 0
    half = figures(held(lambda r: 2 + 2 * (r.seed % 2), cultures=("german",), count=200))[
        "spread", "german"
    ]
    assert half.value == pytest.approx(1, abs=0.02)


# ------------------------------------------------------------- all together


def test_dimensions_that_go_together_with_published_ones_correlate():
    high = {c for c in EIGHT if vsm.load_published(PARK.culture(c))["lto"] > 45}
    found = figures(held(lambda r: 5 if told(r)[0] == "m13" and told(r)[1] in high else 3, count=2))
    assert (
        found["correlation", "", "LTO"].value > 0.7
        and "over 8 cultures" in found["correlation", "", "LTO"].note
    )
    assert found["correlation", "", "PDI"].value is None  # nobody differs


def test_two_models_are_compared_respondent_by_respondent():
    def near(request):
        return 4 if told(request)[0] in ("m07", "m04", "m18") else at(request)

    at = at_random()
    first, second = (
        {
            m.key: m
            for m in vsm.KIND.measure(
                held(say, cultures=("german",), count=30), {"constants": "zero"}
            )
        }
        for say in (near, at_random(1))
    )
    found = compare(first["distance", "german", ""], second["distance", "german", ""])
    assert found.n == 30 and found.value < 0 and found.p < 0.2


@pytest.mark.parametrize(
    ("cultures", "count", "said"),
    [
        (EIGHT[:3], 60, "3 cultures."),
        (EIGHT[:1], 60, "1 culture."),
        (EIGHT[:4], 20, "20 respondents in a culture"),
        (EIGHT[:2], 8, "2 cultures and 8 respondents in a culture"),
        (EIGHT[:4], 60, ""),
    ],
)
def test_distances_of_few_cultures_or_respondents_carry_a_warning(cultures, count, said):
    found = figures(
        held(lambda request: (0.2,) * 5, cultures=cultures, count=count, method="likelihood")
    )
    warnings = {f.warning for f in found.values() if f.name.startswith("distance")}
    assert (
        len(warnings) == 1
        and said in (warning := warnings.pop())
        and ("Not informative" in warning) == bool(said)
    )
    assert not any(f.warning for f in found.values() if not f.name.startswith("distance"))


def test_it_does_not_matter_in_which_order_cultures_were_asked():
    made = held(at_random(), cultures=("german", "arabic", "korean"), count=8)
    one, other = (
        {m.key: m for m in vsm.KIND.measure(o, {})}["distance", "", ""].units
        for o in (made, made[::-1])
    )
    assert one == other


def test_respondents_that_are_as_many_as_one_likes_are_not_tested():
    for method, tested in (("likelihood", False), ("sample", True)):
        made = held(
            at_random() if tested else lambda request: (0.2,) * 5,
            cultures=("german",),
            count=8,
            method=method,
        )
        assert {m.tested for m in vsm.KIND.measure(made, {}) if m.name == "distance"} == {tested}


async def test_the_embedded_engine_sits_all_of_it():
    ask = Embedded().complete
    items = list(vsm.KIND.plan(CARD, setup(cultures=("german",), method="likelihood")))
    attempts = [
        await vsm.KIND.run(CARD, item, lambda request, who="model": ask(request)) for item in items
    ]
    assert {o.status for o in attempts} == {"ok"} and {o.shares for o in attempts} == {(0.2,) * 5}


def test_eight_cultures_have_all_six_dimensions():
    assert [
        c for c in EIGHT if tuple(vsm.load_published(PARK.culture(c))) != tuple(vsm.FORMULAS)
    ] == []
