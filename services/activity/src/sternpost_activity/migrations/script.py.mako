"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One step forward. There is no way back: an older release reads a newer schema, or EVENTS fills a new database."""
    ${upgrades if upgrades else "pass"}
