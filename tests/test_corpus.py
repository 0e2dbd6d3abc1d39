"""The corpus: samples as in the paper, no question in two splits, files that trainers' own loaders
read.
"""

import json
import sys
from itertools import count

import pytest
from conftest import ROOT, TEA
from hypothesis import given, settings
from hypothesis import strategies as st

import culturepark as cp
from culturepark.corpora import country_rows
from culturepark.corpora.build import split
from culturepark.corpora.formats import kto
from culturepark.corpora.pairs import pairs
from culturepark.pipeline.sizes import Yield, size_batch
from culturepark.records import Option, Pair, Question, Reply, Sample
from culturepark.settings import Split
from culturepark.store import RunStore
from culturepark.store.queries import find_sample
from culturepark.surveys import load_shipped
from culturepark.wording import completion

SPLITS = ("train", "validation", "test")
TUNED = ("dpo", "kto", "openai-dpo", "shares")
VALUES = {
    "cultures": ("arabic", "german"),
    "questions": ("Q27", "Q29", "Q33", "Q36", "Q170"),
    "dialogues": 10,
    "turns": 6,
    "seed": 1,  # with which each split has pairs
    "split": {"validation": 0.2, "test": 0.2},
    "faults": {"contradiction": 0.3},
}


@pytest.fixture
def done(park):
    return cp.run(
        "c",
        {**TEA, "model": "conftest:Plays", "dialogues": 30, "turns": 4},
        formats=("trl", "openai", "hub"),
    )


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """Two cultures of the shipped cards over five questions; some of their opinions contradict
    themselves at first.
    """
    return cp.run("p", VALUES, workspace=ROOT, out=tmp_path_factory.mktemp("paired"), formats=TUNED)


def read(run, form):
    return {name: rows(run.corpus / form / f"{name}.jsonl") for name in SPLITS}


def every(run, form):
    return [row for found in read(run, form).values() for row in found]


def told(row, side):
    """System, user and assistant, each in its words."""
    return tuple(m["content"] for m in row["prompt"] + row[side])


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
    assert [m["role"] for m in row["prompt"]] == ["system", "user"] and [
        m["role"] for m in row["completion"]
    ] == ["assistant"]
    assert (
        "Northern" in row["prompt"][0]["content"]
        and "1. Agree\n2. Disagree" in row["prompt"][1]["content"]
    )
    assert row["completion"][0]["content"].startswith(("Agree. ", "Disagree. "))


def test_the_openai_file_holds_messages_only_and_its_origins_stand_beside_it(done):
    chat, origins = (
        rows(done.corpus / "openai/train.jsonl"),
        rows(done.corpus / "openai/__metadata__/train.jsonl"),
    )
    assert all(
        set(r) == {"messages"}
        and [m["role"] for m in r["messages"]] == ["system", "user", "assistant"]
        for r in chat
    )
    assert len(chat) == len(origins) >= 10


def test_datasets_loads_every_format(done, tmp_path):
    from datasets import load_dataset

    hub = load_dataset(str(done.corpus / "hub"), cache_dir=str(tmp_path))
    trl = load_dataset("json", data_dir=str(done.corpus / "trl"), cache_dir=str(tmp_path))
    assert {k: len(v) for k, v in hub.items()} == {k: len(v) for k, v in trl.items()}
    assert hub["train"][0] == trl["train"][0]


def test_every_sample_is_explained_down_to_its_seed(done, park):
    row = rows(done.corpus / "trl/test.jsonl")[0]
    found = cp.explain(done, row["metadata"]["id"])
    assert (
        found["sample"]["split"] == "test" and found["opinion"]["verdicts"][-1]["label"] == "entail"
    )
    assert found["turns"][-1]["n"] == found["opinion"]["turn"] and row["metadata"]["persona"] in [
        s["persona"] for s in found["seats"]
    ]
    with pytest.raises(cp.NotFound):
        cp.explain(done, "nothing")


def test_rejected_opinions_are_exported_with_their_reasons(park):
    # Plays words one opinion alike for every question: the second dialogue on a question repeats
    # the first.
    run = cp.run(
        "r",
        {
            **TEA,
            "model": "conftest:Plays",
            "dialogues": 6,
            "turns": 4,
            "questions": ("T1",),
            "refine": {"clusters": 1},
        },
        formats=("trl",),
    )
    rejects = rows(run.corpus / "rejects.jsonl")
    assert {r["dropped"] for r in rejects} == {"redundant"} and all(
        r["detail"] and r["text"] for r in rejects
    )


