"""What Alembic runs. The connection, and its transaction, are `migrate`'s."""

from __future__ import annotations

from alembic import context

from rootward.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
