"""The SMTP engine without a socket: order, text, limits, actions."""

import pytest

from sternpost_ingress.engine import TRANSITIONS
from sternpost_ingress.engine_types import Authenticate, AuthLine, EngineLimits, Settle, StartTls, State, Traits
from sternpost_mail.envelope import Notify, Ret
from sternpost_mail.identity import Identity
from sternpost_mail.reply import Reply
from tests.unit.ingress.engine_client import ACCEPTED, EngineClient

HEADER = b"From: a@example.test\r\n\r\n"
ENVELOPE = b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@far.test>\r\n"


def test_a_mail_comes_out_octet_for_octet() -> None:
    client = EngineClient().start()
    text = HEADER + b"one\r\n.two\r\n..three\r\n\xff\xfe\r\n"
    assert client.send(text.replace(b"\r\n.", b"\r\n..") + b".\r\n") == ["250 2.0.0"]
    mail = client.mails[0]
    assert mail.content == text
    assert mail.envelope.eight_bit
    assert mail.envelope.sender == "a@example.test"
    assert [r.address for r in mail.envelope.recipients] == ["b@far.test"]


def test_an_empty_text_ends_with_its_first_line() -> None:
    client = EngineClient().start()
    assert client.send(b".\r\n") == ["250 2.0.0"]
    assert client.mails[0].content == b""


def test_a_line_that_begins_with_one_dot_loses_it() -> None:
    client = EngineClient().start()
    client.send(b".From: a@example.test\r\n\r\n.x\r\n.\r\n")
    assert client.mails[0].content == b"From: a@example.test\r\n\r\nx\r\n"


def test_parameters_reach_the_envelope() -> None:
    client = EngineClient().start()
    client.say(b"MAIL FROM:<> RET=HDRS ENVID=q+2B1 SMTPUTF8 BODY=8BITMIME SIZE=9\r\n")
    client.say(b"RCPT TO:<b@far.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old@far.test\r\nDATA\r\n")
    client.say(HEADER + b".\r\n")
    envelope = client.mails[0].envelope
    assert (envelope.sender, envelope.ret, envelope.envid) == ("", Ret.HDRS, "q+2B1")
    assert envelope.smtputf8
    assert envelope.eight_bit
    assert envelope.recipients[0].notify == Notify.SUCCESS | Notify.DELAY
    assert envelope.recipients[0].orcpt == "rfc822;old@far.test"


def test_a_recipient_said_twice_is_kept_once() -> None:
    client = EngineClient().start()
    client.say(b"MAIL FROM:<>\r\nRCPT TO:<b@far.test>\r\nRCPT TO:<b@far.test>\r\nDATA\r\n")
    client.say(HEADER + b".\r\n")
    assert len(client.mails[0].envelope.recipients) == 1


def test_input_waits_while_a_mail_is_settled_and_replies_keep_their_order() -> None:
    client = EngineClient().start()
    client.hold = True
    assert client.send(HEADER + b".\r\nMAIL FROM:<c@example.test>\r\nRCPT TO:<d@far.test>\r\nDATA\r\n") == []
    assert client.engine.state is State.SETTLING
    assert client.say(b"") == []
    client.engine.settled(ACCEPTED)
    assert client.say(b"") == ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354"]
    client.say(HEADER + b".\r\n")
    second = client.held[1]
    assert isinstance(second, Settle)
    assert second.envelope.sender == "c@example.test"


def test_an_unknown_outcome_closes_without_a_word() -> None:
    client = EngineClient().start()
    client.hold = True
    client.send(HEADER + b".\r\nNOOP\r\n")
    client.engine.abandon()
    assert client.octets(b"NOOP\r\n") == b""
    assert client.is_closed


def test_a_mail_whose_client_left_is_settled_and_nothing_after_it() -> None:
    client = EngineClient().start()
    client.hold = True
    client.send(HEADER + b".\r\n" + ENVELOPE + b"BDAT 24 LAST\r\n" + HEADER)
    client.engine.lost()
    assert client.budget.used > 0
    client.engine.settled(ACCEPTED)
    assert client.budget.used == 0
    assert client.is_closed
    assert len(client.held) == 1


def test_a_refused_mail_leaves_the_session_usable() -> None:
    client = EngineClient().start()
    client.host.refusals["content"] = Reply(550, "5.7.1", "no")
    assert client.send(HEADER + b".\r\n") == ["550 5.7.1"]
    client.host.refusals.clear()
    assert client.send(HEADER + b".\r\n") == ["250 2.0.0"]


@pytest.mark.parametrize(
    "text",
    [b"a\nb", b"a\rb", b"a\0b", b"a\r\n\nb", b"a\r\r\nb", b"x" * 2049, b"\r\n" * 3 + b"y" * 5000],
    ids=["LF", "CR", "NUL", "empty LF line", "CR before CR LF", "long line", "long line after short ones"],
)
def test_unclean_text_is_refused_and_budget_returned(text: bytes) -> None:
    client = EngineClient().start()
    assert client.send(HEADER + text + b"\r\n.\r\n") == ["550 5.6.0"]
    assert client.budget.used == 0
    assert not client.mails


