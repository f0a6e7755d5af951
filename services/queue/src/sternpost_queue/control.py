"""Markers that people set on messages: cancel. Kept in CONTROL, followed in memory, checked before every dispatch."""

import asyncio

from sternpost_mail.cancel import CancelReply, CancelRequest
from sternpost_mail.envelope import Envelope, Lane, Mail
from sternpost_mail.events import EventKind
from sternpost_mail.ids import is_id
from sternpost_queue.journal import Journal, make_event
from sternpost_runtime.bus import Bucket, Bus, BusError
from sternpost_runtime.codec import decode_cancel_request, encode_cancel_reply
from sternpost_runtime.subjects import BUCKET_CONTROL, QUEUE_CANCEL

CANCEL_TTL = 30 * 86400.0
"""Seconds that a cancel marker is kept: longer than anything may be scheduled ahead or retried."""
DOUBT_TTL = 6 * 86400.0
"""Seconds that a doubt marker is kept: longer than a mail lives in the queue."""


class Control:
    """The markers as of now."""

    def __init__(self, bus: Bus, journal: Journal) -> None:
        self._bus = bus
        self._bucket: Bucket = bus.bucket(BUCKET_CONTROL)
        self._journal = journal
        self.cancelled: dict[str, str] = {}
        """Mail id to the tenant that asked; empty for the administrator."""
        self.doubted: set[str] = set()
        """Mails of which a second record may wait: whoever takes one looks into EVENTS first."""
        self.ready = asyncio.Event()

    async def start(self) -> None:
        """Follow the bucket and take requests."""
        await self._bucket.watch(self._heard, self.ready)
        await self._bus.serve(QUEUE_CANCEL, self._answer, group="queue")

    def is_cancelled(self, mail: Mail) -> bool:
        """Whether the mail's owner took it back."""
        asked = self.cancelled.get(mail.id)
        return asked is not None and asked in ("", mail.tenant)

    async def doubt(self, mail_id: str) -> None:
        """Mark that two records may hold this mail."""
        if mail_id not in self.doubted:
            self.doubted.add(mail_id)
            await self._bucket.put(f"doubt.{mail_id}", b"1", ttl=DOUBT_TTL)

    def _heard(self, key: str, value: bytes | None) -> None:
        kind, _, mail_id = key.partition(".")
        if kind == "cancel":
            if value is None:
                self.cancelled.pop(mail_id, None)
            else:
                self.cancelled[mail_id] = value.decode()
        elif kind == "doubt":
            (self.doubted.discard if value is None else self.doubted.add)(mail_id)

    async def _answer(self, payload: bytes) -> bytes:
        return encode_cancel_reply(await self._cancel(decode_cancel_request(payload)))

    async def _cancel(self, request: CancelRequest) -> CancelReply:
        if not is_id(request.mail_id):
            return CancelReply(marked=False, reason="not a message id")
        try:
            await self._bucket.put(f"cancel.{request.mail_id}", request.tenant.encode(), ttl=CANCEL_TTL)
        except BusError as error:
            return CancelReply(marked=False, reason=f"cannot be marked now: {error}")
        self.cancelled[request.mail_id] = request.tenant
        stub = Mail(request.mail_id, request.tenant, Lane.NORMAL, Envelope("", ()), 0, b"", 0, 0)
        await self._journal.tell(make_event(EventKind.CANCEL_REQUESTED, stub, "", ()))
        return CancelReply(marked=True, reason="")
