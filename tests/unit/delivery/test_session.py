"""Sessions and the client under them, against a peer that does what its script says."""

import asyncio
import re

import pytest

from sternpost_delivery.policy import Endpoint
from sternpost_mail.dispatch import JobRecipient, Route
from sternpost_mail.envelope import Notify, Ret
from sternpost_mail.outcome import Delivered, PermanentFailure, TemporaryFailure, Unreached
from sternpost_mail.route import SmartHost, TlsDemand, TlsMode
from tests.support.smtp_peer import Action, Drop, SmtpPeer, TestAuthority, Wait, ehlo, make_authority, running_peer
from tests.unit.delivery.factory import CONTENT, World, make_job, route_to, trusting

STARTTLS = ehlo("PIPELINING", "STARTTLS", "AUTH PLAIN LOGIN")
CLEAR = ehlo("PIPELINING")


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return make_authority()


async def test_a_mail_arrives_octet_for_octet_and_dots_are_stuffed() -> None:
    content = b".first\r\nSubject: x\r\n\r\n..two\r\n.\r\nlast \xff\r\n"
    world = World()
    async with running_peer() as peer:
        run = await world.run(route_to(peer.port), make_job(content=content, eight_bit=True))
    assert peer.mails[0].content == content
    assert peer.mails[0].wire.startswith(b"..first")
    assert isinstance(world.outcomes()["mail1"][0], Delivered)
    assert world.settled[0].remote == f"127.0.0.1 [127.0.0.1]:{peer.port}"
    assert not run.site_down


async def test_mails_of_a_session_share_a_connection_and_the_next_group_leaves_with_the_dot() -> None:
    world = World()
    async with running_peer() as peer:
        await world.run(route_to(peer.port), *(make_job(n) for n in range(1, 4)))
    assert peer.connections == 1
    assert len(peer.mails) == 3
    together = [chunk for chunk in peer.chunks if b"\r\n.\r\nMAIL FROM" in chunk]
    assert len(together) == 2
    assert together[0].endswith(b"DATA\r\n")
    assert [one.reused for one in world.settled] == [False, True, True]


async def test_a_peer_without_pipelining_gets_one_command_at_a_time() -> None:
    world = World()
    async with running_peer({"EHLO": ehlo("SIZE 1000")}) as peer:
        await world.run(route_to(peer.port), make_job(1, ("a@example.net", "b@example.net")), make_job(2))
    assert len(peer.mails) == 2
    assert all(re.fullmatch(rb"[^\r\n]+\r\n", chunk) or chunk.endswith(b"\r\n.\r\n") for chunk in peer.chunks)


async def test_each_recipient_gets_its_own_outcome() -> None:
    world = World()
    rcpts = [b"250 ok\r\n", b"550 5.1.1 no\r\n", b"450-4.2.0 busy\r\n450 4.2.0 try again in 2 minutes\r\n"]
    async with running_peer({"RCPT": rcpts}) as peer:
        await world.run(route_to(peer.port), make_job(1, ("a@example.net", "b@example.net", "c@example.net")))
    delivered, refused, later = world.outcomes()["mail1"]
    assert isinstance(delivered, Delivered)
    assert isinstance(refused, PermanentFailure)
    assert isinstance(later, TemporaryFailure)
    assert later.retry_after == 120
    assert later.reply.text == "busy\ntry again in 2 minutes"
    assert peer.mails[0].rcpts == ["RCPT TO:<a@example.net>"]


async def test_354_though_every_recipient_was_refused_is_ended_with_a_lone_dot_and_the_next_mail_goes_on() -> None:
    world = World()
    script: dict[str, Action | list[Action]] = {
        "RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"],
        "DOT": [b"554 5.5.1 no valid recipients\r\n", b"250 2.0.0 queued\r\n"],
    }
    async with running_peer(script) as peer:
        await world.run(route_to(peer.port), make_job(1), make_job(2))
    assert isinstance(world.outcomes()["mail1"][0], PermanentFailure)
    assert isinstance(world.outcomes()["mail2"][0], Delivered)
    assert [mail.content for mail in peer.mails] == [CONTENT]
    assert peer.connections == 1


