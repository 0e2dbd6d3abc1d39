"""Eight tuned models served at once on one base: memory beside eight processes, and requests a
second beside one at a time.

Base (5 million parameters, float32) and adapters (rank 16) are random: what is measured is the
serving. Memory is what a process holds for itself alone, libraries and all; every answer is 32
tokens long.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from culturepark.local_models import base, libraries, machine, tiny
from culturepark.local_models.engine import Engine
from culturepark.local_models.local_model import find_model

ADAPTERS, TOKENS, ALONE, TOGETHER, IN_FLIGHT = 8, 32, 8, 64, (8, 32)
WIDTH, LAYERS, HEADS = 256, 4, 4
TALK = [
    {"role": "user", "content": "Is it good to drink tea with seven guests? 1. Agree 2. Disagree"}
]


def main() -> None:
    """Print memory and pace, each as a ratio."""
    with tempfile.TemporaryDirectory() as place:
        folders = built(Path(place))
        one, every = weighed(folders[:1]), weighed(folders)
        ratio = ADAPTERS * one / every
        print(
            f"memory: {every:,.0f} MB in one process; {ADAPTERS} × {one:,.0f} MB in {ADAPTERS}"
            f" processes: {ratio:.1f}x as much"
        )
        engine = loaded(folders)
        asyncio.run(asked(engine, 2, 1))
        alone = asyncio.run(asked(engine, ALONE, 1))
        print(
            f"{'in flight':>9} {'requests/s':>10} {'tokens/s':>8} {'ratio':>6}"
            f" {'requests a batch':>16}"
        )
        print(f"{1:9} {alone:10.1f} {alone * TOKENS:8,.0f} {1:5.1f}x {1:16.1f}")
        for width in IN_FLIGHT:
            before = engine.batches
            pace = asyncio.run(asked(engine, TOGETHER, width))
            rows = TOGETHER / (engine.batches - before)
            print(f"{width:9} {pace:10.1f} {pace * TOKENS:8,.0f} {pace / alone:5.1f}x {rows:16.1f}")


def built(place: Path) -> list[Path]:
    """Write a base and its adapters and return the adapters' folders."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny.build(place / "tiny", texts=64, epochs=1, gate=99)
    words = base.load_tokenizer(str(place / "tiny"))
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=True,
    )
    root, folders = place / "base", [place / f"people{i}" for i in range(ADAPTERS)]
    with libraries.quiet():
        LlamaForCausalLM(shape).save_pretrained(root)
        words.save_pretrained(root)
        for folder in folders:
            told = LoraConfig(
                task_type="CAUSAL_LM", r=16, target_modules="all-linear", init_lora_weights=False
            )
            get_peft_model(
                base.load_model(str(root), machine.find_machine("cpu")), told
            ).save_pretrained(folder)
    return folders


def loaded(folders: list[Path]) -> Engine:
    """Return an engine with these adapters, that never ends an answer early."""
    models: list[Any] = [find_model(folder) for folder in folders]
    engine = Engine(models[0].root, machine.find_machine("cpu"))
    for model in models:
        engine.add(model)
    engine.ends = frozenset()
    return engine


async def asked(engine: Engine, count: int, width: int) -> float:
    """Ask the models in turn, so many at once, and return the requests a second."""
    places, started = asyncio.Semaphore(width), time.perf_counter()

    async def ask(i: int) -> None:
        async with places:
            await engine.complete(TALK, f"a{i % ADAPTERS}", TOKENS, temperature=0.7, seed=i)

    await asyncio.gather(*map(ask, range(count)))
    return count / (time.perf_counter() - started)


def weighed(folders: list[Path]) -> float:
    """Return the MB that a process of its own holds for itself with these models loaded and one
    answer given.
    """
    code = f"from benchmarks.serve import held; held({list(map(str, folders))!r})"
    return float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )


def held(folders: list[str]) -> None:
    """Load models, answer once, and print this process's own memory in MB."""
    import psutil

    engine = loaded([Path(f) for f in folders])
    asyncio.run(asked(engine, 1, 1))
    print(psutil.Process().memory_full_info().uss / 1e6)
