"""Open connections that wait a few seconds for the next session of their site. Bounded; it knows no mail."""

import asyncio
from collections import deque
from collections.abc import Hashable

from sternpost_delivery.client import Client


class Pool:
    """Idle clients by what they are good for. A client is in here or in a session, never both."""

    def __init__(self, *, idle_seconds: float, max_idle: int, lifetime: float, max_mails: int) -> None:
        """`idle_seconds`: how long one waits; `lifetime` and `max_mails` end a connection that works all the time."""
        self._idle_seconds = idle_seconds
        self._max_idle = max_idle
        self._lifetime = lifetime
        self._max_mails = max_mails
        self._idle: dict[Hashable, deque[tuple[Client, asyncio.TimerHandle]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def take(self, key: Hashable) -> Client | None:
        """A connection that is open and was not told goodbye, the one used last first; None where there is none."""
        waiting = self._idle.get(key)
        while waiting:
            client, timer = waiting.pop()
            self._count -= 1
            timer.cancel()
            if not waiting:
                del self._idle[key]
            if client.is_usable:
                return client
            client.abort()
        return None

    def give(self, key: Hashable, client: Client) -> None:
        """Keep a connection for the next session, or close it where it is spent or the pool is full."""
        loop = asyncio.get_running_loop()
        spent = client.mails >= self._max_mails or loop.time() - client.opened_at >= self._lifetime
        if spent or self._count >= self._max_idle or not client.is_usable:
            client.quit()
            return
        timer = loop.call_later(self._idle_seconds, self._expire, key, client)
        self._idle.setdefault(key, deque()).append((client, timer))
        self._count += 1

    def close(self) -> None:
        """Say goodbye to all."""
        for waiting in self._idle.values():
            for client, timer in waiting:
                timer.cancel()
                client.quit()
        self._idle.clear()
        self._count = 0

    def _expire(self, key: Hashable, client: Client) -> None:
        waiting = self._idle[key]
        kept = deque(pair for pair in waiting if pair[0] is not client)
        self._count -= len(waiting) - len(kept)
        if kept:
            self._idle[key] = kept
        else:
            del self._idle[key]
        client.quit()
