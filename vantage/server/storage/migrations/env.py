"""Alembic's entry: runs on the connection that ``migrate`` hands over."""

from alembic import context

from vantage.server.storage import credential_schema, schema, task_schema  # noqa: F401  # the tables join the metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=schema.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