def test_a_line_of_the_limit_is_taken() -> None:
    client = EngineClient().start()
    line = b"x" * 2048 + b"\r\n"
    assert client.send(HEADER + line + b"short\r\n" + line + line + b".\r\n") == ["250 2.0.0"]


@pytest.mark.parametrize(("octets", "reply"), [(4000, "250 2.0.0"), (4001, "552 5.3.4")])
def test_the_size_limit_counts_what_is_relayed_not_the_dots_of_transport(octets: int, reply: str) -> None:
    client = EngineClient(limits=EngineLimits(message=4000)).start()
    dots = b".\r\n" * 900
    text = HEADER + dots + b"x" * (octets - len(HEADER) - len(dots) - 2) + b"\r\n"
    assert len(text) == octets
    assert client.send(text.replace(b"\r\n.", b"\r\n..") + b".\r\n") == [reply]


def test_an_oversize_text_is_swallowed_without_being_kept() -> None:
    client = EngineClient(limits=EngineLimits(message=65536)).start()
    client.say(ENVELOPE + b"DATA\r\n")
    for _ in range(100):
        assert client.say(b"y" * 1000 + b"\r\n" + b"y" * 9000 + b"\r\n") == []
        assert len(client.engine._text._buffer) <= 90_000
    assert client.budget.used == 0
    assert client.say(b"\n.\n\r\n.\nQUIT\r\n.\r\n") == ["552 5.3.4"]
    assert client.say(b"NOOP\r\n") == ["250 2.0.0"]


def test_a_spent_budget_is_temporary() -> None:
    client = EngineClient(budget=1000).start()
    assert client.send(HEADER + b"x" * 990 + b"\r\n.\r\n") == ["452 4.3.1"]
    assert client.budget.used == 0
    client.budget.used = 1000
    assert client.say(b"MAIL FROM:<>\r\n") == ["452 4.3.1"]


def test_chunks_make_one_mail() -> None:
    client = EngineClient().start()
    assert client.say(ENVELOPE + b"BDAT 24\r\n" + HEADER + b"BDAT 3\r\n.\r\nBDAT 2 LAST\r\nab") == [
        "250 2.1.0",
        "250 2.1.5",
        "250 2.0.0",
        "250 2.0.0",
        "250 2.0.0",
    ]
    assert client.mails[0].content == HEADER + b".\r\nab\r\n"


def test_a_chunk_out_of_order_is_swallowed_and_never_obeyed() -> None:
    client = EngineClient().start()
    assert client.say(b"BDAT 6\r\nQUIT\r\nNOOP\r\n") == ["503 5.5.1", "250 2.0.0"]
    assert client.say(b"BDAT 0\r\nNOOP\r\n") == ["503 5.5.1", "250 2.0.0"]


def test_a_chunk_over_the_limit_fails_all_that_follow() -> None:
    client = EngineClient(limits=EngineLimits(message=65536)).start()
    client.say(ENVELOPE)
    assert client.say(b"BDAT 90000\r\n" + b"x" * 90000) == ["552 5.3.4"]
    assert client.say(b"BDAT 1\r\nx") == ["552 5.3.4"]
    assert client.say(b"BDAT 1 LAST\r\nx") == ["552 5.3.4"]
    assert client.send(HEADER + b".\r\n") == ["250 2.0.0"]


@pytest.mark.parametrize("count", [b"x", b"", b"-1", b"1e3", b"99999999999", b"5 FIRST"])
def test_a_chunk_without_a_readable_size_ends_the_session(count: bytes) -> None:
    client = EngineClient().start()
    client.say(ENVELOPE)
    assert client.say(b"BDAT " + count + b"\r\nNOOP\r\n") == ["501 5.5.4"]
    assert client.is_closed


def test_rset_and_ehlo_forget_the_transaction() -> None:
    client = EngineClient().start()
    client.say(ENVELOPE)
    assert client.say(b"RSET\r\n") == ["250 2.0.0"]
    assert client.say(b"DATA\r\n") == ["503 5.5.1"]
    client.say(ENVELOPE)
    assert client.say(b"EHLO again.test\r\n") == ["250"]
    assert client.say(b"RCPT TO:<b@far.test>\r\n") == ["503 5.5.1"]


