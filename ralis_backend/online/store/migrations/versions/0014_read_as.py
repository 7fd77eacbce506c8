"""projects know how their labels were read: what other code has read is read again, once."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("projects")}
    if "read_as" not in known:
        op.add_column(
            "projects", sa.Column("read_as", sa.Integer(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    """Revert."""
    op.drop_column("projects", "read_as")
