"""Loads base models and tokenizers: from a folder, a hub name, or `tiny`; safetensors only, no code
from elsewhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from culturepark.errors import InputError
from culturepark.local_models import tiny
from culturepark.local_models.libraries import TEMPLATE, explain_damage
from culturepark.local_models.machine import Machine
from culturepark.local_models.probe import try_template

TINY = "tiny"
PIECE = 1 << 16  # bytes of a weight file that are hashed at each of 16 places


def find_base(name: str) -> str:
    """Return where a base is: the folder of `tiny` (made when first asked for), a folder, or a hub
    name as it stands.
    """
    if name == TINY:
        return str(tiny.find_folder())
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(
            f"no base model at {path}: give a folder with config.json, a hub name, or {TINY}"
        )
    return name


def load_tokenizer(name: str) -> Any:
    """Return a base's tokenizer, with a padding token and a chat template; ModelError where it
    cannot be had.
    """
    from transformers import AutoTokenizer

    tokenizer = _load(name, AutoTokenizer.from_pretrained, find_base(name), trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = (
            "{{ bos_token }}" if _adds_first_token(tokenizer) else ""
        ) + TEMPLATE
    elif tokenizer.chat_template != TEMPLATE:
        marks = {str(k): str(v) for k, v in tokenizer.special_tokens_map.items()}
        try_template(tokenizer.get_chat_template(), tuple(sorted(marks.items())))
    return tokenizer


def _adds_first_token(tokenizer: Any) -> bool:
    """Say whether a tokenizer begins every text with a token of its own."""
    first = tokenizer("a")["input_ids"][:1]
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]


def load_model(name: str, machine: Machine, *, quantise: bool = False, scores: bool = False) -> Any:
    """Return a base model on the machine's device, in its number format, every weight trainable.

    `quantise` loads it in 4 bits (nf4, double quantisation: Dettmers et al. 2023, arXiv
    2305.14314), which needs a CUDA card and bitsandbytes; `scores` loads it with a head of one
    number a text (reward models).
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    dtype = getattr(torch, machine.dtype)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": machine.attention}
    if quantise:
        options["quantization_config"] = _nf4(machine, dtype)
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    if scores:
        options["num_labels"] = 1
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    model = _load(
        name,
        kind.from_pretrained,
        find_base(name),
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )
    return model if quantise or machine.count > 1 else model.to(machine.device)


def _nf4(machine: Machine, dtype: Any) -> Any:
    import importlib.util

    from transformers import BitsAndBytesConfig

    if machine.device != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "4-bit bases need a CUDA card and bitsandbytes (pip install bitsandbytes); this is"
            f" {machine.title}. Without --qlora the base is loaded whole."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _load(name: str, load: Any, *args: Any, **options: Any) -> Any:
    with explain_damage(f"cannot load the base {name!r}"):
        return load(*args, **options)


def name_base(name: str) -> str:
    """Return a base's name as it may stand in a file: no folder of this machine."""
    return Path(name).name if Path(name).expanduser().is_dir() else name


def compute_fingerprint(name: str) -> str:
    """Return a hash of a local base: its configuration, and of each weight file the size and 16
    pieces spread over it.

    Empty for a hub name: the hub's own revision is not read.
    """
    import hashlib

    folder = Path(find_base(name))
    if not folder.is_dir():
        return ""
    hasher = hashlib.blake2b(digest_size=8)
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        size = path.stat().st_size
        hasher.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for start in sorted({size * i // 16 for i in range(16)}):
                file.seek(start)
                hasher.update(file.read(PIECE))
    return hasher.hexdigest()


def read_licence(name: str) -> str:
    """Return the licence that a local base's card names, or that it is not known."""
    card = Path(find_base(name)) / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip().strip("\"'")
    return "unknown: see the base's own card"


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return the adapter configuration in a folder, or an empty mapping where it holds a whole
    model; ModelError for a damaged one.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        return {}
    with explain_damage(f"the adapter at {folder} is damaged"):
        return dict(json.loads(path.read_text(encoding="utf-8")))
