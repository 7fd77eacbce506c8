"""labels know whether the region that they are of was called not worth labelling as well."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("labels")}
    if "is_disputed" not in known:
        flag: sa.Column[bool] = sa.Column(
            "is_disputed", sa.Boolean(), nullable=False, server_default=sa.false()
        )
        op.add_column("labels", flag)


def downgrade() -> None:
    """Revert."""
    op.drop_column("labels", "is_disputed")
