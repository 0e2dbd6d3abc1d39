"""The refinery: what is kept agrees with its seed, what is dropped says why, and no word is
mangled.
"""

import asyncio
import json
import re

import pytest
from conftest import TEA, answer
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark.context import look_up
from culturepark.curation import deduplication, embedders
from culturepark.curation.extract import match_faults
from culturepark.curation.filters import each_opinion, load
from culturepark.curation.first_person import TOKEN, bend_verb, decapitalise, first_person
from culturepark.curation.pipeline import curate
from culturepark.curation.preview import preview
from culturepark.curation.verify import Ruling
from culturepark.dialogue import casting
from culturepark.llm.session import (
    Failure,
    Models,
    Session,
    build_single_request,
    extract_json,
)
from culturepark.records import Dialogue, Fault, Opinion, Reply, Turn
from culturepark.settings import Refining
from culturepark.store import RunStore


def case_of(park, *texts, mode="cross"):
    space = cp.load(park)
    scene = next(casting.scenes(space, cp.Settings(**{**TEA, "modes": (mode,)}), "north"))
    turns = tuple(
        Turn(n=i, seat=i % 2, speaker="AB"[i % 2], text=t, cue="", call="")
        for i, t in enumerate(texts)
    )
    return look_up(space, Dialogue(scene=scene, turns=turns, status="done"))


def refined(park, tmp_path, case, model, **how):
    with RunStore(tmp_path / "run") as journal:
        return asyncio.run(curate(case, Refining(**how), Session(Models(model), journal)))


def plays(opinions, verdicts=("entail",), rewrite="Drinking tea is good after all."):
    """A model that extracts these opinions and gives these verdicts in order."""
    rulings = iter([*verdicts, *[verdicts[-1]] * 99])

    def script(request):
        if request.role == "extractor":
            return json.dumps({"opinions": [{"turn": t, "text": text} for t, text in opinions]})
        if request.role == "verifier":
            return json.dumps({"verdict": next(rulings), "reason": "because"})
        return json.dumps({"opinion": rewrite})

    return cp.Scripted(script)


def opinion(text, n=0, turn=1):
    return Opinion(id=str(n), dialogue="d", n=n, turn=turn, seat=1, text=text, final=text)


def test_the_rewritten_opinion_is_verified_not_the_old_one(park, tmp_path):
    model = plays([(1, "Drinking tea with guests is bad.")], ("contradict", "entail"))
    (kept,) = refined(park, tmp_path, case_of(park, "hello", "tea is bad"), model)
    judged = [r.messages[1].content for r in model.requests if r.role == "verifier"]
    assert "is bad." in judged[0] and "good after all" in judged[1] and "is bad." not in judged[1]
    assert kept.final == "Drinking tea is good after all." and not kept.dropped


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        (("irrelevant",), "irrelevant"),
        (("contradict", "contradict"), "contradict"),
        (("contradict", "irrelevant"), "irrelevant"),
    ],
)
def test_what_does_not_entail_is_dropped_with_its_reason_and_kept_on_record(
    park, tmp_path, verdicts, reason
):
    (dropped,) = refined(
        park,
        tmp_path,
        case_of(park, "hello", "tea"),
        plays([(1, "Drinking tea is a matter.")], verdicts),
    )
    assert (
        dropped.dropped == reason
        and dropped.detail == "because"
        and [v.label for v in dropped.verdicts] == list(verdicts)
    )


def test_only_delegates_are_extracted_across_and_everyone_within(park, tmp_path):
    for mode, seen in (("cross", {1, 3}), ("in", {0, 1, 2, 3})):
        model = cp.Scripted(answer)
        refined(park, tmp_path / mode, case_of(park, "a", "b", "c", "d", mode=mode), model)
        assert {t.n for t in model.requests[0].facts["turns"]} == seen


@pytest.mark.parametrize(("turns", "room"), [(2, 1024), (14, 1792), (60, 4096)])
def test_an_extraction_has_room_for_the_opinions_of_all_its_turns(park, tmp_path, turns, room):
    case, model = case_of(park, *["I think so."] * turns, mode="in"), plays([])
    refined(park, tmp_path, case, model)
    assert [r.max_tokens for r in model.requests] == [room]
    assert preview(case, "extractor", "").key("m") == model.requests[0].key("m")


def test_an_unreadable_extraction_is_a_failure_with_the_raw_text_after_three_tries(park, tmp_path):
    model = cp.Scripted(["no json here"])
    found = refined(park, tmp_path, case_of(park, "a", "b"), model)
    assert (
        isinstance(found, Failure) and found.status == "unparsed" and "no json here" in found.reason
    )
    assert len(model.requests) == 3 and len({r.index for r in model.requests}) == 3


