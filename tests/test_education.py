"""Tests of cultural education: a learner before and after a lesson, and the files and talk of a
human one.
"""

import json
import os
import random
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark import surveys
from culturepark.api import lessons as verbs
from culturepark.cli import lessons as commands
from culturepark.evaluation import card, exam
from culturepark.evaluation.kinds import education
from culturepark.evaluation.measure import estimate
from culturepark.evaluation.types import Attempt, Setup
from culturepark.offline import lessons
from culturepark.records import Reply
from culturepark.workspace import find_shipped_cards

PARK = cp.load(find_shipped_cards())
BENCHMARK = card.load("education")
TEA = {"pack": "tea", "learners": "south", "questions": 4, "turns": 3}


class Classroom:
    """Puts the teacher's requests to one function and the learner's to another."""

    def __init__(self, teacher, learner=None):
        self.teacher, self.learner, self.asked = (
            cp.Scripted(teacher),
            cp.Scripted(learner or pupil),
            [],
        )

    async def __call__(self, request, who="model"):
        self.asked.append((who, request))
        return await (self.learner if who == "learner" else self.teacher).complete(request)


def pupil(request):
    """A learner that thinks 2 until it hears that many say 1."""
    sent = request.messages[-1].content
    if "satisfied" in sent:
        return "4, I learnt a lot."
    return (
        "How is it?"
        if "Ask the other" in sent
        else "1. Agree"
        if "many say 1" in sent
        else "2. Disagree"
    )


def engine(request):
    return lessons.LESSONS[request.role](request)


async def taught(ask, workspace, options=TEA, cultures=("north",), **how):
    setup = Setup(workspace, cultures, options=options, **how)
    attempts = [
        await education.run(BENCHMARK, item, ask) for item in education.plan(BENCHMARK, setup)
    ]
    return attempts, {
        m.key: estimate(m)
        for m in education.measure(attempts, card.resolve_options(BENCHMARK, options))
    }


# ------------------------------------------------------------------ the study


async def test_who_is_told_what_the_people_answer_is_nearer_to_them_afterwards(park):
    attempts, figures = await taught(Classroom(lambda _: "Here many say 1."), cp.load(park))
    assert [
        figures[name, "north", ""].value for name in ("distance before", "distance after", "gain")
    ] == [1, 0, 1]
    assert figures["gain", "", ""].headline and figures["gain", "", ""].n == 2 == len(attempts)
    again = [Attempt.model_validate_json(o.model_dump_json()) for o in attempts]
    assert [estimate(m) for m in education.measure(again, TEA)] == [*figures.values()]
    assert figures["satisfaction", "", ""].value == 4 and figures["unparsed", "", ""].value == 0


async def test_talk_of_the_weather_teaches_nothing(park):
    _, figures = await taught(Classroom(lambda _: "It rained today."), cp.load(park))
    assert figures["gain", "", ""].value == 0
    assert figures["distance after", "", ""].value == 1


async def test_the_teacher_sees_the_corpus_system_message_and_the_talk_so_far(park):
    room = Classroom(lambda r: f"Answer {len(r.messages)}.")
    await taught(room, cp.load(park), count=1)
    sent = [r for who, r in room.asked if who == "model"]
    assert [[m.role for m in r.messages][1:] for r in sent[:2]] == [
        ["user"],
        ["user", "assistant", "user"],
    ]
    assert (
        sent[0]
        .messages[0]
        .content.startswith(
            "You are a person from the Northern culture. Answer as many people there would"
        )
    )
    assert sent[1].messages[2].content == "Answer 2."


@pytest.mark.parametrize("culture", sorted(PARK.cultures))
def test_lessons_and_exams_ask_different_questions_unless_they_leak(culture):
    for leak in (False, True):
        for item in education.plan(
            BENCHMARK, Setup(PARK, (culture,), count=4, options={"leak": leak})
        ):
            assert (
                leak is bool(set(item.facts["lesson"]) & set(item.facts["exam"]))
                and len(item.facts["exam"]) == 12
            )


def test_learners_are_different_people_of_other_cultures_and_the_same_for_every_model():
    items = list(education.plan(BENCHMARK, Setup(PARK, ("arabic",), count=20, seeds=(0, 1))))
    units = [i.unit for i in items if i.seed == 0]
    assert len(set(units)) == len(units) == 20 and len({i.id for i in items}) == 40
    assert {u.split("/")[0] for u in units[:6]} == {"english-us"} and not any(
        u.startswith("arabic") for u in units
    )
    assert units[:3] == [
        i.unit for i in education.plan(BENCHMARK, Setup(PARK, ("arabic",), limit=3))
    ]


