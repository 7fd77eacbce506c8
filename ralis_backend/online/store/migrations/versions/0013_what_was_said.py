"""projects keep what their connection said last: every process sees that it has changed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("projects")}
    if "said" not in known:
        op.add_column("projects", sa.Column("said", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("projects", "said")
