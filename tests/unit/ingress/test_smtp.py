"""The SMTP doors on real sockets: answers of the spool, time, limits, TLS, PROXY, shutting down."""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sternpost_ingress.smtp import Session
from sternpost_ingress.spool import SpoolRefused, Why
from sternpost_mail.config import EMPTY_CONFIG
from sternpost_mail.envelope import Door
from sternpost_runtime.bus import OutcomeUnknown
from tests.support.smtp_door import AUTHORITY, HOSTNAME, RunningDoors, make_config, on_uvloop, running_doors

MAIL = b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@far.test>\r\nDATA\r\n"
TEXT = b"From: a@example.test\r\n\r\nhello\r\n.\r\n"


class Client:
    """A client that speaks octets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes, replies: int = 1) -> list[str]:
        """Send, and read so many replies; the last line of each."""
        self.writer.write(data)
        found: list[str] = []
        while len(found) < replies:
            line = (await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 10)).decode()
            if line[3] == " ":
                found.append(line[:-2])
        return found

    async def rest(self) -> bytes:
        """What comes until the server hangs up."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b""


@asynccontextmanager
async def connected(doors: RunningDoors, door: str = "mx", address: str = "127.0.0.2") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port(door), local_addr=(address, 0))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def greeted(doors: RunningDoors, address: str = "127.0.0.2") -> AsyncIterator[Client]:
    async with connected(doors, address=address) as client:
        await client.say(b"")
        await client.say(b"EHLO client.test\r\n")
        yield client


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def only_session(doors: RunningDoors) -> Session:
    (session,) = doors.server.reception.sessions
    return session


# --- what the spool says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "reply"),
    [(Why.DOWN, "451 4.3.0"), (Why.FENCED, "451 4.3.0"), (Why.FULL, "452 4.3.1"), (Why.OVERLOADED, "452 4.3.1")],
)
@on_uvloop
async def test_a_refusal_of_the_spool_is_temporary_and_the_session_goes_on(why: Why, reply: str) -> None:
    async with running_doors() as doors, greeted(doors) as client:
        await client.say(MAIL, 3)
        doors.spool.failure = SpoolRefused(why, 15)
        assert (await client.say(TEXT))[0].startswith(reply)
        doors.spool.failure = None
        await client.say(MAIL, 3)
        assert (await client.say(TEXT))[0].startswith("250 2.0.0")
        assert doors.server.reception.budget.used == 0


@pytest.mark.parametrize("failure", [OutcomeUnknown("?"), RuntimeError("a fault after the publish, perhaps")])
@on_uvloop
async def test_an_unknown_outcome_closes_the_connection_without_a_reply(failure: Exception) -> None:
    async with running_doors() as doors, greeted(doors) as client:
        await client.say(MAIL, 3)
        doors.spool.failure = failure
        client.writer.write(TEXT + b"NOOP\r\n")
        assert await client.rest() == b""


@on_uvloop
async def test_a_fault_of_ours_is_451_and_its_text_stays_inside() -> None:
    async with running_doors() as doors, greeted(doors) as client:

        def broken() -> object:
            raise RuntimeError("secret detail")

        doors.server.reception.config = broken  # type: ignore[assignment]
        assert await client.say(b"MAIL FROM:<a@example.test>\r\n") == ["451 4.3.0 A fault of ours, try again"]


@on_uvloop
async def test_before_the_configuration_is_complete_everything_is_451() -> None:
    async with running_doors(EMPTY_CONFIG) as doors, greeted(doors) as client:
        assert (await client.say(b"MAIL FROM:<a@example.test>\r\n"))[0].startswith("451 4.3.0")


@on_uvloop
async def test_the_mail_that_is_stored_says_where_it_came_from() -> None:
    async with running_doors() as doors, greeted(doors) as client:
        await client.say(MAIL, 3)
        reply = (await client.say(TEXT))[0]
        mail = doors.spool.mails[0]
        assert reply == f"250 2.0.0 Accepted as {mail.id}"
        assert mail.tenant == "team-a"
        pattern = rb"Received: from client\.test \(\[127\.0\.0\.2\]\)\r\n\tby mx\.sternpost\.test with ESMTP id "
        assert re.match(pattern, mail.content)


# --- time and limits --------------------------------------------------------------------------------------------------


