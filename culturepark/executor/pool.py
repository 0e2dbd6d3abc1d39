"""Works through any number of jobs, a bounded number at a time, and stops at the first error; and
the loop they run in.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from culturepark.executor import stopping

T = TypeVar("T")


async def run_each(jobs: Iterable[T], work: Callable[[T], Awaitable[None]], width: int) -> None:
    """Run `work` on every job with at most `width` in flight; jobs are drawn only when there is
    room for them.

    The first exception cancels the rest and is raised as it is.
    """
    source, stop = iter(jobs), stopping.current()

    async def worker(queue: Iterator[T]) -> None:
        for job in queue:
            await stop.pass_or_wait()
            await work(job)
            await asyncio.sleep(
                0
            )  # a model that never waits must not keep an interrupt from arriving

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(worker(source))
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own, the fastest there is; from a notebook, in a
    thread beside its loop.

    KeyboardInterrupt when an interrupt asked it to stop (see `stopping`).
    """
    stop = stopping.Stop()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with stopping.on_interrupt(stop):
            return _run_main(main, stop)
    results: list[T] = []
    errors: list[BaseException] = []

    def beside() -> None:
        try:
            results.append(_run_main(main, stop))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=beside, name="culturepark")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        stop.request()
        thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _run_main(main: Coroutine[Any, Any, T], stop: stopping.Stop) -> T:
    async def whole() -> T:
        stopping.enter(stop)
        return await main

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            result = runner.run(whole())
        except asyncio.CancelledError:
            if stop.requested:
                raise KeyboardInterrupt from None
            raise
    if stop.requested:
        raise KeyboardInterrupt
    return result


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Spare what is alive now from being searched for garbage again and again, while thousands of
    calls come and go.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the maker of the fastest event loop there is here; None for the usual one."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
