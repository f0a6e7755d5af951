"""What a reply means, as one table."""

import pytest

from sternpost_delivery.classify import OURS_TO_MEND, Stage, classify, judge, retry_after
from sternpost_mail.outcome import Delivered, PermanentFailure, TemporaryFailure
from sternpost_mail.reply import Reply, make_reply

OK = Reply(250, "2.1.5", "Ok")
CASES: list[tuple[Stage, int, str, type, str]] = [
    (Stage.CONTENT, 250, "2.0.0 Ok: queued as 1", Delivered, "2yz to the final dot is the only success"),
    (Stage.CONTENT, 354, "go on", TemporaryFailure, "3yz to the final dot means nothing"),
    (Stage.RCPT, 250, "Ok", TemporaryFailure, "2yz elsewhere never delivers"),
    (Stage.CONTENT, 451, "4.3.0 try later", TemporaryFailure, "4yz"),
    (Stage.CONTENT, 550, "5.7.1 spam", PermanentFailure, "5yz to the content"),
    (Stage.MAIL, 550, "5.1.8 bad sender", PermanentFailure, "5yz to MAIL"),
    (Stage.RCPT, 550, "5.1.1 no such user", PermanentFailure, "5yz to RCPT"),
    (Stage.RCPT, 550, "no such user", PermanentFailure, "5yz without an enhanced code"),
    (Stage.DATA, 554, "5.5.1 no valid recipients", PermanentFailure, "5yz to DATA"),
    (Stage.RCPT, 421, "4.7.0 closing", TemporaryFailure, "421 anywhere"),
    (Stage.CONTENT, 421, "4.7.0 closing", TemporaryFailure, "421 after the dot was answered: it was not taken"),
    (Stage.RCPT, 552, "4.2.2 mailbox full", TemporaryFailure, "code and enhanced code disagree: not certain"),
    (Stage.CONTENT, 554, "4.7.1 policy", TemporaryFailure, "they disagree at the dot too"),
    (Stage.RCPT, 552, "5.2.2 mailbox full", PermanentFailure, "552 with 5.2.2 is the mailbox, for good"),
    (Stage.RCPT, 552, "too many recipients", TemporaryFailure, "RFC 5321 4.5.3.1.10: 552 where 452 is meant"),
    (Stage.RCPT, 552, "5.5.3 too many recipients", TemporaryFailure, "the same with an enhanced code"),
    (Stage.CONTENT, 552, "5.3.4 too big", PermanentFailure, "552 to the content is the size"),
    (Stage.RCPT, 450, "5.1.1 unsure", TemporaryFailure, "the code governs, not the enhanced code"),
    (Stage.GREETING, 554, "5.7.1 go away", TemporaryFailure, "554 in the greeting speaks of no mail"),
    (Stage.EHLO, 550, "5.7.1 bad name", TemporaryFailure, "5yz to EHLO speaks of no mail"),
    (Stage.STARTTLS, 554, "5.7.3 no", TemporaryFailure, "5yz to STARTTLS speaks of no mail"),
    (Stage.AUTH, 535, "5.7.8 bad credentials", TemporaryFailure, "our configuration can be mended in time"),
    (Stage.MAIL, 530, "5.7.0 must issue STARTTLS", TemporaryFailure, "530 is ours to mend"),
    (Stage.RCPT, 530, "5.7.1 authentication required", TemporaryFailure, "530 at RCPT too"),
    (Stage.DATA, 503, "5.5.1 bad sequence", TemporaryFailure, "the dialogue went wrong, not the mail"),
]


@pytest.mark.parametrize(("stage", "code", "text", "expected", "why"), CASES, ids=[case[4] for case in CASES])
def test_a_reply_is_classified(stage: Stage, code: int, text: str, expected: type, why: str) -> None:
    reply = make_reply(code, [text])
    outcome = classify(stage, reply)
    assert type(outcome) is expected, why
    assert isinstance(outcome, Delivered | TemporaryFailure | PermanentFailure)
    assert outcome.reply == reply


@pytest.mark.parametrize("stage", list(Stage))
def test_only_5yz_about_a_mail_is_permanent_and_only_2yz_to_the_dot_delivers(stage: Stage) -> None:
    about_a_mail = stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT)
    for code in range(200, 600):
        outcome = classify(stage, Reply(code, "", "x"))
        blames_us = code in OURS_TO_MEND
        assert isinstance(outcome, PermanentFailure) == (code >= 500 and about_a_mail and not blames_us), code
        assert isinstance(outcome, Delivered) == (code < 300 and stage is Stage.CONTENT), code


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please try again in 300 seconds", 300),
        ("try again in 5 minutes", 300),
        ("Please retry after 2 hours", 7200),
        ("greylisted; come back in 00:04:57", 297),
        ("delayed for 90s", 90),
        ("try again in 1 min.", 60),
        ("try again later", 0),
        ("mailbox 300 is busy", 0),
        ("retry in 999999 hours", 86400),
        ("user 5 minutes", 0),
    ],
)
def test_a_wish_for_a_time_is_read_from_the_text(text: str, seconds: float) -> None:
    assert retry_after(Reply(450, "4.7.1", text)) == seconds


def test_each_recipient_has_its_own_end() -> None:
    refused, greylisted = Reply(550, "5.1.1", "no"), Reply(450, "4.7.1", "try again in 60 seconds")
    final = Reply(250, "2.0.0", "queued")
    outcomes = judge(OK, [OK, refused, greylisted], Reply(354, "", "go"), final, 3)
    assert outcomes == (Delivered(final), PermanentFailure(refused), TemporaryFailure(greylisted, 60.0))


@pytest.mark.parametrize(
    ("mail", "recipients", "data", "final", "expected"),
    [
        (
            Reply(550, "", "no"),
            [Reply(503, "", "x")],
            Reply(503, "", "x"),
            None,
            PermanentFailure(Reply(550, "", "no")),
        ),
        (OK, [Reply(550, "", "no")], Reply(554, "", "none"), None, PermanentFailure(Reply(550, "", "no"))),
        (OK, [Reply(550, "", "no")], None, None, PermanentFailure(Reply(550, "", "no"))),
        (OK, [OK], Reply(451, "", "later"), None, TemporaryFailure(Reply(451, "", "later"))),
        (OK, [OK], Reply(354, "", "go"), Reply(554, "", "spam"), PermanentFailure(Reply(554, "", "spam"))),
    ],
    ids=["MAIL decides", "RCPT decides, not DATA", "DATA was not sent", "DATA decides", "the dot decides"],
)
def test_the_reply_that_decides(
    mail: Reply, recipients: list[Reply], data: Reply | None, final: Reply | None, expected: object
) -> None:
    assert judge(mail, recipients, data, final, 1) == (expected,)
