"""Tests of survey alignment: the distance, shorter scales, who is asked what, and files of
countries' opinions.
"""

import asyncio
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from culturepark import surveys, workspace
from culturepark.errors import InputError, NotFound
from culturepark.evaluation import alignment, card
from culturepark.evaluation.kinds import opinions, survey
from culturepark.evaluation.measure import estimate
from culturepark.evaluation.types import Attempt, Setup
from culturepark.records import Reply, stream
from tests.conftest import DATA

OPINIONS = DATA / "survey" / "global_opinions" / "distributions.json"
real = pytest.mark.skipif(
    not OPINIONS.is_file(), reason=f"no opinion files in {DATA}; set CULTUREPARK_DATA"
)
CULTURES = ("arabic", "german", "korean", "spanish")


@pytest.fixture(scope="module")
def cards():
    return workspace.load(workspace.find_shipped_cards())


def held(kind, name, setup, reply):
    """Plan, ask `reply(item)` (shares or text), and read; attempts have been to disk and back."""

    async def run():
        benchmark, made = card.load(name), []
        for item in kind.KIND.plan(benchmark, setup):

            async def ask(request, who="model", item=item):
                said = reply(item)
                return (
                    said
                    if isinstance(said, Reply)
                    else (
                        Reply("ok", said)
                        if isinstance(said, str)
                        else Reply("ok", option_probs=tuple(said))
                    )
                )

            made.append(
                Attempt.model_validate_json(
                    (await kind.KIND.run(benchmark, item, ask)).model_dump_json()
                )
            )
        return made

    return asyncio.run(run())


def told(kind, attempts):
    """All figures, by name, culture and subset; intervals are another room's business."""
    return {m.key: estimate(m) for m in kind.KIND.measure(attempts, {})}


def even(item):
    return [1 / len(item.facts["codes"])] * len(item.facts["codes"])


def own(item):
    """Answer as the people would; unasked, every option alike."""
    return item.gold or even(item)


def drawn(item):
    """Answer with one option, drawn as the people would."""
    return str(stream(item.id).choices(item.facts["codes"], item.gold or even(item))[0])


def random_shares(item):
    return (
        np.random.default_rng(int(stream(item.id).random() * 1e9))
        .dirichlet([1.0] * len(item.facts["codes"]))
        .tolist()
    )


# ------------------------------------------------------------ distributions

weights = st.lists(st.floats(0, 1), min_size=2, max_size=10).filter(lambda w: sum(w) > 0.01)


@given(weights, st.randoms())
def test_agreement_is_one_minus_scipys_distance(some, rng):
    other = rng.sample(some, len(some))
    p, q = (np.array(w) / sum(w) for w in (some, other))
    found = alignment.agreement(p.tolist(), q.tolist(), tuple(range(len(some))))
    assert found == pytest.approx(1 - jensenshannon(p, q, base=2), abs=1e-6)


@given(weights)
def test_folding_loses_nothing(some):
    places = tuple(range(len(some)))[1:-1] or (0,)
    assert sum(alignment.fold(some, places)) == pytest.approx(sum(some))


def test_shorter_scales_are_those_without_both_ends(cards):
    figures = surveys.load_shipped()
    short = Counter()
    for question in cards.scenario("world_values").questions:
        for country in figures.countries():
            if shares := figures.get(country, question.id):
                row = survey.list_shares(question, shares)
                short[country] += alignment.find_offered_options(row, shares.n) != tuple(
                    range(len(row))
                )
    assert {c: n for c, n in short.items() if n} == {"ARG": 9, "BRA": 9, "USA": 3}


def test_one_empty_end_or_few_people_are_no_shorter_scale():
    assert alignment.find_offered_options([0.7, 0.2, 0.1, 0, 0], 1200) == (0, 1, 2, 3, 4)
    assert alignment.find_offered_options([0, 0.2, 0.5, 0.3, 0], 399) == (0, 1, 2, 3, 4)


