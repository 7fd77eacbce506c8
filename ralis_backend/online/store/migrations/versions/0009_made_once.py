"""which workers live, and whose predictions a project starts from."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat."""
    inspector = sa.inspect(op.get_bind())
    if "start_from" not in {column["name"] for column in inspector.get_columns("projects")}:
        op.add_column("projects", sa.Column("start_from", sa.Text(), nullable=True))
    if "workers" not in inspector.get_table_names():
        op.create_table(
            "workers",
            sa.Column("name", sa.String(64), primary_key=True),
            sa.Column("seen_at", sa.DateTime(), nullable=False),
        )


def downgrade() -> None:
    """Revert."""
    op.drop_table("workers")
    op.drop_column("projects", "start_from")
