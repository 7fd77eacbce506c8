"""labels know the oldest label of their region by the same annotation."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat. What was labelled before is taken to be the oldest itself."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("labels")}
    if "first_id" not in known:
        op.add_column("labels", sa.Column("first_id", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("labels", "first_id")
