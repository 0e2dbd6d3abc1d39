"""Reward models and SCPO: the paper's formula, splits that leak nobody, judgements whose intervals
are honest.
"""

import csv
import json
import math
import random

import pytest
from click.testing import CliRunner
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st

from culturepark.cli.scpo import tune_scpo as command
from culturepark.errors import InputError, NotFound, RunFailed
from culturepark.evaluation import steered
from culturepark.local_models import machine, manifest, rewards
from culturepark.local_models.libraries import quiet
from culturepark.local_models.sketch import sketch_base
from culturepark.records import Preference
from culturepark.surveys import simulated, votes
from culturepark.surveys.votes import Votes
from culturepark.training import reward, scpo
from culturepark.training.scpo import RewardResult

pytest.importorskip("trl")
CREHATE = DATA / "preference" / "crehate_five_countries.csv"
SIZE = {"users": 4, "talks": 1, "noise": 0.0}


@pytest.fixture(scope="module")
def data():
    return votes.simulate_votes(**SIZE)


@pytest.fixture(scope="module")
def small(tmp_path_factory, data):
    with quiet():
        texts = [
            t for p in data.pairs for t in (p.chosen, p.rejected, *(m.content for m in p.history))
        ]
        return sketch_base(
            tmp_path_factory.mktemp("base") / "small", texts, width=16, vocabulary=400, dropout=0.5
        )


@pytest.fixture(scope="module")
def how(small):
    return {
        "base": str(small),
        "batch": 8,
        "steps": 2,
        "global_epochs": 0.2,
        "lr": 3e-3,
        "length": 128,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory, data, how):
    """One run of every variant in two countries, with the folder it lies in."""
    out = tmp_path_factory.mktemp("done") / "run"
    told = scpo.build_terms(**how, tau=0.95)
    return out, scpo.run(data, out, told, countries=("Norland", "Ostland"), keep="filter+weight")


def opened(small, length=128):
    held = rewards.Texts(rewards.load_tokenizer(str(small)), length)
    return held, rewards.load_model(str(small), held.tokenizer, machine.find_machine("cpu"))


def pair(n, user, country="N", minority=None):
    return Preference(
        id=f"p{n}",
        user=user,
        country=country,
        history=(),
        chosen="a",
        rejected="b",
        minority=minority,
    )


# ------------------------------------------------------------------- formula


def test_the_loss_is_the_papers_formula_to_the_sixth_digit_and_so_are_its_gradients():
    import torch

    rng, beta, n = random.Random(1), 1.10, 64
    plus, minus, chosen, rejected = ([rng.gauss(0, 2) for _ in range(n)] for _ in range(4))
    w = [min(math.exp((p - m) / beta), 1) for p, m in zip(plus, minus, strict=True)]
    sigma = [1 / (1 + math.exp(r - c)) for c, r in zip(chosen, rejected, strict=True)]
    ours, theirs = (
        torch.tensor(chosen, requires_grad=True),
        torch.tensor(rejected, requires_grad=True),
    )
    _, weights = scpo.select_and_weigh("weight", torch.tensor(plus), torch.tensor(minus), 0.7, beta)
    found = reward.compute_loss(ours, theirs, weights)
    found.backward()
    assert found.item() == pytest.approx(
        -sum(a * math.log(s) for a, s in zip(w, sigma, strict=True)) / n, abs=1e-6
    )
    slopes = [-a * (1 - s) / n for a, s in zip(w, sigma, strict=True)]
    assert ours.grad.tolist() == pytest.approx(
        slopes, abs=1e-6
    ) and theirs.grad.tolist() == pytest.approx([-s for s in slopes], abs=1e-6)


