"""Mail and the records in which it waits (proto/sternpost_wire/v1/mail.proto), between octets and values.

Import it through `sternpost_runtime.codec`. The spool record is on the path of every mail: fields are written out one
by one, and defaults are not set.
"""

from sternpost_mail.envelope import (
    DeferRecord,
    DeferredMail,
    Door,
    Envelope,
    Facts,
    HeldRecord,
    Lane,
    Mail,
    Notify,
    Recipient,
    Ret,
    SpoolRecord,
)
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
from sternpost_wire.v1 import mail_pb2

LANES = Words("lane", Lane)
RETS = Words("RET", Ret)
DOORS = Words("door", Door)
NOTIFIES = tuple(Notify(bits) for bits in range(16))
"""RFC 3461 NOTIFY by its bits."""

_SpoolRecord = mail_pb2.SpoolRecord
_DEFAULT_RET = Ret.DEFAULT
_DEFAULT_NOTIFY = Notify.DEFAULT


def read_notify(bits: int) -> Notify:
    """The NOTIFY value of a recipient; bits that RFC 3461 does not know raise CodecError."""
    if bits > 15:
        raise CodecError(f"unknown NOTIFY bits {bits}; they were written by a newer version or are damaged")
    return NOTIFIES[bits]


def fill_mail(wire: mail_pb2.Mail, mail: Mail) -> None:
    """Write a mail into its message."""
    wire.id = mail.id
    wire.tenant = mail.tenant
    wire.lane = mail.lane
    envelope = mail.envelope
    wire_envelope = wire.envelope
    if envelope.sender:
        wire_envelope.sender = envelope.sender
    add = wire_envelope.recipients.add
    for recipient in envelope.recipients:
        wire_recipient = add()
        wire_recipient.address = recipient.address
        if recipient.notify is not _DEFAULT_NOTIFY:
            wire_recipient.notify = recipient.notify
        if recipient.orcpt:
            wire_recipient.orcpt = recipient.orcpt
    if envelope.ret is not _DEFAULT_RET:
        wire_envelope.ret = envelope.ret
    if envelope.envid:
        wire_envelope.envid = envelope.envid
    if envelope.eight_bit:
        wire_envelope.eight_bit = True
    if envelope.smtputf8:
        wire_envelope.smtputf8 = True
    wire.size = mail.size
    if mail.content:
        wire.content = mail.content
    wire.accepted_ms = mail.accepted_ms
    wire.expires_ms = mail.expires_ms
    if mail.content_ref:
        wire.content_ref = mail.content_ref
    if mail.not_before_ms:
        wire.not_before_ms = mail.not_before_ms
    if mail.identity:
        wire.identity = mail.identity
    if mail.tags:
        wire.tags.extend(mail.tags)
    if mail.traceparent:
        wire.traceparent = mail.traceparent
    if mail.facts:
        wire.facts = mail.facts


def read_mail(wire: mail_pb2.Mail) -> Mail:
    """The mail of a message."""
    envelope = wire.envelope
    if not wire.id:
        raise CodecError("a mail without id")
    return Mail(
        id=wire.id,
        tenant=wire.tenant,
        lane=LANES[wire.lane],
        envelope=Envelope(
            sender=envelope.sender,
            recipients=tuple([Recipient(r.address, read_notify(r.notify), r.orcpt) for r in envelope.recipients]),
            ret=RETS[envelope.ret],
            envid=envelope.envid,
            eight_bit=envelope.eight_bit,
            smtputf8=envelope.smtputf8,
        ),
        size=wire.size,
        content=wire.content,
        accepted_ms=wire.accepted_ms,
        expires_ms=wire.expires_ms,
        content_ref=wire.content_ref,
        not_before_ms=wire.not_before_ms,
        identity=wire.identity,
        tags=tuple(wire.tags),
        traceparent=wire.traceparent,
        facts=wire.facts,
    )


def encode_spool_record(record: SpoolRecord) -> bytes:
    """The payload of SPOOL. Raises CodecError."""
    try:
        wire = _SpoolRecord()
        wire.id = record.id
        add = wire.mails.add
        for mail in record.mails:
            fill_mail(add(), mail)
        return wire.SerializeToString()
    except ENCODE_ERRORS as error:
        raise does_not_fit("spool record", error) from None