def test_samples_asks_for_that_many_and_gets_exactly_that_many(park):
    run = cp.run(
        "n",
        {**TEA, "model": "conftest:Plays", "samples": 37, "dialogues": 1, "turns": 4},
        formats=("trl",),
    )
    with run.open_store(write=False) as journal:
        assert journal.select("SELECT culture, COUNT(*) FROM samples GROUP BY culture") == [
            ("north", 37)
        ]


@pytest.mark.parametrize(("wanted", "dialogues"), [(4, 1), (9, 3), (30, 8)])
def test_samples_hold_no_more_dialogues_than_they_need(park, wanted, dialogues):
    # Plays gives 4 opinions a dialogue of 4 turns in-culture; 10 at most are foreseen, so the first
    # batch is too small.
    made = {**TEA, "model": "conftest:Plays", "samples": wanted, "turns": 4, "modes": ("in",)}
    run = cp.run("few", made, formats=("trl",))
    with run.open_store(write=False) as journal:
        counts = cp.api.counts(journal)
    assert (counts["dialogues"], counts["samples"]) == (dialogues, wanted) and counts[
        "kept"
    ] < wanted + 4


@settings(deadline=None)
@given(
    st.integers(1, 6000), st.lists(st.integers(0, 10), min_size=20, max_size=20), st.integers(1, 40)
)
def test_a_batch_holds_few_dialogues_more_than_are_needed(wanted, yields, pilot):
    so_far, batches = Yield(), 0
    while so_far.kept < wanted and (size := size_batch(wanted, so_far, pilot, 10)):
        kept = sum(yields[n % 20] for n in range(so_far.dialogues + size))
        so_far, batches = so_far.add_batch(size, kept), batches + 1
    if so_far.kept >= wanted:
        needed = next(n for n in count() if sum(yields[i % 20] for i in range(n)) >= wanted)
        assert so_far.dialogues <= 2 * needed + 20 and batches < 50
    else:
        assert so_far.kept == 0 or so_far.last_kept == 0


def test_a_killed_run_goes_on_with_the_batches_it_would_have_held(park):
    made = {**TEA, "model": "conftest:Plays", "samples": 30, "turns": 4}
    whole = cp.run("whole", made, formats=("trl",))
    killed = cp.start("killed", {**made, "dialogues": 4})
    cp.refine((cp.simulate(killed), killed)[1])  # more than the first batch
    cp.run("killed", made, formats=("trl",))
    files = [(run.corpus / "trl/train.jsonl").read_text() for run in (whole, killed)]
    assert files[0] == files[1]


def test_a_run_that_stops_short_says_what_refused_its_opinions(park):
    with pytest.raises(cp.RunFailed, match=r"north in 10 dialogues.*dropped as form") as error:
        cp.run("bad", {**TEA, "model": "test_corpus:Shouts", "samples": 5, "turns": 2})
    assert "--resume" in str(error.value)


class Shouts:
    """A model whose opinions are no opinions by their form."""

    identity = "shouts"

    async def complete(self, request):
        text = (
            json.dumps({"opinions": [{"turn": 1, "text": "Tea?"}]})
            if request.role == "extractor"
            else f"Tea {request.seed}?"
        )
        return Reply("ok", text)


def test_too_few_samples_is_an_error_never_a_smaller_corpus(park):
    with pytest.raises(cp.RunFailed, match="no opinion was kept"):
        cp.run("none", {**TEA, "model": "conftest:Mute", "samples": 5, "dialogues": 1, "turns": 2})