def test_what_the_trainer_descends_is_that_loss_on_the_models_own_rewards(small, data, tmp_path):
    pairs, weights = data.pairs[:6], [1.0, 0.5, 0.25, 0.1, 1.0, 0.0]
    with quiet():
        held, model = opened(small)
        model.config.attention_dropout = model.model.layers[0].self_attn.attention_dropout = 0.0
        before = rewards.compute_rewards(model, held, pairs)
        _, loss = reward.train_reward_model(
            model,
            held,
            pairs,
            weights,
            reward.RewardRecipe(1, 6, 1e-4, 0),
            machine.find_machine("cpu"),
            tmp_path / "w",
        )
    apart = [before[p.id][0] - before[p.id][1] for p in pairs]
    assert loss == pytest.approx(
        sum(w * math.log1p(math.exp(-a)) for w, a in zip(weights, apart, strict=True)) / 6, abs=1e-6
    )


@pytest.mark.parametrize("shape", [(4, 1), (3,), ()])
def test_rewards_of_another_shape_are_refused_not_broadcast(shape):
    import torch

    with pytest.raises(ValueError, match="shape"):
        reward.compute_loss(torch.zeros(4), torch.zeros(shape), torch.ones(4))
    with pytest.raises(ValueError, match="shape"):
        reward.compute_loss(torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(4, 1))


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0.01, 1), st.floats(0.05, 10))
def test_filter_and_weights_are_finite_for_any_rewards(plus, minus, tau, beta):
    import torch

    p, m = torch.tensor([plus], dtype=torch.float64), torch.tensor([minus], dtype=torch.float64)
    w, other = (
        scpo.compute_weight(p, m, beta).item(),
        scpo.compute_inverse_weight(p, m, beta).item(),
    )
    assert 0 <= w <= 1 <= other < math.inf
    assert (
        other == pytest.approx(1 / w, rel=1e-6)
        if (minus - plus) / beta < scpo.MOST
        else other == pytest.approx(math.exp(scpo.MOST))
    )
    if abs(plus - minus) < 30 and tau < 1:
        sigma = 1 / (1 + math.exp(minus - plus))
        assert bool(scpo.select_pairs(p, m, tau)) == (sigma < tau) or sigma == pytest.approx(tau)


def test_the_variants_differ_in_what_they_keep_and_weigh():
    import torch

    plus, minus = (
        torch.tensor([2.0, 0.5, 0.0]),
        torch.tensor([0.0, 0.0, 1.1]),
    )  # σ = 0.88, 0.62, 0.25
    found = {
        v: [t.tolist() for t in scpo.select_and_weigh(v, plus, minus, 0.7, 1.1)]
        for v in scpo.LEARNS
    }
    assert found["full"] == [[True] * 3, [1, 1, 1]] and found["filter"] == [
        [False, True, True],
        [1, 1, 1],
    ]
    assert found["weight"] == [[True] * 3, pytest.approx([1, 1, math.exp(-1)])]
    assert (
        found["inverse"][1] == pytest.approx([1, 1, math.e])
        and found["tuned"] == found["filter+weight"]
    )


# ------------------------------------------------------------------- scoring


def test_scores_are_told_without_dropout_even_of_a_model_in_training(small, data):
    with quiet():
        held, model = opened(small)
        calm = rewards.compute_rewards(model, held, data.pairs[:20])
        model.train()
        assert (
            rewards.compute_rewards(model, held, data.pairs[:20])
            == calm
            == rewards.compute_rewards(model, held, data.pairs[:20])
        )
        assert model.training
        ids = model(
            **held.tokenizer.pad(
                {"input_ids": [list(held.of(data.pairs[0], True))]}, return_tensors="pt"
            )
        ).logits
    assert ids.item() != pytest.approx(calm[data.pairs[0].id][0])  # dropout there is


