"""A run whose scenes are spread over several files is read as one."""

import json

import pytest
from conftest import TEA

import culturepark as cp
from culturepark.errors import JournalError
from culturepark.store import RunStore
from culturepark.store.counts import count_all, count_stages
from culturepark.store.queries import iterate_kept, iterate_scenes

PLAYS = {**TEA, "cultures": ("north", "south"), "model": "conftest:Plays", "turns": 4}


def read_files(run):
    corpus = {p.name: p.read_bytes() for p in run.corpus.rglob("*.jsonl")}
    facts = json.loads((run.folder / "report/report.json").read_text())
    return corpus | {name: facts[name] for name in ("stages", "dropped", "stance", "examples")}


def test_three_shards_give_the_corpus_and_the_report_of_one(park):
    one, three = (
        cp.run("x", {**PLAYS, "dialogues": 6, "shards": n}, out=park / str(n)) for n in (1, 3)
    )
    assert read_files(one) == read_files(three)
    files = sorted(p.name for p in three.folder.glob("journal*.sqlite"))
    assert files == ["journal-1.sqlite", "journal-2.sqlite", "journal.sqlite"]
    with three.open_store(write=False) as store:
        places = {store.choose_shard(scene.id) for scene in iterate_scenes(store)}
        assert places == {"main", "shard_1", "shard_2"} and count_all(store).dialogues == 12
        rows = store.select(
            "SELECT COUNT(*) FROM main.scenes UNION ALL SELECT COUNT(*) FROM scenes"
        )
        assert 0 < rows[0][0] < rows[1][0] == 12


def test_a_run_of_three_shards_goes_on_and_does_nothing_twice(park):
    whole = cp.run("x", {**PLAYS, "dialogues": 4}, out=park / "whole")
    half = cp.start("x", {**PLAYS, "dialogues": 2, "shards": 3}, out=park / "half")
    cp.simulate(half)
    grown = cp.run(cp.resume(half.folder, dialogues=4))
    assert read_files(grown)["train.jsonl"] == read_files(whole)["train.jsonl"]
    before = count_calls(grown)
    cp.run(cp.resume(half.folder))
    assert count_calls(grown) == before == count_calls(whole)


def count_calls(run):
    return sum(group["calls"] for group in cp.calls(run)["groups"])


def test_a_run_keeps_the_shards_that_it_was_created_with(park):
    run = cp.start("x", {**PLAYS, "shards": 2})
    run.open_store().close()
    with pytest.raises(cp.InputError, match=r"shards 2 → 3"):
        cp.start("x", {**PLAYS, "shards": 3})
    with pytest.raises(cp.InputError, match="shards cannot change"):
        cp.resume(run.folder, shards=1)


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: p.write_bytes(b"x" * 9000)])
def test_a_shard_that_is_gone_or_damaged_is_one_error_that_names_it(tmp_path, harm):
    RunStore(tmp_path, shards=3).close()
    harm(tmp_path / "journal-2.sqlite")
    for write in (True, False):
        with pytest.raises(
            JournalError, match=r"journal-2\.sqlite(: file is not a database| is gone| is not)"
        ):
            RunStore(tmp_path, write=write)


def test_a_store_that_does_not_say_how_many_files_it_has_is_damaged(tmp_path):
    with RunStore(tmp_path, shards=2) as store:
        store.set_meta("shards", "q")
    with pytest.raises(JournalError, match="does not say how many files it has"):
        RunStore(tmp_path)


def test_what_is_counted_and_joined_over_shards_is_what_one_file_would_give(park):
    run = cp.run("x", {**PLAYS, "dialogues": 5, "shards": 4})
    with run.open_store(write=False) as store:
        stages = [count_stages(store, culture) for culture in ("north", "south")]
        kept = list(iterate_kept(store))
        assert sum(stage.kept for stage in stages) == len(kept) == count_all(store).kept
        order = [(k.scene.culture, k.scene.ordinal, k.opinion.n) for k in kept]
        assert order == sorted(order)
