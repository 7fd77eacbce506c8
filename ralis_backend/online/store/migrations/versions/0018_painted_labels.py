"""labels know when their region was painted, annotations whether they were read since they were."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_labels = sa.table(
    "labels", sa.column("annotation_row_id", sa.Integer), sa.column("painted_at", sa.DateTime)
)
_annotations = sa.table(
    "annotations",
    sa.column("id", sa.Integer),
    sa.column("painted_at", sa.DateTime),
    sa.column("updated_at", sa.DateTime),
    sa.column("is_repainted", sa.Boolean),
    sa.column("error", sa.Text),
)


def upgrade() -> None:
    """Apply; safe to repeat. What was read is as old as its annotation, what was not is newer."""
    if not _has("annotations", "is_repainted"):
        flag: sa.Column[bool] = sa.Column(
            "is_repainted", sa.Boolean(), nullable=False, server_default=sa.false()
        )
        op.add_column("annotations", flag)
    is_unread = _annotations.c.error.is_not(None)
    op.execute(sa.update(_annotations).where(is_unread).values(is_repainted=True))
    if not _has("labels", "painted_at"):
        op.add_column("labels", sa.Column("painted_at", sa.DateTime(), nullable=True))
    painted_at = sa.func.coalesce(_annotations.c.painted_at, _annotations.c.updated_at)
    source = sa.select(painted_at).where(_annotations.c.id == _labels.c.annotation_row_id)
    is_unknown = _labels.c.painted_at.is_(None)
    op.execute(sa.update(_labels).where(is_unknown).values(painted_at=source.scalar_subquery()))


def downgrade() -> None:
    """Revert."""
    op.drop_column("labels", "painted_at")
    op.drop_column("annotations", "is_repainted")


def _has(table: str, name: str) -> bool:
    return name in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