def test_training_and_scoring_read_the_same_tokens_with_all_earlier_turns(small, data, tmp_path):
    later = [p for p in data.pairs if len(p.history) > 1][:4]
    seen = []
    with quiet():
        held, model = opened(small)
        hook = model.register_forward_pre_hook(
            lambda m, a, k: seen.append(
                {
                    tuple(r[:n].tolist())
                    for r, n in zip(k["input_ids"], k["attention_mask"].sum(1), strict=True)
                }
            ),
            with_kwargs=True,
        )
        rewards.compute_rewards(model, held, later)
        reward.train_reward_model(
            model,
            held,
            later,
            [1.0] * 4,
            reward.RewardRecipe(1, 4, 1e-3, 0),
            machine.find_machine("cpu"),
            tmp_path / "w",
        )
        hook.remove()
    scored, trained = seen
    assert scored == trained == {held.of(p, side) for p in later for side in (True, False)}
    text = held.tokenizer.decode(held.of(later[0], True))
    assert all(m.content in text for m in later[0].history) and later[0].chosen in text


def test_a_conversation_that_is_too_long_loses_its_beginning_and_it_is_counted(small, data):
    with quiet():
        held = rewards.Texts(rewards.load_tokenizer(str(small)), 16)
        whole = rewards.tokenize_talks(
            held.tokenizer, [data.pairs[0].with_answer(data.pairs[0].chosen)]
        )[0]
        held.add(data.pairs[:1])
    assert held.of(data.pairs[0], True) == tuple(whole[-16:]) and held.cut == 2


def test_an_encoder_without_chat_template_end_mark_or_sdpa_reads_question_and_answer_as_a_pair(
    tmp_path,
):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    words = {
        w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "is", "it", "yes", "no"])
    }
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    size = {
        "vocab_size": 8,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    asked = Preference(
        id="1",
        user="u",
        country="N",
        history=({"role": "user", "content": "is it"},),
        chosen="yes",
        rejected="no",
    )
    with quiet():
        made.save_pretrained(tmp_path)
        DebertaV2ForSequenceClassification(DebertaV2Config(**size, num_labels=1)).save_pretrained(
            tmp_path
        )
        held, model = opened(tmp_path)
        before = rewards.compute_rewards(model, held, [asked])["1"]
        model, _ = reward.train_reward_model(
            model,
            held,
            [asked] * 2,
            [1.0] * 2,
            reward.RewardRecipe(3, 2, 1e-2, 0),
            machine.find_machine("cpu"),
            tmp_path / "w",
        )
        after = rewards.compute_rewards(model, held, [asked])["1"]
    assert list(held.of(asked, True)) == made("is it", "yes")["input_ids"]
    assert after[0] - after[1] > before[0] - before[1] and rewards.keep_last_tokens(
        made, held.of(asked, True), 3
    ) == [2, 6, 3]


# ---------------------------------------------------------------------- data


def prism(**more):
    answer = {"role": "model", "turn": 0}
    told = [
        {"role": "user", "turn": 0, "content": "Hi"},
        {**answer, "content": "A", "score": 60, "if_chosen": False},
        {**answer, "content": "B", "score": 90, "if_chosen": True},
        {**answer, "content": "C", "score": 60, "if_chosen": False},
        {"role": "user", "turn": 1, "content": "Why?"},
        {"role": "model", "turn": 1, "content": "D", "score": 10},
        {"role": "model", "turn": 1, "content": "E", "score": 20},
    ]
    return {"user_id": "u1", "conversation_id": "c1", "conversation_history": told, **more}


def written(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_scored_conversations_make_pairs_within_a_turn_with_the_whole_history_and_none_of_ties(
    tmp_path,
):
    written(
        tmp_path / "survey.jsonl",
        [{"user_id": "u1", "location": {"reside_country": "Chile", "birth_country": "Peru"}}],
    )
    found = votes.read_votes(written(tmp_path / "conversations.jsonl", [prism()]))
    assert [(p.chosen, p.rejected) for p in found.pairs] == [
        ("B", "A"),
        ("B", "C"),
        ("E", "D"),
    ] and found.skipped == {"ties": 1}
    assert [m.content for m in found.pairs[-1].history] == ["Hi", "B", "Why?"] and {
        p.country for p in found.pairs
    } == {"Chile"}


def test_preference_rows_are_read_with_their_countries_and_users(tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "Q"}],
        "chosen": "yes",
        "rejected": "no",
        "metadata": {"country": "Chile", "user": "u"},
    }
    found = votes.read_votes(written(tmp_path / "train.jsonl", [row]))
    assert found.pairs[0].with_answer("yes") == [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "yes"},
    ]
    row["metadata"] = {"countries": "Chile", "user": "u"}
    with pytest.raises(
        InputError, match=r"train.jsonl:1: no metadata.country. Did you mean 'countries'"
    ):
        votes.read_votes(written(tmp_path / "train.jsonl", [row]))


