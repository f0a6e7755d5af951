"""Every message survives the way through octets, and octets that are no message say what they are not."""

import contextlib
import dataclasses
from collections.abc import Callable
from types import UnionType
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail import cancel, config, dispatch, envelope, events, identity, retry, route, states, timeline
from sternpost_runtime import codec
from sternpost_runtime.codec import CodecError
from sternpost_wire.v1 import config_pb2, dispatch_pb2, event_pb2, mail_pb2, request_pb2

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
OCTETS = st.binary(max_size=50)
WORDS = st.lists(TEXT, max_size=3).map(tuple)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
SECONDS = st.floats(allow_nan=False)


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


def members(kind: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(kind))


RECIPIENTS = st.builds(envelope.Recipient, TEXT, st.integers(0, 15).map(envelope.Notify), TEXT)
ENVELOPES = st.builds(
    envelope.Envelope, TEXT, some(RECIPIENTS), members(envelope.Ret), TEXT, st.booleans(), st.booleans()
)
MAILS = st.builds(
    envelope.Mail,
    id=NAME,
    tenant=TEXT,
    lane=members(envelope.Lane),
    envelope=ENVELOPES,
    size=UINT64,
    content=OCTETS,
    accepted_ms=INT64,
    expires_ms=INT64,
    content_ref=TEXT,
    not_before_ms=INT64,
    identity=TEXT,
    tags=WORDS,
    traceparent=TEXT,
    facts=OCTETS,
)
FACTS = st.builds(envelope.Facts, members(envelope.Door), TEXT, TEXT, TEXT, TEXT, some(st.tuples(TEXT, TEXT)), WORDS)
DEFERRED = MAILS.flatmap(
    lambda mail: st.builds(
        envelope.DeferredMail,
        st.just(mail),
        TEXT,
        st.sets(st.sampled_from(range(len(mail.envelope.recipients)))).map(tuple)
        if mail.envelope.recipients
        else st.just(()),
        UINT32,
        st.booleans(),
        TEXT,
    )
)
RESULTS = st.builds(events.Result, UINT32, TEXT, members(states.State), members(events.OutcomeKind), TEXT, INT64)
EVENTS = st.builds(
    events.Event,
    id=NAME,
    kind=members(events.EventKind),
    at_ms=INT64,
    mail_id=TEXT,
    record_id=TEXT,
    tenant=TEXT,
    sender=TEXT,
    accepted_ms=INT64,
    size=UINT64,
    results=some(RESULTS),
    attempt=UINT32,
    site=TEXT,
    remote=TEXT,
    tls=TEXT,
    duration_ms=UINT32,
    identity=TEXT,
    tags=WORDS,
    facts=OCTETS,
)
SMART_HOSTS = st.builds(route.SmartHost, TEXT, UINT32, members(route.TlsDemand), members(route.TlsMode), TEXT, OCTETS)
JOBS = st.builds(
    dispatch.Job,
    mail_id=NAME,
    record_id=TEXT,
    tenant=TEXT,
    sender=TEXT,
    recipients=some(st.builds(dispatch.JobRecipient, UINT32, TEXT, UINT32, TEXT)),
    content=OCTETS,
    content_ref=TEXT,
    size=UINT64,
    accepted_ms=INT64,
    attempt=UINT32,
    ret=members(envelope.Ret),
    envid=TEXT,
    eight_bit=st.booleans(),
    smtputf8=st.booleans(),
    identity=TEXT,
    tags=WORDS,
    traceparent=TEXT,
    facts=OCTETS,
)
ROUTES = st.builds(dispatch.Route, TEXT, some(SMART_HOSTS), members(route.TlsDemand), st.booleans())
SESSIONS = st.builds(dispatch.SiteSession, NAME, TEXT, TEXT, ROUTES, some(JOBS))
SESSION_RESULTS = st.builds(
    dispatch.SessionResult,
    NAME,
    TEXT,
    some(st.builds(dispatch.JobResult, TEXT, some(RESULTS), SECONDS)),
    st.booleans(),
    st.booleans(),
)
RULES = st.builds(
    route.RelayRule,
    tenant=TEXT,
    name=TEXT,
    priority=st.integers(-(2**31), 2**31 - 1),
    match=st.builds(route.Match, WORDS, WORDS, WORDS, WORDS, WORDS),
    action=members(route.Action),
    smart_hosts=some(SMART_HOSTS),
    tls=members(route.TlsDemand),
    max_sessions=UINT32,
    retry=st.builds(retry.RetryPolicy, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS),
    reject_text=TEXT,
    allow_forbidden_addresses=st.booleans(),
)
CONFIG_ENTRIES = st.one_of(
    st.builds(config.Domain, TEXT, TEXT, TEXT, TEXT),
    RULES,
    st.builds(config.Credential, TEXT, TEXT, members(config.CredentialKind), TEXT, TEXT, WORDS, members(envelope.Lane)),
    st.builds(config.Certificate, TEXT, TEXT, WORDS, OCTETS, OCTETS),
    st.builds(config.Generation, UINT64, UINT32),
)
IDENTITIES = st.builds(identity.Identity, TEXT, TEXT, WORDS, members(envelope.Lane))
VERIFY_REPLIES = st.one_of(
    st.builds(identity.VerifyReply, st.just(identity.Verdict.GRANTED), IDENTITIES),
    st.builds(identity.VerifyReply, st.sampled_from([identity.Verdict.DENIED, identity.Verdict.UNAVAILABLE])),
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VIEWS = st.builds(
    timeline.MessageView,
    id=TEXT,
    tenant=TEXT,
    state=members(states.State),
    sender=TEXT,
    accepted_ms=INTEGERS,
    size=INTEGERS,
    header_from=TEXT,
    subject=TEXT,
    message_id=TEXT,
    door=TEXT,
    client=TEXT,
    identity=TEXT,
    tags=WORDS,
    metadata=st.dictionaries(TEXT, TEXT, max_size=3),
    recipients=some(st.builds(timeline.RecipientView, TEXT, members(states.State), INTEGERS, TEXT, TEXT, INTEGERS)),
    timeline=some(
        st.builds(
            timeline.TimelineEntry, INTEGERS, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, INTEGERS, INTEGERS, INTEGERS
        )
    ),
)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "spool_record": st.builds(envelope.SpoolRecord, NAME, some(MAILS)),
    "defer_record": st.builds(envelope.DeferRecord, NAME, TEXT, some(DEFERRED)),
    "held_record": st.builds(envelope.HeldRecord, NAME, TEXT, TEXT, INT64, OCTETS),
    "mail": MAILS,
    "facts": FACTS,
    "event_batch": st.builds(events.EventBatch, some(EVENTS)),
    "session": SESSIONS,
    "session_answer": members(dispatch.Answer),
    "session_result": SESSION_RESULTS,
    "beat": st.builds(dispatch.Beat, NAME, UINT32, WORDS, WORDS),
    "site_question": NAME,
    "site_answer": st.builds(dispatch.SiteAnswer, NAME, TEXT, SECONDS),
    "config_entry": CONFIG_ENTRIES,
    "verify_request": st.builds(identity.VerifyRequest, TEXT, TEXT, TEXT),
    "verify_reply": VERIFY_REPLIES,
    "cancel_request": st.builds(cancel.CancelRequest, NAME, TEXT),
    "cancel_reply": st.builds(cancel.CancelReply, st.booleans(), TEXT),
    "message_question": st.builds(timeline.MessageQuestion, TEXT, TEXT),
    "message_answer": st.builds(timeline.MessageAnswer, st.none() | VIEWS),
    "list_question": st.builds(timeline.ListQuestion, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, INTEGERS),
    "list_answer": st.builds(timeline.ListAnswer, some(VIEWS), TEXT),
}


