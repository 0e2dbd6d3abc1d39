"""Evaluation from end to end: cards, Inspect, the journal, results; on a small benchmark of the
tests' own.
"""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai.log import read_eval_log

import culturepark as cp
from culturepark.errors import CardError, InputError, NotFound
from culturepark.evaluation import card, parsers, result, runner
from culturepark.evaluation.ask import ask_once
from culturepark.evaluation.kind import BenchmarkKind
from culturepark.evaluation.measure import Measure, mean
from culturepark.evaluation.types import Item, Unparsed
from culturepark.llm import reading
from culturepark.llm.session import build_single_request as asked
from culturepark.local_models import choices
from culturepark.local_models.engine import share_engine
from culturepark.local_models.local_model import find_model
from culturepark.records import Message, Reply, Request
from culturepark.store import RunStore

HERE = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
LABELS = ("Agree", "Disagree")
CARD = """
name = "teatime"
title = "Tea"
about = "Whether a model knows who likes tea."
source = "authored for the tests"
kind = "test_evaluate:KIND"
role = "respondent"
parser = "option"
"""


def plan(benchmark, setup):
    """Every question of every culture, once a seed."""
    for culture in setup.cultures:
        for question in setup.workspace.scenario("tea").questions:
            for seed in setup.seeds:
                facts = {
                    "options": [1, 2],
                    "view": None,
                    "codes": [1, 2],
                    "labels": LABELS,
                    "question": question,
                    "culture": setup.workspace.culture(culture),
                    "me": None,
                    "country": None,
                    "numbered": True,
                }
                request = asked(
                    benchmark.asks(setup.workspace), facts, None, culture, question.id, seed
                )
                likely = (
                    replace(request, options=LABELS) if setup.method == "likelihood" else request
                )
                yield Item(
                    f"{culture}/{question.id}/{seed}",
                    culture,
                    question.id,
                    likely,
                    seed=seed,
                    gold=question.answers[culture],
                    facts={"codes": [1, 2], "labels": LABELS},
                )


def measure(attempts, options):
    """The share of right answers, by culture and over all."""
    for culture in ("", *sorted({o.culture for o in attempts})):
        sums = {}
        for o in attempts:
            if culture in ("", o.culture) and o.status == "ok":
                right, n = sums.get((o.seed, f"{o.culture}/{o.unit}"), (0.0, 0.0))
                sums[o.seed, f"{o.culture}/{o.unit}"] = (right + (o.answer == o.gold), n + 1.0)
        yield Measure("right", sums, mean, culture, headline=True, what="questions")


KIND = BenchmarkKind(
    plan, lambda attempts, options: list(measure(attempts, options)), options={"extra": 1}
)


class North:
    """A model that answers as the north does, and writes down how often it was asked."""

    identity, asked, dies = "north", 0, 10**9

    async def complete(self, request):
        if North.asked >= North.dies:
            raise cp.ModelError("the key was refused")
        North.asked += 1
        return Reply(
            "ok", "1. Agree" if request.seed % 20 else "I would rather not say.", model="north"
        )


class Shaky(North):
    """A model whose every third call fails, until it is mended."""

    mended = False

    async def complete(self, request):
        reply = await super().complete(request)
        return (
            reply
            if Shaky.mended or North.asked % 3
            else Reply("failed", reason="the connection broke", model="north")
        )


class Slow(North):
    """A model that takes its time."""

    async def complete(self, request):
        await asyncio.sleep(0.05)
        return await super().complete(request)


@pytest.fixture
def tea(park):
    """A workspace with a benchmark file."""
    (park / "teatime.toml").write_text(CARD)
    North.asked, North.dies = 0, 10**9
    return park


NORTH = "test_evaluate:North"
HOW = {"cultures": ("north", "south"), "code": True}


