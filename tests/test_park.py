"""The park: who is sent what, and when it is over."""

import asyncio
import json

import pytest
from click.testing import CliRunner
from conftest import TEA, Plays, answer

import culturepark as cp
from culturepark.cli import cli
from culturepark.context import look_up
from culturepark.dialogue import casting
from culturepark.dialogue.prompting import build_request, choose_cue
from culturepark.dialogue.runner import hold_dialogue
from culturepark.dialogue.simulate import simulate
from culturepark.dialogue.stopping import stop
from culturepark.dialogue.trimming import own_words
from culturepark.llm.session import Models, Session
from culturepark.records import Dialogue, Reply, Turn
from culturepark.store import RunStore
from culturepark.store.queries import iterate_scenes


def scene_of(park, culture="north", **changes):
    space = cp.load(park)
    settings = cp.Settings(**{**TEA, **changes})
    return space, settings, next(casting.scenes(space, settings, culture))


def held(park, tmp_path, model, **changes):
    space, _settings, scene = scene_of(park, **changes)
    with RunStore(tmp_path / "run") as journal:
        desk = Session(Models(model), journal)
        laid = look_up(space, Dialogue(scene=scene))
        dialogue = asyncio.run(hold_dialogue(laid, desk, laid.dialogue))
        return dialogue, journal.find_dialogue(scene.id)


def test_a_dialogue_runs_its_turns_and_is_on_disk(park, tmp_path):
    dialogue, kept = held(park, tmp_path, cp.Scripted(answer), turns=5)
    assert [t.seat for t in dialogue.turns] == [0, 1, 0, 1, 0]
    assert kept == dialogue and kept.status == "done" and kept.reason == "all turns held"


@pytest.mark.parametrize("style", ["guided", "free"])
def test_free_chat_and_guided_keep_every_turn_to_the_last(park, tmp_path, style):
    dialogue, _ = held(
        park, tmp_path, cp.Scripted(answer), turns=9, styles=(style,), modes=("cross",)
    )
    assert len(dialogue.turns) == 9 and all(t.text for t in dialogue.turns)