async def test_a_refused_transaction_is_reset_before_the_next() -> None:
    world = World()
    script: dict[str, Action | list[Action]] = {
        "RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"],
        "DATA": [b"554 5.5.1 no valid recipients\r\n", b"354 go\r\n"],
    }
    async with running_peer(script) as peer:
        await world.run(route_to(peer.port), make_job(1), make_job(2))
    assert peer.lines.count("RSET") == 1
    assert len(peer.mails) == 1


async def test_a_connection_is_kept_for_the_next_session_of_its_site() -> None:
    world = World()
    async with running_peer() as peer:
        await world.run(route_to(peer.port), make_job(1))
        await world.run(route_to(peer.port), make_job(2))
        await world.run(route_to(peer.port), make_job(3), site="another")
        assert peer.connections == 2
        world.pool.close()
        await peer.wait_for("QUIT", 2)


async def test_a_kept_connection_that_the_peer_closed_is_replaced_without_a_failure() -> None:
    world = World()
    script: dict[str, Action | list[Action]] = {"MAIL": [b"250 ok\r\n", Drop(b"421 4.4.2 idle\r\n"), b"250 ok\r\n"]}
    async with running_peer(script) as peer:
        await world.run(route_to(peer.port), make_job(1))
        run = await world.run(route_to(peer.port), make_job(2))
    assert [type(outcome) for (outcome,) in world.outcomes().values()] == [Delivered, Delivered]
    assert peer.connections == 2
    assert not run.site_down


async def test_a_peer_that_hangs_up_after_each_mail_gets_them_all() -> None:
    world = World()
    async with running_peer({"DOT": Drop(b"250 2.0.0 queued\r\n")}) as peer:
        run = await world.run(route_to(peer.port), *(make_job(n) for n in range(1, 6)))
    assert peer.connections == 5
    assert all(isinstance(one.outcomes[0], Delivered) for one in world.settled)
    assert len(world.settled) == 5
    assert not run.site_down


async def test_a_connection_lost_after_the_dot_says_that_the_mail_may_have_arrived() -> None:
    world = World()
    async with running_peer({"DOT": Drop()}) as peer:
        run = await world.run(route_to(peer.port), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, Unreached)
    assert "after the final dot" in outcome.reason
    assert "may have arrived" in outcome.reason
    assert run.site_down
    assert peer.connections == 1, "a mail that may have arrived is not sent a second time in the same session"


async def test_one_mail_that_kills_its_connection_does_not_take_the_others_along() -> None:
    world = World()
    async with running_peer({"DOT": [Drop(), b"250 queued\r\n"]}) as peer:
        run = await world.run(route_to(peer.port), make_job(1), make_job(2), make_job(3))
    kinds = {name: type(outcomes[0]) for name, outcomes in world.outcomes().items()}
    assert kinds == {"mail1": Unreached, "mail2": Delivered, "mail3": Delivered}
    assert peer.connections == 2
    assert not run.site_down


async def test_two_connections_lost_in_a_row_are_the_sites_trouble() -> None:
    world = World()
    async with running_peer({"DOT": Drop()}) as peer:
        run = await world.run(route_to(peer.port), *(make_job(n) for n in range(1, 6)))
    assert len(world.settled) == 5
    assert peer.connections == 2
    assert run.site_down


GOODBYE = b"421 4.3.2 closing, try again in 5 minutes\r\n"


