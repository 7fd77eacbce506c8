"""annotations say what of them does not count, and tasks which of theirs could not be read."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


_COLUMNS = (("annotations", "left_out"), ("task_states", "unreadable"))


def upgrade() -> None:
    """Apply; safe to repeat."""
    inspector = sa.inspect(op.get_bind())
    for table, column in _COLUMNS:
        if column not in {found["name"] for found in inspector.get_columns(table)}:
            op.add_column(table, sa.Column(column, sa.JSON(), nullable=True))
        index = f"ix_{table}_{column}"
        if index not in {found["name"] for found in inspector.get_indexes(table)}:
            is_set = sa.text(f"{column} IS NOT NULL")
            op.create_index(
                index, table, ["project_id"], sqlite_where=is_set, postgresql_where=is_set
            )


def downgrade() -> None:
    """Revert."""
    for table, column in _COLUMNS:
        op.drop_index(f"ix_{table}_{column}", table)
        op.drop_column(table, column)
