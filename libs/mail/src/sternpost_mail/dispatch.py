"""What the queue hands to a delivery worker and what comes back: the seam between the brain and the hands."""

from dataclasses import dataclass
from enum import StrEnum

from sternpost_mail.envelope import Ret
from sternpost_mail.events import Result
from sternpost_mail.route import SmartHost, TlsDemand


@dataclass(frozen=True, slots=True)
class JobRecipient:
    """One open recipient of a job. `index` points into the mail's envelope."""

    index: int
    address: str
    notify: int = 0
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One mail for one site: transmit it to these recipients in one transaction."""

    mail_id: str
    record_id: str
    tenant: str
    sender: str
    recipients: tuple[JobRecipient, ...]
    content: bytes
    content_ref: str
    size: int
    accepted_ms: int
    attempt: int
    """1 for the first."""
    ret: Ret = Ret.DEFAULT
    envid: str = ""
    eight_bit: bool = False
    smtputf8: bool = False
    identity: str = ""
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    facts: bytes = b""


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a site: the recipient domain's MX (`domain`), or the smart hosts of a rule in order of preference."""

    domain: str = ""
    smart_hosts: tuple[SmartHost, ...] = ()
    tls: TlsDemand = TlsDemand.OPPORTUNISTIC
    allow_forbidden_addresses: bool = False


@dataclass(frozen=True, slots=True)
class SiteSession:
    """A request to one worker: up to a few jobs for one site, to be sent over one connection, one after the other."""

    id: str
    queue: str
    """The queue instance that holds the jobs: where results go, and whose lease must be alive before a final dot."""
    site: str
    route: Route
    jobs: tuple[Job, ...]


class Answer(StrEnum):
    """A worker's immediate answer to a session request."""

    TAKEN = "taken"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class JobResult:
    """The end of one job: one result per recipient of the job, already durable in EVENTS.

    `retry_after` is the longest wish of the remote, in seconds.
    """

    mail_id: str
    results: tuple[Result, ...]
    retry_after: float = 0.0
    dsn_passed_on: bool = False
    """The next hop offered DSN, so reports of success are its duty now (RFC 3461 §5.2.2)."""


@dataclass(frozen=True, slots=True)
class SessionResult:
    """Results of jobs of one session; a session may report in several parts. `done` marks the last."""

    session: str
    worker: str
    results: tuple[JobResult, ...]
    done: bool
    site_down: bool = False
    """The whole site refuses for now (no connection, or 421): wait before the next session."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker tells every queue every two seconds: that it lives, what room it has, what it holds."""

    worker: str
    capacity: int
    """Sessions that it may have at once."""
    sessions: tuple[str, ...]
    """Ids of the sessions that it holds."""
    held_mails: tuple[str, ...] = ()
    """`mail id/site` of jobs in its hands; only in the answer to a question what it holds."""


@dataclass(frozen=True, slots=True)
class SiteAnswer:
    """The site of a recipient domain. `name` is the sorted MX set, or the domain where it could not be resolved."""

    domain: str
    name: str
    ttl: float
    """Seconds for which the answer may be kept."""
