"""The engine under any split and any octets.

Invariant: however the network cuts a stream into packets, the same octets get the same replies and the same mails, and
no input, valid or not, makes it raise, talk after closing, keep octets charged, or accept a text with a lone CR, LF or
NUL.
"""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sternpost_ingress.engine_text import find_text_fault
from sternpost_ingress.engine_types import EngineLimits, State, Traits
from tests.unit.ingress.engine_client import EngineClient

# Splits move the moment at which octets arrive, and unauthorized pipelining is about that moment: it has its own tests.
LIMITS = EngineLimits(message=3000, recipients=3, errors=1000, forbid_unauthorized_pipelining=False)

HEADER = b"From: a@example.test\r\n\r\n"
pieces = st.sampled_from(
    [
        b"EHLO c.test\r\n",
        b"HELO c.test\r\n",
        b"MAIL FROM:<a@example.test>\r\n",
        b"MAIL FROM:<> SIZE=10 BODY=8BITMIME RET=FULL\r\n",
        b"MAIL FROM:<a@example.test> SIZE=4000\r\n",
        b"RCPT TO:<b@far.test>\r\n",
        b"RCPT TO:<c@far.test> NOTIFY=NEVER\r\n",
        b"RCPT TO:<broken\r\n",
        b"DATA\r\n" + HEADER + b"text\r\n.\r\n",
        b"DATA\r\n" + HEADER + b"..\r\n.a\r\n.\r\n",
        b"DATA\r\n.\r\n",
        b"DATA\r\n" + HEADER + b"bad\n.\nline\r\n.\r\n",
        b"DATA\r\n" + HEADER + b"bad\r.\rline\r\n.\r\n",
        b"DATA\r\n" + HEADER + b"0123456789\r\n" * 400 + b".\r\n",
        b"BDAT 24\r\n" + HEADER,
        b"BDAT 7 LAST\r\na\r\n.\r\nb",
        b"BDAT 0 LAST\r\n",
        b"BDAT 4000\r\n" + b"0123456789" * 400,
        b"RSET\r\n",
        b"NOOP " + b"x" * 600 + b"\r\n",
        b"AUTH PLAIN eA==\r\n",
        b"STARTTLS\r\n",
        b"VRFY x\r\n",
        b"\r\n",
        b"QUIT\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"\0",
        b"\r",
        b"\n",
    ]
)
streams = st.lists(st.one_of(pieces, st.binary(max_size=40)), max_size=14).map(b"".join)


def _client() -> EngineClient:
    client = EngineClient(limits=LIMITS, traits=Traits("mx.test", auth=True), budget=100_000)
    client.engine.greet()
    client.engine.take_output()
    return client


def _run(packets: list[bytes]) -> tuple[bytes, list[bytes], State]:
    client = _client()
    out = bytearray()
    for packet in packets:
        out += client.octets(packet)
        if client.is_closed:
            assert client.octets(b"NOOP\r\n") == b""
            break
    for mail in client.mails:
        breaks = mail.content.count(b"\r\n")
        assert mail.content.count(b"\r") == mail.content.count(b"\n") == breaks
        assert b"\0" not in mail.content
        assert len(mail.content) <= LIMITS.message
    state = client.engine.state
    client.engine.lost()
    assert client.budget.used == 0
    return bytes(out), [mail.content for mail in client.mails], state


@given(streams, st.data())
def test_any_split_of_a_stream_has_the_same_effect(stream: bytes, data: st.DataObject) -> None:
    whole = _run([stream])
    assert _run([stream[at : at + 1] for at in range(len(stream))]) == whole
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    edges = [0, *cuts, len(stream)]
    assert _run([stream[a:b] for a, b in pairwise(edges)]) == whole


@given(st.binary(max_size=400))
def test_any_octets_get_lawful_replies(stream: bytes) -> None:
    out, _, _ = _run([stream])
    for line in out.split(b"\r\n")[:-1]:
        assert line[:3].isdigit()
        assert line[3:4] in (b" ", b"-")
        assert line.isascii()
        assert all(octet >= 32 for octet in line)


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\0", b"x", b"\r\n", b"QUIT\r\n"]), max_size=60).map(b"".join))
def test_only_the_true_end_ends_a_text(text: bytes) -> None:
    while b"\r\n.\r\n" in (text := b"x" + text + b"\r\n"):
        text = text.replace(b"\r\n.\r\n", b"\r\n..\r\n")[1:-2]
    client = _client()
    client.say(b"EHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<b@far.test>\r\nDATA\r\n")
    assert client.say(text) == []
    assert client.engine.state is State.DATA
    assert len(client.say(b".\r\n")) == 1
    assert client.say(b"NOOP\r\n") == ["250 2.0.0"]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x", b"\xff", b"\x85", b"\x0b"]), max_size=30).map(b"".join))
def test_the_fast_look_at_line_ends_agrees_with_counting(text: bytes) -> None:
    breaks = text.count(b"\r\n")
    clean = text.count(b"\r") == text.count(b"\n") == breaks
    assert (find_text_fault(text, 998) == "") is clean
