"""Idempotency keys: a repeated request gets the stored answer, and a repeat after a crash never sends twice.

A key is claimed before its mail is published. The claim holds the ids under which the mail will be stored, so whoever
takes the claim over (its holder crashed, or could not learn the broker's answer) publishes the same record id, and the
broker tells whether it is there already. Entries live in hashed buckets, many to a key of the broker, and change by
compare-and-set. `decide` is pure; `Idempotency` is the thin part. Neither knows HTTP.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

import structlog

from sternpost_runtime.bus import BusError, Conflict, Entry, OutcomeUnknown

log = structlog.get_logger()

BUCKETS = 16_384
"""Keys of the broker's bucket, each about 430 octets of its memory: 7 MiB, however many idempotency keys there are."""
MAX_ENTRIES = 256
"""Live entries in one bucket, so one value stays below 100 KiB: four million keys a day before one is full."""
KEPT_MS = 24 * 3600 * 1000
"""An answer is replayed this long."""
LEASE_MS = 60_000
"""A claim whose holder is silent this long is taken over; storing a mail ends within 15 s, one way or the other."""
MAX_TRIES = 8
"""Compare-and-set rounds before a client is told to come again: others write the same bucket only by chance."""


class BucketLike(Protocol):
    """The part of `sternpost_runtime.bus.Bucket` that is used."""

    async def get(self, key: str) -> Entry | None:
        """The value and its revision."""

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist; raises Conflict."""

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write over a revision; raises Conflict."""


class KeyInFlight(Exception):
    """A request with this key is being processed; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("in flight")
        self.retry_after = retry_after


class KeyMismatch(Exception):
    """The key belongs to a request with another content."""


class KeysUnavailable(Exception):
    """The keys cannot be read or written now, or the key's bucket is full; nothing was claimed for good."""


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a key. `answer` is empty while it is in flight; times are milliseconds since the epoch."""

    key: str
    fingerprint: str
    created_ms: int
    lease_until_ms: int
    mail_id: str
    record_id: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look into the key's bucket found."""

    bucket: str
    revision: int
    """0 where the broker has no such key."""
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """The request was answered before, like this."""

    answer: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to process the request, under these ids. `is_repeat`: an earlier holder may have stored the mail."""

    look: Look
    use: Use
    is_repeat: bool


def hash_key(tenant: str, credential: str, key: str) -> str:
    """The key's name in the store: whose it is and what it is, as 32 hexadecimal digits."""
    return blake2b(json.dumps([tenant, credential, key]).encode(), digest_size=16).hexdigest()


def bucket_of(hashed: str) -> str:
    """The broker's key under which a use is kept."""
    return f"{int(hashed[:8], 16) % BUCKETS:04x}"


