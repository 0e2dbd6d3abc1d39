"""The report: counts that add up, nothing from outside, the unknown never zero, the same bytes
every time.
"""

import json
import re
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from conftest import ROOT, TEA
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark import reports
from culturepark.records import Fault, Opinion, Reply, Sample, Scene, Seat, Turn, Verdict
from culturepark.reports.stance import bound_mean
from culturepark.settings import Settings
from culturepark.store import RunStore
from culturepark.store.queries import iterate_kept
from culturepark.workspace import load

CARDS = load(ROOT)
SETTINGS = Settings(
    cultures=("arabic", "german"), questions=("Q27", "Q28", "Q29"), dialogues=3, model="openai/some"
)
OK = Reply(status="ok", text="x", model="some", prompt_tokens=10, completion_tokens=4, ms=500)


def scene(culture, ordinal, question="Q27"):
    seats = (
        Seat(role="main_contact", persona="english-us/linh"),
        Seat(role="delegate", persona=f"{culture}/one", view=1),
    )
    return Scene(
        ordinal=ordinal,
        culture=culture,
        scenario="world_values",
        question=question,
        mode="cross",
        style="guided",
        turns=2,
        seats=seats,
        answer=1,
        run="r",
    )


def opinion(of, n, dropped="", labels=("entail",), **more):
    verdicts = [
        Verdict(round=i, label=label, reason="", text="It is so.") for i, label in enumerate(labels)
    ]
    return Opinion(
        id=f"{of.id}{n}",
        dialogue=of.id,
        n=n,
        turn=1,
        seat=1,
        text=f"Tea is good for reason {n}.",
        final=f"Tea is good for reason {n}.",
        verdicts=tuple(verdicts),
        dropped=dropped,
        **more,
    )


def sample(of, made, answer=1):
    return Sample(
        id=f"s{made.id}",
        culture=of.culture,
        question=of.question,
        topic="social_values",
        system="s",
        prompt="p",
        completion="c",
        answer=answer,
        opinion=made.id,
        dialogue=of.id,
        persona=f"{of.culture}/one",
        split="train",
    )


def fill(journal):
    """Two cultures: four dialogues held, one failed, one not refined; seven opinions, four of them
    kept.
    """
    samples = []
    for culture, dropped in (
        ("arabic", ("", "", "form", "redundant")),
        ("german", ("", "", "contradict")),
    ):
        for ordinal in range(2):
            held = scene(culture, ordinal)
            journal.open_scene(held)
            for n in range(2):
                fault = (Fault(kind="off_topic", sentence="s"),) if n else ()
                journal.add_turn(
                    held.id,
                    Turn(n=n, seat=n, speaker="A", text="t", cue="", call="k", faults=fault),
                )
                journal.add_call("k", held.id, "delegate", OK)
            journal.end_scene(held.id, "done", "all turns")
        first = scene(culture, 0)
        labels = {"contradict": ("contradict", "contradict"), "": ("contradict", "entail")}
        made = [
            opinion(first, n, why, labels.get(why, ()), faults=("off_topic",) if why else ())
            for n, why in enumerate(dropped)
        ]
        journal.add_opinions(first, [(o, None) for o in made])
        journal.add_call(
            "v", made[0].id, "verifier", Reply(status="failed", reason="no", model="some", ms=1)
        )
        samples += [
            sample(first, o, answer)
            for answer, o in enumerate([o for o in made if not o.dropped], 1)
        ]
    failed = scene("german", 2)
    journal.open_scene(failed)
    journal.end_scene(failed.id, "failed", "turn 1 (Gisela): failed: <b>429</b> for an hour")
    journal.add_opinions(
        scene("german", 1), (), "unparsed: no JSON object; the model wrote: 'Sure!'"
    )
    journal.write_samples(samples)


@pytest.fixture
def journal(tmp_path):
    with RunStore(tmp_path / "tiny") as opened:
        fill(opened)
        yield opened


def gather(journal, cards=CARDS, **changes):
    return reports.gather(journal, cards, SETTINGS.model_copy(update=changes))