def test_variance_is_of_the_place_on_the_scale_or_of_unordered_answers():
    assert alignment.variance([0.5, 0, 0.5], ordered=True) == pytest.approx(np.var([0, 1]))
    assert (
        alignment.variance([0.5, 0, 0.5], ordered=False)
        == alignment.variance([0.5, 0.5, 0], ordered=False)
        == 0.5
    )


# ------------------------------------------------------------------- survey


def test_who_answers_as_the_people_agrees_wholly_and_with_nobody_else_as_much(cards):
    found = told(survey, held(survey, "survey", Setup(cards, CULTURES, method="likelihood"), own))
    assert found["alignment", "", ""].value == pytest.approx(1) and found[
        "variance", "korean", ""
    ].value == pytest.approx(1)
    assert all(
        found["margin", c, ""].value > 0.05 and found["others", c, ""].value < 1 for c in CULTURES
    )
    # Unasked, its answer is even: so steering is worth what uniform lacks.
    assert found["steerability", "", ""].value == pytest.approx(1 - found["uniform", "", ""].value)


def test_alignment_is_what_scipy_makes_of_the_shares(cards):
    attempts = held(survey, "survey", Setup(cards, CULTURES, method="likelihood"), random_shares)
    figures, far = surveys.load_shipped(), []
    for o in attempts:
        if o.culture:
            people = figures.pool(cards.culture(o.culture).survey, o.unit).shares
            p, q = np.array(o.shares), np.array([people.get(code, 0) for code in o.facts["codes"]])
            if o.culture == "spanish" and o.unit in {
                f"Q{n}" for n in range(33, 42)
            }:  # asked there on three points
                p, q = np.array([p[0] + p[1], p[2], p[3] + p[4]]), q[1:4]
            far.append(jensenshannon(p, q, base=2))
    found = told(survey, attempts)["alignment", "", ""]
    assert found.value == pytest.approx(1 - np.mean(far), abs=1e-6) and found.n == 50
    assert "9 of spanish" in found.note


def test_margin_and_elsewhere_compare_on_scales_that_both_peoples_had(cards):
    setup = Setup(cards, ("german", "spanish"), method="likelihood")
    attempts = [o for o in held(survey, "survey", setup, even) if o.unit == "Q33"]
    found, three = told(survey, attempts), [0.4, 0.2, 0.4]
    people = {
        c: survey.list_shares(
            cards.question("world_values", "Q33"), surveys.load_shipped().get(c, "Q33")
        )
        for c in ("DEU", "ARG")
    }
    near = {
        c: 1 - jensenshannon(three, [p[0] + p[1], p[2], p[3] + p[4]], base=2)
        for c, p in people.items()
    }
    assert found["margin", "german", ""].value == pytest.approx(near["DEU"] - near["ARG"], abs=1e-6)
    assert ("elsewhere", "german", "") not in found and ("elsewhere", "spanish", "") in found


def test_samples_are_counted_and_told_with_what_the_people_themselves_would_reach(cards):
    attempts = held(survey, "survey", Setup(cards, ("korean",), count=20, limit=12), drawn)
    found = told(survey, attempts)
    assert len(attempts) == 12 * 20 * 2
    assert found["alignment", "", ""].value == pytest.approx(
        found["ceiling", "", ""].value, abs=0.04
    )
    assert found["variance", "", ""].value == pytest.approx(1, abs=0.25)
    assert (
        "20 sampled answers" in found["alignment", "", ""].note
        and "drawn from 50" in found["alignment", "", ""].note
    )


def test_a_question_most_of_whose_answers_cannot_be_read_has_no_figure(cards):
    def mute(item):
        bad = item.unit == "Q27" and int(item.id.split("/")[3]) < 11
        return "I would rather not say." if bad else drawn(item)

    found = told(survey, held(survey, "survey", Setup(cards, ("korean",), count=20), mute))
    assert found["alignment", "", ""].n == 49 and found[
        "unparsed", "korean", ""
    ].value == pytest.approx(11 / 20 / 50)
    assert "could be read: 1 of 50" in found["alignment", "", ""].note


