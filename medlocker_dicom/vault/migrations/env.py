"""Alembic's entry: brings the tables of the connection that it is given up to date."""

from alembic import context

from medlocker_dicom.vault.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
