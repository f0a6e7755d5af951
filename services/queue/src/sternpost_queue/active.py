"""The bounded active set: jobs in memory, by site, fair between tenants, then between lanes. Pure; time is given.

Knows nothing of NATS or workers. A site here is a way to a set of hosts: the same hosts under another rule are another
site.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sternpost_mail.dispatch import Route
from sternpost_mail.envelope import Lane, Mail
from sternpost_mail.retry import RetryPolicy

LANE_TURNS = (Lane.EXPRESS, Lane.EXPRESS, Lane.EXPRESS, Lane.NORMAL, Lane.NORMAL, Lane.BULK)
"""In which order a tenant's lanes are served; an empty lane's turn goes to the next. Bulk is slow, never starved."""

SESSION_SECONDS = 0.1
"""A session should last about so long: its fixed costs are small beside it, and nobody waits long behind it."""
FIRST_GUESS = 0.02
"""Seconds per mail at a site that was not tried yet."""


class ActiveMail:
    """A mail in memory with what is still open of it. Mutable: the one place where a mail's progress is counted."""

    __slots__ = (
        "attempts",
        "delay_reported",
        "doubt",
        "last_reply",
        "mail",
        "moved",
        "open_jobs",
        "record_id",
        "ticket",
    )

    def __init__(self, mail: Mail, record_id: str, ticket: object, attempts: int = 0) -> None:
        self.mail = mail
        self.record_id = record_id
        self.ticket = ticket
        self.attempts = attempts
        """Attempts so far for the recipients that this record holds."""
        self.open_jobs = 0
        self.moved = False
        """Part of it went back to the broker, so its content is still needed."""
        self.delay_reported = False
        self.doubt = False
        self.last_reply = ""


class ActiveJob:
    """One mail for one site."""

    __slots__ = ("addresses", "mail", "recipients", "retry", "site", "size")

    def __init__(
        self,
        mail: ActiveMail,
        site: "Site",
        recipients: tuple[int, ...],
        addresses: tuple[str, ...],
        retry: RetryPolicy,
    ) -> None:
        self.mail = mail
        self.site = site
        self.recipients = recipients
        self.addresses = addresses
        self.retry = retry
        self.size = mail.mail.size


@dataclass(slots=True)
class _Tenant:
    lanes: dict[Lane, deque[ActiveJob]] = field(default_factory=dict)
    turn: int = 0
    count: int = 0

    def push(self, job: ActiveJob, *, front: bool) -> None:
        lane = self.lanes.setdefault(job.mail.mail.lane, deque())
        if front:
            lane.appendleft(job)
        else:
            lane.append(job)
        self.count += 1

    def pop(self) -> ActiveJob:
        for _ in LANE_TURNS:
            lane = self.lanes.get(LANE_TURNS[self.turn])
            self.turn = (self.turn + 1) % len(LANE_TURNS)
            if lane:
                self.count -= 1
                return lane.popleft()
        raise IndexError("no job")

    def pop_newest(self) -> ActiveJob:
        for name in (Lane.BULK, Lane.NORMAL, Lane.EXPRESS):
            lane = self.lanes.get(name)
            if lane:
                self.count -= 1
                return lane.pop()
        raise IndexError("no job")


