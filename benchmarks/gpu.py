"""On a CUDA card: tokens/s, share of the card's peak and memory of LoRA and QLoRA on a 1B- and an
8B-shaped model of random weights.

Beside plain TRL on the same card, same batch and length. Without a card it says so and prints no
figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# hidden, intermediate, layers, heads, key-value heads, vocabulary: those of Llama 3.2 1B and Llama
# 3.1 8B
SHAPES = {
    "1B": (2048, 8192, 16, 32, 8, 128_256),
    "8B": (4096, 14336, 32, 32, 8, 128_256),
}
ROWS, LENGTH, BATCH = 256, 512, 8
PEAK = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
}  # dense bf16 FLOP/s, makers' data sheets
CHILD = """
import json, sys, time, torch
from pathlib import Path
way, base, corpus, out, method = sys.argv[1:6]
batch, length = map(int, sys.argv[6:])
torch.cuda.reset_peak_memory_stats()
if way == "ours":
    from culturepark.training import job, recipe, rows
    told = recipe.build({"objective": "sft", "base": base, "method": method, "epochs": 1, "rows": batch, "batch": batch, "patience": 0, "length": 2 * length})
    started = [0.0]
    job.tune(rows.read(Path(corpus), "trl"), told, Path(out), lambda s, h: started.__setitem__(0, time.perf_counter()) if s == "machine" else None)
    seconds = time.perf_counter() - started[0]
else:
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16) if method == "qlora" else None
    args = SFTConfig(out, num_train_epochs=1, per_device_train_batch_size=batch, report_to="none", disable_tqdm=True, save_strategy="no",
                     model_init_kwargs={"dtype": torch.bfloat16, "quantization_config": four})
    data = load_dataset("json", data_files=corpus + "/train.jsonl")["train"].remove_columns("metadata")
    trainer = SFTTrainer(base, args, train_dataset=data, peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"))
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "peak": torch.cuda.max_memory_allocated() / 2**30}))
"""  # noqa: E501


def build(shape: tuple[int, ...], folder: Path) -> int:
    """Write a model of random weights with the tiny base's tokenizer; return how many parameters it
    has.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from culturepark.local_models import base

    hidden, inner, layers, heads, pairs, vocabulary = shape
    words = base.load_tokenizer("tiny")
    config = AutoConfig.for_model(
        "llama",
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return int(model.num_parameters())


def corpus(folder: Path) -> int:
    """Write rows of about LENGTH tokens of random words; return how many tokens they have."""
    from culturepark.local_models import base
    from culturepark.records import stream
    from culturepark.training.rows import tokenize_completions

    rng, words = stream("gpu"), base.load_tokenizer("tiny")
    rows = [
        {
            "prompt": [{"role": "user", "content": "Speak."}],
            "metadata": {"culture": "any"},
            "completion": [
                {
                    "role": "assistant",
                    "content": words.decode([rng.randrange(300, 1900) for _ in range(LENGTH)]),
                }
            ],
        }
        for _ in range(ROWS)
    ]
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8"
    )
    return sum(map(len, tokenize_completions(words, rows, LENGTH * 4)["input_ids"]))


def main() -> None:
    """Print a row a shape and method: ours, plain TRL's, and the ratio."""
    import torch

    if not torch.cuda.is_available():
        print("no CUDA card here: not measured")
        return
    card = torch.cuda.get_device_name()
    peak = next((v for k, v in PEAK.items() if k in card), None)
    print(
        f"{card}; {ROWS} rows of about {LENGTH} tokens, batch {BATCH}, bfloat16, gradient"
        " checkpointing"
    )
    with tempfile.TemporaryDirectory() as tmp:
        tokens = corpus(Path(tmp) / "corpus")
        for shape, sizes in SHAPES.items():
            parameters = build(sizes, Path(tmp) / shape)
            torch.cuda.empty_cache()
            for method in ("lora", "qlora"):
                found = {w: child(w, tmp, shape, method) for w in ("ours", "trl")}
                print(row(f"{shape} {method}", tokens, parameters, peak, found))


def child(way: str, tmp: str, shape: str, method: str) -> dict[str, Any] | None:
    """Run one way in a process of its own; None, with the reason printed, where it failed."""
    call = [
        sys.executable,
        "-c",
        CHILD,
        way,
        f"{tmp}/{shape}",
        f"{tmp}/corpus",
        f"{tmp}/out-{shape}-{way}-{method}",
        method,
    ]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        print(f"  {way} {shape} {method}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(
    name: str,
    tokens: int,
    parameters: int,
    peak: float | None,
    found: dict[str, dict[str, Any] | None],
) -> str:
    """Return one line. FLOPs of adapter training: 4 a parameter and token, 6 where the forward pass
    is done again.
    """
    cells = []
    for way, measured in found.items():
        if measured is None:
            cells.append(f"{way}: –")
            continue
        pace = tokens / measured["seconds"]
        share = f", {6 * parameters * pace / peak:.0%} of peak" if peak else ""
        cells.append(f"{way}: {pace:,.0f} tokens/s{share}, {measured['peak']:.1f} GiB")
    ours, theirs = found["ours"], found["trl"]
    ratio = f"; ours {theirs['seconds'] / ours['seconds']:.2f}x the pace" if ours and theirs else ""
    return f"{name:9} " + " · ".join(cells) + ratio
