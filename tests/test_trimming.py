"""A turn is what its speaker says, whole: other voices, loops and half sentences are cut off and
marked.
"""

import asyncio
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from conftest import TEA, Plays, said
from hypothesis import given, settings
from hypothesis import strategies as st

import culturepark as cp
from culturepark.cli import cli
from culturepark.context import look_up
from culturepark.dialogue import casting
from culturepark.dialogue.prompting import build_request
from culturepark.dialogue.runner import hold_dialogue
from culturepark.dialogue.trimming import own_turn
from culturepark.llm.client import EndpointClient
from culturepark.llm.providers.compatible import Compatible
from culturepark.llm.session import Models, Session
from culturepark.records import Dialogue, Message, Reply, Request
from culturepark.store import RunStore


def cut(text):
    return own_turn(text, "Nora", ("Travis",), cut=True).text


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ("Tea is good. It warms a gue", "Tea is good."),
        ('He asked: "Is it?" And the', 'He asked: "Is it?"'),
        ("“Tea!” we say. “And more te", "“Tea!” we say."),
        ("نعم. هل تحب الشاي؟ أنا أحب", "نعم. هل تحب الشاي؟"),
        ("চা ভালো। আমি চা", "চা ভালো।"),
        ("茶很好。我们都喝", "茶很好。"),
        ("お茶はいい。みんなが", "お茶はいい。"),
        ("차가 좋아요. 우리는 매", "차가 좋아요."),
        ("¿Té? ¡Claro! En mi ca", "¿Té? ¡Claro!"),
        ("Çay iyidir… İnsanlar çay i", "Çay iyidir…"),
        ("چائے اچھی ہے۔ ہم", "چائے اچھی ہے۔"),
        ("I agree! 😊 And my aunt", "I agree!"),
        ("i agree. tea is fine. and my", "i agree. tea is fine."),
        ("I was born in 1990. Since th", "I was born in 1990."),
        ("I am 43. My aunt is ol", "I am 43."),
    ],
)
def test_a_cut_reply_ends_with_its_last_whole_sentence(reply, left):
    assert own_turn(reply, "Nora", cut=True) == (left, ("trimmed",))


@pytest.mark.parametrize(
    "half",
    [
        "It costs 3.5 dinars and",
        "It costs 3.",
        "I asked Dr. Kim, who",
        "We (e.g. my aunt and",
        "My friend J. K. came",
        "See example.org for",
        'Not "Really?" she asked',
        "1. Tea is",
        "In the U.S. Senate they",
        "Well, ... you kn",
    ],
)
def test_what_is_no_end_of_a_sentence_is_not_taken_for_one(half):
    assert cut(f"Tea is good. {half}") == "Tea is good." and cut(half) == ""


def test_a_reply_that_was_not_cut_keeps_its_end():
    assert own_turn("Tea is good. And figs", "Nora", ("Travis",)) == ("Tea is good. And figs", ())


@pytest.mark.parametrize(
    "other",
    [
        "\nTravis: And I",
        "\n\n**Travis:** Well",
        "\n**Travis**: Well",
        "\n[Travis] Well",
        "\n[Travis]: Well",
        "\nTRAVIS: hm",
        "\n*Travis (smiling):* Yes",
        "\nTravis says: yes",
        "\n## Travis\nYes",
        "\n---\n**Moderator:** Next?",
        "\n[Moderator]",
        "\nThe moderator: so",
        "\n> Moderator： so",
        "\n- Travis : oui",
        " Travis: And you?",
        "\r\nTravis: I",
    ],
)
def test_a_turn_ends_where_another_begins_to_speak(other):
    assert own_turn("I like tea." + other, "Nora", ("Travis",)) == ("I like tea.", ("other_voice",))


@pytest.mark.parametrize(
    "text",
    [
        "We have a word, Human: a word I like.",
        "I tell you. The user: nobody asks them.",
        "Look:\nAssistant professors drink tea.\nUsers: few. Human beings: many.\nAI is new.",
        "The man, Travis - my friend - said so.",
        "I know.\nTravis - my friend - said so.",
        "Travis – I hear you.",
        "1. Tea\n2. Travis\n3. Figs",
        "Mr. Travis is kind.\nDr. Travis too.",
        "Travis, the truth is this: tea is life.",
        "We met.\nTravis, the simple truth: tea.",
        "Tea < coffee and 3 > 2, I <3 figs [sic].",
        "The end of the conversation was sad.\nAt the end - well.\n- the end.",
        "We poured.\nTurn 3 times. Round 2: we won.",
        'He wrote {"tea": 1}.',
    ],
)
def test_words_that_look_like_labels_and_roles_are_left(text):
    assert own_turn(text, "Nora", ("Travis",)) == (text, ())