class Site:
    """The waiting jobs of one site and what is known of its health."""

    __slots__ = (
        "_tenants",
        "_turns",
        "blocked_until",
        "bytes",
        "count",
        "finished",
        "key",
        "mail_seconds",
        "max_sessions",
        "name",
        "rate",
        "route",
        "running",
        "strikes",
        "worker",
    )

    def __init__(self, key: str, name: str, route: Route, max_sessions: int) -> None:
        self.key = key
        self.name = name
        self.route = route
        self.max_sessions = max_sessions
        self.running = 0
        """Sessions that workers hold now."""
        self.blocked_until = 0.0
        """Monotonic seconds before which no session starts: the site refused as a whole."""
        self.strikes = 0
        """Refusals of the whole site in a row."""
        self.worker = ""
        """The worker that served it last: its connection may still be open."""
        self.count = 0
        self.bytes = 0
        self.mail_seconds = FIRST_GUESS
        """How long one mail takes there, smoothed: decides how many mails share a session."""
        self.finished = 0
        """Jobs finished since the rate was last computed."""
        self.rate = 0.0
        """Jobs per second, smoothed."""
        self._tenants: dict[str, _Tenant] = {}
        self._turns: deque[str] = deque()

    def push(self, job: ActiveJob, *, front: bool = False) -> None:
        """Add a job; `front` for one that comes back unharmed (its worker was busy)."""
        name = job.mail.mail.tenant
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant()
            if front:
                self._turns.appendleft(name)
            else:
                self._turns.append(name)
        tenant.push(job, front=front)
        self.count += 1
        self.bytes += job.size

    def pop(self, max_jobs: int, max_bytes: int) -> list[ActiveJob]:
        """Jobs for one session: tenants take turns, one job each. At least one job when there is any."""
        jobs: list[ActiveJob] = []
        total = 0
        while self._turns and len(jobs) < max_jobs and total < max_bytes:
            name = self._turns[0]
            tenant = self._tenants[name]
            job = tenant.pop()
            jobs.append(job)
            total += job.size
            self._turns.popleft()
            if tenant.count:
                self._turns.append(name)
            else:
                del self._tenants[name]
        self.count -= len(jobs)
        self.bytes -= total
        return jobs

    def pop_newest(self, max_jobs: int) -> list[ActiveJob]:
        """The jobs that came last, for parking: who waits longest stays. The tenant with most waiting gives first."""
        jobs: list[ActiveJob] = []
        while self._tenants and len(jobs) < max_jobs:
            name, tenant = max(self._tenants.items(), key=lambda item: item[1].count)
            job = tenant.pop_newest()
            jobs.append(job)
            self.count -= 1
            self.bytes -= job.size
            if not tenant.count:
                del self._tenants[name]
                self._turns.remove(name)
        return jobs

    def session_size(self, most: int) -> int:
        """How many mails the next session should carry.

        Enough to fill SESSION_SECONDS, because a session has costs of its own; more where the backlog asks for it; but
        a slow site's mails are spread over the sessions that it may have.
        """
        filled = int(SESSION_SECONDS / self.mail_seconds) or 1
        spread = -(-self.count // max(self.max_sessions - self.running, 1))
        return min(max(filled, spread), most)

    def learn(self, mails: int, seconds: float) -> None:
        """A session carried so many mails in so many seconds."""
        if mails:
            self.mail_seconds = 0.7 * self.mail_seconds + 0.3 * max(seconds / mails, 0.0001)

    def may_start(self, now: float) -> bool:
        """Whether a session may start now; a site that refused as a whole is asked by one session first."""
        allowed = 1 if self.strikes else self.max_sessions
        return self.count > 0 and self.running < allowed and now >= self.blocked_until


@dataclass(frozen=True, slots=True)
class ActiveLimits:
    """Bounds of the active set (promise P8)."""

    mails: int = 20_000
    """Jobs in memory over all sites, Postfix's figure for its active queue."""
    octets: int = 128 * 1024 * 1024
    """Content in memory over all sites."""
    site_share: float = 0.25
    """Part of either that one site may hold when the set is full and the site is slow."""
    slow_after: float = 30.0
    """Seconds; a site that needs longer to drain what it holds is slow: its surplus is parked when others need room."""


class ActiveSet:
    """All sites with waiting or running jobs."""

    def __init__(self, limits: ActiveLimits) -> None:
        self.limits = limits
        self.sites: dict[str, Site] = {}
        self.jobs = 0
        """Jobs in memory, waiting or in a worker's hands."""
        self.octets = 0
        self._ready: dict[str, None] = {}

    @property
    def is_full(self) -> bool:
        """Whether no more records may be taken."""
        return self.jobs >= self.limits.mails or self.octets >= self.limits.octets

    def site(self, key: str, make: Callable[[], Site]) -> Site:
        """The site of this key, made at first use."""
        found = self.sites.get(key)
        if found is None:
            found = self.sites[key] = make()
        return found

    def add(self, job: ActiveJob) -> None:
        """Take a job into the set."""
        job.site.push(job)
        self.jobs += 1
        self.octets += job.size
        self._ready[job.site.key] = None

    def put_back(self, jobs: list[ActiveJob]) -> None:
        """Jobs that were popped and not sent: they keep their turn."""
        for job in reversed(jobs):
            # A site without jobs and sessions is forgotten, which may have happened while these were looked up.
            job.site = self.sites.setdefault(job.site.key, job.site)
            job.site.push(job, front=True)
            self._ready[job.site.key] = None

    def remove(self, job: ActiveJob) -> None:
        """A popped job is finished or moved away."""
        self.jobs -= 1
        self.octets -= job.size
        job.site.finished += 1

    def wake(self, site: Site) -> None:
        """Something changed for a site: look at it again."""
        if site.count:
            self._ready[site.key] = None

    def startable(self, now: float) -> Iterator[Site]:
        """Sites that may start a session now, each once; those that may not wait until something wakes them."""
        for key in list(self._ready):
            site = self.sites[key]
            if site.may_start(now):
                del self._ready[key]
                self._ready[key] = None  # to the end: sites take turns
                yield site
            else:
                del self._ready[key]

    def tick(self, now: float, seconds: float) -> None:
        """Once per period: smooth the rates, wake sites whose block ended, forget idle ones."""
        for key in list(self.sites):
            site = self.sites[key]
            site.rate = 0.5 * site.rate + 0.5 * site.finished / seconds
            site.finished = 0
            if site.count:
                self._ready[key] = None
            elif not site.running and now >= site.blocked_until and not site.rate > 0.01:
                del self.sites[key]
                self._ready.pop(key, None)

    def surplus(self, now: float) -> list[ActiveJob]:
        """Jobs to park: of slow or blocked sites beyond their share, when the set is full. They are popped."""
        if not self.is_full:
            return []
        share_jobs = max(int(self.limits.mails * self.limits.site_share), 1)
        share_octets = self.limits.octets * self.limits.site_share
        parked: list[ActiveJob] = []
        for site in self.sites.values():
            over = max(site.count - share_jobs, 0)
            if not over and site.bytes > share_octets:
                over = max(int(site.count * (1 - share_octets / site.bytes)), 1)
            blocked = site.blocked_until - now > self.limits.slow_after
            if over and (blocked or site.rate <= 0 or site.count / site.rate > self.limits.slow_after):
                parked += site.pop_newest(over)
        return parked