def test_an_unverifiable_opinion_is_never_kept(park, tmp_path):
    def script(r):
        return (
            json.dumps({"opinions": [{"turn": 1, "text": "Drinking tea is good."}]})
            if r.role == "extractor"
            else "[{[}]"
        )

    (found,) = refined(park, tmp_path, case_of(park, "a", "b"), cp.Scripted(script))
    assert found.dropped == "unverified" and "unparsed" in found.detail


def test_a_cited_turn_that_is_not_there_is_refused(park, tmp_path):
    found = refined(park, tmp_path, case_of(park, "a", "b"), plays([(7, "Drinking tea is good.")]))
    assert isinstance(found, Failure) and "[7]" in found.reason


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', '```json\n{"a": 1}\n```', 'Sure!\n{"a": 1} Hope this helps {', '\n {"a": 1}'],
)
def test_json_is_found_in_what_models_write_around_it(text):
    assert json.loads(extract_json(text)) == {"a": 1}


@pytest.mark.parametrize(
    ("name", "text", "turn"),
    [
        ("refusal", "Tea is good here.", "I'm sorry, but I can't share personal opinions on tea."),
        ("refusal", "Tea is good here.", "As an AI language model, tea is not for me."),
        ("refusal", "Tea is good here.", "I must decline to speak for a culture on tea."),
        ("form", "- Tea is good for many.", "x"),
        ("form", "Here are the opinions about tea:", "x"),
        ("form", "I think tea is good.", "x"),
        ("form", "Is tea good for everyone?", "x"),
        ("form", "Tea.", "x"),
        ("anchors", "As a 71-year-old, tea is good.", "x"),
        ("anchors", "As a fisherman from Oslo, tea is good.", "x"),
    ],
)
def test_each_filter_catches_what_it_is_for(park, name, text, turn):
    assert all(load(name)([opinion(text)], case_of(park, "hello", turn)))


@pytest.mark.parametrize(
    "text",
    [
        "Many people in Norland drink tea with guests.",
        "As a baker in Norland, tea at four keeps one awake.",
        "Tea unites the US and Norland, some say.",
    ],
)
def test_filters_let_ordinary_opinions_pass(park, text):
    case = case_of(
        park, "hello", "Sorry that it rains; I cannot speak for everybody, but tea helps."
    )
    for name in ("refusal", "form", "anchors", "repeat"):
        assert load(name)([opinion(text)], case) == [None]


def test_repeat_folds_case_and_punctuation(park):
    batch = [opinion("Tea is good."), opinion("Tea, is GOOD!", 1), opinion("Tea is bad.", 2)]
    first, again, other = load("repeat")(batch, case_of(park, "a", "b"))
    assert again == "says again what opinion 0 (turn 1) said" and not first and not other


def test_a_filter_of_ones_own_is_named_like_any_other():
    with pytest.raises(cp.InputError, match="Did you mean 'anchors'"):
        load("anchor")
    assert load("culturepark.curation.filters.form:apply") is load("form")


def short_sieve(opinion, case, earlier):
    """Drop all but the first opinion of three words, as filters were written once."""
    short = len(opinion.text.split()) == 3
    return f"{len(earlier)} before" if short and earlier else None


def test_a_sieve_of_the_old_form_still_works_and_says_what_it_is_now(park, tmp_path):
    model = plays([(1, "Tea is good."), (1, "Tea is bad."), (1, "Drinking tea is good.")])
    with pytest.warns(DeprecationWarning, match="is now a filter"):
        found = refined(
            park, tmp_path, case_of(park, "a", "b"), model, filters=("test_refinery:short_sieve",)
        )
    dropped = {o.text: (o.dropped, o.detail) for o in found if o.dropped}
    assert dropped == {"Tea is bad.": ("test_refinery:short_sieve", "1 before")}


@each_opinion
async def ask_filter(opinion, context, session):
    """Ask the model of the verifier whether an opinion may stay."""
    role = context.roles["verifier"]
    facts = context.answer_facts(opinion.seat, opinion=opinion.final)
    answer = await session.ask_json(
        build_single_request(role, facts, Ruling, "filter", opinion.n), opinion.id, Ruling
    )
    if isinstance(answer, Failure):
        return answer
    return answer.value.reason if answer.value.verdict == "contradict" else None


def test_a_filter_that_asks_a_model_has_its_calls_side_by_side(park, tmp_path):
    open_now, most = 0, 0

    class Slow:
        identity = "slow"

        async def complete(self, request):
            nonlocal open_now, most
            open_now, most = open_now + 1, max(most, open_now + 1)
            await asyncio.sleep(0.001)
            open_now -= 1
            return await plays([(1, f"Tea is good with {n}.") for n in range(6)]).complete(request)

    name = "test_refinery:ask_filter"
    found = refined(park, tmp_path, case_of(park, "a", "b"), Slow(), filters=(name,))
    assert most == 6 and [o.dropped for o in found] == [""] * 6