def test_what_fails_is_no_answer(cards):
    found = told(
        survey,
        held(
            survey,
            "survey",
            Setup(cards, ("korean",), count=2, limit=3),
            lambda item: Reply("failed", reason="down"),
        ),
    )
    assert not any(name == "alignment" for name, _, _ in found)
    assert found["unparsed", "", ""].value == 1 and "failed" in found["unparsed", "", ""].note


def test_held_out_questions_are_told_apart(cards):
    splits = {
        q.id: "test" if q.topic == "religion" else "train"
        for q in cards.scenario("world_values").questions
    }
    setup = Setup(cards, CULTURES, method="likelihood", held=splits)
    found = told(survey, held(survey, "survey", setup, random_shares))
    assert (found["alignment", "", "held-out"].n, found["alignment", "", "training split"].n) == (
        2,
        48,
    )
    assert {k[2] for k, f in found.items() if f.headline and not k[1]} == {
        "held-out"
    }  # the others are no claim
    assert (
        found["alignment", "", "topic:religion"].value == found["alignment", "", "held-out"].value
    )


def test_a_limit_asks_all_peoples_the_same_questions(cards):
    items = list(
        survey.plan(
            card.load("survey"), Setup(cards, ("german", "korean"), method="likelihood", limit=5)
        )
    )
    by = {c: {i.unit for i in items if i.culture == c} for c in ("german", "korean", "")}
    assert len(by["german"]) == 5 and by["german"] == by["korean"] == by[""]
    assert len({i.id for i in items}) == len(items) == 15


def test_people_are_asked_by_name_and_nobody_by_none(cards):
    items = list(survey.plan(card.load("survey"), Setup(cards, ("german",), count=1, limit=1)))
    named, bare = (i.request for i in items)
    assert (
        "German culture" in named.messages[0].content
        and "number of your option" in named.messages[1].content
    )
    assert (
        bare.messages[0].content == "Answer the question." and bare.messages[1] == named.messages[1]
    )
    assert named.facts["view"] is None and named.facts["options"] == items[0].facts["codes"]


def test_personas_answer_in_turns_and_as_one_people(cards):
    setup = Setup(cards, ("german",), method="likelihood", respondents="personas", limit=1)
    attempts = held(
        survey,
        "survey",
        setup,
        lambda i: [1.0] + [0.0] * (len(i.facts["codes"]) - 1) if "/aylin/" in i.id else even(i),
    )
    cell = next(c for c in alignment.build_cells(attempts) if c.culture)
    assert cell.shares[0] == pytest.approx((1 + 4 / len(cell.shares)) / 5)
    items = list(survey.plan(card.load("survey"), replace(setup, method="sample", count=7)))
    assert sum(i.culture == "german" for i in items) == 7


def test_seeds_are_asked_apart_when_sampled_and_once_for_likelihoods(cards):
    setup = Setup(cards, ("german",), count=2, limit=1, seeds=(0, 1, 2))
    items = list(survey.plan(card.load("survey"), setup))
    assert len({i.request.seed for i in items}) == len(items) == 2 * 3 * 2
    assert {
        i.seed for i in survey.plan(card.load("survey"), replace(setup, method="likelihood"))
    } == {0}


def test_a_culture_without_figures_is_refused(park):
    setup = Setup(workspace.load(park), ("north",), options={"scenario": "tea"})
    with pytest.raises(InputError, match="culture 'north' is surveyed through no country"):
        list(survey.plan(card.load("survey"), setup))


