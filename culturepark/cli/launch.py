"""The command `tune launch`: prints or runs the command for a tuning job in several processes."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from culturepark.cli.terminal import echo
from culturepark.errors import InputError, nearest
from culturepark.registry import OBJECTIVES, is_path

CONFIGS = Path(__file__).parent.parent / "training" / "launch"
KINDS = ("ddp", "fsdp", "deepspeed")


@click.command("launch", context_settings={"ignore_unknown_options": True})
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("verb", nargs=-1, type=click.UNPROCESSED, metavar="-- VERB CORPUS …")
@click.option(
    "--processes",
    type=click.IntRange(2),
    metavar="N",
    help="One per card (default: all cards here).",
)
@click.option("--run", "at_once", is_flag=True, help="Run it instead of printing it.")
@click.pass_context
def tune_launch(
    ctx: click.Context, kind: str, verb: tuple[str, ...], processes: int | None, at_once: bool
) -> None:
    """Print the command that runs `tune VERB …` in several processes: `tune launch fsdp --processes
    8 -- sft RUN --base MODEL`.

    ddp: a whole model per card, or on a CPU. fsdp, deepspeed: a model in shards, if it does not fit
    one card. All processes must see the folder of the models. Run the same command again to
    continue.
    """
    words = build_command(kind, processes or _count_cards(), verb)
    if not at_once:
        echo(shlex.join(words))
        return
    _check_machine(kind, 0 if "cpu" in verb else processes or 0)
    # The accelerate beside this Python, whatever PATH says.
    code = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words[1:]]
    ).returncode
    ctx.exit(code if code >= 0 else 128 - code)


def build_command(kind: str, processes: int, verb: Sequence[str]) -> list[str]:
    """Return the words that launch a verb of `tune`; raises InputError for one that several
    processes cannot share.

    >>> build_command("ddp", 2, ["sft", "first"])[-6:]
    ['2', '-m', 'culturepark', 'tune', 'sft', 'first']
    """
    if not verb or not (verb[0] in OBJECTIVES or is_path(verb[0])):
        hint = nearest(verb[0], OBJECTIVES) if verb else f"There are: {', '.join(OBJECTIVES)}"
        raise InputError(
            f"launch which of tune's verbs? Give it after --, with all that belongs to it. {hint}"
        )
    options = ["--config_file", str(CONFIGS / f"{kind}.yaml"), "--num_processes", str(processes)]
    return ["accelerate", "launch", *options, "-m", "culturepark", "tune", *verb]


def _count_cards() -> int:
    """Return the number of CUDA cards; raises InputError for fewer than two."""
    import torch

    count = int(torch.cuda.device_count())
    if count < 2:
        reason = "there is no CUDA card here"
        if count:
            reason = "one card needs no launch: culturepark tune uses it"
        raise InputError(
            f"how many processes? {reason}; say --processes N for another machine, or for ddp on"
            " a CPU"
        )
    return count


def _check_machine(kind: str, processes: int) -> None:
    """Raise InputError if this machine cannot run the processes."""
    import torch

    for package in ("accelerate", *(["deepspeed"] if kind == "deepspeed" else [])):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{kind} needs {package}: pip install {package}")
    count = int(torch.cuda.device_count())
    if kind != "ddp" and not count:
        raise InputError(
            f"{kind} shards over CUDA cards and there is none here; ddp runs on a CPU too"
        )
    if 0 < count < processes:
        raise InputError(f"--processes {processes}: one per card, and there are {count} here")