def labelled(path, rows, names=("United_States_Hate", "Singapore_Hate", "Australia_Hate")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("ID", "Text", *names), *rows])
    return path


def test_labels_by_country_make_a_pair_each_and_the_data_say_who_is_in_the_minority(tmp_path):
    found = votes.read_votes(
        labelled(
            tmp_path / "posts.csv",
            [("1", 'two\n"lines"', "1.0", "0.0", "1.0"), ("2", "b", "0", "", "0")],
        )
    )
    assert [(p.country, p.chosen == votes.LABELS[1], p.minority) for p in found.pairs] == [
        ("United States", True, False),
        ("Singapore", False, True),
        ("Australia", True, False),
        ("United States", False, None),
        ("Australia", False, None),
    ]
    assert 'two\n"lines"' in found.pairs[0].history[0].content and found.skipped == {
        "unlabelled": 1
    }
    assert {p.user for p in found.pairs} == {"1", "2"} and found.find_countries(
        ["US", "singapore"]
    ) == (
        "United States",
        "Singapore",
    )
    with pytest.raises(NotFound, match="Did you mean 'Singapore'"):
        found.find_countries(["Singapur"])


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([("1", "a", "2")], ("US_Hate",), r"posts.csv:2: US_Hate: '2' is neither 0 nor 1"),
        ([("1", "a")], ("US_Hate",), r"posts.csv:2: 2 columns; its first line has 3"),
        (
            [("1", "a", "1")],
            ("Country_Hat",),
            r"no column <Country>_Hate. Did you mean 'Country_Hat'",
        ),
    ],
)
def test_wrong_labels_name_line_column_and_the_nearest(tmp_path, rows, names, message):
    with pytest.raises(InputError, match=message):
        votes.read_votes(labelled(tmp_path / "posts.csv", rows, names))


def test_a_conversation_without_a_country_says_where_one_could_stand(tmp_path):
    with pytest.raises(
        InputError,
        match=(
            r"c.jsonl:1: where does user 'u1' live\? Give country or location in the row, or"
            r" survey.jsonl"
        ),
    ):
        votes.read_votes(written(tmp_path / "c.jsonl", [prism()]))
    flat = {"interaction_id": "i", "user_id": "u", "chosen_": 1}
    with pytest.raises(
        InputError, match=r"of PRISM give conversations.jsonl.*Did you mean 'chosen_'"
    ):
        votes.read_votes(written(tmp_path / "u.jsonl", [flat]))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("NOS")), min_size=1, max_size=120),
    st.floats(0.05, 0.5),
    st.integers(0, 9),
)
def test_no_user_is_on_two_sides_and_every_country_is_held_out_in_proportion(rows, share, seed):
    pairs = [pair(n, f"{country}{user}", country) for n, (user, country) in enumerate(rows)]
    kept, held = votes.split_by_user(pairs, share, seed)
    assert not {p.user for p in kept} & {p.user for p in held} and len(kept) + len(held) == len(
        pairs
    )
    for country in {p.country for p in pairs}:
        users, out = ({p.user for p in part if p.country == country} for part in (pairs, held))
        assert len(out) == min(len(users) - 1, max(1, round(share * len(users))))
    assert votes.split_by_user(pairs[::-1], share, seed)[1] == held[::-1]