@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("hangs_up", [True, False])
async def test_421_anywhere_is_temporary_and_the_site_is_down(verb: str, hangs_up: bool) -> None:
    world = World()
    async with running_peer({verb: Drop(GOODBYE) if hangs_up else GOODBYE}) as peer:
        run = await world.run(route_to(peer.port), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.reply.code == 421
    assert outcome.retry_after == 300
    assert run.site_down
    assert peer.mails == []


@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("action", [Drop(), Drop(GOODBYE)], ids=["hangs up", "says 421"])
async def test_trouble_before_the_content_moves_on_to_the_next_host(verb: str, action: Drop) -> None:
    world = World()
    async with running_peer({verb: action}) as first, running_peer() as second:
        run = await world.run(route_to(first.port, second.port), make_job(1), make_job(2))
    assert len(second.mails) == 2
    assert {type(one.outcomes[0]) for one in world.settled} == {Delivered}
    assert not run.site_down


async def test_554_in_the_greeting_moves_on_to_the_next_host() -> None:
    world = World()
    async with running_peer({"GREETING": b"554 5.7.1 not here\r\n"}) as first, running_peer() as second:
        await world.run(route_to(first.port, second.port), make_job(1))
    assert len(second.mails) == 1


async def test_4yz_to_rcpt_is_the_answer_and_no_other_host_is_asked() -> None:
    world = World()
    async with running_peer({"RCPT": b"450 4.7.1 greylisted\r\n"}) as first, running_peer() as second:
        run = await world.run(route_to(first.port, second.port), make_job(1))
    assert isinstance(world.outcomes()["mail1"][0], TemporaryFailure)
    assert second.connections == 0
    assert not run.site_down


async def test_nobody_there_is_unreached() -> None:
    world = World()
    async with running_peer() as peer:
        port = peer.port
    run = await world.run(route_to(port), make_job(1), make_job(2))
    assert [one.outcomes for one in world.settled] == [(Unreached("connection failed: Connection refused"),)] * 2
    assert run.site_down


async def test_helo_follows_a_refused_ehlo() -> None:
    world = World()
    async with running_peer({"EHLO": b"502 5.5.1 what\r\n"}) as peer:
        await world.run(route_to(peer.port), make_job(1))
    assert peer.lines[:2] == ["EHLO client.test", "HELO client.test"]
    assert len(peer.mails) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"250-" + b"x" * 3000 + b"\r\n", "octets"),
        (b"250-x\r\n" * 200 + b"250 x\r\n", "lines"),
        (b"x" * 5000, "octets"),
        (b"250-a\r\n550 b\r\n", "disagree"),
        (b"OK\r\n", "not an SMTP reply"),
        (b"999 what\r\n", "not an SMTP reply"),
    ],
    ids=["long line", "many lines", "no line end", "codes disagree", "no code", "bad code"],
)
async def test_an_endless_or_broken_reply_ends_the_connection(reply: bytes, reason: str) -> None:
    world = World()
    async with running_peer({"MAIL": reply}) as peer:
        run = await world.run(route_to(peer.port), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, Unreached)
    assert reason in outcome.reason
    assert run.site_down


async def test_a_reply_too_many_is_never_taken_for_the_answer_to_the_dot() -> None:
    world = World()
    async with running_peer({"DATA": b"354 go\r\n250 2.0.0 queued\r\n", "DOT": Drop()}) as peer:
        await world.run(route_to(peer.port), make_job(1))
    assert not isinstance(world.outcomes()["mail1"][0], Delivered)
    assert peer.mails == []


async def test_250_to_data_sends_nothing() -> None:
    world = World()
    async with running_peer({"DATA": b"250 ok\r\n"}) as peer:
        await world.run(route_to(peer.port), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, Unreached)
    assert not any(b"Hello." in chunk for chunk in peer.chunks)


async def test_control_characters_of_a_reply_are_not_passed_on() -> None:
    world = World()
    async with running_peer({"RCPT": b"550 5.1.1 no\x1b[2J\x00\r here\r\n"}) as peer:
        await world.run(route_to(peer.port), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, PermanentFailure)
    assert outcome.reply.text == "no?[2J?? here"


async def test_silence_ends_with_the_patience_for_the_command() -> None:
    never = asyncio.Event()
    world = World()
    world.patience = type(world.patience)(*[0.2] * 10)
    async with running_peer({"DOT": Wait(never)}) as peer:
        await world.run(route_to(peer.port), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, Unreached)
    assert "after the final dot" in outcome.reason
    assert "no answer within 0.2 s" in outcome.reason


