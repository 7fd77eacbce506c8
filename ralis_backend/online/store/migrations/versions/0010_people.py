"""who marked, made and shares what: stars, bulk annotations, pictures that stand in two tasks.

What was read before is read once more, since nobody looked for stars then.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_INDEX = "ix_images_project_id_content"


def _new_columns() -> dict[str, list[sa.Column]]:
    """By table; made anew for each use, since a column belongs to one table object."""
    return {
        "annotations": [
            sa.Column("is_starred", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("is_machine", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("painted_at", sa.DateTime(), nullable=True),
        ],
        "images": [sa.Column("content", sa.String(length=64), nullable=True)],
        "projects": [sa.Column("people", sa.JSON(), nullable=False, server_default="{}")],
    }


def upgrade() -> None:
    """Apply."""
    for table, columns in _new_columns().items():
        known = _columns(table)
        for column in columns:
            if column.name not in known:
                op.add_column(table, column)
    op.execute("UPDATE annotations SET painted_at = updated_at WHERE painted_at IS NULL")
    indexes = sa.inspect(op.get_bind()).get_indexes("images")
    if _INDEX not in {index["name"] for index in indexes}:
        op.create_index(_INDEX, "images", ["project_id", "content"])
    op.execute("DELETE FROM task_states")
    op.execute("DELETE FROM sources")


def downgrade() -> None:
    """Revert."""
    op.drop_index(_INDEX, "images")
    for table, columns in _new_columns().items():
        for column in columns:
            op.drop_column(table, column.name)


def _columns(table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
