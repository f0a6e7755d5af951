"""How many connections and mails one client address may bring. Pure: the time is passed in, in seconds.

An IPv6 client counts as its /64, because that is what one customer gets. The table is bounded: when it is full,
addresses that hold no connection are forgotten, oldest minute first, and their minute begins anew.
"""

import ipaddress
from functools import lru_cache

from sternpost_mail.route import in_networks

MINUTE = 60.0


class _Client:
    __slots__ = ("connections", "mails", "minute", "opened")

    def __init__(self, now: float) -> None:
        self.connections = 0
        self.minute = now
        self.opened = 0
        self.mails = 0


class ClientLimits:
    """Counts per client address. A limit of 0 is none."""

    def __init__(
        self,
        *,
        connections: int,
        connections_per_minute: int,
        mails_per_minute: int,
        exempt: tuple[str, ...],
        size: int,
    ) -> None:
        self._connections = connections
        self._connections_per_minute = connections_per_minute
        self._mails_per_minute = mails_per_minute
        self._exempt = exempt
        self._size = size
        self._clients: dict[str, _Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def enter(self, address: str, now: float) -> str:
        """Count a new connection. Why it is refused, or nothing; who was let in must `leave`."""
        client = self._client(address, now)
        if client is None:
            return ""
        client.opened += 1
        if self._connections_per_minute and client.opened > self._connections_per_minute:
            return "connection-rate"
        if self._connections and client.connections >= self._connections:
            return "connections"
        client.connections += 1
        return ""

    def leave(self, address: str) -> None:
        """A connection that was let in is over."""
        client = self._clients.get(_key(address, self._exempt))
        if client is not None and client.connections:
            client.connections -= 1

    def take_mail(self, address: str, now: float) -> bool:
        """Count a mail; False where it is one too many in this minute."""
        client = self._client(address, now)
        if client is None or not self._mails_per_minute:
            return True
        client.mails += 1
        return client.mails <= self._mails_per_minute

    def _client(self, address: str, now: float) -> _Client | None:
        key = _key(address, self._exempt)
        if not key:
            return None
        client = self._clients.get(key)
        if client is None:
            if len(self._clients) >= self._size:
                self._forget(now)
            client = self._clients[key] = _Client(now)
        elif now - client.minute >= MINUTE:
            client.minute, client.opened, client.mails = now, 0, 0
        return client

    def _forget(self, now: float) -> None:
        """Make room: what is over its minute goes, and at least a tenth of the table."""
        idle = [(client.minute, key) for key, client in self._clients.items() if not client.connections]
        idle.sort()
        least = max(1, self._size // 10)
        for at, (minute, key) in enumerate(idle):
            if at >= least and now - minute < MINUTE:
                break
            del self._clients[key]


@lru_cache(maxsize=4096)
def _key(address: str, exempt: tuple[str, ...]) -> str:
    """What is counted for an address; empty where nothing is."""
    if not address or in_networks(exempt, address):
        return ""
    if ":" in address:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return address