def test_a_release_of_ones_own_takes_the_place_of_the_shipped_figures(cards, tmp_path):
    (tmp_path / "own.csv").write_text(
        "B_COUNTRY,B_COUNTRY_ALPHA,Q27\n276,DEU,1\n276,DEU,1\n276,DEU,4\n276,DEU,-1\n"
    )
    setup = Setup(
        cards, ("german",), method="likelihood", options={"survey": str(tmp_path / "own.csv")}
    )
    item = next(survey.plan(card.load("survey"), setup))
    assert item.gold == pytest.approx([2 / 3, 0, 0, 1 / 3]) and item.facts["n"] == 3


# ----------------------------------------------------------------- opinions

QUESTION = "Is tea good for (survey country)?"
ROWS = [
    {
        "country": "S. Korea",
        "question": QUESTION,
        "options": ["Yes", "No", "Both (VOL)", "DK/Refused"],
        "distribution": [0.5, 0.2, 0.1, 0.2],
    },
    {
        "country": "United States",
        "question": QUESTION,
        "options": ["Yes", "No", "Both (VOL)", "DK/Refused"],
        "distribution": [0.1, 0.8, 0.09, 0.0],
    },
    {
        "country": "China (Non-national sample)",
        "question": QUESTION,
        "options": ["Yes", "No"],
        "distribution": [0.5, 0.5],
    },
    {
        "country": "United States",
        "question": "Do you trust President Aba Baba?",
        "options": ["Yes", "No"],
        "distribution": [0.0, 0.0],
    },
    {
        "country": "United States",
        "question": "How do you like President Aba Baba?",
        "options": ["Bad", "2.0", 3.0, "Good"],
        "distribution": [0.1, 0.2, 0.3, 0.4],
    },
]


@pytest.fixture
def polls(tmp_path):
    def write(rows=ROWS, name="polls.json"):
        path = tmp_path / name
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return path

    return write


def test_faults_of_opinion_files_are_mended_or_left_out_and_counted(polls):
    found = opinions.read_polls([polls()])
    assert found.faults == {
        "another name of a country": 1,
        "non-national sample, left out": 1,
        "options that are no answers, dropped": 2,
        "shares do not sum to 1, left out": 1,
        "shares sum to nearly 1, made to": 1,
    }
    korea, usa = (found.of(c) for c in ("South Korea", "United States"))
    first = next(iter(korea.values()))
    assert first.shares == pytest.approx((0.625, 0.25, 0.125)) and first.valid == pytest.approx(0.8)
    assert len(usa) == 2 and [str(o) for o in list(usa.values())[1].question.options] == [
        "1. Bad",
        "2",
        "3",
        "4. Good",
    ]


def test_the_hubs_shape_says_the_same(polls):
    row = {
        "question": QUESTION,
        "options": str(ROWS[0]["options"]),
        "selections": (
            f"defaultdict(<class 'list'>, {{'S. Korea': {ROWS[0]['distribution']}, 'Japan':"
            f" {ROWS[1]['distribution']}}})"
        ),
    }
    lines = opinions.read_polls([polls(json.dumps(row) + "\n", "polls.jsonl")])
    assert (
        lines.of("South Korea") == opinions.read_polls([polls()]).of("South Korea")
        and len(lines.rows) == 2
    )
    cells = ",".join(
        '"' + row[k].replace('"', '""') + '"' for k in ("question", "selections", "options")
    )
    assert (
        opinions.read_polls([polls(f"question,selections,options\n{cells}\n", "polls.csv")])
        == lines
    )


@pytest.mark.parametrize(
    "rows, says",
    [
        ("[{}]", "row 1: no row of"),
        ("{", "not JSON"),
        ('[{"question": "Q", "options": "__import__(\'os\')", "distribution": []}]', "row 1"),
        ([{**ROWS[0], "distribution": [0.5, 0.5]}], "4 options need as many shares"),
        ([ROWS[3]], "no usable row"),
    ],
)
def test_what_is_no_such_file_is_refused(polls, rows, says):
    with pytest.raises(InputError, match=says):
        opinions.read_polls([polls(rows)])


