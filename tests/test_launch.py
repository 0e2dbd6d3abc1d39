"""Several processes: two make what one makes, killed they go on, one of them speaks, and the
shipped configs are what they say.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from conftest import ROOT, TALK, rows, told
from filelock import FileLock

import culturepark as cp
from culturepark.cli.launch import CONFIGS, KINDS, build_command, tune_launch
from culturepark.errors import InputError
from culturepark.local_models import machine, manifest
from culturepark.training import job, recipe

# Every step sees all 24 rows, so that their order, which depends on the processes, makes no
# difference.
RECIPE = {"rows": 24, "length": 256, "lr": 1e-3, "warmup": 0.0, "patience": 0}
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("accelerate.commands.accelerate_cli", "launch", "--config_file")


def lines(culture, form):
    """Rows whose answers are of different lengths: a mean of two processes' means is not the
    mean.
    """
    for n, row in enumerate(rows(culture, 24)):
        row["completion"][0]["content"] += " It is so." * (n % 7)
        yield told(form, row)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("launch") / "corpus"
    for form in ("trl", "dpo", "shares"):
        (root / form).mkdir(parents=True)
        held = [json.dumps(row) for culture in TALK for row in lines(culture, form)]
        (root / form / "train.jsonl").write_text("\n".join(held) + "\n")
    (root / "dpo" / "validation.jsonl").write_text(
        "".join((root / "dpo" / "train.jsonl").open().readlines()[::6])
    )
    return root


@pytest.fixture(scope="module")
def words(small, corpus):
    """The words of a tuning command, its models' folder among them."""

    def make(objective, out, steps=3, **how):
        flags = {**RECIPE, "steps": steps, "name": "made", "out": out, **how}
        return [
            objective,
            str(corpus),
            "--base",
            str(small),
            *(str(w) for k, v in flags.items() for w in (f"--{k}", v)),
        ]

    return make


def work(launcher, verb, script=("-m", "culturepark"), **env):
    """Run a verb of tune in several processes to its end."""
    line = [sys.executable, "-m", *launcher, *script, "tune", *verb]
    return subprocess.run(line, env={**ENV, **env}, capture_output=True, text=True, timeout=100)


def models(out):
    return out / "corpus" / "models" / "made"


def weights(folder):
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*model.safetensors")))


def curve(folder):
    return [
        (e["loss"], e["grad_norm"])
        for e in map(json.loads, (folder / "curves.jsonl").open())
        if "loss" in e
    ]


def apart(one, other):
    """How far two models' weights lie apart."""
    a, b = weights(one), weights(other)
    return sum(float((a[k] - b[k]).square().sum()) for k in a.keys() & b.keys()) ** 0.5


@pytest.fixture(scope="module")
def two(words, tmp_path_factory):
    """What two processes made of two cultures, never disturbed, and what they said."""
    out = tmp_path_factory.mktemp("two")
    done = work(TORCHRUN, words("sft", out, steps=8, batch=12))
    assert done.returncode == 0, done.stderr
    return models(out), done


# ---------------------------------------------------------- two processes


def test_two_processes_make_what_one_makes(two, small, corpus, tmp_path):
    """Adam hides a gradient's scale, so its norm is compared too: rows of 12 + 12 against 24,
    dropout 0.
    """
    alone = cp.tune(
        "sft",
        corpus,
        str(small),
        name="made",
        out=tmp_path,
        steps=8,
        batch=24,
        device="cpu",
        **RECIPE,
    )
    for folder in alone:
        assert apart(folder, two[0] / folder.name) < 1e-5
        for one, both in zip(curve(folder), curve(two[0] / folder.name), strict=True):
            assert both == pytest.approx(one, rel=1e-4)


def test_one_process_speaks_for_all(two):
    said = two[1]
    assert said.stdout.count("north:") == said.stdout.count("south:") == 1
    assert said.stderr.count("(cpu, 2 processes)") == said.stderr.count("north: done") == 1
    assert not [
        p
        for p in two[0].iterdir()
        if p.name.startswith(".") and p.name != ".lock" and list(p.glob("*"))
    ]


