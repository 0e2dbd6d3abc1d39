"""Dialogues of any number of seats: who speaks, who hears it, whose opinion becomes whose
sample.
"""

import json
import re

import pytest
from conftest import TEA

import culturepark as cp
from culturepark.context import look_up
from culturepark.dialogue import casting
from culturepark.dialogue.prompting import build_request
from culturepark.dialogue.stopping import stop
from culturepark.dialogue.topology import hub, next_speaker, visible
from culturepark.records import Dialogue, Scene, Topology, Turn
from culturepark.store.queries import iterate_samples, iterate_scenes

SHIPPED = cp.workspace.find_shipped_cards()
HUB = {"cultures": ("arabic", "korean"), "delegates": 2, "dialogues": 3, "turns": 6}


def talk(scene, n):
    """The first turns of a scene, each said by whoever is next."""
    dialogue = Dialogue(scene=scene)
    for i in range(n):
        seat = next_speaker(scene.topology, dialogue)
        name = scene.seats[seat].persona
        turn = Turn(n=i, seat=seat, speaker=name, text=f"line {i}", cue="", call="")
        dialogue = dialogue.model_copy(update={"turns": (*dialogue.turns, turn)})
    return dialogue


def first_scene(culture="arabic", **changes):
    settings = cp.Settings(**{**HUB, **changes})
    return next(casting.scenes(cp.load(), settings, culture))


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """A run of three seats of three cultures, from simulate to report."""
    out = tmp_path_factory.mktemp("hubs")
    return cp.run("hubs", HUB, workspace=SHIPPED, out=out)


def read_samples(run):
    rows = [json.loads(line) for f in run.corpus.glob("trl/*.jsonl") for line in f.open()]
    assert rows
    return rows


# ---------------------------------------------------------------- topology


def test_in_a_hub_the_contact_opens_each_round_and_every_delegate_answers():
    dialogue = talk(first_scene(), 7)
    assert [turn.seat for turn in dialogue.turns] == [0, 1, 2, 0, 1, 2, 0]


def test_a_delegate_of_a_hub_hears_the_contact_alone_and_the_contact_hears_all():
    dialogue = talk(first_scene(), 6)
    heard = [[t.seat for t in visible(hub(2), dialogue, seat)] for seat in (0, 1, 2)]
    assert heard == [[0, 1, 2, 0, 1, 2], [0, 1, 0, 1], [0, 2, 0, 2]]


def test_a_hub_of_one_delegate_is_a_pair():
    assert hub(1) == Topology() and Topology().neighbours == {0: (1,), 1: (0,)}


def test_where_nobody_is_joined_nobody_speaks_and_the_dialogue_is_over():
    scene = first_scene().model_copy(update={"topology": Topology(kind="hub", edges=())})
    assert next_speaker(scene.topology, Dialogue(scene=scene)) is None
    assert stop(Dialogue(scene=scene)) == "nobody is left to speak"


def test_what_a_delegate_is_sent_names_nobody_whom_it_does_not_hear():
    scene = first_scene()
    dialogue = talk(scene, 5)
    context = look_up(cp.load(), dialogue)
    request = build_request(context, dialogue)
    text = "\n".join(message.content for message in request.messages)
    contact, other, own = (p.given_name for p in context.personas)
    assert request.facts["seat"] == 2 and own in text and contact in text
    assert other not in text and request.stop == ("\nModerator:", f"\n{contact}:")


# ----------------------------------------------------------------- casting


def test_each_delegate_of_a_hub_is_of_another_culture_with_an_answer_of_its_own():
    settings = cp.Settings(**HUB)
    scenes = casting.scenes(cp.load(), settings, "arabic")
    for scene in (next(scenes) for _ in range(40)):
        cultures = [seat.culture for seat in scene.seats]
        together = scene.mode == "in"
        assert cultures[1:] == ["arabic", "arabic" if together else "korean"]
        assert len({seat.persona for seat in scene.seats}) == 3
        assert all(seat.view is not None for seat in scene.seats[1:])


def test_too_few_cultures_for_the_delegates_are_refused_before_anything_is_asked(tmp_path):
    with pytest.raises(cp.InputError, match="name more cultures"):
        cp.start("few", HUB, cultures=("arabic",), workspace=SHIPPED, out=tmp_path)


def test_every_seat_has_to_have_a_turn():
    with pytest.raises(cp.CardError, match="at least 4 turns"):
        cp.Settings(delegates=3, turns=3)


def test_fields_of_seats_that_are_not_set_change_no_id():
    scene = first_scene(delegates=1)
    plain = scene.model_dump(exclude={"topology"})
    plain["seats"] = [{k: seat[k] for k in ("role", "persona", "view")} for seat in plain["seats"]]
    assert Scene.model_validate(plain).id == scene.id


# ---------------------------------------------------- from simulate to export


def test_three_seats_of_three_cultures_give_samples_that_carry_their_speakers_culture(hubs):
    rows = read_samples(hubs)
    titles = {name: card.title for name, card in hubs.workspace.cultures.items()}
    assert {row["metadata"]["culture"] for row in rows} == {"arabic", "korean"}
    for row in rows:
        culture = row["metadata"]["culture"]
        assert row["metadata"]["persona"].startswith(f"{culture}/")
        assert f"from the {titles[culture]} culture" in row["prompt"][0]["content"]


