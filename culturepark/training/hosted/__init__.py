"""Hosted fine-tuning: a corpus goes to a service that speaks OpenAI's protocol, one job per
culture, and tuned models come back.

`plan` returns what will be sent and what it will cost, `submit` uploads and starts, `follow` waits,
`cancel` stops. `OUT/CULTURE/job.json` holds the state of each job, written before and after every
step: the same call continues a run that was killed, and nothing is uploaded or started twice. A
tuned model is a `manifest.json` beside it, written last, and the service's `curves.csv`.

OpenAI's own service is closed to new users and takes no job after 2027-01-06, and a model tuned
there ends with its base; other services speak the protocol.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, Field

from culturepark import tables
from culturepark.atomic import write_bytes
from culturepark.errors import InputError, Locked, ParkError, RunFailed
from culturepark.keys import redact
from culturepark.llm.codec import ProviderError
from culturepark.records import Record, digest
from culturepark.training.hosted.quote import METHODS, Plan, plan
from culturepark.training.hosted.service import ENDED, HostedJob, JobRequest, Service
from culturepark.training.hosted.uploads import Part, hash_files

__all__ = [
    "Part",
    "Plan",
    "State",
    "cancel",
    "follow",
    "list_pending",
    "plan",
    "read_manifests",
    "read_states",
    "save_result",
    "submit",
    "tune",
]

log = logging.getLogger("culturepark")
T = TypeVar("T")
Tell = Callable[[str, str], None]  # takes a culture and an event of its job
STATE, MANIFEST, CURVES, LOCK = "job.json", "manifest.json", "curves.csv", "hosted.lock"
POLL, SLOWER, SLOWEST = 5.0, 1.5, 60.0  # seconds between two requests, their growth, their maximum
GONE = 3  # requests in a row that find no job before it counts as lost


class State(Record):
    """The state of a culture's job. `settings` determine it, `key` is their hash; `since` is when
    the job was first requested (Unix seconds). Files of earlier versions call the settings `said`.
    """

    culture: str
    key: str
    settings: dict[str, Any] = Field(validation_alias=AliasChoices("settings", "said"))
    step: Literal["uploading", "starting", "started"] = "uploading"
    attempt: int = 1
    since: int = 0
    training: str = ""
    validation: str = ""
    job: str = ""
    status: str = ""
    event: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether the job ended without a model, so that another may be started."""
        return self.status in ("failed", "cancelled")

    @property
    def is_paid(self) -> bool:
        """Whether the service may hold a job that has not failed, so that no other is paid for."""
        return self.step != "uploading" and not self.has_failed


def _ignore(culture: str, text: str) -> None:
    """Ignore an event."""


async def tune(
    plan: Plan, out: str | Path, tell: Tell = _ignore, key: str | None = None
) -> dict[str, dict[str, Any]]:
    """Start every job that has not been started and wait for all; return the manifests by culture.

    When all jobs have ended, raises RunFailed with those that failed, in the service's words.
    """
    place = Path(out)

    async def submit_and_follow(service: Service, part: Part) -> dict[str, Any]:
        await _submit_job(service, plan, part, place, tell)
        return await _follow_job(service, plan, part, place, tell)

    return await _run_jobs(plan, place, key, submit_and_follow)


async def submit(
    plan: Plan, out: str | Path, tell: Tell = _ignore, key: str | None = None
) -> dict[str, State]:
    """Upload the files and start the jobs that have not been started; return all states, by
    culture.
    """
    place = Path(out)
    return await _run_jobs(
        plan, place, key, lambda service, part: _submit_job(service, plan, part, place, tell)
    )


async def follow(
    plan: Plan, out: str | Path, tell: Tell = _ignore, key: str | None = None
) -> dict[str, dict[str, Any]]:
    """Wait for the jobs that were started, passing each event to `tell` once; return the manifests
    by culture.
    """
    place = Path(out)
    return await _run_jobs(
        plan, place, key, lambda service, part: _follow_job(service, plan, part, place, tell)
    )