def test_each_fold_holds_apart_users_so_no_reference_comes_from_a_model_that_saw_them(data):
    parts = votes.split_into_folds(data.pairs, 2, 0)
    assert sum(map(len, parts)) == len(data.pairs) and not {p.user for p in parts[0]} & {
        p.user for p in parts[1]
    }
    assert all({p.country for p in part} == set(data.countries()) for part in parts)


def test_simulated_minorities_are_a_countrys_own_topic_and_told_by_the_history_alone():
    pairs = votes.simulate_votes(users=30, noise=0.0).pairs
    topics = dict(zip(simulated.COUNTRIES, simulated.TOPICS, strict=True))
    assert all((topics[p.country] in p.history[0].content) for p in pairs if p.minority)
    later = [p for p in pairs if p.minority and len(p.history) > 1]
    assert later and not any(
        t in later[0].history[-1].content + later[0].chosen for t in simulated.TOPICS
    )
    assert 0.05 < sum(bool(p.minority) for p in pairs) / len(pairs) < 0.25


@pytest.mark.conformance
@pytest.mark.skipif(not CREHATE.is_file(), reason=f"no {CREHATE}; set CULTUREPARK_DATA")
def test_crehate_is_read_whole_though_its_texts_span_lines():
    found = votes.read_votes(CREHATE)
    assert len(found.pairs) == 5 * 1_580 and len(found.countries()) == 5 and not found.skipped
    assert sum(bool(p.minority) for p in found.pairs) == 981  # votes against the majority of five
    kept, held = votes.split_by_user(found.pairs, 0.15, 0)
    assert len({p.user for p in held}) == 237 and not {p.user for p in kept} & {
        p.user for p in held
    }


# ------------------------------------------------------------------- figures


def result(margins, minority=(), **how):
    told = {
        "country": "N",
        "variant": "full",
        "seed": 0,
        "tau": 0.7,
        "beta": 1.1,
        "pairs": 9,
        "kept": 9,
        "mass": 9.0,
        "steps": 1,
        "loss": 0.1,
    }
    return RewardResult(**{**told, **how}, minority=tuple(minority), margins=margins)


def test_accuracy_is_told_overall_of_minorities_of_the_rest_and_of_other_countries():
    pairs = [pair(0, "a"), pair(1, "b", minority=True), pair(2, "c"), pair(3, "d", "O")]
    made = result({"p0": 1.0, "p1": -1.0, "p2": 0.0, "p3": 2.0}, ["p1"])
    found = {f.what: f for f in steered.measure_steering([made], Votes("v", "h", pairs, {}))}
    assert [round(found[w].accuracy, 3) for w in steered.WHAT] == [
        0.333,
        0.0,
        0.5,
        1.0,
    ]  # equal rewards are wrong
    assert [found[w].pairs for w in steered.WHAT] == [3, 1, 2, 1] and found[
        "overall"
    ].spread is None


def test_intervals_redraw_users_so_more_pairs_of_the_same_users_do_not_narrow_them():
    rng = random.Random(0)
    right = {f"u{n}": rng.choice((1.0, -1.0)) for n in range(30)}

    def interval(times):
        pairs = [pair(f"{u}-{i}", u) for u in right for i in range(times)]
        return steered.measure_steering(
            [result({p.id: right[p.user] for p in pairs})], Votes("v", "h", pairs, {})
        )[0]

    one, ten = interval(1), interval(10)
    assert (
        (ten.low, ten.high) == pytest.approx((one.low, one.high))
        and one.high - one.low > 0.25
        and (ten.pairs, ten.users) == (300, 30)
    )