def test_a_sample_of_a_hub_holds_the_answer_of_its_own_speaker(hubs):
    with hubs.open_store(write=False) as store:
        for sample in iterate_samples(store):
            scene = store.find_dialogue(sample.dialogue).scene
            seat = next(s for s in scene.seats if s.persona == sample.persona)
            assert sample.answer == seat.view


def test_the_extractor_is_asked_about_one_culture_at_a_time(hubs):
    with hubs.open_store(write=False) as store:
        asked = store.select(
            "SELECT subject, COUNT(*) FROM calls WHERE role = 'extractor' GROUP BY 1"
        )
        modes = {scene.id: scene.mode for scene in iterate_scenes(store)}
    assert {modes[scene]: n for scene, n in asked} == {"cross": 2, "in": 1}


def test_explain_report_and_card_show_all_seats(hubs):
    row = read_samples(hubs)[0]["metadata"]
    found = cp.explain(hubs, row["id"])
    assert len(found["seats"]) == 3 and found["opinion"]["seat"] > 0
    page = (hubs.folder / "report/report.html").read_text()
    examples = json.loads((hubs.folder / "report/report.json").read_text())["examples"]
    seats = [seat for example in examples for seat in example["dialogue"]["seats"]]
    assert len(seats) == 6 and all(f"<code>{seat['persona']}</code>" in page for seat in seats)
    assert "3 people talk in each dialogue" in (hubs.corpus / "trl/README.md").read_text()


def test_show_prints_what_each_seat_of_a_hub_is_sent():
    people = [
        cp.show(role, culture="arabic", turn=turn, delegates=2).speaker.partition("/")[0]
        for turn, role in enumerate(("main_contact", "delegate", "delegate"))
    ]
    assert people[:2] == ["english-us", "arabic"] and people[2] not in people[:2]


def test_a_hub_runs_over_http_as_well(tmp_path):
    with cp.Server() as server:
        changes = {"model": "openai/embedded", "base_url": server.url, "modes": ("cross",)}
        run = cp.run("far", {**HUB, **changes}, workspace=SHIPPED, out=tmp_path, key="none")
    assert {row["metadata"]["culture"] for row in read_samples(run)} == {"arabic", "korean"}


# ------------------------------------------------------ languages and mining


def test_a_language_stands_in_the_prompts_of_the_seats_that_it_is_set_for_alone():
    sent = cp.show(
        "delegate", culture="arabic", settings=cp.Settings(languages={"arabic": "Arabic"})
    )
    plain = cp.show("delegate", culture="arabic", settings=cp.Settings())
    assert "speak Arabic" in sent.messages[0].content
    assert "Arabic from" not in plain.messages[0].content
    other = cp.show(
        "main_contact", culture="arabic", settings=cp.Settings(languages={"arabic": "x"})
    )
    assert "from the first word" not in other.messages[0].content


def test_everyones_opinions_may_be_taken_and_carry_the_contacts_culture_too(park):
    made = {**TEA, "mine": "everyone", "dialogues": 3, "turns": 4, "modes": ("cross",)}
    run = cp.run("all", made | {"model": "conftest:Plays"})
    assert {row["metadata"]["culture"] for row in read_samples(run)} == {"north", "south"}
    assert "south" in (run.folder / "report/report.html").read_text()


# -------------------------------------------------------- among compatriots


def talks(root, out, mode):
    """What is said in four dialogues, by their ids."""
    made = {"cultures": ("arabic",), "dialogues": 4, "turns": 14, "modes": (mode,)}
    run = cp.start("talk", made, workspace=root, out=out)
    cp.simulate(run)
    with run.open_store(write=False) as store:
        scenes = list(iterate_scenes(store))
        return {scene.id: [turn.text for turn in store.read_turns(scene.id)] for scene in scenes}


def test_no_cue_asks_for_ones_own_country_to_be_explained_to_a_compatriot():
    cues = cp.load().role("moderator").in_culture.cues
    assert [cue.name for cue in cues if "culture.place" in cue.text] == []
    request = cp.show("main_contact", culture="english-us", turn=4, settings=cp.Settings())
    assert request.facts["mode"] == "in" and request.facts["cue"] == "experience"


@pytest.mark.parametrize(("mode", "explained"), [("in", False), ("cross", True)])
def test_the_embedded_engine_tells_its_country_to_strangers_alone(tmp_path, mode, explained):
    texts = [text for turns in talks(SHIPPED, tmp_path, mode).values() for text in turns]
    telling = "one custom from|like you to know about|how people in Jordan see|live among us"
    assert bool([text for text in texts if re.search(telling, text)]) == explained
    assert any("our country" in text for text in texts) != explained


def test_cues_for_compatriots_change_no_dialogue_across_cultures(tmp_path):
    root = cp.init(tmp_path / "park")
    before = talks(root, tmp_path / "a", "cross"), talks(root, tmp_path / "b", "in")
    card = root / "agents/moderator.toml"
    card.write_text(card.read_text().partition("[in_culture]")[0])
    after = talks(root, tmp_path / "c", "cross"), talks(root, tmp_path / "d", "in")
    assert before[0] == after[0] and not before[1].keys() & after[1].keys()
