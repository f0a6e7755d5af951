"""The supervisor with tiny programs that stand for services."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from sternpost_cli.supervisor import (
    RESTART_MAX_SECONDS,
    Program,
    Supervisor,
    SupervisorError,
    describe_exit,
    restart_delay,
)

WAITS = """
import pathlib, signal, sys, time
name, notes = sys.argv[1], pathlib.Path(sys.argv[2])
def end(*_):
    with notes.open("a") as file: file.write(name + chr(10))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
(notes.parent / (name + ".ready")).touch()
while True: time.sleep(60)
"""
IGNORES_SIGTERM = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(pathlib.Path(sys.argv[2]).parent / (sys.argv[1] + ".ready")).touch()
while True: time.sleep(60)
"""


@asynccontextmanager
async def supervising(folder: Path, said: list[str] | None = None) -> AsyncIterator[Supervisor]:
    lines = said if said is not None else []
    supervisor = Supervisor(state_path=folder / "state.json", log_folder=folder / "logs", say=lines.append)
    try:
        yield supervisor
    finally:
        await supervisor.stop([])


def program(folder: Path, name: str, code: str = WAITS, stop_seconds: float = 10.0) -> Program:
    async def is_ready() -> bool:
        return (folder / f"{name}.ready").exists()

    return Program(
        name=name,
        command=[sys.executable, "-c", code, name, str(folder / "stopped")],
        environment=dict(os.environ),
        is_ready=is_ready,
        stop_seconds=stop_seconds,
    )


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


def state(folder: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads((folder / "state.json").read_text())
    return found


async def test_a_program_that_is_killed_comes_back_with_another_pid_and_is_counted(tmp_path: Path) -> None:
    said: list[str] = []
    async with supervising(tmp_path, said) as supervisor:
        await supervisor.start(program(tmp_path, "queue"))
        await supervisor.wait_ready("queue", 20)
        first = supervisor.pid("queue")
        assert state(tmp_path) == {"queue": {"pid": first, "restarts": 0}}
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.pid("queue") not in (0, first))
        assert state(tmp_path) == {"queue": {"pid": supervisor.pid("queue"), "restarts": 1}}
        assert supervisor.restarts("queue") == 1
    assert said == ["queue: killed by SIGKILL; restart 1 in 0.1 s"]


async def test_programs_stop_group_by_group_in_the_order_given(tmp_path: Path) -> None:
    async with supervising(tmp_path) as supervisor:
        for name in ("nats", "queue", "ingress"):
            await supervisor.start(program(tmp_path, name))
        for name in ("nats", "queue", "ingress"):
            await supervisor.wait_ready(name, 20)
        await supervisor.stop([["ingress"], ["queue"], ["nats"]])
    assert (tmp_path / "stopped").read_text().split() == ["ingress", "queue", "nats"]
    assert {entry["pid"] for entry in state(tmp_path).values()} == {0}


async def test_a_program_that_does_not_listen_to_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    said: list[str] = []
    async with supervising(tmp_path, said) as supervisor:
        await supervisor.start(program(tmp_path, "stubborn", IGNORES_SIGTERM, stop_seconds=0.2))
        await supervisor.wait_ready("stubborn", 20)
        pid = supervisor.pid("stubborn")
        await supervisor.stop([["stubborn"]])
        assert not psutil.pid_exists(pid)
    assert said == ["stubborn: still there 0 s after SIGTERM; SIGKILL"]


async def test_a_second_wish_to_stop_kills_at_once(tmp_path: Path) -> None:
    async with supervising(tmp_path) as supervisor:
        await supervisor.start(program(tmp_path, "stubborn", IGNORES_SIGTERM, stop_seconds=600))
        await supervisor.wait_ready("stubborn", 20)
        stopping = asyncio.create_task(supervisor.stop([["stubborn"]]))
        await asyncio.sleep(0)
        supervisor.kill()
        async with asyncio.timeout(20):
            await stopping


async def test_a_program_that_dies_at_each_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    code = "raise RuntimeError('no such setting')"
    async with supervising(tmp_path) as supervisor:
        await supervisor.start(program(tmp_path, "auth", code))
        with pytest.raises(SupervisorError, match=r"auth died 3 times.*(?s:.*)RuntimeError: no such setting"):
            await supervisor.wait_ready("auth", 60)


async def test_a_program_that_never_gets_ready_is_reported(tmp_path: Path) -> None:
    async with supervising(tmp_path) as supervisor:
        await supervisor.start(program(tmp_path, "slow", "import time; print('well...', flush=True); time.sleep(60)"))
        with pytest.raises(SupervisorError, match="slow was not ready within 0 s"):
            await supervisor.wait_ready("slow", 0.3)


async def test_a_program_that_cannot_be_executed_is_an_error_and_is_not_kept(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async with supervising(tmp_path) as supervisor:
        with pytest.raises(SupervisorError, match="ghost cannot be started"):
            await supervisor.start(Program("ghost", [str(tmp_path / "missing")], {}, never))
        await supervisor.start(program(tmp_path, "ghost"))
        await supervisor.wait_ready("ghost", 20)


async def test_what_a_program_prints_is_in_its_log_and_errors_are_said(tmp_path: Path) -> None:
    code = """
import json, pathlib, sys, time
print(json.dumps({"level": "info", "event": "fine"}))
print(json.dumps({"level": "error", "event": "store_failed", "error": "disk full"}), flush=True)
(pathlib.Path(sys.argv[2]).parent / (sys.argv[1] + ".ready")).touch()
time.sleep(60)
"""
    said: list[str] = []
    async with supervising(tmp_path, said) as supervisor:
        await supervisor.start(program(tmp_path, "activity", code))
        await supervisor.wait_ready("activity", 20)
        await until(lambda: bool(said))
    assert said == ["activity | store_failed: disk full"]
    assert '"fine"' in (tmp_path / "logs" / "activity.log").read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, pathlib, sys
from sternpost_cli.supervisor import Program, Supervisor
folder = pathlib.Path({str(tmp_path)!r})
async def ready(): return True
async def main():
    supervisor = Supervisor(state_path=folder / "state.json", log_folder=folder / "logs", say=print)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    await supervisor.start(Program("child", command, dict(os.environ), ready))
    print(supervisor.pid("child"), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(await parent.stdout.readline()))
    finally:
        parent.kill()
        await parent.wait()
    # The orphan may stay a zombie where nobody reaps it (a container's first process): it runs no more.
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("deaths", "seconds"),
    [(0, 0.1), (1, 0.2), (2, 0.4), (5, 3.2), (6, RESTART_MAX_SECONDS), (10_000, RESTART_MAX_SECONDS)],
)
def test_the_pause_before_a_restart_doubles_up_to_a_limit(deaths: int, seconds: float) -> None:
    assert restart_delay(deaths) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit status 0"), (2, "exit status 2"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_exit_is_told_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
