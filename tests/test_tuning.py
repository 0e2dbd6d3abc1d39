"""Tuning: rows are read strictly, losses are what they should be, jobs are resumable and whole or
not there at all.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, room, rows, told
from hypothesis import given
from hypothesis import strategies as st

import culturepark as cp
from culturepark.cli import cli
from culturepark.errors import CardError, InputError, WriteError
from culturepark.local_models import base, choices, libraries, machine, manifest
from culturepark.training import job, matrix, preference, recipe, sft, shares
from culturepark.training import rows as reading

QUICK = {"epochs": 1.0, "rows": 4, "length": 256, "device": "cpu", "patience": 0}


@pytest.fixture
def tune(small, corpus, tmp_path):
    """Tune on the fixture's corpus and return the models' folders."""

    def work(objective, name="models", **how):
        return cp.tune(
            objective, corpus, str(small), name=name, out=tmp_path / "out", **{**QUICK, **how}
        )

    return work


@pytest.fixture(scope="module")
def loaded(small):
    return base.load_model(str(small), machine.find_machine("cpu")), base.load_tokenizer(str(small))


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


# ----------------------------------------------------------------- recipe


def test_presets_are_the_papers_settings():
    llama = recipe.build_recipe({"objective": "sft"}, "culturepark-llama")
    assert (
        llama.method,
        llama.rank,
        llama.alpha,
        llama.dropout,
        llama.lr,
        llama.epochs,
        llama.rows,
    ) == (
        "qlora",
        64,
        16,
        0.1,
        2e-4,
        6,
        4,
    )
    assert "zephyr-7b-sft" in recipe.build_recipe({"objective": "dpo"}, "safeworld-dpo").base
    with pytest.raises(InputError, match="Did you mean 'culturepark-llama'"):
        recipe.build_recipe({"objective": "sft"}, "culturepark-lama")
    with pytest.raises(InputError, match="is for `tune dpo`"):
        recipe.build_recipe({"objective": "sft"}, "safeworld-dpo")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 0}, "rank"),
        ({"batch": 3, "rows": 8}, "no multiple"),
        ({"lrr": 1}, "Did you mean 'lr'"),
        ({"objective": "dpo", "answers": "modal"}, "only sft"),
    ],
)
def test_each_mistake_in_a_recipe_is_named(given, said):
    with pytest.raises(CardError, match=said):
        recipe.build_recipe({"objective": "sft", "base": "tiny", **given})


def test_a_recipe_is_kept_as_it_was(tmp_path):
    made = recipe.build_recipe(
        {"objective": "mix", "base": "tiny", "weight": 0.3, "cultures": ("north",)}
    )
    recipe.write_recipe(made, tmp_path / "tune.toml")
    assert recipe.read_recipe(tmp_path / "tune.toml") == made


# ------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("form", "row", "said"),
    [
        ("trl", '{"prompt": "Tea?"}', "no 'completion'"),
        ("trl", "[1]", "a row is an object"),
        ("trl", "{", "not JSON"),
        ("trl", '{"prompt": "Tea?", "completion": " "}', "empty message"),
        ("trl", '{"prompt": "Tea?", "completion": "Yes."}', "whose answer"),
        (
            "dpo",
            '{"prompt": "Tea?", "chosen": [], "rejected": "No."}',
            "a text or a list of messages",
        ),
        ("kto", '{"prompt": "Tea?", "completion": "Yes.", "label": 1}', "neither true nor false"),
        ("shares", '{"prompt": "Tea?", "options": ["a", "b"], "shares": [0.9, 0.3]}', "sum to 1"),
        (
            "shares",
            '{"prompt": "Tea?", "options": ["a", "a"], "shares": [0.5, 0.5]}',
            "different texts",
        ),
    ],
)
def test_a_bad_row_is_told_by_file_and_line(tmp_path, form, row, said):
    (tmp_path / "train.jsonl").write_text(
        json.dumps(told(form, rows("north", 1)[0])) + "\n" + row + "\n"
    )
    with pytest.raises(InputError, match=rf"train\.jsonl:2.*{said}"):
        reading.read_corpus(tmp_path, form)


def test_cultures_come_from_rows_folders_or_the_command(tmp_path):
    row = {k: v for k, v in rows("north", 1)[0].items() if k != "metadata"}
    (tmp_path / "south").mkdir()
    (tmp_path / "south" / "train.jsonl").write_text(json.dumps(row) + "\n")
    assert reading.read_corpus(tmp_path, "trl").cultures() == ("south",)
    assert reading.read_corpus(tmp_path, "trl", "mine").cultures() == ("mine",)


def test_openais_messages_are_read_too(tmp_path):
    row = rows("north", 1)[0]
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"messages": row["prompt"] + row["completion"]}) + "\n"
    )
    assert (
        reading.read_corpus(tmp_path, "trl", "north").select("train", "north")[0]["completion"]
        == row["completion"]
    )


@given(answer=st.text(min_size=1, max_size=60).filter(str.strip))
def test_the_loss_is_on_the_answer_and_its_end_and_on_nothing_else(loaded, answer):
    row = {**rows("north", 1)[0], "completion": [{"role": "assistant", "content": answer}]}
    made = reading.tokenize_completions(loaded[1], [row], 4096)
    learnt = [t for t in made["labels"][0] if t != -100]
    assert loaded[1].decode(learnt) == f"{answer}<end>"


def test_rows_are_tokenised_as_trl_does_up_to_the_end_token_at_which_sampling_stops(
    loaded, tmp_path
):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    held = rows("north", 3)
    with libraries.quiet():
        args = SFTConfig(
            str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        theirs = SFTTrainer(
            loaded[0],
            args,
            train_dataset=Dataset.from_list(
                [{k: r[k] for k in ("prompt", "completion")} for r in held]
            ),
            processing_class=loaded[1],
        ).train_dataset
    del loaded[0].forward
    ours = reading.tokenize_completions(loaded[1], held, 1024)
    assert {loaded[1].decode(row[-1:]) for row in theirs["input_ids"]} == {"\n"}
    assert ours["input_ids"] == [row[:-1] for row in theirs["input_ids"]]
    assert ours["labels"] == [row[:-1] for row in theirs["labels"]]


def test_a_row_that_is_too_long_is_an_error_not_a_cut_answer(loaded):
    with pytest.raises(InputError, match="more than --length 20"):
        reading.tokenize_completions(loaded[1], rows("north", 1), 20)


# ------------------------------------------------------------------ losses


def test_the_loss_of_completions_is_trls_to_the_last_digits(small, tmp_path, monkeypatch):
    """On a CPU the completions alone are projected to the vocabulary; the figure must not
    change.
    """
    from trl import SFTTrainer

    told = recipe.build_recipe({"base": str(small), **QUICK, "objective": "sft"})
    found = []
    for kind in (sft._build_class(), SFTTrainer):
        monkeypatch.setattr(sft, "_build_class", lambda kind=kind: kind)
        work = job.TuningJob(
            told,
            reading.Corpus("c", "h", {"train": {"north": rows("north", 8)}}),
            tmp_path / kind.__name__,
            machine.find_machine("cpu"),
            lambda stage, how: None,
        )
        with libraries.quiet():
            trainer, _ = job._build_trainer(work, "north", rows("north", 8), ())
            trainer.train()
        found.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert found[0] == pytest.approx(found[1], abs=1e-5) and len(found[0]) == 2


def test_the_distribution_loss_is_the_divergence_by_the_chain_rule(loaded):
    """The places where options part, weighted, sum to KL(people ‖ model) over whole options."""
    import math

    model, tokenizer = loaded
    row = {
        "prompt": [{"role": "user", "content": "Tea?"}],
        "options": ["Agree", "Agree strongly", "Disagree"],
        "shares": [0.5, 0.2, 0.3],
    }
    places = shares.find_places(tokenizer, [row])
    logits = choices.compute_last_logits(model, tokenizer, [p.ids for p in places])
    found = float(
        shares.compute_loss(
            logits,
            [p.tokens for p in places],
            [p.shares for p in places],
            [p.weight for p in places],
        )
    )
    said = choices.compute_distributions(model, tokenizer, [row["prompt"]], [row["options"]])[0]
    assert len(places) == 2 and found == pytest.approx(
        sum(p * math.log(p / q) for p, q in zip(row["shares"], said, strict=True)), abs=1e-5
    )


def test_matching_shares_brings_the_model_to_the_people(tune, loaded):
    made = tune("shares", epochs=10.0, lr=3e-3)
    row = told("shares", rows("north", 1)[0])
    with matrix.load_adapters(made[:1]) as (tuned, tokenizer, _):
        after = choices.compute_distributions(tuned, tokenizer, [row["prompt"]], [row["options"]])[
            0
        ]
    before = choices.compute_distributions(*loaded, [row["prompt"]], [row["options"]])[0]
    assert (
        choices.compute_divergence(after, row["shares"])
        < 0.05
        < choices.compute_divergence(before, row["shares"])
    )


def test_the_majority_alone_is_what_modal_learns():
    held = [told("shares", r) for r in (*rows("north", 1), *rows("south", 1))]
    assert [r["completion"][0]["content"] for r in reading.keep_modal_answers(held)] == [
        "Agree.",
        "Disagree.",
    ]


# -------------------------------------------------------------------- jobs


def test_each_culture_gets_an_adapter_with_its_papers(tune, small):
    made = tune("sft")
    assert [m.name for m in made] == ["north", "south"]
    found = manifest.read(made[0])
    assert (found.kind, found.base, found.rows, found.objective) == (
        "adapter",
        str(small),
        {"train": 12, "validation": 4},
        "sft",
    )
    assert {p.name for p in made[0].iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
        "curves.jsonl",
    }
    assert not [p for p in made[0].rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert (made[0].parent / "report.html").is_file() and not (
        made[0].parent / ".work" / "north"
    ).exists()


def test_an_adapter_knows_its_own_people(tune, corpus):
    made = tune("sft", epochs=8.0, lr=4e-3)
    found = cp.matrix(made[0].parent, corpus, "validation")
    assert found.own() == 2 and found.margin() > 0.3 and found.recognised == (1.0, 1.0)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tune):
    one, two, other = (
        tune("sft", name, cultures=("north",), seed=seed)[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert weights(one) == weights(two) != weights(other)


def test_a_full_disk_is_one_error_and_the_same_command_goes_on(tune):
    with (
        room(20_000),
        pytest.raises(WriteError, match=r"cannot write the models in .*Free disk space"),
    ):
        tune("sft", cultures=("north",))
    assert weights(tune("sft", cultures=("north",))[0]) != b""


def test_a_finished_job_does_nothing_and_a_changed_one_is_refused(tune):
    made = tune("sft")
    was = made[0].stat().st_mtime_ns
    assert tune("sft")[0].stat().st_mtime_ns == was
    with pytest.raises(InputError, match="tuned with different settings: rank changed"):
        tune("sft", rank=4)
    (made[0].parent / "corpus.json").write_text('{"title":')
    with pytest.raises(InputError, match=r"corpus\.json does not say which corpus"):
        tune("sft")
    assert weights(tune("sft", rank=4, fresh=True)[0]) != b""


KILLED = """
import os, signal, sys
import culturepark as cp
def tell(stage, how):
    if stage == "step" and how["step"] >= 7 and "loss" in how: os.kill(os.getpid(), signal.SIGKILL)
