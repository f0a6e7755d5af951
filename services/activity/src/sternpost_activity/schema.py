"""The tables of activity, for SQLite and PostgreSQL alike: names, types, keys and the few indexes that a search needs.

Every index is paid for by every mail, so each one here says which question it answers. Times are BIGINT milliseconds
since the epoch. There are no foreign keys: rows are written and deleted together, by one writer each. This file knows
no statement and no engine; `migrations/` makes what it declares, and a test compares the two.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, Table, Text, column

NOT_DELIVERED = "state <> 'delivered'"
"""The condition of the partial indexes. Nearly all mail is delivered at its first attempt and never enters them; a
question for another state repeats the condition literally, so that both databases see that the index answers it."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("accepted_ms", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("door", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("header_from", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""One mail. `message_id` is the header's; `metadata` is a JSON object, empty text for none."""

Index("ix_messages_tenant_id", messages.c.tenant, messages.c.id)  # a tenant's page
Index("ix_messages_sender_id", messages.c.sender, messages.c.id)  # who sent it
Index(  # what a tenant's mail waits for, what failed
    "ix_messages_tenant_state_id",
    messages.c.tenant,
    messages.c.state,
    messages.c.id,
    sqlite_where=column("state") != "delivered",
    postgresql_where=column("state") != "delivered",
)
Index(  # the same across tenants, for the administrator
    "ix_messages_state_id",
    messages.c.state,
    messages.c.id,
    sqlite_where=column("state") != "delivered",
    postgresql_where=column("state") != "delivered",
)

recipients = Table(
    "recipients",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("address", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_reply", Text, nullable=False),
    Column("remote", Text, nullable=False),
    Column("next_attempt_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("changed_by", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""One recipient of a mail, by its index in the envelope. `changed_ms` and `changed_by` (an event's id) tell the
newest event that counted, so that an older or repeated one changes nothing."""

Index("ix_recipients_address_message_id", recipients.c.address, recipients.c.message_id)  # what came to this address

events = Table(
    "events",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("remote", Text, nullable=False),
    Column("tls", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("next_attempt_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""One line of a timeline: an event and one recipient of it (`idx` -1 where it speaks of the whole mail). An event
belongs to one mail, so the key makes the event id unique and finds a mail's events without a second index."""

tags = Table(
    "tags",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    sqlite_with_rowid=False,
)
Index("ix_tags_tag_message_id", tags.c.tag, tags.c.message_id)  # what carries this tag

position = Table(
    "position",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
)
"""One row (id 1): the highest sequence of EVENTS that is in these tables, written in the transaction of the rows."""

POSITION_ROW = 1
