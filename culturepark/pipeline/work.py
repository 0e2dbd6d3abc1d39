"""Simulate and refine as one: what failed is tried again, and batches of dialogues are held until
there are as many samples as are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from culturepark import logs
from culturepark.corpora.build import build
from culturepark.dialogue import casting
from culturepark.dialogue.simulate import plan
from culturepark.errors import ParkError, RunFailed
from culturepark.events import OnEvent, RunStarted
from culturepark.executor import pool
from culturepark.llm.session import Session
from culturepark.pipeline.sizes import Yield, size_batch
from culturepark.pipeline.stages import hold_dialogues, refine_dialogues
from culturepark.records import Scene
from culturepark.reports.facts import gather_failures
from culturepark.runs import Run
from culturepark.store import RunStore
from culturepark.store.counts import (
    count_all,
    count_all_unrefined,
    count_dropped,
    count_held,
    count_kept,
    count_refined,
    count_unrefined,
)
from culturepark.store.queries import iterate_unrefined

Plan = Mapping[str, range]  # culture → ordinals of its dialogues
Stage = Callable[[Run, Session, Iterable[Scene], int, OnEvent], Coroutine[Any, Any, None]]
BATCHES = 50  # rounds of simulate and refine after which a run that still lacks samples is given up


@dataclass(frozen=True)
class Pipeline:
    """The stages of one run: whom they ask and write to, and who hears what happens."""

    run: Run
    session: Session
    on_event: OnEvent

    @property
    def store(self) -> RunStore:
        """Where the run is kept."""
        return self.session.store

    @property
    def cultures(self) -> tuple[str, ...]:
        """The cultures that the run is about."""
        return casting.cultures(self.run.workspace, self.run.settings)

    def plan_first(self, dialogues: int) -> Plan:
        """Return the first dialogues of every culture."""
        return dict.fromkeys(self.cultures, range(dialogues))

    def do(self, task: Coroutine[Any, Any, None]) -> None:
        """Run one task to its end; then the log and the models' connections are closed, whatever
        the end is.
        """
        self.on_event(RunStarted(self.run.folder))
        with logs.keep_log(self.run.folder), pool.pause_garbage_collection():
            try:
                pool.run_loop(self._guard(task))
            except ParkError as error:
                event = {"event": "stopped", "error": type(error).__name__}
                logs.log.info("%s", error, extra=event)
                raise

    async def _guard(self, task: Coroutine[Any, Any, None]) -> None:
        with self.store.guard():
            async with self.session:
                await task

    async def make_corpus(self) -> None:
        """Hold and refine all dialogues, or as many as give the wanted samples, and build the
        corpus.
        """
        if self.run.settings.samples is None:
            await self.hold_and_refine(self.plan_first(self.run.settings.dialogues))
        else:
            await self.hold_until(self.run.settings.samples)
        samples = build(self.run.workspace, self.run.settings, self.store)
        if not sum(samples.values()):
            raise RunFailed(f"no opinion was kept: {explain_lack(self.store)}")

    async def hold_until(self, wanted: int) -> None:
        """Hold and refine dialogues, one batch after another, until every culture has as many kept
        opinions as are wanted.

        A batch's size follows from what the dialogues before it gave, so a run that was killed goes
        on with the same batches. RunFailed names the cultures that cannot get there, and why.
        """
        pilot, most = self.run.settings.dialogues, self.run.settings.refine.clusters
        yields = {culture: Yield() for culture in self.cultures}
        for _ in range(BATCHES):
            lacking = {c: y for c, y in yields.items() if y.kept < wanted}
            sizes = {c: size_batch(wanted, y, pilot, most) for c, y in lacking.items()}
            if not sizes:
                return
            if not all(sizes.values()):
                raise self._too_few(wanted, {c: y for c, y in lacking.items() if not sizes[c]})
            ends = {c: yields[c].dialogues + size for c, size in sizes.items()}
            await self.hold_and_refine({c: range(yields[c].dialogues, n) for c, n in ends.items()})
            for c, n in ends.items():
                yields[c] = yields[c].add_batch(sizes[c], count_kept(self.store, c, n))
        if lacking := {c: y for c, y in yields.items() if y.kept < wanted}:
            raise self._too_few(wanted, lacking)

    async def hold_and_refine(self, plan: Plan) -> None:
        """Hold and refine the planned dialogues."""
        await self.hold(plan)
        await self._try_twice(
            refine_dialogues,
            lambda: self._scenes(plan),
            lambda: self._count(count_unrefined, plan),
        )
        self._require_refined()

    async def hold(self, plan: Plan) -> None:
        """Hold the planned dialogues; RunFailed if none of the run's dialogues is held then."""
        await self._try_twice(
            hold_dialogues, lambda: self._scenes(plan), lambda: self._count_ahead(plan)
        )
        self._require_held()

    async def refine_held(self) -> None:
        """Refine every dialogue that is held and not yet refined."""
        self._require_held()
        await self._try_twice(
            refine_dialogues,
            lambda: iterate_unrefined(self.store),
            lambda: count_all_unrefined(self.store),
        )
        self._require_refined()

    async def try_pilot(self, plan: Plan) -> None:
        """Hold and refine the planned dialogues once, whatever fails."""
        run, session, on_event = self.run, self.session, self.on_event
        await hold_dialogues(run, session, self._scenes(plan), self._count_ahead(plan), on_event)
        ready = self._count(count_unrefined, plan)
        await refine_dialogues(run, session, self._scenes(plan), ready, on_event)

    async def _try_twice(
        self, stage: Stage, scenes: Callable[[], Iterable[Scene]], count_left: Callable[[], int]
    ) -> None:
        """Do a stage; what failed is tried once more at its end, when what was wrong may have
        passed.
        """
        ahead = count_left()
        await stage(self.run, self.session, scenes(), ahead, self.on_event)
        failed = count_left()
        if 0 < failed < ahead:
            await stage(self.run, self.session, scenes(), failed, self.on_event)

    def _scenes(self, plan_: Plan) -> Iterable[Scene]:
        space, settings = self.run.workspace, self.run.settings
        return chain.from_iterable(
            plan(space, settings, culture, ordinals.stop, ordinals.start)
            for culture, ordinals in plan_.items()
        )

    def _count(self, count: Callable[[RunStore, str, int, int], int], plan: Plan) -> int:
        return sum(count(self.store, c, r.start, r.stop) for c, r in plan.items())

    def _count_ahead(self, plan: Plan) -> int:
        """Return how many of the planned dialogues are not yet held."""
        return sum(map(len, plan.values())) - self._count(count_held, plan)

    def _require_held(self) -> None:
        """RunFailed, with the main reason, if dialogues of the run failed and none was held."""
        counts = count_all(self.store)
        if counts.failed_dialogues and not counts.dialogues:
            why = "; ".join(describe_failures(self.store))
            again = "Nothing is lost: --resume tries them again."
            raise RunFailed(f"no dialogue was held: {why}. {again}")

    def _require_refined(self) -> None:
        """RunFailed, with the main reason, if no dialogue was refined and nothing was kept."""
        refined, failed = count_refined(self.store)
        if failed and not refined and not count_all(self.store).kept:
            why = "; ".join(describe_failures(self.store))
            again = "Nothing is lost: the same command, or --resume, tries them again."
            raise RunFailed(f"no dialogue was refined: {why}. {again}")

    def _too_few(self, wanted: int, yields: Mapping[str, Yield]) -> RunFailed:
        """Return the error that says what cultures lack, and why their opinions were refused."""
        lines = []
        for culture, y in yields.items():
            kept, last = "no opinion was kept", ""
            if y.kept:
                kept = f"{y.kept} of {wanted} opinions were kept"
                last = f", {y.last_kept} of the last {y.last_dialogues}"
            why = explain_lack(self.store, culture)
            lines.append(f"{kept} for {culture} in {y.dialogues} dialogues{last}: {why}")
        return RunFailed(
            f"{'; '.join(lines)}. `culturepark report {self.run.folder}` shows more."
            " Nothing is lost: --resume goes on."
        )


def describe_failures(store: RunStore, culture: str | None = None) -> list[str]:
    """Return how many dialogues failed or were not refined, with the main reason of each."""
    failures = gather_failures(store, culture)
    lines = []
    for stage, what in (("dialogues", "failed"), ("refining", "not refined")):
        if total := failures[stage]["total"]:
            main = failures[stage]["top"][0]
            most = f"{main['count']} of them: " if main["count"] < total else ""
            lines.append(f"{total} dialogue{'s' * (total > 1)} {what} ({most}{main['reason']})")
    return lines


def explain_lack(store: RunStore, culture: str | None = None) -> str:
    """Return the main reasons why a run, or one of its cultures, has no sample or too few."""
    lines = describe_failures(store, culture)
    dropped = count_dropped(store, culture).most_common(3)
    lines += [f"{n} dropped as {why}" for why, n in dropped]
    return "; ".join(lines) or "the dialogues hold no opinion"
