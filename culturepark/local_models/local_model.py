"""A model on this machine by its name: a tuned one, or a bare base; where it is, what it stands on,
a hash of its weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from culturepark.errors import InputError, ModelError
from culturepark.local_models import base, manifest
from culturepark.local_models.machine import needed
from culturepark.records import digest

ADAPTER = "adapter_model.safetensors"
WHOLE = (
    64 * 2**20
)  # bytes of a file up to which all of it is hashed; of a larger one so many, evenly spread
# What shapes a model's answers besides its weights.
SHAPING = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
# What adapters can be that cannot share a batch with others, and the values with which they are
# not.
ALONE: dict[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "target_parameters": (None, []),
    "modules_to_save": (None, []),
}


@dataclass(frozen=True)
class Graduate:
    """A model to be served or seated: `name`, the base to load (`root`: a folder or hub name) and,
    where there is one, the adapter.

    `title` is the base's own name. `base_hash` and `hash` are of base and adapter: their weights,
    and what shapes answers.
    """

    name: str
    root: str
    title: str
    base_hash: str
    adapter: Path | None = None
    hash: str = ""

    @property
    def identity(self) -> str:
        """Name and hash of all weights: another adapter or base under the same path is another
        model.
        """
        return f"local/{self.name}@{digest(self.base_hash, self.hash)}"

    @property
    def config(self) -> dict[str, Any]:
        """The adapter's configuration; empty for a whole model."""
        return base.adapter(self.adapter) if self.adapter else {}

    @property
    def rank(self) -> int:
        """The largest rank in the adapter; 0 for a whole model."""
        config = self.config
        return int(max([config.get("r", 0), *(config.get("rank_pattern") or {}).values()]))


def find(name: str | Path) -> Graduate:
    """Return the model of this name: the folder of a tuned model or base, `tiny`, or a base's hub
    name.

    InputError where a folder holds none; ModelError where its weights are missing, pickled, or
    stand on another base.
    """
    folder = Path(name).expanduser()
    if name == base.TINY or not folder.is_dir():
        # A path, by its looks or by where it leads: its neighbours are named, where a hub name
        # would be asked for there.
        path = str(name).startswith((".", "/", "~")) or (
            folder.parent != Path() and folder.parent.is_dir()
        )
        if path and name != base.TINY:
            manifest.read(folder)
        return _bare(str(name))
    if (folder / manifest.FILE).is_file():
        return _tuned(folder, manifest.read(folder))
    if (folder / "adapter_config.json").is_file():
        return _tuned(folder, None)
    if (folder / "config.json").is_file():
        return _bare(str(folder))
    manifest.read(folder)
    raise InputError(f"no model at {folder}")


def found(names: Sequence[str | Path]) -> list[Graduate]:
    """Return the models that names stand for, each once; a folder of several tuned models stands
    for all of them.
    """
    made: list[Graduate] = []
    for name in names:
        folder = Path(name).expanduser()
        holds = (
            folder.is_dir()
            and any(folder.glob(f"*/{manifest.FILE}"))
            and not (folder / manifest.FILE).is_file()
        )
        made += map(find, manifest.models(folder)) if holds else [find(name)]
    return list(dict.fromkeys(made))


def named(models: Sequence[Graduate]) -> dict[str, Graduate]:
    """Return models by the names they are served under, bases first; those of one name are told
    apart by their folders' parents.
    """
    held = [Graduate(m.title, m.root, m.title, m.base_hash) for m in models if m.adapter]
    held = list(
        {
            m.base_hash + m.root: m
            for m in held
            if not any(o.root == m.root and not o.adapter for o in models)
        }.values()
    )
    made: dict[str, Graduate] = {}
    for model in [*held, *models]:
        twins = sum(m.name == model.name for m in [*held, *models]) > 1
        name = (
            f"{(model.adapter or Path(model.root)).resolve().parent.name}-{model.name}"
            if twins
            else model.name
        )
        if name in made:
            raise InputError(
                f"two models are called {name!r}: {_place(made[name])} and {_place(model)}; serve"
                " them apart"
            )
        made[name] = model
    return made