def test_each_speaker_is_assistant_to_itself_and_the_others_are_named(park):
    space, _settings, scene = scene_of(park, modes=("cross",))
    turns = tuple(
        Turn(n=i, seat=i % 2, speaker=("Sou", "Nor")[i % 2], text=f"line {i}", cue="", call="")
        for i in range(3)
    )
    dialogue = Dialogue(scene=scene, turns=turns)
    messages = build_request(look_up(space, dialogue), dialogue).messages
    assert [m.role for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[1].content == "Sou: line 0" and messages[2].content == "line 1"
    assert messages[3].content.startswith("Sou: line 2\n\nModerator: ")


def test_private_and_secret_are_for_their_owner_only(park):
    space, _settings, scene = scene_of(park, modes=("cross",))
    laid = look_up(space, Dialogue(scene=scene))
    for seat in (0, 1):
        turns = (Turn(n=0, seat=0, speaker="x", text="hello", cue="", call=""),) * seat
        text = "\n".join(
            m.content for m in build_request(laid, Dialogue(scene=scene, turns=turns)).messages
        )
        mine, other = laid.personas[seat], laid.personas[1 - seat]
        assert mine.secret[0] in text and mine.private[0] in text
        assert other.secret[0] not in text and other.private[0] not in text


def test_nobody_is_asked_to_introduce_something_to_themselves(park):
    space, _settings, scene = scene_of(park, modes=("cross",))
    laid = look_up(space, Dialogue(scene=scene))
    names = [p.given_name for p in laid.personas]
    for n in range(14):
        turns = tuple(
            Turn(n=i, seat=i % 2, speaker=names[i % 2], text="x", cue="", call="") for i in range(n)
        )
        nudge = (
            build_request(laid, Dialogue(scene=scene, turns=turns))
            .messages[-1]
            .content.split("Moderator: ")[1]
        )
        assert nudge.startswith(names[n % 2]) and f"introduce to {names[n % 2]}" not in nudge


def test_cues_go_round_and_repeat_for_any_number_of_turns(park):
    space, _settings, scene = scene_of(park, styles=("guided",))
    names = [choose_cue(look_up(space, Dialogue(scene=scene)), n)[0] for n in range(0, 40, 2)]
    assert (
        names[:7] == ["opinion", "respond", "culture", "ideas", "introduce", "compare", "conclude"]
        and "opinion" not in names[1:]
    )


def test_anyone_of_any_culture_may_be_contact_or_delegate(park):
    space = cp.load(park)
    settings = cp.Settings(**{**TEA, "contact": "north", "cultures": ("south",)})
    scenes = [s for s, _ in zip(casting.scenes(space, settings, "south"), range(40), strict=False)]
    genders = {
        (space.persona(s.seats[0].persona).gender, space.persona(s.seats[1].persona).gender)
        for s in scenes
    }
    assert len(genders) == 4
    assert {s.mode for s in scenes} == {"cross", "in"} and {s.style for s in scenes} == {
        "guided",
        "free",
    }


def test_in_culture_both_seats_are_of_the_culture_and_differ(park):
    _, _, scene = scene_of(park, modes=("in",))
    assert {s.persona.split("/")[0] for s in scene.seats} == {"north"} and len(
        {s.persona for s in scene.seats}
    ) == 2
    assert scene.mined_seats == (0, 1)


def test_scenes_come_in_one_order_and_their_ids_follow_cards_and_settings(park):
    first = scene_of(park)[2].id
    assert first == scene_of(park)[2].id
    assert first != scene_of(park, turns=4)[2].id and first != scene_of(park, seed=1)[2].id
    card = park / "personas/north/norta.toml"
    card.write_text(card.read_text().replace("age = 30", "age = 31"))
    assert first != scene_of(park)[2].id


@pytest.mark.parametrize("status", ["failed", "refused", "filtered", "empty", "truncated"])
def test_a_failed_call_ends_the_dialogue_with_its_reason_and_stores_no_turn(park, tmp_path, status):
    script = cp.Scripted(["First.", Reply(status=status, reason="broken pipe")])
    _, kept = held(park, tmp_path, script)
    assert kept.status == "failed" and status in kept.reason and "broken pipe" in kept.reason
    assert [t.text for t in kept.turns] == ["First."]


def test_a_success_on_the_last_try_counts(park, tmp_path):
    empty = Reply(status="empty", reason="nothing")
    dialogue, _ = held(park, tmp_path, cp.Scripted([empty, empty, "At last.", "Yes."]), turns=2)
    assert [t.text for t in dialogue.turns] == ["At last.", "Yes."] and dialogue.status == "done"


def test_circling_and_farewells_stop_with_a_reason(park, tmp_path):
    assert held(park, tmp_path, cp.Scripted(["Same."]))[0].reason.endswith("repeats the same turn")
    assert (
        held(park, tmp_path / "b", cp.Scripted(["One. Goodbye.", "Two. Goodbye!"]))[0].reason
        == "everyone has said goodbye"
    )


def test_only_wrapping_is_stripped_from_a_turn():
    assert own_words('He said "no" and left. "Fine."', "Wei") == 'He said "no" and left. "Fine."'
    assert (
        own_words("**Wei:** Well, yes.", "Wei") == "Well, yes."
        and own_words('"All quoted."', "Wei") == "All quoted."
    )


def test_no_more_dialogues_are_open_at_once_than_asked_for(park, tmp_path):
    space, settings = cp.load(park), cp.Settings(**TEA, concurrency=3, turns=4)
    now, most = 0, 0

    class Slow:
        identity = "slow"

        async def complete(self, request):
            nonlocal now, most
            now, most = now + 1, max(most, now + 1)
            await asyncio.sleep(0.001)
            now -= 1
            return Reply(status="ok", text=str(answer(request)))

    scenes = (s for s, _ in zip(casting.scenes(space, settings, "north"), range(12), strict=False))
    with RunStore(tmp_path / "run") as journal:
        asyncio.run(simulate(space, settings, Session(Models(Slow()), journal), scenes))
        assert len(list(iterate_scenes(journal, "done"))) == 12
    assert most == 3


def test_an_open_dialogue_is_not_over(park):
    assert stop(Dialogue(scene=scene_of(park)[2])) is None


# -------------------------------------------------------- failed dialogues

DOWN = {**TEA, "dialogues": 4, "turns": 2, "modes": ("cross",)}


class Down:
    """A model that answers in no role of `lost`."""

    identity = "down"
    lost = ("main_contact",)

    async def complete(self, request):
        if request.role in self.lost:
            return Reply("failed", reason="broken pipe")
        return await Plays().complete(request)


class Deaf(Down):
    """A model that plays its people and extracts nothing."""

    identity = "deaf"
    lost = ("extractor",)


class Flaky:
    """A model that fails where people talk about tea with an odd number of guests."""

    identity = "flaky"

    async def complete(self, request):
        said = request.messages[0].content
        odd = any(f"with {n} guests" in said for n in (1, 3, 5, 7, 9))
        return await (Down() if odd else Plays()).complete(request)


def test_a_stage_of_which_every_dialogue_failed_ends_with_the_main_reason(park):
    run = cp.start("down", {**DOWN, "model": "test_park:Down"})
    for verb in (cp.simulate, cp.refine, lambda run: cp.run(run)):
        with pytest.raises(cp.RunFailed, match=r"was held: 4 dialogues failed \(failed: broken"):
            verb(run)


def test_dialogues_of_which_none_could_be_refined_end_with_the_main_reason(park):
    run = cp.start("deaf", {**DOWN, "model": "test_park:Deaf"})
    assert cp.simulate(run)["dialogues"] == 4
    for verb in (cp.refine, cp.run):
        with pytest.raises(cp.RunFailed, match=r"was refined: 4 dialogues not refined \(failed: "):
            verb(run)


def test_the_closing_line_says_how_many_dialogues_failed_and_why(park):
    cp.start("flaky", {**DOWN, "model": "test_park:Flaky", "dialogues": 8})
    for verb in ("simulate flaky --resume", "refine flaky", "run flaky --resume"):
        words = verb.split()
        done = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
        why = f"{done['failed_dialogues']} dialogues failed (failed: broken pipe)"
        assert done["dialogues"] and done["failures"] == [why]
        assert why in CliRunner().invoke(cli, words).output


def test_a_resume_tries_failed_dialogues_again(park, monkeypatch):
    run = cp.start("down", {**DOWN, "model": "test_park:Down"})
    with pytest.raises(cp.RunFailed):
        cp.simulate(run)
    monkeypatch.setattr(Down, "lost", ())
    done = cp.simulate(cp.resume(run.folder))
    assert (done["dialogues"], done["failed_dialogues"], done["failures"]) == (4, 0, [])