def test_countries_are_asked_by_name_and_their_questions_name_them(cards, polls):
    setup = Setup(cards, ("korean", "english-us"), method="likelihood", data=(polls(),))
    items = list(opinions.plan(card.load("opinions"), setup))
    asked = next(i for i in items if i.culture == "United States" and not i.subset)
    assert "a person from the United States" in asked.request.messages[0].content
    assert "good for the United States?" in asked.request.messages[1].content
    assert asked.request.options == ("Yes", "No", "Both") and asked.gold == pytest.approx(
        [0.1 / 0.99, 0.8 / 0.99, 0.09 / 0.99]
    )
    assert [i.subset for i in items if "President" in i.request.messages[1].content] == [
        "names a person"
    ] * 2


def test_a_country_that_no_file_has_names_the_nearest(cards, polls):
    setup = Setup(cards, (), data=(polls(),), options={"countries": ["South Corea"]})
    with pytest.raises(NotFound, match="South Korea"):
        list(opinions.plan(card.load("opinions"), setup))
    with pytest.raises(InputError, match="needs a file"):
        list(opinions.plan(card.load("opinions"), replace(setup, data=())))


@pytest.mark.conformance
@real
def test_the_published_file_is_read_whole():
    found, raw = opinions.read_polls([OPINIONS]), json.loads(OPINIONS.read_text())
    assert len(found.rows) == 4278 and len({p.country for p in found.rows}) == 104
    assert found.faults == {
        "a total among the options, dropped": 14,
        "another name of a country": 412,
        "non-national sample, left out": 334,
        "options repeat, left out": 12,
        "options that are no answers, dropped": 2847,
        "shares do not sum to 1, left out": 9,
        "shares sum to nearly 1, made to": 680,
    }
    assert len(found.rows) + 334 + 12 + 9 == len(raw)
    assert (
        sum("Non-national" in r["country"] for r in raw) == 334
        and sum(abs(sum(r["distribution"]) - 1) > 0.1 for r in raw) == 9
    )
    assert (
        len(found.of("South Korea"))
        == sum(r["country"] in ("S. Korea", "South Korea") for r in raw)
        == 93
    )


@pytest.mark.conformance
@real
def test_who_knows_the_countries_of_the_published_file_is_nearer_to_the_own_one(cards):
    setup = Setup(
        cards,
        ("german", "korean", "english-us", "turkish"),
        method="likelihood",
        data=(OPINIONS,),
        limit=40,
    )
    found = told(opinions, held(opinions, "opinions", setup, own))
    assert (
        found["alignment", "Germany", ""].value == pytest.approx(1)
        and found["margin", "South Korea", ""].value > 0.05
    )
    assert "non-national sample, left out: 334" in found["alignment", "", ""].note


def test_a_model_that_answers_as_people_do_aligns_alike_in_either_order_of_the_options(cards):
    def as_people(item):
        return item.gold or [1 / len(item.facts["codes"])] * len(item.facts["codes"])

    plain, both = (
        held(
            survey,
            "survey",
            Setup(
                cards,
                ("german", "korean"),
                method="likelihood",
                limit=4,
                orders=orders,
                options=survey.KIND.options,
            ),
            as_people,
        )
        for orders in ((0,), (0, 1))
    )
    assert {a.seed for a in both} == {0, 100} and len(both) == 2 * len(plain)
    reversed_ = {a.item.removesuffix("/100"): a for a in both if a.seed}
    for a in plain:
        twin = reversed_[a.item.removesuffix("/0")]
        assert [*reversed(twin.facts["codes"])] == a.facts["codes"]
        assert [*reversed(twin.gold or ())] == [*(a.gold or ())]
    one = {m.key: estimate(m) for m in survey.measure(both, {})}["alignment", "", ""]
    assert one.value == pytest.approx(1) and one.seeds == 2