def test_counts_add_up(journal):
    facts = gather(journal)
    arabic, german = facts["stages"]
    assert (arabic["planned"], arabic["held"], arabic["turns"], arabic["calls"]) == (3, 2, 4, 5)
    assert (german["failed"], german["unrefined"], german["opinions"], german["kept"]) == (
        1,
        1,
        3,
        2,
    )
    drops = sum(n for by in facts["dropped"].values() for n in by.values())
    assert facts["total"]["opinions"] == facts["total"]["kept"] + drops == 7
    assert (
        sum(row["calls"] for row in facts["calls"]) == facts["total"]["calls"] == 10
        and not facts["unplaced_calls"]
    )
    topics = sum(n for by in facts["topics"].values() for n in by.values())
    assert topics == sum(s["samples"] for s in facts["splits"]) == facts["total"]["samples"] == 4


def test_rewrites_and_failures_are_told_with_their_reasons(journal):
    facts = gather(journal)
    assert facts["rewrites"] == {"tried": 5, "saved": 4, "kept": 4}
    assert facts["failures"]["dialogues"]["top"] == [
        {"reason": "failed: <b>429</b> for an hour", "count": 1}
    ]
    assert facts["failures"]["refining"]["top"] == [
        {"reason": "unparsed: no JSON object", "count": 1}
    ]


def test_planted_faults_are_held_against_what_was_dropped(journal):
    faults = gather(journal, faults={"off_topic": 0.5})["faults"]
    assert faults["turns"] == {"off_topic": 4} and gather(journal)["faults"] is None
    planted, clean = faults["opinions"]
    assert (planted["kind"], planted["dropped"], planted["kept"]) == ("off_topic", 3, 0)
    assert (clean["kind"], clean["dropped"], clean["kept"]) == ("", 0, 4)


def test_what_a_card_says_cannot_break_out_of_the_page(journal):
    evil = "</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    card = CARDS.cultures["arabic"].model_copy(update={"title": evil})
    pack = CARDS.scenarios["world_values"]
    asked = tuple(
        q.model_copy(
            update={
                "text": evil,
                "options": tuple(o.model_copy(update={"label": evil}) for o in q.options),
            }
        )
        for q in pack.questions
    )
    cards = replace(
        CARDS,
        cultures={**CARDS.cultures, "arabic": card},
        scenarios={"world_values": pack.model_copy(update={"title": evil, "questions": asked})},
    )
    page = reports.page(gather(journal, cards))
    assert "&lt;script&gt;" in page and "&lt;b&gt;429" in page
    assert not re.search(r"<script|<img|<b>429", page)


class Tags(HTMLParser):
    """Collect the attributes of every tag, and check that tags are closed in order."""

    def __init__(self, page):
        super().__init__()
        self.attributes, self.headings, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, k, v) for k, v in attrs]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.open += [] if tag in ("meta",) else [tag]

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, k, v) for k, v in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_takes_nothing_from_outside_and_is_well_formed(journal):
    page = reports.page(gather(journal, faults={"off_topic": 0.5}))
    tags = Tags(page)
    assert not tags.open and not re.search(r"url\(|@import|<(script|link|img|iframe|object)", page)
    links = [
        v
        for _, k, v in tags.attributes
        if k in ("src", "href", "srcset", "action", "data", "style")
    ]
    assert links and all(v.startswith("#") for v in links)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    ids = [v for _, k, v in tags.attributes if k == "id"]
    assert len(ids) == len(set(ids)) and {v[1:] for v in links} <= set(ids)
    assert tags.headings[0] == 1 and all(
        b - a <= 1 for a, b in zip(tags.headings, tags.headings[1:], strict=False)
    )


def test_unknown_tokens_are_unknown_and_never_zero(journal):
    journal.add_call("u", "s", "delegate", Reply(status="ok", text="x", model="silent"))
    facts = gather(journal)
    silent, some = facts["models"]
    assert (
        silent["prompt_tokens"] is None
        and silent["seconds"] is None
        and silent["untold"] == 1
        and silent["usd"] is None
    )
    assert (
        some["seconds"] == pytest.approx(4.002)
        and some["prompt_tokens"] == 80
        and some["untold"] == 2
        and facts["unplaced_calls"] == 1
    )
    page = reports.page(facts)
    assert (
        'silent</th><td class="n">1</td><td class="n">unknown</td><td class="n">unknown</td>'
        in page
    )
    assert "at least 80" in page


