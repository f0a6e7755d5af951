"""One site session: find a connection, send the jobs over it one after the other, tell each recipient's outcome.

It knows hosts, connections and mails, but no broker: jobs come in, outcomes go out by a callback. Retry is the queue's
decision; here only a mail whose content was never sent moves on to another connection or host.
"""

import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from dataclasses import dataclass

from sternpost_delivery.budget import Budget
from sternpost_delivery.classify import Stage, classify, judge
from sternpost_delivery.client import (
    AfterDot,
    BadEnvelope,
    Client,
    LeaseLost,
    Patience,
    Refused,
    TlsContexts,
    Transaction,
    WhileSending,
    open_client,
)
from sternpost_delivery.connection import CLOSING_CODE, ConnectionFailed, TlsFailed
from sternpost_delivery.policy import Endpoint, may_fall_back_to_clear, refuse_mail
from sternpost_delivery.pool import Pool
from sternpost_delivery.resolve import ResolveFailed, Resolver
from sternpost_mail.address import AddressError, parse_address
from sternpost_mail.dispatch import Job, SiteSession
from sternpost_mail.outcome import Outcome, PermanentFailure, TemporaryFailure, Unreached
from sternpost_mail.reply import Reply

MAX_LOSSES = 2
"""Connections that may be lost in a row over mails that had begun: one such mail may be the reason itself, two are the
site's trouble."""


class ContentUnavailable(Exception):
    """The content of a large mail cannot be read now; the text is fit for a timeline."""


class PasswordUnavailable(Exception):
    """The password for a smart host cannot be opened; the text is fit for a timeline."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What every session of a process shares."""

    resolver: Resolver
    pool: Pool
    patience: Patience
    ehlo_name: str
    contexts: TlsContexts
    fetch: Callable[[str], Awaitable[bytes]]
    """Reads a large content by its reference. Raises ContentUnavailable."""
    open_password: Callable[[Endpoint], str]
    """Raises PasswordUnavailable."""
    large: Budget
    """Octets of large contents in memory."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The end of one job: an outcome per recipient, in the job's order."""

    job: Job
    outcomes: tuple[Outcome, ...]
    at_ms: int
    """When it ended, milliseconds since the epoch."""
    duration: float
    """Seconds."""
    remote: str = ""
    tls: str = ""
    reused: bool = False
    """Whether it went over a connection that had carried a mail before."""
    dsn_passed_on: bool = False
    """Whether the next hop offered DSN and so took over the sender's wishes for reports."""


