"""What queue and delivery say to each other (proto/sternpost_wire/v1/dispatch.proto), between octets and values.

Import it through `sternpost_runtime.codec`. Sessions and their results are on the path of every mail.
"""

from sternpost_mail.dispatch import (
    Answer,
    Beat,
    Job,
    JobRecipient,
    JobResult,
    Route,
    SessionResult,
    SiteAnswer,
    SiteSession,
)
from sternpost_mail.envelope import Ret
from sternpost_runtime.codec_base import (
    DECODE_ERRORS,
    ENCODE_ERRORS,
    CodecError,
    Words,
    decoding,
    does_not_fit,
    encoding,
    not_a,
)
from sternpost_runtime.codec_config import TLS_DEMANDS, fill_smart_host, read_smart_host
from sternpost_runtime.codec_event import fill_result, read_result
from sternpost_runtime.codec_mail import RETS
from sternpost_wire.v1 import dispatch_pb2

ANSWERS = Words("answer", Answer)

_SiteSession = dispatch_pb2.SiteSession
_SessionResult = dispatch_pb2.SessionResult
_DEFAULT_RET = Ret.DEFAULT


def encode_session(session: SiteSession) -> bytes:
    """A request to a worker. Raises CodecError."""
    try:
        wire = _SiteSession()
        wire.id = session.id
        wire.queue = session.queue
        wire.site = session.site
        _fill_route(wire.route, session.route)
        add = wire.jobs.add
        for job in session.jobs:
            _fill_job(add(), job)
        return wire.SerializeToString()
    except ENCODE_ERRORS as error:
        raise does_not_fit("site session", error) from None


def decode_session(data: bytes) -> SiteSession:
    """The session that a queue asks for. Raises CodecError."""
    try:
        wire = _SiteSession.FromString(data)
    except DECODE_ERRORS as error:
        raise not_a("site session", error) from error
    if not wire.id:
        raise CodecError("a site session without id")
    return SiteSession(
        wire.id, wire.queue, wire.site, _read_route(wire.route), tuple([_read_job(job) for job in wire.jobs])
    )


def _fill_route(wire: dispatch_pb2.Route, route: Route) -> None:
    if route.domain:
        wire.domain = route.domain
    for host in route.smart_hosts:
        fill_smart_host(wire.smart_hosts.add(), host)
    wire.tls = route.tls
    if route.allow_forbidden_addresses:
        wire.allow_forbidden_addresses = True


def _read_route(wire: dispatch_pb2.Route) -> Route:
    return Route(
        domain=wire.domain,
        smart_hosts=tuple([read_smart_host(host) for host in wire.smart_hosts]),
        tls=TLS_DEMANDS[wire.tls],
        allow_forbidden_addresses=wire.allow_forbidden_addresses,
    )


def _fill_job(wire: dispatch_pb2.Job, job: Job) -> None:
    wire.mail_id = job.mail_id
    wire.record_id = job.record_id
    wire.tenant = job.tenant
    if job.sender:
        wire.sender = job.sender
    add = wire.recipients.add
    for recipient in job.recipients:
        wire_recipient = add()
        if recipient.index:
            wire_recipient.index = recipient.index
        wire_recipient.address = recipient.address
        if recipient.notify:
            wire_recipient.notify = recipient.notify
        if recipient.orcpt:
            wire_recipient.orcpt = recipient.orcpt
    if job.content:
        wire.content = job.content
    if job.content_ref:
        wire.content_ref = job.content_ref
    wire.size = job.size
    wire.accepted_ms = job.accepted_ms
    wire.attempt = job.attempt
    if job.ret is not _DEFAULT_RET:
        wire.ret = job.ret
    if job.envid:
        wire.envid = job.envid
    if job.eight_bit:
        wire.eight_bit = True
    if job.smtputf8:
        wire.smtputf8 = True
    if job.identity:
        wire.identity = job.identity
    if job.tags:
        wire.tags.extend(job.tags)
    if job.traceparent:
        wire.traceparent = job.traceparent
    if job.facts:
        wire.facts = job.facts


