"""The journal: whatever happens, what is on disk is whole, and only one process writes it."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, TEA

import culturepark as cp
from culturepark.records import Reply, Sample, Scene, Turn
from culturepark.store import RunStore
from culturepark.store.counts import count_failed, count_not_refined
from culturepark.store.queries import iterate_samples, iterate_scenes

ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def files(run: Path) -> dict[str, bytes]:
    """Every exported file of a run, by its path."""
    corpus = run / "corpus"
    return {
        str(p.relative_to(corpus)): p.read_bytes() for p in sorted(corpus.rglob("*")) if p.is_file()
    }


def calls(run: Path) -> int:
    """How many calls a run that is being written has journalled so far."""
    try:
        with RunStore(run, write=False) as journal:
            return journal.select("SELECT COUNT(*) FROM calls")[0][0]
    except cp.ParkError:
        return 0


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "culturepark", *args]


JOB = ("--cultures", "arabic", "--dialogues", "60", "--turns", "8")


def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(tmp_path):
    def words(folder: str, *args: str) -> list[str]:
        return command("run", "job", *args, "--to", "trl,openai", "--out", str(tmp_path / folder))

    def run(folder: str, *args: str):
        return subprocess.run(
            words(folder, *args), env=ENV, capture_output=True, text=True, check=True
        )

    run("whole", *JOB)
    killed = tmp_path / "killed" / "job"  # the same name: it stands on the corpus's card
    for kill in range(4):
        how = ("--resume",) if (killed / "run.toml").exists() else JOB
        process = subprocess.Popen(
            words("killed", *how), env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and calls(killed) < 150 * kill + random.Random(kill).randrange(
            100
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run("killed", "--resume")
    assert files(killed) == files(tmp_path / "whole" / "job")
    with RunStore(killed, write=False) as journal:
        assert journal.select(
            "SELECT COUNT(*), COUNT(DISTINCT dialogue || ':' || n) FROM turns"
        ) == [(480, 480)]


def test_a_finished_run_run_again_does_no_work(park):
    first = cp.run("again", {**TEA, "model": "conftest:Plays", "dialogues": 4}, formats=("trl",))
    with first.open_store(write=False) as journal:
        calls = journal.select("SELECT COUNT(*) FROM calls")
    before = files(first.folder)
    again = cp.run("again", {**TEA, "model": "conftest:Plays", "dialogues": 4}, formats=("trl",))
    with again.open_store(write=False) as journal:
        assert journal.select("SELECT COUNT(*) FROM calls") == calls and calls[0][0] > 0
    assert files(again.folder) == before


def test_a_run_may_grow_but_not_change(park):
    small = cp.run("grow", {**TEA, "model": "conftest:Plays", "dialogues": 2}, formats=("trl",))
    grown = cp.run("grow", {**TEA, "model": "conftest:Plays", "dialogues": 5}, formats=("trl",))
    with grown.open_store(write=False) as journal:
        assert len(list(iterate_scenes(journal))) == 5
    with pytest.raises(
        cp.InputError, match=r"created with different settings: turns 14 → 3\. Choose a new name"
    ):
        cp.start("grow", {**TEA, "model": "conftest:Plays", "turns": 3})
    assert small.folder == grown.folder


def test_editing_a_card_does_not_change_a_run_that_is_under_way(park):
    run = cp.start("frozen", {**TEA, "model": "conftest:Plays", "dialogues": 2})
    card = park / "personas/north/norta.toml"
    card.write_text(card.read_text().replace("age = 30", "age = 77"))
    assert cp.resume(run.folder).workspace.persona("north/norta").age == 30
    with pytest.raises(cp.InputError, match=r"personas \(cards\) north/norta"):
        cp.start("frozen", {**TEA, "model": "conftest:Plays", "dialogues": 2})


def test_a_second_process_on_the_same_run_is_refused(park):
    run = cp.start("one", {**TEA, "model": "conftest:Plays"})
    with run.open_store():
        code = f"import culturepark as cp; cp.simulate(cp.resume({str(run.folder)!r}))"
        second = subprocess.run(
            [sys.executable, "-c", code], env=ENV, capture_output=True, text=True
        )
    assert "being written by another process" in second.stderr


def test_a_journal_of_a_newer_version_is_left_alone(tmp_path):
    RunStore(tmp_path).close()
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    db.commit()
    db.close()
    with pytest.raises(cp.ParkError, match=r"version 99.*update CulturePark"):
        RunStore(tmp_path)


def test_a_file_that_is_no_journal_is_told(tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(cp.ParkError, match=r"journal"):
        RunStore(tmp_path)


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_committed(tmp_path):
    with RunStore(tmp_path) as journal:
        journal.add_turn("d", Turn(n=0, seat=0, speaker="A", text="kept", cue="", call=""))
        journal.commit()
        ((pages,),) = journal.select("PRAGMA page_count")
        journal.select(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(cp.ParkError, match=r"full.*--resume"):
            for n in range(1, 100):
                journal.add_turn(
                    "d", Turn(n=n, seat=0, speaker="A", text="x" * 9000, cue="", call="")
                )
        journal.select("PRAGMA max_page_count = 1000000")
    with RunStore(tmp_path, write=False) as journal:
        assert journal.read_turns("d")[0].text == "kept"


def test_a_turn_is_never_written_twice(tmp_path):
    with RunStore(tmp_path) as journal:
        turn = Turn(n=0, seat=0, speaker="A", text="once", cue="", call="")
        journal.add_turn("d", turn)
        with pytest.raises(cp.ParkError, match="UNIQUE"):
            journal.add_turn("d", turn)


def test_failed_calls_are_kept_with_their_reason_not_as_empty_answers(tmp_path):
    with RunStore(tmp_path) as journal:
        journal.add_call(
            "k", "s", "delegate", Reply(status="failed", reason="429 for an hour", model="m")
        )
        assert journal.select("SELECT status, reason, prompt_tokens FROM calls") == [
            ("failed", "429 for an hour", None)
        ]


def test_an_unwritable_output_folder_is_bad_input(park):
    (park / "file").write_text("in the way")
    with pytest.raises(cp.InputError, match=r"cannot write|cannot open"):
        cp.start("x", {**TEA, "model": "conftest:Plays"}, out=park / "file")


def test_run_toml_is_the_resolved_configuration(park):
    run = cp.start("conf", {**TEA, "model": "conftest:Plays", "seed": 5})
    assert run.settings.seed == 5 and cp.resume(run.folder).settings == run.settings
    assert json.loads(json.dumps(run.settings.model_dump(mode="json")))["scenario"] == "tea"


def test_a_journal_from_before_thoughts_were_kept_is_read_as_it_is_and_gets_a_place_for_them_when_it_is_written(  # noqa: E501
    tmp_path,
):
    with RunStore(tmp_path) as journal:
        journal.add_call("old", "s", "r", Reply("ok", "Tea."))
        for name in ("reasoning", "shares"):
            journal.write(f"ALTER TABLE calls DROP COLUMN {name}")
    with RunStore(tmp_path, write=False) as reader:
        assert reader.find_answer("old") == Reply("ok", "Tea.")
    with RunStore(tmp_path) as journal:
        journal.add_call("new", "s", "r", Reply("ok", "Tea.", option_probs=(1.0,), reasoning="Hm."))
        assert (
            journal.find_answer("new") == Reply("ok", "Tea.", option_probs=(1.0,), reasoning="Hm.")
            and journal.find_answer("old").text == "Tea."
        )


def test_a_corpus_that_grew_is_appended_to_and_one_that_changed_is_written_from_there(tmp_path):
    like = dict.fromkeys(
        "question topic system prompt completion opinion dialogue persona".split(), "x"
    )
    ten = [Sample(id=str(n), culture="c", answer=n, split="train", **like) for n in range(10)]

    def count_changes(store, samples):
        ((before,),) = store.select("SELECT total_changes()")
        assert store.write_samples(samples) == len(samples)
        assert list(iterate_samples(store)) == samples
        return store.select("SELECT total_changes()")[0][0] - before

    with RunStore(tmp_path) as store:
        assert count_changes(store, ten[:6]) == 6
        assert count_changes(store, ten) == 4
        assert count_changes(store, ten) == 0
        assert count_changes(store, [*ten[:7], *ten[8:]]) == 3 + 2
        assert count_changes(store, ten[:2]) == 7
        assert count_changes(store, []) == 2


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("turn 3 (Anna (7)): failed: 500", "failed: 500"),
        ("turn 3 (Anna): empty: it says (once): no", "empty: it says (once): no"),
        ("all turns", "all turns"),
        ("turn 0 (Bo): unparsed: no JSON; the model wrote: 'Sure'", "unparsed: no JSON"),
    ],
)
def test_reasons_of_one_cause_are_one_reason(tmp_path, reason, cause):
    scene = Scene(
        ordinal=0,
        culture="c",
        scenario="s",
        question="q",
        mode="in",
        style="free",
        turns=2,
        seats=(),
        answer=1,
        run="r",
    )
    with RunStore(tmp_path) as store:
        store.open_scene(scene)
        store.end_scene(scene.id, "failed", reason)
        assert count_failed(store, None, 9) == (1, 1, [(cause, 1)])
        store.add_opinions(scene, (), reason)
        assert count_not_refined(store, "c", 9).total == 1 and not store.is_refined(scene.id)
        store.add_opinions(scene, ())
        assert count_not_refined(store, "c", 9).total == 0 and store.is_refined(scene.id)


def test_the_old_name_of_a_runs_store_warns_and_works(park):
    run = cp.start("old", {**TEA, "model": "conftest:Plays"})
    with pytest.warns(DeprecationWarning, match=r"Run\.open_store"), run.journal() as store:
        assert not list(iterate_scenes(store))
