"""Values and a fake client's world for delivery's tests."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sternpost_delivery.budget import Budget
from sternpost_delivery.client import Patience, TlsContexts, make_tls_contexts
from sternpost_delivery.policy import Endpoint
from sternpost_delivery.pool import Pool
from sternpost_delivery.resolve import Resolver
from sternpost_delivery.session import ContentUnavailable, Hands, SessionRun, Settled
from sternpost_mail.dispatch import Job, JobRecipient, Route, SiteSession
from sternpost_mail.outcome import Outcome
from sternpost_mail.route import SmartHost, TlsDemand

CONTENT = b"From: a@example.com\r\nSubject: hello\r\n\r\nHello.\r\n"
PATIENCE = Patience(*[5.0] * 10)


def make_job(
    number: int = 1,
    recipients: Sequence[str] = ("user@example.net",),
    content: bytes = CONTENT,
    **changes: object,
) -> Job:
    """A job with these recipients."""
    job = Job(
        mail_id=f"mail{number}",
        record_id="record1",
        tenant="team",
        sender="a@example.com",
        recipients=tuple(JobRecipient(index, address) for index, address in enumerate(recipients)),
        content=content,
        content_ref="",
        size=len(content),
        accepted_ms=1,
        attempt=1,
    )
    return replace(job, **changes)  # type: ignore[arg-type]  # fields by name, as data of a test


def route_to(*ports: int, tls: TlsDemand = TlsDemand.DISABLED, host: str = "127.0.0.1", username: str = "") -> Route:
    """Smart hosts on loopback, in order."""
    hops = tuple(SmartHost(host, port, tls, username=username) for port in ports)
    return Route(smart_hosts=hops, allow_forbidden_addresses=True)


@dataclass
class World:
    """What a session needs, with everything that a test may want to look at or turn."""

    resolver: Resolver = field(default_factory=lambda: Resolver(nameservers=["127.0.0.1:9"]))
    pool: Pool = field(default_factory=lambda: Pool(idle_seconds=5, max_idle=10, lifetime=300, max_mails=1000))
    patience: Patience = PATIENCE
    contexts: TlsContexts = field(default_factory=make_tls_contexts)
    objects: dict[str, bytes] = field(default_factory=dict)
    large: Budget = field(default_factory=lambda: Budget(1 << 20))
    lease: bool = True
    settled: list[Settled] = field(default_factory=list)

    def hands(self) -> Hands:
        """The session's view."""

        async def fetch(reference: str) -> bytes:
            if reference not in self.objects:
                raise ContentUnavailable("the content is not there")
            return self.objects[reference]

        def open_password(_endpoint: Endpoint) -> str:
            return "secret"

        return Hands(
            self.resolver,
            self.pool,
            self.patience,
            "client.test",
            self.contexts,
            fetch,
            open_password,
            self.large,
        )

    async def run(self, route: Route, *jobs: Job, site: str = "site") -> SessionRun:
        """One session to its end."""
        run = SessionRun(
            SiteSession("session", "queue", site, route, jobs),
            self.hands(),
            has_lease=lambda: self.lease,
            settle=self.settled.append,
        )
        await run.run()
        return run

    def outcomes(self) -> dict[str, tuple[Outcome, ...]]:
        """By mail id."""
        return {one.job.mail_id: one.outcomes for one in self.settled}


def trusting(context: ssl.SSLContext) -> TlsContexts:
    """TLS that verifies by this context."""
    return TlsContexts(make_tls_contexts().unverified, context)
