"""images know up to which label a training has read them."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0015"
branch_labels = None
depends_on = None

_projects = sa.table(
    "projects", sa.column("id", sa.Integer), sa.column("trained_label_id", sa.Integer)
)
_images = sa.table(
    "images",
    sa.column("project_id", sa.Integer),
    sa.column("error", sa.Text),
    sa.column("trained_label_id", sa.Integer),
)


def upgrade() -> None:
    """Apply; safe to repeat. What can be read now is taken to have been learned from."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("images")}
    if "trained_label_id" in known:
        return
    column: sa.Column[int] = sa.Column(
        "trained_label_id", sa.Integer(), nullable=False, server_default="0"
    )
    op.add_column("images", column)
    trained = sa.select(_projects.c.trained_label_id).where(_projects.c.id == _images.c.project_id)
    is_readable = _images.c.error.is_(None)
    op.execute(
        sa.update(_images).where(is_readable).values(trained_label_id=trained.scalar_subquery())
    )


def downgrade() -> None:
    """Revert."""
    op.drop_column("images", "trained_label_id")
