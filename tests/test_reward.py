"""Reward models as a benchmark: accuracies and calibration against independent reckonings, and
rewards against training's own.
"""

import asyncio
import json
import math
import random
from dataclasses import replace

import pytest
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark import llm
from culturepark.errors import InputError, NotFound
from culturepark.evaluation import card, steered
from culturepark.evaluation.kinds import reward
from culturepark.evaluation.measure import estimate
from culturepark.evaluation.types import Attempt, Setup
from culturepark.records import Message, Reply, Request
from culturepark.surveys import simulated, votes
from culturepark.workspace import load

CREHATE = DATA / "preference" / "crehate_five_countries.csv"
BENCHMARK = card.load("reward")
WORKSPACE = load(None)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return simulated.write_conversations(
        tmp_path_factory.mktemp("votes") / "votes.jsonl", users=8, talks=2
    )


def setup(path, method="likelihood", **how):
    return Setup(WORKSPACE, how.pop("cultures", ()), method=method, data=(path,), **how)


def hold(items, answer):
    """Put items to a model that answers by rule: request and item in, reply out."""

    async def one(item):
        async def ask(request, who="model"):
            return answer(request, item)

        return await reward.run(BENCHMARK, item, ask)

    async def all_of_them():
        return [await one(item) for item in items]

    return asyncio.run(all_of_them())


def prefers(p):
    """Return a rule that gives the chosen answer the probability `p(item)`."""

    def answer(request, item):
        told = p(item)
        return Reply(
            "ok", option_probs=(told, 1 - told) if item.facts["chosen"] == 0 else (1 - told, told)
        )

    return answer


def figures(attempts):
    return {m.key: estimate(m) for m in reward.measure(attempts, {})}


def attempt(n, p, user="", country="N", gold="majority", seed=0, chosen=0):
    shares = (p, 1 - p) if chosen == 0 else (1 - p, p)
    return Attempt(
        item=f"{country}/{n}/{seed}",
        culture=country,
        unit=user or f"u{n}",
        seed=seed,
        status="ok",
        shares=shares,
        answer=1 + (p > 0.5),
        score=float(p > 0.5),
        gold=gold,
        facts={"chosen": chosen},
    )


# -------------------------------------------------------------------- items


def test_items_are_all_pairs_with_countries_users_and_what_the_data_say_of_minorities(path):
    items = {i.id: i for i in reward.plan(BENCHMARK, setup(path))}
    pairs = votes.read_votes(path).pairs
    assert len(items) == len(pairs)
    for p in pairs:
        item = items[f"{p.country}/{p.id}/0"]
        assert (item.culture, item.unit, item.gold) == (
            p.country,
            p.user,
            "minority" if p.minority else "majority",
        )
        assert (
            item.request.messages == p.history
            and item.request.options[item.facts["chosen"]] == p.chosen
        )


def test_held_asks_the_users_that_scpo_holds_out(path):
    items = reward.plan(BENCHMARK, setup(path, options={"held_out": 0.15, "seed": 3}))
    assert {i.unit for i in items} == {
        p.user for p in votes.split_by_user(votes.read_votes(path).pairs, 0.15, 3)[1]
    }


def test_which_answer_comes_first_is_drawn_by_pair_and_seed(path):
    items = list(reward.plan(BENCHMARK, setup(path, "sample", seeds=(0, 1))))
    assert 0.4 < sum(i.facts["chosen"] == 0 for i in items) / len(items) < 0.6
    assert (
        len({i.id for i in items})
        == len(items)
        == 2 * len(list(reward.plan(BENCHMARK, setup(path, seeds=(0, 1)))))
    )
    places = [[i.facts["chosen"] for i in items if i.seed == seed] for seed in (0, 1)]
    assert places[0] != places[1] and items == list(
        reward.plan(BENCHMARK, setup(path, "sample", seeds=(0, 1)))
    )


