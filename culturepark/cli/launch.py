"""`tune launch`: a tuning job in several processes: the exact command for this machine, printed or
run.
"""

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


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("verb", nargs=-1, type=click.UNPROCESSED, metavar="-- VERB CORPUS …")
@click.option(
    "--processes", type=click.IntRange(2), metavar="N", help="One a card (default: all cards here)."
)
@click.option("--run", "at_once", is_flag=True, help="Run it instead of printing it.")
@click.pass_context
def launch(
    ctx: click.Context, kind: str, verb: tuple[str, ...], processes: int | None, at_once: bool
) -> None:
    """Print what runs `tune VERB …` in several processes: `tune launch fsdp --processes 8 -- sft
    RUN --base MODEL`.

    ddp: a whole model a card, or on a CPU. fsdp, deepspeed: a model in shards, for what does not
    fit one card. The folder of the models must be one that all processes see. Stopped, the same
    command goes on.
    """
    words = command(kind, processes or _cards(), verb)
    if not at_once:
        echo(shlex.join(words))
        return
    _fits(kind, 0 if "cpu" in verb else processes or 0)
    # The accelerate beside this Python, whatever PATH says.
    code = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words[1:]]
    ).returncode
    ctx.exit(code if code >= 0 else 128 - code)


def command(kind: str, processes: int, verb: Sequence[str]) -> list[str]:
    """Return the words that launch a verb of `tune`; InputError where it is none that several
    processes can share.

    >>> command("ddp", 2, ["sft", "first"])[-6:]
    ['2', '-m', 'culturepark', 'tune', 'sft', 'first']
    """
    if not verb or not (verb[0] in OBJECTIVES or is_path(verb[0])):
        given = nearest(verb[0], OBJECTIVES) if verb else f"There are: {', '.join(OBJECTIVES)}"
        raise InputError(
            f"launch which of tune's verbs? Give it after --, with all that belongs to it. {given}"
        )
    config = str(CONFIGS / f"{kind}.yaml")
    return [
        "accelerate",
        "launch",
        "--config_file",
        config,
        "--num_processes",
        str(processes),
        "-m",
        "culturepark",
        "tune",
        *verb,
    ]


def _cards() -> int:
    """Return how many CUDA cards there are; InputError where that is no number of processes."""
    import torch

    found = int(torch.cuda.device_count())
    if found < 2:
        said = (
            "one card needs no launch: culturepark tune uses it"
            if found
            else "there is no CUDA card here"
        )
        raise InputError(
            f"how many processes? {said}; say --processes N for another machine, or for ddp on"
            " a CPU"
        )
    return found


def _fits(kind: str, processes: int) -> None:
    """InputError where this machine cannot run what was asked for."""
    import torch

    for needed in ("accelerate", *(["deepspeed"] if kind == "deepspeed" else [])):
        if importlib.util.find_spec(needed) is None:
            raise InputError(f"{kind} needs {needed}: pip install {needed}")
    found = int(torch.cuda.device_count())
    if kind != "ddp" and not found:
        raise InputError(
            f"{kind} shards over CUDA cards and there is none here; ddp runs on a CPU too"
        )
    if 0 < found < processes:
        raise InputError(f"--processes {processes}: one a card, and there are {found} here")