def test_money_is_told_where_a_price_is_known(journal):
    for usd in (0.5, 0.25, None):
        journal.add_call("u", "s", "delegate", Reply("ok", "x", model="dear", usd=usd))
    facts = gather(journal)
    assert [m["usd"] for m in facts["models"]] == [
        0.75,
        None,
    ] and "at least $0.7500" in reports.page(facts)


weights = st.lists(st.integers(0, 50), min_size=2, max_size=10).filter(any)


@given(weights, weights)
def test_the_distance_is_scipys_jensen_shannon_to_base_2(p, q):
    from scipy.spatial.distance import jensenshannon

    size = max(len(p), len(q))
    p, q = (v + [0] * (size - len(v)) for v in (p, q))
    found = reports.distance(dict(enumerate(p)), dict(enumerate(q)))
    # Near 0 the root magnifies rounding, in scipy's sum as in ours.
    assert found**2 == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-12)


def test_stance_stands_beside_the_peoples_own_shares(journal):
    from culturepark.surveys import load_shipped

    facts = gather(journal)
    row = facts["stance"][1]["questions"][0]
    people = load_shipped().get("DEU", "Q27")
    assert (
        row["people"] == people.n
        and row["samples"] == 2
        and facts["stance"][1]["countries"] == ["Germany"]
    )
    assert [o["corpus"] for o in row["options"]] == [0.5, 0.5, 0, 0]
    assert row["distance"] == pytest.approx(reports.distance({1: 1, 2: 1}, people.shares), abs=1e-6)
    assert facts["stance"][1]["no_samples"] == ["Q28", "Q29"]


def test_a_question_without_shares_has_no_distance_not_a_zero(journal):
    german = CARDS.cultures["german"].model_copy(update={"survey": ()})
    facts = gather(journal, replace(CARDS, cultures={**CARDS.cultures, "german": german}))
    found = facts["stance"][1]
    assert (
        found["questions"][0]["distance"] is None
        and found["mean"] is None
        and found["no_figures"] == ["Q27"]
    )
    assert "no survey figures for this question" in reports.page(facts)


def test_a_survey_that_is_gone_leaves_the_rest_of_the_report(journal, tmp_path):
    facts = gather(journal, survey=str(tmp_path / "private" / "wvs.csv"))
    assert "wvs.csv" in facts["survey"]["trouble"] and facts["stance"][0]["mean"] is None
    assert facts["total"]["samples"] == 4 and str(tmp_path) not in json.dumps(facts) + reports.page(
        facts
    )


def test_diversity_in_batches_equals_diversity_at_once(journal, monkeypatch):
    from culturepark.curation import embedders

    monkeypatch.setattr(reports.stance, "BATCH", 1)
    found = gather(journal)["diversity"]
    kept = [o.final for o, s in iterate_kept(journal) if s.culture == "german"]
    seeds = [CARDS.question("world_values", "Q27").text]
    gain = embedders.diversity(embedders.hashing(kept), embedders.hashing(seeds))
    assert found["cultures"][1] == {
        "culture": "german",
        "gain": pytest.approx(gain, abs=1e-6),
        "opinions": 2,
        "seeds": 1,
    }
    assert found["embedder"] == "hashing"


def test_the_same_journal_gives_the_same_bytes_and_nothing_half_written(journal, tmp_path):
    paths = reports.write(journal, CARDS, SETTINGS, tmp_path / "report")
    before = [p.read_bytes() for p in paths]
    reports.write(journal, CARDS, SETTINGS, tmp_path / "report")
    assert [p.read_bytes() for p in paths] == before
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["report.html", "report.json"]
    facts = json.loads(before[1])
    assert facts == gather(journal) and reports.page(facts).encode() == before[0]


def test_an_unwritable_folder_is_told_with_its_path(journal, tmp_path):
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(cp.ParkError, match=r"cannot write .*report"):
        reports.write(journal, CARDS, SETTINGS, tmp_path / "report")


def test_an_empty_run_is_reported_as_empty(tmp_path):
    with RunStore(tmp_path / "none") as journal:
        facts = gather(journal)
    page = reports.page(facts)
    assert "No dialogue has been held yet" in page and "No model was called" in page
    assert (
        facts["total"]["kept_share"] is None and facts["diversity"]["cultures"][0]["gain"] is None
    )


