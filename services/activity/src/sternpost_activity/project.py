"""What events change in the tables: a pure function from what is known and what happened to rows.

The rules, in one place:

* A final state is never left. From an open one a recipient may come to every state that the states table leads to, in
  one step or in several (events of one mail arrive in any order, so the step between may still be on its way).
* Among open states the newest event wins, by its time and then its id; a final state wins whatever its time.
* An event that was counted before changes nothing.
* A recipient of whom nothing was heard yet is queued, and so is every recipient in the mail's Facts.

No clock, no database, no protobuf: the facts of a mail are opened by the function that the caller gives.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from sternpost_mail.envelope import Facts
from sternpost_mail.events import Event, EventKind, Result
from sternpost_mail.states import FINAL, State, may_follow, summarize

WHOLE_MAIL = -1
"""The `idx` of an event row that speaks of the mail and of no recipient."""
MAX_BIGINT = 2**63 - 1

_QUEUED = State.QUEUED.value
_STATES = {state.value: state for state in State}
_VALUES = {state: state.value for state in State}
_KINDS = {kind: kind.value for kind in EventKind}
_FINAL_WORDS = frozenset(state.value for state in FINAL)


def _closure() -> frozenset[tuple[str, str]]:
    reached = {(a, b) for a in State for b in State if may_follow(a, b)}
    while True:
        more = {(a, d) for a, b in reached for c, d in reached if b is c} - reached
        if not more:
            return frozenset((a.value, b.value) for a, b in reached)
        reached |= more


REACHABLE = _closure()
"""Pairs of states of which the second can be reached from the first by steps of the states table."""


class MessageRow(NamedTuple):
    """A row of `messages`, its columns in order."""

    id: str
    tenant: str
    state: str
    sender: str
    accepted_ms: int
    size: int
    door: str
    client: str
    header_from: str
    subject: str
    message_id: str
    identity: str
    metadata: str


class RecipientRow(NamedTuple):
    """A row of `recipients`, its columns in order."""

    message_id: str
    idx: int
    address: str
    state: str
    attempts: int
    last_reply: str
    remote: str
    next_attempt_ms: int
    changed_ms: int
    changed_by: str


class EventRow(NamedTuple):
    """A row of `events`, its columns in order."""

    message_id: str
    event_id: str
    idx: int
    at_ms: int
    kind: str
    recipient: str
    state: str
    outcome: str
    reply: str
    remote: str
    tls: str
    attempt: int
    duration_ms: int
    next_attempt_ms: int


@dataclass(slots=True)
class Known:
    """What the tables hold of one mail before the events. `has_facts` is false where no event with facts came yet."""

    tenant: str
    state: str
    has_facts: bool
    recipients: dict[int, RecipientRow] = field(default_factory=dict)


@dataclass(slots=True)
class Changes:
    """Rows to write, all in one transaction."""

    messages: list[MessageRow] = field(default_factory=list)
    """New mails, and known ones whose facts came late: written whole."""
    states: list[tuple[str, str]] = field(default_factory=list)
    """(id, state) of known mails whose state changed."""
    recipients: list[RecipientRow] = field(default_factory=list)
    """New or changed: written whole."""
    events: list[EventRow] = field(default_factory=list)
    """Inserted where not there yet."""
    tags: list[tuple[str, str]] = field(default_factory=list)
    """(message id, tag), inserted where not there yet."""
    refused: int = 0
    """Steps that the states table forbids: a final state after another final state."""
    foreign: int = 0
    """Events of a mail that is known to belong to another tenant: left out."""
    bad_facts: int = 0
    """Facts that could not be opened: the mail is kept without them."""


_BY_TIME = attrgetter("at_ms", "id")


def project(
    events: Iterable[Event], known: Mapping[str, Known], open_facts: Callable[[bytes], Facts | None]
) -> Changes:
    """The row changes of some events.

    `known` has every mail of the events that the tables hold, with all its recipients. `open_facts` returns None for
    octets that are no facts. The same events on top of their own changes give rows that say the same.
    """
    changes = Changes()
    by_mail: dict[str, list[Event]] = {}
    for event in events:
        of_mail = by_mail.get(event.mail_id)
        if of_mail is None:
            by_mail[event.mail_id] = [event]
        else:
            of_mail.append(event)
    for mail_id, of_mail in by_mail.items():
        if len(of_mail) > 1:
            of_mail.sort(key=_BY_TIME)
        _project_mail(mail_id, of_mail, known.get(mail_id), open_facts, changes)
    return changes


def _project_mail(
    mail_id: str,
    events: list[Event],
    before: Known | None,
    open_facts: Callable[[bytes], Facts | None],
    changes: Changes,
) -> None:
    tenant = before.tenant if before else clean(events[0].tenant)
    rows = dict(before.recipients) if before else {}
    facts: Facts | None = None
    wants_facts = before is None or not before.has_facts
    counted: Event | None = None
    for event in events:
        if event.tenant != tenant and clean(event.tenant) != tenant:
            changes.foreign += 1
            continue
        if counted is None or (event.facts and not counted.facts):
            counted = event  # who sent it, its size and its tags are the same in all; the fuller one tells
        if wants_facts and facts is None and event.facts:
            facts = open_facts(event.facts)
            if facts is None:
                changes.bad_facts += 1
            else:
                for idx, address in enumerate(facts.recipients):
                    if idx not in rows:
                        rows[idx] = RecipientRow(mail_id, idx, clean(address), _QUEUED, 0, "", "", 0, 0, "")
        _add_event_rows(mail_id, event, changes.events)
        for result in event.results:
            row = rows.get(result.recipient)
            if row is None:
                row = RecipientRow(mail_id, result.recipient, clean(result.address), _QUEUED, 0, "", "", 0, 0, "")
            rows[result.recipient] = _step(row, event, result, changes)
    if counted is None:
        return
    old = before.recipients if before else {}
    changes.recipients.extend([row for idx, row in rows.items() if old.get(idx) is not row])
    if len(rows) == 1:
        (only,) = rows.values()
        state = only.state
    else:
        state = summarize([_STATES[row.state] for row in rows.values()]).value if rows else _QUEUED
    if before is None or facts is not None:
        changes.messages.append(_message_row(mail_id, tenant, state, counted, facts))
        changes.tags.extend([(mail_id, clean(tag)) for tag in counted.tags])
    elif state != before.state:
        changes.states.append((mail_id, state))


def _step(row: RecipientRow, event: Event, result: Result, changes: Changes) -> RecipientRow:
    """The recipient after one result of one event."""
    state = _VALUES[result.state]
    attempts = event.attempt if event.attempt > row.attempts else row.attempts
    if row.state in _FINAL_WORDS:
        if state != row.state and state in _FINAL_WORDS:
            changes.refused += 1
        reply, remote = row.last_reply or clean(result.reply), row.remote or clean(event.remote)
        if attempts == row.attempts and reply == row.last_reply and remote == row.remote:
            return row
        return row._replace(attempts=attempts, last_reply=reply, remote=remote)
    newer = (event.at_ms, event.id) > (row.changed_ms, row.changed_by)
    final = state in _FINAL_WORDS
    if not (newer or final) or (row.state, state) not in REACHABLE:
        if attempts == row.attempts:
            return row
        return row._replace(attempts=attempts)
    next_ms = 0
    if not final:
        # An attempt does not know when the next one is; the decision beside it does, in either order.
        next_ms = result.next_attempt_ms or (row.next_attempt_ms if row.next_attempt_ms > event.at_ms else 0)
    return RecipientRow(
        row.message_id,
        row.idx,
        row.address,
        state,
        attempts,
        clean(result.reply) or row.last_reply,
        clean(event.remote) or row.remote,
        next_ms,
        event.at_ms,
        event.id,
    )


def _add_event_rows(mail_id: str, event: Event, rows: list[EventRow]) -> None:
    kind = _KINDS[event.kind]
    remote, tls = clean(event.remote), clean(event.tls)
    for result in event.results:
        rows.append(
            EventRow(
                mail_id,
                event.id,
                result.recipient,
                event.at_ms,
                kind,
                clean(result.address),
                _VALUES[result.state],
                result.outcome.value,
                clean(result.reply),
                remote,
                tls,
                event.attempt,
                event.duration_ms,
                result.next_attempt_ms,
            )
        )
    if not event.results:
        rows.append(
            EventRow(mail_id, event.id, WHOLE_MAIL, event.at_ms, kind, "", "", "", "", remote, tls, event.attempt, 0, 0)
        )


def _message_row(mail_id: str, tenant: str, state: str, event: Event, facts: Facts | None) -> MessageRow:
    if facts is None:
        door = client = header_from = subject = message_id = metadata = ""
    else:
        door, client = facts.door.value, clean(facts.client)
        header_from, subject, message_id = clean(facts.header_from), clean(facts.subject), clean(facts.message_id)
        metadata = clean(json.dumps(dict(facts.metadata), ensure_ascii=False)) if facts.metadata else ""
    return MessageRow(
        mail_id,
        tenant,
        state,
        clean(event.sender),
        event.accepted_ms,
        min(event.size, MAX_BIGINT),
        door,
        client,
        header_from,
        subject,
        message_id,
        clean(event.identity),
        metadata,
    )


def clean(text: str) -> str:
    """Text as PostgreSQL can keep it: it refuses NUL, which a remote's reply or a subject may have."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text