@pytest.mark.parametrize(
    "label",
    [
        "[Turn 3] Travis:",
        "(Turn 3) Travis:",
        "[Turn 3]\nTravis:",
        "Turn 3 - Travis:",
        "1. Travis:",
        "2) **Travis:**",
        "Mr. Travis:",
        "Travis, the rancher:",
        "Travis>>",
        "Travis >",
        "<Travis>",
        "Travis -",
        "**Travis** –",
        '{"speaker": "Travis", "text":',
        '{"role": "user", "content":',
    ],
)
def test_a_label_is_known_in_other_spellings(label):
    reply = f"I like tea.\n{label} Well, I do not."
    assert own_turn(reply, "Nora", ("Travis",)) == ("I like tea.", ("other_voice",))


ROLES = "User,Assistant,Human,AI,System,Facilitator,USER,**User,### Human,[User],Speaker 1"


@pytest.mark.parametrize("role", [*ROLES.split(","), "Interviewer", "The facilitator", "Person A"])
def test_a_turn_ends_where_a_role_begins_to_speak(role):
    assert own_turn(f"I like tea.\n\n{role}: And you?", "Nora") == ("I like tea.", ("other_voice",))


def test_a_role_may_be_a_speakers_own_name():
    assert own_turn("Ai: I like tea.\nAI: I do.", "Ai") == ("I like tea.\nAI: I do.", ())


def test_a_reply_that_opens_as_the_assistant_is_the_speakers_own():
    assert own_turn("Assistant: I like tea.\nUser: Why?", "Nora").text == "I like tea."
    for role in ("User", "AI"):
        assert own_turn(f"{role}: Do you like tea?", "Nora", ("Ai",)) == ("", ("other_voice",))


TOKENS = (
    "<|im_end|> <|im_start|> </s> <s> [INST] [/INST] <|eot_id|> <|start_header_id|> <|end|> "
    "<|endoftext|> <end_of_turn> <start_of_turn> <|assistant|> <｜end▁of▁sentence｜>"
).split()


@pytest.mark.parametrize("token", [*TOKENS, "<|user|>"])
def test_a_turn_ends_at_a_chat_templates_token(token):
    reply = f"I like tea.{token}user\nWhy?<|im_end|>"
    assert own_turn(reply, "Nora") == ("I like tea.", ("other_voice",))


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_around_a_turn_are_no_other_voice(token):
    assert own_turn(f"{token} I like tea.{token}\n", "Nora") == ("I like tea.", ())
    assert own_turn(f"{token}\nNora: I like tea.{token}{token}", "Nora") == ("I like tea.", ())


CHAT_HEADS = (
    "<|im_start|>assistant",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<start_of_turn>model",
)


def test_the_heads_of_chat_templates_say_whose_turn_it_is():
    for head in CHAT_HEADS:
        assert own_turn(f"{head}\nI like tea.<|im_end|>\n{head}", "Nora") == ("I like tea.", ())
    assert own_turn("<|im_start|>user\nWhy tea?<|im_end|>", "Nora") == ("", ("other_voice",))


@pytest.mark.parametrize(
    "end",
    [
        "\n[End of conversation]",
        " (End of dialogue)",
        "\n--- End ---",
        "\n***\nEnd of the discussion.\n***",
    ],
)
def test_a_note_that_all_is_over_is_nobodys_words(end):
    assert own_turn(f"I like tea.{end}", "Nora") == ("I like tea.", ("other_voice",))


OWN_LABELS = (
    "Nora:/**Nora:**/[Turn 2] Nora:/Turn 2 - Nora:/1. Nora:/Ms. Nora:/Nora, the baker:/Nora>>/"
    "<Nora>/Nora -/Nora –/[Nora]/**Nora**\n/## Nora\n/Nora (smiling):/Nora says:/nora: Nora:"
).split("/")


@pytest.mark.parametrize("label", OWN_LABELS)
def test_a_speakers_own_label_is_stripped_in_any_spelling(label):
    assert own_turn(f"{label} I like tea.", "Nora", ("Travis",)) == ("I like tea.", ())


