"""One tuning job: one model per culture on one loaded base, each validated, resumable, and written
whole or not at all.

<folder>/tune.toml, corpus.json     the recipe, and the hash of the corpus
<folder>/arabic/                    the adapter (or model), its manifest, card and curves.jsonl
<folder>/.work/arabic/              checkpoints, while it is trained
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from culturepark.atomic import discard, move, sweep, write_text
from culturepark.errors import InputError, Locked, nearest
from culturepark.local_models import base, machine, manifest
from culturepark.local_models.libraries import quiet, writing
from culturepark.local_models.machine import Machine, is_first, run_in_first
from culturepark.local_models.manifest import Manifest
from culturepark.options import names_that_change
from culturepark.records import digest
from culturepark.training import preference, sft
from culturepark.training.objective import TrainerParts, load_objective
from culturepark.training.recipe import Recipe, read_recipe, write_recipe
from culturepark.training.rows import POOLED, Corpus, Row

Tell = Callable[[str, dict[str, Any]], None]
WHOLE = "whole"  # the file in a checkpoint that says that every process has written its part
HELD_OUT = 200  # pairs on which a preference run is judged


@dataclass
class TuningJob:
    """A job in progress: its recipe, corpus, folder, and the loaded base."""

    recipe: Recipe
    corpus: Corpus
    folder: Path
    machine: Machine
    tell: Tell
    opinions: Corpus | None = None
    tokenizer: Any = field(default=None, repr=False)
    model: Any = field(default=None, repr=False)

    @property
    def cultures(self) -> tuple[str, ...]:
        """The cultures to train a model for; raises InputError for one without rows."""
        there = self.corpus.cultures()
        for name in self.recipe.cultures:
            if name not in there:
                raise InputError(
                    f"no rows of the culture {name!r} in {self.corpus.title}."
                    f" {nearest(name, there)}"
                )
        return (POOLED,) if self.recipe.pooled else self.recipe.cultures or there


def tune(
    corpus: Corpus,
    recipe: Recipe,
    folder: Path,
    tell: Tell = lambda what, how: None,
    *,
    fresh: bool = False,
    opinions: Corpus | None = None,
) -> list[Path]:
    """Train every model of a job and return their folders; finished models are left as they are,
    and training continues from the last checkpoint.

    `opinions` are the rows beside the corpus, for `mix`. Raises InputError if the folder holds the
    models of another job.
    """
    device = machine.find_machine(recipe.device, recipe.dtype, recipe.attention)
    for tracker in recipe.track:
        if importlib.util.find_spec(tracker) is None:
            raise InputError(f"--track {tracker}: it is not installed; pip install {tracker}")
    if opinions is not None:  # the models learn from both
        corpus = replace(corpus, hash=digest(corpus.hash, opinions.hash))
    with _lock_folder(folder), quiet(), writing(f"the models in {folder}"):
        run_in_first(lambda: _claim_folder(folder, recipe, corpus, fresh))
        job = TuningJob(
            recipe, corpus, folder, device, tell if is_first() else lambda what, how: None, opinions
        )
        return [_train_model(job, culture) for culture in run_in_first(lambda: job.cultures)]


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other jobs; raises Locked if one is at work there."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")

    def take() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise Locked(f"another process is tuning in {folder}") from error

    run_in_first(take)
    try:
        yield
    finally:
        lock.release()


def _claim_folder(folder: Path, recipe: Recipe, corpus: Corpus, fresh: bool) -> None:
    """Write recipe and corpus of a folder; raises InputError if it belongs to another job."""
    mark = {"title": corpus.title, "hash": corpus.hash}
    if fresh:
        for path in folder.iterdir():
            if path.is_dir() and ((path / manifest.FILE).is_file() or path.name.startswith(".")):
                discard(path)
        for name in ("matrix.json", "report.html", "corpus.json", "tune.toml"):
            (folder / name).unlink(missing_ok=True)
    sweep(folder)
    if (folder / "tune.toml").is_file():
        old, was = read_recipe(folder / "tune.toml"), _read_origin(folder)
        loose = set(names_that_change(Recipe, "handling"))
        differing = [k for k, v in old.model_dump(exclude=loose).items() if v != getattr(recipe, k)]
        if differing or was["hash"] != corpus.hash:
            differing += ["the corpus"] if was["hash"] != corpus.hash else []
            raise InputError(
                f"{folder} was tuned with different settings: {', '.join(differing)} changed. Give"
                " another --name, or --fresh to delete its models"
            )
    write_text(folder / "corpus.json", json.dumps(mark))
    write_recipe(recipe, folder / "tune.toml")


def _read_origin(folder: Path) -> dict[str, Any]:
    """Return title and hash of the corpus of a folder's models; raises InputError if unreadable."""
    path = folder / "corpus.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {"title": data["title"], "hash": data["hash"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} does not say which corpus the models are of ({error!r}). Give another --name,"
            " or --fresh to delete them"
        ) from error