cp.tune("sft", sys.argv[1], sys.argv[2], name="killed", out=sys.argv[3], tell=tell, epochs=3.0, rows=4, length=256, device="cpu", cultures=("north",), patience=0)
"""  # noqa: E501


def test_killed_and_resumed_equals_uninterrupted(tune, corpus, small, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, corpus, small, tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL
    held = tmp_path / "out/corpus/models/killed"
    assert (held / ".work/north/checkpoint-6").is_dir() and not (held / "north").exists()
    resumed, whole = (
        tune("sft", name, epochs=3.0, cultures=("north",))[0] for name in ("killed", "whole")
    )
    assert weights(resumed) == weights(whole)


def test_training_stops_early_where_the_validation_split_says_so(tune):
    made = tune("sft", epochs=12.0, lr=1.0, patience=1)
    curves = [json.loads(line) for line in (made[0] / "curves.jsonl").read_text().splitlines()]
    checks = [c["eval_loss"] for c in curves if "eval_loss" in c]
    assert len(checks) < 12 and manifest.read(made[0]).scores["eval_loss"] == min(checks)


def test_one_pooled_model_learns_from_all(tune):
    made = tune("sft", pooled=True)
    assert [m.name for m in made] == ["pooled"] and manifest.read(made[0]).rows["train"] == 24


def test_whole_models_are_tuned_too(tune):
    made = tune("sft", method="full", cultures=("south",))
    assert manifest.read(made[0]).kind == "model" and (made[0] / "model.safetensors").is_file()


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_a_preference_run_tells_what_it_did_to_its_model(tune, objective):
    found = manifest.read(tune(objective, lr=2e-3, epochs=3.0, cultures=("north",))[0]).scores
    assert found["margin"] > found["base_margin"] and found["kl"] > 0
    assert objective == "kto" or found["accuracy"] >= found["base_accuracy"]


def test_the_distance_from_the_base_is_the_divergence_of_whole_distributions(tune, loaded):
    import torch

    row = told("dpo", rows("north", 1)[0])
    made_of = reading.tokenize_completions(loaded[1], [{**row, "completion": row["chosen"]}], 256)
    ids, spoken = torch.tensor(made_of["input_ids"]), torch.tensor(made_of["labels"])[0, 1:] != -100
    with (
        matrix.load_adapters(tune("dpo", lr=2e-3, cultures=("north",))) as (tuned, tokenizer, _),
        torch.inference_mode(),
    ):
        found = preference.measure_drift(tuned, tokenizer, [row], "chosen")
        p, q = (m(ids).logits[0, :-1].log_softmax(-1)[spoken] for m in (tuned, loaded[0]))
    assert found == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=1e-5)


def test_mixing_learns_opinions_and_shares_at_once(tune):
    found = [
        manifest.read(
            tune("mix", f"w{w}", weight=w, epochs=6.0, lr=3e-3, cultures=("north",))[0]
        ).scores["eval_loss"]
        for w in (0.5, 0.0)
    ]
    assert found[0] < found[1]


def test_a_mix_without_held_out_opinions_is_not_checked_and_without_any_is_an_error(
    small, tmp_path
):
    shares_ = reading.Corpus(
        "c",
        "h",
        {
            s: {"north": [told("shares", r) for r in rows("north", 4)]}
            for s in ("train", "validation")
        },
    )
    recipe_ = recipe.build_recipe({**QUICK, "objective": "mix", "base": str(small)})
    few = reading.Corpus("o", "o", {"train": {"north": rows("north", 4)}})
    made = job.tune(shares_, recipe_, tmp_path / "few", opinions=few)
    assert "eval_loss" not in manifest.read(made[0]).scores
    with pytest.raises(InputError, match="the corpus changed"):
        job.tune(
            shares_, recipe_, tmp_path / "few", opinions=reading.Corpus("o", "other", few.rows)
        )
    with pytest.raises(InputError, match="nothing to learn for north"):
        job.tune(shares_, recipe_, tmp_path / "none", opinions=reading.Corpus("o", "o", {}))


def test_a_run_is_exported_to_what_the_objective_reads(park, small):
    from conftest import TEA

    run = cp.run(
        "first", **TEA | {"cultures": ("north", "south"), "contact": "north"}, dialogues=4, turns=4
    )
    with pytest.raises(InputError, match="which base"):
        cp.tune("sft", "first")
    made = cp.tune("sft", "first", str(small), epochs=1.0, rows=4, length=512)
    assert made[0].parent == run.folder / "models" / "sft"


def test_an_objective_of_your_own_tunes_like_ours(tune, tmp_path, monkeypatch, capsys):
    (tmp_path / "kinder.py").write_text(
        "from dataclasses import replace\n"
        "from culturepark.training import sft\n"
        "SLOW = replace(sft.OBJECTIVE, about='Slowly.', rates=(1e-5, 1e-6))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = tune("kinder:SLOW", name=None, cultures=("north",))[0]
    assert made.parent.name == "kinder.SLOW" and manifest.read(made).objective == "kinder:SLOW"
    assert "the objective&#39;s own" in (made.parent / "report.html").read_text()
    cli.main(["tune", "kinder:SLOW", "--help"], standalone_mode=False)
    assert "Slowly." in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no tuning objective .sftt.\. Did you mean .sft."):
        tune("sftt")


def test_a_tracker_that_is_not_installed_is_told_before_the_work(tune):
    with pytest.raises(InputError, match="pip install trackio"):
        tune("sft", track=("trackio",))


def test_the_command_tunes_and_compares(corpus, small, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "culturepark"]
    done = subprocess.run(
        [
            *call,
            "tune",
            "sft",
            str(corpus),
            "--base",
            str(small),
            "--epochs",
            "1",
            "--length",
            "256",
            "--json",
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder = json.loads(done.stdout)["folder"]
    seen = subprocess.run(
        [*call, "matrix", folder, str(corpus), "--split", "validation"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert (
        seen.returncode == 0
        and "north" in seen.stdout
        and (tmp_path / folder / "matrix.json").is_file()
    )


def test_only_one_process_tunes_in_a_folder(tune, tmp_path):
    from filelock import FileLock

    folder = tmp_path / "out/corpus/models/models"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(cp.Locked):
        tune("sft")


def test_help_costs_nothing_heavy():
    start = time.process_time()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "culturepark", "tune", "sft", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert (
        done.returncode == 0 and "pydantic" in loaded
    )  # a recipe's fields say what its options are
    assert not loaded & {
        "torch",
        "transformers",
        "trl",
        "peft",
        "numpy",
        "openai",
        "jinja2",
        "rich",
    }
    assert time.process_time() - start < 5
