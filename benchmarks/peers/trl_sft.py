"""Plain TRL, as its documentation shows it: one adapter a culture.

trl_sft.py BASE CORPUS OUT EPOCHS CULTURE…
"""

from __future__ import annotations

import json
import resource
import sys
import time

base, corpus, out, epochs, *cultures = sys.argv[1:]
started = time.perf_counter()

from datasets import load_dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

imported = time.perf_counter()
rows = 0
for culture in cultures:
    files = {split: f"{corpus}/{split}.jsonl" for split in ("train", "validation")}
    data = load_dataset("json", data_files=files).filter(
        lambda row, name=culture: row["metadata"]["culture"] == name
    )
    rows += len(data["train"])
    args = SFTConfig(
        f"{out}/{culture}",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        num_train_epochs=float(epochs),
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        per_device_train_batch_size=16,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    trainer = SFTTrainer(
        base,
        args,
        train_dataset=data["train"].remove_columns("metadata"),
        eval_dataset=data["validation"].remove_columns("metadata"),
        peft_config=lora,
    )
    trainer.train()
    trainer.save_model(f"{out}/{culture}")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(
    json.dumps(
        {
            "rows": rows,
            "seconds": time.perf_counter() - started,
            "imports": imported - started,
            "peak": peak,
        }
    )
)