def _place(model: Graduate) -> str:
    return str(model.adapter or model.root)


def _bare(name: str) -> Graduate:
    root = base.place(name)
    title = base.title(name)
    return Graduate(title, root, title, _root(name))


def _tuned(folder: Path, told: manifest.Manifest | None) -> Graduate:
    if told is not None and told.kind == "reward":
        raise InputError(f"{folder} is a reward model: it scores answers and speaks none")
    if told is not None and told.kind == "model":
        return Graduate(told.name, str(folder), told.name, _root(str(folder)))
    config = base.adapter(folder)
    if not config:
        raise ModelError(f"the adapter at {folder} has no adapter_config.json")
    if not (folder / ADAPTER).is_file():
        raise ModelError(
            f"the adapter at {folder} has no {ADAPTER}; pickled weights are not loaded"
        )
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"the adapter at {folder} is of the kind {config.get('peft_type')}; only LoRA adapters"
            " are served"
        )
    name = _stands(folder, told, str(config.get("base_model_name_or_path") or ""))
    if told is not None and told.base_hash and (there := base.fingerprint(name)) != told.base_hash:
        raise ModelError(
            f"the adapter at {folder} was tuned on the base {told.base} with the hash"
            f" {told.base_hash}; the one at {base.place(name)} has {there}"
        )
    return Graduate(
        told.name if told else folder.resolve().name,
        base.place(name),
        base.title(told.base if told else name),
        _root(name),
        folder,
        _adapter(folder, config),
    )


def _stands(folder: Path, told: manifest.Manifest | None, configured: str) -> str:
    """Return the name of an adapter's base: as the manifest has it, or where that is no more, as
    its configuration has it.
    """
    names = [n for n in ((told.base if told else ""), configured) if n]
    for name in names:
        try:
            base.place(name)
        except InputError:
            continue
        return name
    raise ModelError(
        f"the base of the adapter at {folder} is not to be found:"
        f" {', '.join(names) or 'none is named'}"
    )


# ------------------------------------------------------------------- hashes


def _root(name: str) -> str:
    """Return a hash of a base: of its files, or for a hub name the commit that is loaded."""
    folder = Path(base.place(name))
    if folder.is_dir():
        return digest(
            *(
                (p.name, content(p))
                for p in [*map(folder.joinpath, SHAPING), *sorted(folder.glob("*.safetensors"))]
                if p.is_file()
            )
        )
    needed()
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json")).parent.name
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"there is no folder {name!r} here, and no base of this name can be fetched: {first}"
        ) from error


def _adapter(folder: Path, config: dict[str, Any]) -> str:
    """Return a hash of an adapter, wherever its base lies."""
    said = {k: v for k, v in config.items() if k != "base_model_name_or_path"}
    return digest(json.dumps(said, sort_keys=True), content(folder / ADAPTER))


def content(path: Path) -> str:
    """Return the hash of a file's bytes: of all up to WHOLE, of a larger file of so many, evenly
    spread.
    """
    stat = path.stat()
    return _content(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _content(path: Path, size: int, changed: int) -> str:
    made, piece = hashlib.blake2b(str(size).encode(), digest_size=16), 2**20
    with path.open("rb") as file:
        if size <= WHOLE:
            made.update(file.read())
        else:
            for i in range(WHOLE // piece):
                file.seek(i * (size - piece) // (WHOLE // piece - 1))
                made.update(file.read(piece))
    return made.hexdigest()


def mixable(folder: Path) -> None:
    """Raise ModelError for an adapter that cannot share a batch with others."""
    config = base.adapter(folder)
    odd = [name for name, plain in ALONE.items() if config.get(name) not in plain]
    if odd:
        raise ModelError(
            f"the adapter at {folder} uses {', '.join(odd)}, which cannot share a base with others"
            f" at work; make a whole model of it first: culturepark merge {folder} FOLDER"
        )
