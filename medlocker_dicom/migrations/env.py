"""Alembic's entry: brings the tables of the connection that it is given up to date."""

from alembic import context

_given = context.config.attributes
context.configure(
    connection=_given["connection"],
    target_metadata=_given["tables"].metadata,
    version_table=_given["tables"].revision,
    render_as_batch=True,
)
context.run_migrations()
