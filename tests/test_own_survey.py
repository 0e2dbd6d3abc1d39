"""A survey release of one's own: what a run was seeded with is what its evaluations are held
against.
"""

import json
import logging
import re

import pytest
from conftest import ROOT

import culturepark as cp
from culturepark.api import lessons
from culturepark.cli import cli
from culturepark.errors import InputError
from culturepark.evaluation import planning, result, tasks
from culturepark.evaluation.card import load
from culturepark.evaluation.kinds import survey as survey_kind
from culturepark.evaluation.types import Setup
from culturepark.store.counts import count_personas
from culturepark.surveys import load_survey

ITEMS = (
    "Q27",
    "Q28",
    "Q29",
    "Q30",
    "Q31",
    "Q32",
    "Q33",
    "Q34",
    "Q35",
    "Q36",
    "Q37",
    "Q38",
    "Q39",
    "Q40",
)


def release(path, answer, country="DEU", weighted=False):
    """Write a small release: everybody gives this answer but one, who gives the next."""
    head = ["B_COUNTRY", "B_COUNTRY_ALPHA", "A_YEAR", *(["W_WEIGHT"] if weighted else []), *ITEMS]
    people = [
        [
            276,
            country,
            2018 + n % 2,
            *([1.0] if weighted else []),
            *[answer + (n == 0)] * len(ITEMS),
        ]
        for n in range(10)
    ]
    path.write_text("\n".join(",".join(map(str, row)) for row in [head, *people]) + "\n")
    return str(path)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of one culture on a release of the user's own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    cp.run(
        "own",
        cultures=("german",),
        dialogues=1,
        turns=4,
        survey=release(tmp_path / "own.csv", 1),
        formats=("trl",),
    )
    return tmp_path


def asked(run, benchmark="survey"):
    """The result of the embedded engine, and its first attempt of a people."""
    folder = run / f"outputs/own/evals/{benchmark}/embedded"
    return result.read(folder), next(o for o in result.load_attempts(folder) if o.culture)


def test_a_run_on_its_own_survey_sits_it_without_being_told(run):
    cli.main(["evaluate", "own", "survey", "-m", "embedded"], standalone_mode=False)
    found, first = asked(run)
    assert first.gold[:2] == pytest.approx([0.9, 0.1]) and found.setup["cultures"] == ["german"]
    assert {k: v for k, v in found.setup["peoples"].items() if k != "hash"} == {
        "survey": "World Values Survey wave 7",
        "source": "own.csv",
        "years": "2018–2019",
        "weights": "unweighted",
        "n": "10 to 10",
    }


def test_another_release_on_the_command_goes_before_the_runs_and_that_is_said(run, capsys):
    release(run / "other.csv", 2, weighted=True)
    cli.main(
        ["evaluate", "own", "survey", "-m", "embedded", "--survey", "other.csv"],
        standalone_mode=False,
    )
    found, first = asked(run)
    assert first.gold[:3] == pytest.approx([0.0, 0.9, 0.1])
    assert (found.setup["peoples"]["source"], found.setup["peoples"]["weights"]) == (
        "other.csv",
        "weighted by W_WEIGHT",
    )
    assert "as --survey says, not those of the run" in capsys.readouterr().err


def test_education_holds_learners_against_the_same_people(run):
    found = cp.evaluate(
        "own",
        ["education"],
        ["embedded"],
        learner="embedded",
        count=2,
        options={"questions": 3, "turns": 1},
    )
    assert found[0].setup["peoples"]["source"] == "own.csv"
    _, first = asked(run, "education")
    assert {round(target["mean"], 6) for target in first.gold.values()} == {1.1}


def test_figures_of_two_releases_are_not_compared(run):
    release(run / "other.csv", 2)
    cp.evaluate("own", ["survey"], ["a=embedded"])
    cp.evaluate("own", ["survey"], ["b=embedded"], survey="other.csv")
    table = cp.compare("own").tables[0]
    assert not any(r.pairs for r in table.rows) and any("peoples" in w for w in table.warnings)


def test_a_release_without_any_cultures_country_says_which_it_has(run):
    with pytest.raises(
        InputError, match=r"fra\.csv holds no answers from any culture's countries; there are: FRA"
    ):
        cp.evaluate("own", ["survey"], ["embedded"], survey=release(run / "fra.csv", 1, "FRA"))


def test_a_culture_of_another_country_sits_its_own_release(tmp_path):
    park = cp.init(tmp_path / "park")
    card = park / "personas/german/culture.toml"
    card.write_text(card.read_text().replace('"DEU"', '"FRA"'))
    setup, benchmark = planning.build_setup(
        load("survey"), workspace=park, survey=release(tmp_path / "fra.csv", 1, "FRA")
    )
    assert setup.cultures == ("german",) and next(planning.plan_items(benchmark, setup)).gold[
        0
    ] == pytest.approx(0.9)


