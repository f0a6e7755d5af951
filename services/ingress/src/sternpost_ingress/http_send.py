"""POST /v1/messages and /v1/messages/raw: from a request to a durable mail and its 202, once per Idempotency-Key."""

import asyncio
import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b

from fastapi import APIRouter, Request, Response

from sternpost_ingress import telemetry
from sternpost_ingress.accept import Client, make_mail
from sternpost_ingress.http_client import Bodies, Gate
from sternpost_ingress.http_models import Accepted, RawRequest, SendRequest
from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.http_submit import Submission, check, from_parts, from_raw, from_raw_json
from sternpost_ingress.idempotency import (
    Claim,
    Idempotency,
    KeyInFlight,
    KeyMismatch,
    KeysUnavailable,
    Replay,
    hash_key,
)
from sternpost_ingress.problems import Problem
from sternpost_ingress.spool import Spool, SpoolRefused, Why
from sternpost_mail.config import Config
from sternpost_mail.ids import RANDOM_OCTETS, make_id
from sternpost_runtime.bus import OutcomeUnknown
from sternpost_runtime.telemetry import new_traceparent

IN_A_THREAD = 256 * 1024
"""Octets of a body from which it is parsed and composed in a thread: that takes milliseconds in which others wait."""

_KEY = re.compile(r"[!-~]{1,256}")
_SPOOL_PROBLEMS = {Why.FULL: "spool-full", Why.OVERLOADED: "overloaded"}
_SPOOL_DETAIL = "Nothing was accepted; the request may be repeated."

_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "1 to 256 visible ASCII characters. A repeat with the same key within 24 hours gets the first "
    "answer (with `Idempotency-Replayed: true`) and sends nothing.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
}
_TRACE_PARAMETER = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context; every attempt's span links to it",
    "schema": {"type": "string"},
}


def _json_body(model: str) -> dict[str, object]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}


