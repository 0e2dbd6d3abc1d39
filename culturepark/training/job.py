"""One tuning job: a model a culture on one loaded base, each checked, resumable, and whole or not
there at all.

<folder>/tune.toml, corpus.json     what was asked, over which corpus
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
from culturepark.training import preference, recipe, sft
from culturepark.training.objective import TrainerParts, load_objective
from culturepark.training.recipe import Recipe
from culturepark.training.rows import POOLED, Corpus, Row

Tell = Callable[[str, dict[str, Any]], None]
WHOLE = "whole"  # the mark in a checkpoint that every process has written
HELD_OUT = 200  # pairs on which a preference run is judged


@dataclass
class Job:
    """A job at work: its recipe, corpus, folder, and what is loaded."""

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
        """The models to make."""
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
    told: Recipe,
    folder: Path,
    tell: Tell = lambda what, how: None,
    *,
    fresh: bool = False,
    opinions: Corpus | None = None,
) -> list[Path]:
    """Make every model of a job and return their folders; what is whole already is left, what was
    begun goes on.

    `opinions` are the samples beside the shares, for `mix`. InputError where the folder holds
    another job's models.
    """
    found = machine.find_machine(told.device, told.dtype, told.attention)
    for tracker in told.track:
        if importlib.util.find_spec(tracker) is None:
            raise InputError(f"--track {tracker}: it is not installed; pip install {tracker}")
    if opinions is not None:  # both are what the models are made of
        corpus = replace(corpus, hash=digest(corpus.hash, opinions.hash))
    with _kept(folder), quiet(), writing(f"the models in {folder}"):
        run_in_first(lambda: _claim(folder, told, corpus, fresh))
        job = Job(
            told, corpus, folder, found, tell if is_first() else lambda what, how: None, opinions
        )
        return [_whole(job, culture) for culture in run_in_first(lambda: job.cultures)]


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Keep other jobs out of a folder while this one is at work; Locked where one is there."""
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


def _claim(folder: Path, told: Recipe, corpus: Corpus, fresh: bool) -> None:
    """Write down what this folder is for; InputError where it is for something else."""
    mark = {"title": corpus.title, "hash": corpus.hash}
    if fresh:
        for path in folder.iterdir():
            if path.is_dir() and ((path / manifest.FILE).is_file() or path.name.startswith(".")):
                discard(path)
        for name in ("matrix.json", "report.html", "corpus.json", "tune.toml"):
            (folder / name).unlink(missing_ok=True)
    sweep(folder)
    if (folder / "tune.toml").is_file():
        old, was = recipe.read(folder / "tune.toml"), _corpus_of(folder)
        loose = set(names_that_change(Recipe, "handling"))
        changed = [k for k, v in old.model_dump(exclude=loose).items() if v != getattr(told, k)]
        if changed or was["hash"] != corpus.hash:
            changed += ["the corpus"] if was["hash"] != corpus.hash else []
            raise InputError(
                f"{folder} was tuned otherwise: {', '.join(changed)} changed. Give another --name,"
                " or --fresh to throw it away"
            )
    write_text(folder / "corpus.json", json.dumps(mark))
    recipe.write(told, folder / "tune.toml")


def _corpus_of(folder: Path) -> dict[str, Any]:
    """Return title and hash of the corpus that a folder's models are of; InputError where that
    cannot be read.
    """
    path = folder / "corpus.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"title": found["title"], "hash": found["hash"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} does not say which corpus the models are of ({error!r}). Give another --name,"
            " or --fresh to throw them away"
        ) from error


# --------------------------------------------------------------- one model


def _whole(job: Job, culture: str) -> Path:
    """Train one culture's model unless it is there, and put it in place when all of it is
    written.
    """
    target = job.folder / culture
    if run_in_first((target / manifest.FILE).is_file):
        job.tell("kept", {"culture": culture})
        return target
    train, validation = job.corpus.of("train", culture), job.corpus.of("validation", culture)
    trainer, work = _trainer(job, culture, train, validation)
    before = _judged(job, trainer, validation, base=True)
    trainer.train(resume_from_checkpoint=run_in_first(lambda: _checkpoint(work)))
    scores = _scores(trainer) | before | _judged(job, trainer, validation, base=False)
    partial = job.folder / f".{culture}.partial"
    run_in_first(lambda: shutil.rmtree(partial, ignore_errors=True))
    trainer.save_model(str(partial))
    counts = {"train": len(train), "validation": len(validation)}
    run_in_first(lambda: _finish(job, culture, trainer, partial, scores, counts))
    run_in_first(lambda: shutil.rmtree(work, ignore_errors=True))
    _release(job, trainer)
    job.tell("made", {"culture": culture, **scores})
    return target


