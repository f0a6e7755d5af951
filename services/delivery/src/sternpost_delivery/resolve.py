"""From a recipient domain to addresses: MX, null MX, A and AAAA, with a bounded cache (RFC 5321 §5.1, RFC 7505).

It knows DNS and which hosts are ourselves. Which address may be connected to is `policy.is_forbidden`; TLS, ports and
retry are decided elsewhere.
"""

import asyncio
import hashlib
import ipaddress
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from cachetools import TLRUCache

from sternpost_delivery.policy import Endpoint, endpoints, is_forbidden
from sternpost_mail.dispatch import Route, SiteAnswer
from sternpost_mail.outcome import Outcome, PermanentFailure, Unreached
from sternpost_mail.reply import Reply

MAX_HOSTS = 5
"""MX hosts tried in one attempt: RFC 5321 §5.1 asks for at least two; a domain with more is protected well enough."""
MAX_ADDRESSES = 10
"""Addresses tried in one attempt, of all hosts together: each may cost a connect timeout."""
MIN_TTL = 5.0
"""Seconds; a TTL of 0 would mean a query per mail."""
MAX_TTL = 3600.0
"""Seconds; a domain that moves its mail is followed within the hour."""
FAILURE_TTL = 5.0
"""Seconds for which SERVFAIL and timeouts are remembered, so that a dead zone is not asked for each mail."""
MAX_SITE_NAME = 200
"""Characters of a site name that are readable; a longer set of hosts is named by its hash."""
UNROUTABLE_PREFIX = "unroutable/"
"""Sites of domains without a usable answer are kept apart: such a domain may also be the name of another's MX host."""


