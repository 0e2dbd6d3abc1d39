"""Tests of what turns other benchmarks' files into questions."""

import json
import subprocess
import sys

import pytest

from culturepark import workspace
from culturepark.errors import InputError
from culturepark.evaluation import card, importers, planning
from tests.conftest import DATA

SAFEWORLD = DATA / "safeworld" / "culture"
GUIDES = """[
    {
        "index": "North_1_1",
        "topic": "Tea",
        "violated_specific_norm": ["Pour for others first.", "Refuse once."],
        "country": "South_North",
        "query": "I poured my own. What now?",
    },
    {
        "index": "North_1_2",
        "query": "I stopped in the mid
    },
    {
        "country": "North",
        "query": "Why are they so slow?",
    },
]
"""
ANNOTATED = {
    "Al-en-01": {
        "question": "¿Qué se bebe?",
        "en_question": "What do people drink?",
        "annotations": [
            {"answers": ["té", " "], "en_answers": ["tea"], "count": 3},
            {"answers": ["té"], "count": 1},
        ],
    },
    "Al-en-02": {
        "question": "¿Quién?",
        "en_question": "Who?",
        "annotations": [],
        "idks": {"idk": 5},
    },
}
CHOICES = """MCQID,ID,country,prompt,choices,choice_countries,answer_idx
q1,Al-en-01,Spain,"What do people drink? Without any explanation, choose only one.
A. tea
B. sand","{""A"": ""tea"", ""B"": ""sand""}","{}",A
"""


@pytest.fixture
def save(tmp_path):
    """Write a file, return its path."""

    def write(name, held):
        (tmp_path / name).write_text(
            held if isinstance(held, str) else json.dumps(held), encoding="utf-8"
        )
        return tmp_path / name

    return write


def test_safeworlds_records_are_read_one_by_one_and_cut_ones_counted(save):
    rows, notices = importers.convert("safeworld", save("type1.json", GUIDES))
    assert [(r["id"], r["country"], r["reference"]) for r in rows] == [
        ("type1-2", "South North", ["Pour for others first.", "Refuse once."]),
        ("type1-13", "North", []),
    ]
    assert notices == {"records that are cut or no JSON, left out": 1}


def test_blends_annotations_and_choices_become_questions(save):
    rows, notices = importers.convert("blend", save("Spain_data.json", ANNOTATED))
    assert [(r["country"], r["reference"]) for r in rows] == [
        ("Spain", ["té", "tea"]),
        ("Spain", []),
    ]
    assert notices == {"questions that nobody answered, without a reference": 1}
    (row,), _ = importers.convert("blend", save("mc.csv", CHOICES))
    assert (row["question"], row["options"], row["reference"]) == (
        "What do people drink?",
        ["tea", "sand"],
        "tea",
    )


@pytest.mark.parametrize(
    ("shape", "name", "held", "said"),
    [
        ("blends", "a.json", {}, "Did you mean 'blend'"),
        ("blend", "a.json", {}, "no question of the shape"),
        ("blend", "a.json", {"a": 1}, "a: no question"),
        ("blend", "a.csv", "MCQID,b\n1,2\n", "no column 'country'"),
        ("blend", "a.csv", CHOICES.replace(",A\n", ",C\n"), "answer_idx 'C' is none"),
        ("safeworld", "a.json", "[]", "no question of the shape"),
    ],
)
def test_a_file_of_another_shape_is_refused(save, shape, name, held, said):
    with pytest.raises(InputError, match=said):
        importers.convert(shape, save(name, held))


@pytest.mark.parametrize(
    ("name", "held", "shape"),
    [
        ("type1.json", GUIDES, "safeworld"),
        ("Spain_data.json", ANNOTATED, "blend"),
        ("mc.csv", CHOICES, "blend"),
    ],
)
def test_a_benchmark_that_is_given_such_a_file_says_how_to_convert_it(save, name, held, shape):
    path = save(name, held)
    setup, benchmark = planning.build_setup(
        card.load("care"), data=[path], workspace=workspace.load(None)
    )
    with pytest.raises(
        InputError,
        match=(
            rf"this converts it: python -m culturepark\.evaluation\.importers {shape} .*{name} >"
            r" items"
        ),
    ):
        list(planning.plan_items(benchmark, setup))


def test_the_command_prints_rows_and_says_what_it_left_out(save):
    command = [sys.executable, "-m", "culturepark.evaluation.importers"]
    done = subprocess.run(
        [*command, "safeworld", save("type1.json", GUIDES)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        len([json.loads(line) for line in done.stdout.split("\n") if line]) == 2
        and "2 questions; records that are cut" in done.stderr
    )
    failed = subprocess.run([*command, "safeworld", "none.json"], capture_output=True, text=True)
    assert (
        failed.returncode == 2
        and failed.stderr == "none.json: cannot be read: No such file or directory\n"
    )


@pytest.mark.conformance
@pytest.mark.skipif(not SAFEWORLD.is_dir(), reason=f"no files in {SAFEWORLD}; set CULTUREPARK_DATA")
@pytest.mark.parametrize(
    ("n", "count", "cut"), [(1, 322, 0), (2, 285, 1), (3, 218, 0), (4, 357, 0)]
)
def test_real_safeworld_files_are_converted_whole(n, count, cut):
    rows, notices = importers.convert("safeworld", SAFEWORLD / f"type{n}.json")
    assert len(rows) == count and sum(notices.values()) == cut
    text = (SAFEWORLD / f"type{n}.json").read_text("utf-8")
    assert text.count('"query": ') == count + cut and all(row["reference"] for row in rows) == (
        n != 3
    )