def test_passwords_and_folders_stay_here(journal):
    shown = gather(
        journal, base_url="https://me:hush@host:8000/v1?key=hush", survey="/home/me/wvs.csv"
    )["settings"]
    assert shown["base_url"] == "https://host:8000/v1" and shown["survey"] == "wvs.csv"


def test_templated_text_is_called_templated(journal):
    told, other = (reports.page(gather(journal, model=m)) for m in ("embedded", "openai/some"))
    assert "not people's speech" in told and "not people's speech" not in other


def test_the_terminals_table_is_plain_and_narrow(journal):
    lines = reports.table(gather(journal, model="a\x1b[31m" + "very" * 40)).splitlines()
    assert max(map(len, lines)) <= 100 and "\x1b" not in "".join(lines)
    assert lines[2].split() == ["arabic", "3", "2", "0", "4", "4", "2", "2", "50%"]


def test_run_writes_a_report_while_others_may_read(park):
    run = cp.run(
        "r", {**TEA, "model": "conftest:Plays", "dialogues": 2, "turns": 2}, formats=("trl",)
    )
    facts = json.loads((run.folder / "report" / "report.json").read_text())
    assert facts["run"] == "r" and facts["total"]["held"] == 2
    with run.open_store(), run.open_store(write=False) as reader:
        assert reports.gather(reader, run.workspace, run.settings) == facts


def page_of(culture="german", answers=1, **facts):
    """A run's page with one question of one culture, `answers` answers of it all alike."""
    options = [
        {
            "code": c,
            "label": w,
            "degree": d,
            "corpus": float(c == 1),
            "people": 0.5,
            "answers": answers * (c == 1),
        }
        for c, w, d in ((1, "Yes", 1.0), (2, "No", -1.0))
    ]
    row = {
        "question": "Q27",
        "topic": "t",
        "text": "Is it?",
        "samples": 3 * answers,
        "answers": answers,
        "people": 900,
        "distance": 0.6,
        "chance": 0.68,
        "options": options,
    }
    return row, options


def test_few_answers_are_drawn_one_by_one_and_one_is_not_compared(journal):
    facts = reports.gather(journal, CARDS, SETTINGS)
    facts["stance"][0]["questions"] = [
        page_of(answers=1)[0],
        page_of(answers=3)[0],
        page_of(answers=9)[0],
    ]
    one, three, nine = re.findall(
        r"<figure>\s*<figcaption><span dir.*?</figure>", reports.page(facts), re.S
    )[:3]
    assert "one answer is no distribution to compare" in one and one.count('class="swatch') == 1 + 2
    assert (
        three.count('class="swatch') == 3 + 2 and 'class="bar"' not in three.split("<dt>people")[0]
    )
    assert 'class="bar"' in nine.split("<dt>people")[0]
    assert (
        "no farther than 9 answers drawn from the people themselves would lie (about 0.68)" in nine
    )


def test_a_mean_over_questions_has_an_interval_from_six_that_differ_on():
    def interval(*distances):
        return bound_mean({f"Q{i}": d for i, d in enumerate(distances)})

    assert interval(0.1, 0.2, 0.3, 0.4, 0.5) is None and interval(*[0.2] * 9) is None
    low, high = interval(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert 0.1 < low < 0.35 < high < 0.7
    low, high = interval(0.0, 0.0, 0.0, 0.0, 0.0, 0.3)
    assert 0 < low < 0.05 < high < 1


def test_the_page_shows_a_dialogue_and_samples_to_read(park):
    run = cp.run("tea", model="conftest:Plays", dialogues=2, turns=4, **TEA)
    text = (run.folder / "report/report.html").read_text()
    shown = json.loads((run.folder / "report/report.json").read_text())["examples"][0]
    assert len(shown["dialogue"]["turns"]) == 4 and shown["samples"]
    assert (
        all(turn["text"] in text for turn in shown["dialogue"]["turns"])
        and shown["samples"][0]["id"] in text
    )


def test_what_a_model_said_is_escaped_and_bounded_where_it_is_shown(park):
    run = cp.run("tea", model="conftest:Plays", dialogues=1, turns=4, **TEA)
    attack = "<script>alert(1)</script>" + 3000 * "x"
    with sqlite3.connect(run.folder / "journal.sqlite") as db:
        db.execute("UPDATE turns SET turn = json_set(turn, '$.text', ?)", (attack,))
    page = cp.report(run).read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and 2100 * "x" not in page