def test_killed_they_go_on_to_the_same_weights(two, words, tmp_path):
    verb = words("sft", tmp_path, steps=8, batch=12)
    line = [sys.executable, "-m", *TORCHRUN, "-m", "culturepark", "tune", *verb]
    process = subprocess.Popen(line, env=ENV, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not any(models(tmp_path).glob(f".work/south/checkpoint-*/{job.WHOLE}")):
        assert process.poll() is None
        time.sleep(0.005)
    for one in (*psutil.Process(process.pid).children(recursive=True), process):
        one.kill()
    process.wait()
    assert (
        job._find_checkpoint(models(tmp_path) / ".work" / "south")
        and not (models(tmp_path) / "south").exists()
    )
    again = work(TORCHRUN, verb)
    assert again.returncode == 0 and again.stderr.count("north: was there") == 1
    for culture in TALK:
        assert apart(models(tmp_path) / culture, two[0] / culture) == 0
    assert len(curve(models(tmp_path) / "south")) == 8


@pytest.mark.parametrize(("objective", "kind"), [("mix", "accelerate"), ("dpo", "launch")])
def test_other_objectives_run_in_two_processes(words, tmp_path, objective, kind):
    verb = words(objective, tmp_path, steps=2, batch=6)  # two batches a process: accumulated
    if kind == "accelerate":
        done = work((*ACCELERATE, str(CONFIGS / "ddp.yaml"), "--num_processes", "2"), verb)
    else:
        line = [
            sys.executable,
            "-m",
            "culturepark",
            "tune",
            "launch",
            "ddp",
            "--processes",
            "2",
            "--run",
            "--",
            *verb,
        ]
        done = subprocess.run(line, env=ENV, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [m.name for m in manifest.find_folders(models(tmp_path))] == ["north", "south"]
    made = manifest.read(models(tmp_path) / "north")
    assert "2 processes" in made.machine and ("margin" in made.scores) == (objective == "dpo")


def test_accumulated_batches_make_what_one_makes(small, corpus, tmp_path):
    """Answers are of different lengths: a mean of the batches' means is not the mean, and two
    processes are as two batches.
    """
    how = {**RECIPE, "steps": 3, "device": "cpu", "cultures": ("north",)}
    one, four = (
        cp.tune("mix", corpus, str(small), name=f"by{n}", out=tmp_path, batch=n, **how)[0]
        for n in (24, 6)
    )
    assert apart(one, four) < 1e-5
    for loss, other in zip(curve(one), curve(four), strict=True):
        assert other == pytest.approx(loss, rel=1e-4)


def test_what_stops_the_first_stops_all_and_is_said_once(words, tmp_path):
    models(tmp_path).mkdir(parents=True)
    begun = time.monotonic()
    with FileLock(models(tmp_path) / ".lock"):
        done = work(TORCHRUN, words("sft", tmp_path))
    assert done.returncode != 0 and time.monotonic() - begun < 40
    assert done.stderr.count("another process is tuning") == 1


def test_rows_that_processes_cannot_share_are_refused():
    found = machine.Machine("cpu", "CPU", "float32", "sdpa", machine.GIB, count=3)
    for told_, said in (
        ({"rows": 16}, "multiple of 3 processes"),
        ({"rows": 12, "batch": 6}, "processes of --batch 6"),
    ):
        with pytest.raises(InputError, match=said):
            job.build_arguments(
                recipe.build_recipe({"objective": "sft", "base": "tiny", **told_}),
                found,
                24,
                (),
                Path(),
                None,
            )


# ----------------------------------------------------------------- shards

SHARDS = """
from accelerate import state

begun = state.AcceleratorState.__init__

def sharding(self, *args, fsdp_plugin=None, **how):
    begun(self, *args, fsdp_plugin=fsdp_plugin, **how)
    if fsdp_plugin is not None:
        self.fsdp_plugin, self.distributed_type = fsdp_plugin, state.DistributedType.FSDP
        state.PartialState._shared_state["distributed_type"] = self.distributed_type

state.AcceleratorState.__init__ = sharding
from accelerate import accelerator

prepared = accelerator.fsdp2_prepare_model

def counted(*args):
    from torch.distributed.tensor import DTensor

    model = prepared(*args)
    print("sharded", sum(isinstance(p, DTensor) for p in model.parameters()), flush=True)
    return model

accelerator.fsdp2_prepare_model = counted
from culturepark.cli import main

main()
"""


@pytest.mark.parametrize("method", ["lora", "full"])
def test_shards_on_two_processes_make_what_whole_models_make(
    words, small, corpus, tmp_path, method
):
    """The shipped FSDP2 config on a CPU: accelerate shards on accelerators alone, so it is told
    that gloo will do.
    """
    (tmp_path / "shards.py").write_text(SHARDS)
    verb = words("sft", tmp_path, batch=12, method=method)
    launcher = (
        *ACCELERATE,
        str(CONFIGS / "fsdp.yaml"),
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
    )
    done = work(launcher, verb, (str(tmp_path / "shards.py"),))
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.count("sharded") == 4 and "sharded 0" not in done.stdout
    )  # two cultures, two processes
    how = {**RECIPE, "steps": 3, "batch": 24, "method": method, "device": "cpu"}
    for folder in cp.tune("sft", corpus, str(small), name="alone", out=tmp_path, **how):
        assert apart(folder, models(tmp_path) / folder.name) < 1e-5


# ----------------------------------------------------------------- launch


def plugin(kind, monkeypatch):
    """Parse a shipped config with accelerate's own loader, and build the plugin it stands for as a
    launched process would.
    """
    from accelerate.commands import launch as accelerate
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    given = [
        "--config_file",
        str(CONFIGS / f"{kind}.yaml"),
        "--num_processes",
        "8",
        "-m",
        "culturepark",
        "tune",
        "sft",
    ]
    args, held, _ = accelerate._validate_launch_command(
        accelerate.launch_command_parser().parse_args(given)
    )
    env = prepare_multi_gpu_env(args) if kind != "deepspeed" else {}
    if kind == "deepspeed":
        args.deepspeed_fields_from_accelerate_config = ",".join(held.deepspeed_config)
        env = prepare_deepspeed_cmd_env(args)[1]
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return args, held


def test_the_ddp_config_launches_one_process_a_device(monkeypatch):
    args, held = plugin("ddp", monkeypatch)
    assert (args.multi_gpu, args.num_processes, held.mixed_precision, args.training_script) == (
        True,
        8,
        "no",
        "culturepark",
    )
    assert not machine.is_sharded()


def test_the_fsdp_config_shards_layers_and_saves_whole_models(monkeypatch):
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import StateDictType
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    args, _ = plugin("fsdp", monkeypatch)
    made = FullyShardedDataParallelPlugin()
    assert (made.fsdp_version, made.reshard_after_forward, made.cpu_ram_efficient_loading) == (
        2,
        True,
        True,
    )
    assert (
        made.auto_wrap_policy is transformer_auto_wrap_policy and not made.activation_checkpointing
    )
    assert made.state_dict_type is StateDictType.FULL_STATE_DICT
    assert args.mixed_precision == "bf16" and machine.is_sharded()


def test_the_deepspeed_config_is_stage_three_and_saves_whole_models(monkeypatch):
    args, held = plugin("deepspeed", monkeypatch)
    assert (os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"], args.mixed_precision) == ("3", "bf16")
    assert (
        os.environ["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true" and machine.is_sharded()
    )
    assert held.deepspeed_config["offload_param_device"] == "none"


@pytest.mark.parametrize("kind", KINDS)
def test_launch_prints_the_command(kind):
    done = CliRunner().invoke(
        tune_launch, [kind, "--processes", "8", "--", "sft", "first", "--base", "my base"]
    )
    config = CONFIGS / f"{kind}.yaml"
    said = (
        f"accelerate launch --config_file {config} --num_processes 8 -m culturepark tune sft first"
        " --base 'my base'\n"
    )
    assert done.output == said and config.read_text().startswith("#")


@pytest.mark.parametrize(
    ("verb", "said"),
    [((), "after --"), (("sftt",), "Did you mean 'sft'"), (("hosted",), "There are")],
)
def test_launch_takes_verbs_that_processes_can_share(verb, said):
    with pytest.raises(InputError, match=said):
        build_command("ddp", 2, verb)


def test_a_machine_without_cards_says_so():
    for words, said in (
        (["fsdp", "--run", "--processes", "2"], "none here"),
        (["ddp"], "how many processes"),
    ):
        done = CliRunner().invoke(tune_launch, [*words, "--", "sft", "first"])
        assert isinstance(done.exception, InputError) and said in str(done.exception)
