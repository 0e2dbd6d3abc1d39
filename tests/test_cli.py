"""The command: exit codes, one clear error each, JSON for machines."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise

import pytest
from conftest import ROOT

import culturepark as cp

ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "COLUMNS": "100"}
TEA = (
    "--scenario",
    "tea",
    "--contact",
    "south",
    "-c",
    "north",
    "-m",
    "conftest:Plays",
    "-n",
    "4",
    "--turns",
    "4",
)


def command(*args, cwd=None, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "culturepark", *args],
        env=ENV,
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_stages_one_by_one_equal_run(park):
    command("simulate", "steps", *TEA, cwd=park)
    made = json.loads(command("refine", "steps", "--json", cwd=park).stdout)
    command("export", "steps", "--to", "trl", cwd=park)
    command("report", "steps", cwd=park)
    whole = json.loads(command("run", "whole", *TEA, "--to", "trl", "--json", cwd=park).stdout)
    same = ("dialogues", "turns", "opinions", "kept", "samples")
    assert {k: made[k] for k in same} == {k: whole[k] for k in same} and whole["samples"] > 0
    texts = [
        (park / "outputs" / name / "corpus/trl/train.jsonl").read_text()
        for name in ("steps", "whole")
    ]
    assert texts[0] == texts[1]


def test_explain_walks_back_from_a_row(park):
    command("run", "x", *TEA, "--to", "trl", cwd=park)
    row = json.loads((park / "outputs/x/corpus/trl/train.jsonl").read_text().splitlines()[0])
    told = command("explain", row["metadata"]["id"], "--run", "x", cwd=park).stdout
    assert (
        row["completion"][0]["content"] in told
        and "verdict 0 entail" in told
        and "seat 1    delegate" in told
    )


def test_lists_given_one_by_one_are_all_taken(park):
    command("run", "x", *TEA, "--to", "trl", "--to", "openai", cwd=park)
    assert {p.name for p in (park / "outputs/x/corpus").iterdir() if p.is_dir()} == {
        "trl",
        "openai",
    }


def test_seeds_given_one_by_one_are_all_taken(tmp_path):
    asked = "evaluate x survey -m embedded -c arabic --limit 1 --seeds 0 --seeds 1 --json".split()
    assert json.loads(command(*asked, cwd=tmp_path).stdout)[0]["setup"]["seeds"] == [0, 1]


def test_an_id_that_several_begin_with_is_told_as_such(park):
    command("run", "x", *TEA, "-n", "8", "--to", "trl", cwd=park)
    rows = (park / "outputs/x/corpus/trl/train.jsonl").read_text().splitlines()
    first = sorted(json.loads(row)["metadata"]["id"][0] for row in rows)
    shared = next(a for a, b in pairwise(first) if a == b)
    assert (
        f"begin with '{shared}'"
        in command("explain", shared, "--run", "x", cwd=park, code=2).stderr
    )


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "../evil"), "cannot be a folder"),
        (("run", "x", "-c", "nroth", "--scenario", "tea"), "Did you mean 'north'"),
        (("run", "x", "-m", "gpt"), "write PROVIDER/NAME"),
        (("run", "x", "-m", "openai/"), "names no model"),
        (("run", "x", *TEA, "--turns", "0"), "turns"),
        (("run", "x", *TEA, "--modes", "corss"), "modes"),
        (("run", "x", "--fault", "lies=0.5"), "contradiction"),
        (("run", "x", "--fault", "lies"), "KIND=RATE"),
        (("run", "x", "--config", "nowhere.toml"), "nowhere.toml"),
        (("run", "x", *TEA, "--to", "trl,hbu"), "Did you mean 'hub'"),
        (("run", "nothing", "--resume"), "no run at"),
        (("run", "x", "--resume", "--turns", "3"), "--resume goes on"),
        (("run", "x", "--survey", "nowhere.csv", *TEA), "nowhere.csv"),
        (("explain", "abc", "--run", "nothing"), "no run at"),
        (("simluate", "x"), "Did you mean 'simulate'"),
        (("show", "narrator"), "no role 'narrator'"),
        (("check", "-w", "/nowhere"), "no workspace at"),
        (("simulate", "x", "--dialogues", "many"), "many"),
    ],
)
def test_bad_input_is_one_clear_error_exit_2_and_nothing_half_written(park, args, told):
    done = command(*args, cwd=park, code=2)
    assert told in done.stderr and not any(
        p.name != ".gitkeep" for p in (park / "outputs").iterdir()
    )


def test_check_lists_every_mistake_and_exits_2(park):
    for name in ("norta", "nortb"):
        (park / f"personas/north/{name}.toml").write_text("nmae = 1\n")
    told = command("check", cwd=park, code=2).stderr
    assert (
        "personas/north/norta.toml: nmae: unknown key. Did you mean 'name'?" in told
        and "nortb.toml" in told
    )


def test_an_interrupt_exits_130_and_resume_goes_on(tmp_path):
    args = [
        sys.executable,
        "-m",
        "culturepark",
        "run",
        "long",
        "-c",
        "german",
        "-n",
        "3000",
        "--out",
        str(tmp_path),
    ]
    heard = partial(
        signal.signal, signal.SIGINT, signal.default_int_handler
    )  # tests that run in the background ignore it
    process = subprocess.Popen(
        args,
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )
    while process.poll() is None and not (tmp_path / "long/journal.sqlite").exists():
        time.sleep(0.05)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130 and "--resume" in process.stderr.read()
    process.stderr.close()


def test_without_a_terminal_progress_is_plain_lines(park):
    err = command("run", "p", *TEA, cwd=park).stderr
    assert "simulate: 4/4 dialogues · 16 turns" in err and "\x1b" not in err


def test_lists_may_be_given_at_once_or_one_by_one(park):
    for name, cultures in (("a", ("-c", "north,south")), ("b", ("-c", "north", "-c", "south"))):
        command(
            "simulate",
            name,
            "--scenario",
            "tea",
            "--contact",
            "south",
            *cultures,
            "-m",
            "conftest:Plays",
            "-n",
            "1",
            "--turns",
            "2",
            cwd=park,
        )
        assert 'cultures = ["north", "south"]' in (park / "outputs" / name / "run.toml").read_text()


def test_the_help_of_run_has_sections_examples_and_the_defaults_that_hold():
    from culturepark.offline.faults import KINDS

    told = " ".join(command("run", "--help").stdout.split())
    sections = (
        "Options:",
        "Who talks about what:",
        "How long, and in which way:",
        "Models:",
        "Pace and money:",
        "Examples:",
    )
    assert [told.index(section) for section in sections] == sorted(
        told.index(section) for section in sections
    )
    assert "culturepark run real --resume" in told and ", ".join(KINDS) in told
    s = cp.Settings()
    shown = (s.contact, s.scenario, s.dialogues, s.turns, s.seed, s.stance, s.concurrency)
    assert [value for value in shown if f"(default {value})" not in told] == []
    assert (
        s.model == "embedded"
        and s.cut_turns == "trim"
        and set(s.modes) == {"cross", "in"}
        and len(s.styles) == 2
    )


def test_explain_names_the_nearest_ids(park):
    command("run", "x", *TEA, "--to", "trl", cwd=park)
    row = json.loads((park / "outputs/x/corpus/trl/train.jsonl").read_text().splitlines()[0])
    name = row["metadata"]["id"]
    told = command(
        "explain", name[:7] + "zz" + name[9:], "--run", "x", "--json", cwd=park, code=2
    ).stdout
    assert f"Did you mean '{name}'" in json.loads(told)["error"]
    assert (
        "There are: "
        in command("explain", "nothing-like-it", "--run", "x", cwd=park, code=2).stderr
    )


def test_calls_shows_the_known_price_after_a_failure_at_once(park):
    end = (
        "-m",
        "openai/x",
        "--base-url",
        "http://127.0.0.1:9/v1",
        "--price",
        "openai/x=1/2",
        "--api-key",
        "sk-none-at-all",
    )
    command("simulate", "x", *TEA, *end, cwd=park, code=1)
    told = command("calls", "x", cwd=park).stdout
    assert (
        "$1 in, $2 out per million tokens (settings)" in told
        and "in all  $0.0000 and 0 tokens" in told
    )
    (price,) = json.loads(command("calls", "x", "--json", cwd=park).stdout)["prices"].values()
    assert price["prompt"] == 1 and price["completion"] == 2


def test_a_verb_of_which_every_dialogue_failed_exits_with_one_error(park):
    down = (*TEA[:6], "-m", "test_park:Down", "-n", "3")
    for words in (("simulate", "down", *down), ("refine", "down"), ("run", "down", "--resume")):
        ended = command(*words, "--json", cwd=park, code=1)
        error = json.loads(ended.stdout)
        assert (error["kind"], error["code"]) == ("RunFailed", 1)
        assert "no dialogue was held: 3 dialogues failed (failed: broken pipe)" in error["error"]
        assert ended.stderr == f"culturepark: {error['error']}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_the_verbs(shell):
    asked = {
        **ENV,
        "_CULTUREPARK_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "culturepark exp",
        "COMP_CWORD": "exp" if shell == "fish" else "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "culturepark"], env=asked, capture_output=True, text=True
    )
    assert "export" in done.stdout and "explain" in done.stdout and "tune" not in done.stdout