def test_a_turn_written_as_json_gives_its_text():
    nora = '{"speaker": "Nora", "text": "I like tea."}'
    travis = nora.replace("Nora", "Travis")
    assert own_turn(nora, "Nora", ("Travis",)) == ("I like tea.", ())
    for both in (f"[{nora},\n{travis}]", f"{travis}\n{nora}"):
        assert own_turn(both, "Nora", ("Travis",)) == ("I like tea.", ("other_voice",))
    assert own_turn(travis, "Nora", ("Travis",)) == ("", ("other_voice",))
    assert own_turn(odd := r'{"speaker": "Nora", "text": "a\nb"}', "Nora") == (odd, ())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("غدير", "\n\u200fغدير: لا"),
        ("غدير", "\n\u202b**غدير** :\u202c لا"),
        ("José", "\nJose\u0301: no"),
        ("小美", "\n小美：不"),
    ],
)
def test_names_are_known_in_any_script_and_spelling(name, line):
    assert own_turn("Yes." + line, "Nora", (name,)).text == "Yes."


@pytest.mark.parametrize(
    "text",
    [
        "Travis, you asked me: what is tea? It is life.",
        "I have a question for Travis: do you?",
        "As Travis said: yes.",
        "Dear Travis\nI like tea.",
        "I asked Dr. Travis: he did not know.",
        "Note: tea is good.\nTravisville: a town.",
        "My list:\n- tea\n- Travis and I\nThat is all.",
    ],
)
def test_speaking_of_somebody_is_not_speaking_for_them(text):
    assert own_turn(text, "Nora", ("Travis",)) == (text, ())


def test_a_reply_that_opens_with_another_keeps_only_what_the_speaker_says():
    script = "Moderator: Nora, tea?\nNora: I like it. My aunt\nTravis: Me too."
    assert own_turn(script, "Nora", ("Travis",)).text == "I like it. My aunt"
    assert (
        own_turn("Moderator: Nora?\nNora: I like it. My au", "Nora", cut=True).text == "I like it."
    )
    assert own_turn("Travis: I like it.", "Nora", ("Travis",)) == ("", ("other_voice",))


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ("I like tea. " + "I agree with you. " * 9 + "I agree", "I like tea. I agree with you."),
        (
            "Well. " + "Tea is good. We drink it daily. " * 5,
            "Well. Tea is good. We drink it daily.",
        ),
        ("Tea is good. " + "and the tea and " * 12, "Tea is good."),
        ("Yes! " * 30, "Yes!"),
        ("Well. " + "I agree. " * 4, "Well. I agree."),
        ("We drink tea. " * 4 + "We dr", "We drink tea."),
        ("\n".join(f"{n}. Tea is good for us." for n in range(1, 9)), "1. Tea is good for us."),
        ("我同意你的看法。" * 6 + "我同", "我同意你的看法。"),
        ("Tea is fine. Ha" + "ha" * 60, "Tea is fine."),
        (
            (long := "My aunt in the old town pours tea for each guest who comes to her door. ") * 2
            + long[:-9],
            long.strip(),
        ),
        ("I said no. I said no! I SAID NO. I said no, I said no? I said no.", "I said no."),
    ],
)
def test_a_loop_is_cut_after_its_first_round(reply, left):
    assert own_turn(reply, "Nora") == (left, ("looped",))


@pytest.mark.parametrize(
    "text",
    [
        (
            "I have a dream that we drink. I have a dream that we sing. I have a dream that we eat."
            " I have a dream."
        ),
        "No. No. No! I will not.",
        "I agree. I agree. I agree.",
        "And so on, and so on, and so on, and so on.",
        "1. Tea is good.\n2. Tea is cheap.\n3. Tea is warm.\n4. Tea is ours.",
        "It is very, very, very, very good.",
        "Day after day after day after day we pour.",
        "We drink tea. We drink tea because we like it. We drink tea. That is how we are.",
        "of the people, by the people, for the people, with the people, to the people",
        "是的，是的，是的，我同意。",
    ],
)
def test_what_is_said_again_for_effect_is_no_loop(text):
    assert own_turn(text, "Nora") == (text, ())


