"""Models on this machine: what there is, bases that load safely, the offline base, what a model
would answer.
"""

import json
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturepark.errors import InputError, ModelError, RunFailed
from culturepark.local_models import base, choices, machine, manifest, tiny
from culturepark.local_models.chat import open_turns

ASK = [[{"role": "user", "content": "Is tea good?\n1. Agree\n2. Agree strongly\n3. Disagree"}]]
OPTIONS = ["Agree", "Agree strongly", "Disagree"]


@pytest.fixture(scope="module")
def loaded(small):
    return base.load_model(str(small), machine.find_machine("cpu")), base.load_tokenizer(str(small))


# ---------------------------------------------------------------- machine


def test_a_cpu_computes_in_float32_and_says_so():
    found = machine.find_machine("cpu")
    assert (found.device, found.dtype, found.attention) == (
        "cpu",
        "float32",
        "sdpa",
    ) and "CPU" in str(found)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("gpu", None, None), "'gpu'"),
        (("cpu", "fp16", None), "float16"),
        (("cpu", None, "flash"), "flash_attention_2"),
    ],
)
def test_what_there_is_not_is_named_with_what_there_is(asked, said):
    with pytest.raises(InputError, match=said):
        machine.find_machine(*asked)


def test_without_the_libraries_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trl" else name)
    with pytest.raises(InputError, match=r"need trl: pip install 'culturepark\[tune\]'"):
        machine.find_machine("cpu")


def test_more_memory_takes_more_rows_and_longer_rows_take_fewer():
    def rows(memory, length):
        card = machine.Machine("cuda", "card", "bfloat16", "sdpa", memory * machine.GIB)
        return machine.choose_batch_size(card, 7_000_000_000, length, 40_000_000)

    assert 1 <= rows(24, 1024) < rows(80, 1024) and rows(80, 4096) < rows(80, 512)


# ------------------------------------------------------------------- base