def test_a_gain_is_told_over_full_with_an_interval_from_the_same_draws():
    pairs = [pair(n, f"u{n}") for n in range(40)]
    full, better = (
        result({p.id: 1.0 if n % 4 < k else -1.0 for n, p in enumerate(pairs)}, variant=v)
        for k, v in ((2, "full"), (3, "weight"))
    )
    found = {
        f.variant: f
        for f in steered.measure_steering([full, better], Votes("v", "h", pairs, {}))
        if f.what == "overall"
    }
    assert (
        found["weight"].gain == pytest.approx(0.25)
        and 0 < found["weight"].gain_low < 0.25 < found["weight"].gain_high
    )
    assert found["full"].gain is None


# ---------------------------------------------------------------------- runs


def test_every_variant_starts_from_the_global_model_takes_equal_steps_and_is_judged_on_the_same_pairs(  # noqa: E501
    done, data
):
    made = [r for r in done[1] if r.country == "Norland"]
    assert (
        [r.variant for r in made] == list(scpo.VARIANTS)
        and {r.steps for r in made[1:]} == {2}
        and made[0].steps == 0
    )
    assert len({tuple(r.margins) for r in made}) == 1 and len({r.minority for r in made}) == 1
    by = {r.variant: r for r in made}
    assert (
        by["filter"].kept <= by["full"].kept == by["full"].pairs
        and by["weight"].mass <= by["full"].mass <= by["inverse"].mass
    )
    held = {p.id: p for p in data.pairs}
    assert set(by["full"].minority) == {
        i for i in by["full"].margins if held[i].minority and held[i].country == "Norland"
    }


def test_references_are_told_once_by_models_that_have_not_seen_the_user(done, data):
    cached = json.loads((done[0] / "results" / "references.test.0.json").read_text())
    train, held = votes.split_by_user(data.pairs, 0.15, 0)
    assert set(cached["references"]) == {p.id for p in train} and not set(cached["references"]) & {
        p.id for p in held
    }
    with quiet():
        tokenizer = rewards.load_tokenizer(str(done[0] / "global-0"))
        model = rewards.load_model(
            str(done[0] / "global-0"), tokenizer, machine.find_machine("cpu")
        )
        seen = rewards.compute_rewards(model, rewards.Texts(tokenizer, 128), train)
    assert all(
        tuple(cached["references"][i]) != pytest.approx(seen[i]) for i in seen
    )  # the global model has learnt these pairs


def test_a_kept_model_is_whole_and_gives_the_rewards_it_was_judged_by(done, data):
    out, made = done
    assert sorted(p.name for p in manifest.find_folders(out)) == ["global-0", "norland", "ostland"]
    assert (
        manifest.read(out / "norland").kind == "reward"
        and not list(out.rglob("*.bin"))
        and not list(out.glob("*/.*"))
    )
    with quiet():
        tokenizer = rewards.load_tokenizer(str(out / "norland"))
        model = rewards.load_model(str(out / "norland"), tokenizer, machine.find_machine("cpu"))
        found = rewards.compute_rewards(
            model, rewards.Texts(tokenizer, 128), votes.split_by_user(data.pairs, 0.15, 0)[1]
        )
    margins = next(
        r.margins for r in made if (r.country, r.variant) == ("Norland", "filter+weight")
    )
    assert {i: p - m for i, (p, m) in found.items()} == pytest.approx(margins, abs=1e-6)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(done, data, how, tmp_path):
    def stop(stage, figures):
        if stage == "judged" and figures["variant"] == "weight":
            raise KeyboardInterrupt

    told = scpo.build_terms(**how, tau=0.95)
    for tell in (stop, lambda stage, figures: None):
        try:
            scpo.run(
                data,
                tmp_path / "run",
                told,
                countries=("Norland", "Ostland"),
                keep="filter+weight",
                tell=tell,
            )
        except KeyboardInterrupt:
            assert len(list((tmp_path / "run" / "results").glob("norland*.json"))) == 4
    files = {
        p.relative_to(done[0]): p.read_bytes()
        for p in done[0].rglob("*")
        if p.suffix in (".safetensors",) or p.parent.name == "results"
    }
    assert (
        files == {p: (tmp_path / "run" / p).read_bytes() for p in files}
        and len(files) == 3 + 1 + 12
    )


