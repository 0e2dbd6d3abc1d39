"""A corpus of somebody's file: the same splits, card, lineage and exports as a run's."""

import hashlib
import json

import pytest

import culturepark as cp
from culturepark.cli import cli
from culturepark.corpora.imported import read_corpus
from culturepark.errors import InputError, RunFailed

CSV = "frage,antwort,culture,question\n" + "".join(
    f'"Why {what}?","Since {what} is ours, {n}.",{culture},q{n % 5}\n'
    for n, what in enumerate(("tea", "rice", "figs", "bread", "salt") * 4)
    for culture in ("north", "south")
)
COLUMNS = {"prompt": "frage", "completion": "antwort"}


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(n, **more):
    sides = {"chosen": f"Yes, {n}.", "rejected": f"No, {n}."}
    return {"prompt": f"Is it {n}?", **sides, "metadata": {"culture": "north"}, **more}


@pytest.fixture
def answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers.csv").write_text(CSV)
    return tmp_path / "answers.csv"


def test_a_table_becomes_a_corpus_whose_rows_name_file_line_and_hash(answers):
    made = cp.export("mine", ("trl", "openai"), source=answers, columns=COLUMNS, out="o")
    rows = [r for p in sorted(made["trl"].glob("*.jsonl")) for r in jsonl(p)]
    first = next(r for r in rows if r["metadata"]["line"] == 2)
    assert len(rows) == 40 and first["prompt"] == [{"role": "user", "content": "Why tea?"}]
    origin = {"file": "answers.csv", "line": 2}
    sha = hashlib.sha256(answers.read_bytes()).hexdigest()
    assert first["metadata"].items() >= {**origin, "sha256": sha, "culture": "north"}.items()
    card = (made["trl"] / "README.md").read_text()
    assert "answers.csv" in card and "origin in one nested column." in card


def test_no_question_stands_in_two_splits_and_the_splits_are_those_of_a_run(answers):
    corpus = read_corpus(answers, columns=COLUMNS)
    where = {r.question: r.split for r in corpus.records}
    assert corpus.list_crossing() == [] and set(where) == {f"q{n}" for n in range(5)}
    from culturepark.corpora.build import split
    from culturepark.settings import Split

    assert where == split(sorted(where), Split(), 0)


def test_load_dataset_reads_it_in_parquet_and_by_culture_with_its_lines(answers, tmp_path):
    from datasets import load_dataset

    made = cp.export("m", ("hub",), source=answers, columns=COLUMNS, out="o", by_culture=True)
    rows = load_dataset(str(made["hub"]), "south", cache_dir=str(tmp_path / "c"))["train"]
    assert {r["metadata"]["culture"] for r in rows} == {"south"}
    assert all(r["metadata"]["line"] > 1 for r in rows)


def test_preferences_are_read_from_the_formats_that_we_write(tmp_path):
    source = write_rows(tmp_path / "p.jsonl", *map(pair, range(10)))
    forms = ("dpo", "kto", "openai-dpo")
    made = cp.export("prefs", forms, source=source, out=tmp_path)
    again = read_corpus(made["openai-dpo"] / "train.jsonl", culture="north")
    first = read_corpus(made["dpo"] / "train.jsonl")
    sides = [{(r.prompt, r.chosen, r.rejected) for r in c.records} for c in (first, again)]
    assert sides[0] == sides[1] and len(sides[0]) == len(jsonl(made["dpo"] / "train.jsonl"))


def test_a_conversation_keeps_its_system_message_and_what_was_said_before(tmp_path):
    talk = [("system", "Be kind."), ("user", "Hello."), ("assistant", "Hi."), ("user", "Tea?")]
    said = [{"role": r, "content": t} for r, t in [*talk, ("assistant", "Yes.")]]
    row = {"messages": said, "metadata": {"culture": "north"}}
    source = write_rows(tmp_path / "talks.jsonl", row)
    made = cp.export("t", ("openai", "llamafactory"), source=source, out=tmp_path)
    assert jsonl(made["openai"] / "train.jsonl")[0]["messages"] == said
    (other,) = jsonl(made["llamafactory"] / "sft_train.jsonl")
    assert [m["value"] for m in other["conversations"]] == ["Hello.", "Hi.", "Tea?", "Yes."]


WRONG = {
    "no culture": ({"metadata": {}}, "rows.jsonl:2: whose answer is this"),
    "an empty answer": ({"chosen": " "}, "rows.jsonl:2: chosen: an empty message"),
    "an assistant's question": (
        {"prompt": [{"role": "assistant", "content": "Hi."}]},
        "rows.jsonl:2: prompt: at most one system message",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_cannot_be_read_is_named_by_file_and_line_and_nothing_is_written(name, tmp_path):
    more, said = WRONG[name]
    source = write_rows(tmp_path / "rows.jsonl", pair(1), {**pair(2), **more})
    with pytest.raises(InputError) as error:
        cp.export("x", source=source, out=tmp_path / "o")
    assert said in str(error.value) and not (tmp_path / "o").exists()


def test_columns_that_are_not_there_and_files_of_another_kind_come_with_what_there_is(tmp_path):
    source = write_rows(tmp_path / "r.jsonl", {"frage": "Tea?", "antwort": "Yes."})
    with pytest.raises(InputError, match=r"no column 'fraga' .*Did you mean 'frage'"):
        read_corpus(source, columns={"prompt": "fraga"})
    with pytest.raises(InputError, match="its columns are frage, antwort; wanted are those of trl"):
        read_corpus(source)
    marked = write_rows(tmp_path / "k.jsonl", {"prompt": "a", "completion": "b", "label": False})
    with pytest.raises(InputError, match="bad ones would be learnt as good ones"):
        read_corpus(marked)
    with pytest.raises(RunFailed, match="holds pairs, and no samples: --to dpo"):
        cp.export("x", ("trl",), source=write_rows(source, pair(1)), out=tmp_path)


def test_what_the_reader_skips_is_counted_on_the_card(tmp_path):
    source = write_rows(tmp_path / "p.jsonl", pair(1))
    source.write_text(source.read_text() + "\n\n" + source.read_text())
    made = cp.export("x", source=source, out=tmp_path)
    assert "blank" in (made["dpo"] / "README.md").read_text()


def test_the_command_exports_a_file_and_refuses_the_place_of_a_run(answers, capsys):
    line = ["export", "own", "--from", "answers.csv", "--out", "o", "--licence", "cc-by-4.0"]
    how = ["--columns", "prompt=frage,completion=antwort", "--json"]
    cli.main([*line, *how], standalone_mode=False)
    assert set(json.loads(capsys.readouterr().out)) == {"trl", "openai"}
    assert 'license: "cc-by-4.0"' in (answers.parent / "o/own/corpus/trl/README.md").read_text()
    (answers.parent / "o/own/run.toml").touch()
    with pytest.raises(InputError, match="is a run with a corpus of its own"):
        cli.main([*line, *how], standalone_mode=False)
