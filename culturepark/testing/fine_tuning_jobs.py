"""Fine-tuning jobs, in memory, under OpenAI's names: files are checked as the service does, and
nothing is trained.

A job goes through all the states of a real one; its losses, accuracies and checkpoints are made up,
and its events say so. The tuned model that it ends in is served like any other here, and answers as
its base does.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from culturepark.serving.problems import Problem, invalid_body, invalid_value, missing_parameter
from culturepark.testing.batch_jobs import StartTask
from culturepark.testing.file_store import FileStore, build_page
from culturepark.testing.model_double import ModelDouble
from culturepark.testing.training_files import (
    MADE_UP,
    InvalidFile,
    TrainingFile,
    invent_figures,
    read_training_file,
    spread_steps,
    write_results,
)

ENDED = ("succeeded", "failed", "cancelled")
METHODS = ("supervised", "dpo")
RANGES = {
    "n_epochs": (1, 50),
    "batch_size": (1, 256),
    "learning_rate_multiplier": (0, 100),
    "beta": (0, 2),
}
WHOLE = ("n_epochs", "batch_size")
AUTO = {
    "n_epochs": 3,
    "batch_size": 1,
    "learning_rate_multiplier": 1.8,
    "beta": 0.1,
}  # what `auto` comes to here
SUFFIX = re.compile(r"[A-Za-z0-9_-]{0,64}")
PAIRS, NAME, VALUE = 16, 64, 512  # pairs of metadata, and characters of their parts
EVENTS = 20  # steps of a job that are told as events, at most
KEPT = 3  # last epochs of which a checkpoint is kept


class FineTuningJobs:
    """The fine-tuning jobs of one server. A job takes `seconds` from its making to its end;
    `start_task` works in the background.
    """

    def __init__(
        self, model: ModelDouble, files: FileStore, seconds: float, start_task: StartTask
    ) -> None:
        self._model, self._files, self._seconds = model, files, seconds
        self._start_task = start_task
        self._jobs: dict[str, dict[str, Any]] = {}
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._checkpoints: dict[str, list[dict[str, Any]]] = {}
        self._suffixes: dict[str, str] = {}

    # -------------------------------------------------------------- asking

    def get_job(self, name: str) -> dict[str, Any]:
        """Return a job; Problem 404 where there is none."""
        if name not in self._jobs:
            raise Problem(
                404,
                f"Could not find fine tune: {name}",
                code="fine_tune_not_found",
                param="fine_tune_id",
            )
        return self._jobs[name]

    def list_jobs(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the list of jobs, the newest first; `metadata[KEY]`, `after` and `limit`
        choose.
        """
        wanted = {
            k[len("metadata[") : -1]: v for k, v in query.items() if k.startswith("metadata[")
        }
        found = [
            dict(j)
            for j in reversed(self._jobs.values())
            if wanted.items() <= (j["metadata"] or {}).items()
        ]
        return build_page(found, query, 20)

    def list_events(self, name: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return what befell a job, the newest first."""
        self.get_job(name)
        return build_page(reversed(self._events[name]), query, 20)

    def list_checkpoints(self, name: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a job's checkpoints, the newest first."""
        self.get_job(name)
        return build_page(reversed(self._checkpoints[name]), query, 10)

    def cancel_job(self, name: str) -> dict[str, Any]:
        """Stop a job."""
        job = self.get_job(name)
        if job["status"] in ENDED:
            raise Problem(
                400, f"Job has already completed: {job['status']}.", code="invalid_status"
            )
        self._end_job(job, "cancelled", "The job was cancelled.", "warn")
        return dict(job)

    def create_job(self, body: Any) -> dict[str, Any]:
        """Start a job and return it as it stands; Problem for a parameter that cannot be."""
        if not isinstance(body, dict):
            raise invalid_body()
        model = body.get("model")
        if model not in self._model.models:
            raise Problem(
                400,
                f"Model {model!r} is not available for fine-tuning or does not exist; there are: "
                f"{', '.join(self._model.models)}.",
                code="model_not_available",
                param="model",
            )
        kind, asked = _read_method(body)
        self._check_file(body, "training_file", needed=True)
        self._check_file(body, "validation_file")
        suffix, metadata, seed = _read_suffix(body), _read_metadata(body), _read_seed(body)
        name = self._files.create_id("ftjob-")
        job = {
            "id": name,
            "object": "fine_tuning.job",
            "created_at": int(time.time()),
            "error": None,
            "estimated_finish": None,
            "fine_tuned_model": None,
            "finished_at": None,
            "hyperparameters": asked,
            "integrations": [],
            "metadata": metadata,
            "method": {"type": kind, kind: {"hyperparameters": asked}},
            "model": model,
            "organization_id": "org-culturepark",
            "result_files": [],
            "seed": seed,
            "status": "validating_files",
            "trained_tokens": None,
            "training_file": body["training_file"],
            "user_provided_suffix": suffix or None,
            "validation_file": body.get("validation_file"),
        }
        self._jobs[name], self._events[name], self._checkpoints[name] = job, [], []
        self._suffixes[name] = suffix
        self._add_event(job, f"Created fine-tuning job: {name}")
        self._start_task(self._run_job(job))
        return dict(job)

    def _check_file(self, body: Mapping[str, Any], param: str, *, needed: bool = False) -> None:
        """Refuse a file that is not there or was not uploaded for this."""
        name = body.get(param)
        if name is None and not needed:
            return
        if not isinstance(name, str):
            raise missing_parameter(param)
        try:
            stored = self._files.get_file(name)
        except Problem:
            raise Problem(
                400, f"invalid {param}: {name}", code="invalid_file_id", param=param
            ) from None
        if stored.purpose != "fine-tune":
            raise Problem(
                400,
                f"File {name} has the purpose {stored.purpose!r}, not 'fine-tune'.",
                param=param,
            )

    # ------------------------------------------------------------- working

    async def _run_job(self, job: dict[str, Any]) -> None:
        """Take a job through its states; one that was cancelled meanwhile stays as it is."""
        self._add_event(job, f"Validating training file: {job['training_file']}")
        await asyncio.sleep(self._seconds / 10)
        try:
            found, checked = await asyncio.to_thread(self._read_files, job)
        except InvalidFile as error:
            self._fail_job(job, error)
            return
        if not self._move(job, "queued", "Files validated, moving job to queued state"):
            return
        await asyncio.sleep(self._seconds / 10)
        if not self._move(job, "running", f"Fine-tuning job started (its figures are {MADE_UP})"):
            return
        hyperparameters = _resolve_hyperparameters(job)
        steps = (
            max(1, math.ceil(found.rows / hyperparameters["batch_size"]))
            * hyperparameters["n_epochs"]
        )
        job["estimated_finish"] = int(time.time() + 0.8 * self._seconds)
        if await self._pass_steps(job, steps, checked):
            job["trained_tokens"] = found.tokens * hyperparameters["n_epochs"]
            self._finish_job(job, steps, checked)

    def _read_files(self, job: Mapping[str, Any]) -> tuple[TrainingFile, bool]:
        """Return what the training file holds, and whether there is one to validate with;
        InvalidFile for a bad or lost one.
        """
        kind = job["method"]["type"]
        try:
            found = read_training_file(self._files.get_file(job["training_file"]).data, kind)
            if job["validation_file"]:
                read_training_file(
                    self._files.get_file(job["validation_file"]).data, kind, "validation"
                )
        except Problem as problem:
            raise InvalidFile("file_not_found", problem.message) from None
        return found, job["validation_file"] is not None

    def _fail_job(self, job: dict[str, Any], error: InvalidFile) -> None:
        if job["status"] not in ENDED:
            param = "validation_file" if "validation" in error.code else "training_file"
            job["error"] = {"code": error.code, "message": error.message, "param": param}
            self._end_job(job, "failed", error.message, "error")

    async def _pass_steps(self, job: dict[str, Any], steps: int, checked: bool) -> bool:
        """Let the job's time pass and tell of its steps; False where it was cancelled."""
        shown = spread_steps(steps, EVENTS)
        for step in shown:
            await asyncio.sleep(0.8 * self._seconds / len(shown))
            if job["status"] != "running":
                return False
            found = invent_figures(step, steps, checked)
            self._add_event(
                job,
                f"Step {step}/{steps}: training loss={found['train_loss']:.2f} ({MADE_UP})",
                data={"step": step, "total_steps": steps, **found},
                kind="metrics",
            )
        return True

    def _finish_job(self, job: dict[str, Any], steps: int, checked: bool) -> None:
        name = job["id"]
        model = f"ft:{job['model']}:org:{self._suffixes[name]}:{name.removeprefix('ftjob-')}"
        epochs = job["hyperparameters"]["n_epochs"]
        for epoch in range(max(1, epochs - KEPT + 1), epochs + 1):
            step = steps * epoch // epochs
            self._add_checkpoint(
                job, model if step == steps else f"{model}:ckpt-step-{step}", step, steps, checked
            )
        file = self._files.add_file(
            "step_metrics.csv", "fine-tune-results", write_results(steps, checked)
        )
        job.update(fine_tuned_model=model, result_files=[file["id"]])
        self._add_event(job, f"New fine-tuned model created: {model}")
        self._end_job(job, "succeeded", "The job has successfully completed", "info")

    def _add_checkpoint(
        self, job: Mapping[str, Any], model: str, step: int, steps: int, checked: bool
    ) -> None:
        """Keep a checkpoint, and serve it."""
        found = invent_figures(step, steps, checked)
        metrics = {
            "step": step,
            "train_loss": found["train_loss"],
            "valid_loss": found["valid_loss"],
            "train_mean_token_accuracy": found["train_accuracy"],
            "full_valid_loss": found["valid_loss"],
            "valid_mean_token_accuracy": found["valid_mean_token_accuracy"],
            "full_valid_mean_token_accuracy": found["valid_mean_token_accuracy"],
        }
        self._checkpoints[job["id"]].append(
            {
                "id": self._files.create_id("ftckpt_"),
                "object": "fine_tuning.job.checkpoint",
                "created_at": int(time.time()),
                "fine_tuned_model_checkpoint": model,
                "fine_tuning_job_id": job["id"],
                "metrics": metrics,
                "step_number": step,
            }
        )
        self._model.add_model(model)

    def _move(self, job: dict[str, Any], status: str, message: str) -> bool:
        """Move a job on; False where it has ended."""
        if job["status"] in ENDED:
            return False
        job["status"] = status
        self._add_event(job, message)
        return True

    def _end_job(self, job: dict[str, Any], status: str, message: str, level: str) -> None:
        job.update(status=status, estimated_finish=None, finished_at=int(time.time()))
        self._add_event(job, message, level=level)

    def _add_event(
        self,
        job: Mapping[str, Any],
        message: str,
        *,
        level: str = "info",
        data: Any = None,
        kind: str = "message",
    ) -> None:
        self._events[job["id"]].append(
            {
                "id": self._files.create_id("ftevent-"),
                "object": "fine_tuning.job.event",
                "created_at": int(time.time()),
                "level": level,
                "message": message,
                "type": kind,
                "data": data or {},
            }
        )


def _resolve_hyperparameters(job: dict[str, Any]) -> dict[str, Any]:
    """Settle what was left to the service, and return the hyperparameters."""
    kind, asked = job["method"]["type"], job["hyperparameters"]
    job["hyperparameters"] = {
        name: AUTO[name] if value == "auto" else value for name, value in asked.items()
    }
    job["method"] = {"type": kind, kind: {"hyperparameters": job["hyperparameters"]}}
    return dict(job["hyperparameters"])


# ------------------------------------------------------------- what is asked


def _read_method(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a job's method and hyperparameters, from `method` or the older `hyperparameters`;
    Problem where they cannot be.
    """
    older = {"type": "supervised", "supervised": {"hyperparameters": body.get("hyperparameters")}}
    method = body.get("method") or older
    kind = method.get("type") if isinstance(method, dict) else None
    if kind not in METHODS:
        raise invalid_value("method.type", f"this server has {' and '.join(METHODS)}")
    how = method.get(kind) or {}
    given = (how.get("hyperparameters") or {}) if isinstance(how, dict) else how
    if not isinstance(given, dict):
        raise invalid_value(f"method.{kind}.hyperparameters", "expected an object")
    known = [name for name in RANGES if name != "beta" or kind == "dpo"]
    for name, value in given.items():
        at = f"method.{kind}.hyperparameters.{name}"
        if name not in known:
            raise invalid_value(at, f"there are {', '.join(known)}")
        if value != "auto":
            _check_range(at, value, name)
    return kind, {name: given.get(name, "auto") for name in known}


def _check_range(at: str, value: Any, name: str) -> None:
    """Refuse a number that cannot be."""
    least, most = RANGES[name]
    number = isinstance(value, int if name in WHOLE else (int, float)) and not isinstance(
        value, bool
    )
    if not number or not least <= value <= most:
        raise invalid_value(
            at,
            f"expected 'auto' or a{' whole' if name in WHOLE else ''} number from {least} to"
            f" {most}",
        )


def _read_suffix(body: Mapping[str, Any]) -> str:
    suffix = body.get("suffix") or ""
    if not isinstance(suffix, str) or not SUFFIX.fullmatch(suffix):
        raise invalid_value("suffix", "expected at most 64 letters, digits, '-' and '_'")
    return suffix


def _read_metadata(body: Mapping[str, Any]) -> dict[str, str] | None:
    found = body.get("metadata")
    if found is None:
        return None
    sound = (
        isinstance(found, dict)
        and len(found) <= PAIRS
        and all(isinstance(v, str) and len(k) <= NAME and len(v) <= VALUE for k, v in found.items())
    )
    if not sound:
        raise invalid_value(
            "metadata",
            f"expected at most {PAIRS} pairs of texts, names up to {NAME} and values up to {VALUE}"
            " long",
        )
    return dict(found)


def _read_seed(body: Mapping[str, Any]) -> int:
    seed = body.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise invalid_value("seed", "expected a whole number")
    return 0 if seed is None else seed