def encoder(name: str) -> Callable[[Any], bytes]:
    found: Callable[[Any], bytes] = getattr(codec, f"encode_{name}")
    return found


def decoder(name: str) -> Callable[[bytes], Any]:
    found: Callable[[bytes], Any] = getattr(codec, f"decode_{name}")
    return found


def test_every_message_of_the_codec_is_tested_here() -> None:
    offered = {name.removeprefix("encode_") for name in codec.__all__ if name.startswith("encode_")}
    assert offered == VALUES.keys()
    assert {name.removeprefix("decode_") for name in codec.__all__ if name.startswith("decode_")} == VALUES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_a_value_survives_the_way_through_octets(name: str) -> None:
    @given(VALUES[name])
    def check(value: Any) -> None:
        assert decoder(name)(encoder(name)(value)) == value

    check()


@pytest.mark.parametrize("name", VALUES)
def test_octets_that_are_no_message_raise_codec_error_and_nothing_else(name: str) -> None:
    decode = decoder(name)

    @given(st.binary(max_size=200))
    def check(data: bytes) -> None:
        with contextlib.suppress(CodecError):
            decode(data)

    check()
    with pytest.raises(CodecError):
        decode(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"message_question", "message_answer"}))
def test_octets_cut_short_raise_codec_error_and_nothing_else(name: str) -> None:
    @given(VALUES[name], st.integers(1, 30))
    def check(value: Any, cut: int) -> None:
        with contextlib.suppress(CodecError):
            decoder(name)(encoder(name)(value)[:-cut])

    check()