@on_uvloop
async def test_silence_ends_a_session() -> None:
    async with running_doors(idle_seconds=300) as doors, greeted(doors) as client:
        session, now = only_session(doors), asyncio.get_running_loop().time()
        session.check_time(now)
        session.check_time(now + 299)
        assert await client.say(b"NOOP\r\n") == ["250 2.0.0 OK"]
        session.check_time(now + 299)
        session.check_time(now + 600)
        assert (await client.rest()).startswith(b"421 4.4.2 ")


@on_uvloop
async def test_octets_that_make_no_command_are_silence() -> None:
    async with running_doors(idle_seconds=300) as doors, greeted(doors) as client:
        session, now = only_session(doors), asyncio.get_running_loop().time()
        session.check_time(now)
        client.writer.write(b"NOO")
        await client.writer.drain()
        session.check_time(now + 301)
        assert (await client.rest()).startswith(b"421 4.4.2 ")


@on_uvloop
async def test_a_text_that_trickles_ends_a_session() -> None:
    async with running_doors(min_data_rate=500, data_rate_window_seconds=60) as doors, greeted(doors) as client:
        await client.say(MAIL, 3)
        session, now = only_session(doors), asyncio.get_running_loop().time()
        session.check_time(now)
        session.check_time(now + 61)
        assert (await client.rest()).startswith(b"421 4.4.2 Your data comes too slowly")


@on_uvloop
async def test_an_old_session_ends_between_mails() -> None:
    async with running_doors(session_seconds=3600, min_data_rate=0) as doors, greeted(doors) as client:
        now = asyncio.get_running_loop().time()
        await client.say(MAIL, 3)
        only_session(doors).check_time(now + 3700)
        assert (await client.say(TEXT))[0].startswith("250 2.0.0")
        only_session(doors).check_time(now + 3700)
        assert (await client.rest()).startswith(b"421 4.4.2 ")


@on_uvloop
async def test_a_mail_that_is_settled_is_not_idle() -> None:
    async with running_doors() as doors, greeted(doors) as client:
        doors.spool.gate = asyncio.Event()
        await client.say(MAIL, 3)
        client.writer.write(TEXT)
        await doors.spool.asked.wait()
        only_session(doors).check_time(asyncio.get_running_loop().time() + 100_000)
        doors.spool.gate.set()
        assert (await client.say(b""))[0].startswith("250 2.0.0")


@on_uvloop
async def test_too_many_connections_of_one_address_are_turned_away_and_others_are_not() -> None:
    async with running_doors(max_client_connections=1, exempt_networks=()) as doors, greeted(doors):
        async with connected(doors) as second:
            assert (await second.rest()).startswith(b"421 4.7.0 Too many connections")
        async with connected(doors, address="127.0.0.3") as other:
            assert (await other.say(b""))[0].startswith("220 ")


@on_uvloop
async def test_a_place_is_free_again_when_its_connection_has_ended() -> None:
    async with running_doors(max_client_connections=1, exempt_networks=()) as doors:
        for _ in range(3):
            async with connected(doors) as client:
                await client.say(b"")
                await client.say(b"QUIT\r\n")
                assert await client.rest() == b""


@on_uvloop
async def test_too_many_mails_in_a_minute_are_450() -> None:
    async with running_doors(max_client_messages_per_minute=2, exempt_networks=()) as doors, greeted(doors) as client:
        for _ in range(2):
            assert (await client.say(b"MAIL FROM:<>\r\nRSET\r\n", 2))[0].startswith("250 2.1.0")
        assert (await client.say(b"MAIL FROM:<>\r\n"))[0].startswith("450 4.7.1")


@on_uvloop
async def test_the_process_has_a_limit_of_sessions() -> None:
    async with running_doors(max_sessions=1) as doors, greeted(doors), connected(doors) as second:
        assert (await second.rest()).startswith(b"421 4.3.2 Too many connections")


@on_uvloop
async def test_content_of_all_sessions_is_bounded() -> None:
    async with (
        running_doors(max_in_flight_octets=1024 * 1024) as doors,
        greeted(doors) as first,
        greeted(doors) as second,
    ):
        doors.spool.gate = asyncio.Event()
        await first.say(MAIL, 3)
        first.writer.write(b"From: a@example.test\r\n\r\n" + b"x" * 1000 + b"\r\n" * 300_000 + b".\r\n")
        await doors.spool.asked.wait()
        await second.say(MAIL, 3)
        reply = await second.say(b"From: a@example.test\r\n\r\n" + b"\r\n" * 400_000 + b".\r\n")
        assert reply[0].startswith("452 4.3.1")
        doors.spool.gate.set()
        assert (await first.say(b""))[0].startswith("250 2.0.0")
        assert doors.server.reception.budget.used == 0