def test_a_benchmark_file_and_a_model_make_a_result_with_figures_and_outcomes(tea):
    (found,) = cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW)
    assert (
        found.figure("right", "north").value == 1.0 and found.figure("right", "south").value == 0.0
    )
    held = result.load_attempts(
        result.locate_result(tea / "outputs/mine/evals", "teatime", found.model)
    )
    assert len(held) == 20 and held[0].talk[-1] == ("assistant", held[0].said)
    assert (tea / "outputs/mine/evals/logs" / found.logs[0]).is_file()


def test_what_cannot_be_read_is_counted_and_is_no_answer(tea):
    (found,) = cp.evaluate("mine", ["teatime.toml"], [NORTH], seeds=tuple(range(30)), **HOW)
    assert found.counts["unparsed"] > 0 and sum(found.counts.values()) == 600
    assert found.figure("right", "north").value == 1.0  # of those that were read
    assert found.figure("right").spread is not None and found.figure("right").seeds == 30


def test_the_same_again_asks_nothing_and_another_setup_asks_only_what_is_new(tea):
    first = cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW)
    asked = North.asked
    assert (
        cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW) == first
        and North.asked == asked == 20
    )
    cp.evaluate("mine", ["teatime.toml"], [NORTH], seeds=(0, 1), **HOW)
    assert North.asked == 40


def test_stopped_by_a_dead_key_it_goes_on_where_it_was(tea):
    North.dies = 7
    with pytest.raises(cp.ModelError, match="the key was refused"):
        cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW)
    assert not list(tea.rglob("result.json"))
    North.dies = 10**9
    cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW)
    assert North.asked == 20


def test_what_failed_is_asked_again_and_nothing_else_is(tea):
    Shaky.mended = False
    (found,) = cp.evaluate("mine", ["teatime.toml"], ["test_evaluate:Shaky"], **HOW)
    assert found.counts["failed"] == found.reasons["failed: the connection broke"] == 6
    Shaky.mended = True
    (found,) = cp.evaluate("mine", ["teatime.toml"], ["test_evaluate:Shaky"], **HOW)
    assert "failed" not in found.counts and North.asked == 26


def test_the_embedded_engine_is_the_chance_row(tea):
    (found,) = cp.evaluate(
        "mine", ["teatime.toml"], ["embedded"], method="sample", seeds=tuple(range(40)), **HOW
    )
    assert found.figure("right").low <= 0.5 <= found.figure("right").high


def test_a_model_of_this_machine_tells_its_distribution(tea, small):
    (found,) = cp.evaluate("mine", ["teatime.toml"], [str(small)], **HOW)
    held = result.load_attempts(next((tea / "outputs/mine/evals/teatime").iterdir()))
    assert found.setup["method"] == "likelihood" and all(
        abs(sum(o.shares) - 1) < 1e-6 for o in held
    )


def test_replicas_are_averaged_and_their_spread_is_told(tea):
    (found,) = cp.evaluate("mine", ["teatime.toml"], [f"both={NORTH},embedded"], **HOW)
    assert found.figure("right", "north").seeds == 2 and found.figure("right", "north").spread > 0
    assert found.model == "both" and len(found.models) == 2


def test_each_culture_may_be_asked_of_its_own_model():
    (own,) = runner.parse_models(["own=models/{culture},again/{culture}"])
    assert own.label == "own" and own.list_names("north") == ("models/north", "again/north")
    with pytest.raises(InputError, match="two models are called 'a'"):
        runner.parse_models(["a=x/y", "a=x/z"])


def test_mistakes_are_named_before_anything_is_asked(tea):
    with pytest.raises(NotFound, match="Did you mean 'vsm13'"):
        cp.evaluate("mine", ["vsm31"], ["embedded"])
    (tea / "odd.toml").write_text(CARD + "[options]\nextr = 2\n")
    with pytest.raises(CardError, match=r"options\.extr: unknown\. Did you mean 'extra'"):
        card.load("odd.toml", code=True)
    (tea / "odd.toml").write_text(CARD.replace("parser", "parsr"))
    with pytest.raises(CardError, match=r"parsr: unknown key\. Did you mean 'parser'"):
        card.load("odd.toml", code=True)
    with pytest.raises(InputError, match=r"no option 'extr'\. Did you mean 'extra'"):
        cp.evaluate("mine", ["teatime.toml"], ["embedded"], options={"extr": 2}, **HOW)
    with pytest.raises(InputError, match="has no method 'guess'"):
        cp.evaluate("mine", ["teatime.toml"], ["embedded"], method="guess", **HOW)


