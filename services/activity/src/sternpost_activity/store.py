"""Writing: events become rows in one transaction with the position, and old mail is deleted in small pieces.

What an event changes is decided in `project`; questions are answered in `search`. Statements are Core, compiled once
per process, and executed with plain tuples: this is what every mail costs.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Table, bindparam, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement

from sternpost_activity.database import Database
from sternpost_activity.project import Changes, Known, RecipientRow, project
from sternpost_activity.schema import POSITION_ROW, events, messages, position, recipients, tags
from sternpost_mail.envelope import Facts
from sternpost_mail.events import Event
from sternpost_mail.ids import RANDOM_OCTETS, make_id
from sternpost_mail.states import FINAL

LOOKUP_IDS = 5_000
"""Ids in one IN list; SQLite takes 32,766 parameters and PostgreSQL's protocol 32,767."""
FINAL_WORDS = frozenset(state.value for state in FINAL)


class Deleted(NamedTuple):
    """One piece of retention: how many messages went, and the id to continue from (empty: nothing older is left)."""

    messages: int
    cursor: str


class Store:
    """The tables as the projection sees them. All methods raise DatabaseDown; `apply` also RowsRefused."""

    def __init__(self, database: Database, open_facts: Callable[[bytes], Facts | None]) -> None:
        self._database = database
        self._open_facts = open_facts
        dialect = database.engine.dialect
        self._put_message = _compiled(_upsert(messages, dialect, "id"), dialect, messages)
        self._put_recipient = _compiled(_upsert(recipients, dialect, "message_id", "idx"), dialect, recipients)
        self._add_event = _compiled(_insert(events, dialect).on_conflict_do_nothing(), dialect, events)
        self._add_tag = _compiled(_insert(tags, dialect).on_conflict_do_nothing(), dialect, tags)

    async def apply(self, batch: Sequence[Event], seq: int) -> Changes:
        """Write what the events change and that everything up to `seq` is applied, in one transaction.

        Events that were written before change nothing. Returns what was written.
        """
        async with self._database.writing() as connection:
            # Replicas take turns: what one of them reads here, no other changes before the commit.
            await connection.execute(select(position.c.seq).with_for_update())
            known = await self._known(connection, {event.mail_id for event in batch}) if batch else {}
            changes = project(batch, known, self._open_facts)
            if changes.messages:
                await connection.exec_driver_sql(self._put_message, changes.messages)
            if changes.recipients:
                await connection.exec_driver_sql(self._put_recipient, changes.recipients)
            if changes.events:
                await connection.exec_driver_sql(self._add_event, changes.events)
            if changes.tags:
                await connection.exec_driver_sql(self._add_tag, changes.tags)
            if changes.states:
                await connection.execute(_SET_STATE, [{"key": key, "word": word} for key, word in changes.states])
            await connection.execute(_ADVANCE, {"reached": seq})
        return changes

    async def position(self) -> int:
        """The highest sequence of EVENTS that was applied, by any replica."""
        async with self._database.reading() as connection:
            return int(await connection.scalar(_POSITION) or 0)

    async def rewind(self, seq: int) -> None:
        """Take back the position: EVENTS was made anew and counts from the beginning. The rows stay."""
        async with self._database.writing() as connection:
            await connection.execute(update(position).where(position.c.id == POSITION_ROW).values(seq=seq))

    async def delete_before(self, before_ms: int, *, cursor: str = "", limit: int) -> Deleted:
        """Delete finished messages accepted before a moment, looking at most at `limit` after `cursor`, oldest first.

        A mail that is still open is kept, however old: it is still somebody's.
        """
        oldest_kept = make_id(max(before_ms, 0), bytes(RANDOM_OCTETS))
        candidates = (
            select(messages.c.id, messages.c.state)
            .where(messages.c.id > cursor, messages.c.id < oldest_kept)
            .order_by(messages.c.id)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(candidates)).all()
        if not rows:
            return Deleted(0, "")
        doomed = [row.id for row in rows if row.state in FINAL_WORDS]
        if doomed:
            async with self._database.writing() as connection:
                for table in (events, recipients, tags):
                    await connection.execute(delete(table).where(table.c.message_id.in_(doomed)))
                await connection.execute(delete(messages).where(messages.c.id.in_(doomed)))
        return Deleted(len(doomed), rows[-1].id if len(rows) == limit else "")

    async def _known(self, connection: AsyncConnection, mail_ids: set[str]) -> dict[str, Known]:
        known: dict[str, Known] = {}
        for ids in _chunks(mail_ids):
            for key, tenant, state, door in await connection.execute(_KNOWN_MESSAGES, {"ids": ids}):
                known[key] = Known(tenant, state, bool(door))
        for ids in _chunks(known):
            for row in await connection.execute(_KNOWN_RECIPIENTS, {"ids": ids}):
                known[row[0]].recipients[row[1]] = RecipientRow(*row)
        return known


_POSITION = select(position.c.seq).where(position.c.id == POSITION_ROW)
_ADVANCE = (
    update(position)
    .where(position.c.id == POSITION_ROW)
    .values(seq=case((position.c.seq < bindparam("reached"), bindparam("reached")), else_=position.c.seq))
)
_SET_STATE = update(messages).where(messages.c.id == bindparam("key")).values(state=bindparam("word"))
_KNOWN_MESSAGES = select(messages.c.id, messages.c.tenant, messages.c.state, messages.c.door).where(
    messages.c.id.in_(bindparam("ids", expanding=True))
)
_KNOWN_RECIPIENTS = select(recipients).where(recipients.c.message_id.in_(bindparam("ids", expanding=True)))


def _insert(table: Table, dialect: Dialect) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT; both spell it alike."""
    return sqlite.insert(table) if dialect.name == "sqlite" else postgresql.insert(table)


def _upsert(table: Table, dialect: Dialect, *key: str) -> Any:
    statement = _insert(table, dialect)
    others = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in key}
    return statement.on_conflict_do_update(index_elements=list(key), set_=others)


def _compiled(statement: ClauseElement, dialect: Dialect, table: Table) -> str:
    """The statement as text, for tuples in the order of the table's columns."""
    compiled: Any = statement.compile(dialect=dialect)
    order = list(compiled.positiontup)
    if order != [column.name for column in table.columns]:
        raise RuntimeError(f"{table.name}: the parameters are ordered {order}")
    return str(compiled)


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    iterator = iter(ids)
    while chunk := list(islice(iterator, LOOKUP_IDS)):
        yield chunk
