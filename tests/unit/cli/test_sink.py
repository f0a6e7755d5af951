"""The sink over loopback with smtplib, and its HTTP side."""

import asyncio
import hashlib
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx
import pytest
import trustme

from sternpost_cli.sink.faults import Action, Fault, Faults, Stage
from sternpost_cli.sink.http import make_app
from sternpost_cli.sink.smtp import serve_smtp
from sternpost_cli.sink.store import Envelope, Store, header_fields, split_options

T = TypeVar("T")

MAIL = b"From: a@example.test\r\nSubject: one\r\n two\r\nMessage-ID: <1@example.test>\r\n\r\n"


@dataclass
class Sink:
    port: int
    store: Store
    faults: Faults
    http: httpx.AsyncClient

    async def smtp(self, talk: Callable[[smtplib.SMTP], T]) -> T:
        """Run a blocking dialogue in a thread."""

        def dialogue() -> T:
            with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=20) as client:
                return talk(client)

        return await asyncio.to_thread(dialogue)

    async def send(
        self, content: bytes, to: tuple[str, ...] = ("b@example.org",), sender: str = "a@example.test"
    ) -> None:
        await self.smtp(lambda client: client.sendmail(sender, to, content))


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    store, faults = Store(), Faults()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = await serve_smtp(store, faults, "127.0.0.1", 0, hostname="sink.test", tls_context=context)
    transport = httpx.ASGITransport(app=make_app(store, faults))
    async with httpx.AsyncClient(transport=transport, base_url="http://sink") as client:
        yield Sink(server.sockets[0].getsockname()[1], store, faults, client)
    server.close()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"plain\r\n", id="plain"),
        pytest.param(b".\r\n..\r\n.dot\r\n", id="leading dots"),
        pytest.param(bytes(range(128, 256)) + b"\r\n", id="eight bit"),
        pytest.param(b"tab\t trailing \t \r\n\r\n\r\n", id="blanks and empty lines at the end"),
        pytest.param(b"x" * 5000 + b"\r\n", id="a line far too long"),
        pytest.param(b"", id="empty body"),
    ],
)
async def test_what_arrives_is_kept_octet_for_octet(sink: Sink, body: bytes) -> None:
    await sink.send(MAIL + body)
    raw = await sink.http.get("/messages/1/raw")
    assert raw.content == MAIL + body
    assert raw.headers["content-type"] == "message/rfc822"
    listed = (await sink.http.get("/messages")).json()["messages"]
    assert listed[0]["sha256"] == hashlib.sha256(MAIL + body).hexdigest()
    assert listed[0]["size"] == len(MAIL + body)


async def test_a_bare_line_feed_is_kept_too(sink: Sink) -> None:
    content = MAIL + b"one\ntwo\r\n"

    def talk(client: smtplib.SMTP) -> None:
        client.ehlo()
        client.mail("a@example.test")
        client.rcpt("b@example.org")
        client.putcmd("DATA")
        assert client.getreply()[0] == 354
        client.send(content + b".\r\n")
        assert client.getreply()[0] == 250

    await sink.smtp(talk)
    assert (await sink.http.get("/messages/1/raw")).content == content