@pytest.mark.parametrize("state", list(TRANSITIONS))
@pytest.mark.parametrize("verb", ["MAIL FROM:<>", "RCPT TO:<b@far.test>", "DATA", "STARTTLS", "AUTH PLAIN eA=="])
def test_a_command_that_the_table_does_not_know_is_503(state: State, verb: str) -> None:
    if verb.split()[0].encode() in TRANSITIONS[state]:
        return
    client = EngineClient(traits=Traits("mx.test", auth=True))
    client.engine.greet()
    client.engine.take_output()
    client.engine.state = state
    assert client.say(verb.encode() + b"\r\n") == ["503 5.5.1"]
    assert client.engine.state is state


def test_errors_are_counted_until_a_mail_is_accepted() -> None:
    client = EngineClient(limits=EngineLimits(errors=3)).start()
    assert client.say(b"X\r\nX\r\n") == ["500 5.5.1", "500 5.5.1"]
    assert client.send(HEADER + b".\r\n") == ["250 2.0.0"]
    assert client.say(b"X\r\nX\r\nX\r\nNOOP\r\n") == ["500 5.5.1", "500 5.5.1", "500 5.5.1", "421 4.7.0"]
    assert client.is_closed


def test_temporary_refusals_are_not_counted() -> None:
    client = EngineClient(limits=EngineLimits(errors=2)).start()
    client.host.refusals["<>"] = Reply(451, "4.3.0", "later")
    assert client.say(b"MAIL FROM:<>\r\n" * 5) == ["451 4.3.0"] * 5
    assert not client.is_closed


def test_starttls_hands_over_and_starts_anew() -> None:
    client = EngineClient(traits=Traits("mx.test", auth=True))
    client.engine.tls_offered = True
    client.start()
    assert client.say(b"STARTTLS\r\n") == ["220 2.0.0"]
    assert client.held == [StartTls()]
    client.engine.tls_started()
    assert client.say(b"MAIL FROM:<>\r\n") == ["503 5.5.1"]
    assert b"AUTH PLAIN LOGIN" in client.octets(b"EHLO client.test\r\n")


def test_clear_octets_after_starttls_end_the_session_unread() -> None:
    client = EngineClient()
    client.engine.tls_offered = True
    client.start()
    client.say(b"STARTTLS\r\n")
    assert client.octets(b"EHLO evil.test\r\n") == b""
    assert client.is_closed


def test_an_auth_exchange_goes_line_by_line() -> None:
    client = EngineClient(traits=Traits("mx.test", auth=True, auth_required=True))
    client.engine.tls = True
    client.start()
    assert client.say(b"MAIL FROM:<>\r\n") == ["530 5.7.0"]
    client.say(b"auth login\r\n")
    assert client.held == [Authenticate(("LOGIN",))]
    client.engine.challenge("VXNlcm5hbWU6")
    assert client.octets(b"YWxpY2U=\r\nnext line\r\n") == b"334 VXNlcm5hbWU6\r\n"
    assert client.held[1] == AuthLine(b"YWxpY2U=")
    assert "YWxpY2U" not in repr(client.held[1])
    client.engine.challenge("UGFzcw==")
    client.say(b"")
    assert client.held[2] == AuthLine(b"next line")
    client.engine.authenticated(Identity("team-a", "alice", ()), Reply(235, "2.7.0", "ok"))
    assert client.say(b"MAIL FROM:<>\r\n") == ["235 2.7.0", "250 2.1.0"]


def test_an_auth_line_may_be_long_and_not_endless() -> None:
    client = EngineClient(traits=Traits("mx.test", auth=True))
    client.engine.tls = True
    client.start()
    client.say(b"AUTH PLAIN " + b"x" * 12_000 + b"\r\n")
    assert isinstance(client.held[0], Authenticate)
    client.engine.challenge("")
    client.say(b"y" * 12_289)
    client.say(b"\r\n")
    assert client.held[1] == AuthLine(b"*")


def test_an_endless_line_is_not_kept() -> None:
    client = EngineClient().start()
    for _ in range(1000):
        assert client.say(b"a" * 1000) == []
        assert len(client.engine._buffer) <= 1000
    assert client.say(b"\r\nNOOP\r\n") == ["500 5.5.2", "250 2.0.0"]


def test_shutting_down_ends_an_idle_session_and_spares_a_mail() -> None:
    idle = EngineClient().start()
    idle.engine.leave()
    assert idle.say(b"") == ["421 4.3.2"]
    busy = EngineClient().start()
    busy.say(ENVELOPE + b"DATA\r\n")
    busy.engine.leave()
    assert busy.say(HEADER + b".\r\nNOOP\r\n") == ["250 2.0.0", "421 4.3.2"]
    assert busy.is_closed


def test_a_session_is_not_cut_while_its_mail_is_settled() -> None:
    client = EngineClient().start()
    client.hold = True
    client.send(HEADER + b".\r\n")
    client.engine.cut(421, "4.4.2", "too slow")
    assert client.engine.state is State.SETTLING
    client.engine.settled(ACCEPTED)
    assert client.say(b"") == ["250 2.0.0"]