def test_inspects_tasks_and_a_humans_exam_take_it_too(tmp_path):
    own = release(tmp_path / "own.csv", 1)
    made = tasks.load_task("survey", cultures="german", survey=own)
    assert len(made.dataset) == len(ITEMS)
    path = lessons.exam(tmp_path / "exam.toml", "german", questions=3, survey=own)
    path.write_text(path.read_text().replace('answer = ""', 'answer = "1"'))
    assert lessons.mark(path, survey=own).before < 0.05 < lessons.mark(path).before


def test_the_workspaces_own_setting_holds_for_evaluations_without_a_run(run):
    (run / "culturepark.toml").write_text('survey = "own.csv"\n')
    (found,) = cp.evaluate("fresh", ["survey"], ["embedded"])
    assert found.setup["peoples"]["source"] == "own.csv"


def test_the_shipped_figures_are_named_as_unweighted(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        (found,) = cp.evaluate("fresh", ["survey"], ["embedded"], cultures=("german",), limit=2)
    assert (
        found.setup["peoples"]["weights"] == "unweighted"
        and found.setup["peoples"]["years"] == "2017–2022"
    )
    assert "World Values Survey wave 7, unweighted" in found.figure("alignment").note
    assert (
        "--survey" not in caplog.text
        and load_survey(None).describe(["DEU"])["n"] == found.setup["peoples"]["n"]
    )


def test_a_long_name_stands_apart_from_the_culture_beside_it(run, capsys):
    texts = ("Do you trust President Xu?", "Is tea good?")
    polls = [
        {"country": "Germany", "question": q, "options": ["Yes", "No"], "distribution": [0.6, 0.4]}
        for q in texts
    ]
    (run / "polls.json").write_text(json.dumps(polls))
    cli.main(
        [
            "evaluate",
            "own",
            "opinions",
            "-m",
            "embedded",
            "--data",
            "polls.json",
            "--cultures",
            "german",
        ],
        standalone_mode=False,
    )
    assert "alignment names a person  all" in capsys.readouterr().out


# ------------------------------------------- what figures and rows are not


def test_card_report_and_result_say_what_figures_and_splits_are_not(run):
    cp.evaluate("own", ["survey"], ["embedded"])
    made = cp.resume(run / "outputs/own")
    cp.export(made, formats=("hub",))
    card = (made.corpus / "hub/README.md").read_text()
    assert "World Values Survey wave 7 (own.csv), unweighted" in card
    assert re.search(r"\d+ of \d+ personas speak in more than one split", card)
    page = (made.folder / "report/report.html").read_text()
    assert "(own.csv; unweighted)" in page and re.search(
        r"\d+ of \d+ personas speak in more than one split", page
    )
    assert "follow the shipped figures, not own.csv" in page and "True by construction" not in page


def test_personas_in_several_splits_are_counted(run):
    with cp.resume(run / "outputs/own").open_store() as journal:
        samples = journal.select("SELECT json_extract(sample, '$.persona'), split FROM samples")
        people = {p: {s for q, s in samples if q == p} for p, _ in samples}
        assert count_personas(journal) == (sum(len(s) > 1 for s in people.values()), len(people))


@pytest.mark.parametrize(("respondents", "said"), [("auto", True), ("people", False)])
@pytest.mark.parametrize(
    ("survey", "words"),
    [("", "True by construction"), ("own.csv", "follow the shipped figures, not own.csv")],
)
def test_the_embedded_row_of_survey_is_told_as_what_it_is_where_personas_speak(
    run, respondents, said, survey, words, capsys
):
    cp.run("given", cultures=("german",), dialogues=1, turns=4, survey=survey, formats=("trl",))
    cli.main(
        ["evaluate", "given", "survey", "-m", "embedded", "--respondents", respondents],
        standalone_mode=False,
    )
    found = result.read(run / "outputs/given/evals/survey/embedded")
    table = cp.compare("given").tables[0]
    for text in (found.warning, capsys.readouterr().out, " ".join(table.warnings)):
        assert (words in text) == said
        assert ("True by construction" in text) == (said and not survey)


def test_views_of_ones_own_are_not_said_to_follow_the_shipped_figures_by_construction(tmp_path):
    cards = cp.init(tmp_path / "mine")
    card = next((cards / "personas/german").glob("[!c]*.toml"))
    card.write_text(re.sub(r"(?m)^(\[views\]\nQ27 = )\d", r"\g<1>4", card.read_text()))
    setups = [Setup(cp.load(root), cultures=("german",)) for root in (None, cards)]
    told = [survey_kind.KIND.embedded_warning(setup) for setup in setups]
    assert "True by construction" in told[0] and "True by construction" not in told[1]
    assert "not all of these personas are shipped" in told[1]


def test_the_readme_says_so():
    text = (ROOT / "README.md").read_text()
    assert (
        "**unweighted**" in text
        and "the same personas speak" in text
        and "true by construction" in text
    )