def _trainer(
    job: Job, culture: str, train: Sequence[Row], validation: Sequence[Row]
) -> tuple[Any, Path]:
    from transformers import PrinterCallback

    told, work = job.recipe, job.folder / ".work" / culture
    _load(job)
    objective = load_objective(told.objective)
    learnt, checked = (
        objective.prepare(job.tokenizer, part, _beside(job, split, culture), told)
        for split, part in (("train", train), ("validation", validation))
    )
    if not learnt:
        also = f": {told.objective} needs its {objective.beside} rows beside its {objective.reads}"
        raise InputError(
            f"nothing to learn for {culture} in {job.corpus.title}{also if objective.beside else ''}"
        )
    settings = arguments(told, job.machine, len(learnt), checked, work, job.model)
    if culture == job.cultures[0] and is_first():
        job.tell("machine", _chosen(job, settings))
    adapter = lora(told) if told.method != "full" else None
    made = objective.build_trainer(
        TrainerParts(
            job.model, job.tokenizer, learnt, checked, settings, told, job.machine, adapter
        )
    )
    made.remove_callback(PrinterCallback)
    if (
        made.args.n_gpu > 1
    ):  # one process beside several cards: the trainer would split every batch among them
        made.args._n_gpu = 1
        made._train_batch_size = made.args.train_batch_size
    _listen(made, told, checked, lambda step: job.tell("step", {"culture": culture, **step}))
    return made, work


def _chosen(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what was chosen for this machine, to be told before the work begins."""
    found, told = job.machine, job.recipe
    rows = (
        f"{settings['per_device_train_batch_size']} at once ×"
        f" {settings['gradient_accumulation_steps']} accumulated"
    )
    packed = "packed" if told.objective == "sft" and sft.packs(told, found) else "one by one"
    return {
        "machine": str(found),
        "base": f"{told.base}, {job.model.num_parameters():,} parameters, {told.method}",
        "rows": f"{rows} × {found.count} processes, {packed}",
        "step size": f"{told.rate:g}",
        "models": ", ".join(job.cultures),
    }


def _beside(job: Job, split: str, culture: str) -> Sequence[Row]:
    return job.opinions.of(split, culture) if job.opinions is not None else ()


def _load(job: Job) -> None:
    """Load tokenizer and base once for all cultures; a whole model is loaded anew for each, since
    training changes it.
    """
    if job.tokenizer is None:
        job.tokenizer = base.load_tokenizer(job.recipe.base)
    if job.model is None:
        whole = job.recipe.method == "full"
        # Whole models keep their weights in float32 and compute in the machine's format: small
        # steps would be lost in 16 bits.
        held = replace(job.machine, dtype="float32") if whole else job.machine
        job.model = base.load_model(job.recipe.base, held, quantise=job.recipe.method == "qlora")


def _release(job: Job, trainer: Any) -> None:
    """Take the adapter off the base, or drop the model that was trained whole or is in shards,
    which cannot be had back.
    """
    keep = job.recipe.method != "full" and not machine.is_sharded()
    job.model = trainer.model.unload() if keep else None
    if job.model is not None and "forward" in vars(job.model):
        del job.model.forward  # the trainer's own; the next one puts its own there


def lora(told: Recipe) -> Any:
    """Return the adapter's shape: every linear layer but the head (Dettmers et al. 2023, §4: all of
    them are needed).
    """
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=told.rank,
        lora_alpha=told.alpha,
        lora_dropout=told.dropout,
        target_modules="all-linear",
    )


def arguments(
    told: Recipe, found: Machine, count: int, validation: Sequence[Row], work: Path, model: Any
) -> dict[str, Any]:
    """Return the trainer's arguments: batch by memory, accumulation up to `rows` a step, checks and
    checkpoints by epoch.
    """
    if told.rows % (found.count * (told.batch or 1)):
        each = f" of --batch {told.batch}" if told.batch else ""
        raise InputError(
            f"--rows {told.rows} a step is no multiple of {found.count} processes{each}; give one"
            " that is"
        )
    batch = told.batch or fitting(told, found, model)
    accumulated = max(1, told.rows // (batch * found.count))
    epoch = max(1, math.ceil(count / (batch * accumulated * found.count)))
    often = max(1, epoch // told.checks)
    gpu = found.device != "cpu"
    return {
        "output_dir": str(work),
        "use_cpu": not gpu,
        "bf16": gpu and found.dtype == "bfloat16",
        "fp16": gpu and found.dtype == "float16",
        "gradient_checkpointing": gpu,
        "dataloader_pin_memory": gpu,
        "disable_tqdm": True,
        "report_to": list(told.track) or "none",
        "learning_rate": told.rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": told.warmup,
        "weight_decay": told.decay,
        "num_train_epochs": told.epochs,
        "max_steps": told.steps or -1,
        "seed": told.seed,
        "data_seed": told.seed,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": accumulated,
        "ddp_find_unused_parameters": False,
        "logging_strategy": "steps",
        "logging_steps": max(1, often // 5),
        "save_strategy": "steps",
        "save_steps": often,
        "save_total_limit": 2,
        "eval_strategy": "steps" if validation else "no",
        "eval_steps": often,
        "load_best_model_at_end": bool(validation) and told.patience > 0,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def fitting(told: Recipe, found: Machine, model: Any) -> int:
    """Return the rows of one forward pass that fit the device, at most those of one step and
    dividing them.
    """
    total = model.num_parameters()
    trained = total if told.method == "full" else int(total * told.rank * 0.001)
    parts = found.count if machine.is_sharded() else 1
    bits = {"qlora": 5, "lora": 16, "full": 32}[told.method] / parts
    most = machine.choose_batch_size(found, total, told.length, trained // parts, bits)
    share = max(1, told.rows // found.count)
    return max(n for n in range(1, share + 1) if share % n == 0 and n <= max(1, min(most, share)))


def _listen(
    trainer: Any, told: Recipe, validation: Sequence[Row], tell: Callable[[dict[str, Any]], None]
) -> None:
    from transformers import EarlyStoppingCallback, TrainerCallback

    class Listener(TrainerCallback):
        """Passes on steps and what the trainer logs, and marks a checkpoint when every process has
        written its part.
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

    trainer.add_callback(Listener())
    if validation and told.patience:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=told.patience))


