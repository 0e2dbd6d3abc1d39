"""A disk that fills up: work stops at once, says what is safe, and goes on from there when there is
room again.
"""

import asyncio
import os
import random
import sqlite3
import subprocess
import sys

import pytest
from conftest import ROOT, TEA, room

import culturepark as cp
from culturepark import logs
from culturepark.errors import JournalError, ParkError
from culturepark.records import Scene
from culturepark.store import RunStore, connection

WIDTH = 8
SCENE = Scene(
    ordinal=0,
    culture="north",
    scenario="tea",
    question="T1",
    mode="cross",
    style="free",
    turns=4,
    seats=(),
    answer=1,
    run="r",
)
ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def started(url, **more):
    given = {
        "model": "openai/embedded",
        "base_url": url,
        "dialogues": 60,
        "turns": 4,
        "concurrency": WIDTH,
    }
    return cp.start("x", {**TEA, **given, **more})


def kept(folder, what="calls"):
    with RunStore(folder, write=False) as journal:
        return journal.select(f"SELECT COUNT(*) FROM {what}")[0][0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cap", [{}, {"max_tokens": 10_000_000}])
def test_simulating_stops_within_the_calls_in_flight_and_goes_on_later(park, seed, cap):
    with cp.Server() as server:
        run = started(server.url, **cap)
        with (
            room(random.Random(seed).randrange(80_000, 300_000)),
            pytest.raises(JournalError, match=r"Safe.*--resume"),
        ):
            cp.simulate(run)
        assert 0 <= server.counts["requests"] - kept(run.folder) <= WIDTH
        assert cp.simulate(run)["turns"] == 240
    assert kept(run.folder, "turns") == 240


@pytest.mark.parametrize("seed", range(2))
def test_refining_stops_within_the_calls_in_flight_and_goes_on_later(park, seed):
    with cp.Server() as server:
        run = started(server.url)
        cp.simulate(run)
        grown = (run.folder / "journal.sqlite").stat().st_size
        with (
            room(grown + random.Random(seed).randrange(20_000)),
            pytest.raises(JournalError, match=r"Safe.*--resume"),
        ):
            cp.refine(run)
        assert 0 <= server.counts["requests"] - kept(run.folder) <= WIDTH
        cp.refine(run)
        assert kept(run.folder, "scenes WHERE refined = 'ok'") == 60


def test_evaluating_is_stopped_by_one_line_and_exit_code_1(tmp_path):
    with cp.Server() as server:
        words = (
            "evaluate",
            "x",
            "vsm13",
            "--model",
            "openai/embedded",
            "--base-url",
            server.url,
            "--count",
            "4",
        )
        more = ("--cultures", "arabic,german", "--concurrency", str(WIDTH), "--out", str(tmp_path))
        code = (
            "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (150_000,) * 2); from"
            " culturepark.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words, *more], env=ENV, capture_output=True, text=True
        )
        served = server.counts["requests"]
    said = [line for line in done.stderr.splitlines() if not line.startswith("vsm13")]
    assert done.returncode == 1 and len(said) == 1 and "Safe in it are" in said[0], done.stderr
    assert 0 <= served - kept(tmp_path / "x" / "evals") <= WIDTH


def test_a_journal_that_another_program_holds_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "BUSY", 0.05)
    with RunStore(tmp_path) as journal:
        other = sqlite3.connect(tmp_path / "journal.sqlite")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match=r"locked.*Another program holds the file; close it"):
            journal.set_meta("a", "b")
        other.close()
        with pytest.raises(JournalError, match="locked"):  # once failed, no write is tried again
            journal.set_meta("a", "b")


def test_a_failed_commit_in_the_loop_ends_work_that_waits_for_a_model(tmp_path):
    async def work(journal):
        with journal.guard():
            journal.open_scene(SCENE)
            with room(1000):
                await asyncio.sleep(60)

    with RunStore(tmp_path) as journal, pytest.raises(JournalError, match="Safe in it are 0 calls"):
        asyncio.run(work(journal))


def test_a_log_that_cannot_be_written_is_told_once_and_stops_nothing(park, caplog):
    run = cp.start("x", {**TEA, "model": "conftest:Plays", "dialogues": 3})
    (run.folder / "log.jsonl").mkdir()
    cp.simulate(run)
    with logs.keep_log(run.folder):
        logs.log.warning("one")
        logs.log.warning("two")
    assert len([r for r in caplog.records if "going on without it" in r.getMessage()]) == 1


def test_run_toml_on_a_full_disk_is_one_error(park):
    with (
        room(100),
        pytest.raises(ParkError, match=r"cannot write .*run\.toml|cannot write the run"),
    ):
        cp.start("x", {**TEA, "model": "conftest:Plays"})
    assert not (park / "outputs/x/run.toml").exists()
    cp.start("x", {**TEA, "model": "conftest:Plays"})


def test_a_corpus_on_a_full_disk_is_one_error_and_the_old_one_stays(park):
    run = cp.run("x", {**TEA, "model": "conftest:Plays", "dialogues": 30}, formats=("trl",))
    before = {p: p.read_bytes() for p in (run.corpus / "trl").iterdir()}
    with room(33_000), pytest.raises(ParkError, match="cannot write the corpus"):
        cp.export(run, ("trl", "openai"))
    assert {p: p.read_bytes() for p in (run.corpus / "trl").iterdir()} == before
