"""Alembic's environment: it runs on the connection that `database` opened, inside its transaction and its lock."""

from alembic import context
from sqlalchemy import Connection

from sternpost_activity.schema import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
