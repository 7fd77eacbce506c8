"""what unpainted pixels are, per project."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("projects", sa.Column("background", sa.Text(), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("projects", "background")
