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
from culturepark.curation.extract import planted
from culturepark.curation.filters import load
from culturepark.curation.first_person import TOKEN, bent, decapitalised, first_person
from culturepark.curation.pipeline import distil
from culturepark.curation.preview import preview
from culturepark.dialogue import casting
from culturepark.llm.session import Failure, Models, Session, extract_json
from culturepark.records import Dialogue, Fault, Opinion, Turn
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
        return asyncio.run(distil(case, Refining(**how), Session(Models(model), journal)))


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
    ("sieve", "text", "turn"),
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
def test_each_sieve_catches_what_it_is_for(park, sieve, text, turn):
    assert load(sieve)(opinion(text), case_of(park, "hello", turn), [])


@pytest.mark.parametrize(
    "text",
    [
        "Many people in Norland drink tea with guests.",
        "As a baker in Norland, tea at four keeps one awake.",
        "Tea unites the US and Norland, some say.",
    ],
)
def test_sieves_let_ordinary_opinions_pass(park, text):
    case = case_of(
        park, "hello", "Sorry that it rains; I cannot speak for everybody, but tea helps."
    )
    assert [
        name
        for name in ("refusal", "form", "anchors", "repeat")
        if load(name)(opinion(text), case, [])
    ] == []


def test_repeat_folds_case_and_punctuation(park):
    assert load("repeat")(
        opinion("Tea, is GOOD!", 1), case_of(park, "a", "b"), [opinion("Tea is good.")]
    )


def test_a_sieve_of_ones_own_is_named_like_any_other():
    with pytest.raises(cp.InputError, match="Did you mean 'anchors'"):
        load("anchor")
    assert load("culturepark.curation.filters.form:sieve") is load("form")


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
    assert decapitalised("Ramadan brings people together.") is None
    assert (
        "Ramadan" in first_person("Ramadan brings people together.", {"Wei"})
        and bent("health") == "health"
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
        planted("Tea is bad because it stains.", turn) == ("contradiction",)
        and planted("Bread is good.", turn) == ()
    )
