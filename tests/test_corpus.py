"""The corpus: samples as in the paper, no question in two splits, files that trainers' own loaders read."""

import json

import pytest
from conftest import TEA
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark.corpus.build import completion, split
from culturepark.records import Option, Question
from culturepark.settings import Split


@pytest.fixture
def done(park):
    return cp.run(
        "c", {**TEA, "model": "conftest:Plays", "dialogues": 30, "turns": 4}, formats=("trl", "openai", "hub")
    )


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@given(
    st.sets(st.text("abcdef", min_size=1), min_size=1, max_size=60),
    st.floats(0, 0.49),
    st.floats(0, 0.49),
    st.integers(),
)
def test_every_question_is_in_one_split_and_some_train(questions, validation, test, seed):
    made = split(list(questions), Split(validation=validation, test=test), seed)
    assert set(made) == questions and "train" in made.values()
    assert made == split(sorted(questions), Split(validation=validation, test=test), seed)


def test_no_question_crosses_splits_in_the_files(done):
    seen = {
        name: {r["metadata"]["question"] for r in rows(done.corpus / f"trl/{name}.jsonl")}
        for name in ("train", "validation", "test")
    }
    assert (
        all(seen.values())
        and not seen["train"] & (seen["validation"] | seen["test"])
        and not seen["validation"] & seen["test"]
    )


def test_a_sample_is_system_question_with_options_and_option_with_opinion(done):
    row = rows(done.corpus / "trl/train.jsonl")[0]
    assert [m["role"] for m in row["prompt"]] == ["system", "user"] and [m["role"] for m in row["completion"]] == [
        "assistant"
    ]
    assert "Northern" in row["prompt"][0]["content"] and "1. Agree\n2. Disagree" in row["prompt"][1]["content"]
    assert row["completion"][0]["content"].startswith(("Agree. ", "Disagree. "))


def test_the_openai_file_holds_messages_only_and_its_origins_stand_beside_it(done):
    chat, origins = rows(done.corpus / "openai/train.jsonl"), rows(done.corpus / "openai/train.metadata.jsonl")
    assert all(
        set(r) == {"messages"} and [m["role"] for m in r["messages"]] == ["system", "user", "assistant"] for r in chat
    )
    assert len(chat) == len(origins) >= 10


def test_datasets_loads_every_format(done, tmp_path):
    from datasets import load_dataset

    hub = load_dataset(str(done.corpus / "hub"), cache_dir=str(tmp_path))
    trl = load_dataset("json", data_dir=str(done.corpus / "trl"), cache_dir=str(tmp_path))
    assert {k: len(v) for k, v in hub.items()} == {k: len(v) for k, v in trl.items()}
    assert hub["train"][0]["completion"] == trl["train"][0]["completion"][0]["content"]


def test_every_sample_is_explained_down_to_its_seed(done, park):
    row = rows(done.corpus / "trl/test.jsonl")[0]
    found = cp.explain(done, row["metadata"]["id"])
    assert found["sample"]["split"] == "test" and found["opinion"]["verdicts"][-1]["label"] == "entail"
    assert found["turns"][-1]["n"] == found["opinion"]["turn"] and row["metadata"]["persona"] in [
        s["persona"] for s in found["seats"]
    ]
    with pytest.raises(cp.NotFound):
        cp.explain(done, "nothing")


def test_rejected_opinions_are_exported_with_their_reasons(park):
    # Plays words one opinion alike for every question: the second dialogue on a question repeats the first.
    run = cp.run(
        "r",
        {**TEA, "model": "conftest:Plays", "dialogues": 6, "turns": 4, "questions": ("T1",), "refine": {"clusters": 1}},
        formats=("trl",),
    )
    rejects = rows(run.corpus / "rejects.jsonl")
    assert {r["dropped"] for r in rejects} == {"redundant"} and all(r["detail"] and r["text"] for r in rejects)


def test_samples_asks_for_that_many_and_gets_exactly_that_many(park):
    run = cp.run("n", {**TEA, "model": "conftest:Plays", "samples": 37, "dialogues": 1, "turns": 4}, formats=("trl",))
    with run.journal(write=False) as journal:
        assert journal.count("SELECT culture, COUNT(*) FROM samples GROUP BY culture") == [("north", 37)]


def test_too_few_samples_is_an_error_never_a_smaller_corpus(park):
    with pytest.raises(cp.RunFailed, match="no opinion was kept"):
        cp.run("none", {**TEA, "model": "conftest:Mute", "samples": 5, "dialogues": 1, "turns": 2})


def test_an_export_that_fails_leaves_the_last_one_whole(done, monkeypatch):
    before = (done.corpus / "trl/train.jsonl").read_bytes()
    monkeypatch.setattr(
        "culturepark.corpus.formats.trl.row", lambda s: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(cp.ParkError, match="No space left"):
        cp.export(done, ("trl",))
    assert (done.corpus / "trl/train.jsonl").read_bytes() == before and not list(done.corpus.glob(".*"))


def test_an_unknown_format_comes_with_the_nearest(done):
    with pytest.raises(cp.InputError, match="Did you mean 'openai'"):
        cp.export(done, ("openia",))


def test_a_ten_point_answer_names_its_scale():
    scale = tuple(
        Option(code=c, label={1: "Completely disagree", 10: "Completely agree"}.get(c, "")) for c in range(1, 11)
    )
    question = Question(id="Q", topic="science", about="science", text="Is it?", options=scale)
    assert question.prompt.splitlines()[1:] == ["1. Completely disagree", *"23456789", "10. Completely agree"]
    assert (
        completion(question, 8, "I do.") == "8 on a scale from 1 (completely disagree) to 10 (completely agree). I do."
    )


def test_by_culture_writes_a_folder_a_culture(done):
    cp.export(done, ("openai",), by_culture=True)
    assert (done.corpus / "openai/north/train.jsonl").exists() and not (done.corpus / "openai/train.jsonl").exists()
