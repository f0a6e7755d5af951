"""Replies as they come from servers that follow the RFCs and from those that do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.reply import MAX_REPLY_TEXT, Reply, make_reply


@pytest.mark.parametrize(
    ("code", "lines", "enhanced", "text", "why"),
    [
        (250, ["2.1.5 Ok"], "2.1.5", "Ok", "plain"),
        (250, ["Ok"], "", "Ok", "without"),
        (550, ["5.1.1 no such", "5.1.1 user here"], "5.1.1", "no such\nuser here", "repeated on each line"),
        (550, ["5.1.1 no such", "user here"], "5.1.1", "no such\nuser here", "given once"),
        (550, ["no", "5.1.1 user"], "", "no\n5.1.1 user", "not on the first line"),
        (550, ["4.2.2 full"], "", "4.2.2 full", "contradicts the code, so it is not believed"),
        (354, ["3.0.0 go"], "", "3.0.0 go", "RFC 3463 has no class 3"),
        (550, ["5.1.1"], "5.1.1", "", "nothing but the code"),
        (550, ["5.1.1\tx"], "5.1.1", "x", "a tab"),
        (550, ["5.1.1no"], "", "5.1.1no", "no space"),
        (550, ["5.1 no"], "", "5.1 no", "two numbers"),
        (550, ["5.1.1234 no"], "", "5.1.1234 no", "four digits"),
        (550, ["5.7.606 banned"], "5.7.606", "banned", "three digits"),
        (451, ["4.7.1 a", "4.7.2 b"], "4.7.1", "a\n4.7.2 b", "the first counts"),
        (250, [], "", "", "no text at all"),
        (250, [""], "", "", "an empty line"),
    ],
)
def test_replies(code: int, lines: list[str], enhanced: str, text: str, why: str) -> None:
    assert make_reply(code, lines) == Reply(code, enhanced, text), why


@pytest.mark.parametrize(
    ("code", "positive"), [(199, False), (200, True), (250, True), (354, True), (399, True), (400, False), (550, False)]
)
def test_2yz_and_3yz_are_positive(code: int, positive: bool) -> None:
    assert Reply(code, "", "").is_positive is positive


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(550, "5.1.1", "no such\nuser"), "550 5.1.1 no such user"),
        (Reply(550, "", "no"), "550 no"),
        (Reply(250, "", ""), "250"),
        (Reply(250, "2.0.0", ""), "250 2.0.0"),
    ],
)
def test_a_reply_is_shown_on_one_line(reply: Reply, expected: str) -> None:
    assert str(reply) == expected


@given(st.integers(200, 599), st.lists(st.text(max_size=300), max_size=20))
def test_whatever_comes_the_text_is_bounded_and_the_class_agrees(code: int, lines: list[str]) -> None:
    reply = make_reply(code, lines)
    assert len(reply.text) <= MAX_REPLY_TEXT
    assert not reply.enhanced or reply.enhanced[0] == str(code)[0]
