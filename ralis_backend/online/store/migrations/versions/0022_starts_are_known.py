"""annotations know at once whether what they began from is lost."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_projects = sa.table("projects", sa.column("id", sa.Integer), sa.column("label_config", sa.Text))
_annotations = sa.table(
    "annotations", sa.column("project_id", sa.Integer), sa.column("is_start_lost", sa.Boolean)
)


def upgrade() -> None:
    """Apply; safe to repeat. What nobody had read is lost where no boxes can be shown."""
    has_boxes = _projects.c.label_config.like("%RectangleLabels%")
    boxed = sa.select(_projects.c.id).where(has_boxes)
    is_lost = _annotations.c.project_id.not_in(boxed)
    is_open = _annotations.c.is_start_lost.is_(None)
    op.execute(sa.update(_annotations).where(is_open).values(is_start_lost=is_lost))


def downgrade() -> None:
    """Revert: what is known stays so."""