def test_enums_come_back_as_enums_and_not_as_text() -> None:
    mail = codec.decode_mail(codec.encode_mail(make_mail()))
    assert isinstance(mail.lane, envelope.Lane)
    assert isinstance(mail.envelope.ret, envelope.Ret)
    assert isinstance(mail.envelope.recipients[0].notify, envelope.Notify)


def test_the_content_keeps_every_octet() -> None:
    content = bytes(range(256)) * 40
    mail = dataclasses.replace(make_mail(), content=content)
    assert codec.decode_mail(codec.encode_mail(mail)).content == content


def test_a_fence_is_a_record_without_mails() -> None:
    fence = envelope.SpoolRecord("01fence", ())
    assert codec.decode_spool_record(codec.encode_spool_record(fence)) == fence


FOREIGN: list[tuple[str, bytes, str]] = [
    ("mail", mail_pb2.Mail(id="1", lane="turbo").SerializeToString(), r"unknown lane 'turbo' \(known: 'express'"),
    (
        "mail",
        mail_pb2.Mail(id="1", lane="bulk", envelope=mail_pb2.Envelope(ret="HALF")).SerializeToString(),
        "unknown RET 'HALF'",
    ),
    (
        "mail",
        mail_pb2.Mail(
            id="1", lane="bulk", envelope=mail_pb2.Envelope(recipients=[mail_pb2.Recipient(notify=16)])
        ).SerializeToString(),
        "unknown NOTIFY bits 16",
    ),
    ("mail", b"", "a mail without id"),
    ("spool_record", b"", "a spool record without id"),
    ("defer_record", b"", "a defer record without id"),
    (
        "defer_record",
        mail_pb2.DeferRecord(
            id="1",
            mails=[
                mail_pb2.DeferredMail(
                    mail=mail_pb2.Mail(
                        id="m1", lane="bulk", envelope=mail_pb2.Envelope(recipients=[mail_pb2.Recipient()])
                    ),
                    open_recipients=[0, 1],
                )
            ],
        ).SerializeToString(),
        "mail m1 has 1 recipients and waits for number 1",
    ),
    ("facts", b"", "unknown door ''"),
    (
        "event_batch",
        event_pb2.EventBatch(events=[event_pb2.Event(id="1", kind="rumour")]).SerializeToString(),
        "unknown kind of event 'rumour'",
    ),
    (
        "event_batch",
        event_pb2.EventBatch(
            events=[event_pb2.Event(id="1", kind="attempt", results=[event_pb2.Result(state="lost")])]
        ).SerializeToString(),
        "unknown state 'lost'",
    ),
    ("session", dispatch_pb2.SiteSession(id="1").SerializeToString(), "unknown TLS demand ''"),
    ("session", b"", "a site session without id"),
    ("session_answer", dispatch_pb2.SessionAnswer(answer="maybe").SerializeToString(), "unknown answer 'maybe'"),
    ("session_answer", b"", "unknown answer ''"),
    ("config_entry", b"", "of a kind that this version does not know"),
    (
        "config_entry",
        config_pb2.ConfigEntry(relay_rule=config_pb2.RelayRule(action="Teleport")).SerializeToString(),
        "unknown action 'Teleport'",
    ),
    ("verify_reply", request_pb2.VerifyReply(verdict="perhaps").SerializeToString(), "unknown verdict 'perhaps'"),
    (
        "verify_reply",
        request_pb2.VerifyReply(verdict="granted").SerializeToString(),
        "says granted without an identity",
    ),
    (
        "verify_reply",
        request_pb2.VerifyReply(
            verdict="denied", identity=request_pb2.Identity(tenant="a", lane="normal")
        ).SerializeToString(),
        "says denied with an identity",
    ),
    ("list_question", b'{"limit": "many"}', "not a ListQuestion: limit: "),
    ("message_question", b"{", "not a MessageQuestion: Invalid JSON"),
]


