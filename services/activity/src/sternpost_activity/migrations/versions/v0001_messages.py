"""Messages, recipients, events, tags and the position."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = ("accepted_ms", "size", "next_attempt_ms", "changed_ms", "at_ms", "duration_ms")
_INT = ("idx", "attempts", "attempt")


def upgrade() -> None:
    """One step forward. There is no way back: an older release reads a newer schema, or EVENTS fills a new database."""
    _table(
        "messages",
        1,
        "id tenant state sender accepted_ms size door client header_from subject message_id identity metadata",
    )
    op.create_index("ix_messages_tenant_id", "messages", ["tenant", "id"])
    op.create_index("ix_messages_sender_id", "messages", ["sender", "id"])
    not_delivered = sa.column("state") != "delivered"
    for name, columns in (
        ("ix_messages_tenant_state_id", ["tenant", "state", "id"]),
        ("ix_messages_state_id", ["state", "id"]),
    ):
        op.create_index(name, "messages", columns, sqlite_where=not_delivered, postgresql_where=not_delivered)
    _table(
        "recipients",
        2,
        "message_id idx address state attempts last_reply remote next_attempt_ms changed_ms changed_by",
    )
    op.create_index("ix_recipients_address_message_id", "recipients", ["address", "message_id"])
    _table(
        "events",
        3,
        "message_id event_id idx at_ms kind recipient state outcome reply remote tls attempt duration_ms"
        " next_attempt_ms",
    )
    _table("tags", 2, "message_id tag")
    op.create_index("ix_tags_tag_message_id", "tags", ["tag", "message_id"])
    position = op.create_table(
        "position",
        sa.Column("id", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_position"),
    )
    op.bulk_insert(position, [{"id": 1, "seq": 0}])


def _table(name: str, keys: int, columns: str) -> None:
    """A table whose first `keys` columns are its key. SQLite stores it in the key's order, as PostgreSQL's index is."""
    names = columns.split()
    op.create_table(
        name,
        *(
            sa.Column(
                column,
                sa.BigInteger() if column in _BIG else sa.Integer() if column in _INT else sa.Text(),
                nullable=False,
                autoincrement=False,
            )
            for column in names
        ),
        sa.PrimaryKeyConstraint(*names[:keys], name=f"pk_{name}"),
        sqlite_with_rowid=False,
    )
