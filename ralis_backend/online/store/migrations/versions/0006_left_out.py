"""annotations say what of them does not count, and tasks which of theirs could not be read."""

import sqlalchemy as sa
from alembic import op

revision = "0006_left_out"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat."""
    inspector = sa.inspect(op.get_bind())
    if not _has(inspector, "annotations", "left_out"):
        op.add_column("annotations", sa.Column("left_out", sa.JSON(), nullable=True))
    if not _has(inspector, "task_states", "unreadable"):
        op.add_column("task_states", sa.Column("unreadable", sa.JSON(), nullable=True))
    known = {index["name"] for index in inspector.get_indexes("annotations")}
    if "ix_annotations_left_out" not in known:
        op.create_index(
            "ix_annotations_left_out",
            "annotations",
            ["project_id"],
            sqlite_where=sa.text("left_out IS NOT NULL"),
            postgresql_where=sa.text("left_out IS NOT NULL"),
        )


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_annotations_left_out", "annotations")
    op.drop_column("task_states", "unreadable")
    op.drop_column("annotations", "left_out")


def _has(inspector: sa.Inspector, table: str, column: str) -> bool:
    return column in {found["name"] for found in inspector.get_columns(table)}
