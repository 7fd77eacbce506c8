"""projects know what they were published with, and that it is to be done once more."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("projects")}
    if "is_publishing_requested" not in known:
        flag: sa.Column[bool] = sa.Column(
            "is_publishing_requested", sa.Boolean(), nullable=False, server_default=sa.false()
        )
        op.add_column("projects", flag)
    if "filled_with" not in known:
        op.add_column("projects", sa.Column("filled_with", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Revert."""
    for name in ("filled_with", "is_publishing_requested"):
        op.drop_column("projects", name)