# -- the lease


async def test_without_a_lease_no_final_dot_is_sent() -> None:
    world = World()
    asked = asyncio.Event()
    async with running_peer({"DATA": Wait(asked, b"354 go\r\n")}) as peer:
        running = asyncio.create_task(world.run(route_to(peer.port), make_job(1), make_job(2)))
        await peer.wait_for("DATA")
        world.lease = False
        asked.set()
        await running
        await peer.closed.wait()
    assert world.settled == []
    assert peer.mails == []
    assert not any(b"Hello." in chunk for chunk in peer.chunks)


async def test_without_a_lease_no_further_mail_begins() -> None:
    world = World()
    async with running_peer({"EHLO": ehlo("SIZE 1000")}) as peer:

        def lose() -> None:
            world.lease = False

        peer.on_dot = lose
        await world.run(route_to(peer.port), make_job(1), make_job(2))
    assert [one.job.mail_id for one in world.settled] == ["mail1"]
    assert len(peer.mails) == 1


# -- large content


async def test_large_content_is_fetched_sent_in_blocks_and_given_back_to_the_budget() -> None:
    content = b"Subject: big\r\n\r\n" + b"." * 70 + b"\r\n" + (b"x" * 70 + b"\r\n") * 20_000
    world = World(objects={"ref1": content})
    job = make_job(1, content=b"", content_ref="ref1", size=len(content))
    async with running_peer() as peer:
        await world.run(route_to(peer.port), make_job(2), job, make_job(3))
    assert {mail.content for mail in peer.mails} == {content, CONTENT}
    assert len(peer.mails) == 3
    assert world.large.used == 0


async def test_content_that_is_missing_is_temporary() -> None:
    world = World()
    async with running_peer() as peer:
        await world.run(route_to(peer.port), make_job(1, content_ref="gone"), make_job(2))
    assert isinstance(world.outcomes()["mail1"][0], Unreached)
    assert isinstance(world.outcomes()["mail2"][0], Delivered)
    assert world.large.used == 0


# -- what the hop offers


@pytest.mark.parametrize(
    ("offers", "changes", "enhanced"),
    [
        (["SIZE 10"], {}, "5.3.4"),
        ([], {"content": b"Subject: x\r\n\r\n\xff\r\n", "eight_bit": True}, "5.6.3"),
        (["8BITMIME"], {"sender": "jörg@example.com", "smtputf8": True}, "5.6.7"),
        (["8BITMIME"], {"content": "Subject: ü\r\n\r\n".encode(), "smtputf8": True}, "5.6.7"),
        ([], {"sender": "a@b\r\nRSET"}, "5.1.3"),
    ],
)
async def test_what_the_hop_cannot_carry_fails_for_good_and_is_not_sent(
    offers: list[str], changes: dict[str, object], enhanced: str
) -> None:
    world = World()
    async with running_peer({"EHLO": ehlo("PIPELINING", *offers)}) as peer:
        await world.run(route_to(peer.port), make_job(1, **changes))  # type: ignore[arg-type]
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, PermanentFailure)
    assert outcome.reply.enhanced == enhanced
    assert not any(line.startswith("MAIL") for line in peer.lines)


async def test_a_mail_that_declared_more_than_it_uses_passes() -> None:
    world = World()
    async with running_peer({"EHLO": CLEAR}) as peer:
        await world.run(route_to(peer.port), make_job(1, eight_bit=True, smtputf8=True))
    assert peer.mails[0].mail == "MAIL FROM:<a@example.com>"


