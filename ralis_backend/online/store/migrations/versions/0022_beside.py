"""labels say which share of a region that nobody was asked for was painted."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat. Labels are taken to be of regions that were asked for until read."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("labels")}
    if "share_beside" not in known:
        op.add_column("labels", sa.Column("share_beside", sa.Double(), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("labels", "share_beside")
