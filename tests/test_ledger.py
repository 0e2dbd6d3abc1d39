"""Money and tokens: caps that are never passed, whatever fails, and bills that survive a kill."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import cycle

import pytest
from conftest import ROOT, TEA, Server
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark.errors import BudgetReached
from culturepark.llm.budget import Budget
from culturepark.llm.client import EndpointClient
from culturepark.llm.codec import bound_prompt_tokens
from culturepark.records import Message, Request
from culturepark.store import RunStore

PRICES = {"prompt_price": 1.0, "completion_price": 4.0}


class Paper:
    """A store of reservations that is no run store."""

    def __init__(self):
        self.holds, self.number = {}, 0

    def sum_spent(self):
        return 0.0, 0

    def read_reservations(self):
        return {}

    def reserve(self, usd, tokens, key):
        self.number += 1
        self.holds[self.number] = usd, tokens
        return self.number

    def release(self, hold):
        del self.holds[hold]

    def reduce(self, hold, usd, tokens):
        self.holds[hold] = usd, tokens


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100), st.booleans()), max_size=60),
    st.integers(1, 400),
)
def test_whatever_calls_cost_up_to_their_hold_the_cap_is_never_passed(calls, cap):
    async def play():
        budget, seen = Budget(Paper(), max_tokens=cap), []

        async def call(most, real, lost):
            hold = await budget.reserve(0.0, most)
            await asyncio.sleep(0)
            if lost:
                budget.keep(hold)
            else:
                budget.settle(hold, 0.0, min(real, most))
            seen.append(budget.tokens)

        done = await asyncio.gather(*(call(*c) for c in calls), return_exceptions=True)
        return budget, seen, done

    budget, seen, done = asyncio.run(play())
    assert max([0, *seen]) <= cap and budget._reserved_tokens == 0 and not budget._waiting
    assert all(d is None or isinstance(d, BudgetReached) for d in done)


ODD = (None, True, "12", "many", 3.5, float("nan"), float("inf"), [], -(10**9), -1, 0, 10**12)
COUNTS = st.integers(1, 40) | st.sampled_from(ODD)
USAGES = st.dictionaries(st.sampled_from(("prompt_tokens", "completion_tokens")), COUNTS)


class Told:
    """A client whose answers take a few rounds of the loop and count tokens as the test says."""

    identity, limited, discount = "told", True, 1.0

    def __init__(self, usages, delays):
        self.usages, self.delays = cycle(usages), cycle(delays)

    async def send(self, body, request):
        usage = next(self.usages)
        for _ in range(next(self.delays)):
            await asyncio.sleep(0)
        return {
            "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}],
            "usage": usage,
        }


ASKED = Request("delegate", (Message("user", "Tea?"),), max_tokens=40)
MOST = bound_prompt_tokens(ASKED) + ASKED.max_tokens


@given(
    st.lists(USAGES, min_size=1, max_size=8),
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.integers(MOST, 9 * MOST),
    st.integers(1, 12),
)
def test_under_any_interleaving_and_any_usage_all_but_one_call_of_the_cap_is_used(
    usages, delays, cap, width
):
    line, book = EndpointClient(Told(usages, delays), "m"), Paper()

    async def worker():
        while True:
            reply = await line.complete(ASKED)
            seen.append((reply.prompt_tokens or 0) + (reply.completion_tokens or 0))

    async def play():
        line.budget = Budget(book, max_tokens=cap)
        done = await asyncio.gather(*(worker() for _ in range(width)), return_exceptions=True)
        assert all(isinstance(d, BudgetReached) for d in done), done

    seen = []
    asyncio.run(play())
    spent = sum(seen) + sum(tokens for _, tokens in book.holds.values())
    assert spent == line.budget.tokens and cap - MOST <= spent <= cap


def test_a_call_waits_for_what_others_in_flight_give_back():
    async def play():
        budget = Budget(Paper(), max_usd=1.0)
        first = await budget.reserve(0.9, 0)
        second = asyncio.create_task(budget.reserve(0.5, 0))
        await asyncio.sleep(0)
        assert not second.done()
        budget.settle(first, 0.1, 0)
        return await second

    assert asyncio.run(play()) == 2


def started(name, url, **more):
    return cp.start(
        name,
        {
            **TEA,
            "model": "openai/embedded",
            "base_url": url,
            "dialogues": 6,
            "turns": 4,
            "endpoints": {"openai/embedded": PRICES},
            **more,
        },
    )


def test_a_run_stops_below_its_cap_with_exit_code_3_and_goes_on_with_a_higher_one(park):
    with cp.Server() as server:
        run = started("cap", server.url, max_usd=0.01)
        with pytest.raises(cp.BudgetReached, match="--resume") as caught:
            cp.simulate(run)
        with run.open_store(write=False) as journal:
            spent, _ = journal.sum_spent()
            turns = journal.select("SELECT COUNT(*) FROM turns")[0][0]
            assert journal.select("SELECT COUNT(*) FROM holds") == [(0,)], (
                "what was in flight came home before the run ended"
            )
        assert caught.value.exit_code == 3 and 0.001 < spent <= 0.01 and 0 < turns < 24
        done = cp.simulate(cp.resume(run.folder, max_usd=1.0))
    assert done["turns"] == 24 and done["usd"] > spent
    with run.open_store(write=False) as journal:
        assert journal.sum_spent()[0] == pytest.approx(done["usd"]) and journal.select(
            "SELECT COUNT(*) FROM holds"
        ) == [(0,)]


@pytest.mark.parametrize("seed", range(3))
def test_a_run_uses_its_cap_up_to_one_call(park, seed):
    latency = random.Random(seed).choice((0.0, 0.005, 0.02))
    with cp.Server(latency=latency) as server:
        run = started("cap", server.url, dialogues=200, max_usd=0.05, concurrency=(2, 8, 30)[seed])
        with pytest.raises(
            cp.BudgetReached, match=r"the next call may cost \$(\d+\.\d+)"
        ) as caught:
            cp.simulate(run)
    most = float(re.search(r"may cost \$(\d+\.\d+)", str(caught.value))[1])
    with run.open_store(write=False) as journal:
        assert 0.05 - most - 1e-4 <= journal.sum_spent()[0] <= 0.05 + 1e-9


USAGE_OF = {
    "only a prompt": {"prompt_tokens": 5},
    "negative": {"prompt_tokens": -9, "completion_tokens": -900},
    "none": None,
}


@pytest.mark.parametrize("usage", USAGE_OF.values(), ids=USAGE_OF)
def test_a_provider_that_does_not_count_soundly_cannot_let_a_cap_be_passed(park, usage):
    answer = {
        "choices": [{"message": {"content": "I think tea is good."}, "finish_reason": "stop"}],
        "usage": usage,
    }
    server = Server(lambda n, body: (200, {}, answer))
    run = started("odd", server.url, dialogues=200, max_tokens=20_000, endpoints={})
    with pytest.raises(cp.BudgetReached) as caught:
        cp.simulate(run)
    assert not re.search(r"-\d", str(caught.value)) and 3 < len(server.seen) < 100
    assert 15_000 < cp.calls(run)["ledger"]["tokens"] <= 20_000


def test_a_cap_that_is_set_later_needs_a_price_too_or_it_would_not_hold(park):
    with cp.Server() as server:
        run = started("late", server.url, endpoints={})
        with pytest.raises(cp.InputError, match="is unknown; give it"):
            cp.simulate(cp.resume(run.folder, max_usd=1.0))
        assert server.counts["requests"] == 0
        cp.simulate(cp.resume(run.folder, endpoints={"openai/embedded": PRICES}))


def test_what_was_refined_before_the_budget_ended_can_be_exported(park):
    with cp.Server() as server:
        run = started("cap", server.url, modes=("cross",))
        cp.simulate(run)
        bill = cp.calls(run)["ledger"]["usd"]
        with pytest.raises(cp.BudgetReached):
            cp.run(cp.resume(run.folder, max_usd=bill + 0.014, concurrency=1), formats=("trl",))
    written = cp.export(run, ("trl",))["trl"]
    assert sum(len(path.read_text().splitlines()) for path in written.glob("*.jsonl")) > 0
    assert '"event": "stopped"' in (run.folder / "log.jsonl").read_text()


def test_a_cap_on_tokens_needs_no_price(park):
    with cp.Server() as server, pytest.raises(cp.BudgetReached, match="tokens used"):
        cp.simulate(started("cap", server.url, max_tokens=5_000, endpoints={}))


def test_lost_calls_stay_on_the_bill_at_the_most_they_can_have_cost(park, monkeypatch):
    monkeypatch.setattr("culturepark.llm.client.JITTER", lambda _: 0.01)
    with cp.Server(faults={"reset": 0.2}, seed=3) as server:
        run = started("lost", server.url, max_usd=5.0)
        done = cp.simulate(run)
        lost = server.counts["faults"]["reset"]
    ledger = cp.calls(run)["ledger"]
    assert (
        done["turns"] == 24
        and ledger["unsettled"] == lost > 0
        and 0 < ledger["unsettled_usd"] < ledger["usd"]
    )


def test_calls_in_flight_when_the_process_was_killed_stay_on_the_bill(park):
    with cp.Server(latency=0.3) as server:
        run = started("killed", server.url, max_usd=5.0)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(
            [sys.executable, "-m", "culturepark", "simulate", "killed", "--resume"],
            env=env,
            stderr=subprocess.DEVNULL,
        )
        while server.counts["in_flight"] < 6:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        with RunStore(run.folder, write=False) as journal:
            ((holds,),) = journal.select("SELECT COUNT(*) FROM holds")
        done = cp.simulate(run)
    assert holds == 6 and done["turns"] == 24 and cp.calls(run)["ledger"]["unsettled"] == 6


def test_the_estimate_is_a_band_that_holds_the_real_cost_and_its_pilot_is_not_paid_twice(park):
    with cp.Server() as server:
        run = started("est", server.url, dialogues=30)
        band = cp.estimate(run, 6)
        before = server.counts["requests"]
        cp.run(
            "est",
            {
                **TEA,
                "model": "openai/embedded",
                "base_url": server.url,
                "dialogues": 30,
                "turns": 4,
                "endpoints": {"openai/embedded": PRICES},
            },
            formats=("trl",),
        )
        with run.open_store(write=False) as journal:
            assert (
                server.counts["requests"]
                == journal.select("SELECT SUM(attempts) FROM calls")[0][0]
                > before
            )
            spent, _ = journal.sum_spent()
    low, middle, high = band["total"]["usd"]
    assert (
        band["pilot"] == 6
        and band["dialogues"] == 30
        and low < middle < high
        and low * 0.9 < spent < high * 1.1
    )
    assert {r["role"] for r in band["rows"]} >= {
        "delegate",
        "main_contact",
        "extractor",
        "verifier",
    }


def test_an_unknown_price_makes_an_unknown_estimate(park):
    with cp.Server() as server:
        found = cp.estimate(started("est", server.url, endpoints={}), 2)
    from culturepark.forecast import format_forecast

    assert (
        found["total"]["usd"] is None
        and found["total"]["prompt_tokens"][1] > 0
        and "unknown" in format_forecast(found)
    )