def test_countries_and_limits_are_kept_to_and_a_wrong_name_has_its_nearest(path):
    few = list(reward.plan(BENCHMARK, setup(path, cultures=("ostland", "Norland"), limit=2)))
    assert {i.culture for i in few} == {"Ostland", "Norland"} and len({i.unit for i in few}) == 4
    assert (
        "at most 2 users a country"
        in figures(hold(few, prefers(lambda i: 0.7)))["accuracy", "", ""].note
    )
    with pytest.raises(NotFound, match="Did you mean 'Norland'"):
        list(reward.plan(BENCHMARK, setup(path, cultures=("Nordland",))))
    everybody = reward.plan(BENCHMARK, setup(path))
    one = reward.plan(BENCHMARK, setup(path, options={"countries": "Westland"}))
    assert {i.culture for i in everybody} == set(simulated.COUNTRIES) and {
        i.culture for i in one
    } == {"Westland"}


def test_no_data_and_an_impossible_share_say_what_is_needed(path):
    with pytest.raises(InputError, match="one file of people's preferences, not 0"):
        list(reward.plan(BENCHMARK, replace(setup(path), data=())))
    with pytest.raises(InputError, match="held_out: a share of the users"):
        list(reward.plan(BENCHMARK, setup(path, options={"held_out": 1.5})))


# ------------------------------------------------------------------ holding


def test_a_judge_is_shown_both_answers_and_its_number_is_read_strictly(path):
    items = list(reward.plan(BENCHMARK, setup(path, "sample", limit=1)))
    asked = items[0].request.messages[1].content
    assert not items[0].request.options and items[0].culture in items[0].request.messages[0].content
    assert asked.index("Answer 1:") < asked.index("Answer 2:") < asked.index("Write its number")
    right = hold(items, lambda r, i: Reply("ok", f"Answer {i.facts['chosen'] + 1}."))
    assert {o.score for o in right} == {1.0} and not any(o.shares for o in right)
    odd = iter(["1 or 2", "3", "Both are fine."] * len(items))
    assert {(o.status, o.score) for o in hold(items, lambda r, i: Reply("ok", next(odd)))} == {
        ("unparsed", None)
    }


def test_a_judge_can_be_asked_for_probabilities_of_its_numbers(path):
    item = next(iter(reward.plan(BENCHMARK, setup(path, options={"judge": True}))))
    assert item.request.options == ("1", "2") and "Answer 2:" in item.request.messages[1].content


@pytest.mark.parametrize("shares", [(), (0.4, 0.3, 0.3), (math.nan, 0.5), (0.9, 0.9)])
def test_what_is_no_distribution_over_two_answers_is_never_a_score(path, shares):
    made = hold(
        reward.plan(BENCHMARK, setup(path, limit=1)),
        lambda r, i: Reply("ok", "x", option_probs=shares),
    )
    assert {(o.status, o.score, o.answer) for o in made} == {("unparsed", None, None)} and made[
        0
    ].reason
    assert figures(made)["accuracy", "", ""].value is None


def test_failures_stay_failures_and_equal_probabilities_are_wrong(path):
    items = list(reward.plan(BENCHMARK, setup(path, limit=1)))
    assert {o.status for o in hold(items, lambda r, i: Reply("failed", reason="gone"))} == {
        "failed"
    }
    equal = hold(items, prefers(lambda i: 0.5))
    assert {(o.score, o.answer) for o in equal} == {(0.0, None)}
    assert (
        f"{len(items)} found both answers equally good" in figures(equal)["accuracy", "", ""].note
    )


# ------------------------------------------------------------------ figures