async def test_parameters_are_passed_on_to_a_hop_that_offers_them() -> None:
    world = World()
    job = make_job(
        1,
        eight_bit=True,
        smtputf8=True,
        sender="jörg@example.com",
        ret=Ret.HDRS,
        envid="abc+2B1",
        recipients=("x",),
    )
    recipient = JobRecipient(0, "user@example.net", int(Notify.SUCCESS | Notify.DELAY), "rfc822;user@example.net")
    job = type(job)(**{name: getattr(job, name) for name in job.__slots__} | {"recipients": (recipient,)})
    async with running_peer() as peer:
        await world.run(route_to(peer.port), job)
    expected = f"MAIL FROM:<jörg@example.com> SIZE={len(CONTENT)} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=abc+2B1"
    assert peer.mails[0].mail == expected
    wanted = "RCPT TO:<user@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;user@example.net"
    assert peer.mails[0].rcpts == [wanted]
    assert world.settled[0].dsn_passed_on


# -- TLS and AUTH


async def test_opportunistic_tls_takes_any_certificate(authority: TestAuthority) -> None:
    world = World()
    async with running_peer({"EHLO": STARTTLS}, tls=authority.server_context("other.test")) as peer:
        await world.run(route_to(peer.port, tls=TlsDemand.OPPORTUNISTIC), make_job(1))
    assert peer.mails[0].tls
    assert world.settled[0].tls == "TLSv1.3"


@pytest.mark.parametrize("answer", [b"454 4.7.0 not now\r\n", b"502 5.5.1 what\r\n"])
async def test_opportunistic_tls_goes_on_in_clear_text_where_starttls_is_refused(answer: bytes) -> None:
    world = World()
    async with running_peer({"EHLO": STARTTLS, "STARTTLS": answer}) as peer:
        await world.run(route_to(peer.port, tls=TlsDemand.OPPORTUNISTIC), make_job(1))
    assert not peer.mails[0].tls
    assert world.settled[0].tls == ""


async def test_opportunistic_tls_falls_back_to_clear_text_after_a_failed_handshake() -> None:
    world = World()
    async with running_peer({"EHLO": STARTTLS}) as peer:  # says 220 and never shakes hands
        world.patience = type(world.patience)(*[0.3] * 10)
        await world.run(route_to(peer.port, tls=TlsDemand.OPPORTUNISTIC), make_job(1))
    assert peer.connections == 2
    assert len(peer.mails) == 1


@pytest.mark.parametrize("demand", [TlsDemand.REQUIRED, TlsDemand.VERIFIED])
@pytest.mark.parametrize(
    "script",
    [{"EHLO": CLEAR}, {"EHLO": STARTTLS, "STARTTLS": b"454 4.7.0 not now\r\n"}, {"EHLO": STARTTLS}],
    ids=["not offered", "refused", "no handshake"],
)
async def test_demanded_tls_is_never_weakened(demand: TlsDemand, script: dict[str, Action]) -> None:
    world = World()
    world.patience = type(world.patience)(*[0.3] * 10)
    async with running_peer(script) as peer:
        run = await world.run(route_to(peer.port, tls=demand), make_job(1))
    assert isinstance(world.outcomes()["mail1"][0], TemporaryFailure | Unreached)
    assert run.site_down
    assert peer.connections == 1
    assert not any(line.startswith("MAIL") for line in peer.lines)


async def test_verified_tls_refuses_a_certificate_of_another_name_or_authority(authority: TestAuthority) -> None:
    for contexts in (World().contexts, trusting(authority.client_context())):
        world = World(contexts=contexts)
        async with running_peer({"EHLO": STARTTLS}, tls=authority.server_context("other.test")) as peer:
            await world.run(route_to(peer.port, tls=TlsDemand.VERIFIED), make_job(1))
        (outcome,) = world.outcomes()["mail1"]
        assert isinstance(outcome, Unreached)
        assert "certificate is not valid" in outcome.reason
        assert peer.mails == []


