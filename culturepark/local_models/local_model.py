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
from culturepark.local_models.machine import require_libraries
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
class LocalModel:
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
        return base.read_adapter_config(self.adapter) if self.adapter else {}

    @property
    def rank(self) -> int:
        """The largest rank in the adapter; 0 for a whole model."""
        config = self.config
        return int(max([config.get("r", 0), *(config.get("rank_pattern") or {}).values()]))


def find_model(name: str | Path) -> LocalModel:
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
        return _open_base(str(name))
    if (folder / manifest.FILE).is_file():
        return _open_tuned(folder, manifest.read(folder))
    if (folder / "adapter_config.json").is_file():
        return _open_tuned(folder, None)
    if (folder / "config.json").is_file():
        return _open_base(str(folder))
    manifest.read(folder)
    raise InputError(f"no model at {folder}")


def find_models(names: Sequence[str | Path]) -> list[LocalModel]:
    """Return the models that names stand for, each once; a folder of several tuned models stands
    for all of them.
    """
    models: list[LocalModel] = []
    for name in names:
        folder = Path(name).expanduser()
        holds_several = (
            folder.is_dir()
            and any(folder.glob(f"*/{manifest.FILE}"))
            and not (folder / manifest.FILE).is_file()
        )
        models += (
            map(find_model, manifest.find_folders(folder)) if holds_several else [find_model(name)]
        )
    return list(dict.fromkeys(models))


def name_models(models: Sequence[LocalModel]) -> dict[str, LocalModel]:
    """Return models by the names they are served under, bases first; those of one name are told
    apart by their folders' parents.
    """
    bases = [LocalModel(m.title, m.root, m.title, m.base_hash) for m in models if m.adapter]
    bases = list(
        {
            m.base_hash + m.root: m
            for m in bases
            if not any(o.root == m.root and not o.adapter for o in models)
        }.values()
    )
    by_name: dict[str, LocalModel] = {}
    for model in [*bases, *models]:
        twins = sum(m.name == model.name for m in [*bases, *models]) > 1
        name = (
            f"{(model.adapter or Path(model.root)).resolve().parent.name}-{model.name}"
            if twins
            else model.name
        )
        if name in by_name:
            raise InputError(
                f"two models are called {name!r}: {_locate(by_name[name])} and {_locate(model)};"
                " serve them apart"
            )
        by_name[name] = model
    return by_name


def _locate(model: LocalModel) -> str:
    return str(model.adapter or model.root)


def _open_base(name: str) -> LocalModel:
    root = base.find_base(name)
    title = base.name_base(name)
    return LocalModel(title, root, title, _hash_base(name))


def _open_tuned(folder: Path, saved: manifest.Manifest | None) -> LocalModel:
    if saved is not None and saved.kind == "reward":
        raise InputError(f"{folder} is a reward model: it scores answers and speaks none")
    if saved is not None and saved.kind == "model":
        return LocalModel(saved.name, str(folder), saved.name, _hash_base(str(folder)))
    config = base.read_adapter_config(folder)
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
    name = _find_base(folder, saved, str(config.get("base_model_name_or_path") or ""))
    if (
        saved is not None
        and saved.base_hash
        and (fingerprint := base.compute_fingerprint(name)) != saved.base_hash
    ):
        raise ModelError(
            f"the adapter at {folder} was tuned on the base {saved.base} with the hash"
            f" {saved.base_hash}; the one at {base.find_base(name)} has {fingerprint}"
        )
    return LocalModel(
        saved.name if saved else folder.resolve().name,
        base.find_base(name),
        base.name_base(saved.base if saved else name),
        _hash_base(name),
        folder,
        _hash_adapter(folder, config),
    )


def _find_base(folder: Path, saved: manifest.Manifest | None, configured: str) -> str:
    """Return the name of an adapter's base: as the manifest has it, or where that is no more, as
    its configuration has it.
    """
    names = [n for n in ((saved.base if saved else ""), configured) if n]
    for name in names:
        try:
            base.find_base(name)
        except InputError:
            continue
        return name
    raise ModelError(
        f"the base of the adapter at {folder} is not to be found:"
        f" {', '.join(names) or 'none is named'}"
    )


# ------------------------------------------------------------------- hashes


def _hash_base(name: str) -> str:
    """Return a hash of a base: of its files, or for a hub name the commit that is loaded."""
    folder = Path(base.find_base(name))
    if folder.is_dir():
        return digest(
            *(
                (p.name, hash_file(p))
                for p in [*map(folder.joinpath, SHAPING), *sorted(folder.glob("*.safetensors"))]
                if p.is_file()
            )
        )
    require_libraries()
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json")).parent.name
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"there is no folder {name!r} here, and no base of this name can be fetched: {first}"
        ) from error


def _hash_adapter(folder: Path, config: dict[str, Any]) -> str:
    """Return a hash of an adapter, wherever its base lies."""
    settings = {k: v for k, v in config.items() if k != "base_model_name_or_path"}
    return digest(json.dumps(settings, sort_keys=True), hash_file(folder / ADAPTER))


def hash_file(path: Path) -> str:
    """Return the hash of a file's bytes: of all up to WHOLE, of a larger file of so many, evenly
    spread.
    """
    stat = path.stat()
    return _hash_bytes(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_bytes(path: Path, size: int, changed: int) -> str:
    hasher, piece = hashlib.blake2b(str(size).encode(), digest_size=16), 2**20
    with path.open("rb") as file:
        if size <= WHOLE:
            hasher.update(file.read())
        else:
            for i in range(WHOLE // piece):
                file.seek(i * (size - piece) // (WHOLE // piece - 1))
                hasher.update(file.read(piece))
    return hasher.hexdigest()


def check_mixable(folder: Path) -> None:
    """Raise ModelError for an adapter that cannot share a batch with others."""
    config = base.read_adapter_config(folder)
    odd = [name for name, plain in ALONE.items() if config.get(name) not in plain]
    if odd:
        raise ModelError(
            f"the adapter at {folder} uses {', '.join(odd)}, which cannot share a base with others"
            f" at work; make a whole model of it first: culturepark merge {folder} FOLDER"
        )
