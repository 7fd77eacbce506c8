"""images know since when they are out of reach, and which host does not deliver them."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_images = sa.table(
    "images", sa.column("error", sa.Text), sa.column("unreachable_since", sa.DateTime)
)


def upgrade() -> None:
    """Apply; safe to repeat. Some databases at 0021 have the first column already."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("images")}
    if "unreachable_since" not in known:
        op.add_column("images", sa.Column("unreachable_since", sa.DateTime(), nullable=True))
    if "unreachable_host" not in known:
        op.add_column("images", sa.Column("unreachable_host", sa.Text(), nullable=True))
    is_read = _images.c.error.is_(None)
    op.execute(sa.update(_images).where(is_read).values(unreachable_since=None))


def downgrade() -> None:
    """Revert."""
    op.drop_column("images", "unreachable_host")
    op.drop_column("images", "unreachable_since")