async def test_an_answer_that_cannot_be_read_is_counted_and_is_no_number(park):
    def unsure(request):
        return "Hard to say." if "most people" in request.messages[-1].content else pupil(request)

    attempts, figures = await taught(Classroom(lambda _: "Here many say 1.", unsure), cp.load(park))
    assert figures["gain", "", ""].value is None and figures["gain", "", ""].n == 0
    assert figures["unparsed", "", ""].value == pytest.approx(8 / 9)
    assert {a["status"] for a in attempts[0].facts["before"].values()} == {"unparsed"}


async def test_only_questions_answered_both_times_are_compared(park):
    def forgetful(request):
        sent = request.messages[-1].content
        return "I forget." if "many say 1" in sent and "1 guests" in sent else pupil(request)

    attempts, figures = await taught(
        Classroom(lambda _: "Here many say 1.", forgetful), cp.load(park), {**TEA, "questions": 9}
    )
    assert all(len(education.pair_answers(o)) == 9 - ("T1" in o.facts["exam"]) for o in attempts)
    assert (
        figures["distance before", "", ""].value - figures["distance after", "", ""].value
        == figures["gain", "", ""].value
        == 1
    )


async def test_a_lesson_that_breaks_off_is_a_failure_with_its_reason_and_has_no_figures(park):
    attempts, figures = await taught(
        Classroom(lambda _: Reply("refused", reason="not today")), cp.load(park)
    )
    assert {(o.status, o.reason, o.score) for o in attempts} == {
        ("refused", "teacher: not today", None)
    }
    assert "after" not in attempts[0].facts and attempts[0].talk[-1] == ("user", "How is it?")
    assert figures["gain", "", ""].value is None and "2 broken off" in figures["gain", "", ""].note


@pytest.mark.parametrize(
    "wrong",
    [
        {"exam": "oral"},
        {"turns": 0},
        {"leak": "no"},
        {"questions": 10},
        {"learners": "soth"},
        {"pack": "te"},
    ],
)
def test_an_option_that_cannot_be_is_named(park, wrong):
    with pytest.raises(cp.InputError, match=str(*wrong.values())):
        next(education.plan(BENCHMARK, Setup(cp.load(park), ("north",), options=TEA | wrong)))


async def test_the_embedded_engine_plays_a_study_and_is_helped_by_what_it_can_read():
    for leak, least in ((False, -0.05), (True, 0.01)):
        attempts, figures = await taught(
            Classroom(engine, engine), PARK, {"leak": leak}, ("arabic", "german"), count=6
        )
        assert all(o.status == "ok" for o in attempts) and figures["unparsed", "", ""].value == 0
        assert (
            figures["gain", "", ""].value > least
            and 1 <= figures["satisfaction", "", ""].value <= 5
        )


def test_distance_is_in_lengths_of_the_scale_and_the_targets_are_the_surveys():
    found = exam.find_targets(PARK, "chinese", "world_values")
    assert len(found) == 32
    shares = surveys.load_shipped().get("CHN", "Q27").shares
    assert found["Q27"].mean == pytest.approx(sum(c * s for c, s in shares.items())) and (
        found["Q27"].low,
        found["Q27"].high,
    ) == (1, 4)
    assert exam.distance(4, found["Q27"].model_dump()) == pytest.approx((4 - found["Q27"].mean) / 3)


@pytest.mark.parametrize("cultures", [("arabic",), ("arabic", "german", "korean")])
async def test_the_vsm_exam_is_of_the_group_by_the_manuals_formulas(cultures):
    """Everybody answers 2 before, and after a lesson 4 to m07 alone: the power distance goes up by
    35 × 2, nothing else moves.
    """

    def learner(request):
        sent = request.messages[-1].content
        question = request.facts["question"]
        return (
            "4"
            if "many say 1" in sent and question is not None and question.id == "m07"
            else "2"
            if "Ask the other" not in sent
            else "And?"
        )

    room = Classroom(lambda _: "Here many say 1.", learner)
    _, figures = await taught(room, PARK, {"exam": "vsm13", "turns": 1}, cultures, count=3)
    table = {
        c: [
            getattr(surveys.hofstede(PARK.culture(c).hofstede), d)
            for d in ("pdi", "idv", "mas", "uai", "lto", "ivr")
        ]
        for c in cultures
    }
    for c in cultures:
        others = [row for name, row in table.items() if name != c]
        gaps = [
            row - (sum(column) / 2 if (column := [o[i] for o in others]) else 0)
            for i, row in enumerate(table[c])
        ]
        before, after = (
            sum(g * g for g in gaps) ** 0.5,
            sum(g * g for g in [gaps[0] - 70, *gaps[1:]]) ** 0.5,
        )
        told = [
            figures[name, c, ""].value for name in ("distance before", "distance after", "gain")
        ]
        assert told == pytest.approx([before, after, before - after])
    assert figures["gain", "", ""].value == pytest.approx(
        sum(figures["gain", c, ""].value for c in cultures) / len(cultures)
    )