class ResolveFailed(Exception):
    """There is no address to connect to now (`outcome` is Unreached) or ever (PermanentFailure)."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class MailExchangers:
    """The MX answer of a domain: (preference, host) pairs in no order, and how long it may be kept, in seconds."""

    hosts: tuple[tuple[int, str], ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class _Known:
    """A cached answer or failure. `expires` is on the clock of `time.monotonic`."""

    value: Any
    failure: Outcome | None
    expires: float


class Resolver:
    """Resolves and remembers. One per process; one query per name is in flight, however many sessions ask."""

    def __init__(
        self,
        *,
        nameservers: Sequence[str] = (),
        own_names: Iterable[str] = (),
        own_addresses: Iterable[str] = (),
        lifetime: float = 15.0,
        cache_size: int = 10_000,
        prefer_ipv6: bool = False,
        smtp_port: int = 25,
    ) -> None:
        """`nameservers` are `address[:port]`, none for the system's; `lifetime` bounds one answer, in seconds."""
        self._dns = dns.asyncresolver.Resolver(configure=not nameservers)
        if nameservers:
            self._dns.nameservers = [_nameserver(text) for text in nameservers]
        self._dns.lifetime = lifetime
        self._own_names = frozenset(name.rstrip(".").lower() for name in own_names)
        self._own_addresses = frozenset(str(ipaddress.ip_address(address)) for address in own_addresses)
        self._families = ("AAAA", "A") if prefer_ipv6 else ("A", "AAAA")
        self._smtp_port = smtp_port
        self._cache: TLRUCache[tuple[str, str], _Known] = TLRUCache(
            cache_size, ttu=lambda _key, known, _now: known.expires, timer=time.monotonic
        )
        self._asking: dict[tuple[str, str], asyncio.Task[_Known]] = {}

    async def site(self, domain: str) -> SiteAnswer:
        """The name under which a domain's mail is queued: its MX set (one provider, shared sessions)."""
        try:
            found = await self.exchangers(domain)
        except ResolveFailed as failed:
            ttl = FAILURE_TTL if isinstance(failed.outcome, Unreached) else 60.0
            return SiteAnswer(domain, UNROUTABLE_PREFIX + domain, ttl)
        name = ",".join(sorted({host for _, host in found.hosts}))
        if len(name) > MAX_SITE_NAME:
            name = f"mx-{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
        return SiteAnswer(domain, name, found.ttl)

    async def targets(self, route: Route) -> AsyncGenerator[tuple[Endpoint, str]]:
        """The endpoints and addresses of a route in the order in which they are tried, resolved one host at a time.

        Raises ResolveFailed, before the first only, where there is nothing to try.
        """
        hosts = [] if route.smart_hosts else await self._route_hosts(route.domain)
        troubles: list[Outcome] = []
        count = 0
        for endpoint in endpoints(route, hosts, smtp_port=self._smtp_port)[:MAX_HOSTS]:
            try:
                found = await self.addresses(endpoint.host)
            except ResolveFailed as failed:
                troubles.append(failed.outcome)
                continue
            if hosts and self._own_addresses.intersection(found):
                troubles.append(_loop(endpoint.host))
                break  # we are this mail exchanger: those after it are no better than ourselves (RFC 5321 §5.1)
            allowed = [one for one in found if route.allow_forbidden_addresses or not is_forbidden(one)]
            if not allowed:
                troubles.append(_forbidden(endpoint.host))
            for address in allowed:
                if count >= MAX_ADDRESSES:
                    return
                count += 1
                yield endpoint, address
        if not count:
            raise ResolveFailed(_worst(troubles))

    async def exchangers(self, domain: str) -> MailExchangers:
        """The MX hosts of a domain, or the domain itself where it has an address but no MX. Raises ResolveFailed.

        An address literal is its own host.
        """
        if domain.startswith("["):
            return MailExchangers(((0, _literal(domain) or domain),), MAX_TTL)
        known = await self._ask(domain, "MX", self._find_exchangers)
        found: MailExchangers = known.value
        return MailExchangers(found.hosts, max(known.expires - time.monotonic(), 0.0))

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a host in the order of the families wanted, as texts. Raises ResolveFailed."""
        literal = _literal(host)
        if literal:
            return (literal,)
        found: list[str] = []
        trouble: Outcome | None = None
        for answer in await asyncio.gather(
            *(self._ask(host, family, self._find_addresses) for family in self._families), return_exceptions=True
        ):
            if isinstance(answer, ResolveFailed):
                if isinstance(answer.outcome, Unreached):
                    trouble = answer.outcome
            elif isinstance(answer, BaseException):
                raise answer
            elif answer.value:
                chosen = list(answer.value)
                random.shuffle(chosen)
                found += chosen
        if not found:
            raise ResolveFailed(trouble or _permanent("5.4.4", f"{host} has no address"))
        return tuple(found)

    # -- inside

    async def _route_hosts(self, domain: str) -> list[str]:
        found = await self.exchangers(domain)
        shuffled = random.sample(found.hosts, len(found.hosts))  # RFC 5321 §5.1: equal preferences are spread at random
        shuffled.sort(key=lambda pair: pair[0])
        ours = [preference for preference, host in shuffled if host in self._own_names]
        hosts = [host for preference, host in shuffled if not ours or preference < min(ours)]
        if not hosts:
            raise ResolveFailed(_loop(domain))
        return hosts

    async def _find_exchangers(self, domain: str, _kind: str) -> tuple[MailExchangers, float]:
        try:
            answer = await self._dns.resolve(domain, "MX", search=False)
        except dns.resolver.NoAnswer:
            await self.addresses(domain)  # raises where there is neither MX nor address
            return MailExchangers(((0, domain.lower()),), 0.0), 300.0
        pairs = [(int(record.preference), _text(record.exchange)) for record in answer]
        hosts = tuple((preference, host) for preference, host in pairs if host)
        if not hosts:
            failure = _permanent("5.1.10", f"{domain} does not accept mail (null MX, RFC 7505)", code=556)
            raise ResolveFailed(failure)
        return MailExchangers(hosts, 0.0), _ttl(answer)

    async def _find_addresses(self, host: str, kind: str) -> tuple[tuple[str, ...], float]:
        try:
            answer = await self._dns.resolve(host, kind, search=False)
        except dns.resolver.NoAnswer:
            return (), 60.0
        return tuple(str(record.address) for record in answer), _ttl(answer)

    async def _ask(
        self, name: str, kind: str, find: Callable[[str, str], Coroutine[Any, Any, tuple[Any, float]]]
    ) -> _Known:
        key = (name.lower(), kind)
        known = self._cache.get(key)
        if known is None:
            task = self._asking.get(key)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._look_up(key, find))
                self._asking[key] = task
                task.add_done_callback(lambda _: self._asking.pop(key, None))
            known = await asyncio.shield(task)
        if known.failure is not None:
            raise ResolveFailed(known.failure)
        return known

    async def _look_up(
        self, key: tuple[str, str], find: Callable[[str, str], Coroutine[Any, Any, tuple[Any, float]]]
    ) -> _Known:
        name, kind = key
        failure: Outcome | None = None
        value: Any = None
        ttl = 60.0
        try:
            value, ttl = await find(name, kind)
        except ResolveFailed as failed:
            failure = failed.outcome
        except dns.resolver.NXDOMAIN:
            failure = _permanent("5.1.2", f"{name} does not exist")
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape):
            failure = _permanent("5.1.2", f"{name} is not a domain name")
        except dns.exception.Timeout:
            failure = Unreached(f"no nameserver answered in time for {name} ({kind})")
        except (dns.exception.DNSException, OSError, EOFError) as error:
            reason = "nameservers failed" if isinstance(error, dns.resolver.NoNameservers) else type(error).__name__
            failure = Unreached(f"{name} ({kind}) cannot be resolved now: {reason}")
        if isinstance(failure, Unreached):
            ttl = FAILURE_TTL
        known = _Known(value, failure, time.monotonic() + min(max(ttl, MIN_TTL), MAX_TTL))
        self._cache[key] = known
        return known


def _nameserver(text: str) -> str | dns.nameserver.Nameserver:
    """`192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53` or `[2001:db8::53]:5353`."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        host, _, port = text.rpartition(":")
        return dns.nameserver.Do53Nameserver(str(ipaddress.ip_address(host.strip("[]"))), int(port))


def _literal(host: str) -> str:
    """The address in `192.0.2.1`, `[192.0.2.1]` or `[IPv6:2001:db8::1]`, empty for a name."""
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    try:
        return str(ipaddress.ip_address(inner))
    except ValueError:
        return ""


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)).lower().rstrip(".")


def _ttl(answer: Any) -> float:
    return float(answer.chaining_result.minimum_ttl)


def _permanent(enhanced: str, text: str, *, code: int = 550) -> PermanentFailure:
    return PermanentFailure(Reply(code, enhanced, text))


def _loop(name: str) -> PermanentFailure:
    return _permanent("5.4.6", f"mail for {name} loops back to us", code=554)


def _forbidden(host: str) -> PermanentFailure:
    return _permanent("5.4.4", f"{host} has only addresses that mail may not be sent to (private or reserved)")


def _worst(troubles: Sequence[Outcome]) -> Outcome:
    """What to say when no host could be tried: temporary if any of them might be there later."""
    for trouble in troubles:
        if isinstance(trouble, Unreached):
            return trouble
    return troubles[0] if troubles else Unreached("the route names no host")
