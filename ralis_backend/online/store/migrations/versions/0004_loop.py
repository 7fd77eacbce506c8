"""leases without clocks, attempts, what is counted once, and indexes for what is asked often.

Projects that one answer of the tool had marked as deleted are given another try.
"""

import sqlalchemy as sa
from alembic import op

from ralis_backend.online.store.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_projects = sa.table(
    "projects",
    sa.column("is_deleted", sa.Boolean),
    sa.column("is_sync_requested", sa.Boolean),
    sa.column("num_failures", sa.Integer),
    sa.column("retry_at", UtcDateTime),
    sa.column("last_error", sa.Text),
    sa.column("lease_owner", sa.String),
)


def upgrade() -> None:
    """Apply."""
    # One column at a time, in place: to copy a table that others refer to would delete their rows.
    for name in ("lease_generation", "lease_heartbeat", "num_losses"):
        column = sa.Column(name, sa.Integer(), nullable=False, server_default="0")
        op.add_column("projects", column)
    op.add_column("projects", sa.Column("num_labelled_regions", sa.Integer(), nullable=True))
    op.drop_column("projects", "lease_until")
    op.add_column(
        "versions",
        sa.Column("is_dropped", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "kind", "key"),
    )
    op.create_index("ix_crop_tasks_state", "crop_tasks", ["project_id", "state"])
    op.execute(sa.update(_projects).values(lease_owner=None))
    op.execute(
        sa.update(_projects)
        .where(_projects.c.is_deleted, _projects.c.last_error.is_not(None))  # else on request
        .values(is_deleted=False, is_sync_requested=True, num_failures=0, retry_at=None)
    )


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_crop_tasks_state", "crop_tasks")
    op.drop_table("attempts")
    op.drop_column("versions", "is_dropped")
    for name in ("num_labelled_regions", "num_losses", "lease_heartbeat", "lease_generation"):
        op.drop_column("projects", name)
    op.add_column("projects", sa.Column("lease_until", UtcDateTime(), nullable=True))
