"""A mail that was accepted and of which nothing happened yet: found in the spool, shown as a message.

Reads only, a few records from the moment in the mail's id on. It decides nothing about the mail.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from sternpost_mail.envelope import Facts, Mail
from sternpost_mail.ids import id_time_ms
from sternpost_mail.states import State
from sternpost_mail.timeline import MessageView, RecipientView, TimelineEntry
from sternpost_runtime.bus import StoredMessage
from sternpost_runtime.codec import CodecError, decode_spool_record
from sternpost_runtime.subjects import STREAM_SPOOL

SPOOL_RECORDS = 64
"""Records that one look may read: one direct get. A record is stored within milliseconds of its mails' ids."""
EARLIER_MS = (0, 2_000)
"""How long before the id's moment a look starts: at it, then earlier for a broker whose clock is behind the door's."""
LATEST_MS = 60_000
"""A record that was stored so long after the id cannot hold the mail: a door gives up after 15 s."""
LOOKS_AT_ONCE = 4
"""Looks at the same time, so that questions never hold more than a few dozen MiB of records."""


class SpoolReader(Protocol):
    """The part of the bus that is needed."""

    def read_from(self, stream: str, subject: str, since_ms: int, *, limit: int) -> AsyncIterator[StoredMessage]:
        """Records stored since a moment."""


class SpoolLookup:
    """Looks for single mails in SPOOL."""

    def __init__(self, bus: SpoolReader, open_facts: Callable[[bytes], Facts | None]) -> None:
        self._bus = bus
        self._open_facts = open_facts
        self._room = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def find(self, mail_id: str, tenant: str) -> MessageView | None:
        """The mail as a message, or None where the spool does not have it for this tenant.

        Raises BusError where the spool cannot be read, ValueError for a text that is no id.
        """
        minted = id_time_ms(mail_id)
        async with self._room:
            for earlier in EARLIER_MS:
                mail = await self._scan(mail_id, minted - earlier, minted + LATEST_MS)
                if mail is not None:
                    if tenant and mail.tenant != tenant:
                        return None
                    return view_of(mail, self._open_facts(mail.facts) if mail.facts else None, _now_ms())
        return None

    async def _scan(self, mail_id: str, since_ms: int, until_ms: int) -> Mail | None:
        wanted = mail_id.encode()
        async for record in self._bus.read_from(STREAM_SPOOL, "spool.>", since_ms, limit=SPOOL_RECORDS):
            if record.stored_ms > until_ms:
                break
            if wanted not in record.payload:  # ids are plain ASCII on the wire, so most records need no decoding
                continue
            try:
                mails = decode_spool_record(record.payload).mails
            except CodecError:
                continue  # the queue sets it aside and says so
            for mail in mails:
                if mail.id == mail_id:
                    return mail
        return None


def view_of(mail: Mail, facts: Facts | None, now_ms: int) -> MessageView:
    """A mail of which nothing happened yet, as a message: queued, or scheduled where its time has not come."""
    waits = mail.not_before_ms > now_ms
    state = State.SCHEDULED if waits else State.QUEUED
    next_ms = mail.not_before_ms if waits else 0
    return MessageView(
        id=mail.id,
        tenant=mail.tenant,
        state=state,
        sender=mail.envelope.sender,
        accepted_ms=mail.accepted_ms,
        size=mail.size,
        header_from=facts.header_from if facts else "",
        subject=facts.subject if facts else "",
        message_id=facts.message_id if facts else "",
        door=facts.door.value if facts else "",
        client=facts.client if facts else "",
        identity=mail.identity,
        tags=tuple(sorted(mail.tags)),
        metadata=dict(facts.metadata) if facts else {},
        recipients=tuple(
            RecipientView(recipient.address, state, next_attempt_ms=next_ms) for recipient in mail.envelope.recipients
        ),
        timeline=(TimelineEntry(at_ms=mail.accepted_ms, kind="accepted", state=State.QUEUED.value),),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