PIECES = [
    *'Tea/ is/ good/./!/?/…/。/؟/।/ Dr./ 3.5/\n/\nTravis:/\n**Moderator:**/"/Nora:'.split("/"),
    *" I agree./茶/غدير/ /*/[Travis]/ha/“/”/\n1. /[Turn 3] /Nora - /\nTravis – ".split("/"),
    *">>~Mr. ~, the rancher:~\nUser:~Assistant:~</s>~<|im_end|>~<|im_start|>~user\n".split("~"),
    *'[INST]~{"speaker": "Nora", "text": "~{"speaker": "Travis", "text": "~"}'.split("~"),
    *("assistant\n", "\n--- End ---", "(End of dialogue)", "\\"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=200)


@settings(deadline=None)
@given(TEXTS, st.booleans())
def test_a_turn_is_a_part_of_its_reply_and_has_nothing_left_to_cut(reply, cut):
    text, marks = own_turn(reply, "Nora", ("Travis",), cut=cut)
    assert text in reply and text == text.strip() and len(set(marks)) == len(marks)
    assert own_turn(text, "Nora", ("Travis",)) == (text, ())
    if not marks:
        assert text == "" or not cut


@pytest.mark.parametrize(
    "piece",
    [
        "\n",
        " ",
        "a",
        "*",
        "Travis ",
        "ha ",
        "。",
        "[",
        "x. y. ",
        "Tea is good. ",
        "1. ",
        "(\n",
        "Nora: ",
        "Nora - ",
        "\nTravis - ",
        "[Turn 1] ",
        "<s>",
        "x <s>",
        "<|",
        "{",
        '[{"',
        "\nEnd",
        "\nAI ",
        "(End of ",
    ],
)
def test_a_long_reply_is_read_in_a_moment(piece):
    assert len(own_turn(piece * 20_000, "Nora", ("Travis",), cut=True).text) <= len(piece)


# ---------------------------------------------------------------- dialogues


def held(park, folder, model, **changes):
    space, settings = cp.load(park), cp.Settings(**{**TEA, "turns": 2, **changes})
    scene = next(casting.scenes(space, settings, "north"))
    with RunStore(folder) as journal:
        laid, desk = look_up(space, Dialogue(scene=scene)), Session(Models(model), journal)
        return asyncio.run(hold_dialogue(laid, desk, laid.dialogue, cut_turns=settings.cut_turns))


CUT = Reply("truncated", "Tea is good. It war", "the answer was cut at max_tokens", "m")


def test_a_cut_turn_is_trimmed_and_marked_and_asked_for_once(park, tmp_path):
    script = cp.Scripted([CUT, "Yes."])
    turns = held(park, tmp_path, script).turns
    assert [(t.text, t.marks) for t in turns] == [("Tea is good.", ("trimmed",)), ("Yes.", ())]
    assert len(script.requests) == 2


def test_a_cut_turn_without_a_whole_sentence_is_asked_for_again(park, tmp_path):
    script = cp.Scripted([replace(CUT, text="Tea is"), "Tea is good.", "Yes."])
    assert [t.text for t in held(park, tmp_path, script).turns] == ["Tea is good.", "Yes."]
    assert held(park, tmp_path / "b", cp.Scripted([replace(CUT, text="Tea is")])).reason.endswith(
        "no whole sentence"
    )


def test_retry_asks_for_a_cut_turn_with_twice_the_room(park, tmp_path):
    script = cp.Scripted([CUT, CUT, "Tea is good.", "Yes."])
    assert [t.text for t in held(park, tmp_path, script, cut_turns="retry").turns] == [
        "Tea is good.",
        "Yes.",
    ]
    assert [r.max_tokens for r in script.requests] == [256, 512, 1024, 256]


def test_fail_ends_the_dialogue_at_the_first_cut_turn(park, tmp_path):
    script = cp.Scripted([CUT])
    dialogue = held(park, tmp_path, script, cut_turns="fail")
    assert (
        dialogue.status == "failed"
        and "cut at max_tokens" in dialogue.reason
        and len(script.requests) == 1
    )


def test_a_reply_as_somebody_else_is_asked_for_again(park, tmp_path):
    script = cp.Scripted(
        ["Moderator: what do you think?", "I think so.\nModerator: and you?", "Yes."]
    )
    turns = held(park, tmp_path, script).turns
    assert [(t.text, t.marks) for t in turns] == [("I think so.", ("other_voice",)), ("Yes.", ())]


def test_a_policy_that_says_nothing_leaves_scenes_as_they_were(park):
    ids = {
        policy: (
            next(casting.scenes(cp.load(park), cp.Settings(**TEA, cut_turns=policy), "north")).id
        )
        for policy in ("trim", "retry")
    }
    assert "cut_turns" not in cp.Settings().determining() and ids["trim"] != ids["retry"]


# -------------------------------------------------------------- stop strings


def test_a_seat_is_asked_to_stop_where_the_other_or_the_moderator_begins(park):
    space, settings = cp.load(park), cp.Settings(**TEA, modes=("cross",))
    scene = next(casting.scenes(space, settings, "north"))
    laid = look_up(space, Dialogue(scene=scene))
    other = laid.personas[1].given_name
    assert build_request(laid, laid.dialogue).stop == ("\nModerator:", f"\n{other}:")


def test_a_second_try_is_sent_without_stop_texts(park, tmp_path):
    script = cp.Scripted(
        [
            Reply("empty", reasoning="The prompt says:", reason="thoughts alone"),
            "I like tea.",
            "Yes.",
        ]
    )
    assert [t.text for t in held(park, tmp_path, script).turns] == ["I like tea.", "Yes."]
    assert [len(r.stop) for r in script.requests] == [2, 0, 2]


def test_show_prints_the_stop_texts():
    told = CliRunner().invoke(
        cli, ["show", "delegate", "-w", str(cp.workspace.find_shipped_cards()), "--json"]
    )
    assert "\nModerator:" in json.loads(told.stdout)["stop"]


def test_stop_texts_change_a_call_only_where_there_are_any():
    plain = Request("delegate", (Message("user", "Tea?"),))
    assert plain.key("m") == "598eb8cd54b54cfc821a" and plain.key("m") != replace(
        plain, stop=("\nA:",)
    ).key("m")


def test_an_endpoint_that_refuses_stop_texts_is_asked_without(serve):
    def reply(n, body):
        if "stop" in body:
            return 400, {}, {"error": {"message": "Unsupported parameter: 'stop'", "param": "stop"}}
        return 200, {}, said("Hello.")

    server = serve(reply)
    asked = Request("delegate", (Message("user", "Tea?"),), stop=("\nTravis:",))

    async def ask():
        line = EndpointClient(Compatible("m", server.url, None), "m")
        try:
            return [await line.complete(asked) for _ in range(2)]
        finally:
            await line.close()

    assert [r.text for r in asyncio.run(ask())] == ["Hello.", "Hello."]
    assert [body.get("stop") for body in server.seen] == [["\nTravis:"], None, None]


def test_a_dialogue_of_one_turn_is_refused_before_anything_is_written(park):
    with pytest.raises(cp.CardError, match=r"turns: .*at least 2 turns"):
        cp.run("alone", {**TEA, "turns": 1})
    assert not (park / "outputs/alone").exists()


def test_nothing_is_cut_off_the_embedded_engines_turns(park):
    faults = {"duplicate": 0.4, "drift": 0.2}
    run = cp.start(
        "plain",
        {"cultures": ("arabic",), "dialogues": 20, "faults": faults},
        workspace=cp.workspace.find_shipped_cards(),
    )
    cp.simulate(run)
    with run.open_store(write=False) as journal:
        assert journal.select(
            "SELECT COUNT(*) FROM turns WHERE json_extract(turn, '$.marks') != '[]'"
        ) == [(0,)]


class Rambler:
    """A model that never stops: each turn is cut, the delegates' after they have said everything
    twelve times.
    """

    identity = "rambler"

    async def complete(self, request):
        if request.role not in ("main_contact", "delegate"):
            return await Plays().complete(request)
        text = f"Tea is good, says number {request.seed}. "
        return Reply(
            "truncated",
            text * 12 if request.role == "delegate" else text + "And th",
            "cut",
            "rambler",
        )


@pytest.fixture
def rambled(park):
    made = {
        **TEA,
        "model": "test_trimming:Rambler",
        "dialogues": 3,
        "turns": 4,
        "modes": ("cross",),
    }
    return cp.run("rambled", made, formats=("hub",))


def test_marked_turns_are_kept_and_counted_in_report_and_card(rambled):
    facts = json.loads((rambled.folder / "report/report.json").read_text())
    counts = {"turns": 12, "marked": 12, "trimmed": 6, "other_voice": 0, "looped": 6}
    assert facts["marked"] == {
        "culture": [{"culture": "north"} | counts],
        "model": [{"model": "rambler"} | counts],
    }
    assert "Marked turns by model" in (rambled.folder / "report/report.html").read_text()
    assert (
        "| rambler | 12 | 12 | 100.0% | 6 | 0 | 6 |"
        in (rambled.corpus / "hub/README.md").read_text()
    )


def test_a_run_says_how_many_turns_it_marked(rambled, park):
    told = CliRunner().invoke(cli, ["refine", "rambled", "--json"])
    assert json.loads(told.stdout)["marked_turns"] == 12
    told = CliRunner().invoke(cli, ["simulate", "rambled", "--resume"])
    assert "12 turns (12 turns marked" in told.stdout


def test_a_run_of_whole_turns_has_no_table_of_marks(park):
    run = cp.run(
        "whole", {**TEA, "model": "conftest:Plays", "dialogues": 1, "turns": 4}, formats=("hub",)
    )
    assert "Marked turns" not in (run.folder / "report/report.html").read_text()
    assert "were cut" not in (run.corpus / "hub/README.md").read_text()