async def test_the_envelope_and_its_parameters_are_recorded_as_written(sink: Sink) -> None:
    def talk(client: smtplib.SMTP) -> None:
        client.ehlo()
        assert client.has_extn("dsn")
        assert client.has_extn("pipelining")
        client.mail("", ["RET=HDRS", "ENVID=AbC", "BODY=8BITMIME"])
        assert client.rcpt("b@example.org", ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;B@example.org"])[0] == 250
        assert client.rcpt("c@example.org")[0] == 250
        client.data(MAIL + b"x")

    await sink.smtp(talk)
    (message,) = (await sink.http.get("/messages", params={"recipient": "C@example.org"})).json()["messages"]
    assert message["sender"] == ""
    assert message["recipients"] == ["b@example.org", "c@example.org"]
    assert message["mail_options"] == ["RET=HDRS", "ENVID=AbC", "BODY=8BITMIME"]
    assert message["rcpt_options"] == [["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;B@example.org"], []]
    assert message["helo"] == "client.test"
    assert message["message_id"] == "<1@example.test>"
    assert message["subject"] == "one two"
    assert message["tls"] == ""


async def test_two_mails_of_one_connection_share_a_session_and_the_next_connection_has_another(sink: Sink) -> None:
    def twice(client: smtplib.SMTP) -> None:
        client.sendmail("a@example.test", "b@example.org", MAIL)
        client.sendmail("a@example.test", "b@example.org", MAIL)

    await sink.smtp(twice)
    await sink.send(MAIL)
    sessions = [one["session"] for one in (await sink.http.get("/messages")).json()["messages"]]
    assert sessions == [sessions[0], sessions[0], sessions[0] + 1]


async def test_starttls_is_offered_and_seen(sink: Sink) -> None:
    def talk(client: smtplib.SMTP) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.starttls(context=context)
        client.sendmail("a@example.test", "b@example.org", MAIL)

    await sink.smtp(talk)
    (message,) = (await sink.http.get("/messages")).json()["messages"]
    assert message["tls"].startswith("TLSv1.")


async def test_pipelined_commands_are_answered_in_order(sink: Sink) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    writer.write(b"EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n")
    await reader.readuntil(b"354")
    await reader.readline()
    writer.write(MAIL + b".\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<z@y.test>\r\nQUIT\r\n")
    replies = (await reader.read()).split(b"\r\n")
    assert [line[:3] for line in replies if line] == [b"250", b"250", b"250", b"221"]
    writer.close()


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
async def test_a_fault_strikes_as_often_as_ordered_and_then_no_more(sink: Sink, stage: Stage) -> None:
    order = {"stage": stage, "code": 451, "text": "4.7.1 later", "times": 2}
    assert (await sink.http.post("/faults", json=order)).status_code == 201
    for _ in range(2):
        with pytest.raises(smtplib.SMTPException) as refused:
            await sink.send(MAIL)
        assert "4.7.1 later" in str(refused.value)
    await sink.send(MAIL)
    stats = (await sink.http.get("/stats")).json()
    assert (stats["received"], stats["faults_used"], stats["faults_waiting"]) == (1, 2, 0)


async def test_a_fault_at_connect_is_the_greeting(sink: Sink) -> None:
    await sink.http.post("/faults", json={"stage": "connect", "code": 554, "text": "5.3.2 not today"})
    with pytest.raises(smtplib.SMTPConnectError, match="not today"):
        await sink.send(MAIL)


async def test_one_recipient_is_refused_and_the_other_gets_the_mail(sink: Sink) -> None:
    await sink.http.post("/faults", json={"stage": "rcpt", "recipient": "x@", "code": 550, "text": "5.1.1 nobody"})
    refused = await sink.smtp(
        lambda client: client.sendmail("a@example.test", ["x@example.org", "y@example.org"], MAIL)
    )
    assert refused == {"x@example.org": (550, b"5.1.1 nobody")}
    (message,) = (await sink.http.get("/messages")).json()["messages"]
    assert message["recipients"] == ["y@example.org"]


async def test_a_lost_answer_leaves_the_mail_in_the_sink(sink: Sink) -> None:
    await sink.http.post("/faults", json={"stage": "dot", "action": "close", "keep": True})
    with pytest.raises(smtplib.SMTPServerDisconnected):
        await sink.send(MAIL)
    assert len((await sink.http.get("/messages")).json()["messages"]) == 1


async def test_a_connection_that_is_closed_at_the_dot_leaves_nothing(sink: Sink) -> None:
    await sink.http.post("/faults", json={"stage": "dot", "action": "close"})
    with pytest.raises(smtplib.SMTPServerDisconnected):
        await sink.send(MAIL)
    assert (await sink.http.get("/stats")).json()["received"] == 0


async def test_a_fault_that_hangs_never_answers(sink: Sink) -> None:
    await sink.http.post("/faults", json={"stage": "rcpt", "action": "hang"})

    def talk(client: smtplib.SMTP) -> None:
        client.ehlo()
        client.mail("a@example.test")
        assert client.sock is not None
        client.sock.settimeout(0.3)
        with pytest.raises((TimeoutError, socket.timeout, smtplib.SMTPServerDisconnected)):
            client.rcpt("b@example.org")
        client.close()

    await sink.smtp(talk)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ({"stage": "connect", "recipient": "x@"}, "neither sender nor recipient is known"),
        ({"stage": "mail", "recipient": "x@"}, "no recipient is known"),
        ({"stage": "rcpt", "code": 99}, "200 to 599"),
        ({"stage": "rcpt", "text": "a\r\nb"}, "one line"),
        ({"stage": "rcpt", "keep": True}, "stage dot only"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_with_the_reason(
    sink: Sink, order: dict[str, object], why: str
) -> None:
    answer = await sink.http.post("/faults", json=order)
    assert answer.status_code == 422
    assert why in answer.json()["detail"]


async def test_pages_filters_and_deleting(sink: Sink) -> None:
    for number in range(5):
        await sink.send(MAIL.replace(b"<1@", b"<%d@" % number), to=(f"r{number % 2}@example.org",))
    first = (await sink.http.get("/messages", params={"limit": 2})).json()
    assert [one["id"] for one in first["messages"]] == [1, 2]
    rest = (await sink.http.get("/messages", params={"after": first["next_after"]})).json()
    assert [one["id"] for one in rest["messages"]] == [3, 4, 5]
    assert rest["next_after"] is None
    by_id = (await sink.http.get("/messages", params={"message_id": "3@example.test"})).json()["messages"]
    assert [one["id"] for one in by_id] == [4]
    by_recipient = (await sink.http.get("/messages", params={"recipient": "r1@example.org"})).json()["messages"]
    assert [one["id"] for one in by_recipient] == [2, 4]
    assert (await sink.http.delete("/messages")).json() == {"deleted": 5}
    assert (await sink.http.get("/messages/1")).status_code == 404
    await sink.send(MAIL)
    assert (await sink.http.get("/messages")).json()["messages"][0]["id"] == 6


def an_envelope() -> Envelope:
    return Envelope("a@b.test", ("c@d.test",), (), ((),), "", "", 1, "", 0)


def test_the_store_forgets_the_oldest_beyond_its_bounds() -> None:
    store = Store(max_messages=3, max_octets=100)
    for size in (10, 10, 10, 10, 90):
        store.add(an_envelope(), b"x" * size)
    assert [one.number for one in store.find()] == [4, 5]
    assert store.counts == {"received": 5, "kept": 2, "forgotten": 3, "octets": 100}
    store.add(an_envelope(), b"x" * 1000)
    assert [one.number for one in store.find()] == [6]


def test_header_fields_come_from_the_header_only() -> None:
    assert header_fields(b"Subject: a\r\n\tb\r\n\r\nMessage-ID: <body@x>\r\n") == {"subject": "a b"}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("FROM:<a@b> RET=HDRS", ("FROM:<a@b>", ("RET=HDRS",))),
        ("FROM: <a@b>  SIZE=3 ", ("FROM:<a@b>", ("SIZE=3",))),
        ('TO:<"a b"@c> NOTIFY=NEVER', ('TO:<"a b"@c>', ("NOTIFY=NEVER",))),
        ("", ("", ())),
    ],
)
def test_parameters_are_split_off(argument: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert split_options(argument) == expected


def test_the_first_fault_that_fits_is_taken_and_zero_times_means_always() -> None:
    faults = Faults()
    faults.add(Fault(Stage.RCPT, recipient="*@slow.test", code=452, times=0))
    faults.add(Fault(Stage.RCPT, recipient="x@", code=550, action=Action.REPLY))
    assert faults.take(Stage.RCPT, "", ("y@fast.test",)) is None
    for _ in range(3):
        found = faults.take(Stage.RCPT, "", ("X@SLOW.test",))
        assert found is not None
        assert found.code == 452
    found = faults.take(Stage.RCPT, "", ("X@fast.test",))
    assert found is not None
    assert found.reply.startswith("550 5.0.0")
    assert faults.take(Stage.RCPT, "", ("x@fast.test",)) is None
    assert faults.clear() == 1