@pytest.mark.parametrize(("name", "data", "says"), FOREIGN)
def test_what_is_not_understood_is_named(name: str, data: bytes, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        decoder(name)(data)


def test_a_long_foreign_word_is_quoted_in_part() -> None:
    with pytest.raises(CodecError) as caught:
        codec.decode_mail(mail_pb2.Mail(id="1", lane="x" * 10_000).SerializeToString())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mail", lambda: dataclasses.replace(make_mail(), size=-1), "mail has a value that does not fit"),
        ("mail", lambda: dataclasses.replace(make_mail(), tenant="\ud800"), "not valid Unicode"),
        ("spool_record", lambda: envelope.SpoolRecord("\ud800", ()), "spool record has text that is not valid Unicode"),
        ("beat", lambda: dispatch.Beat("w", 2**32, ()), "beat has a value that does not fit"),
        ("site_question", lambda: 7, "site question has a value"),
        ("message_question", lambda: timeline.MessageQuestion("\ud800"), "MessageQuestion has"),
    ],
)
def test_a_value_without_a_form_on_the_wire_is_refused(name: str, value: Callable[[], Any], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        encoder(name)(value())


def test_a_secret_that_cannot_be_encoded_is_in_no_part_of_the_error() -> None:
    with pytest.raises(CodecError) as caught:
        codec.encode_verify_request(identity.VerifyRequest("me", "hunter2\ud800", "192.0.2.1"))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__, (
        "a printed traceback would show protobuf's own error, which quotes the value"
    )


def test_a_field_that_a_newer_version_added_is_ignored() -> None:
    newer = codec.encode_mail(make_mail()) + b"\xfa\x3f\x03new"  # field 127, three octets
    assert codec.decode_mail(newer) == make_mail()


def test_the_wire_has_a_field_for_every_field_of_the_language() -> None:
    """A field that the codec forgot would be lost without a word; hypothesis finds it only if the strategy names it."""
    pairs: list[tuple[Any, Any]] = [
        (envelope.Recipient, mail_pb2.Recipient),
        (envelope.Envelope, mail_pb2.Envelope),
        (envelope.Facts, mail_pb2.Facts),
        (envelope.Mail, mail_pb2.Mail),
        (envelope.SpoolRecord, mail_pb2.SpoolRecord),
        (envelope.DeferredMail, mail_pb2.DeferredMail),
        (envelope.DeferRecord, mail_pb2.DeferRecord),
        (envelope.HeldRecord, mail_pb2.HeldRecord),
        (events.Result, event_pb2.Result),
        (events.Event, event_pb2.Event),
        (events.EventBatch, event_pb2.EventBatch),
        (dispatch.JobRecipient, dispatch_pb2.JobRecipient),
        (dispatch.Job, dispatch_pb2.Job),
        (dispatch.Route, dispatch_pb2.Route),
        (dispatch.SiteSession, dispatch_pb2.SiteSession),
        (dispatch.JobResult, dispatch_pb2.JobResult),
        (dispatch.SessionResult, dispatch_pb2.SessionResult),
        (dispatch.Beat, dispatch_pb2.Beat),
        (dispatch.SiteAnswer, dispatch_pb2.SiteAnswer),
        (route.SmartHost, config_pb2.SmartHost),
        (route.Match, config_pb2.Match),
        (route.RelayRule, config_pb2.RelayRule),
        (retry.RetryPolicy, config_pb2.RetryPolicy),
        (identity.VerifyRequest, request_pb2.VerifyRequest),
        (identity.Identity, request_pb2.Identity),
        (identity.VerifyReply, request_pb2.VerifyReply),
        (cancel.CancelRequest, request_pb2.CancelRequest),
        (cancel.CancelReply, request_pb2.CancelReply),
    ]
    assert isinstance(config.Resource, UnionType)
    pairs += [(kind, getattr(config_pb2, kind.__name__)) for kind in (*get_args(config.Resource), config.Generation)]
    for value, wire in pairs:
        assert {field.name for field in dataclasses.fields(value)} == set(wire.DESCRIPTOR.fields_by_name), value


def make_mail() -> envelope.Mail:
    return envelope.Mail(
        id="01j9",
        tenant="shop",
        lane=envelope.Lane.NORMAL,
        envelope=envelope.Envelope(
            sender="a@example.com",
            recipients=(envelope.Recipient("b@example.org", envelope.Notify.SUCCESS | envelope.Notify.FAILURE),),
        ),
        size=3,
        content=b"abc",
        accepted_ms=1,
        expires_ms=2,
    )
