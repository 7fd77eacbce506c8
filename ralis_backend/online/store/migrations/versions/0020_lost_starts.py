"""annotations know whether they may have begun from regions that they do not name."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("annotations")}
    if "is_start_lost" not in known:
        flag: sa.Column[bool | None] = sa.Column(
            "is_start_lost", sa.Boolean(), nullable=True, server_default=sa.false()
        )
        op.add_column("annotations", flag)


def downgrade() -> None:
    """Revert."""
    op.drop_column("annotations", "is_start_lost")