def test_an_export_that_fails_leaves_the_last_one_whole(done, monkeypatch):
    before = (done.corpus / "trl/train.jsonl").read_bytes()
    monkeypatch.setattr(
        "culturepark.corpora.formats.trl.row",
        lambda s: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(cp.ParkError, match="No space left"):
        cp.export(done, ("trl",))
    assert (done.corpus / "trl/train.jsonl").read_bytes() == before and not list(
        done.corpus.glob(".*")
    )


def test_an_unknown_format_is_told_before_a_run_is_begun(park):
    with pytest.raises(cp.InputError, match="Did you mean 'trl'"):
        cp.run("typo", TEA, formats=("tlr",))
    assert not (park / "outputs/typo").exists()


def test_a_run_whose_export_would_be_empty_asks_nothing(park):
    with pytest.raises(cp.InputError, match="nothing to export as shares"):
        cp.run("empty", {**TEA, "model": "conftest:Plays"}, formats=("trl", "shares"))
    with cp.resume("outputs/empty").open_store(write=False) as journal:
        assert not journal.select("SELECT 1 FROM calls")


def test_the_report_is_written_even_where_the_export_fails(park):
    with pytest.raises(cp.RunFailed, match="nothing to export as dpo"):
        cp.run(
            "late", {**TEA, "model": "conftest:Plays", "dialogues": 2, "turns": 4}, formats=("dpo",)
        )
    assert (park / "outputs/late/report/report.html").exists()


def test_what_a_resumed_run_needs_is_checked_before_its_next_call(park, monkeypatch):
    (park / "own.py").write_text("def embed(texts): return [[1.0] for _ in texts]\n")
    monkeypatch.syspath_prepend(str(park))
    run = cp.start("own", {**TEA, "model": "conftest:Plays", "refine": {"embedder": "own:embed"}})
    (park / "own.py").unlink()
    monkeypatch.delitem(sys.modules, "own")
    with pytest.raises(cp.InputError, match="cannot import embedder 'own:embed'"):
        cp.run(run)
    assert not (run.folder / "journal.sqlite").exists()


def test_an_unknown_format_comes_with_the_nearest(done):
    with pytest.raises(cp.InputError, match="Did you mean 'openai'"):
        cp.export(done, ("openia",))


def test_a_ten_point_answer_names_its_scale():
    scale = tuple(
        Option(code=c, label={1: "Completely disagree", 10: "Completely agree"}.get(c, ""))
        for c in range(1, 11)
    )
    question = Question(id="Q", topic="science", about="science", text="Is it?", options=scale)
    assert question.prompt.splitlines()[1:] == [
        "1. Completely disagree",
        *"23456789",
        "10. Completely agree",
    ]
    assert (
        completion(question, 8, "I do.")
        == "8 on a scale from 1 (completely disagree) to 10 (completely agree). I do."
    )


def test_by_culture_writes_a_folder_per_culture_beside_the_files_of_all(done):
    cp.export(done, ("openai",), by_culture=True)
    assert rows(done.corpus / "openai/north/train.jsonl") == rows(
        done.corpus / "openai/train.jsonl"
    )


def test_preference_rows_have_the_keys_that_trainers_ask_for(paired):
    dpo, kept, shares = (every(paired, form) for form in ("dpo", "kto", "shares"))
    assert {tuple(r) for r in dpo} == {("prompt", "chosen", "rejected", "metadata")}
    assert {tuple(r) for r in kept} == {("prompt", "completion", "label", "metadata")}
    assert {tuple(r) for r in shares} == {("prompt", "options", "codes", "shares", "metadata")}
    assert {tuple(m["role"] for m in r["prompt"]) for r in dpo + kept + shares} == {
        ("system", "user")
    }
    for said in [r[side] for r in dpo for side in ("chosen", "rejected")] + [
        r["completion"] for r in kept
    ]:
        assert [(*m, m["role"]) for m in said] == [("role", "content", "assistant")]


def test_services_read_the_same_pairs_with_their_origins_beside_them(paired):
    made, services = read(paired, "dpo")["train"], read(paired, "openai-dpo")["train"]
    assert services == [
        {
            "input": {"messages": r["prompt"]},
            "preferred_output": r["chosen"],
            "non_preferred_output": r["rejected"],
        }
        for r in made
    ]
    assert rows(paired.corpus / "openai-dpo/__metadata__/train.jsonl") == [
        r["metadata"] for r in made
    ]


def test_a_rewrite_pair_is_an_opinion_after_and_before_its_rewrite(paired):
    made = [r for r in every(paired, "dpo") if r["metadata"]["kind"] == "rewrite"]
    faults = set()
    with paired.open_store(write=False) as journal:
        for pair in made:
            opinion, sample = (
                journal.find_opinion(pair["metadata"]["other"]),
                find_sample(journal, pair["metadata"]["sample"]),
            )
            assert [v.label for v in opinion.verdicts] == [
                "contradict",
                "entail",
            ] and not opinion.dropped
            assert told(pair, "chosen") == (sample.system, sample.prompt, sample.completion)
            option, before = sample.completion.partition(". ")[0], pair["rejected"][0]["content"]
            assert before.startswith(f"{option}. ") and before.endswith(opinion.text[1:])
            faults |= set(opinion.faults)
    assert len(made) >= 5 and "contradiction" in faults


def test_a_culture_pair_holds_a_peoples_own_answer_against_anothers(paired):
    made = [r for r in every(paired, "dpo") if r["metadata"]["kind"] == "culture"]
    with paired.open_store(write=False) as journal:
        for pair in made:
            own, other = (find_sample(journal, pair["metadata"][k]) for k in ("sample", "other"))
            assert (own.question, own.split) == (
                other.question,
                other.split,
            ) and own.culture != other.culture
            assert (
                pair["metadata"]["answer"]
                == own.answer
                != other.answer
                == pair["metadata"]["other_answer"]
            )
            assert told(pair, "chosen") == (own.system, own.prompt, own.completion)
            assert told(pair, "rejected") == (own.system, own.prompt, other.completion)
    samples = [r["metadata"]["sample"] for r in made]
    assert {r["metadata"]["culture"] for r in made} == {"arabic", "german"} and len(samples) == len(
        set(samples)
    ) > 20


def test_no_text_is_both_to_give_and_not_to_give(paired):
    labels = [(told(r, "completion"), r["label"]) for r in every(paired, "kto")]
    chosen, rejected = (
        {told(r, side) for r in every(paired, "dpo")} for side in ("chosen", "rejected")
    )
    assert chosen and rejected and not chosen & rejected
    assert sorted(labels) == sorted([(t, True) for t in chosen] + [(t, False) for t in rejected])


def test_what_a_people_says_itself_is_never_rejected_for_it(park, tmp_path):
    told = [
        ("north", 1, "Agree. Yes."),
        ("north", 2, "Disagree. No."),
        ("south", 2, "Disagree. No."),
        ("south", 2, "Disagree. Never."),
    ]
    like = {
        "question": "T1",
        "topic": "tea",
        "system": "s",
        "prompt": "p",
        "dialogue": "d",
        "persona": "p",
        "split": "train",
    }
    samples = [
        Sample(id=f"{i}", opinion=f"o{i}", culture=culture, answer=answer, completion=text, **like)
        for i, (culture, answer, text) in enumerate(told)
    ]
    for seed in range(8):
        with RunStore(tmp_path / str(seed)) as journal:
            journal.write_samples(samples)
            made = list(pairs(cp.load(park), journal, None, seed, "train"))
        assert [(p.sample, p.other) for p in made] == [("0", "3"), ("2", "0"), ("3", "0")]


@given(st.lists(st.tuples(*map(st.sampled_from, ("pq", "abc", "abc"))), max_size=12).map(sorted))
def test_where_a_text_is_chosen_it_is_never_labelled_otherwise(drawn):
    like = {
        "id": "i",
        "kind": "culture",
        "culture": "north",
        "question": "T1",
        "topic": "tea",
        "system": "s",
        "answer": 1,
        "sample": "s",
        "other": "o",
        "other_culture": "south",
        "other_answer": 2,
        "split": "train",
    }
    made = [
        Pair(prompt=prompt, chosen=chosen, rejected=rejected, **like)
        for prompt, chosen, rejected in drawn
    ]
    labels = [(told(r, "completion")[1:], r["label"]) for r in kto.rows(made)]
    chosen, texts = (
        {(p, c) for p, c, _ in drawn},
        {(p, text) for p, *both in drawn for text in both},
    )
    assert sorted(labels) == sorted((text, text in chosen) for text in texts)


@pytest.mark.parametrize("form", ["dpo", "kto", "shares"])
def test_pairs_and_shares_follow_the_split_of_their_questions(paired, form):
    where = split(VALUES["questions"], Split(**VALUES["split"]), VALUES["seed"])
    for name, found in read(paired, form).items():
        questions = {r["metadata"]["question"] for r in found}
        assert questions and {where[q] for q in questions} == {name}


def test_shares_are_what_the_people_answered(paired):
    for row in every(paired, "shares"):
        about = row["metadata"]
        question = paired.workspace.question("world_values", about["question"])
        found = load_shipped().pool(paired.workspace.culture(about["culture"]).survey, question.id)
        assert row["codes"] == [o.code for o in question.options] and sum(
            row["shares"]
        ) == pytest.approx(1)
        assert row["shares"] == [found.shares.get(code, 0.0) for code in row["codes"]]
        assert (about["n"], about["missing"], tuple(about["countries"])) == (
            found.n,
            found.missing,
            found.countries,
        )
        assert [f"{o}. So." for o in row["options"]] == [
            completion(question, code, "So.") for code in row["codes"]
        ]


def test_what_a_people_was_never_asked_has_no_row_and_what_nobody_answered_a_share_of_zero(paired):
    asked = {(r["metadata"]["culture"], r["metadata"]["question"]) for r in every(paired, "shares")}
    assert ("arabic", "Q36") not in asked and ("german", "Q36") in asked and len(asked) == 9
    (row,) = country_rows("BGD", [paired.workspace.question("world_values", "Q27")])
    assert row["codes"] == [1, 2, 3, 4] and row["shares"][3] == 0.0


def test_a_country_has_the_same_rows_under_its_own_name(paired):
    questions = paired.workspace.scenario("world_values").questions
    made = list(country_rows("EGY", questions))
    assert [r["metadata"]["question"] for r in made] == [
        q.id for q in questions if load_shipped().get("EGY", q.id)
    ]
    assert {r["prompt"][0]["content"].partition(".")[0] for r in made} == {
        "You are a person from Egypt"
    }
    assert {tuple(r["metadata"]) for r in made} == {
        tuple(r["metadata"]) for r in every(paired, "shares")
    }
    assert "from the United States." in next(country_rows("USA", questions))["prompt"][0]["content"]
    with pytest.raises(cp.NotFound, match="Did you mean 'EGY'"):
        next(country_rows("EGYP", questions))


def test_figures_of_another_question_are_refused(paired):
    question = paired.workspace.question("world_values", "Q27")
    other = question.model_copy(update={"options": question.options[:2]})
    with pytest.raises(cp.InputError, match=r"Q27: the figures of DEU hold the codes \[3, 4\]"):
        next(country_rows("DEU", [other]))


def test_the_same_run_gives_the_same_bytes_whatever_ran_beside_it(paired, tmp_path):
    def files(run):
        return {p.relative_to(run.corpus): p.read_bytes() for p in run.corpus.rglob("*.jsonl")}

    before = files(paired)
    cp.export(paired, TUNED)
    alone = cp.run("p", {**VALUES, "concurrency": 1}, workspace=ROOT, out=tmp_path, formats=TUNED)
    assert len(before) == 16 and files(paired) == before == files(alone)


def test_by_culture_parts_pairs_and_shares_and_loses_none(paired, tmp_path):
    run = cp.run("p", VALUES, workspace=ROOT, out=tmp_path, formats=TUNED, by_culture=True)
    for form in ("dpo", "kto", "shares"):
        assert sorted(map(json.dumps, every(run, form))) == sorted(
            map(json.dumps, every(paired, form))
        )
        parts = {
            c: [r for p in (run.corpus / form / c).glob("*.jsonl") for r in rows(p)]
            for c in VALUES["cultures"]
        }
        assert all({r["metadata"]["culture"] for r in part} == {c} for c, part in parts.items())
        parted = [json.dumps(r) for part in parts.values() for r in part]
        assert sorted(parted) == sorted(map(json.dumps, every(paired, form)))


def test_shares_need_no_dialogue(tmp_path):
    run = cp.start("s", VALUES, workspace=ROOT, out=tmp_path)
    assert sum(len(rows(p)) for p in cp.export(run, ("shares",))["shares"].glob("*.jsonl")) == 9
    with pytest.raises(cp.RunFailed, match="export as dpo: no opinion has been kept"):
        cp.export(run, ("shares", "dpo"))


def test_a_format_of_which_there_is_nothing_says_why_and_writes_nothing(done):
    with pytest.raises(
        cp.RunFailed, match=r"as dpo: no kept opinion contradicted .* no two cultures .*\(north\)"
    ):
        cp.export(done, ("trl", "dpo"))
    with pytest.raises(
        cp.RunFailed, match=r"as shares: no question of scenarios/tea\.toml .* figures for north"
    ):
        cp.export(done, ("shares",))
    with pytest.raises(cp.InputError, match="Did you mean 'openai-dpo'"):
        cp.export(done, ("openai-dop",))
    assert {p.name for p in done.corpus.iterdir()} == {"trl", "openai", "hub"}


def test_trls_own_eyes_see_conversations(paired, tmp_path):
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl.data_utils")
    for form in ("dpo", "kto"):
        files = {name: str(paired.corpus / form / f"{name}.jsonl") for name in SPLITS}
        loaded = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path))
        assert {k: len(v) for k, v in loaded.items()} == {
            k: len(v) for k, v in read(paired, form).items()
        }
        assert all(trl.is_conversational(row) for row in loaded["train"])
