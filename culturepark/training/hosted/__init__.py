"""Hosted fine-tuning: a corpus goes to a service that speaks OpenAI's protocol, a job a culture,
and tuned models come back.

`plan` says what will be sent and what it will cost, `submit` uploads and starts, `follow` waits,
`cancel` stops. Where each job stands is in `OUT/CULTURE/job.json`, written before and after every
step: a run that was killed goes on with the same call, and nothing is uploaded or started twice. A
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

from culturepark import tables
from culturepark.atomic import write_bytes
from culturepark.errors import InputError, Locked, ParkError, RunFailed
from culturepark.llm.codec import ProviderError
from culturepark.records import Record, digest
from culturepark.secrets import redact
from culturepark.training.hosted.quote import METHODS, Plan, plan
from culturepark.training.hosted.service import ENDED, Job, Order, Service
from culturepark.training.hosted.uploads import Part, hashed

__all__ = [
    "Part",
    "Plan",
    "State",
    "cancel",
    "finished",
    "follow",
    "manifests",
    "pending",
    "plan",
    "states",
    "submit",
    "tune",
]

log = logging.getLogger("culturepark")
T = TypeVar("T")
Tell = Callable[[str, str], None]  # culture, and what befell its job
STATE, MANIFEST, CURVES, LOCK = "job.json", "manifest.json", "curves.csv", "hosted.lock"
POLL, SLOWER, SLOWEST = (
    5.0,
    1.5,
    60.0,
)  # seconds between two looks at a job, how they grow, and to what
GONE = 3  # times in a row that a job is not known any more before it is taken for lost


class State(Record):
    """Where the job of a culture stands. `said` is all that determines it, `key` its hash; `since`
    is when it was asked for.
    """

    culture: str
    key: str
    said: dict[str, Any]
    step: Literal["uploading", "starting", "started"] = "uploading"
    attempt: int = 1
    since: int = 0
    training: str = ""
    validation: str = ""
    job: str = ""
    status: str = ""
    event: str = ""

    @property
    def over(self) -> bool:
        """Whether the job has ended in nothing, so that another may be started."""
        return self.status in ("failed", "cancelled")

    @property
    def placed(self) -> bool:
        """Whether a job may be at the service for which nothing more needs to be paid."""
        return self.step != "uploading" and not self.over


def _silent(culture: str, text: str) -> None:
    """Tell nobody."""


async def tune(
    made: Plan, out: str | Path, tell: Tell = _silent, key: str | None = None
) -> dict[str, dict[str, Any]]:
    """Start every job that has not been and follow all to their ends; return the manifests by
    culture.

    RunFailed names the jobs that failed, in the service's words, when the others have ended.
    """
    place = Path(out)

    async def through(service: Service, part: Part) -> dict[str, Any]:
        await _submitted(service, made, part, place, tell)
        return await _followed(service, made, part, place, tell)

    return await _together(made, place, key, through)


async def submit(
    made: Plan, out: str | Path, tell: Tell = _silent, key: str | None = None
) -> dict[str, State]:
    """Upload the files and start the jobs that have not been; return where all stand, by
    culture.
    """
    place = Path(out)
    return await _together(
        made, place, key, lambda service, part: _submitted(service, made, part, place, tell)
    )


async def follow(
    made: Plan, out: str | Path, tell: Tell = _silent, key: str | None = None
) -> dict[str, dict[str, Any]]:
    """Wait for the jobs that were started, telling each event once; return the manifests by
    culture.
    """
    place = Path(out)
    return await _together(
        made, place, key, lambda service, part: _followed(service, made, part, place, tell)
    )


async def cancel(out: str | Path, key: str | None = None) -> dict[str, str]:
    """Ask the service to stop every job that is under way; return their states by culture, as it
    tells them.
    """
    found = states(out)
    if not found:
        raise InputError(f"no job was ever started in {out}: there is no {STATE} in it")
    return {culture: await _cancelled(state, Path(out), key) for culture, state in found.items()}


async def _cancelled(state: State, out: Path, key: str | None) -> str:
    if state.step == "uploading" or state.status in ENDED:
        return state.status or "never started"
    service = Service(state.said["model"], state.said["base_url"], key)
    try:
        job = await service.job(state.job) if state.job else await service.last(state.key)
        if job is not None and job.status not in ENDED:
            job = await service.cancel(job.id)
    except ProviderError as error:
        raise RunFailed(
            f"{state.culture}: the service does not know {state.job}: {error}"
        ) from None
    finally:
        await service.close()
    if job is None:
        return "never started"
    with _held(out, must=False) as mine:  # else a process that follows it writes this down
        if mine:
            _keep(
                out,
                state.model_copy(update={"step": "started", "job": job.id, "status": job.status}),
            )
    return job.status


def states(out: str | Path) -> dict[str, State]:
    """Return where the jobs of a folder stand, by culture."""
    found = (_state(path.parent) for path in sorted(Path(out).glob(f"*/{STATE}")))
    return {state.culture: state for state in found if state is not None}


def manifests(out: str | Path) -> dict[str, dict[str, Any]]:
    """Return the manifests of the tuned models in a folder, by culture."""
    found = {
        culture: _manifest(Path(out) / culture, state.job) for culture, state in states(out).items()
    }
    return {culture: manifest for culture, manifest in found.items() if manifest is not None}


def pending(made: Plan, out: str | Path) -> tuple[Part, ...]:
    """Return the parts whose job is yet to be started, and paid; InputError where one was started
    otherwise.
    """
    found = states(out)
    for part in made.parts:
        _same(made, part, found.get(part.culture), Path(out))
    return tuple(p for p in made.parts if p.culture not in found or not found[p.culture].placed)


# ----------------------------------------------------------------- one by one


async def _submitted(service: Service, made: Plan, part: Part, out: Path, tell: Tell) -> State:
    """Bring a part's job under way, from wherever it stands."""
    state = _state(out / part.culture)
    if state is None or not state.placed:
        state = await _uploaded(service, made, part, out)
    if state.step == "started":
        return state
    fresh = state.since == 0
    if fresh:
        state = _keep(out, state.model_copy(update={"since": int(time.time())}))
    job = await service.start(_order(made, part, state, service.base), sure=fresh)
    tell(part.culture, f"job {job.id} is {job.status}")
    log.info(
        "%s: fine-tuning job %s", part.culture, job.id, extra={"event": "tune_sent", "job": job.id}
    )
    return _keep(
        out, state.model_copy(update={"step": "started", "job": job.id, "status": job.status})
    )