def decide(look: Look, wanted: Use, now_ms: int) -> Replay | tuple[Look, Use, bool]:
    """What becomes of a request, given what its bucket holds: the stored answer, or the bucket with the claim in it,
    the claim, and whether it is another's that is taken over. Expired uses are left out of the new bucket.

    Raises KeyInFlight, KeyMismatch or, when the bucket is full, KeysUnavailable.
    """
    alive = [use for use in look.uses if use.created_ms + KEPT_MS > now_ms]
    found = next((use for use in alive if use.key == wanted.key), None)
    if found is None:
        if len(alive) >= MAX_ENTRIES:
            raise KeysUnavailable("too many idempotency keys are alive")
        return replace(look, uses=(*alive, wanted)), wanted, False
    if found.fingerprint != wanted.fingerprint:
        raise KeyMismatch
    if found.answer:
        return Replay(found.answer)
    if found.record_id == wanted.record_id:  # written by ourselves, though the broker's answer was lost
        return look, found, False
    if found.lease_until_ms > now_ms:
        raise KeyInFlight(max(1, min(5, (found.lease_until_ms - now_ms) // 1000)))
    taken = replace(found, lease_until_ms=wanted.lease_until_ms)
    return replace(look, uses=tuple(taken if use is found else use for use in alive)), taken, True


class Idempotency:
    """The keys in the broker. Every method raises KeysUnavailable where the broker does not answer."""

    def __init__(self, bucket: BucketLike, now_ms: Callable[[], int]) -> None:
        self._bucket = bucket
        self._now_ms = now_ms

    async def look(self, key: str, fingerprint: str) -> Look | Replay:
        """What is known of a hashed key before the request is examined. Raises KeyInFlight or KeyMismatch."""
        look = await self._read(bucket_of(key))
        decided = decide(look, Use(key, fingerprint, self._now_ms(), 0, "", ""), self._now_ms())
        return decided if isinstance(decided, Replay) else look

    async def claim(self, look: Look, key: str, fingerprint: str, mail_id: str, record_id: str) -> Claim | Replay:
        """Claim the key for a request that may be carried out now. Raises KeyInFlight or KeyMismatch."""
        for _ in range(MAX_TRIES):
            now = self._now_ms()
            wanted = Use(key, fingerprint, now, now + LEASE_MS, mail_id, record_id)
            decided = decide(look, wanted, now)
            if isinstance(decided, Replay):
                return decided
            changed, use, is_repeat = decided
            if changed is look:
                return Claim(look, use, is_repeat)
            try:
                return Claim(await self._write(changed), use, is_repeat)
            except (Conflict, OutcomeUnknown):
                look = await self._read(look.bucket)
        raise KeysUnavailable("others were always first")

    async def finish(self, claim: Claim, answer: str) -> None:
        """Store the answer. Where that fails the claim runs out, and a repeat finds the mail by its record id."""
        await self._change(claim, replace(claim.use, answer=answer))

    async def release(self, claim: Claim) -> None:
        """The mail is known not to be stored: forget the claim.

        One that was taken over is only suspended: this time nothing was stored, but the earlier holder may have.
        """
        await self._change(claim, None if not claim.is_repeat else replace(claim.use, lease_until_ms=0))

    async def suspend(self, claim: Claim) -> None:
        """Nobody knows whether the mail is stored: let the next repeat take the claim over at once, under its ids."""
        await self._change(claim, replace(claim.use, lease_until_ms=0))

    async def _change(self, claim: Claim, use: Use | None) -> None:
        look = claim.look
        try:
            for _ in range(MAX_TRIES):
                held = next((other for other in look.uses if other.key == claim.use.key), None)
                if held is None or held.record_id != claim.use.record_id or held.answer:
                    return  # it ran out and another decided
                uses = tuple(use if other is held else other for other in look.uses)
                try:
                    await self._write(replace(look, uses=tuple(other for other in uses if other is not None)))
                    return
                except (Conflict, OutcomeUnknown):
                    look = await self._read(look.bucket)
        except (BusError, KeysUnavailable) as error:
            log.warning("idempotency_not_settled", error=type(error).__name__)

    async def _read(self, bucket: str) -> Look:
        try:
            entry = await self._bucket.get(bucket)
        except BusError as error:
            raise KeysUnavailable("the broker does not answer") from error
        return Look(bucket, entry.revision, _decode(entry.value)) if entry else Look(bucket, 0, ())

    async def _write(self, look: Look) -> Look:
        value = _encode(look.uses)
        try:
            if look.revision:
                revision = await self._bucket.update(look.bucket, value, look.revision)
            else:
                revision = await self._bucket.create(look.bucket, value)
        except (Conflict, OutcomeUnknown):
            raise
        except BusError as error:
            raise KeysUnavailable("the broker does not answer") from error
        return replace(look, revision=revision)


def _encode(uses: tuple[Use, ...]) -> bytes:
    rows = [[u.key, u.fingerprint, u.created_ms, u.lease_until_ms, u.mail_id, u.record_id, u.answer] for u in uses]
    return json.dumps(rows, separators=(",", ":")).encode()


def _decode(value: bytes) -> tuple[Use, ...]:
    try:
        rows = json.loads(value)
        uses = tuple([Use(*row) for row in rows])
    except (ValueError, TypeError) as error:
        # Never taken for empty: a request that was carried out would be carried out again.
        raise KeysUnavailable("the bucket cannot be read") from error
    return uses
