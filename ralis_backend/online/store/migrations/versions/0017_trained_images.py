"""images know up to which label a training has read them, projects which label began a round."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_projects = sa.table(
    "projects",
    sa.column("id", sa.Integer),
    sa.column("trained_label_id", sa.Integer),
    sa.column("published_label_id", sa.Integer),
    sa.column("round_label_id", sa.Integer),
)
_images = sa.table(
    "images",
    sa.column("project_id", sa.Integer),
    sa.column("error", sa.Text),
    sa.column("trained_label_id", sa.Integer),
)


def upgrade() -> None:
    """Apply; safe to repeat. What can be read now is taken to have been learned from."""
    if _is_new("projects", "round_label_id"):
        op.execute(sa.update(_projects).values(round_label_id=_projects.c.published_label_id))
    if _is_new("images", "trained_label_id"):
        of_project = _projects.c.id == _images.c.project_id
        trained = sa.select(_projects.c.trained_label_id).where(of_project).scalar_subquery()
        is_readable = _images.c.error.is_(None)
        op.execute(sa.update(_images).where(is_readable).values(trained_label_id=trained))


def downgrade() -> None:
    """Revert."""
    op.drop_column("images", "trained_label_id")
    op.drop_column("projects", "round_label_id")


def _is_new(table: str, name: str) -> bool:
    """Whether the column was not there before, and is now."""
    if name in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}:
        return False
    op.add_column(table, sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    return True
