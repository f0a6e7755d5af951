"""A proxy between a client and the broker that can lose, hold back or stop single frames of the NATS protocol.

With it a test makes what a network does to a publish: its answer is lost though it is stored, or it arrives long after
its sender gave up. It works on whole frames, so that what passes is always a valid stream.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum


class Do(Enum):
    """What happens to a frame."""

    PASS = "pass"
    HOLD = "hold"
    DROP = "drop"


Rule = Callable[[bytes], Do]


class Flow:
    """One direction. `rule` sees each frame whole, header line and payload."""

    def __init__(self) -> None:
        self.rule: Rule = lambda _: Do.PASS
        self.held: list[tuple[bytes, asyncio.StreamWriter]] = []
        self.dropped: list[bytes] = []
        self._changed = asyncio.Condition()

    async def take(self, frame: bytes, writer: asyncio.StreamWriter) -> None:
        """Treat one frame by the rule."""
        verdict = self.rule(frame)
        async with self._changed:
            if verdict is Do.HOLD:
                self.held.append((frame, writer))
            elif verdict is Do.DROP:
                self.dropped.append(frame)
            self._changed.notify_all()
        if verdict is Do.PASS:
            writer.write(frame)
            await writer.drain()

    async def until(self, *, held: int = 0, dropped: int = 0) -> None:
        """Wait until so many frames were held and dropped."""
        async with self._changed, asyncio.timeout(10):
            await self._changed.wait_for(lambda: len(self.held) >= held and len(self.dropped) >= dropped)

    async def release(self) -> int:
        """Let everything pass from now on, first what was held; returns how many frames that were."""
        self.rule = lambda _: Do.PASS
        held, self.held = self.held, []
        for frame, writer in held:
            writer.write(frame)
            await writer.drain()
        return len(held)


class Proxy:
    """Listens on `port` and leads to the broker."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.to_broker = Flow()
        self.to_client = Flow()
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until one of its ends closes."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            self._tasks.discard(task)
            return
        pumps = [
            asyncio.ensure_future(_pump(reader, broker_writer, self.to_broker)),
            asyncio.ensure_future(_pump(broker_reader, writer, self.to_client)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # `close` ends us; asyncio's streams would log it as a failure
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            broker_writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            frame = await reader.readuntil(b"\r\n")
            words = frame.split()
            if words and words[0].upper() in (b"PUB", b"HPUB", b"MSG", b"HMSG"):
                frame += await reader.readexactly(int(words[-1]) + 2)
            await flow.take(frame, writer)


@asynccontextmanager
async def running_proxy(target: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port of loopback before the broker's port."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=16 * 1024 * 1024)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