def test_a_hosted_model_tells_its_distribution_by_log_probabilities(tea, serve):
    def reply(count, body):
        assert body["logprobs"] is True and body["top_logprobs"] == 20
        top = [
            {"token": "Ag", "logprob": -0.5},
            {"token": " Dis", "logprob": -1.5},
            {"token": "Well", "logprob": -3.0},
        ]
        said = {
            "choices": [
                {
                    "message": {"content": "Agree"},
                    "finish_reason": "stop",
                    "logprobs": {"content": [{"top_logprobs": top}]},
                }
            ]
        }
        return 200, {}, said

    cp.evaluate(
        "mine",
        ["teatime.toml"],
        ["openai/m"],
        method="likelihood",
        base_url=serve(reply).url,
        key="sk-said-nowhere-1",
        **HOW,
    )
    held = result.load_attempts(next((tea / "outputs/mine/evals/teatime").iterdir()))
    assert held[0].shares == pytest.approx((0.731, 0.269), abs=1e-3)
    (log,) = (tea / "outputs").rglob("*.eval")  # it is compressed, so it is read as well
    assert "sk-said-nowhere-1" not in read_eval_log(str(log)).model_dump_json()
    assert "sk-said-nowhere-1" not in "".join(
        p.read_text(errors="ignore") for p in (tea / "outputs").rglob("*") if p.is_file()
    )


def test_a_model_without_log_probabilities_is_told_so_not_guessed_at(tea):
    (found,) = cp.evaluate("mine", ["teatime.toml"], [NORTH], method="likelihood", **HOW)
    assert found.counts == {"ok": 0, "failed": 20} and found.figure("right").value is None


def test_inspect_finds_the_tasks_and_the_models(tea):
    code = [
        sys.executable,
        "-m",
        "inspect_ai",
        "eval",
        "culturepark/benchmark",
        "-T",
        "card=teatime.toml",
        "-T",
        "cultures=north,south",
        "-T",
        "code=true",
        "--model",
        "culturepark/embedded",
        "--display",
        "plain",
        "--log-dir",
        "logs",
    ]
    done = subprocess.run(code, cwd=tea, capture_output=True, text=True, env=HERE)
    assert "right north" in done.stdout, done.stdout + done.stderr


def test_the_command_prints_figures_intervals_and_what_was_not_read(tea):
    command = [
        sys.executable,
        "-m",
        "culturepark",
        "evaluate",
        "mine",
        "teatime.toml",
        "--model",
        NORTH,
        "--cultures",
        "north,south",
        "--allow-code",
    ]
    told = subprocess.run(
        command, cwd=tea, capture_output=True, text=True, check=True, env=HERE
    ).stdout
    assert "right" in told and "19 ok, 1 unparsed" in told
    found = json.loads(
        subprocess.run(
            [*command, "--json"], cwd=tea, capture_output=True, text=True, check=True, env=HERE
        ).stdout
    )
    assert found[0]["benchmark"] == "teatime"