async def cancel(out: str | Path, key: str | None = None) -> dict[str, str]:
    """Ask the service to stop every running job; return the statuses that it reports,
    by culture.
    """
    states = read_states(out)
    if not states:
        raise InputError(f"no job was ever started in {out}: there is no {STATE} in it")
    return {culture: await _cancel_job(state, Path(out), key) for culture, state in states.items()}


async def _cancel_job(state: State, out: Path, key: str | None) -> str:
    if state.step == "uploading" or state.status in ENDED:
        return state.status or "never started"
    service = Service(state.settings["model"], state.settings["base_url"], key)
    try:
        job = (
            await service.get_job(state.job)
            if state.job
            else await service.find_last_job(state.key)
        )
        if job is not None and job.status not in ENDED:
            job = await service.cancel_job(job.id)
    except ProviderError as error:
        raise RunFailed(
            f"{state.culture}: the service does not know {state.job}: {error}"
        ) from None
    finally:
        await service.close()
    if job is None:
        return "never started"
    with _lock_folder(
        out, required=False
    ) as locked:  # else a process that follows it writes this down
        if locked:
            _write_state(
                out,
                state.model_copy(update={"step": "started", "job": job.id, "status": job.status}),
            )
    return job.status


def read_states(out: str | Path) -> dict[str, State]:
    """Return the states of the jobs in a folder, by culture."""
    states = (_read_state(path.parent) for path in sorted(Path(out).glob(f"*/{STATE}")))
    return {state.culture: state for state in states if state is not None}


def read_manifests(out: str | Path) -> dict[str, dict[str, Any]]:
    """Return the manifests of the tuned models in a folder, by culture."""
    by_culture = {
        culture: _read_manifest(Path(out) / culture, state.job)
        for culture, state in read_states(out).items()
    }
    return {culture: manifest for culture, manifest in by_culture.items() if manifest is not None}


def list_pending(plan: Plan, out: str | Path) -> tuple[Part, ...]:
    """Return the parts whose job is yet to be started and paid for.

    Raises InputError for a job that was started with other settings.
    """
    states = read_states(out)
    for part in plan.parts:
        _check_settings(plan, part, states.get(part.culture), Path(out))
    return tuple(p for p in plan.parts if p.culture not in states or not states[p.culture].is_paid)


# ----------------------------------------------------------------- one by one


async def _submit_job(service: Service, plan: Plan, part: Part, out: Path, tell: Tell) -> State:
    """Upload a part's files and start its job, as far as that has not been done."""
    state = _read_state(out / part.culture)
    if state is None or not state.is_paid:
        state = await _upload_files(service, plan, part, out)
    if state.step == "started":
        return state
    fresh = state.since == 0
    if fresh:
        state = _write_state(out, state.model_copy(update={"since": int(time.time())}))
    job = await service.start_job(_build_request(plan, part, state, service.base), sure=fresh)
    tell(part.culture, f"job {job.id} is {job.status}")
    log.info(
        "%s: fine-tuning job %s", part.culture, job.id, extra={"event": "tune_sent", "job": job.id}
    )
    return _write_state(
        out, state.model_copy(update={"step": "started", "job": job.id, "status": job.status})
    )


async def _upload_files(service: Service, plan: Plan, part: Part, out: Path) -> State:
    """Upload a part's files and return the state, or that of a job with the same data
    and settings.
    """
    settings, data = plan.build_settings(part), _read_files(part)
    key = digest(settings | {"base_url": None})
    state = _write_state(out, State(culture=part.culture, key=key, settings=settings))
    last = await service.find_last_job(key)
    if last is not None and last.status not in ("failed", "cancelled"):
        log.warning(
            "%s: job %s at the service has the same data and settings and is taken over; another"
            " suffix or seed starts anew",
            part.culture,
            last.id,
            extra={"event": "tune_adopted", "job": last.id},
        )
        return _write_state(
            out,
            state.model_copy(update={"step": "started", "attempt": last.attempt, "job": last.id}),
        )
    files = [await service.upload_file(_build_file_name(content), content) for content in data]
    return _write_state(
        out,
        state.model_copy(
            update={
                "step": "starting",
                "attempt": last.attempt + 1 if last else 1,
                "training": files[0],
                "validation": files[1] if len(files) > 1 else "",
            }
        ),
    )