def test_an_opinion_that_a_filter_could_not_judge_is_never_kept(park, tmp_path):
    def script(request):
        if request.role == "extractor":
            return json.dumps({"opinions": [{"turn": 1, "text": "Drinking tea is good."}]})
        return Reply("failed", reason="gone")

    (found,) = refined(
        park,
        tmp_path,
        case_of(park, "a", "b"),
        cp.Scripted(script),
        filters=("test_refinery:ask_filter",),
    )
    assert found.dropped == "unverified"
    assert found.detail == "failed: filter test_refinery:ask_filter: gone"


def test_a_filter_gives_one_reason_per_opinion(park, tmp_path):
    model = plays([(1, "Drinking tea is good.")])
    with pytest.raises(cp.InputError, match="0 reasons for 1 opinions"):
        refined(park, tmp_path, case_of(park, "a", "b"), model, filters=("test_refinery:forget",))


def forget(batch, context):
    """Return nothing at all."""
    return []


def test_the_old_key_of_filters_works_with_a_warning_and_changes_no_id():
    with pytest.warns(DeprecationWarning, match=r"refine\.sieves is now refine\.filters"):
        old = cp.Settings(refine={"sieves": ("form",)})
    new = cp.Settings(refine={"filters": ("form",)})
    assert old == new and new.determining()["refine"]["sieves"] == ["form"]
    with pytest.raises(cp.CardError, match="write filters alone"):
        cp.Settings(refine={"sieves": ("form",), "filters": ("form",)})


def test_k_means_keeps_one_opinion_a_cluster_and_says_which():
    texts = ["Tea is good."] * 3 + [
        f"Opinion number {n} about {w}."
        for n, w in enumerate(["bread", "rice", "wine", "salt", "fish"])
    ]
    thinned = deduplication.thin([opinion(t, n) for n, t in enumerate(texts)], embedders.hashing, 4)
    kept = [o for o in thinned if not o.dropped]
    assert len(kept) == 4 == len({o.cluster for o in kept}) and all(
        o.detail for o in thinned if o.dropped == "redundant"
    )


def test_embeddings_have_256_dimensions_and_length_one():
    vectors = embedders.hashing(["Tea is good.", "Rice is better."])
    assert vectors.shape == (2, 256) and abs((vectors**2).sum(axis=1) - 1).max() < 1e-9


def test_diversity_gain_is_the_mean_distance_to_the_nearest_seed():
    import numpy as np

    generated, seeds = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [3.0, 0.0]])
    assert embedders.diversity(generated, seeds) == pytest.approx((1 + 4) / 2)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (
            "Wei believes that health and weight matter; they're close to Wei's heart.",
            "Wei",
            "I believe that health and weight matter; they're close to my heart.",
        ),
        ("Sheila also thinks she-oaks heal.", "Sheila", "I also think she-oaks heal."),
        ("Wei carries water, says Wei.", "Wei", "I carry water, says me."),
    ],
)
def test_first_person_replaces_whole_words_only(text, name, said):
    assert first_person(text, {name}) == said


def test_an_opinion_without_its_speakers_name_gets_a_lead():
    assert re.match(
        r"^(I |In my view|As I see it|To my mind|For me|My view)",
        first_person("Many families share bread.", {"Wei"}),
    )
    assert decapitalise("Ramadan brings people together.") is None
    assert (
        "Ramadan" in first_person("Ramadan brings people together.", {"Wei"})
        and bend_verb("health") == "health"
    )


@given(
    st.lists(
        st.sampled_from(
            [
                "Wei",
                "Wei's",
                "health",
                "weight",
                "the",
                "they're",
                "she's",
                "heal",
                "shelter",
                "hers",
                "Ying",
                "theirs",
                "believes",
                ",",
                ".",
                "I",
            ]
        ),
        min_size=1,
        max_size=20,
    )
)
def test_no_word_is_ever_mangled(words):
    text = " ".join(words)
    allowed = {"I", "me", "my", "My", "believe"}
    leads = set(
        TOKEN.findall(
            "I think believe would say hold that In my view, As see it, To mind, For me, My view is"
            " this:"
        )
    )
    originals = set(TOKEN.findall(text)) | {t.lower() for t in TOKEN.findall(text)}
    assert set(TOKEN.findall(first_person(text, {"Wei"}))) <= originals | allowed | leads


def test_truth_follows_a_planted_sentence_through_extraction():
    turn = Turn(
        n=1,
        seat=1,
        speaker="B",
        text="Well. I think that tea is bad because it stains.",
        cue="",
        call="",
        faults=(
            Fault(kind="contradiction", sentence="I think that tea is bad because it stains."),
        ),
    )
    assert (
        match_faults("Tea is bad because it stains.", turn) == ("contradiction",)
        and match_faults("Bread is good.", turn) == ()
    )
