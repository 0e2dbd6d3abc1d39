"""A run of an earlier version: `data/version2` was stopped in the middle of its second half, with a
corpus of its first; `data/version2.samples.jsonl` is what the whole run gave then.
"""

import json
import shutil
from pathlib import Path

import pytest

import culturepark as cp
from culturepark.store.queries import iterate_samples, iterate_scenes

DATA = Path(__file__).parent / "data"
SAMPLES = [json.loads(line) for line in (DATA / "version2.samples.jsonl").open(encoding="utf-8")]


@pytest.fixture
def old(tmp_path, monkeypatch) -> cp.Run:
    """The old run, opened where it may be written."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA / "version2", tmp_path / "outputs" / "old")
    return cp.resume(tmp_path / "outputs" / "old")


def read_samples(run: cp.Run) -> list[dict]:
    """The samples of a run, with the fields that they had in those days."""
    with run.open_store(write=False) as journal:
        rows = [json.loads(sample.model_dump_json()) for sample in iterate_samples(journal)]
    return [{name: row[name] for name in SAMPLES[0]} for row in rows]


def test_an_old_run_goes_on_where_it_stopped_and_gives_the_same_samples(old):
    cp.run(old, formats=("trl",))
    assert read_samples(old) == SAMPLES
    with old.open_store(write=False) as journal:
        assert len({scene.ordinal for scene in iterate_scenes(journal)}) == 6
        assert len(list(iterate_scenes(journal))) == 12


def test_a_report_of_an_old_run_counts_what_it_held(old):
    cp.report(old)
    total = json.loads((old.folder / "report/report.json").read_text())["total"]
    assert (total["held"], total["turns"], total["samples"]) == (9, 38, 22)


def test_an_old_run_is_exported_as_it_stands(old):
    folder = cp.export(old, ("openai",))["openai"]
    lines = [json.loads(x) for p in folder.glob("*.jsonl") for x in p.read_text().splitlines()]
    assert len(lines) == 22


def test_a_sample_of_an_old_run_is_explained(old):
    sample = read_samples(old)[3]
    lineage = cp.explain(old, sample["id"])
    assert lineage["sample"]["completion"] == sample["completion"]
    assert [turn["n"] for turn in lineage["turns"]] == list(range(lineage["opinion"]["turn"] + 1))
