"""images that cannot be read are tried again after growing pauses."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_images = sa.table("images", sa.column("error", sa.Text), sa.column("retry_at", sa.DateTime))


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "images", sa.Column("num_failures", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("images", sa.Column("retry_at", sa.DateTime(), nullable=True))
    op.create_index("ix_images_project_id_retry_at", "images", ["project_id", "retry_at"])
    is_bad = _images.c.error.is_not(None)
    op.execute(sa.update(_images).where(is_bad).values(retry_at=datetime(2000, 1, 1)))


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_images_project_id_retry_at", "images")
    op.drop_column("images", "retry_at")
    op.drop_column("images", "num_failures")
