"""Alembic's entry: runs the migrations on the connection that `store.schema.migrate` hands over."""

from alembic import context

from controlplane.store.schema import ours
from controlplane.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_object=ours,
    render_as_batch=True,  # SQLite changes a table by making it anew
    compare_type=False,
)
with context.begin_transaction():
    context.run_migrations()
