"""Carries out what follows from results: delivered, again later, bounced, expired, cancelled, held. Thin: it acts.

A mail's ticket is told only when whatever follows is durable, so a crash at any line means that the record comes again.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import structlog

from sternpost_mail.envelope import DeferRecord, DeferredMail, Door, Envelope, Facts, Lane, Mail, Recipient
from sternpost_mail.events import EventKind, OutcomeKind, Result
from sternpost_mail.retry import DEFAULT_RETRY, RetryPolicy
from sternpost_mail.states import State
from sternpost_queue import telemetry
from sternpost_queue.active import ActiveJob, ActiveMail
from sternpost_queue.bounce import Action, Report, make_report
from sternpost_queue.journal import Journal, Waiting, make_event, make_results, new_id, now_ms
from sternpost_queue.schedule import (
    Next,
    decide,
    expiry_ms,
    wants_delay_report,
    wants_failure_report,
    wants_success_report,
)
from sternpost_runtime.bus import Bus, BusError
from sternpost_runtime.codec import encode_defer_record, encode_facts
from sternpost_runtime.subjects import due_subject

log = structlog.get_logger()

REPORT_LANE = Lane.NORMAL
"""Reports travel as ordinary mail: neither before people's mail nor behind bulk."""
REPORT_LIFETIME_MS = 5 * 86_400_000
"""How long a report is tried."""


class Settler:
    """Ends jobs. `finished(mail)` is called when a mail has no open job left in its record."""

    def __init__(self, journal: Journal, bus: Bus, hostname: str, finished: Callable[[ActiveMail], None]) -> None:
        self._journal = journal
        self._bus = bus
        self._hostname = hostname
        self._finished = finished

    def delivered(self, job: ActiveJob, results: Mapping[int, Result]) -> bool:
        """The common end, without any await: all delivered and nobody asked to be told. True when it applied."""
        mail = job.mail
        if mail.doubt or mail.mail.content_ref:
            return False
        recipients = mail.mail.envelope.recipients
        for index in job.recipients:
            result = results.get(index)
            if result is None or result.outcome is not OutcomeKind.DELIVERED or recipients[index].notify & 2:
                return False
        telemetry.recipients_decided("delivered", len(job.recipients))
        self._close(mail)
        return True

    async def settle(
        self, job: ActiveJob, results: Mapping[int, Result], *, retry_after: float = 0.0, dsn_passed_on: bool = False
    ) -> None:
        """Whatever follows from a job's results, recipient by recipient. A recipient without result is tried again."""
        mail = job.mail
        present = now_ms()
        expires = expiry_ms(job.retry, mail.mail.accepted_ms, mail.mail.expires_ms, mail.mail.not_before_ms)
        groups: dict[Next, list[int]] = {}
        for index in job.recipients:
            groups.setdefault(decide(results.get(index), now_ms=present, expires_ms=expires), []).append(index)
        done = groups.get(Next.DONE, [])
        telemetry.recipients_decided("delivered", len(done))
        if done and not dsn_passed_on:
            await self._report_success(mail, done, results)
        if failed := groups.get(Next.BOUNCE):
            await self.bounce(mail, {index: results[index].reply for index in failed})
        if late := groups.get(Next.EXPIRE):
            await self.expire(mail, {index: _reply(results, index, mail.last_reply) for index in late})
        if again := groups.get(Next.RETRY):
            replies = {index: _reply(results, index, mail.last_reply) for index in again}
            tried = any(index in results for index in again)
            await self.retry(mail, replies, job.site.name, job.retry, retry_after, expires, tried=tried)
        self._close(mail)

    async def retry(
        self,
        mail: ActiveMail,
        replies: Mapping[int, str],
        site: str,
        policy: RetryPolicy,
        retry_after: float,
        expires: int,
        *,
        tried: bool,
        moment_ms: int = 0,
    ) -> None:
        """Put recipients back to the broker until their next attempt."""
        telemetry.recipients_decided("retry", len(replies))
        attempts = mail.attempts + (1 if tried else 0)
        mail.moved = True
        delay_reported = mail.delay_reported or await self._report_delay(mail, replies, policy, expires)
        last = next(iter(replies.values()), "") or mail.last_reply
        deferred = DeferredMail(mail.mail, mail.record_id, tuple(replies), attempts, delay_reported, last)
        moment = await self._journal.wait(Waiting(site, deferred, policy, retry_after, moment_ms, expires))
        if tried or moment_ms:
            state = _waiting_state(mail.mail, attempts, moment)
            results = tuple(
                dataclasses.replace(make_results(mail.mail, [index], state)[0], reply=reply, next_attempt_ms=moment)
                for index, reply in replies.items()
            )
            await self._journal.tell(
                make_event(EventKind.DECISION, mail.mail, mail.record_id, results, site=site, attempt=attempts)
            )

    async def bounce(self, mail: ActiveMail, replies: Mapping[int, str]) -> None:
        """Refused for good: a report where one is due, then the decision."""
        telemetry.recipients_decided("bounce", len(replies))
        await self._report(mail, [Report(index, Action.FAILED, reply) for index, reply in replies.items()], "failed")
        await self._end(mail, replies, State.BOUNCED, OutcomeKind.PERMANENT)

    async def expire(self, mail: ActiveMail, replies: Mapping[int, str]) -> None:
        """Out of time: a report where one is due, then the decision."""
        telemetry.recipients_decided("expire", len(replies))
        reports = [Report(index, Action.FAILED, reply, expired=True) for index, reply in replies.items()]
        await self._report(mail, reports, "expired")
        await self._end(mail, replies, State.EXPIRED, OutcomeKind.NONE)

    async def cancel(self, mail: ActiveMail, recipients: Sequence[int]) -> None:
        """Taken back by its owner."""
        telemetry.recipients_decided("cancel", len(recipients))
        await self._end(mail, dict.fromkeys(recipients, "cancelled by the sender"), State.CANCELLED, OutcomeKind.NONE)

    async def discard(self, mail: ActiveMail, recipients: Sequence[int], rule: str) -> None:
        """Dropped by a rule."""
        telemetry.recipients_decided("discard", len(recipients))
        await self._end(mail, dict.fromkeys(recipients, f"discarded by rule {rule}"), State.DISCARDED, OutcomeKind.NONE)

    async def hold(self, mail: ActiveMail, recipients: Sequence[int], rule: str) -> None:
        """Set aside by a rule."""
        telemetry.recipients_decided("hold", len(recipients))
        mail.moved = True
        # As a waiting record, so that the recipients keep the numbers by which EVENTS knows them.
        identifier = f"{mail.mail.id}-{recipients[0]}"
        deferred = DeferredMail(
            mail.mail, mail.record_id, tuple(recipients), mail.attempts, mail.delay_reported, mail.last_reply
        )
        payload = encode_defer_record(DeferRecord(identifier, "held", (deferred,)))
        await self._journal.hold("rule", due_subject(identifier), payload, identifier)
        await self._end(mail, dict.fromkeys(recipients, f"held by rule {rule}"), State.HELD, OutcomeKind.NONE)

    def _close(self, mail: ActiveMail) -> None:
        mail.open_jobs -= 1
        if mail.open_jobs == 0:
            self._finished(mail)

    def close_step(self, mail: ActiveMail) -> None:
        """A step that never became a job is through."""
        self._close(mail)

    async def _end(self, mail: ActiveMail, replies: Mapping[int, str], state: State, outcome: OutcomeKind) -> None:
        results = tuple(
            dataclasses.replace(make_results(mail.mail, [index], state, outcome=outcome)[0], reply=reply)
            for index, reply in replies.items()
        )
        await self._journal.tell(
            make_event(EventKind.DECISION, mail.mail, mail.record_id, results, attempt=mail.attempts + 1)
        )

    # --- reports -----------------------------------------------------------------------------------------------------

    async def _report_success(self, mail: ActiveMail, done: Sequence[int], results: Mapping[int, Result]) -> None:
        recipients = mail.mail.envelope.recipients
        wanted = [index for index in done if wants_success_report(recipients[index].notify)]
        if wanted:
            await self._write(
                mail, [Report(index, Action.RELAYED, results[index].reply) for index in wanted], "relayed"
            )

    async def _report_delay(
        self, mail: ActiveMail, replies: Mapping[int, str], policy: RetryPolicy, expires: int
    ) -> bool:
        if now_ms() - mail.mail.accepted_ms < policy.delay_notice * 1000:
            return False
        recipients = mail.mail.envelope.recipients
        reports = [
            Report(index, Action.DELAYED, reply, will_retry_until_ms=expires)
            for index, reply in replies.items()
            if wants_delay_report(recipients[index].notify)
        ]
        if reports:
            await self._write(mail, reports, "delayed")
        return True

    async def _report(self, mail: ActiveMail, reports: list[Report], word: str) -> None:
        recipients = mail.mail.envelope.recipients
        wanted = [report for report in reports if wants_failure_report(recipients[report.recipient].notify)]
        if wanted:
            await self._write(mail, wanted, word)

    async def _write(self, mail: ActiveMail, reports: list[Report], word: str) -> None:
        original = mail.mail
        if not original.envelope.sender:
            return  # a report is never answered with a report
        telemetry.REPORTS.labels(word).inc()
        content = original.content
        if original.content_ref:
            content = await self._content_of(original)
        indexes = "-".join(str(report.recipient) for report in reports[:20])
        identifier = f"report-{original.id}-{word}-{mail.attempts}-{indexes}"
        report_id = new_id()
        octets = make_report(original, content, reports, hostname=self._hostname, now_ms=now_ms(), message_id=report_id)
        await self._journal.report(_report_mail(original, report_id, octets, self._hostname), identifier)

    async def _content_of(self, original: Mail) -> bytes:
        try:
            return await self._bus.get_object(original.content_ref)
        except BusError as error:
            log.warning("report_without_original", mail=original.id, error=str(error))
            return b""