def test_where_the_data_say_nothing_other_models_say_who_is_in_the_minority_for_every_variant_and_threshold(  # noqa: E501
    data, how, tmp_path
):
    unsaid = Votes("unsaid", "u", [p.model_copy(update={"minority": None}) for p in data.pairs], {})
    told = [scpo.build_terms(**how, tau=t) for t in (0.9, 0.95)]
    made = [
        r
        for t in told
        for r in scpo.run(unsaid, tmp_path / "run", t, variants=("global", "filter+weight"))
    ]
    assert all(len({r.minority for r in made if r.country == c}) == 1 for c in data.countries())
    home, one = (
        {p.id: p.country for p in data.pairs},
        [r for r in made if r.variant == "global"][:4],
    )
    wrong = {i for i, margin in one[0].margins.items() if margin <= 0}
    told_so = {i for r in one for i in r.minority}
    # The model under test does not define what it is tested on, or it would have none of it right.
    assert (
        told_so and told_so != wrong and all(home[i] == r.country for r in one for i in r.minority)
    )


def test_a_base_that_is_a_reward_model_can_be_the_reference_and_another_base_cannot(
    done, data, how, tmp_path
):
    given = {**how, "base": str(done[0] / "global-0"), "reference": "base"}
    made = scpo.run(
        data,
        tmp_path / "run",
        scpo.build_terms(**given),
        countries=("Norland",),
        variants=("global",),
    )
    assert made[0].margins == next(r for r in done[1] if r.variant == "global").margins
    with pytest.raises(InputError, match="is no reward model yet"):
        scpo.run(data, tmp_path / "other", scpo.build_terms(**how, reference="base"))


def test_the_sweep_never_sees_a_test_user_and_its_choice_becomes_a_variant(data, how, tmp_path):
    made = scpo.run(
        data,
        tmp_path / "run",
        scpo.build_terms(**how),
        countries=("Norland",),
        variants=("full",),
        taus=(0.6, 0.99),
        betas=(1.1,),
    )
    home = {p.id: p.user for p in data.pairs}
    tried, tested = (
        {home[i] for r in made if r.split == s for i in r.margins} for s in ("validation", "test")
    )
    assert tried and tested and not tried & tested
    assert [r.variant for r in made if r.split == "test"] == ["full", "tuned"] and made[-1].tau in (
        0.6,
        0.99,
    )
    assert "0.99" in steered.build_grid([r for r in made if r.split == "validation"], data)


def test_what_is_chosen_for_a_seed_does_not_hang_on_other_seeds_whose_users_it_tests(
    data, how, tmp_path
):
    swept = {"countries": ("Norland",), "variants": (), "taus": (0.6, 0.99), "betas": (0.5, 1.1)}
    made = scpo.run(data, tmp_path / "run", scpo.build_terms(**how), seeds=(0, 1), **swept)
    for seed in (0, 1):
        own = [r for r in made if r.seed == seed]
        assert (own[-1].variant, own[-1].tau, own[-1].beta) == (
            "tuned",
            *scpo.choose_tau_and_beta(own[:-1], data),
        )


def test_smaller_shares_lie_within_larger_ones(data, how, tmp_path):
    made = scpo.run(
        data,
        tmp_path / "run",
        scpo.build_terms(**how),
        countries=("Norland",),
        variants=("global", "full"),
        shares=(0.25, 0.5, 1.0),
    )
    assert [(r.variant, r.share) for r in made] == [
        ("global", 1.0),
        ("full", 0.25),
        ("full", 0.5),
        ("full", 1.0),
    ]
    assert [r.pairs / made[-1].pairs for r in made[1:]] == pytest.approx([0.25, 0.5, 1.0], abs=0.05)
    world = scpo.SeedData(0, "test", *votes.split_by_user(data.pairs, 0.15, 0))
    quarter, half = (
        {p.id for p in scpo.select_share(world, "Norland", share)} for share in (0.25, 0.5)
    )
    assert quarter < half