def _read_files(part: Part) -> list[bytes]:
    """Read the files of a part; raises InputError if they have changed since the plan."""
    data = [path.read_bytes() for path in (part.train, part.validation) if path is not None]
    if hash_files(*data) != part.hash:
        raise InputError(f"{part.train.parent} has changed since the plan was made; plan again")
    return data


def _build_file_name(data: bytes) -> str:
    return f"culturepark-{hash_files(data)[:40]}.jsonl"


def _build_request(plan: Plan, part: Part, state: State, model: str) -> JobRequest:
    return JobRequest(
        state.key,
        state.attempt,
        model,
        state.training,
        state.validation or None,
        METHODS[plan.method],
        plan.hyperparameters,
        plan.build_suffix(part),
        plan.seed,
        state.since,
    )


async def _follow_job(
    service: Service, plan: Plan, part: Part, out: Path, tell: Tell
) -> dict[str, Any]:
    """Wait for a part's job and return its manifest.

    Raises RunFailed, with the service's own words, for a job that brings no model.
    """
    state = _read_state(out / part.culture)
    if state is None or state.step != "started":
        raise InputError(f"{part.culture}: no job has been started in {out}")
    if (manifest := _read_manifest(out / part.culture, state.job)) is not None:
        return manifest
    job = await _wait_for_end(service, part, state, out, tell)
    if job.status == "succeeded" and job.model:
        return await save_result(service, plan, part, job, out)
    if job.status == "cancelled":
        raise RunFailed(
            f"{part.culture}: job {job.id} was cancelled; the same command starts another"
        )
    raise RunFailed(
        f"{part.culture}: job {job.id} {job.status}: {job.error or 'the service gives no reason'}"
    )


async def _wait_for_end(
    service: Service, part: Part, state: State, out: Path, tell: Tell
) -> HostedJob:
    """Poll a job, less and less often, until it has ended; pass each of its events to `tell`."""
    pause, missing = POLL, 0
    while True:
        try:
            job, missing = await service.get_job(state.job), 0
        except ProviderError as error:
            missing += 1
            if error.status != 404 or missing >= GONE:
                raise RunFailed(
                    f"{part.culture}: the service does not know job {state.job} any more: {error}"
                ) from None
            await asyncio.sleep(pause)
            continue
        events = await service.list_events(job.id, state.event)
        changed = bool(events) or job.status != state.status
        if changed:
            last = events[-1].id if events else state.event
            state = _write_state(
                out, state.model_copy(update={"status": job.status, "event": last})
            )
        for event in events:
            tell(part.culture, event.text)
        if job.status in ENDED:
            return job
        pause = POLL if changed else min(pause * SLOWER, SLOWEST)
        await asyncio.sleep(pause)