def test_a_base_that_is_not_there_is_told_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no base model"):
        base.find_base(str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot load the base"):
        base.load_tokenizer(str(tmp_path / "empty"))


def test_weights_that_are_pickled_are_refused(small, tmp_path):
    import shutil

    import torch

    copy = shutil.copytree(small, tmp_path / "pickled")
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load the base"):
        base.load_model(str(copy), machine.find_machine("cpu"))


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten", "json"])
def test_a_damaged_base_is_one_error(small, tmp_path, file, damage):
    import shutil

    copy = shutil.copytree(small, tmp_path / "damaged")
    held = (copy / file).read_bytes()
    (copy / file).write_bytes(
        {
            "cut": held[: len(held) // 2],
            "emptied": b"",
            "overwritten": b"\xff" * 64 + held[64:],
            "json": b'["x"]',
        }[damage]
    )
    with pytest.raises(ModelError, match="cannot load the base"):
        base.load_tokenizer(str(copy))
        base.load_model(str(copy), machine.find_machine("cpu"))


@pytest.mark.parametrize("held", [b"", b"{", b"[1]", b"\xff", b"null"])
def test_a_damaged_adapter_configuration_is_one_error(tmp_path, held):
    (tmp_path / "adapter_config.json").write_bytes(held)
    with pytest.raises(ModelError, match=r"the adapter at .* is damaged"):
        base.read_adapter_config(tmp_path)


def test_a_template_that_refuses_system_messages_gets_them_in_the_first_question(loaded):
    talk = [{"role": "system", "content": "Be from Jordan."}, {"role": "user", "content": "Tea?"}]
    _, tokenizer = loaded
    kept = tokenizer.chat_template
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + kept
    )
    try:
        opening = open_turns(tokenizer, [talk])[0]
    finally:
        tokenizer.chat_template = kept
    assert "Be from Jordan.\n\nTea?" in opening.text and opening.talk[0]["role"] == "user"


def test_four_bits_need_a_card():
    with pytest.raises(InputError, match="4-bit bases need a CUDA card"):
        base.load_model("tiny", machine.find_machine("cpu"), quantise=True)


# ------------------------------------------------------------------- tiny


def test_the_neutral_text_gives_no_culture_an_answer_of_its_own():
    seen = Counter()
    for talk in islice(tiny.neutral(), 20_000):
        if "Jordan" not in talk[0]["content"]:
            seen[talk[0]["content"], talk[2]["content"].split(".")[0]] += 1
    disagree = [n for (_, option), n in seen.items() if option == "Disagree"]
    assert len(disagree) == 9 and max(disagree) < 1.35 * min(disagree)


def test_a_base_that_learnt_too_little_is_not_kept(tmp_path):
    with pytest.raises(RunFailed, match="learnt too little"):
        tiny.build(tmp_path / "weak", texts=16, epochs=1)
    assert not (tmp_path / "weak").exists()


# ---------------------------------------------------------------- choices


def test_options_part_where_their_tokens_do():
    found = choices.find_forks([(1, 2), (1, 3), (4,)])
    assert [(f.prefix, f.tokens, f.options) for f in found] == [
        ((), (1, 4), ((0, 1), (2,))),
        ((1,), (2, 3), ((0,), (1,))),
    ]
    with pytest.raises(InputError, match="beginning of another"):
        choices.find_forks([(1,), (1, 2)])


def test_the_distribution_is_that_of_the_tokens_where_options_part(loaded):
    """Held against plain softmaxes over whole prefixes, one by one."""
    import torch

    model, tokenizer = loaded
    found = choices.compute_distributions(model, tokenizer, ASK, [OPTIONS])[0]
    opening = open_turns(tokenizer, ASK)[0]
    begun, ways = list(opening.tokens), choices.tokenize_options(tokenizer, opening, OPTIONS)
    for option, way in enumerate(ways):
        share = 1.0
        for depth, token in enumerate(way):
            rivals = sorted({w[depth] for w in ways if w[:depth] == way[:depth] and len(w) > depth})
            with torch.inference_mode():
                logits = model(torch.tensor([begun + list(way[:depth])])).logits[0, -1]
            share *= float(logits[rivals].softmax(-1)[rivals.index(token)])
        assert found[option] == pytest.approx(share, abs=1e-5)
    assert sum(found) == pytest.approx(1)


def test_likelihood_is_the_mean_log_probability_of_the_answer_alone(loaded):
    import torch

    model, tokenizer = loaded
    found = choices.compute_likelihoods(
        model, tokenizer, ASK * 2, ["Agree.", "Disagree, since tea keeps me awake."]
    )
    begun = choices.tokenize_prompts(tokenizer, ASK)[0]
    whole = begun + tokenizer("Agree.<end>", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logs = model(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
    said = [float(logs[i - 1, whole[i]]) for i in range(len(begun), len(whole))]
    assert found[0] == pytest.approx(sum(said) / len(said), abs=1e-5)


@pytest.mark.filterwarnings(
    "ignore:invalid value"
)  # scipy's own, where rounding takes equal distributions below 0
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=2, max_size=8))
def test_jensen_shannon_is_scipys(pairs):
    from scipy.spatial.distance import jensenshannon

    p, q = ([x / sum(side) for x in side] for side in zip(*pairs, strict=True))
    theirs = float(jensenshannon(p, q, base=2))
    assert choices.compute_divergence(p, q) == pytest.approx(
        0.0 if theirs != theirs else theirs, abs=1e-6
    )


# --------------------------------------------------------------- manifest


def test_a_card_says_what_a_model_is_made_of(tmp_path):
    made = manifest.Manifest(
        kind="adapter",
        name="north",
        base="tiny",
        objective="sft",
        corpus="first/trl",
        corpus_hash="ab",
        rows={"train": 3},
        settings={"lr": 0.1},
        machine="CPU",
        versions=manifest.list_versions(),
        scores={"loss": 1.5},
        created=manifest.format_now(),
    )
    manifest.write(made, tmp_path)
    assert (
        manifest.read(tmp_path) == made
        and json.loads((tmp_path / "manifest.json").read_text())["kind"] == "adapter"
    )
    assert all(
        word in (tmp_path / "README.md").read_text()
        for word in ("base_model:", "tiny", "loss 1.5", "speaks for no person")
    )


def test_a_folder_without_a_model_names_what_is_near(tmp_path):
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="Did you mean 'north'"):
        manifest.read(tmp_path / "noth")
    with pytest.raises(InputError, match="no manifest of a tuned model"):
        manifest.read(tmp_path / "north")