def test_accuracy_minority_and_countries_are_as_worked_out_by_hand():
    held = [
        attempt(0, 0.9),
        attempt(1, 0.2, gold="minority"),
        attempt(2, 0.8, gold="minority"),
        attempt(3, 0.4),
        attempt(4, 0.7, country="O"),
        attempt(5, 0.6, country="O", gold="unknown"),
        attempt(6, 0.1, country="O", gold="minority"),
    ]
    found = figures(held)
    assert found["accuracy", "N", ""].value == 2 / 4 and found[
        "accuracy", "O", ""
    ].value == pytest.approx(2 / 3)
    assert (
        found["accuracy", "", ""].value == pytest.approx((2 / 4 + 2 / 3) / 2)
        and found["accuracy", "", ""].headline
    )
    assert found["accuracy", "", "minority"].value == pytest.approx((1 / 2 + 0) / 2)
    assert found["accuracy", "", "shared"].value == pytest.approx(
        (1 / 2 + 1) / 2
    )  # what is unknown is in neither
    assert (
        "mean over 2 countries" in found["accuracy", "", ""].note
        and found["accuracy", "O", "shared"].n == 1
    )


def test_the_minoritys_accuracy_is_not_nought_by_construction():
    """A model that is wrong on half of all pairs, whoever is in a minority, has half of the
    minority's right.
    """
    held = [
        attempt(n, 0.9 if n % 2 else 0.1, gold="minority" if n % 10 < 2 else "majority")
        for n in range(200)
    ]
    found = figures(held)
    assert found["accuracy", "", "minority"].value == found["accuracy", "", "shared"].value == 0.5


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_calibration_agrees_with_an_independent_reckoning(rows):
    import numpy as np

    found = figures([attempt(n, p, chosen=c) for n, (p, c) in enumerate(rows)])
    chosen = np.array([p for p, _ in rows])
    p, y = np.concatenate([chosen, 1 - chosen]), np.repeat([1.0, 0.0], len(rows))
    place = np.digitize(p, np.arange(1, 10) / 10)
    parts = [
        (place == b).mean() * abs(p[place == b].mean() - y[place == b].mean())
        for b in set(place.tolist())
    ]
    assert found["calibration error", "", ""].value == pytest.approx(sum(parts), abs=1e-9)
    assert found["Brier score", "", ""].value == pytest.approx(((p - y) ** 2).mean(), abs=1e-9)
    assert found["log loss", "", ""].value == pytest.approx(
        -np.log(np.maximum(chosen, reward.LEAST)).mean(), abs=1e-9
    )


def test_calibration_is_that_of_confidence_against_accuracy():
    """Guo et al. 2017, §2, over the upper five bins, for probabilities that are no ties and on no
    edge.
    """
    rng = random.Random(0)
    rows = [rng.uniform(0.01, 0.99) for _ in range(500)]
    bins = {}
    for p in rows:
        bins.setdefault(int(10 * max(p, 1 - p)), []).append((max(p, 1 - p), p > 0.5))
    theirs = sum(abs(sum(c for c, _ in b) - sum(r for _, r in b)) for b in bins.values()) / len(
        rows
    )
    assert figures([attempt(n, p) for n, p in enumerate(rows)])[
        "calibration error", "", ""
    ].value == pytest.approx(theirs)


def test_a_model_that_means_its_probabilities_is_calibrated_and_one_that_boasts_is_not():
    rng = random.Random(1)
    sure = [rng.uniform(0.5, 1) for _ in range(4_000)]
    honest = [s if rng.random() < s else 1 - s for s in sure]
    boasts = [0.999 if p > 0.5 else 0.001 for p in honest]
    good, bad = (
        figures([attempt(n, p) for n, p in enumerate(ps)])["calibration error", "", ""]
        for ps in (honest, boasts)
    )
    assert good.value < 0.03 < 0.2 < bad.value and "Confidence → share right" in good.note