@on_uvloop
async def test_a_client_that_does_not_read_is_not_read_either() -> None:
    async with running_doors(max_errors=10**9) as doors, greeted(doors) as client:
        session = only_session(doors)
        session.pause_writing()
        client.writer.write(b"NOOP\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.1)
        session.resume_writing()
        assert await client.say(b"") == ["250 2.0.0 OK"]


@on_uvloop
async def test_a_client_that_talks_on_while_its_mail_is_settled_is_held_back() -> None:
    async with running_doors() as doors, greeted(doors) as client:
        doors.spool.gate = asyncio.Event()
        await client.say(MAIL, 3)
        client.writer.write(TEXT)
        await doors.spool.asked.wait()
        noise = b"NOOP " + b"x" * 500 + b"\r\n"
        client.writer.write(noise * 2000)
        session = only_session(doors)
        while session._reading:  # noqa: ASYNC110 - until the socket has brought enough
            await asyncio.sleep(0.001)
        assert len(session._engine._buffer) < 1024 * 1024
        doors.spool.gate.set()
        assert (await client.say(b"", 2001))[0].startswith("250 2.0.0 Accepted")


# --- TLS --------------------------------------------------------------------------------------------------------------


async def certificate_of(doors: RunningDoors, name: str) -> tuple[str, ...]:
    context = trusting()
    context.check_hostname = False
    _, writer = await asyncio.open_connection("127.0.0.1", doors.port("submissions"), ssl=context, server_hostname=name)
    found = writer.get_extra_info("peercert")["subjectAltName"]
    writer.close()
    return tuple(value for _, value in found)


@on_uvloop
async def test_the_certificate_is_chosen_by_name() -> None:
    async with running_doors() as doors:
        assert await certificate_of(doors, HOSTNAME) == (HOSTNAME,)
        assert await certificate_of(doors, "second.test") == ("second.test", "*.wild.test")
        assert await certificate_of(doors, "any.wild.test") == ("second.test", "*.wild.test")
        assert await certificate_of(doors, "unknown.test") == (HOSTNAME,)


@on_uvloop
async def test_without_a_certificate_no_tls_is_offered_and_one_that_comes_is_used_at_once() -> None:
    async with running_doors(make_config(certificates=False)) as doors:
        async with connected(doors, "submission") as client:
            await client.say(b"")
            client.writer.write(b"EHLO client.test\r\n")
            assert b"STARTTLS" not in await client.reader.readuntil(b"LIMITS RCPTMAX=1000\r\n")
            assert (await client.say(b"STARTTLS\r\n"))[0].startswith("454 4.7.0")
        async with connected(doors, "submissions") as client:
            assert await client.rest() == b""
        doors.config = make_config()
        doors.certificates.update(doors.config)
        assert await certificate_of(doors, HOSTNAME) == (HOSTNAME,)


@on_uvloop
async def test_a_certificate_that_does_not_open_leaves_the_last_good_one() -> None:
    async with running_doors() as doors:
        broken = make_config()
        for certificate in broken.certificates:
            object.__setattr__(certificate, "sealed_key_pem", b"nonsense")
        doors.certificates.update(broken)
        assert await certificate_of(doors, HOSTNAME) == (HOSTNAME,)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@on_uvloop
async def test_old_tls_is_refused() -> None:
    context = trusting()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with running_doors() as doors:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", doors.port("submissions"), ssl=context, server_hostname=HOSTNAME)


@on_uvloop
async def test_a_handshake_that_fails_frees_its_place() -> None:
    async with running_doors() as doors:
        async with connected(doors, "submissions") as client:
            client.writer.write(b"EHLO in.the.clear\r\n")
            await client.rest()
        async with asyncio.timeout(10):
            while doors.server.reception.sessions:  # noqa: ASYNC110 - until the server noticed
                await asyncio.sleep(0.005)


# --- PROXY ------------------------------------------------------------------------------------------------------------

V1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 25\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12)
    + socket.inet_aton("203.0.113.7")
    + socket.inet_aton("127.0.0.1")
    + struct.pack("!HH", 4711, 25)
)
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"