async def test_hedging_gains_on_every_people_alike_and_so_nothing_in_particular():
    def hedger(request):
        sent, question = request.messages[-1].content, request.facts["question"]
        if "most people" not in sent:
            return "5" if "satisfied" in sent else "And?"
        return str(question.options[len(question.options) // 2 if "They:" in sent else 0].code)

    _, figures = await taught(
        Classroom(lambda _: "Well.", hedger),
        PARK,
        {"questions": 20},
        sorted(PARK.cultures),
        count=1,
    )
    assert (
        figures["gain", "", ""].value > 0.1 and abs(figures["specific gain", "", ""].value) < 0.02
    )


async def test_the_specific_gain_is_what_is_gained_on_these_people_beyond_others(park):
    _, figures = await taught(Classroom(lambda _: "Here many say 1."), cp.load(park))
    assert (
        figures["specific gain", "", ""].value == 2
    )  # one nearer to the north, one further from the south


# ------------------------------------------------------------------ a human's files


def fill(path, answers, satisfaction='""'):
    """Fill in an exam file as a human would."""
    text = path.read_text().replace('satisfaction = ""', f"satisfaction = {satisfaction}")
    for answer in answers:
        text = text.replace('answer = ""', f"answer = {answer}", 1)
    path.write_text(text)
    return path


def test_an_exam_comes_back_as_it_was_written(tmp_path):
    path = verbs.exam(tmp_path / "before.toml", "arabic", questions=5)
    sheet = exam.read(fill(path, [1, '"2"']), PARK)
    assert (sheet.culture, sheet.pack, [*sheet.answers.values()]) == (
        "arabic",
        "world_values",
        [1, 2, None, None, None],
    )
    assert [*sheet.answers] == [
        *exam.read(verbs.exam(tmp_path / "after.toml", "arabic", questions=5), PARK).answers
    ]
    assert tomllib.loads(path.read_text())["question"][0]["options"][0].startswith("1. ")


def test_marks_are_the_mean_distances_on_what_was_answered_both_times(tmp_path, park):
    before, after = (
        verbs.exam(tmp_path / name, "north", pack="tea", questions=3)
        for name in ("b.toml", "a.toml")
    )
    found = verbs.mark(fill(before, [2, 2, 2]), fill(after, [1, 2, '""'], 4))
    assert (found.before, found.after, found.gain, found.compared, found.satisfaction) == (
        1,
        0.5,
        0.5,
        2,
        4,
    )
    assert len(found.left_out) == 1 and verbs.mark(before, culture="south").before == 0
    assert "2 of 3 questions" in verbs.format_mark(found) and "4 of 5" in verbs.format_mark(found)


def test_one_persons_dimensions_are_those_whose_questions_are_all_answered(tmp_path):
    before, after = (
        verbs.exam(tmp_path / name, "arabic", pack="vsm13") for name in ("b.toml", "a.toml")
    )
    fill(before, [2] * 24)
    fill(after, [2] * 23)  # m24 is left out, and with it the avoidance of uncertainty
    row = surveys.hofstede("ARA")
    found = verbs.mark(before, after)
    assert found.dimensions == 5 and found.left_out == ("m24",) and found.gain == 0
    assert found.before == pytest.approx(
        sum(v * v for v in (row.pdi, row.idv, row.mas, row.lto, row.ivr)) ** 0.5
    )
    assert "compares groups" in verbs.format_mark(found)
    with pytest.raises(cp.InputError, match="sat whole"):
        verbs.exam(tmp_path / "c.toml", "arabic", pack="vsm13", questions=3)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('answer = ""', "answer = 7", r"b\.toml:12: T\d+: answer: 7 is no option; there are 1, 2"),
        ('answer = ""', "anwser = 1", r"b\.toml:8: unknown key 'anwser'. Did you mean 'answer'"),
        ('satisfaction = ""', "satisfaction = 9", r"b\.toml:6: satisfaction: 9 is no option"),
        ('pack = "tea"', 'pack = "te"', "no scenario 'te'.*tea"),
        ('culture = "north"', "", "does not name its culture"),
        ('answer = ""', "answer =", r"b\.toml.*line 12"),
    ],
)
def test_a_mistake_in_an_exam_is_told_with_its_line(tmp_path, park, old, new, told):
    path = verbs.exam(tmp_path / "b.toml", "north", pack="tea", questions=3)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(cp.InputError, match=told):
        exam.read(path, cp.load(park))


