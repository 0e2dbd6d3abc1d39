"""Stopping at an interrupt: no new call is sent, calls in flight get a moment, then the work is
cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

GRACE = 1.0  # seconds that calls in flight get to be answered and written down
OVERDUE = 1.6  # seconds after which work that does not yield is interrupted where it is
INTERRUPTED = 130  # exit code
log = logging.getLogger("culturepark")


class Stop:
    """Whether the work of one event loop was asked to end, and how many calls are in flight."""

    def __init__(self) -> None:
        self.requested = False
        self.in_flight = 0
        self._since = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._ending: asyncio.Task[None] | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        """Name the task that is cancelled in the end."""
        self._loop, self._task = loop, task

    async def pass_or_wait(self) -> None:
        """Return at once while work goes on; wait to be cancelled once it was asked to end."""
        if self.requested:
            await asyncio.get_running_loop().create_future()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count a call as in flight."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def request(self) -> None:
        """Ask the work to end; may be called from any thread and from a signal handler."""
        self.requested, self._since = True, time.monotonic()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        """Give calls in flight their moment, then cancel the work."""
        calls = f", finishing {self.in_flight} calls" if self.in_flight else ""
        log.warning("stopping%s (Ctrl-C again ends at once)", calls, extra={"event": "stopping"})
        while self.in_flight and time.monotonic() < self._since + GRACE:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)  # what was just answered is written down
        if self._task is not None:
            self._task.cancel()


_CURRENT: ContextVar[Stop | None] = ContextVar("stop", default=None)
_NEVER = Stop()


def current() -> Stop:
    """Return the stop of the work that this task belongs to; one that is never requested outside of
    any.
    """
    return _CURRENT.get() or _NEVER


def enter(stop: Stop) -> None:
    """Let the running task, and those it starts, heed a stop."""
    _CURRENT.set(stop)
    stop.attach(asyncio.get_running_loop(), asyncio.current_task())


@contextmanager
def on_interrupt(stop: Stop) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop and let a second one end the process at once.

    Work that does not yield to the event loop is interrupted where it is after OVERDUE seconds.
    Outside of the main thread, and where the host program handles interrupts itself, nothing
    changes.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    late = threading.Event()
    timer = threading.Timer(OVERDUE, _interrupt_now, (late,))
    timer.daemon = True
    signal.signal(signal.SIGINT, _handler(stop, timer, late))
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt_now(late: threading.Event) -> None:
    late.set()
    signal.raise_signal(signal.SIGINT)


def _handler(
    stop: Stop, timer: threading.Timer, late: threading.Event
) -> Callable[[int, Any], None]:
    def handle(_number: int, _frame: Any) -> None:
        if not stop.requested:
            stop.request()
            timer.start()
        elif late.is_set():
            raise KeyboardInterrupt
        else:
            os.write(2, b"ended at once; what was answered before is safe: --resume goes on\n")
            os._exit(INTERRUPTED)

    return handle