class Sending:
    """The two routes that take mail."""

    def __init__(
        self,
        spool: Spool,
        gate: Gate,
        bodies: Bodies,
        idempotency: Idempotency,
        config: Callable[[], Config],
        settings: HttpSettings,
        hostname: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._spool = spool
        self._gate = gate
        self._bodies = bodies
        self._idempotency = idempotency
        self._config = config
        self._settings = settings
        self._hostname = hostname
        self._now_ms = now_ms

    def add_to(self, router: APIRouter) -> None:
        """Register the routes."""
        common = {"status_code": 202, "response_model": Accepted, "tags": ["messages"]}
        router.add_api_route(
            "/v1/messages",
            self.send,
            methods=["POST"],
            summary="Send a mail that is made from its parts",
            openapi_extra={
                "requestBody": {"required": True, "content": _json_body(SendRequest.__name__)},
                "parameters": [_KEY_PARAMETER, _TRACE_PARAMETER],
            },
            **common,  # type: ignore[arg-type]  # FastAPI's parameters have one type each
        )
        query = [
            ("from", "MAIL FROM; the header's From where it is left out", {"type": "string"}),
            ("to", "RCPT TO, once per recipient", {"type": "array", "items": {"type": "string"}}),
            ("tag", "once per tag", {"type": "array", "items": {"type": "string"}}),
            ("send_at", "not sent before this time", {"type": "string", "format": "date-time"}),
        ]
        router.add_api_route(
            "/v1/messages/raw",
            self.send_raw,
            methods=["POST"],
            summary="Send a finished mail (RFC 5322) as it stands",
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "content": {
                        "message/rfc822": {"schema": {"type": "string", "format": "binary"}},
                        **_json_body(RawRequest.__name__),
                    },
                },
                "parameters": [
                    *({"name": n, "in": "query", "description": d, "schema": s} for n, d, s in query),
                    _KEY_PARAMETER,
                    _TRACE_PARAMETER,
                ],
            },
            **common,  # type: ignore[arg-type]  # as above
        )

    async def send(self, request: Request) -> Response:
        """Makes a MIME mail from JSON and accepts it for delivery. `202` means it is stored durably."""
        client = await self._gate.admit(request)
        if _media_type(request) != "application/json":
            raise Problem("unsupported-media-type", "Send application/json.")
        async with self._bodies.read(request) as body:
            return await self._once(request, client, body, lambda: from_parts(body))

    async def send_raw(self, request: Request) -> Response:
        """Accepts a finished mail. Its octets stay as they are; trace fields, and Date and Message-ID where they are
        missing, are put on top. The envelope alone decides who gets it: a Bcc field in it would be seen by all."""
        client = await self._gate.admit(request)
        kind = _media_type(request)
        if kind not in ("message/rfc822", "application/json"):
            raise Problem("unsupported-media-type", "Send message/rfc822, or application/json.")
        async with self._bodies.read(request) as body:
            if kind == "application/json":
                return await self._once(request, client, body, lambda: from_raw_json(body))
            query = request.query_params
            return await self._once(
                request,
                client,
                body,
                lambda: from_raw(
                    body, query.get("from"), query.getlist("to"), query.getlist("tag"), query.get("send_at")
                ),
            )

    async def _once(self, request: Request, client: Client, body: bytes, build: Callable[[], Submission]) -> Response:
        began = time.monotonic()
        config = self._config()
        if not config.is_complete:
            raise Problem("not-ready", "The configuration is not complete yet; try again.")
        key = _idempotency_key(request)
        if not key:
            submission = await self._examined(client, body, build, config)
            mail_id = self._new_id()
            answer = await self._store(request, client, submission, config, mail_id, None)
        else:
            identity = client.identity
            hashed = hash_key(identity.tenant, identity.name, key) if identity else ""
            try:
                found = await self._once_by_key(request, client, body, build, config, hashed)
            except KeyInFlight as error:
                detail = "The first request with this key has no answer yet."
                raise Problem("idempotency-in-flight", detail, retry_after=error.retry_after) from None
            except KeyMismatch:
                raise Problem("idempotency-mismatch", "This key came with another request before.") from None
            except KeysUnavailable:
                raise Problem("idempotency-unavailable", _SPOOL_DETAIL) from None
            if isinstance(found, Replay):
                return _accepted(found.answer, replayed=True)
            answer = found
        telemetry.mail_accepted(client.door, len(body), time.monotonic() - began)
        return _accepted(answer)

    async def _once_by_key(
        self,
        request: Request,
        client: Client,
        body: bytes,
        build: Callable[[], Submission],
        config: Config,
        key: str,
    ) -> Replay | str:
        fingerprint = _fingerprint(request, body)
        look = await self._idempotency.look(key, fingerprint)
        if isinstance(look, Replay):
            return look
        submission = await self._examined(client, body, build, config)
        claim = await self._idempotency.claim(look, key, fingerprint, self._new_id(), self._new_id())
        if isinstance(claim, Replay):
            return claim
        return await self._store_claimed(request, client, submission, config, claim)

    async def _store_claimed(
        self, request: Request, client: Client, submission: Submission, config: Config, claim: Claim
    ) -> str:
        use = claim.use
        try:
            answer = await self._store(request, client, submission, config, use.mail_id, use.record_id)
        except Problem as problem:
            if problem.slug == "outcome-unknown":
                await self._idempotency.suspend(claim)
            else:
                await self._idempotency.release(claim)
            raise
        except BaseException:
            await self._idempotency.suspend(claim)  # it may be stored: a repeat finds out under the same id
            raise
        await self._idempotency.finish(claim, answer)
        return answer

    async def _examined(
        self, client: Client, body: bytes, build: Callable[[], Submission], config: Config
    ) -> Submission:
        try:
            submission = await asyncio.to_thread(build) if len(body) > IN_A_THREAD else build()
            check(client, submission, config, self._settings, self._now_ms())
        except Problem as problem:
            telemetry.mail_refused(client.door, problem.status, problem.slug)
            raise
        return submission

    async def _store(
        self,
        request: Request,
        client: Client,
        submission: Submission,
        config: Config,
        mail_id: str,
        record_id: str | None,
    ) -> str:
        now_ms = self._now_ms()
        scheduled = submission.send_at_ms > now_ms
        mail = make_mail(
            client,
            submission.envelope,
            submission.content,
            submission.header,
            config,
            mail_id=mail_id,
            now_ms=now_ms,
            hostname=self._hostname,
            tags=submission.tags,
            metadata=submission.metadata,
            not_before_ms=submission.send_at_ms if scheduled else 0,
            traceparent=new_traceparent(request.headers.get("traceparent", "")),
        )
        try:
            await self._spool.put(mail, record_id=record_id)
        except SpoolRefused as refused:
            slug = _SPOOL_PROBLEMS.get(refused.reason, "spool-unavailable")
            raise Problem(slug, _SPOOL_DETAIL, retry_after=refused.retry_after) from None
        except OutcomeUnknown:
            telemetry.outcome_unknown(client.door)
            if record_id is not None:
                detail = "Repeat the request with the same Idempotency-Key: it is then sent once."
            else:
                detail = "It may be stored under this id. With an Idempotency-Key a repeat would be safe."
            raise Problem("outcome-unknown", detail, id=mail_id) from None
        answer = {"id": mail_id, "status": "scheduled" if scheduled else "queued"}
        if scheduled:
            moment = datetime.fromtimestamp(submission.send_at_ms / 1000, UTC)
            answer["send_at"] = moment.isoformat().replace("+00:00", "Z")
        return json.dumps(answer)

    def _new_id(self) -> str:
        return make_id(self._now_ms(), os.urandom(RANDOM_OCTETS))


def _accepted(answer: str, *, replayed: bool = False) -> Response:
    headers = {"Location": f"/v1/messages/{json.loads(answer)['id']}"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(answer, 202, headers, "application/json")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _idempotency_key(request: Request) -> str:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return ""
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Problem("invalid-idempotency-key", "One Idempotency-Key of 1 to 256 visible ASCII characters is taken.")
    return given[0]


def _fingerprint(request: Request, body: bytes) -> str:
    """What makes two requests the same: path, query, media type and body."""
    digest = blake2b(digest_size=16)
    for part in (request.url.path, request.url.query, _media_type(request)):
        digest.update(part.encode() + b"\0")
    digest.update(body)
    return digest.hexdigest()
