"""Limits: calls at once, per minute, adapted to what an endpoint bears; a dead one is waited for,
then told.
"""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_hosted import ASK

import culturepark as cp
from culturepark.llm import rate_limiter
from culturepark.llm.rate_limiter import ConcurrencyLimiter, Limits, TokenBucket


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("culturepark.llm.client.JITTER", lambda _: 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed")


def many(count, url, answers=None, name="openai/embedded", **how):
    """Ask so many questions at once; return the replies and the line."""

    async def all_of_them():
        line = cp.model(name, base_url=url, **how)
        try:
            return await asyncio.gather(*(line.complete(ASK) for _ in range(count))), line
        finally:
            await line.close()

    return asyncio.run(all_of_them())


def test_no_more_calls_are_in_flight_than_allowed():
    with cp.Server(lambda n, _: "ok", latency=0.02) as server:
        replies, _ = many(40, server.url, concurrency=7)
        assert all(r.status == "ok" for r in replies) and server.counts["peak_in_flight"] == 7


def test_requests_and_tokens_a_minute_are_kept_to_and_tokens_reconciled_with_real_usage():
    with cp.Server(lambda n, _: "ok") as server:
        start = time.perf_counter()
        many(8, server.url, rpm=1200)  # 20 a second, of which a second's worth at once
        many(26, server.url, rpm=1200)
        assert 0.25 < time.perf_counter() - start < 3
        _, line = many(3, server.url, tpm=60_000)
    used = 3 * (4 + 1 + 1)  # what the server counted: far less than was reckoned with
    assert line.limiter.tpm.capacity - line.limiter.tpm.level <= used + 1


@given(st.integers(1, 600), st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_an_allowance_never_lets_more_through_than_its_rate_and_one_second_of_it(rate, amounts):
    clock, bucket = 0.0, TokenBucket(rate)
    rate_limiter.time.monotonic, real = (lambda: clock), rate_limiter.time.monotonic
    try:
        bucket = TokenBucket(rate)
        let = 0.0
        for amount in amounts:
            clock += bucket.delay(amount)
            let += amount
            assert let - max(amounts) <= bucket.capacity + clock * rate / 60 + 1e-6
    finally:
        rate_limiter.time.monotonic = real


def test_a_server_that_says_429_is_asked_less_at_once_and_nothing_is_lost():
    def busy(number, body):
        return (429, {}, {"error": {}}) if server.counts["in_flight"] > 8 else "ok"

    with cp.Server(busy, latency=0.01) as server:
        replies, line = many(300, server.url, concurrency=64)
    assert all(r.status == "ok" for r in replies)
    assert line.limiter.cuts > 0 and line.limiter.width < 40


def test_a_stray_429_changes_nothing():
    limiter = ConcurrencyLimiter(Limits(concurrency=50), "x")
    for _ in range(19):
        limiter.note_success()
    limiter.in_flight = 30
    limiter.note_rate_limit(time.monotonic(), None)
    assert (limiter.width, limiter.cuts) == (50, 0)


def test_the_width_is_cut_once_for_calls_that_left_together_and_grows_again_by_a_tenth_a_round():
    async def play():
        limiter = ConcurrencyLimiter(Limits(concurrency=40), "x")
        limiter.in_flight, sent = 40, time.monotonic()
        for _ in range(40):
            limiter.note_rate_limit(sent, None)
        cut = limiter.width
        for _ in range(60):
            limiter.note_success()
        return cut, limiter.width, limiter.cuts

    assert asyncio.run(play()) == (30, 33, 1)


def test_a_dead_endpoint_is_tried_with_one_call_at_a_time_and_the_rest_waits_until_it_is_back(
    monkeypatch, caplog
):
    monkeypatch.setattr(rate_limiter, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(rate_limiter, "QUIET", 0.1)
    start, probes = time.monotonic(), []

    def answer(number, body):
        now = time.monotonic() - start
        if now > 0.8:
            return "back"
        probes.extend([now] if now > 0.4 else [])
        return 503, {}, {"error": {"message": "down for maintenance"}}

    with cp.Server(answer) as server:
        replies, _ = many(200, server.url, concurrency=20, patience=30.0)
    assert all(r.text == "back" for r in replies) and len(probes) <= 3, probes
    assert "is down" in caplog.text and "maintenance" in caplog.text


def test_an_endpoint_that_stays_dead_stops_the_run_with_advice(monkeypatch):
    monkeypatch.setattr(rate_limiter, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(rate_limiter, "QUIET", 0.05)
    monkeypatch.setattr(rate_limiter, "AT_FIRST", 0.2)
    with pytest.raises(cp.ModelError, match=r"never answered.*--resume"):
        many(
            40, "http://127.0.0.1:9/v1"
        )  # nobody has patience with an address that is probably wrong
    answers = iter(["once"])
    server = cp.Server(lambda n, _: next(answers, (503, {}, {})))
    with server, pytest.raises(cp.ModelError, match=r"been down for.*--resume"):
        many(40, server.url, patience=0.3)


def test_ten_broken_calls_in_a_row_among_many_that_answer_are_no_dead_endpoint(caplog):
    limiter = ConcurrencyLimiter(Limits(), "x")
    limiter.note_success()
    assert (
        not any(limiter.note_failure("reset") for _ in range(50)) and "is down" not in caplog.text
    )


def test_a_call_cancelled_while_it_waits_gives_its_place_back():
    async def play():
        limiter = ConcurrencyLimiter(Limits(concurrency=1), "x")
        await limiter.enter(0)
        waiting = asyncio.create_task(limiter.enter(0))
        await asyncio.sleep(0)
        limiter.leave()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return limiter.in_flight

    assert asyncio.run(play()) == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ollama/llama3.1", r"Is it running\? It is started with: ollama serve"),
        ("openai/x", "Is it running"),
    ],
)
def test_a_server_of_ones_own_that_does_not_answer_is_asked_after_within_seconds(
    monkeypatch, name, told
):
    monkeypatch.setattr(rate_limiter, "UNREACHED", 0.05)
    with pytest.raises(cp.ModelError, match=rf"nothing listens there.*{told}") as caught:
        many(1, "http://127.0.0.1:9/v1", name=name)
    assert "Errno" not in str(caught.value) and "Connect call" not in str(caught.value)


def test_an_endpoint_that_was_reached_before_is_waited_for_when_no_connection_can_be_made():
    limiter = ConcurrencyLimiter(Limits(), "x")
    limiter.note_failure("503")
    limiter._unreached_since = time.monotonic() - 60
    assert limiter.note_failure("refused", reached=False) is False
