"""An HTTP door to test: the real application over ASGI, with a spool that remembers and a bucket in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.problems import CATALOGUE, TYPE_BASE
from sternpost_mail.config import Config, Domain, build_config
from sternpost_mail.envelope import Mail
from sternpost_mail.identity import Identity, Verdict, VerifyReply
from sternpost_mail.route import Action, Match, RelayRule
from sternpost_mail.states import State
from sternpost_mail.timeline import MessageView, RecipientView, TimelineEntry
from sternpost_runtime.bus import NoAnswer
from tests.unit.ingress.fake_bucket import FakeBucket

CONFIG = build_config(
    [
        Domain("shop", "shop", "shop.example"),
        Domain("bank", "bank", "bank.example"),
        RelayRule(
            "shop", "no", 1, Match(recipients=("no.example",)), Action.REJECT, reject_text="We do not write there"
        ),
    ],
    1,
    "sternpost",
)
KEYS = {"good": Identity("shop", "app", ()), "other": Identity("shop", "app2", ()), "bank": Identity("bank", "app", ())}
NOW = 1_700_000_000_000
ID = "01hf5z0000abcdefghjkmnpqrs"
MAIL = {"from": "Ada <ada@shop.example>", "to": ["bob@remote.example"], "subject": "Hi", "text": "Hello\n"}
RAW = b"From: Ada <ada@shop.example>\r\nDate: x\r\nMessage-ID: <x@y>\r\nX-Odd :  kept \r\n\r\n.dot\r\n\xff\r\n"
VIEW = MessageView(
    id=ID,
    tenant="shop",
    state=State.DELIVERED,
    sender="ada@shop.example",
    accepted_ms=NOW,
    size=10,
    recipients=(RecipientView("bob@remote.example", State.DELIVERED, 1, "250 2.0.0 ok"),),
    timeline=(TimelineEntry(NOW, "accepted"), TimelineEntry(NOW + 5, "attempt", reply="250 2.0.0 ok")),
)


class FakeSpool:
    """Remembers mails by record id, as the broker does; fails as it is told."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.records: dict[str, Mail] = {}
        self.failures: list[Exception] = []
        self.stored_anyway = False
        self.entered = asyncio.Event()
        self.go_on: asyncio.Event | None = None

    async def put(self, mail: Mail, *, record_id: str | None = None) -> None:
        self.entered.set()
        if self.go_on:
            await self.go_on.wait()
        failure = self.failures.pop(0) if self.failures else None
        is_new = record_id is None or record_id not in self.records
        if is_new and (failure is None or self.stored_anyway):
            self.mails.append(mail)
            self.records[record_id or mail.id] = mail
        if failure:
            raise failure


class FakeBus:
    """Answers questions with what the test says."""

    def __init__(self) -> None:
        self.idempotency = FakeBucket()
        self.answers: dict[str, Callable[[bytes], bytes]] = {}

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        if subject not in self.answers:
            raise NoAnswer("nobody")
        return self.answers[subject](payload)

    def bucket(self, name: str) -> FakeBucket:
        return self.idempotency


@dataclass
class OpenDoor:
    """One door with all that it stands on."""

    client: httpx.AsyncClient
    spool: FakeSpool = field(default_factory=FakeSpool)
    bus: FakeBus = field(default_factory=FakeBus)
    config: Config = CONFIG
    now_ms: int = NOW
    verdict: Verdict | None = None

    async def identify(self, login: str, secret: str, client: str) -> VerifyReply:
        assert login == ""
        if self.verdict:
            return VerifyReply(self.verdict)
        identity = KEYS.get(secret)
        return VerifyReply(Verdict.GRANTED, identity) if identity else VerifyReply(Verdict.DENIED)

    async def post(self, body: object, path: str = "/v1/messages", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(path, content=content, headers={"content-type": "application/json", **named})


Open = Callable[[HttpSettings], Awaitable[OpenDoor]]


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    body = response.json()
    assert (response.status_code, body.get("type")) == (status, TYPE_BASE + slug), body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["title"] == CATALOGUE[slug][1]
    assert body["detail"]
    assert (status in (429, 503)) <= ("retry-after" in response.headers)
    return dict(body)
