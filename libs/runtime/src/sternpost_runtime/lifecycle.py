"""The life of a process: event loop, logging, signals, failures, exit codes.

Crash-only: what nobody handles is logged and ends the process, and the supervisor starts a new one. The broker holds
what matters, so starting again is always safe, and going on in a state that nobody understands is not.

| exit code | meaning |
|---|---|
| 0 | `main` returned, after SIGTERM or SIGINT or by itself |
| 1 | something failed, or did not end within the grace after a signal |
| 2 | settings that cannot be obeyed (`sternpost_runtime.settings.load`) |
| 128 + n | the second signal n came before the process had ended |

This file knows no service and no broker.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import structlog
import uvloop

from sternpost_runtime.logs import setup_logging
from sternpost_runtime.settings import ServiceSettings
from sternpost_runtime.telemetry import setup_tracing, shutdown_tracing

EXIT_FAILURE = 1
"""Exit code after a failure; supervisors start the process again."""
GRACE_SECONDS = 25.0
"""Seconds that `main` has to end after a signal: less than the thirty that Kubernetes gives before SIGKILL."""
FAILURE_SECONDS = 2.0
"""Seconds that `main` has to clean up after a failure somewhere else: what matters is durable already."""
GC_THRESHOLDS = (10_000, 20, 50)
"""Thresholds of the cyclic collector once a process has started (Python's own: 700, 10, 10). Mails are freed by
reference counts, so the collector finds next to nothing; `settle_gc` has the measurement."""

T = TypeVar("T")

_log = structlog.get_logger("sternpost.lifecycle")
_tasks: set[asyncio.Task[Any]] = set()


class Stop:
    """The wish that the process end. `main` gets it and returns soon after it is set."""

    __slots__ = ("_event", "_failed")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._failed = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Whether the process shall end."""
        return self._event.is_set()

    @property
    def has_failed(self) -> bool:
        """Whether it ends because something failed."""
        return self._failed.is_set()

    def set(self) -> None:
        """Ask for the end; more than once is the same as once."""
        self._event.set()

    async def wait(self) -> None:
        """Until the process shall end."""
        await self._event.wait()

    def fail(self, where: str, error: BaseException | None) -> None:
        """End the process with exit code 1 because `error` happened in `where`; it is logged here."""
        _log.critical("unhandled_failure", where=where, exc_info=error)
        self._failed.set()
        self._event.set()

    async def _wait_failed(self) -> None:
        await self._failed.wait()


_current: ContextVar[Stop | None] = ContextVar("sternpost_stop", default=None)


def spawn(coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run a coroutine beside `main` for the life of the process; if it fails, the process ends with exit code 1.

    The task is kept alive here (asyncio itself would forget it) and may be cancelled by who started it. Outside of
    `run`, as in a test, a failure goes to the loop's exception handler.
    """
    task = asyncio.create_task(coroutine, name=name)
    _tasks.add(task)
    task.add_done_callback(_task_done)
    return task


def _task_done(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        return
    stop = _current.get()
    if stop is not None:
        stop.fail(task.get_name(), error)
    else:
        task.get_loop().call_exception_handler(
            {"message": f"task {task.get_name()!r} failed", "exception": error, "task": task}
        )


def settle_gc() -> None:
    """Call it when a process has started: what exists now lives until the end and need not be looked at again.

    Measured (Python 3.11, the modules of a service, 20,000 mails in flight, 60,000 more decoded and encoded in about
    1.1 CPU seconds): by default the collector stopped the loop for up to 89 ms, 160 ms in all; frozen, for up to 32 ms,
    50 ms in all; frozen and with GC_THRESHOLDS, for up to 2 ms, 13 ms in all. With five times those: up to 18 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def run(
    main: Callable[[Stop], Awaitable[None]],
    *,
    service: str,
    settings: ServiceSettings,
    grace: float = GRACE_SECONDS,
) -> NoReturn:
    """Run a process to its end and exit with one of the codes above. `grace` is in seconds.

    `main` starts the service, awaits `stop.wait()` and cleans up. The first SIGTERM or SIGINT sets `stop`; the second
    ends the process on the spot.
    """
    setup_logging(service, settings)
    setup_tracing(service, settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failed = runner.run(_supervise(main, grace))
        if failed:
            _leave(EXIT_FAILURE)  # a thread or task that hangs must not keep a failed process alive
    shutdown_tracing()
    raise SystemExit(0)


async def _supervise(main: Callable[[Stop], Awaitable[None]], grace: float) -> bool:
    """Whether the process failed."""
    loop = asyncio.get_running_loop()
    stop = Stop()
    _current.set(stop)
    loop.set_exception_handler(lambda _loop, context: _unhandled(stop, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _signalled, stop, number)
    running = asyncio.ensure_future(main(stop))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            failing = asyncio.create_task(stop._wait_failed())
            await asyncio.wait((running, failing), return_when=asyncio.FIRST_COMPLETED, timeout=grace)
            failing.cancel()
        if not running.done():
            if not stop.has_failed:
                _log.error("stop_took_too_long", grace_seconds=grace)
            running.cancel()
            await asyncio.wait((running,), timeout=FAILURE_SECONDS)
            return True
        return _ended_badly(running, stop)
    finally:
        stopping.cancel()


def _ended_badly(running: "asyncio.Future[None]", stop: Stop) -> bool:
    if running.cancelled():
        stop.fail("main", asyncio.CancelledError("main was cancelled by itself"))
    elif (error := running.exception()) is not None:
        stop.fail("main", error)
    return stop.has_failed


def _unhandled(stop: Stop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    message = str(context.get("message") or "unhandled failure in the event loop")
    if context.get("transport") is not None or context.get("protocol") is not None:
        # One connection's trouble: it is closed already, and whoever is at its other end must not be able to stop us.
        _log.error("connection_failed", what=message, exc_info=error)
        return
    task = context.get("task") or context.get("future")
    where = task.get_name() if isinstance(task, asyncio.Task) else "event loop"
    stop.fail(f"{where}: {message}", error)


def _signalled(stop: Stop, number: signal.Signals) -> None:
    if stop.is_set:
        _log.warning("second_signal", signal=number.name)
        _leave(128 + number)
    _log.info("stopping", signal=number.name)
    stop.set()


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