def _read_job(wire: dispatch_pb2.Job) -> Job:
    if not wire.mail_id:
        raise CodecError("a job without mail id")
    return Job(
        mail_id=wire.mail_id,
        record_id=wire.record_id,
        tenant=wire.tenant,
        sender=wire.sender,
        recipients=tuple([JobRecipient(r.index, r.address, r.notify, r.orcpt) for r in wire.recipients]),
        content=wire.content,
        content_ref=wire.content_ref,
        size=wire.size,
        accepted_ms=wire.accepted_ms,
        attempt=wire.attempt,
        ret=RETS[wire.ret],
        envid=wire.envid,
        eight_bit=wire.eight_bit,
        smtputf8=wire.smtputf8,
        identity=wire.identity,
        tags=tuple(wire.tags),
        traceparent=wire.traceparent,
        facts=wire.facts,
    )


def encode_session_answer(answer: Answer) -> bytes:
    """A worker's immediate answer. Raises CodecError."""
    return _ENCODED_ANSWERS[answer]


def decode_session_answer(data: bytes) -> Answer:
    """A worker's immediate answer. Raises CodecError."""
    with decoding("answer to a site session"):
        wire = dispatch_pb2.SessionAnswer.FromString(data)
    return ANSWERS[wire.answer]


_ENCODED_ANSWERS = {answer: dispatch_pb2.SessionAnswer(answer=answer).SerializeToString() for answer in Answer}


def encode_session_result(result: SessionResult) -> bytes:
    """What a worker reports of a session. Raises CodecError."""
    try:
        wire = _SessionResult()
        wire.session = result.session
        wire.worker = result.worker
        add = wire.results.add
        for job in result.results:
            wire_job = add()
            wire_job.mail_id = job.mail_id
            add_result = wire_job.results.add
            for one in job.results:
                fill_result(add_result(), one)
            if job.retry_after:
                wire_job.retry_after = job.retry_after
            if job.dsn_passed_on:
                wire_job.dsn_passed_on = True
        if result.done:
            wire.done = True
        if result.site_down:
            wire.site_down = True
        return wire.SerializeToString()
    except ENCODE_ERRORS as error:
        raise does_not_fit("session result", error) from None


def decode_session_result(data: bytes) -> SessionResult:
    """What a worker reports of a session. Raises CodecError."""
    try:
        wire = _SessionResult.FromString(data)
    except DECODE_ERRORS as error:
        raise not_a("session result", error) from error
    if not wire.session:
        raise CodecError("a session result without session id")
    return SessionResult(
        session=wire.session,
        worker=wire.worker,
        results=tuple(
            [
                JobResult(
                    job.mail_id, tuple([read_result(one) for one in job.results]), job.retry_after, job.dsn_passed_on
                )
                for job in wire.results
            ]
        ),
        done=wire.done,
        site_down=wire.site_down,
    )


def encode_beat(beat: Beat) -> bytes:
    """A worker's sign of life. Raises CodecError."""
    with encoding("beat"):
        wire = dispatch_pb2.Beat()
        wire.worker = beat.worker
        wire.capacity = beat.capacity
        wire.sessions.extend(beat.sessions)
        wire.held_mails.extend(beat.held_mails)
        return wire.SerializeToString()


def decode_beat(data: bytes) -> Beat:
    """A worker's sign of life. Raises CodecError."""
    with decoding("beat"):
        wire = dispatch_pb2.Beat.FromString(data)
    if not wire.worker:
        raise CodecError("a beat without worker id")
    return Beat(wire.worker, wire.capacity, tuple(wire.sessions), tuple(wire.held_mails))


def encode_site_question(domain: str) -> bytes:
    """The question for the site of a recipient domain. Raises CodecError."""
    with encoding("site question"):
        wire = dispatch_pb2.SiteQuestion()
        wire.domain = domain
        return wire.SerializeToString()


def decode_site_question(data: bytes) -> str:
    """The domain whose site is asked for. Raises CodecError."""
    with decoding("site question"):
        wire = dispatch_pb2.SiteQuestion.FromString(data)
    if not wire.domain:
        raise CodecError("a site question without domain")
    return wire.domain


def encode_site_answer(answer: SiteAnswer) -> bytes:
    """The site of a domain. Raises CodecError."""
    with encoding("site answer"):
        wire = dispatch_pb2.SiteAnswer()
        wire.domain = answer.domain
        wire.name = answer.name
        wire.ttl = answer.ttl
        return wire.SerializeToString()


def decode_site_answer(data: bytes) -> SiteAnswer:
    """The site of a domain. Raises CodecError."""
    with decoding("site answer"):
        wire = dispatch_pb2.SiteAnswer.FromString(data)
    if not wire.domain:
        raise CodecError("a site answer without domain")
    return SiteAnswer(wire.domain, wire.name, wire.ttl)
