"""Reading: one message with its timeline, and pages of messages. Every statement here carries the tenant of the
question.

An empty tenant means all tenants (the administrator's own tools). This file never writes and never waits for anything
but the database.
"""

import json
from typing import Any

from sqlalchemy import Row, Select, desc, select, text

from sternpost_activity.database import Database
from sternpost_activity.schema import NOT_DELIVERED, events, messages, recipients, tags
from sternpost_mail.states import State
from sternpost_mail.timeline import ListAnswer, ListQuestion, MessageView, RecipientView, TimelineEntry

MAX_PAGE = 200
"""Messages in one page, whatever was asked for: an answer must fit into one record of the broker."""
PAGE_RECIPIENTS = 20
"""Recipients that a page shows of one message, the first of the envelope; all are shown when it is asked for alone."""
TIMELINE_LINES = 2_000
"""Lines of a timeline, the newest; a mail to a thousand recipients that retries for days has more than a person
reads."""
MESSAGE_RECIPIENTS = 2_000
"""Recipients of one message in an answer; doors take fewer."""


class Search:
    """Answers from the tables. All methods raise DatabaseDown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def message(self, mail_id: str, tenant: str) -> MessageView | None:
        """One message with recipients and timeline, or None where this tenant has none of this id."""
        wanted = select(messages).where(messages.c.id == mail_id)
        if tenant:
            wanted = wanted.where(messages.c.tenant == tenant)
        async with self._database.reading() as connection:
            row = (await connection.execute(wanted)).first()
            if row is None:
                return None
            people = await connection.execute(
                select(recipients)
                .where(recipients.c.message_id == mail_id)
                .order_by(recipients.c.idx)
                .limit(MESSAGE_RECIPIENTS)
            )
            newest = await connection.execute(
                select(events)
                .where(events.c.message_id == mail_id)
                .order_by(desc(events.c.at_ms), desc(events.c.event_id), desc(events.c.idx))
                .limit(TIMELINE_LINES)
            )
            words = await connection.scalars(
                select(tags.c.tag).where(tags.c.message_id == mail_id).order_by(tags.c.tag)
            )
            lines = [accepted_line(row.accepted_ms), *(_line(line) for line in reversed(newest.all()))]
            return _view(row, tuple(words), tuple(_recipient(person) for person in people), tuple(lines))

    async def page(self, question: ListQuestion) -> ListAnswer:
        """A page, newest first. The id is ordered by time, so it is the key to continue from."""
        limit = min(max(question.limit, 1), MAX_PAGE)
        async with self._database.reading() as connection:
            found = (await connection.scalars(_page_ids(question).limit(limit + 1))).all()
            ids = list(found[:limit])
            if not ids:
                return ListAnswer(())
            rows = (await connection.execute(select(messages).where(messages.c.id.in_(ids)))).all()
            people: dict[str, list[RecipientView]] = {}
            for row in await connection.execute(
                select(recipients)
                .where(recipients.c.message_id.in_(ids), recipients.c.idx < PAGE_RECIPIENTS)
                .order_by(recipients.c.message_id, recipients.c.idx)
            ):
                people.setdefault(row.message_id, []).append(_recipient(row))
            words: dict[str, list[str]] = {}
            for row in await connection.execute(select(tags).where(tags.c.message_id.in_(ids)).order_by(tags.c.tag)):
                words.setdefault(row.message_id, []).append(row.tag)
        by_id = {row.id: row for row in rows}
        views = tuple(
            _view(by_id[key], tuple(words.get(key, ())), tuple(people.get(key, ())), ()) for key in ids if key in by_id
        )
        return ListAnswer(views, ids[-1] if len(found) > limit else "")


def accepted_line(accepted_ms: int) -> TimelineEntry:
    """The line with which every timeline begins."""
    return TimelineEntry(at_ms=accepted_ms, kind="accepted", state=State.QUEUED.value)


def _page_ids(question: ListQuestion) -> Select[Any]:
    """The ids of a page, driven by the index that fits: address, tag, or the messages themselves."""
    if question.recipient:
        key = recipients.c.message_id
        statement = select(key).distinct().join(messages, messages.c.id == key)
        statement = statement.where(recipients.c.address == question.recipient)
        if question.tag:
            statement = statement.join(tags, tags.c.message_id == key).where(tags.c.tag == question.tag)
    elif question.tag:
        key = tags.c.message_id
        statement = select(key).join(messages, messages.c.id == key).where(tags.c.tag == question.tag)
    else:
        key = messages.c.id
        statement = select(key)
    if question.tenant:
        statement = statement.where(messages.c.tenant == question.tenant)
    if question.state:
        statement = statement.where(messages.c.state == question.state)
        if question.state != State.DELIVERED.value:
            statement = statement.where(text(f"messages.{NOT_DELIVERED}"))
    if question.sender:
        statement = statement.where(messages.c.sender == question.sender)
    if question.before:
        statement = statement.where(key < question.before)
    return statement.order_by(desc(key))


def _view(
    row: Row[Any], words: tuple[str, ...], people: tuple[RecipientView, ...], timeline: tuple[TimelineEntry, ...]
) -> MessageView:
    return MessageView(
        id=row.id,
        tenant=row.tenant,
        state=State(row.state),
        sender=row.sender,
        accepted_ms=row.accepted_ms,
        size=row.size,
        header_from=row.header_from,
        subject=row.subject,
        message_id=row.message_id,
        door=row.door,
        client=row.client,
        identity=row.identity,
        tags=words,
        metadata=json.loads(row.metadata) if row.metadata else {},
        recipients=people,
        timeline=timeline,
    )


def _recipient(row: Row[Any]) -> RecipientView:
    return RecipientView(row.address, State(row.state), row.attempts, row.last_reply, row.remote, row.next_attempt_ms)


def _line(row: Row[Any]) -> TimelineEntry:
    return TimelineEntry(
        at_ms=row.at_ms,
        kind=row.kind,
        recipient=row.recipient,
        state=row.state,
        outcome=row.outcome,
        reply=row.reply,
        remote=row.remote,
        tls=row.tls,
        attempt=row.attempt,
        duration_ms=row.duration_ms,
        next_attempt_ms=row.next_attempt_ms,
    )
