"""Makes one whole model of a base and its adapter: safetensors, tokenizer, manifest and card, to be
handed over to any tool.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

from culturepark.errors import InputError, ModelError
from culturepark.local_models import base, libraries, machine, manifest
from culturepark.local_models.local_model import LocalModel, find_model
from culturepark.local_models.manifest import Manifest


def merge_adapter(source: str | Path, target: str | Path) -> Path:
    """Write the model that an adapter and its base make together to a new folder, whole or not at
    all, and return it.

    It is merged on the CPU in the base's own number format. InputError for what is no adapter or a
    folder that is taken, ModelError for a base that is stored quantised: its weights are rounded
    already, merge into the one it was made of.
    """
    from culturepark.local_models.engine import attach_adapter

    machine.require_libraries()
    model, target = find_model(source), Path(target).expanduser()
    if model.adapter is None:
        raise InputError(f"{source} is a whole model: there is nothing to merge")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already and not empty; name another folder")
    with libraries.quiet():
        whole = base.load_model(model.root, machine.find_machine("cpu", read_dtype(model)))
    merged = attach_adapter(whole, model, "merged", alone=True).merge_and_unload(safe_merge=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with libraries.quiet(), libraries.writing(f"the merged model to {target}"):
        merged.save_pretrained(partial)
        base.load_tokenizer(model.root).save_pretrained(partial)
    manifest.write(_manifest(model), partial)
    if target.is_dir():
        target.rmdir()
    partial.rename(target)
    return target


def read_dtype(model: LocalModel) -> str:
    """Return the number format that a base is stored in; ModelError where it is stored
    quantised.
    """
    from transformers import AutoConfig

    with libraries.explain_damage(f"cannot load the base {model.title!r}"):
        config = AutoConfig.from_pretrained(model.root, trust_remote_code=False)
    stored = getattr(config, "quantization_config", None)
    if stored:
        how = (
            stored.get("quant_method")
            if isinstance(stored, dict)
            else getattr(stored, "quant_method", stored)
        )
        raise ModelError(
            f"the base {model.title} is stored quantised ({how}): what is merged into it would be"
            " rounded once more. Tune on, or name in the adapter's base_model_name_or_path, the"
            " base it was quantised from."
        )
    name = str(config.dtype or "float32").removeprefix("torch.")
    return name if name in machine.DTYPES else "float32"


def _manifest(model: LocalModel) -> Manifest:
    """Return the manifest of the whole model: the adapter's, where it has one."""
    folder, versions = model.adapter or Path(), manifest.list_versions()
    common: dict[str, Any] = {
        "kind": "model",
        "versions": versions,
        "created": manifest.format_now(),
    }
    if (folder / manifest.FILE).is_file():
        saved = manifest.read(folder)
        return saved.model_copy(
            update={**common, "settings": {**saved.settings, "merged": model.identity}}
        )
    return Manifest(
        name=model.name,
        base=model.title,
        base_hash=base.compute_fingerprint(model.root),
        base_licence=base.read_licence(model.root),
        objective="an adapter from elsewhere, merged",
        corpus="unknown",
        corpus_hash="",
        rows={},
        settings={"merged": model.identity},
        machine=str(machine.find_machine("cpu")),
        **common,
    )


def hand_over(folder: Path) -> list[str]:
    """Return the commands that take a whole model on: to GGUF with llama.cpp, from there to Ollama,
    and to vLLM.
    """
    place, name = str(folder.resolve()), _name_merged(folder)
    file = f"{name}.gguf"
    return [
        shlex.join(
            [
                "python",
                "llama.cpp/convert_hf_to_gguf.py",
                place,
                "--outfile",
                file,
                "--outtype",
                "auto",
            ]
        ),
        shlex.join(
            ["llama-server", "-m", file, "--alias", name, "--host", "127.0.0.1", "--port", "8080"]
        ),
        f"printf 'FROM ./{file}\\n' > Modelfile && "
        + shlex.join(["ollama", "create", name, "-f", "Modelfile"]),
        shlex.join(["vllm", "serve", place, "--served-model-name", name, "--host", "127.0.0.1"]),
    ]


def _name_merged(folder: Path) -> str:
    path = folder / manifest.FILE
    return manifest.read(folder).name if path.is_file() else folder.resolve().name
