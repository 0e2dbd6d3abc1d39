"""Ctrl-C: no new call is sent, what is in flight is kept, a second one ends at once; and what is
shown meanwhile.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import pytest
from conftest import TEA, Plays

import culturepark as cp
from culturepark.cli.progress import _bar, aloud, describe_progress, progress
from culturepark.cli.terminal import printable
from culturepark.cli.tune import _lines
from culturepark.events import (
    DialogueEnded,
    DialogueRefined,
    RefineProgress,
    RunStarted,
    SimulateProgress,
)
from culturepark.executor import pool
from culturepark.forecast import DialogueCosts, TurnCosts
from culturepark.store.counts import count_all

CTRL_C = partial(signal.signal, signal.SIGINT, signal.default_int_handler)


class Interrupts(Plays):
    """Presses Ctrl-C while it answers its fifth call."""

    calls = 0

    async def complete(self, request):
        type(self).calls += 1
        if self.calls == 5:
            signal.raise_signal(signal.SIGINT)
        return await super().complete(request)


def test_after_an_interrupt_no_further_call_is_made_and_the_run_goes_on_later(park):
    CTRL_C()
    Interrupts.calls = 0
    with pytest.raises(KeyboardInterrupt):
        cp.run("tea", model="test_stopping:Interrupts", dialogues=500, turns=4, **TEA)
    assert Interrupts.calls == 5
    run = cp.resume(park / "outputs/tea")
    with run.open_store(write=False) as journal:
        assert journal.select("SELECT COUNT(*) FROM calls")[0][0] == 5


def test_work_that_never_yields_is_interrupted_all_the_same():
    async def busy():
        signal.raise_signal(signal.SIGINT)
        while True:
            pass

    CTRL_C()
    with pytest.raises(KeyboardInterrupt):
        pool.run_loop(busy())


def say_so(n, body):
    return f"I think tea is good, says call {n}."


def start_run(park, server, *more):
    args = ["run", "slow", "--model", "openai/embedded", "--base-url", server.url, "--turns", "4"]
    tea = ["--scenario", "tea", "--contact", "south", "--cultures", "north", "-n", "40"]
    command = [sys.executable, "-m", "culturepark", *args, *tea, *more]
    process = subprocess.Popen(
        command,
        cwd=park,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=CTRL_C,
        env=dict(os.environ),
    )
    while process.poll() is None and not server.counts["requests"]:
        time.sleep(0.05)
    return process


def test_calls_in_flight_are_answered_and_written_down_before_the_end(park):
    with cp.Server(say_so, latency=0.3) as server:
        process = start_run(park, server, "--concurrency", "7")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopping, finishing " in err and "--resume" in err
    with cp.resume(park / "outputs/slow").open_store(write=False) as journal:
        assert journal.select("SELECT COUNT(*) FROM calls")[0][0] == server.counts["requests"]


def test_a_second_interrupt_ends_at_once(park):
    with cp.Server(say_so, latency=600) as server:
        process = start_run(park, server)
        process.send_signal(signal.SIGINT)
        while "stopping" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        process.stderr.close()


def test_progress_is_sent_before_the_first_answer(park):
    seen = []
    cp.run("tea", model="conftest:Plays", dialogues=3, turns=4, **TEA, on_event=seen.append)
    assert isinstance(seen[0], RunStarted) and seen[0].folder.name == "tea"
    progress = [event for event in seen if isinstance(event, SimulateProgress)]
    first, last = progress[0], progress[-1]
    assert seen[1] == first and (first.turns, first.of_turns, first.calls) == (0, 12, 0)
    assert (last.turns, last.of_turns, last.dialogues) == (12, 12, 3)


def test_every_turn_and_every_end_of_a_dialogue_is_an_event(park):
    seen = []
    run = cp.run("tea", model="conftest:Plays", dialogues=3, turns=4, **TEA, on_event=seen.append)
    kinds = Counter(type(event).__name__ for event in seen)
    assert (kinds["TurnWritten"], kinds["DialogueEnded"], kinds["DialogueRefined"]) == (12, 3, 3)
    with run.open_store(write=False) as store:
        assert sum(e.kept for e in seen if isinstance(e, DialogueRefined)) >= count_all(store).kept
        turns = store.read_turns(next(e.dialogue for e in seen if isinstance(e, DialogueEnded)))
    assert len(turns) == 4


def test_who_is_told_figures_as_before_is_warned_and_told(park):
    seen = []
    run = cp.start("tea", model="conftest:Plays", dialogues=1, turns=2, **TEA)
    with pytest.warns(DeprecationWarning, match="tell is on_event now"):
        cp.simulate(run, tell=lambda stage, figures: seen.append((stage, figures["turns"])))
    assert seen[0] == ("simulate", 0) and seen[-1] == ("simulate", 2)


def test_what_is_to_come_is_reckoned_by_place_in_the_dialogue():
    costs = TurnCosts(dialogues=10, turns=6)
    assert costs.ahead() is None
    for n in range(3):  # each turn costs a cent more than the one before
        for _ in range(10):
            costs.add(n, 0.01 * (n + 1))
    assert costs.ahead() == pytest.approx(10 * (0.04 + 0.05 + 0.06))
    costs.skip(3, 6)  # one dialogue failed
    assert costs.ahead() == pytest.approx(9 * (0.04 + 0.05 + 0.06))


def test_an_unknown_cost_makes_the_forecast_unknown_and_never_less():
    turns, dialogues = TurnCosts(2, 2), DialogueCosts(4)
    turns.add(0, None)
    dialogues.add(0.5)
    assert turns.ahead() is None and dialogues.ahead(0.6) == pytest.approx(1.4)
    dialogues.add(None)
    assert dialogues.ahead(0.6) is None


def test_what_an_endpoint_says_is_never_markup(capfd):
    progress = SimulateProgress(
        of=2,
        of_turns=8,
        dialogues=0,
        turns=0,
        failed=0,
        calls=0,
        stage_calls=0,
        failures=0,
        tokens=0,
        usd=None,
        max_usd=None,
        forecast=None,
    )
    with _bar() as show:
        show(progress)
        logging.getLogger("culturepark").warning(
            "HTTP 400: [/INST] :smile: \x1b[31mred\x1b]0;title\x07"
        )
    assert "[/INST] :smile: \\x1b[31mred\\x1b]0;title\\x07" in capfd.readouterr().err.replace(
        "\n", ""
    )


def test_control_characters_are_written_out_and_all_else_is_left():
    assert (
        printable("a\tb\n\x1b[2J\r\x9b1m\u202egnp\x7f") == "a\tb\n\\x1b[2J\\r\\x9b1m\\u202egnp\\x7f"
    )
    assert printable("Ghadeer قالت: 好。 ½ 🙂") == "Ghadeer قالت: 好。 ½ 🙂"


def test_without_a_terminal_a_line_says_what_begins(capfd):
    event = RefineProgress(
        of=2,
        dialogues=0,
        opinions=0,
        kept=0,
        calls=9,
        stage_calls=0,
        failures=0,
        tokens=5,
        usd=0.5,
        max_usd=2.0,
        forecast=1.25,
    )
    with progress(quiet=False) as show:
        show(event)
    assert "refine: 0/2 dialogues · 0 kept" in capfd.readouterr().err
    assert "$0.50 of at most $2, about $1.25 when this stage ends" in describe_progress(event, 0.1)


def test_building_the_tiny_base_reports_steps_and_time_left(tmp_path, monkeypatch):
    from culturepark.local_models import tiny

    monkeypatch.setattr(tiny, "EVERY", 0.0)
    lines = []
    with aloud(lines.append):
        tiny.build(tmp_path / "base", texts=32, epochs=1, gate=99)
    assert lines[0].startswith("building the tiny base in ")
    assert lines[1].startswith("tiny base: step 1/4 · loss ") and lines[-1].endswith(" 0 s left")


def test_tuning_reports_its_first_step_then_every_few_seconds_and_its_end(capfd):
    tell = _lines(quiet=False, every=0.0)
    for step in range(3):
        tell("step", {"culture": "north", "step": step, "of": 40, "loss": 1.5})
    tell("made", {"culture": "north", "loss": 1.25})
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "north: step 0/40 · loss 1.5" and lines[-1] == "north: done · loss 1.25"
    assert all(line.endswith(" s left") for line in lines[1:-1])


def test_of_two_listeners_only_the_innermost_hears():
    outer, inner = [], []
    with aloud(outer.append):
        with aloud(inner.append):
            logging.getLogger("culturepark").warning("the endpoint is down")
        logging.getLogger("culturepark").info("a batch was sent")
    assert (outer, inner) == ([], ["the endpoint is down"])