def body(*top):
    return {
        "choices": [
            {
                "logprobs": {
                    "content": [
                        {"top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top]}
                    ]
                }
            }
        ]
    }


def test_a_distribution_is_told_by_the_first_token_or_not_at_all():
    assert reading.read_option_probs(
        body(("1", 0.6), (" 2", 0.3), ("I", 0.1)), ("1", "2")
    ) == pytest.approx((2 / 3, 1 / 3))
    assert (
        reading.read_option_probs(body(("1", 0.9), ("2", 0.1)), ("1", "2", "10")) == ()
    )  # the 1 of 10, or 1?
    assert (
        reading.read_option_probs(body(("I", 0.7), ("1", 0.3)), ("1", "2")) == ()
    )  # it would rather say something else
    assert reading.read_option_probs({"choices": [{"message": {"content": "1"}}]}, ("1", "2")) == ()


async def test_distributions_of_several_adapters_share_a_batch_and_are_those_asked_one_by_one(
    small,
):
    engine = share_engine(find_model(small))
    talks = [[{"role": "user", "content": f"Is tea {n} good?"}] for n in range(40)]
    options = [("Agree", "Agree strongly", "Disagree")[: 2 + n % 2] for n in range(40)]
    made = await asyncio.gather(*(engine.weigh(t, o) for t, o in zip(talks, options, strict=True)))
    alone = choices.compute_distributions(engine.model, engine.tokenizer, talks, options)
    assert all(m == pytest.approx(a, abs=1e-5) for m, a in zip(made, alone, strict=True))
    with pytest.raises(InputError, match="the beginning of another option"):
        await engine.weigh(talks[0], ("Agree", "Agree"))


def test_a_journal_from_before_shares_were_kept_is_read_and_gets_a_place_for_them(tmp_path):
    with RunStore(tmp_path) as journal:
        journal.add_call("a", "x", "respondent", Reply("ok", "1"))
        journal.write("ALTER TABLE calls DROP COLUMN shares")
    with RunStore(tmp_path, write=False) as journal:
        assert journal.find_answer("a").text == "1"
    with RunStore(tmp_path) as journal:
        journal.add_call("b", "x", "respondent", Reply("ok", "1", option_probs=(0.25, 0.75)))
        assert (
            journal.find_answer("b").option_probs == (0.25, 0.75)
            and journal.find_answer("a").option_probs == ()
        )


THREE = Item(
    "i",
    "",
    "u",
    Request("respondent", ()),
    facts={"codes": [1, 2, 10], "labels": ["Agree", "Agree strongly", "Never"]},
)


@given(st.text(max_size=80))
def test_any_text_is_read_as_an_option_or_not_at_all(said):
    assert isinstance(found := parsers.option(said, THREE), Unparsed) or found in (1, 2, 10)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("2", 2),
        ("(2)", 2),
        ("Answer: 10.", 10),
        ("**1**", 1),
        ("agree strongly, of course", 2),
        ("Agree. I would say so.", 1),
        ("My answer is 2", 2),
        ("2 or 10", None),
        ("3", None),
        ("1.5", None),
        ("I agree", None),
        ("", None),
        ("Agreed", None),
        ("-1", None),
    ],
)
def test_options_are_read_strictly(said, read):
    found = parsers.option(said, THREE)
    assert (None if isinstance(found, Unparsed) else found) == read


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("4", 4),
        ("4/5", 4),
        ("4 out of 5", 4),
        ("4-5", None),
        ("7", None),
        ("4.5", None),
        ("good", None),
    ],
)
def test_ratings_are_whole_numbers_on_their_scale(said, read):
    found = parsers.rating(
        said, Item("i", "", "u", Request("learner", ()), facts={"scale": [1, 5]})
    )
    assert (None if isinstance(found, Unparsed) else found) == read


