"""Keep a set of programs running: start, restart what dies, forward what they print, stop in order.

It knows processes, not mail: what the programs are and in which order they stop is told by the caller. The children
die with this process even when it is killed with SIGKILL (Linux: PR_SET_PDEATHSIG; elsewhere only an orderly stop takes
them along).
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sternpost_cli.logs import ProgramLog

RESTART_FIRST_SECONDS = 0.1
"""Pause before the first restart: a crash should cost the platform a blink."""
RESTART_MAX_SECONDS = 5.0
"""Pause that the doubling ends at: a program that cannot live must not eat the CPU of those that can."""
SETTLED_SECONDS = 10.0
"""A program that lived this long starts again with the shortest pause."""
STOP_SECONDS = 10.0
"""How long a program may take over SIGTERM before SIGKILL; the services' own drain is shorter."""
PROBE_INTERVAL_SECONDS = 0.05
"""Between two looks at a program that is starting."""
START_DEATHS = 3
"""A program that dies so often before it was ready will not get there by itself."""
TAIL_LINES = 15
"""Lines of a program's log that an error shows: a traceback's end fits."""

PR_SET_PDEATHSIG = 1


class SupervisorError(Exception):
    """A program did not start or did not get ready; the text is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    """The whole environment of the process."""
    is_ready: Callable[[], Awaitable[bool]]
    """Looks once whether the program does its work; must not raise."""
    stop_seconds: float = STOP_SECONDS


@dataclass(slots=True)
class _Kept:
    program: Program
    log: ProgramLog
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None


def restart_delay(quick_deaths: int) -> float:
    """Seconds to wait before a restart after so many deaths in a row, none of which had settled before."""
    return min(RESTART_MAX_SECONDS, RESTART_FIRST_SECONDS * 2.0 ** min(quick_deaths, 16))


def describe_exit(code: int) -> str:
    """How a process ended, in words: its exit status, or the name of the signal."""
    if code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before exec so that the kernel kills it when `parent` is gone; None where the kernel cannot."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # resolved before the fork: no allocation between fork and exec

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(1)

    return before_exec


class Supervisor:
    """Starts programs and keeps them alive until `stop`.

    `state_path` is rewritten atomically on each change: `{name: {"pid": …, "restarts": …}}`, pid 0 while one is down.
    `say` gets the few lines that belong on a terminal.
    """

    def __init__(self, *, state_path: Path, log_folder: Path, say: Callable[[str], None]) -> None:
        self._state_path = state_path
        self._log_folder = log_folder
        self._say = say
        self._kept: dict[str, _Kept] = {}
        log_folder.mkdir(parents=True, exist_ok=True)

    def pid(self, name: str) -> int:
        """The program's process id, 0 while it is down."""
        process = self._kept[name].process
        return process.pid if process else 0

    def restarts(self, name: str) -> int:
        """How often the program was started again."""
        return self._kept[name].restarts

    async def start(self, program: Program) -> None:
        """Start a program and keep it running. Raises SupervisorError when it cannot be executed at all."""
        if program.name in self._kept:
            raise ValueError(f"{program.name} is already kept")
        log = ProgramLog(program.name, self._log_folder / f"{program.name}.log", self._say)
        kept = self._kept[program.name] = _Kept(program, log)
        try:
            await self._spawn(kept)
        except OSError as error:
            del self._kept[program.name]
            log.close()
            raise SupervisorError(f"{program.name} cannot be started: {error}") from error
        kept.keeper = asyncio.create_task(self._keep(kept), name=f"keep {program.name}")

    async def wait_ready(self, name: str, seconds: float) -> None:
        """Return when the program says it is ready.

        Raises SupervisorError, with the end of its log, when it does not within the time or dies again and again.
        """
        kept = self._kept[name]
        before = kept.restarts
        deadline = time.monotonic() + seconds
        while not (kept.process and await kept.program.is_ready()):
            died = kept.restarts - before
            if died >= START_DEATHS or time.monotonic() > deadline:
                what = f"died {died} times" if died >= START_DEATHS else f"was not ready within {seconds:.0f} s"
                raise SupervisorError(f"{name} {what}; the end of {kept.log.path}:\n{kept.log.tail(TAIL_LINES)}")
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)

    async def stop(self, order: Sequence[Sequence[str]]) -> None:
        """Stop every program, group by group; what no group names goes last. Members of a group stop together."""
        named = {name for group in order for name in group}
        rest = [name for name in self._kept if name not in named]
        for group in [*order, rest]:
            present = [self._kept[name] for name in group if name in self._kept]
            await asyncio.gather(*(self._stop_one(kept) for kept in present))

    def kill(self) -> None:
        """SIGKILL everything at once: the second Ctrl-C. `stop` still has to be awaited."""
        for kept in self._kept.values():
            kept.stopping.set()
            _signal(kept, signal.SIGKILL)

    async def _spawn(self, kept: _Kept) -> None:
        program = kept.program
        kept.process = await asyncio.create_subprocess_exec(
            *program.command,
            env=dict(program.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone, which then stops in order
            preexec_fn=_die_with(os.getpid()),
        )
        self._write_state()

    async def _keep(self, kept: _Kept) -> None:
        quick_deaths = 0
        while True:
            started = time.monotonic()
            if kept.process:
                code = await self._watch(kept, kept.process)
                if kept.stopping.is_set():
                    return
                reason = describe_exit(code)
            else:
                reason = "cannot be executed"
            quick_deaths = 0 if time.monotonic() - started > SETTLED_SECONDS else quick_deaths
            delay = restart_delay(quick_deaths)
            quick_deaths += 1
            kept.restarts += 1
            self._write_state()
            self._say(f"{kept.program.name}: {reason}; restart {kept.restarts} in {delay:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(kept.stopping.wait(), delay)
                return
            try:
                await self._spawn(kept)
            except OSError as error:
                self._say(f"{kept.program.name}: {error}")
            if kept.stopping.is_set():  # asked to stop while it was being born
                _signal(kept, signal.SIGTERM)

    async def _watch(self, kept: _Kept, process: asyncio.subprocess.Process) -> int:
        """Forward the output until the process ended; its exit code. A grandchild with the pipe does not delay it."""
        assert process.stdout is not None  # noqa: S101 - it was asked for as a pipe
        reading = asyncio.create_task(kept.log.copy_from(process.stdout))
        code = await process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, 1.0)
        kept.process = None
        self._write_state()
        return code

    async def _stop_one(self, kept: _Kept) -> None:
        kept.stopping.set()
        _signal(kept, signal.SIGTERM)
        if kept.keeper:
            done, _ = await asyncio.wait([kept.keeper], timeout=kept.program.stop_seconds)
            if not done:
                self._say(f"{kept.program.name}: still there {kept.program.stop_seconds:.0f} s after SIGTERM; SIGKILL")
                _signal(kept, signal.SIGKILL)
                await asyncio.wait([kept.keeper])
        kept.log.close()

    def _write_state(self) -> None:
        state = {
            name: {"pid": kept.process.pid if kept.process else 0, "restarts": kept.restarts}
            for name, kept in self._kept.items()
        }
        beside = self._state_path.with_suffix(".new")
        beside.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        beside.replace(self._state_path)


def _signal(kept: _Kept, number: int) -> None:
    if kept.process:
        with contextlib.suppress(ProcessLookupError):
            kept.process.send_signal(number)
