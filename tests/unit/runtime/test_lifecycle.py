"""How a process starts, stops and fails: each case is a process of its own."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sternpost_runtime.lifecycle import GC_THRESHOLDS, spawn

HEAD = """
import asyncio, os, signal, sys
import structlog
from sternpost_runtime.lifecycle import run, spawn
from sternpost_runtime.settings import ServiceSettings
log = structlog.get_logger()
"""
TAIL = """
run(main, service="example", settings=ServiceSettings(), grace={grace})
"""
LIMIT = 30
"""Seconds after which a process that should have ended is called stuck."""


@contextmanager
def process(body: str, grace: float = 20.0) -> Iterator[subprocess.Popen[str]]:
    code = HEAD + textwrap.dedent(body) + TAIL.format(grace=grace)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STERNPOST_")}
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


def end(started: subprocess.Popen[str]) -> tuple[int, str, list[dict[str, Any]]]:
    out, err = started.communicate(timeout=LIMIT)
    return started.returncode, out, [json.loads(line) for line in err.splitlines()]


def wait_ready(started: subprocess.Popen[str]) -> None:
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"


WAITS = """
async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print(f"cleaned up {stop.is_set}", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_cleanly(number: signal.Signals) -> None:
    with process(WAITS) as started:
        wait_ready(started)
        started.send_signal(number)
        code, out, lines = end(started)
    assert (code, out) == (0, "cleaned up True\n")
    assert [(line["event"], line["signal"]) for line in lines] == [("stopping", number.name)]


def test_main_runs_on_uvloop_and_its_own_end_is_exit_code_0() -> None:
    body = """
    async def main(stop):
        print(type(asyncio.get_running_loop()).__module__)
    """
    with process(body) as started:
        assert end(started)[:2] == (0, "uvloop\n")


def test_the_second_signal_ends_at_once() -> None:
    body = """
    async def main(stop):
        print("ready", flush=True)
        await stop.wait()
        print("stopping", flush=True)
        await asyncio.Event().wait()
    """
    with process(body) as started:
        wait_ready(started)
        started.send_signal(signal.SIGTERM)
        assert started.stdout is not None
        assert started.stdout.readline() == "stopping\n"
        started.send_signal(signal.SIGTERM)
        code, _, lines = end(started)
    assert code == 128 + signal.SIGTERM
    assert lines[-1]["event"] == "second_signal"


def test_a_stop_that_takes_longer_than_the_grace_is_a_failure() -> None:
    body = """
    async def main(stop):
        print("ready", flush=True)
        await asyncio.Event().wait()
    """
    with process(body, grace=0.05) as started:
        wait_ready(started)
        started.send_signal(signal.SIGTERM)
        code, _, lines = end(started)
    assert code == 1
    assert lines[-1]["event"] == "stop_took_too_long"


FAILURES = {
    "main raises": """
    async def main(stop):
        raise RuntimeError("told to")
    """,
    "main is cancelled from within": """
    async def main(stop):
        asyncio.current_task().cancel()
        try:
            await stop.wait()
        finally:
            print("cleaned up", flush=True)
    """,
    "a spawned task raises": """
    async def broken():
        raise RuntimeError("told to")
    async def main(stop):
        spawn(broken(), "broken")
        try:
            await asyncio.Event().wait()
        finally:
            print("cleaned up", flush=True)
    """,
    "a spawned task raises while main ends": """
    async def broken():
        raise RuntimeError("told to")
    async def main(stop):
        spawn(broken(), "broken")
        await stop.wait()
    """,
    "a task that nobody awaits raises": """
    async def broken():
        raise RuntimeError("told to")
    async def main(stop):
        asyncio.create_task(broken(), name="broken")
        await asyncio.Event().wait()
    """,
    "a callback raises": """
    def broken():
        raise RuntimeError("told to")
    async def main(stop):
        asyncio.get_running_loop().call_soon(broken)
        await asyncio.Event().wait()
    """,
    "main refuses to be cancelled": """
    import sternpost_runtime.lifecycle as lifecycle
    lifecycle.FAILURE_SECONDS = 0.05
    async def broken():
        raise RuntimeError("told to")
    async def main(stop):
        spawn(broken(), "broken")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
    """,
    "a thread hangs": """
    import threading
    async def main(stop):
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        raise RuntimeError("told to")
    """,
}


@pytest.mark.parametrize("why", FAILURES)
def test_what_nobody_handles_is_logged_and_ends_the_process_with_1(why: str) -> None:
    with process(FAILURES[why]) as started:
        code, _, lines = end(started)
    assert code == 1
    (failure,) = [line for line in lines if line["event"] == "unhandled_failure"]
    assert failure["level"] == "critical"
    assert failure["service"] == "example"
    assert ("cancelled by itself" if why == "main is cancelled from within" else "told to") in failure["exception"]


def test_main_may_clean_up_after_a_failure_elsewhere() -> None:
    with process(FAILURES["a spawned task raises"]) as started:
        assert end(started)[1] == "cleaned up\n"


def test_one_connections_failure_does_not_end_the_process() -> None:
    body = """
    class Broken(asyncio.Protocol):
        def data_received(self, data):
            raise RuntimeError("told to")
    async def main(stop):
        server = await asyncio.get_running_loop().create_server(Broken, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"x")
        print(await reader.read(), stop.is_set)
        server.close()
    """
    with process(body) as started:
        code, out, lines = end(started)
    assert (code, out) == (0, "b'' False\n")
    assert [line["event"] for line in lines] == ["connection_failed"]


def test_a_spawned_task_may_be_cancelled_and_gives_its_result() -> None:
    body = """
    async def forever():
        await asyncio.Event().wait()
    async def answer():
        return 42
    async def main(stop):
        task = spawn(forever(), "forever")
        print(await spawn(answer(), "answer"), task.get_name())
        task.cancel()
        await asyncio.wait([task])
    """
    with process(body) as started:
        assert end(started)[:2] == (0, "42 forever\n")


async def test_outside_of_run_a_failure_goes_to_the_loop() -> None:
    told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.set_result(context))

    async def broken() -> None:
        raise RuntimeError("told to")

    spawn(broken(), "broken")
    context = await told
    assert context["message"] == "task 'broken' failed"
    assert str(context["exception"]) == "told to"


def test_settling_the_collector_freezes_what_exists() -> None:
    body = """
    import gc
    from sternpost_runtime.lifecycle import settle_gc
    async def main(stop):
        settle_gc()
        print(gc.get_freeze_count() > 1000, gc.get_threshold())
    """
    frozen_here = gc.get_freeze_count()
    with process(body) as started:
        assert end(started)[1] == f"True {GC_THRESHOLDS}\n"
    assert gc.get_freeze_count() == frozen_here