def test_a_cap_on_tokens_is_never_passed_and_a_higher_one_goes_on(tea, serve):
    def reply(count, body):
        return (
            200,
            {},
            {
                "choices": [{"message": {"content": "1"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 90, "completion_tokens": 10},
            },
        )

    server = serve(reply)
    how = {**HOW, "base_url": server.url, "key": "k", "concurrency": 1}
    with pytest.raises(cp.BudgetReached):
        cp.evaluate("mine", ["teatime.toml"], ["openai/m"], max_tokens=1500, **how)
    paid = len(server.seen)
    assert 0 < paid < 16
    told = []
    (found,) = cp.evaluate(
        "mine",
        ["teatime.toml"],
        ["openai/m"],
        max_tokens=100_000,
        tell=lambda *what: told.append(what),
        **how,
    )
    assert found.counts == {"ok": 20} and len(server.seen) == 20
    assert told[-1] == ("spent", {"run": "mine", "usd": None, "tokens": 2000})


def test_a_run_tells_its_evaluations_in_its_report(tea):
    run = cp.run(
        "mine",
        model="conftest:Plays",
        dialogues=2,
        **{"scenario": "tea", "contact": "south", "cultures": ("north",)},
    )
    cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW)
    cp.compare("mine", code=True)
    page = (run.folder / "report/report.html").read_text()
    assert "Evaluations" in page and "../evals/board/leaderboard.html" in page


def calls(tea):
    with RunStore(tea / "outputs/mine/evals", write=False) as journal:
        return journal.select("SELECT COUNT(*) FROM calls")[0][0]


def test_an_interrupt_exits_130_and_the_same_command_goes_on(tea):
    command = [
        sys.executable,
        "-m",
        "culturepark",
        "evaluate",
        "mine",
        "teatime.toml",
        "--model",
        "test_evaluate:Slow",
        "--cultures",
        "north,south",
        "--concurrency",
        "1",
        "--allow-code",
        "--seeds",
        ",".join(map(str, range(8))),
    ]
    heard = partial(
        signal.signal, signal.SIGINT, signal.default_int_handler
    )  # tests in the background ignore it
    process = subprocess.Popen(
        command, cwd=tea, env=HERE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    while process.poll() is None and " 1/160" not in process.stderr.readline():
        pass
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stderr.close()
    asked = [
        calls(tea),
        subprocess.run(command, cwd=tea, env=HERE, capture_output=True, check=True) and calls(tea),
    ]
    assert 1 < asked[0] < 160 == asked[1]  # what was answered is not asked again


def test_why_there_is_no_answer_is_told_and_none_at_all_is_a_failure(tea):
    command = [
        sys.executable,
        "-m",
        "culturepark",
        "evaluate",
        "mine",
        "teatime.toml",
        "--model",
        NORTH,
        "--cultures",
        "north",
        "--method",
        "likelihood",
        "--allow-code",
    ]
    done = subprocess.run(command, cwd=tea, capture_output=True, text=True, env=HERE)
    assert done.returncode == 1 and "no answer could be read at all: teatime" in done.stderr
    assert "10 × failed: " in done.stdout and "ask with --method sample" in done.stdout


@pytest.mark.parametrize(
    ("said", "status"),
    [("2. Disagree, for in our family", "ok"), ("In our family tea is", "truncated")],
)
async def test_an_answer_that_was_cut_holds_what_it_begins_with_or_nothing(tmp_path, said, status):
    (tmp_path / "teatime.toml").write_text(CARD)
    item = Item("i", "", "u", Request("respondent", ()), facts={"codes": [1, 2], "labels": LABELS})

    async def ask(request, who="model"):
        return Reply("truncated", said, "the answer was cut at max_tokens")

    found = await ask_once(card.load(tmp_path / "teatime.toml", code=True), item, ask)
    assert (found.status, found.answer) == (status, 2 if status == "ok" else None)


def test_a_file_that_names_code_or_files_elsewhere_is_refused_unless_it_is_trusted(tea):
    with pytest.raises(InputError, match="names Python code that would be run: test_evaluate:KIND"):
        cp.evaluate("mine", ["teatime.toml"], ["embedded"], cultures=("north",))
    own = 'kind = "answers"\nscore = "exact"\nitems = "../secret.jsonl"'
    (tea / "teatime.toml").write_text(CARD.replace('kind = "test_evaluate:KIND"', own))
    (tea.parent / "secret.jsonl").write_text(
        '{"question": "What is the password?", "reference": "tea"}'
    )
    with pytest.raises(InputError, match="lies outside of the card's folder"):
        cp.evaluate("mine", ["teatime.toml"], ["embedded"], cultures=("north",))


@pytest.mark.parametrize("file", ["result.json", "outcomes.jsonl"])
def test_a_damaged_result_is_made_anew_and_nothing_is_asked_for_it(tea, file):
    first = cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW)
    (path,) = (tea / "outputs").rglob(file)
    path.write_text(path.read_text()[:300])
    assert (
        cp.evaluate("mine", ["teatime.toml"], [NORTH], **HOW)[0].figures == first[0].figures
        and North.asked == 20
    )
    assert cp.compare("mine", code=True).tables


def test_an_option_of_another_kind_a_model_twice_and_a_name_that_is_taken_are_refused(tea):
    with pytest.raises(InputError, match="option unprompted = 'x': it is true or false"):
        card.resolve_options(card.load("survey"), {"unprompted": "x"})
    with pytest.raises(InputError, match="names a model twice"):
        runner.parse_models(["embedded,embedded"])
    (tea / "board.toml").write_text(CARD.replace('"teatime"', '"board"'))
    with pytest.raises(CardError, match="'board' is a folder of every run's evaluations"):
        card.load(tea / "board.toml", code=True)


def test_a_key_that_an_endpoint_says_back_is_masked(tea, serve):
    def reply(count, body):
        return (
            200,
            {},
            {
                "choices": [
                    {
                        "message": {
                            "content": "1. Your key is sk-secret-77, and basic needs come first"
                        },
                        "finish_reason": "stop",
                    }
                ]
            },
        )

    cp.evaluate(
        "mine", ["teatime.toml"], ["openai/m"], base_url=serve(reply).url, key="sk-secret-77", **HOW
    )
    told = result.load_attempts(next((tea / "outputs/mine/evals/teatime").iterdir()))[0].said
    assert told == "1. Your key is [key], and basic needs come first"


def test_inspect_lists_the_tasks_where_they_are():
    from inspect_ai import list_tasks

    names = {t.name for t in list_tasks(root_dir=ROOT / "culturepark/evaluation")}
    assert {"vsm13", "survey", "moderation", "education", "reward", "care", "benchmark"} <= names


@pytest.mark.parametrize(
    ("stop", "status"),
    [("stop", "ok"), ("max_tokens", "truncated"), ("tool_calls", "failed"), ("unknown", "failed")],
)
def test_what_another_provider_of_inspects_says_is_whole_only_where_it_says_so_and_holds_no_thoughts(  # noqa: E501
    stop, status
):
    from inspect_ai.model import ModelOutput

    from culturepark.evaluation.provider import build_reply

    output = ModelOutput.from_content(
        "other/model", "<think>1 or 2?</think>\n\nTea.", stop_reason=stop
    )
    reply = build_reply(output)
    assert (reply.status, reply.text, reply.reasoning) == (status, "Tea.", "1 or 2?")
    assert status == "ok" or stop in reply.reason


def test_thoughts_of_ours_are_thoughts_in_inspects_log_too():
    from culturepark.evaluation.provider import build_output

    message = build_output(Reply("ok", "Tea.", reasoning="Hm."), "m").choices[0].message
    assert message.text == "Tea." and [c.type for c in message.content] == ["reasoning", "text"]


def test_a_kind_written_for_an_earlier_version_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match="kind.BenchmarkKind now"):
        from culturepark.evaluation.outcome import Kind
    with pytest.warns(DeprecationWarning, match="types.Item now"):
        from culturepark.evaluation.outcome import Item as OldItem
    made = Kind(plan=plan, measures=measure, hold=ask_once, peoples="data", words=("simulated",))
    assert made == BenchmarkKind(
        plan, measure, ask_once, culture_source="data", data_words=("simulated",)
    )
    assert OldItem is Item


async def test_what_inspect_is_given_is_what_is_sent_even_where_a_solver_changed_it():
    from inspect_ai.model import GenerateConfig

    from culturepark.evaluation.provider import build_messages, build_request

    asked = Request("plays", (Message("user", "Tea?"),), {"view": 1}, seed=7, options=("1", "2"))
    config = GenerateConfig(temperature=asked.temperature, max_tokens=asked.max_tokens)
    messages = build_messages(asked)
    assert build_request(messages, config) == asked
    messages[0].content = "Coffee?"
    changed = build_request(messages, config)
    assert (changed.messages[0].content, changed.options) == ("Coffee?", ("1", "2"))
