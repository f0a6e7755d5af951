"""Real SMTP doors on real sockets, with a spool that only remembers and a configuration made by hand."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import trustme
import uvloop

from sternpost_ingress.settings import Settings
from sternpost_ingress.smtp_server import SmtpServer
from sternpost_ingress.smtp_tls import Certificates
from sternpost_mail.config import Certificate, Config, Domain, build_config
from sternpost_mail.envelope import Mail
from sternpost_mail.identity import Identity, Verdict, VerifyReply
from sternpost_mail.route import Action, Match, RelayRule
from sternpost_runtime.sealed import generate_keypair, seal

T = ParamSpec("T")

NAMESPACE = "sternpost"
HOSTNAME = "mx.sternpost.test"
PRIVATE_KEY, PUBLIC_KEY = generate_keypair()
AUTHORITY = trustme.CA()

LOGINS = {
    ("alice", "wonderland"): Identity("team-a", "alice", ()),
    ("robot", "beep"): Identity("team-a", "robot", ("robot@example.test",)),
    ("bob", "builder"): Identity("team-b", "bob", ()),
}


@dataclass
class FakeSpool:
    """Remembers mails. `failure` is raised instead; `gate`, when set, is awaited before anything happens."""

    mails: list[Mail] = field(default_factory=list)
    failure: Exception | None = None
    gate: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, mail: Mail) -> None:
        """Accept, or raise `failure`."""
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.mails.append(mail)


async def fake_identify(login: str, secret: str, client: str) -> VerifyReply:
    """Grants LOGINS; `unreachable` cannot be verified, `fault` raises."""
    if login == "unreachable":
        return VerifyReply(Verdict.UNAVAILABLE)
    if login == "fault":
        raise RuntimeError("a fault that nobody may read in a reply")
    identity = LOGINS.get((login, secret))
    return VerifyReply(Verdict.GRANTED, identity) if identity else VerifyReply(Verdict.DENIED)


def make_certificate(name: str, *names: str) -> Certificate:
    """A certificate of the test authority, its key sealed as the compiler seals it."""
    issued = AUTHORITY.issue_cert(*names)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    key = seal(PUBLIC_KEY, issued.private_key_pem.bytes(), f"tls/{NAMESPACE}/{name}")
    return Certificate(NAMESPACE, name, names, chain, key)


def make_config(*, certificates: bool = True) -> Config:
    """Two tenants with a domain each; the network 127.0.0.2 may relay by the MX door."""
    relay = RelayRule(NAMESPACE, "old-machines", 0, Match(networks=("127.0.0.2/32",)), Action.DIRECT)
    never = RelayRule("team-a", "never", 0, Match(recipients=("forbidden.test",)), Action.REJECT)
    resources: list[Any] = [
        Domain("team-a", "example", "example.test"),
        Domain("team-b", "other", "other.test"),
        relay,
        never,
    ]
    if certificates:
        resources.append(make_certificate("a-default", HOSTNAME))
        resources.append(make_certificate("b-second", "second.test", "*.wild.test"))
    return build_config(resources, 1, NAMESPACE)


@dataclass
class RunningDoors:
    """Doors that are open."""

    server: SmtpServer
    spool: FakeSpool
    certificates: Certificates
    config: Config

    def port(self, door: str) -> int:
        """Where a door listens."""
        return next(port for known, port in self.server.ports.items() if known.value == door)


@asynccontextmanager
async def running_doors(config: Config | None = None, **settings: Any) -> AsyncIterator[RunningDoors]:
    """The three doors on free ports of loopback, with these settings."""
    config = config if config is not None else make_config()
    spool = FakeSpool()
    certificates = Certificates(PRIVATE_KEY)
    certificates.update(config)
    wanted = {"mx_port": 0, "submission_port": 0, "submissions_port": 0, "hostname": HOSTNAME, **settings}
    server = SmtpServer(
        Settings(**wanted),
        spool=spool,
        identify=fake_identify,
        config=lambda: doors.config,
        certificates=certificates,
    )
    doors = RunningDoors(server, spool, certificates, config)
    await server.start()
    try:
        yield doors
    finally:
        await server.drain(0.2)


def on_uvloop(test: Callable[T, Coroutine[Any, Any, None]]) -> Callable[T, None]:
    """Run a test on the loop that serves in production: it calls protocols in another order than asyncio's own."""

    @functools.wraps(test)
    def run(*args: T.args, **kwargs: T.kwargs) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*args, **kwargs))

    return run
