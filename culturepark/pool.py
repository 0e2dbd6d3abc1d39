"""Works through any number of jobs, a bounded number at a time, and stops at the first error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


async def each(jobs: Iterable[T], work: Callable[[T], Awaitable[None]], width: int) -> None:
    """Run `work` on every job with at most `width` in flight; jobs are drawn only when there is room for them.

    The first exception cancels the rest and is raised as it is.
    """
    source = iter(jobs)

    async def worker(queue: Iterator[T]) -> None:
        for job in queue:
            await work(job)
            await asyncio.sleep(0)  # a model that never waits must not keep an interrupt from arriving

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(worker(source))
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