async def test_what_came_in_clear_after_starttls_is_an_injection_and_ends_the_connection(
    authority: TestAuthority,
) -> None:
    world = World()
    script: dict[str, Action] = {"EHLO": STARTTLS, "STARTTLS": b"220 go\r\n250-peer\r\n250 AUTH PLAIN\r\n"}
    async with running_peer(script, tls=authority.server_context("127.0.0.1")) as peer:
        await world.run(route_to(peer.port, tls=TlsDemand.REQUIRED), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, Unreached)
    assert peer.mails == []
    assert not any(line.startswith("MAIL") for line in peer.lines)


async def test_half_a_line_in_clear_after_starttls_is_an_injection_too(authority: TestAuthority) -> None:
    world = World()
    script: dict[str, Action] = {"EHLO": STARTTLS, "STARTTLS": b"220 go\r\n250"}
    async with running_peer(script, tls=authority.server_context("127.0.0.1")) as peer:
        await world.run(route_to(peer.port, tls=TlsDemand.REQUIRED), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, Unreached)
    assert "injection" in outcome.reason


def auth_route(peer: SmtpPeer, tls: TlsDemand, mode: TlsMode = TlsMode.STARTTLS) -> Route:
    hop = SmartHost("127.0.0.1", peer.port, tls, mode, username="user", sealed_password=b"x")
    return Route(smart_hosts=(hop,), allow_forbidden_addresses=True)


@pytest.mark.parametrize("mode", list(TlsMode))
async def test_auth_is_said_over_verified_tls(authority: TestAuthority, mode: TlsMode) -> None:
    world = World(contexts=trusting(authority.client_context()))
    implicit = mode is TlsMode.IMPLICIT
    async with running_peer(
        {"EHLO": STARTTLS}, tls=authority.server_context("127.0.0.1"), implicit_tls=implicit
    ) as peer:
        await world.run(auth_route(peer, TlsDemand.VERIFIED, mode), make_job(1))
    assert "AUTH PLAIN AHVzZXIAc2VjcmV0" in peer.lines
    assert len(peer.mails) == 1
    assert world.settled[0].tls == "TLSv1.3 verified"


async def test_auth_login_where_plain_is_not_offered(authority: TestAuthority) -> None:
    world = World(contexts=trusting(authority.client_context()))
    script: dict[str, Action | list[Action]] = {
        "EHLO": ehlo("STARTTLS", "AUTH=LOGIN"),
        "AUTH": [b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"235 ok\r\n"],
    }
    async with running_peer(script, tls=authority.server_context("127.0.0.1")) as peer:
        await world.run(auth_route(peer, TlsDemand.VERIFIED), make_job(1))
    assert peer.lines[3:6] == ["AUTH LOGIN", "dXNlcg==", "c2VjcmV0"]
    assert len(peer.mails) == 1


@pytest.mark.parametrize("tls", [TlsDemand.DISABLED, TlsDemand.OPPORTUNISTIC, TlsDemand.REQUIRED])
async def test_auth_is_never_said_over_less(authority: TestAuthority, tls: TlsDemand) -> None:
    world = World()
    async with running_peer({"EHLO": STARTTLS}, tls=authority.server_context("127.0.0.1")) as peer:
        run = await world.run(auth_route(peer, tls), make_job(1))
    assert isinstance(world.outcomes()["mail1"][0], TemporaryFailure)
    assert not any(line.startswith(("AUTH", "MAIL")) for line in peer.lines)
    assert run.site_down


async def test_a_wrong_password_is_temporary_for_the_mail(authority: TestAuthority) -> None:
    world = World(contexts=trusting(authority.client_context()))
    script: dict[str, Action] = {"EHLO": STARTTLS, "AUTH": b"535 5.7.8 wrong\r\n"}
    async with running_peer(script, tls=authority.server_context("127.0.0.1")) as peer:
        run = await world.run(auth_route(peer, TlsDemand.VERIFIED), make_job(1))
    (outcome,) = world.outcomes()["mail1"]
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.reply.code == 535
    assert run.site_down


def test_an_endpoint_does_not_print_its_password() -> None:
    assert "hunter2" not in repr(Endpoint("h", 25, TlsDemand.VERIFIED, username="u", sealed_password=b"hunter2"))