def _checkpoint(work: Path) -> str | None:
    """Return the last checkpoint that was written whole, by every process, or None."""
    held = [
        p
        for p in work.glob("checkpoint-*")
        if (p / WHOLE).is_file() and p.name.rpartition("-")[2].isdigit()
    ]
    return str(max(held, key=lambda p: int(p.name.rpartition("-")[2]))) if held else None


def _judged(job: Job, trainer: Any, validation: Sequence[Row], *, base: bool) -> dict[str, float]:
    """Return what a preference run makes of held-out pairs: `base_*` before it, and after it with
    the distance from the base.
    """
    compares = load_objective(job.recipe.objective).compares
    if not compares or not validation or machine.is_sharded():
        return {}
    part = validation[:HELD_OUT]
    held = trainer.accelerator.unwrap_model(trainer.model)
    found = preference.judged(held, job.tokenizer, part, base=base)
    if base:
        return {f"base_{name}": value for name, value in found.items()}
    side = "chosen" if "chosen" in part[0] else "completion"
    moved = (
        {"kl": preference.drift(held, job.tokenizer, part, side)}
        if job.recipe.method != "full"
        else {}
    )
    return found | moved


def _scores(trainer: Any) -> dict[str, float]:
    """Return the last training loss and the best validation loss, where there was one."""
    logs = trainer.state.log_history
    losses = [entry["loss"] for entry in logs if "loss" in entry]
    checks = [entry["eval_loss"] for entry in logs if "eval_loss" in entry]
    return ({"loss": losses[-1]} if losses else {}) | ({"eval_loss": min(checks)} if checks else {})


def _finish(
    job: Job,
    culture: str,
    trainer: Any,
    partial: Path,
    scores: dict[str, float],
    counts: dict[str, int],
) -> None:
    """Write what stands beside the weights, then move all of it into place."""
    told = job.recipe
    (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle; tune.toml says the same
    curves = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
    (partial / "curves.jsonl").write_text(curves, encoding="utf-8")
    config = partial / "adapter_config.json"
    if config.is_file():  # which base, by the name it was asked for
        config.write_text(
            json.dumps(
                json.loads(config.read_text())
                | {"base_model_name_or_path": base.find_base(told.base)},
                indent=1,
            )
        )
    made = Manifest(
        kind="adapter" if config.is_file() else "model",
        name=culture,
        base=told.base,
        base_hash=base.compute_fingerprint(told.base),
        base_licence=base.read_licence(told.base),
        objective=told.objective,
        corpus=job.corpus.title,
        corpus_hash=job.corpus.hash,
        rows=counts,
        settings=told.model_dump(mode="json", exclude_none=True),
        machine=str(job.machine),
        versions=manifest.list_versions(),
        scores=scores,
        created=manifest.format_now(),
    )
    manifest.write(made, partial)
    target = job.folder / culture
    move(partial, target)