def test_exams_that_are_not_the_same_are_not_compared(tmp_path, park):
    north = fill(verbs.exam(tmp_path / "n.toml", "north", pack="tea", questions=3), [1, 1, 1])
    south = verbs.exam(tmp_path / "s.toml", "south", pack="tea", questions=3)
    with pytest.raises(cp.InputError, match="culture 'south'"):
        verbs.mark(north, south)
    with pytest.raises(cp.InputError, match="do not ask the same"):
        verbs.mark(north, verbs.exam(tmp_path / "m.toml", "north", pack="tea", questions=4))
    with pytest.raises(cp.InputError, match="no question is answered"):
        verbs.mark(south)
    with pytest.raises(cp.InputError, match="exists"):
        verbs.exam(tmp_path / "n.toml", "north", pack="tea")


@given(st.text(max_size=200))
def test_any_text_is_an_exam_or_one_clear_error(text):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.toml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(cp.InputError):
            exam.read(path, PARK)


def test_the_exam_command_writes_and_marks(tmp_path, park):
    runner = CliRunner()
    for name in ("b.toml", "a.toml"):
        made = runner.invoke(
            commands.exam,
            ["new", name, "-c", "north", "--pack", "tea", "--questions", "2", "--json"],
        )
        assert json.loads(made.output) == {"exam": name}
        fill(park / name, [2, 2] if name == "b.toml" else [1, 1], 5)
    assert (
        json.loads(runner.invoke(commands.exam, ["mark", "b.toml", "a.toml", "--json"]).output)[
            "gain"
        ]
        == 1
    )
    assert (
        "satisfaction      5 of 5"
        in runner.invoke(commands.exam, ["mark", "b.toml", "a.toml"]).output
    )


# ------------------------------------------------------------------ a human's talk


def test_a_talk_is_kept_exchange_by_exchange_and_goes_on(park):
    heard, model = [], cp.Scripted(["Welcome.", Reply("failed", reason="busy"), "Many drink tea."])
    talk = verbs.chat(
        model, "north", ["Hello", "", "Tea?", "Tea?"], heard.append, save="talk.jsonl"
    )
    assert [r.status for r in heard] == ["ok", "failed", "ok"] and [t["text"] for t in talk] == [
        "Hello",
        "Welcome.",
        "Tea?",
        "Many drink tea.",
    ]
    assert [m.content for m in model.requests[-1].messages[1:]] == ["Hello", "Welcome.", "Tea?"]
    more = verbs.chat(cp.Scripted(["Bye."]), "north", ["Thanks"], heard.append, save="talk.jsonl")
    rows = [json.loads(line) for line in (park / "talk.jsonl").read_text().splitlines()]
    assert (
        [r["text"] for r in rows]
        == [t["text"] for t in more]
        == ["Hello", "Welcome.", "Tea?", "Many drink tea.", "Thanks", "Bye."]
    )


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"culture": "south", "who": "learner", "text": "Hi"}',
        '{"culture": "north", "who": "learner", "text": "Hi"}',
    ],
)
def test_a_file_that_is_no_talk_on_this_culture_is_refused(park, line):
    (park / "talk.jsonl").write_text(line + "\n")
    with pytest.raises(cp.InputError, match=r"talk\.jsonl:1: "):
        verbs.chat(cp.Scripted(["Hi."]), "north", ["Hello"], print, save="talk.jsonl")
    assert (park / "talk.jsonl").read_text() == line + "\n"


def test_the_chat_command_works_behind_a_pipe(park):
    code = "from culturepark.cli.lessons import chat; chat()"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", code, "test_education:Host", "-c", "north", "--save", "t.jsonl"],
        input="Hello\nTea?\n",
        env=env,
        cwd=park,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Northern: Hello\n" and "no answer (failed): no tea today" in done.stderr
    assert len((park / "t.jsonl").read_text().splitlines()) == 2


class Host:
    """A model by name that greets and will not speak of tea."""

    identity = "host"

    async def complete(self, request):
        said = request.messages[-1].content
        return (
            Reply("failed", reason="no tea today")
            if said == "Tea?"
            else Reply("ok", f"{request.facts['culture'].title}: {said}")
        )


def test_the_embedded_teacher_has_something_to_say_to_a_human(park):
    request = education.build_teacher_request(
        PARK.role("teacher"), PARK.culture("arabic"), (), "What is a proposal like?"
    )
    assert "jaha" in engine(request) and lessons.write_lesson(
        request.facts, random.Random(1)
    ) == lessons.write_lesson(request.facts, random.Random(2))