async def _uploaded(service: Service, made: Plan, part: Part, out: Path) -> State:
    """Return a state that is about to start, or one that is taken over from a job with the same
    data and settings.
    """
    said, data = made.said(part), _read(part)
    key = digest(said | {"base_url": None})
    state = _keep(out, State(culture=part.culture, key=key, said=said))
    last = await service.last(key)
    if last is not None and last.status not in ("failed", "cancelled"):
        log.warning(
            "%s: job %s at the service has the same data and settings and is taken over; another"
            " suffix or seed starts anew",
            part.culture,
            last.id,
            extra={"event": "tune_adopted", "job": last.id},
        )
        return _keep(
            out,
            state.model_copy(update={"step": "started", "attempt": last.attempt, "job": last.id}),
        )
    files = [await service.upload(_name(one), one) for one in data]
    return _keep(
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


def _read(part: Part) -> list[bytes]:
    """Read the files of a part; InputError where they are not what was planned any more."""
    data = [path.read_bytes() for path in (part.train, part.validation) if path is not None]
    if hashed(*data) != part.hash:
        raise InputError(f"{part.train.parent} has changed since the plan was made; plan again")
    return data


def _name(data: bytes) -> str:
    return f"culturepark-{hashed(data)[:40]}.jsonl"


def _order(made: Plan, part: Part, state: State, model: str) -> Order:
    return Order(
        state.key,
        state.attempt,
        model,
        state.training,
        state.validation or None,
        METHODS[made.method],
        made.hyperparameters,
        made.named(part),
        made.seed,
        state.since,
    )


async def _followed(
    service: Service, made: Plan, part: Part, out: Path, tell: Tell
) -> dict[str, Any]:
    """Wait for a part's job; return its manifest, RunFailed with the service's own words where it
    brings none.
    """
    state = _state(out / part.culture)
    if state is None or state.step != "started":
        raise InputError(f"{part.culture}: no job has been started in {out}")
    if (manifest := _manifest(out / part.culture, state.job)) is not None:
        return manifest
    job = await _ended(service, part, state, out, tell)
    if job.status == "succeeded" and job.model:
        return await finished(service, made, part, job, out)
    if job.status == "cancelled":
        raise RunFailed(
            f"{part.culture}: job {job.id} was cancelled; the same command starts another"
        )
    raise RunFailed(
        f"{part.culture}: job {job.id} {job.status}: {job.error or 'the service gives no reason'}"
    )


async def _ended(service: Service, part: Part, state: State, out: Path, tell: Tell) -> Job:
    """Look at a job ever more seldom until it has ended; what befalls it is told once."""
    pause, gone = POLL, 0
    while True:
        try:
            job, gone = await service.job(state.job), 0
        except ProviderError as error:
            gone += 1
            if error.status != 404 or gone >= GONE:
                raise RunFailed(
                    f"{part.culture}: the service does not know job {state.job} any more: {error}"
                ) from None
            await asyncio.sleep(pause)
            continue
        events = await service.events(job.id, state.event)
        moved = bool(events) or job.status != state.status
        if moved:
            last = events[-1].id if events else state.event
            state = _keep(out, state.model_copy(update={"status": job.status, "event": last}))
        for event in events:
            tell(part.culture, event.text)
        if job.status in ENDED:
            return job
        pause = POLL if moved else min(pause * SLOWER, SLOWEST)
        await asyncio.sleep(pause)


async def finished(service: Service, made: Plan, part: Part, job: Job, out: Path) -> dict[str, Any]:
    """Fetch a job's curves and write its manifest, last; return the manifest."""
    folder = out / part.culture
    try:
        for file in job.results[:1]:
            write_bytes(
                folder / CURVES, tables.safe_table(await service.read(file))
            )  # a spreadsheet may open it
    except ProviderError as error:
        log.warning(
            "%s: no curves: %s",
            part.culture,
            error,
            extra={"event": "tune_no_curves", "job": job.id},
        )
    when = datetime.fromtimestamp(job.finished, UTC) if job.finished else datetime.now(UTC)
    manifest = {
        "kind": "hosted",
        "model": job.model,
        "base": made.model,
        "base_url": made.base_url,
        "method": made.method,
        "corpus_hash": part.hash,
        "rows": {"train": part.rows, "validation": part.checked},
        "trained_tokens": job.tokens,
        "hyperparameters": dict(job.hyperparameters) or dict(made.hyperparameters),
        "job": job.id,
        "created": when.isoformat(timespec="seconds"),
        "usd_estimate": made.cost(part),
    }
    write_bytes(folder / MANIFEST, _json(manifest))
    return manifest


# ------------------------------------------------------------------- together


async def _together(
    made: Plan, out: Path, key: str | None, work: Callable[[Service, Part], Awaitable[T]]
) -> dict[str, T]:
    """Work on every part at once; what befalls one leaves the others alone and is raised when all
    have ended.
    """
    service = Service(made.model, made.base_url, key)
    try:
        with _held(out):
            pending(made, out)  # refuses what was started otherwise, before anything is sent
            done = await asyncio.gather(
                *(work(service, part) for part in made.parts), return_exceptions=True
            )
    finally:
        await service.close()
    _raise([(p, d) for p, d in zip(made.parts, done, strict=True) if isinstance(d, BaseException)])
    return {
        p.culture: d
        for p, d in zip(made.parts, done, strict=True)
        if not isinstance(d, BaseException)
    }


def _raise(failed: Sequence[tuple[Part, BaseException]]) -> None:
    """Raise what befell the parts: what is no failure of a job as it is, else all of them as
    one.
    """
    for _, error in failed:
        if not isinstance(error, (RunFailed, ProviderError)):
            raise error
    if failed:
        said = [
            str(e) if str(e).startswith(f"{p.culture}: ") else f"{p.culture}: {e}"
            for p, e in failed
        ]
        raise RunFailed("\n".join(redact(text) for text in said))


@contextmanager
def _held(out: Path, *, must: bool = True) -> Iterator[bool]:
    """Keep other processes from this folder; Locked where one is at work, False instead if it need
    not be ours.
    """
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(out / LOCK), blocking=False)
        lock.acquire()
    except Timeout:
        if must:
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


def _same(made: Plan, part: Part, state: State | None, out: Path) -> None:
    """Refuse to go on with a job that was started otherwise."""
    if state is None or not state.placed:
        return
    said = made.said(part)
    changed = [name for name, value in said.items() if state.said.get(name) != value]
    if changed:
        told = "; ".join(
            f"{name} was {state.said.get(name)!r}, is {said[name]!r}" for name in changed
        )
        raise InputError(
            f"{out / part.culture} was tuned otherwise: {told}. Give what it was started with to go"
            " on with it, or another --name to start anew."
        )


def _state(folder: Path) -> State | None:
    """Return where a job stands; None where there is none."""
    path = folder / STATE
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ParkError(
            f"{path} cannot be read: {error}. The job it speaks of may be at the service: look"
            " there before you remove it."
        ) from error


def _keep(out: Path, state: State) -> State:
    """Write down where a job stands, and return that."""
    write_bytes(out / state.culture / STATE, _json(state.model_dump(mode="json")))
    return state


def _manifest(folder: Path, job: str) -> dict[str, Any] | None:
    """Return the manifest of a job; None where it has not been written."""
    from orjson import loads

    try:
        found = loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    return found if isinstance(found, dict) and found.get("job") == job else None


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"