def test_adapters_are_kept_on_the_global_model_and_loaded_on_it(data, how, tmp_path):
    told = scpo.build_terms(**how, method="lora", rank=2, tau=0.95)
    made = scpo.run(
        data,
        tmp_path / "run",
        told,
        countries=("Norland",),
        variants=("filter+weight",),
        keep="filter+weight",
    )
    (tmp_path / "run").rename(tmp_path / "moved")
    with quiet():
        tokenizer = rewards.load_tokenizer(str(tmp_path / "moved" / "norland"))
        model = rewards.load_model(
            str(tmp_path / "moved" / "norland"), tokenizer, machine.find_machine("cpu")
        )
        found = rewards.compute_rewards(
            model, rewards.Texts(tokenizer, 128), votes.split_by_user(data.pairs, 0.15, 0)[1]
        )
    assert {i: p - m for i, (p, m) in found.items()} == pytest.approx(made[0].margins, abs=1e-6)


def test_what_cannot_be_says_so(done, data, how, tmp_path):
    with pytest.raises(
        InputError,
        match=r"was made with different settings: lr changed\. Give another --name, or --fresh",
    ):
        scpo.run(data, done[0], scpo.build_terms(**{**how, "lr": 1e-3}, tau=0.95))
    with pytest.raises(NotFound, match="Did you mean 'inverse'"):
        scpo.run(data, tmp_path / "a", scpo.build_terms(**how), variants=("invers",))
    with pytest.raises(RunFailed, match=r"Norland: the filter τ = 1e-09 keeps none of \d+ pairs"):
        scpo.run(
            data,
            tmp_path / "b",
            scpo.build_terms(**how, tau=1e-9),
            countries=("Norland",),
            variants=("filter",),
        )
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.toml").touch()
    with pytest.raises(InputError, match="holds other things"):
        scpo.run(data, tmp_path / "c", scpo.build_terms(**how), fresh=True)


def test_the_preset_is_the_papers():
    told = scpo.build_terms("scpo")
    assert (told.base, told.lr, told.batch, told.steps) == (
        "OpenAssistant/reward-model-deberta-v3-base",
        1e-6,
        8,
        1024,
    )
    assert (told.tau, told.beta, told.held, told.reference, told.method) == (
        0.7,
        1.10,
        0.15,
        "base",
        "full",
    )
    with pytest.raises(InputError, match="Did you mean 'scpo'"):
        scpo.build_terms("spco")


def test_the_command_trains_judges_prints_and_goes_on(small, tmp_path):
    path = simulated.write_conversations(tmp_path / "votes.jsonl", **SIZE)
    args = [
        str(path),
        "--base",
        str(small),
        "--countries",
        "Norland",
        "--variants",
        "global,full,filter+weight",
        "--steps",
        "1",
        "--global-epochs",
        "0.2",
        "--tau",
        "0.99",
        "--length",
        "128",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    first = CliRunner().invoke(command, args, catch_exceptions=False)
    assert (
        first.exit_code == 0
        and "filter+weight" in first.output
        and "minority: pairs on which" in first.output
    )
    again = CliRunner().invoke(command, [*args, "--json"], catch_exceptions=False)
    told = json.loads(again.stdout)
    assert [f["variant"] for f in told["figures"] if f["what"] == "overall"] == [
        "global",
        "full",
        "filter+weight",
    ]
    assert list(told["models"]) == ["norland"] and [
        told["figures"][0][k] for k in ("users", "low", "reason")
    ] == [
        1,
        None,
        "one unit: no interval",
    ]
