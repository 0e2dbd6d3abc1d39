"""Writes the command with which vLLM serves the same models under the same names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from culturepark.errors import InputError
from culturepark.local_models.local_model import LocalModel, check_mixable

RANKS = (
    1,
    8,
    16,
    32,
    64,
    128,
    256,
    320,
    512,
)  # what vLLM takes as --max-lora-rank (vllm/config/lora.py, 0.26)
PORT = 8000


def build_commands(models: Mapping[str, LocalModel], port: int = PORT) -> list[str]:
    """Return one command a base; the first serves at `port`, each other at the next.

    `--generation-config vllm` keeps the base's own sampling settings out, as `culturepark serve`
    does.
    """
    commands = list[str]()
    for root in dict.fromkeys(m.root for m in models.values()):
        here = {name: model for name, model in models.items() if model.root == root}
        commands.append(_build_command(root, here, port + len(commands)))
    return commands


def _build_command(root: str, models: Mapping[str, LocalModel], port: int) -> str:
    own = [name for name, model in models.items() if not model.adapter]
    adapters = {name: model for name, model in models.items() if model.adapter}
    words = [
        "vllm",
        "serve",
        _locate(root),
        "--served-model-name",
        *own,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--generation-config",
        "vllm",
        *_without_thoughts(root),
    ]
    if adapters:
        for model in adapters.values():
            check_mixable(model.adapter or Path())
        words += [
            "--enable-lora",
            "--max-loras",
            str(len(adapters)),
            "--max-lora-rank",
            str(find_rank(adapters)),
            "--lora-modules",
        ]
        words += [f"{name}={_locate(str(model.adapter))}" for name, model in adapters.items()]
    return shlex.join(words)


def _without_thoughts(root: str) -> list[str]:
    """Return the option that opens answers as tuning did, where the base's chat template thinks
    unless it is asked not to.
    """
    files = [Path(root) / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    template = "".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
    return (
        ["--default-chat-template-kwargs", '{"enable_thinking": false}']
        if "enable_thinking" in template
        else []
    )


def find_rank(adapters: Mapping[str, LocalModel]) -> int:
    """Return the least rank vLLM takes that holds them all; InputError where there is none."""
    name, largest = max(((n, m.rank) for n, m in adapters.items()), key=lambda pair: pair[1])
    rank = next((r for r in RANKS if r >= largest), None)
    if rank is None:
        raise InputError(
            f"the adapter {name!r} has the rank {largest}; vLLM takes up to {RANKS[-1]}. Merge it:"
            " culturepark merge"
        )
    return rank


def _locate(root: str) -> str:
    return str(Path(root).resolve()) if Path(root).is_dir() else root