class SessionRun:
    """Carries out one SiteSession. Jobs that it did not settle were never begun, or are known not delivered."""

    def __init__(
        self,
        session: SiteSession,
        hands: Hands,
        *,
        has_lease: Callable[[], bool],
        settle: Callable[[Settled], None],
    ) -> None:
        self.site_down = False
        self._route = session.route
        self._hands = hands
        self._has_lease = has_lease
        self._tell = settle
        self._jobs: deque[Job] = deque(session.jobs)
        route = session.route
        self._key: Hashable = (session.site, route.smart_hosts, route.tls, route.allow_forbidden_addresses)
        self._stopping = False
        self._client: Client | None = None
        self._ahead: Transaction | None = None
        self._began = 0.0
        self._reserved = 0
        self._targets: AsyncGenerator[tuple[Endpoint, str]] | None = None
        self._target: tuple[Endpoint, str] | None = None
        self._again = False
        self._trouble: Outcome = Unreached("the route names no host")
        self._remote = ""
        self._losses = 0

    def stop(self) -> None:
        """Begin no further mail; the one in hand is finished."""
        self._stopping = True

    def abort(self) -> None:
        """End now: the mail in hand is settled as what is known of it."""
        self._stopping = True
        if self._client is not None:
            self._client.abort()

    async def run(self) -> None:
        """Until every job is settled, or the lease is lost, or it was stopped."""
        try:
            while self._jobs and not self._stopping and self._has_lease():
                client = await self._connect()
                if client is None:
                    return
                self._client = client
                await self._serve(client)
                self._client = None
                self._hands.pool.give(self._key, client)
        finally:
            if self._client is not None:
                self._client.abort()
            if self._targets is not None:
                await self._targets.aclose()
            self._release()

    # -- connecting

    async def _connect(self) -> Client | None:
        """An open connection; None after every remaining job was settled because there is none."""
        self._began = time.monotonic()
        if self._targets is None:
            client = self._hands.pool.take(self._key)
            if client is not None:
                return client
            self._targets = self._hands.resolver.targets(self._route)
        try:
            while True:
                if not self._again or self._target is None:
                    self._target = await anext(self._targets)
                self._again = False
                client = await self._open(*self._target)
                if client is not None:
                    return client
        except StopAsyncIteration:
            self._fail_rest(self._trouble)
        except ResolveFailed as failed:
            self._fail_rest(failed.outcome)
        return None

    async def _open(self, endpoint: Endpoint, address: str) -> Client | None:
        self._remote = f"{endpoint.host} [{address}]:{endpoint.port}"
        hands = self._hands
        try:
            password = hands.open_password(endpoint) if endpoint.username else ""
            for clear_text_only in (False, True):
                try:
                    return await open_client(
                        endpoint,
                        address,
                        patience=hands.patience,
                        ehlo_name=hands.ehlo_name,
                        contexts=hands.contexts,
                        password=password,
                        clear_text_only=clear_text_only,
                    )
                except TlsFailed:
                    if clear_text_only or not may_fall_back_to_clear(endpoint):
                        raise
        except ConnectionFailed as error:
            self._note(error)
        except Refused as refused:
            self._trouble = classify(refused.stage, refused.reply)
        except PasswordUnavailable as error:
            self._trouble = TemporaryFailure(Reply(454, "4.7.0", str(error)))
        return None

    def _note(self, error: ConnectionFailed) -> None:
        goodbye = error.reply
        self._trouble = classify(Stage.GREETING, goodbye) if goodbye is not None else Unreached(error.reason)

    def _fail_rest(self, outcome: Outcome) -> None:
        permanent = isinstance(outcome, PermanentFailure)
        self.site_down = not permanent or bool(self._route.smart_hosts)
        while self._jobs:
            job = self._jobs.popleft()
            if permanent:
                outcomes = tuple(self._own_or_later(recipient.address, outcome) for recipient in job.recipients)
            else:
                outcomes = (outcome,) * len(job.recipients)
            self._settle(job, outcomes, None)

    def _own_or_later(self, address: str, outcome: Outcome) -> Outcome:
        """What DNS says for good of the route's domain says nothing of another domain that shared its site."""
        try:
            domain = parse_address(address).domain
        except AddressError:
            domain = ""
        if self._route.smart_hosts or domain != self._route.domain:
            return Unreached(f"the route is gone, it is looked up again ({_reason(outcome)})")
        return outcome

    # -- sending

    async def _serve(self, client: Client) -> None:
        mail = await self._next(client)
        while mail is not None:
            self._ahead = None
            reused = client.mails > 0
            try:
                answers = await client.transmit(mail, self._has_lease, self._look_ahead)
            except (AfterDot, WhileSending) as error:
                self._settle(mail.job, (Unreached(error.reason),) * len(mail.job.recipients), client, reused)
                self._lost(client, error)
                return
            except LeaseLost:
                self._jobs.clear()
                return
            except ConnectionFailed as error:
                self._jobs.appendleft(mail.job)
                self._before_content(client, error)
                return
            outcomes = judge(answers.mail, answers.recipients, answers.data, answers.final, len(mail.job.recipients))
            self._settle(mail.job, outcomes, client, reused)
            if not client.is_usable:
                self._lost(client, answers.final)
                return
            self._losses = 0
            self._began = time.monotonic()
            mail = self._ahead or await self._next(client)

    def _look_ahead(self) -> Transaction | None:
        """The next mail, where it is at hand without waiting."""
        while self._jobs and not self._stopping and not self._jobs[0].content_ref and self._client is not None:
            job = self._jobs.popleft()
            self._ahead = self._prepare(self._client, job, job.content)
            if self._ahead is not None:
                return self._ahead
        return None

    async def _next(self, client: Client) -> Transaction | None:
        while self._jobs and not self._stopping and self._has_lease() and client.is_usable:
            job = self._jobs.popleft()
            content = job.content
            if job.content_ref:
                await self._hands.large.reserve(job.size)
                self._reserved = job.size
                try:
                    content = await self._hands.fetch(job.content_ref)
                except ContentUnavailable as error:
                    self._settle(job, (Unreached(str(error)),) * len(job.recipients), None)
                    continue
            mail = self._prepare(client, job, content)
            if mail is not None:
                return mail
        return None

    def _prepare(self, client: Client, job: Job, content: bytes) -> Transaction | None:
        refusal = refuse_mail(job, content, client.extensions)
        if refusal is None:
            try:
                return client.prepare(job, content)
            except BadEnvelope as error:
                refusal = PermanentFailure(Reply(553, "5.1.3", str(error)))
        self._settle(job, (refusal,) * len(job.recipients), client)
        return None

    def _before_content(self, client: Client, error: ConnectionFailed) -> None:
        """Nothing of the mail in hand was sent: it goes over another connection, or to another host."""
        if self._ahead is not None:
            self._jobs.insert(1, self._ahead.job)
        self._release()
        self._remote = client.remote
        self._note(error)
        self._again = client.mails > 0  # it worked before: the server's limit of mails or time, not trouble

    def _lost(self, client: Client, last: ConnectionFailed | Reply | None) -> None:
        """The connection ended with or after the mail in hand, which is settled. `last` is its end or last reply."""
        if self._ahead is not None:
            self._jobs.appendleft(self._ahead.job)
        self._again = True
        self._remote = client.remote
        if isinstance(last, Reply) and last.code != CLOSING_CODE:
            self._losses = 0  # it answered properly and hung up: some take one mail per connection
            return
        self._losses += 1
        if isinstance(last, Reply):
            self._note(ConnectionFailed("the server said goodbye", last))
        else:
            self._note(last or ConnectionFailed("the server closed the connection"))
        if self._losses >= MAX_LOSSES:
            self._fail_rest(self._trouble)
        self.site_down = not self._jobs

    def _settle(self, job: Job, outcomes: tuple[Outcome, ...], client: Client | None, reused: bool = False) -> None:
        if self._reserved:
            self._release()
        self._tell(
            Settled(
                job,
                outcomes,
                time.time_ns() // 1_000_000,
                time.monotonic() - self._began,
                client.remote if client is not None else self._remote,
                client.tls if client is not None else "",
                reused,
                client is not None and "DSN" in client.extensions,
            )
        )

    def _release(self) -> None:
        if self._reserved:
            self._hands.large.release(self._reserved)
            self._reserved = 0


def _reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, Unreached) else str(outcome.reply)