async def save_result(
    service: Service, plan: Plan, part: Part, job: HostedJob, out: Path
) -> dict[str, Any]:
    """Fetch a job's curves and write its manifest, last; return the manifest."""
    folder = out / part.culture
    try:
        for file in job.results[:1]:
            # made safe: a spreadsheet may open it
            write_bytes(folder / CURVES, tables.safe_table(await service.read_file(file)))
    except ProviderError as error:
        log.warning(
            "%s: no curves: %s",
            part.culture,
            error,
            extra={"event": "tune_no_curves", "job": job.id},
        )
    when = datetime.fromtimestamp(job.finished_at, UTC) if job.finished_at else datetime.now(UTC)
    manifest = {
        "kind": "hosted",
        "model": job.model,
        "base": plan.model,
        "base_url": plan.base_url,
        "method": plan.method,
        "corpus_hash": part.hash,
        "rows": {"train": part.rows, "validation": part.validation_rows},
        "trained_tokens": job.tokens,
        "hyperparameters": dict(job.hyperparameters) or dict(plan.hyperparameters),
        "job": job.id,
        "created": when.isoformat(timespec="seconds"),
        "usd_estimate": plan.estimate_usd(part),
    }
    write_bytes(folder / MANIFEST, _format_json(manifest))
    return manifest


# ------------------------------------------------------------------- together


async def _run_jobs(
    plan: Plan, out: Path, key: str | None, work: Callable[[Service, Part], Awaitable[T]]
) -> dict[str, T]:
    """Work on every part at once; a failure of one leaves the others alone and is raised at the
    end.
    """
    service = Service(plan.model, plan.base_url, key)
    try:
        with _lock_folder(out):
            list_pending(plan, out)  # refuses other settings before anything is sent
            outcomes = await asyncio.gather(
                *(work(service, part) for part in plan.parts), return_exceptions=True
            )
    finally:
        await service.close()
    _raise_failures(
        [(p, d) for p, d in zip(plan.parts, outcomes, strict=True) if isinstance(d, BaseException)]
    )
    return {
        p.culture: d
        for p, d in zip(plan.parts, outcomes, strict=True)
        if not isinstance(d, BaseException)
    }


def _raise_failures(failures: Sequence[tuple[Part, BaseException]]) -> None:
    """Raise the first error that is not a job's failure, else all failures as one RunFailed."""
    for _, error in failures:
        if not isinstance(error, (RunFailed, ProviderError)):
            raise error
    if failures:
        messages = [
            str(e) if str(e).startswith(f"{p.culture}: ") else f"{p.culture}: {e}"
            for p, e in failures
        ]
        raise RunFailed("\n".join(redact(text) for text in messages))


@contextmanager
def _lock_folder(out: Path, *, required: bool = True) -> Iterator[bool]:
    """Lock a folder against other processes.

    If another process holds the lock, yields False or, if it is `required`, raises Locked.
    """
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(out / LOCK), blocking=False)
        lock.acquire()
    except Timeout:
        if required:
            raise Locked(
                f"{out} is being written by another process; wait for it, or give --name another"
            ) from None
        yield False
        return
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error
    try:
        yield True
    finally:
        lock.release()


# ---------------------------------------------------------------------- files


def _check_settings(plan: Plan, part: Part, state: State | None, out: Path) -> None:
    """Raise InputError for a job that was started with other settings."""
    if state is None or not state.is_paid:
        return
    settings = plan.build_settings(part)
    changed = [name for name, value in settings.items() if state.settings.get(name) != value]
    if changed:
        differences = "; ".join(
            f"{name} was {state.settings.get(name)!r}, is {settings[name]!r}" for name in changed
        )
        raise InputError(
            f"{out / part.culture} was started with other settings: {differences}. Give the same"
            " settings to continue it, or another --name to start anew."
        )


def _read_state(folder: Path) -> State | None:
    """Return the state of a job; None if none was started."""
    path = folder / STATE
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ParkError(
            f"{path} cannot be read: {error}. The service may hold its job: look there before you"
            " remove the file."
        ) from error


def _write_state(out: Path, state: State) -> State:
    """Write the state of a job, and return it."""
    write_bytes(out / state.culture / STATE, _format_json(state.model_dump(mode="json")))
    return state


def _read_manifest(folder: Path, job: str) -> dict[str, Any] | None:
    """Return the manifest of a job; None if it has not been written."""
    from orjson import loads

    try:
        manifest = loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("job") == job else None


def _format_json(value: Any) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"