def decode_spool_record(data: bytes) -> SpoolRecord:
    """The record of a payload of SPOOL; without mails it is a fence. Raises CodecError."""
    try:
        wire = _SpoolRecord.FromString(data)
    except DECODE_ERRORS as error:
        raise not_a("spool record", error) from error
    if not wire.id:
        raise CodecError("a spool record without id")
    return SpoolRecord(wire.id, tuple([read_mail(mail) for mail in wire.mails]))


def encode_mail(mail: Mail) -> bytes:
    """One mail alone. Raises CodecError."""
    with encoding("mail"):
        wire = mail_pb2.Mail()
        fill_mail(wire, mail)
        return wire.SerializeToString()


def decode_mail(data: bytes) -> Mail:
    """One mail alone. Raises CodecError."""
    with decoding("mail"):
        wire = mail_pb2.Mail.FromString(data)
    return read_mail(wire)


def encode_facts(facts: Facts) -> bytes:
    """The facts that a door writes into `Mail.facts`. Raises CodecError."""
    try:
        wire = mail_pb2.Facts()
        wire.door = facts.door
        wire.client = facts.client
        wire.header_from = facts.header_from
        wire.message_id = facts.message_id
        wire.subject = facts.subject
        for key, value in facts.metadata:
            pair = wire.metadata.add()
            pair.key = key
            pair.value = value
        if facts.recipients:
            wire.recipients.extend(facts.recipients)
        return wire.SerializeToString()
    except ENCODE_ERRORS as error:
        raise does_not_fit("facts", error) from None


def decode_facts(data: bytes) -> Facts:
    """The facts of a mail. Raises CodecError, also for no octets at all: events that carry none have empty `facts`."""
    try:
        wire = mail_pb2.Facts.FromString(data)
    except DECODE_ERRORS as error:
        raise not_a("record of facts", error) from error
    return Facts(
        door=DOORS[wire.door],
        client=wire.client,
        header_from=wire.header_from,
        message_id=wire.message_id,
        subject=wire.subject,
        metadata=tuple([(pair.key, pair.value) for pair in wire.metadata]),
        recipients=tuple(wire.recipients),
    )


def encode_defer_record(record: DeferRecord) -> bytes:
    """The payload of DEFER. Raises CodecError."""
    with encoding("defer record"):
        wire = mail_pb2.DeferRecord()
        wire.id = record.id
        wire.site = record.site
        add = wire.mails.add
        for deferred in record.mails:
            entry = add()
            fill_mail(entry.mail, deferred.mail)
            entry.record_id = deferred.record_id
            entry.open_recipients.extend(deferred.open_recipients)
            entry.attempts = deferred.attempts
            if deferred.delay_reported:
                entry.delay_reported = True
            if deferred.last_reply:
                entry.last_reply = deferred.last_reply
        return wire.SerializeToString()


def decode_defer_record(data: bytes) -> DeferRecord:
    """The record of a payload of DEFER or due. Raises CodecError, also where an index points outside the envelope."""
    with decoding("defer record"):
        wire = mail_pb2.DeferRecord.FromString(data)
    if not wire.id:
        raise CodecError("a defer record without id")
    return DeferRecord(wire.id, wire.site, tuple([_read_deferred(entry) for entry in wire.mails]))


def _read_deferred(wire: mail_pb2.DeferredMail) -> DeferredMail:
    mail = read_mail(wire.mail)
    open_recipients = tuple(wire.open_recipients)
    count = len(mail.envelope.recipients)
    if any(index >= count for index in open_recipients):
        raise CodecError(f"mail {mail.id[:64]} has {count} recipients and waits for number {max(open_recipients)}")
    return DeferredMail(
        mail=mail,
        record_id=wire.record_id,
        open_recipients=open_recipients,
        attempts=wire.attempts,
        delay_reported=wire.delay_reported,
        last_reply=wire.last_reply,
    )


def encode_held_record(record: HeldRecord) -> bytes:
    """The payload of HELD. Raises CodecError."""
    with encoding("held record"):
        wire = mail_pb2.HeldRecord()
        wire.id = record.id
        wire.reason = record.reason
        wire.origin_subject = record.origin_subject
        wire.held_ms = record.held_ms
        wire.record = record.record
        return wire.SerializeToString()


def decode_held_record(data: bytes) -> HeldRecord:
    """The record of a payload of HELD. Raises CodecError."""
    with decoding("held record"):
        wire = mail_pb2.HeldRecord.FromString(data)
    return HeldRecord(wire.id, wire.reason, wire.origin_subject, wire.held_ms, wire.record)