def test_a_coin_has_half_with_an_interval_that_holds_it_nineteen_times_in_twenty(path):
    coin = random.Random(0)
    found = figures(hold(reward.plan(BENCHMARK, setup(path)), prefers(lambda i: coin.random())))[
        "accuracy", "", ""
    ]
    assert found.low <= 0.5 <= found.high and (found.n, found.seeds) == (32, 1)
    tossed = [
        figures([attempt(f"{u}-{i}", coin.random(), f"u{u}") for u in range(40) for i in range(4)])
        for _ in range(60)
    ]
    assert sum(f["accuracy", "", ""].low <= 0.5 <= f["accuracy", "", ""].high for f in tossed) >= 54


@given(st.lists(st.floats(0.001, 0.999), min_size=2, max_size=40))
def test_swapping_the_answers_changes_no_figure(rows):
    one, other = (figures([attempt(n, p, chosen=c) for n, p in enumerate(rows)]) for c in (0, 1))
    assert {k: f.value for k, f in one.items()} == {
        k: pytest.approx(f.value) for k, f in other.items()
    }


def test_more_pairs_of_the_same_users_do_not_narrow_intervals():
    rng = random.Random(0)
    right = {f"u{n}": rng.choice((0.9, 0.1)) for n in range(30)}
    one, ten = (
        figures([attempt(f"{u}-{i}", p, u) for u, p in right.items() for i in range(times)])
        for times in (1, 10)
    )
    for name in ("accuracy", "calibration error", "Brier score"):
        assert (one[name, "", ""].low, one[name, "", ""].high) == pytest.approx(
            (ten[name, "", ""].low, ten[name, "", ""].high)
        )
    assert (
        ten["accuracy", "", ""].n == 30
        and one["accuracy", "", ""].high - one["accuracy", "", ""].low > 0.25
    )


def test_what_was_seen_in_several_seeds_tells_its_spread():
    held = [
        attempt(n, 0.9 if n % 4 < 2 + seed else 0.1, seed=seed)
        for n in range(40)
        for seed in (0, 1)
    ]
    found = figures(held)["accuracy", "", ""]
    assert (found.value, found.seeds, found.n) == (0.625, 2, 40) and found.spread == pytest.approx(
        0.25 / math.sqrt(2)
    )


# ------------------------------------------------------------- reward models


@pytest.fixture(scope="module")
def kept(tmp_path_factory, path):
    """A model that SCPO trained for Norland and kept: its folder, how it was judged there, and an
    untrained base.
    """
    pytest.importorskip("trl")
    from culturepark.local_models.libraries import quiet
    from culturepark.local_models.sketch import sketch_base
    from culturepark.training import scpo

    folder, data = tmp_path_factory.mktemp("reward"), votes.read_votes(path)
    texts = [t for p in data.pairs for t in (p.chosen, p.rejected, *(m.content for m in p.history))]
    with quiet():
        base = sketch_base(folder / "base", texts, width=16, vocabulary=400, dropout=0.5)
    told = scpo.build_terms(
        base=str(base),
        batch=8,
        steps=2,
        global_epochs=0.2,
        lr=3e-3,
        length=48,
        held=0.5,
        device="cpu",
    )
    made = scpo.run(
        data, folder / "run", told, countries=("Norland",), variants=("full",), keep="full"
    )
    return folder / "run" / "norland", made[0], base


async def test_a_kept_model_is_judged_as_scpo_judged_it_and_what_waits_is_scored_together(
    kept, path
):
    folder, own, _ = kept
    model = llm.load(str(folder))
    items = list(reward.plan(BENCHMARK, setup(path, options={"held_out": 0.5})))
    held = await asyncio.gather(
        *(reward.run(BENCHMARK, i, lambda r, who="model": model.complete(r)) for i in items)
    )
    assert {o.item.split("/")[1] for o in held} == set(own.margins) and model.answered == len(
        items
    ) > 32 > 3 > model.batches
    for o in held:
        told = o.shares[o.facts["chosen"]]
        assert math.log(told) - math.log(1 - told) == pytest.approx(
            own.margins[o.item.split("/")[1]], abs=1e-6
        )
    cells = {c.what: c for c in steered.measure_steering([own], votes.read_votes(path))}
    ours = figures(held)
    for what, subset in {"overall": "", "minority": "minority", "shared": "shared"}.items():
        assert ours["accuracy", "Norland", subset].value == pytest.approx(cells[what].accuracy)


