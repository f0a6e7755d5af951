"""How often a client may guess. Pure: the time is passed in, in seconds of any steady clock.

A count per login alone would let anybody lock a user out by failing in their name; so failures are counted per client
and login and, higher, per client. A pair that was granted before is not stopped by the client's total: an address may
be shared (NAT, a node's address in a cluster), and one program with a wrong password must not stop the others. An API
key cannot be guessed, so it never counts towards a client's total nor is stopped by it. Whether a login exists never
matters here, so the limit tells nothing about it.

Counts leak away evenly over the window. Tables are bounded: the entry that failed or succeeded longest ago goes first.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

IPV6_PREFIX = 64
"""Bits of an IPv6 address that mean one client: a whole /64 is usually in one hand."""
KNOWN_ADDRESSES = 4096
"""Client addresses whose network is remembered: doors ask about the same ones over and over."""


@dataclass(frozen=True, slots=True)
class Limits:
    """See `settings.py` for the reasons."""

    per_login: int = 10
    per_client: int = 50
    window: float = 300.0
    entries: int = 50_000
    trusted: int = 10_000


class FailureCounts:
    """The failures of late, and who succeeded."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: OrderedDict[tuple[str, str | None], tuple[float, float]] = OrderedDict()
        """By client and login (None: over all logins): the count and the time at which it stood so high."""
        self._trusted: OrderedDict[tuple[str, str], None] = OrderedDict()

    def may_try(self, client: str, login: str, now: float, *, guessable: bool = True) -> bool:
        """Whether the client may try this login now: one more failure must not exceed a limit. Changes nothing."""
        network = network_of(client)
        if self._level((network, login), self._limits.per_login, now) + 1.0 > self._limits.per_login:
            return False
        if not guessable or (network, login) in self._trusted:
            return True
        return self._level((network, None), self._limits.per_client, now) + 1.0 <= self._limits.per_client

    def failed(self, client: str, login: str, now: float, *, guessable: bool = True) -> None:
        """Count a failure."""
        network = network_of(client)
        self._add((network, login), self._limits.per_login, now)
        if guessable:
            self._add((network, None), self._limits.per_client, now)

    def succeeded(self, client: str, login: str) -> None:
        """Forget the pair's failures and trust it against others' failures. The client's total stays.

        Else whoever has one good login could guess others for ever.
        """
        pair = (network_of(client), login)
        self._counts.pop(pair, None)
        self._trusted[pair] = None
        self._trusted.move_to_end(pair)
        if len(self._trusted) > self._limits.trusted:
            self._trusted.popitem(last=False)

    def __len__(self) -> int:
        return len(self._counts)

    def _level(self, key: tuple[str, str | None], limit: int, now: float) -> float:
        count, since = self._counts.get(key, (0.0, now))
        return max(0.0, count - (now - since) * limit / self._limits.window)

    def _add(self, key: tuple[str, str | None], limit: int, now: float) -> None:
        # Never above the limit: attempts that ran side by side must not lengthen the wait.
        self._counts[key] = (min(self._level(key, limit, now) + 1.0, limit), now)
        self._counts.move_to_end(key)
        if len(self._counts) > self._limits.entries:
            self._counts.popitem(last=False)


@lru_cache(maxsize=KNOWN_ADDRESSES)
def network_of(client: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64; anything else as it is written."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False).network_address)
    return str(address)
