"""answers of annotators besides paint."""

import sqlalchemy as sa
from alembic import op

from ralis_backend.online.store.database import unpack

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_annotations = sa.table(
    "annotations",
    sa.column("id", sa.Integer),
    sa.column("is_deleted", sa.Boolean),
    sa.column("payload", sa.LargeBinary),
    sa.column("error", sa.Text),
)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("annotation_row_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["annotation_row_id"], ["annotations.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("annotation_row_id", "kind"),
    )
    op.create_index("ix_answers_project_id", "answers", ["project_id"])
    _read_again()


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_answers_project_id", "answers")
    op.drop_table("answers")


def _read_again() -> None:
    """Mark what has something ticked: its answers were never read."""
    connection = op.get_bind()
    query = sa.select(_annotations.c.id, _annotations.c.payload).where(
        ~_annotations.c.is_deleted, _annotations.c.error.is_(None)
    )
    ticked = [row.id for row in connection.execute(query) if _has_choices(row.payload)]
    for row_id in ticked:
        connection.execute(
            sa.update(_annotations)
            .where(_annotations.c.id == row_id)
            .values(error="its answers have not been read yet")
        )


def _has_choices(payload: bytes) -> bool:
    return any(result.get("type") == "choices" for result in unpack(payload)["results"])