async def test_what_of_a_conversation_is_not_read_is_said(kept, path):
    item = next(reward.plan(BENCHMARK, setup(path)))
    model = llm.load(str(kept[0]))
    short = await model.complete(
        replace(item.request, messages=(Message("user", "Tea?"),), options=("Yes.", "No."))
    )
    long = await model.complete(
        replace(item.request, messages=(Message("user", "Tea? " * 60),), options=("Yes.", "No."))
    )
    assert (
        (short.reason, short.status) == ("", "ok")
        and "48 tokens are read" in long.reason
        and long.status == "ok"
    )


async def test_a_reward_model_refuses_what_it_cannot_judge_and_has_one_name_for_one_set_of_weights(
    kept,
):
    from culturepark.llm.providers.reward import RewardProvider

    folder, _, base = kept
    model, other = RewardProvider(str(folder)), llm.load(str(folder.parent / "global-0"))
    assert (
        isinstance(model, llm.Model)
        and model.identity == llm.load(str(folder)).identity != other.identity
    )
    bare = await model.complete(Request("reward", (Message("user", "Tea?"),)))
    assert bare.status == "failed" and "several options" in bare.reason
    with pytest.raises(InputError, match="is no reward model"):
        RewardProvider(str(base))
    with pytest.raises(InputError, match="takes no top_p"):
        llm.load(str(folder), cp.Endpoint(params={"top_p": 0.5}))


async def test_extreme_rewards_give_probabilities_that_are_exact_and_none_for_what_is_no_number():
    from culturepark.llm.providers.reward import _build_reply

    told = _build_reply(("a", "b"), [-45.0, 45.0], "")
    assert (
        told.text == "b"
        and math.log(told.option_probs[0]) == pytest.approx(-90)
        and told.option_probs[1] == 1.0
    )
    assert _build_reply(("a", "b"), [1.0, math.nan], "").status == "failed"


# --------------------------------------------------------------- conformance


@pytest.mark.conformance
@pytest.mark.skipif(not CREHATE.is_file(), reason=f"no {CREHATE}; set CULTUREPARK_DATA")
def test_crehate_gives_five_countries_and_the_minorities_that_its_labels_tell():
    items = list(reward.plan(BENCHMARK, setup(CREHATE)))
    assert (
        len(items) == 5 * 1_580
        and len({i.culture for i in items}) == 5
        and len({i.unit for i in items}) == 1_580
    )
    assert sum(i.gold == "minority" for i in items) == 981 and {i.gold for i in items} == {
        "minority",
        "majority",
    }
    crowd = figures(hold(items, prefers(lambda i: 0.9 if i.gold == "majority" else 0.1)))
    assert crowd["accuracy", "", ""].value == pytest.approx(1 - 981 / 7_900)
    assert (crowd["accuracy", "", "minority"].value, crowd["accuracy", "", "shared"].value) == (
        0.0,
        1.0,
    )
    assert (
        len(
            list(
                reward.plan(
                    BENCHMARK, setup(CREHATE, options={"held_out": 0.15}, cultures=("US", "SG"))
                )
            )
        )
        == 2 * 237
    )


def test_the_card_says_what_it_asks_and_its_outcomes_can_be_written(path):
    made = hold(reward.plan(BENCHMARK, setup(path, limit=1)), prefers(lambda i: 0.8))
    again = [Attempt.model_validate_json(o.model_dump_json()) for o in made]
    assert json.loads(made[0].model_dump_json())["facts"]["codes"] == [1, 2]
    assert {k: f.value for k, f in figures(again).items()} == {
        k: f.value for k, f in figures(made).items()
    }
