"""The embedded engine: what it says, what it plants, what it reads."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturepark.errors import InputError, ModelError
from culturepark.offline import KINDS, Embedded, shared_sentences
from culturepark.offline.measure import fold_sentences
from culturepark.offline.phrases import load_bank
from culturepark.offline.reading import find_opinions, judge_opinion
from culturepark.offline.sentences import read_opinion, split_sentences
from culturepark.offline.speech import format_share, name_town
from culturepark.offline.stance import read_side
from culturepark.records import (
    Culture,
    Distribution,
    Norm,
    Option,
    Persona,
    Question,
    Request,
    Scenario,
    Turn,
)

ROOT = Path(__file__).parent.parent
CUES = ("opinion", "respond", "culture", "ideas", "introduce", "compare", "conclude")
PRONOUN = re.compile(r"\b(i|me|my|mine|we|us|our|you|your|he|she|him|her|his)\b", re.IGNORECASE)


def read(model, path):
    return model.model_validate(tomllib.loads((ROOT / path).read_text(encoding="utf-8")))


QUESTIONS = {q.id: q for q in read(Scenario, "scenarios/world_values.toml").questions}
CULTURES = {
    c: read(Culture, f"personas/{c}/culture.toml")
    for c in ("english-us", "german", "korean", "portuguese")
}
PEOPLE = {
    c: [
        read(Persona, p.relative_to(ROOT))
        for p in sorted((ROOT / "personas" / c).glob("*.toml"))
        if p.stem != "culture"
    ]
    for c in CULTURES
}
BARE = Question(
    id="tea",
    topic="social_values",
    about="tea after lunch",
    text="Should there be tea after lunch?",
    options=(
        Option(code=1, label="Yes", degree=1),
        Option(code=2, label="No", degree=-1),
        Option(code=3, label="Hard to say"),
    ),
)


def guest(persona):
    home = CULTURES[persona.culture]
    return SimpleNamespace(
        given_name=persona.given_name,
        age=persona.age,
        home=persona.home,
        work=persona.work,
        place=home.place,
        culture=home.title,
        public=persona.public,
    )


def facts(
    question,
    seat=1,
    n=0,
    history=(),
    answer=None,
    name="d1",
    people=None,
    style="guided",
    cue=None,
    **more,
):
    """Facts of a turn: Marlene or the like from the United States hosts a delegate."""
    people = people or (PEOPLE["english-us"][0], PEOPLE["german"][0])
    me, other = people[seat], guest(people[1 - seat])
    culture = CULTURES[me.culture]
    cue = cue or (CUES[(n // 2) % 7] if style == "guided" else "free" if n else "opening")
    mode = "in" if people[0].culture == people[1].culture else "cross"
    return {
        "me": me,
        "culture": culture,
        "norms": culture.norms[:8],
        "other": other,
        "others": (other,),
        "question": question,
        "answer": answer,
        "shares": None,
        "setting": "Tea.",
        "style": style,
        "mode": mode,
        "seat": seat,
        "n": n,
        "turns": 14,
        "cue": cue,
        "history": tuple(history),
        "dialogue": name,
        **more,
    }


def ask(role, known, seed=1, model=None):
    request = Request(role=role, messages=(), facts=known, seed=seed)
    return asyncio.run((model or Embedded()).complete(request))


def talk(question, answers=(1, 1), model=None, turns=14, **more):
    """Hold a dialogue."""
    said = []
    for n in range(turns):
        seat = n % 2
        known = facts(question, seat, n, said, answers[seat], **more)
        reply = ask(("main_contact", "delegate")[seat], known, n, model)
        said.append(
            Turn(
                n=n,
                seat=seat,
                speaker=known["me"].given_name,
                text=reply.text,
                cue=known["cue"],
                call="",
                faults=reply.faults,
            )
        )
    return said


def code(question, degree):
    return min(question.options, key=lambda o: abs(o.degree - degree)).code


# ------------------------------------------------------------------- speech


def test_same_facts_same_words():
    known = facts(QUESTIONS["Q27"], answer=1)
    assert ask("delegate", known) == ask("delegate", known, model=Embedded())
    assert ask("delegate", known).text != ask("delegate", {**known, "dialogue": "d2"}).text


@pytest.mark.parametrize("style", ["guided", "free"])
@pytest.mark.parametrize("degree", [-1, 0, 1])
def test_a_turn_has_two_to_five_clean_sentences(style, degree):
    for turn in talk(QUESTIONS["Q129"], (code(QUESTIONS["Q129"], degree),) * 2, style=style):
        assert 1 <= len(split_sentences(turn.text)) <= 6
        assert not re.search(
            r"[{}]|\.\.|  | ,|\bbecause because\b|\b[Ii]n in\b|\bIn In\b", turn.text
        )
        assert all(s[0].isupper() or s[0] in '“"' for s in split_sentences(turn.text))


def test_nothing_is_said_twice_in_a_dialogue():
    for question, name in itertools.product(("Q27", "Q124", "Q169"), "abc"):
        said = [
            s
            for turn in talk(QUESTIONS[question], (1, 2), name=name, style="free")
            for s in split_sentences(turn.text)
        ]
        assert len(said) == len(fold_sentences(said))


def test_dialogues_on_different_questions_share_little():
    said = [
        [t.text for t in talk(QUESTIONS[q], name=q)]
        for q in ("Q27", "Q36", "Q124", "Q162", "Q197", "Q233")
    ]
    assert max(shared_sentences(a, b) for a, b in itertools.combinations(said, 2)) <= 0.2


def test_dialogues_on_one_question_differ():
    said = [[t.text for t in talk(QUESTIONS["Q27"], name=name)] for name in "abcdef"]
    assert max(shared_sentences(a, b) for a, b in itertools.combinations(said, 2)) <= 0.5


def test_many_distinct_opinions_on_one_question():
    question, found = QUESTIONS["Q196"], set()
    for i in range(30):
        turns = [t for t in talk(question, (1, 2), name=f"d{i}") if t.seat == 1]
        found |= {
            text
            for _, text in find_opinions(turns, question, "Germany")
            if judge_opinion(text, question, 2)[0] == "entail"
        }
    assert len(found) > 120


def test_speakers_keep_their_names_homes_and_ages():
    people = (PEOPLE["english-us"][1], PEOPLE["korean"][0])
    others = {p.given_name for group in PEOPLE.values() for p in group} - {
        p.given_name for p in people
    }
    text = " ".join(t.text for t in talk(QUESTIONS["Q38"], (2, 1), people=people))
    assert not re.search(r"\d+-year-old", text)
    assert not any(re.search(rf"\b{name}\b", text) for name in others)


def test_a_life_is_told_word_for_word_and_only_once():
    text = " ".join(t.text for t in talk(QUESTIONS["Q27"], style="free"))
    counts = [
        text.count(line)
        for person in (PEOPLE["english-us"][0], PEOPLE["german"][0])
        for line in person.public
    ]
    assert 1 <= sum(counts) <= 6
    assert max(counts) == 1


def test_the_survey_is_named_in_words_without_figures():
    shares = Distribution(
        survey="WVS7",
        countries=("DEU",),
        item="Q27",
        n=1000,
        missing=0.01,
        shares={1: 0.2, 2: 0.47, 3: 0.23, 4: 0.1},
    )
    text = " ".join(t.text for t in talk(QUESTIONS["Q27"], shares=shares, style="free"))
    assert "roughly two in three" in text.casefold()
    assert "survey" in text and not re.search(r"\d|%", text.replace("$", ""))


def test_delegates_say_one_to_three_opinions_a_turn():
    turns = [t for t in talk(QUESTIONS["Q33"], (1, 4)) if t.seat == 1]
    each = [len(find_opinions([t], QUESTIONS["Q33"], "Germany")) for t in turns]
    assert 9 <= sum(each) <= 18 and max(each) <= 4


def test_who_differs_is_told_so():
    question = QUESTIONS["Q124"]
    first = Turn(
        n=0,
        seat=0,
        speaker="Marlene",
        text="Immigration makes crime more common.",
        cue="opinion",
        call="",
    )
    reply = ask("delegate", facts(question, n=1, history=[first], answer=0, cue="respond")).text
    assert read_side(reply, question) == -1
    assert not reply.startswith("There we agree")


def test_cards_without_clauses_and_cues_of_ones_own_work():
    lone = PEOPLE["german"][0].model_copy(update={"public": ()})
    culture = CULTURES["german"].model_copy(
        update={"norms": (Norm(kind="custom", subtype="food", text="Ramadan ends with a feast."),)}
    )
    for answer in (1, 2, 3, None):
        text = ask(
            "delegate",
            facts(BARE, answer=answer, cue="my_own_cue", me=lone, culture=culture, norms=()),
        ).text
        assert "tea after lunch" in text or "Yes" in text or "No" in text


def test_without_an_answer_nobody_takes_a_side():
    question = QUESTIONS["Q196"]
    for turn in talk(question, (None, None)):
        assert abs(sum(read_side(s, question) for s in split_sentences(turn.text))) <= 1


def test_every_stance_phrase_gives_an_opinion_of_its_side():
    question = QUESTIONS["Q124"]
    words = {
        "claim": question.claim[0],
        "against": question.denial[0],
        "reason": question.pros[0],
        "more": question.pros[1],
        "counter": question.cons[0],
        "why": "",
        "place": "Germany",
        "town": "Hamburg",
        "name": "Elif",
        "about": question.about,
    }
    for kind in ("plain", "reasoned", "conceding", "rejecting", "strong", "mild", "faint"):
        for phrase in load_bank()["stance"][kind]:
            found = read_opinion(
                phrase.format(**words)[:1].upper() + phrase.format(**words)[1:], "Germany"
            )
            assert found and not PRONOUN.search(found[0]), phrase
            assert read_side(found[0], question) == 1, phrase


# ------------------------------------------------------------------- faults


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_fault_is_recorded_and_stands_in_the_text(kind):
    turns = talk(QUESTIONS["Q124"], (0, 2), Embedded(faults={kind: 1.0}))
    planted = [(f, t) for t in turns if t.seat == 1 for f in t.faults]
    assert len(planted) >= 6
    assert all(f.kind == kind and f.sentence in t.text for f, t in planted)
    assert not any(t.faults for t in turns if t.seat == 0)


def test_planted_contradictions_are_read_as_such():
    question = QUESTIONS["Q124"]
    for turn in talk(question, (0, 2), Embedded(faults={"contradiction": 1.0})):
        for fault in turn.faults:
            assert (
                judge_opinion(read_opinion(fault.sentence, "Germany")[0], question, 2)[0]
                == "contradict"
            )


def test_faults_come_at_their_rate():
    model = Embedded(faults={"off_topic": 0.2, "drift": 0.1})
    kinds = [
        f.kind
        for i in range(30)
        for t in talk(QUESTIONS["Q27"], model=model, name=f"d{i}")
        for f in t.faults
    ]
    assert 25 <= kinds.count("off_topic") <= 60
    assert 8 <= kinds.count("drift") <= 36


def test_a_drifted_identity_reaches_the_extractor():
    text, _ = read_opinion(
        "As a 71-year-old fisherman from Oslo, I think that crime goes up.", "Germany"
    )
    assert text == "As a 71-year-old fisherman from Oslo, crime goes up."


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"refusals": 0.1}, "Did you mean 'refusal'"),
        ({"drift": 1.5}, "0 to 1"),
        ({"drift": 0.7, "refusal": 0.7}, "add up"),
    ],
)
def test_impossible_faults_are_refused(faults, message):
    with pytest.raises(InputError, match=message):
        Embedded(faults=faults)


def test_identity_names_the_faults():
    assert Embedded(faults={"drift": 0.1}).identity == Embedded().identity + "+drift=0.1"


# ------------------------------------------------------------------ reading

# Written by hand; 1 affirms the question's statement, -1 denies it, 0 is about another matter.
HAND = (
    (
        "Q27",
        -1,
        "Young people should choose their own path, whether or not it makes their parents proud.",
    ),
    ("Q27", 0, "The new bridge across the river has made the drive to the airport much shorter."),
    ("Q28", 1, "Kids suffer when their mum goes out to work all day."),
    ("Q28", -1, "Working mothers raise children who are every bit as happy as others."),
    ("Q28", -1, "It is simply not true that children are harmed when a mother has a job."),
    ("Q29", 1, "Men make better political leaders than women do."),
    ("Q29", -1, "The idea that men are better political leaders than women is nonsense."),
    ("Q30", -1, "Girls need a university education as much as boys."),
    ("Q33", 1, "When there are not enough jobs, men should get them before women."),
    ("Q33", -1, "Women should have the same right to a job as men, even in a crisis."),
    ("Q36", 1, "Gay couples can be wonderful parents and raise children as well as anyone else."),
    (
        "Q38",
        1,
        "Looking after ageing parents is the duty of their grown children, however long it takes.",
    ),
    ("Q39", -1, "Many people without a job are anything but lazy."),
    ("Q41", -1, "Work is not everything, and free time should sometimes come first."),
    ("Q122", 1, "Without immigration many important jobs would stay empty."),
    ("Q124", 1, "Where immigration rises, crime rises too."),
    ("Q124", -1, "Immigrants do not commit more crimes than anyone else."),
    ("Q126", -1, "Terrorism has little to do with immigration."),
    ("Q128", -1, "Unemployment is not caused by immigration."),
    ("Q129", 0, "A good raincoat is worth more than three umbrellas."),
    ("Q132", -1, "Hardly anyone is ever robbed in this neighbourhood."),
    ("Q133", 1, "People sit on the kerb and drink alcohol in the street nearly every evening."),
    ("Q135", 1, "Racist insults are heard often in this neighbourhood."),
    ("Q158", 1, "Science and technology have made life healthier and far more comfortable."),
    ("Q161", 1, "Science weakens the feeling for right and wrong."),
    ("Q169", -1, "When religion and science disagree, religion is not always right."),
    ("Q170", -1, "Every religion deserves respect and acceptance, not only one's own."),
    ("Q196", -1, "The government should not be allowed to film people in public places."),
    ("Q198", 1, "The state should be allowed to collect information about anyone secretly."),
    ("Q224", -1, "Votes are not counted honestly in this country."),
    ("Q226", 0, "Apples from the cellar keep until March."),
    ("Q228", 1, "The press covers elections fairly."),
    ("Q230", 1, "Elections are bought by the rich."),
    ("Q231", -1, "Voters can vote in peace, without any threats of violence."),
    ("Q233", -1, "Women do not get the same chances as men when they run for office."),
)


def test_the_verifier_judges_opinions_written_by_hand():
    right = 0
    for name, stand, text in HAND:
        verdict = judge_opinion(text, QUESTIONS[name], code(QUESTIONS[name], 1))[0]
        right += verdict == {1: "entail", -1: "contradict", 0: "irrelevant"}[stand]
    assert right / len(HAND) >= 0.85


def test_a_middle_answer_is_entailed_by_what_leaves_both_sides_standing():
    question = QUESTIONS["Q124"]
    assert (
        judge_opinion("It is hard to say whether crime rises with immigration.", question, 1)[0]
        == "entail"
    )
    assert judge_opinion("Immigration makes crime more common.", question, 1)[0] == "contradict"


def test_a_pure_custom_decides_nothing():
    text = (
        "In Germany, children carry paper lanterns in November, and that colours how people in"
        " Germany talk about immigration and crime."
    )
    assert judge_opinion(text, QUESTIONS["Q124"], 2)[0] == "irrelevant"


def test_labels_serve_where_a_card_has_no_clauses():
    assert (
        judge_opinion("“Yes” is the fitting answer when it comes to tea after lunch.", BARE, 1)[0]
        == "entail"
    )
    assert (
        judge_opinion("“Yes” is the fitting answer when it comes to tea after lunch.", BARE, 2)[0]
        == "contradict"
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("I think that tea is healthy for most people.", "Tea is healthy for most people."),
        ("In my country, elders speak first at table.", "In Germany, elders speak first at table."),
        (
            "I cannot agree that crime goes up here.",
            "It is hard to accept that crime goes up here.",
        ),
        ("There is no doubt in my mind that votes are counted well.", "Votes are counted well."),
        (
            "Wages fall, and so I have come to think that prices rise.",
            "Wages fall, and so prices rise.",
        ),
        ("There we agree, Elif: work should come first.", "Work should come first."),
        ("Dr. Kim says that work comes first.", "Dr. Kim says that work comes first."),
        (
            "Work is something that every person owes to society.",
            "Work is something that every person owes to society.",
        ),
        ("Good morning, Elif.", None),
        ("What do you think of it?", None),
        ("My husband and I cycle to the market on Saturdays.", None),
        ("She told me all about it last week.", None),
        ("In a survey, most of those asked in Germany said so.", None),
    ],
)
def test_opinions_stand_alone(said, kept):
    found = read_opinion(said, "Germany")
    assert (found[0] if found else None) == kept


def test_stops_inside_names_and_quotes_end_no_sentence():
    text = (
        "Prof. Çelik wrote “No.” to Mr. B. Traven, e.g. in May. Élodie agreed! And then… nothing."
    )
    assert split_sentences(text) == (
        "Prof. Çelik wrote “No.” to Mr. B. Traven, e.g. in May.",
        "Élodie agreed!",
        "And then… nothing.",
    )


ALLOWED = {
    "it",
    "is",
    "hard",
    "to",
    "accept",
    "that",
    "say",
    "in",
    "germany",
    "many",
    "people",
    "would",
    "one",
    "hears",
    "seems",
    "true",
    "have",
    "learned",
    "this",
    "does",
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([t.text for q in ("Q27", "Q124") for t in talk(QUESTIONS[q])]),
            st.text(max_size=80),
        ),
        max_size=3,
    )
)
def test_the_extractor_invents_no_words(texts):
    turn = Turn(n=3, seat=1, speaker="Elif", text=" ".join(texts), cue="free", call="")
    known = {
        "turns": (turn,),
        "question": QUESTIONS["Q27"],
        "culture": CULTURES["german"],
        "speakers": ("Elif",),
    }
    words = set(re.findall(r"\w+", turn.text.casefold())) | ALLOWED
    for found in json.loads(ask("extractor", known).text)["opinions"]:
        assert found["turn"] == 3
        assert set(re.findall(r"\w+", found["text"].casefold())) <= words


@pytest.mark.parametrize("name", ["Q27", "Q33", "Q124", "Q158", "Q169", "Q232"])
def test_a_rewrite_agrees_with_the_answer_and_keeps_the_custom(name):
    question = QUESTIONS[name]
    custom = "In Germany, many children carry paper lanterns in November"
    for option, wrong in itertools.product(question.options, (*question.claim, *question.denial)):
        known = {
            "question": question,
            "culture": CULTURES["german"],
            "answer": option.code,
            "view": "",
            "reason": "",
        }
        text = json.loads(
            ask("rewriter", {**known, "opinion": f"{custom}, and many feel that {wrong}."}).text
        )["opinion"]
        assert text.startswith(custom)
        assert (
            json.loads(ask("verifier", {**known, "opinion": text}).text)["verdict"] == "entail"
        ), text


def test_an_unknown_role_is_an_error_that_names_the_roles():
    with pytest.raises(ModelError, match=r"'judge'.*main_contact, delegate, extractor"):
        ask("judge", {})


def test_shared_sentences():
    assert (
        shared_sentences(["Tea is good. So is bread."], ["tea is GOOD! Rain falls. Snow too."])
        == 0.5
    )
    assert shared_sentences([], ["Tea."]) == 0.0


def test_small_helpers():
    assert format_share(0.66) == "roughly two in three" and format_share(0.98) == "nearly all"
    assert name_town("Irbid, a university city", "Jordan") == "Irbid"
    assert name_town("a village above the Dead Sea, west of Karak", "Jordan") == "Karak"