@pytest.mark.parametrize(
    ("header", "address"),
    [(V1, "203.0.113.7"), (V2, "203.0.113.7"), (V2_LOCAL, "127.0.0.9"), (b"PROXY UNKNOWN\r\n", "127.0.0.9")],
    ids=["v1", "v2", "v2 local", "v1 unknown"],
)
@on_uvloop
async def test_a_trusted_balancer_tells_the_client(header: bytes, address: str) -> None:
    async with (
        running_doors(proxy_networks=("127.0.0.9/32",)) as doors,
        connected(doors, address="127.0.0.9") as client,
    ):
        assert (await client.say(header))[0].startswith("220 ")
        assert only_session(doors)._address == address


@on_uvloop
async def test_tls_may_follow_the_proxy_header_in_the_same_packet() -> None:
    async with running_doors(proxy_networks=("127.0.0.9/32",)) as doors:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting().wrap_bio(incoming, outgoing, server_hostname=HOSTNAME)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        async with connected(doors, "submissions", address="127.0.0.9") as client:
            client.writer.write(V2 + outgoing.read())
            banner = b""
            while not banner:
                incoming.write(await asyncio.wait_for(client.reader.read(65536), 10))
                try:
                    tls.do_handshake()
                    banner = tls.read(1000)
                except ssl.SSLWantReadError:
                    pass
                client.writer.write(outgoing.read())
            assert banner.startswith(b"220 ")


@pytest.mark.parametrize(
    "header",
    [b"EHLO client.test\r\n", b"PROXY TCP4 nonsense\r\n", b"PROXY " + b"x" * 200, b"\r\n\r\n\0\r\nQUIT\n\x31\0\0\0"],
)
@on_uvloop
async def test_a_trusted_balancer_must_send_a_header(header: bytes) -> None:
    async with (
        running_doors(proxy_networks=("127.0.0.9/32",)) as doors,
        connected(doors, address="127.0.0.9") as client,
    ):
        client.writer.write(header)
        assert await client.rest() == b""


@on_uvloop
async def test_a_header_that_does_not_come_is_not_awaited_for_long() -> None:
    async with (
        running_doors(proxy_networks=("127.0.0.9/32",), proxy_header_seconds=0.05) as doors,
        connected(doors, address="127.0.0.9") as client,
    ):
        assert await client.rest() == b""


@on_uvloop
async def test_others_connect_as_themselves_and_may_not_send_a_header() -> None:
    async with (
        running_doors(proxy_networks=("127.0.0.9/32",)) as doors,
        connected(doors, address="127.0.0.2") as client,
    ):
        assert (await client.say(b""))[0].startswith("220 ")
        assert only_session(doors)._address == "127.0.0.2"
        assert (await client.say(V1))[0].startswith("554 5.5.1")
        assert await client.rest() == b""


# --- shutting down ----------------------------------------------------------------------------------------------------


@on_uvloop
async def test_shutting_down_answers_the_mail_on_its_way_and_says_421_to_the_rest() -> None:
    async with running_doors() as doors, greeted(doors) as idle, greeted(doors) as busy:
        doors.spool.gate = asyncio.Event()
        await busy.say(MAIL, 3)
        busy.writer.write(TEXT)
        await doors.spool.asked.wait()
        draining = asyncio.create_task(doors.server.drain(10))
        assert (await idle.rest()).startswith(b"421 4.3.2 Shutting down")
        idle.writer.close()
        doors.spool.gate.set()
        said = await busy.rest()
        assert said.startswith(b"250 2.0.0 Accepted")
        assert said.splitlines()[1].startswith(b"421 4.3.2")
        busy.writer.close()
        await asyncio.wait_for(draining, 5)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", doors.port(Door.MX))


@on_uvloop
async def test_shutting_down_does_not_wait_for_ever() -> None:
    async with running_doors() as doors, greeted(doors) as client:
        doors.spool.gate = asyncio.Event()
        await client.say(MAIL, 3)
        client.writer.write(TEXT)
        await doors.spool.asked.wait()
        await asyncio.wait_for(doors.server.drain(0.05), 5)
        assert await client.rest() == b""


@on_uvloop
async def test_a_mail_whose_client_has_gone_is_stored_all_the_same() -> None:
    async with running_doors() as doors, greeted(doors) as client:
        doors.spool.gate = asyncio.Event()
        await client.say(MAIL, 3)
        client.writer.write(TEXT)
        await doors.spool.asked.wait()
        client.writer.transport.abort()
        doors.spool.gate.set()
        await asyncio.wait_for(doors.server.drain(5), 6)
        assert len(doors.spool.mails) == 1
        assert doors.server.reception.budget.used == 0