# --------------------------------------------------------------- one model


def _train_model(job: TuningJob, culture: str) -> Path:
    """Train one culture's model unless it exists, move it into place, and return its folder."""
    target = job.folder / culture
    if run_in_first((target / manifest.FILE).is_file):
        job.tell("kept", {"culture": culture})
        return target
    train, validation = (
        job.corpus.select("train", culture),
        job.corpus.select("validation", culture),
    )
    trainer, work = _build_trainer(job, culture, train, validation)
    before = _judge_pairs(job, trainer, validation, base=True)
    trainer.train(resume_from_checkpoint=run_in_first(lambda: _find_checkpoint(work)))
    scores = _read_scores(trainer) | before | _judge_pairs(job, trainer, validation, base=False)
    partial = job.folder / f".{culture}.partial"
    run_in_first(lambda: shutil.rmtree(partial, ignore_errors=True))
    trainer.save_model(str(partial))
    counts = {"train": len(train), "validation": len(validation)}
    run_in_first(lambda: _write_model(job, culture, trainer, partial, scores, counts))
    run_in_first(lambda: shutil.rmtree(work, ignore_errors=True))
    _release_base(job, trainer)
    job.tell("made", {"culture": culture, **scores})
    return target


def _build_trainer(
    job: TuningJob, culture: str, train: Sequence[Row], validation: Sequence[Row]
) -> tuple[Any, Path]:
    from transformers import PrinterCallback

    recipe, work = job.recipe, job.folder / ".work" / culture
    _load_base(job)
    objective = load_objective(recipe.objective)
    train_data, validation_data = (
        objective.prepare(job.tokenizer, part, _select_beside(job, split, culture), recipe)
        for split, part in (("train", train), ("validation", validation))
    )
    if not train_data:
        also = (
            f": {recipe.objective} needs its {objective.beside} rows beside its {objective.reads}"
        )
        raise InputError(
            f"nothing to learn for {culture} in {job.corpus.title}"
            f"{also if objective.beside else ''}"
        )
    settings = build_arguments(
        recipe, job.machine, len(train_data), validation_data, work, job.model
    )
    if culture == job.cultures[0] and is_first():
        job.tell("machine", _describe_setup(job, settings))
    adapter = build_adapter(recipe) if recipe.method != "full" else None
    trainer = objective.build_trainer(
        TrainerParts(
            job.model,
            job.tokenizer,
            train_data,
            validation_data,
            settings,
            recipe,
            job.machine,
            adapter,
        )
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.n_gpu > 1:  # in one process the trainer would split batches among the cards
        trainer.args._n_gpu = 1
        trainer._train_batch_size = trainer.args.train_batch_size
    _add_callbacks(
        trainer,
        recipe,
        validation_data,
        lambda step: job.tell("step", {"culture": culture, **step}),
    )
    return trainer, work


def _describe_setup(job: TuningJob, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what was chosen for this machine, to be printed before training begins."""
    device, recipe = job.machine, job.recipe
    rows = (
        f"{settings['per_device_train_batch_size']} at once ×"
        f" {settings['gradient_accumulation_steps']} accumulated"
    )
    packing = (
        "packed" if recipe.objective == "sft" and sft.is_packed(recipe, device) else "one by one"
    )
    return {
        "machine": str(device),
        "base": f"{recipe.base}, {job.model.num_parameters():,} parameters, {recipe.method}",
        "rows": f"{rows} × {device.count} processes, {packing}",
        "step size": f"{recipe.rate:g}",
        "models": ", ".join(job.cultures),
    }


def _select_beside(job: TuningJob, split: str, culture: str) -> Sequence[Row]:
    return job.opinions.select(split, culture) if job.opinions is not None else ()


def _load_base(job: TuningJob) -> None:
    """Load tokenizer and base once for all cultures; a model that is trained whole is loaded for
    each culture.
    """
    if job.tokenizer is None:
        job.tokenizer = base.load_tokenizer(job.recipe.base)
    if job.model is None:
        whole = job.recipe.method == "full"
        # Whole models keep their weights in float32 and compute in the machine's format: 16 bits
        # would lose small steps.
        device = replace(job.machine, dtype="float32") if whole else job.machine
        job.model = base.load_model(job.recipe.base, device, quantise=job.recipe.method == "qlora")


def _release_base(job: TuningJob, trainer: Any) -> None:
    """Take the adapter off the base; drop a base that was trained whole or is in shards."""
    keep = job.recipe.method != "full" and not machine.is_sharded()
    job.model = trainer.model.unload() if keep else None
    if job.model is not None and "forward" in vars(job.model):
        del job.model.forward  # the trainer's own; the next trainer sets its own


def build_adapter(recipe: Recipe) -> Any:
    """Return the adapter's configuration: every linear layer but the head (all of them are needed:
    Dettmers et al. 2023, §4).
    """
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
    )


def build_arguments(
    recipe: Recipe, device: Machine, count: int, validation: Sequence[Row], work: Path, model: Any
) -> dict[str, Any]:
    """Return the trainer's arguments: batch by memory, accumulation up to `rows` per step,
    validation and checkpoints by epoch.
    """
    if recipe.rows % (device.count * (recipe.batch or 1)):
        each = f" of --batch {recipe.batch}" if recipe.batch else ""
        raise InputError(
            f"--rows {recipe.rows} per step is no multiple of {device.count} processes{each};"
            " give one that is"
        )
    batch = recipe.batch or choose_batch(recipe, device, model)
    accumulation = max(1, recipe.rows // (batch * device.count))
    epoch = max(1, math.ceil(count / (batch * accumulation * device.count)))
    often = max(1, epoch // recipe.checks)
    gpu = device.device != "cpu"
    return {
        "output_dir": str(work),
        "use_cpu": not gpu,
        "bf16": gpu and device.dtype == "bfloat16",
        "fp16": gpu and device.dtype == "float16",
        "gradient_checkpointing": gpu,
        "dataloader_pin_memory": gpu,
        "disable_tqdm": True,
        "report_to": list(recipe.track) or "none",
        "learning_rate": recipe.rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.decay,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.steps or -1,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "ddp_find_unused_parameters": False,
        "logging_strategy": "steps",
        "logging_steps": max(1, often // 5),
        "save_strategy": "steps",
        "save_steps": often,
        "save_total_limit": 2,
        "eval_strategy": "steps" if validation else "no",
        "eval_steps": often,
        "load_best_model_at_end": bool(validation) and recipe.patience > 0,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def choose_batch(recipe: Recipe, device: Machine, model: Any) -> int:
    """Return how many rows of one forward pass fit the device; a divisor of the rows per step and
    process.
    """
    total = model.num_parameters()
    trainable = total if recipe.method == "full" else int(total * recipe.rank * 0.001)
    parts = device.count if machine.is_sharded() else 1
    bits = {"qlora": 5, "lora": 16, "full": 32}[recipe.method] / parts
    most = machine.choose_batch_size(device, total, recipe.length, trainable // parts, bits)
    share = max(1, recipe.rows // device.count)
    return max(n for n in range(1, share + 1) if share % n == 0 and n <= max(1, min(most, share)))


def _add_callbacks(
    trainer: Any, recipe: Recipe, validation: Sequence[Row], tell: Callable[[dict[str, Any]], None]
) -> None:
    from transformers import EarlyStoppingCallback, TrainerCallback

    class StepReporter(TrainerCallback):
        """Reports steps and logged figures, and marks a checkpoint that every process
        has written.
        """

        def __init__(self) -> None:
            self.figures: dict[str, float] = {}

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            trainer.accelerator.wait_for_everyone()
            run_in_first((Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch)

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            tell({"step": state.global_step, "of": state.max_steps})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            tell({"step": state.global_step, "of": state.max_steps, **self.figures})

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            self.figures |= {k: v for k, v in (logs or {}).items() if isinstance(v, (int, float))}
            tell({"step": state.global_step, "of": state.max_steps, **self.figures})

    trainer.add_callback(StepReporter())
    if validation and recipe.patience:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=recipe.patience))


def _find_checkpoint(work: Path) -> str | None:
    """Return the last checkpoint that every process has written; None if there is none."""
    checkpoints = [
        p
        for p in work.glob("checkpoint-*")
        if (p / WHOLE).is_file() and p.name.rpartition("-")[2].isdigit()
    ]
    return (
        str(max(checkpoints, key=lambda p: int(p.name.rpartition("-")[2]))) if checkpoints else None
    )


def _judge_pairs(
    job: TuningJob, trainer: Any, validation: Sequence[Row], *, base: bool
) -> dict[str, float]:
    """Return how a preference run's model judges held-out pairs: before it as `base_*`, after it
    with the distance from the base.
    """
    compares = load_objective(job.recipe.objective).compares
    if not compares or not validation or machine.is_sharded():
        return {}
    part = validation[:HELD_OUT]
    model = trainer.accelerator.unwrap_model(trainer.model)
    figures = preference.judge_pairs(model, job.tokenizer, part, base=base)
    if base:
        return {f"base_{name}": value for name, value in figures.items()}
    side = "chosen" if "chosen" in part[0] else "completion"
    distance = (
        {"kl": preference.measure_drift(model, job.tokenizer, part, side)}
        if job.recipe.method != "full"
        else {}
    )
    return figures | distance


def _read_scores(trainer: Any) -> dict[str, float]:
    """Return the last training loss and the best validation loss, as far as there are any."""
    logs = trainer.state.log_history
    losses = [entry["loss"] for entry in logs if "loss" in entry]
    checks = [entry["eval_loss"] for entry in logs if "eval_loss" in entry]
    return ({"loss": losses[-1]} if losses else {}) | ({"eval_loss": min(checks)} if checks else {})


def _write_model(
    job: TuningJob,
    culture: str,
    trainer: Any,
    partial: Path,
    scores: dict[str, float],
    counts: dict[str, int],
) -> None:
    """Write manifest, card and curves beside the weights, then move all of it into place."""
    recipe = job.recipe
    (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle; tune.toml holds the same
    curves = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
    (partial / "curves.jsonl").write_text(curves, encoding="utf-8")
    config = partial / "adapter_config.json"
    if config.is_file():  # names the base as the recipe does
        config.write_text(
            json.dumps(
                json.loads(config.read_text())
                | {"base_model_name_or_path": base.find_base(recipe.base)},
                indent=1,
            )
        )
    description = Manifest(
        kind="adapter" if config.is_file() else "model",
        name=culture,
        base=recipe.base,
        base_hash=base.compute_fingerprint(recipe.base),
        base_licence=base.read_licence(recipe.base),
        objective=recipe.objective,
        corpus=job.corpus.title,
        corpus_hash=job.corpus.hash,
        rows=counts,
        settings=recipe.model_dump(mode="json", exclude_none=True),
        machine=str(job.machine),
        versions=manifest.list_versions(),
        scores=scores,
        created=manifest.format_now(),
    )
    manifest.write(description, partial)
    target = job.folder / culture
    move(partial, target)
