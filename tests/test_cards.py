"""The shipped cards: enough of everything, said with care, spread as the surveys say."""

import re

import pytest

import culturepark as cp
from culturepark import surveys
from culturepark.records import SUBTYPES
from culturepark.workspace import find_shipped_cards

PARK = cp.load(find_shipped_cards())
CULTURES = sorted(PARK.cultures)
HEDGES = re.compile(
    r"\b(many|most|some|often|usually|common|commonly|tends?|in"
    r" (many|most|some)|several|frequently|sometimes|generally|widely|"
    r"typically|customary|expected|can|may|might|rarely|seldom|few|still|for many)\b",
    re.IGNORECASE,
)


def test_the_nine_cultures_are_there():
    assert CULTURES == [
        "arabic",
        "bengali",
        "chinese",
        "english-us",
        "german",
        "korean",
        "portuguese",
        "spanish",
        "turkish",
    ]


@pytest.mark.parametrize("name", CULTURES)
def test_a_culture_card_is_full_and_careful(name):
    card = PARK.culture(name)
    assert (
        len(card.norms) >= 15
        and {n.kind for n in card.norms} == set(SUBTYPES)
        and card.sensitivities
        and card.languages
    )
    assert [
        n.text for n in card.norms if not HEDGES.search(n.text) or not n.text.endswith(".")
    ] == []
    assert all(n.source for n in card.norms) and surveys.hofstede(card.hofstede).pdi is not None


@pytest.mark.parametrize("name", CULTURES)
def test_a_culture_has_people_who_differ(name):
    people = PARK.people(name)
    assert len(people) >= 4 and {"woman", "man"} <= {p.gender for p in people}
    assert max(p.age for p in people) - min(p.age for p in people) > 30
    for field in ("home", "work", "household", "voice"):
        assert len({getattr(p, field) for p in people}) == len(people)


@pytest.mark.parametrize("name", CULTURES)
def test_views_agree_with_the_shares_and_are_not_all_the_majoritys(name):
    figures, card, people = surveys.load_shipped(), PARK.culture(name), PARK.people(name)
    distances, unanimous = [], 0
    for question in PARK.scenario("world_values").questions:
        shares = figures.pool(card.survey, question.id)
        held = [p.views[question.id] for p in people if question.id in p.views]
        if shares is None:
            assert held == []
            continue
        distances.append(
            sum(
                abs(held.count(o.code) / len(people) - shares.shares.get(o.code, 0))
                for o in question.options
            )
            / 2
        )
        unanimous += set(held) == {shares.modal}
    # Total variation: five people can't do better than about 0.1 on a ten-point scale.
    assert sum(distances) / len(distances) < 0.2 and unanimous <= 2


def test_every_persona_has_a_name_of_their_own():
    names = [p.given_name for p in PARK.personas.values()]
    assert len(names) == len(set(names))


def test_the_pack_has_fifty_questions_with_their_full_scales():
    pack = PARK.scenario("world_values")
    lengths = {q.id: len(q.options) for q in pack.questions}
    assert (
        len(lengths) == 50 and lengths["Q31"] == 4 and lengths["Q33"] == 5 and lengths["Q122"] == 3
    )
    assert all(
        [o.code for o in q.options] == list(range(1, 11))
        for q in pack.questions
        if q.topic == "science"
    )
    assert all(
        len(q.claim) >= 2 and len(q.denial) >= 2 and len(q.pros) >= 4 and len(q.cons) >= 4
        for q in pack.questions
    )


def test_an_item_never_asked_in_a_country_yields_no_seed_there():
    from culturepark.dialogue.casting import seeds

    assert (
        len(seeds(PARK, cp.Settings(), "chinese")) == 32
        and len(seeds(PARK, cp.Settings(), "german")) == 50
    )
    assert all(shares is not None for _, shares in seeds(PARK, cp.Settings(), "chinese"))