def _report_mail(original: Mail, report_id: str, octets: bytes, hostname: str) -> Mail:
    present = now_ms()
    facts = Facts(
        door=Door.BOUNCE,
        client="",
        header_from=f"MAILER-DAEMON@{hostname}",
        message_id=f"<{report_id}@{hostname}>",
        subject="Delivery report",
        metadata=(("about", original.id),),
        recipients=(original.envelope.sender,),
    )
    return Mail(
        id=report_id,
        tenant=original.tenant,
        lane=REPORT_LANE,
        envelope=Envelope(
            sender="",
            recipients=(Recipient(original.envelope.sender),),
            eight_bit=not octets.isascii(),
            smtputf8=original.envelope.smtputf8 and not original.envelope.sender.isascii(),
        ),
        size=len(octets),
        content=octets,
        accepted_ms=present,
        expires_ms=present + REPORT_LIFETIME_MS,
        facts=encode_facts(facts),
    )


def _waiting_state(mail: Mail, attempts: int, moment_ms: int) -> State:
    if attempts:
        return State.DEFERRED
    return State.SCHEDULED if moment_ms <= mail.not_before_ms else State.QUEUED


def _reply(results: Mapping[int, Result], index: int, default: str) -> str:
    result = results.get(index)
    return result.reply if result is not None else default


PARK_POLICY = DEFAULT_RETRY
"""Parked mail carries its own moment; the policy is only its vehicle."""
