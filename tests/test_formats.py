"""Exported folders: what load_dataset, TRL and LLaMA-Factory make of them, their cards, and exports
that are killed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, TEA
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark import atomic, markdown
from culturepark.corpora.card import LICENCES, name_licence
from culturepark.corpora.formats import SPLITS
from culturepark.registry import FORMATS

VALUES = {
    "cultures": ("arabic", "german"),
    "questions": ("Q27", "Q29", "Q33", "Q36", "Q170"),
    "dialogues": 10,
    "turns": 6,
    "split": {"validation": 0.2, "test": 0.2},
    "faults": {"contradiction": 0.3},
}
TRL = ("prompt", "completion", "metadata")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A run of two cultures in every format, all together and by culture."""
    out = tmp_path_factory.mktemp("formats")
    return cp.run(
        "every", VALUES, workspace=ROOT, out=out, formats=tuple(FORMATS), by_culture=True
    ).corpus


def load(folder, tmp_path, *name):
    from datasets import load_dataset

    return load_dataset(str(folder), *name, cache_dir=str(tmp_path))


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def head(path):
    return yaml.safe_load(path.read_text().split("---\n")[1])


@pytest.mark.parametrize("form", FORMATS)
def test_load_dataset_reads_every_folder_and_every_culture_in_it(corpus, tmp_path, form):
    whole, own = load(corpus / form, tmp_path), load(corpus / form / "german", tmp_path)
    first = head(corpus / form / "README.md")["configs"][0]
    lines = {
        f["split"]: len(jsonl(corpus / form / f["path"]))
        for f in first["data_files"]
        if form != "hub"
    }
    assert form == "hub" or {split: len(found) for split, found in whole.items()} == lines
    named = load(corpus / form, tmp_path, "german-sft" if form == "llamafactory" else "german")
    assert own["train"].to_list() == named["train"].to_list() != []
    assert (
        {row["metadata"]["culture"] for row in own["train"]} == {"german"}
        if "metadata" in own["train"][0]
        else True
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same run by name, with other dialogues."""
    out = tmp_path_factory.mktemp("other")
    given = {**VALUES, "seed": 5}
    return cp.run(
        "every", given, workspace=ROOT, out=out, formats=tuple(FORMATS), by_culture=True
    ).corpus


@pytest.mark.parametrize("form", FORMATS)
def test_folders_of_one_name_never_give_one_anothers_rows_from_the_cache(
    corpus, other, tmp_path, form
):
    again = tmp_path / "again" / form  # exported twice, with other rows
    for folder in (corpus / form, other / form):
        shutil.copytree(folder, again, dirs_exist_ok=True)
        for place, same in (
            (again, folder),
            (again / "german", folder / "german"),
            (folder, folder),
        ):
            fresh = load(same, tmp_path / "own" / str(same).replace("/", "_"))
            assert list(fresh) == [split for split in SPLITS if split in fresh]
            assert (
                load(place, tmp_path / "shared")["train"].to_list()
                == fresh["train"].to_list()
                != []
            )


def test_formats_of_one_culture_are_told_apart_in_one_cache(corpus, tmp_path):
    found = {
        form: load(corpus / form / "arabic", tmp_path)["train"].column_names
        for form in ("trl", "dpo", "openai")
    }
    assert found == {form: list(jsonl(corpus / form / "arabic/train.jsonl")[0]) for form in found}


def test_the_hubs_rows_are_conversations_with_their_origin_in_one_column(corpus, tmp_path):
    found = load(corpus / "hub", tmp_path)
    for split in SPLITS:
        assert tuple(found[split].column_names) == TRL
        assert found[split].to_list() == jsonl(corpus / f"trl/{split}.jsonl")


@pytest.mark.filterwarnings("ignore")  # of transformers about TRL's use of it
def test_trls_own_trainer_keeps_the_system_prompt_of_the_hubs_rows(corpus, small, tmp_path):
    from trl import SFTConfig, SFTTrainer

    rows = load(corpus / "hub", tmp_path)["train"]
    how = SFTConfig(
        output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, report_to=[], max_length=2048
    )
    made = SFTTrainer(model=str(small), args=how, train_dataset=rows)
    first, said = made.train_dataset[0], rows[0]
    text = made.processing_class.decode(first["input_ids"])
    assert text.index(said["prompt"][0]["content"]) < text.index(said["completion"][0]["content"])
    assert (
        made.processing_class.apply_chat_template(
            said["prompt"], tokenize=False, add_generation_prompt=True
        )
        in text
    )


def converted(row, info):
    """Read a row as LLaMA-Factory's ShareGPT converter (0.9.5) does; None where it would skip it
    with a warning.
    """
    names, talk = info["columns"], row[info["columns"]["messages"]]
    ranking = info.get("ranking", False)
    if (
        any(m["from"] != ("human", "gpt")[i % 2] for i, m in enumerate(talk))
        or len(talk) % 2 != ranking
    ):
        return None
    if "kto_tag" in names:
        answers = [talk[-1], None] if row[names["kto_tag"]] is True else [None, talk[-1]]
    else:
        answers = [row[names["chosen"]], row[names["rejected"]]] if ranking else [talk[-1]]
    if any(a is not None and a["from"] != "gpt" for a in answers):
        return None
    return row[names["system"]], talk[0]["value"], [a and a["value"] for a in answers]


@pytest.mark.parametrize(("kind", "form"), [("sft", "trl"), ("dpo", "dpo"), ("kto", "kto")])
def test_llama_factorys_converter_reads_the_same_rows(corpus, kind, form):
    folder = corpus / "llamafactory"
    info = json.loads((folder / "dataset_info.json").read_text())[f"{kind}_train"]
    found = [converted(row, info) for row in jsonl(folder / info["file_name"])]
    assert (
        found == [expected(row) for row in jsonl(corpus / form / "train.jsonl")]
        and None not in found
    )


def expected(row):
    """The same of a row in TRL's format."""
    system, user = (m["content"] for m in row["prompt"])
    sides = [
        row[side][0]["content"] for side in ("completion", "chosen", "rejected") if side in row
    ]
    if "label" in row:
        sides = [*sides, None] if row["label"] else [None, *sides]
    return system, user, sides


def test_rows_beside_the_same_rows_by_culture_are_trained_on_once(corpus):
    from culturepark.training import rows
    from culturepark.training.hosted.uploads import find_jobs

    read = rows.read_corpus(corpus / "dpo", "dpo")
    assert sum(map(len, read.rows["train"].values())) == len(jsonl(corpus / "dpo/train.jsonl"))
    assert [culture for culture, _ in find_jobs(corpus / "openai")] == ["arabic", "german"]


def test_the_card_names_the_licence_that_was_chosen_and_the_surveys_terms(park):
    run = cp.start("c", {**TEA, "model": "conftest:Plays", "dialogues": 2, "turns": 4})
    cp.run(run, formats=("trl",))
    assert head(run.corpus / "trl/README.md")["license"] == "unknown"
    args = [
        sys.executable,
        "-m",
        "culturepark",
        "export",
        "c",
        "--to",
        "trl",
        "--licence",
        "CC-BY-4.0",
    ]
    subprocess.run(
        args, check=True, cwd=park, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    )
    text = (run.corpus / "trl/README.md").read_text()
    assert (
        head(run.corpus / "trl/README.md")["license"] == "cc-by-4.0"
        and "may not be redistributed" in text
    )
    with pytest.raises(cp.InputError, match="write a licence's identifier"):
        cp.start("d", {**TEA, "licence": "my: own"})


def test_a_licence_that_the_hub_does_not_know_is_named_as_another():
    assert name_licence("my-terms-1.0") == {"license": "other", "license_name": "my-terms-1.0"}
    assert all(name_licence(name) == {"license": name} for name in LICENCES)


def test_a_card_shows_what_cards_say_and_does_nothing_else(park):
    """Titles and sources of cards, and a model's name, come from elsewhere: HTML, links and tables
    in them stay text.
    """
    path, evil = park / "scenarios/tea.toml", "<script>alert(1)</script> ![x](http://a/b) | c"
    path.write_text(path.read_text().replace('title = "Tea"', f'title = "{evil}"', 1))
    run = cp.run(
        "evil", {**TEA, "model": "conftest:Plays", "dialogues": 2, "turns": 4}, formats=("trl",)
    )
    text = (run.corpus / "trl/README.md").read_text()
    assert (
        "<script>" not in text
        and "&lt;script&gt;alert(1)&lt;/script&gt; !\\[x\\](http://a/b) \\| c" in text
    )


@given(st.text(), st.text())
def test_front_matter_holds_any_text_as_that_text(one, other):
    made = markdown.render_front_matter({"name": one, "list": [other], "of": [{"path": one}]})
    assert made.count("\n---") == 1
    read = yaml.safe_load(made.removesuffix("\n---").removeprefix("---\n"))
    flat = markdown.one_line(one)
    assert read == {"name": flat, "list": [markdown.one_line(other)], "of": [{"path": flat}]}


@given(st.text())
def test_text_from_outside_cannot_leave_its_line_or_its_code(text):
    assert "\n" not in markdown.format_inline(text) and "<" not in markdown.format_inline(text)
    assert markdown.format_code(text).count("`") == 2


KILLED = """
import os, shutil, sys
from pathlib import Path
from culturepark import atomic
os.rename = lambda *a, **k: os.kill(os.getpid(), 9)
if sys.argv[2] == "exchanged":
    shutil.rmtree = lambda *a, **k: os.kill(os.getpid(), 9)
else:
    atomic._exchange = lambda *a: False
    moved = Path.rename
    Path.rename = lambda self, to: os.kill(os.getpid(), 9) if ".partial" in self.name else moved(self, to)
    shutil.rmtree = lambda *a, **k: None
folder = Path(sys.argv[1])
atomic.move(folder / ".it.partial", folder / "it")
"""  # noqa: E501


@pytest.mark.parametrize("way", ["exchanged", "moved"])
def test_a_folder_is_old_or_new_however_its_writer_is_killed(tmp_path, way):
    for name, text in (("it", "old"), (".it.partial", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), way],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL
    if way == "moved":  # a system that cannot exchange: put back by whoever comes next
        atomic.recover(tmp_path / "it")
    assert (tmp_path / "it/rows").read_text() == {"exchanged": "new", "moved": "old"}[way]
