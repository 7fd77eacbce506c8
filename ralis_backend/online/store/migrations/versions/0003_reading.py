"""what has been read of the labelling tool; labels that were lost on the way are read again."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LOST = """
UPDATE annotations SET error = 'its labels were lost and have not been read again yet'
WHERE error IS NULL AND NOT is_deleted
AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.annotation_row_id = annotations.id)
"""
"""A skip leaves labels too, one per region: an annotation that was read has at least one."""

_NEVER_READ = """
INSERT INTO task_states (project_id, host_uid, task_id, state)
SELECT MIN(project_id), host_uid, task_id, '' FROM annotations GROUP BY host_uid, task_id
"""
"""No task has the empty state, so the annotations of these are compared with the tool's once."""


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "projects", sa.Column("num_readings", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("projects", sa.Column("open_reading", sa.Integer(), nullable=True))
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("host_uid", sa.String(length=64), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=True),
        sa.Column("extra_tasks", sa.Integer(), nullable=False),
        sa.Column("extra_annotations", sa.Integer(), nullable=False),
        sa.Column("num_doubts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host_uid"),
    )
    op.create_index("ix_sources_project_id", "sources", ["project_id"])
    op.create_table(
        "task_states",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("host_uid", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host_uid", "task_id"),
    )
    op.create_index("ix_task_states_project_id", "task_states", ["project_id"])
    op.drop_column("annotations", "seen_at")
    op.create_index("ix_annotations_crop_task_id", "annotations", ["crop_task_id"])
    op.create_index("ix_annotations_task", "annotations", ["host_uid", "task_id", "is_deleted"])
    is_unread = sa.text("error IS NOT NULL")
    op.create_index(
        "ix_annotations_unread",
        "annotations",
        ["project_id"],
        sqlite_where=is_unread,
        postgresql_where=is_unread,
    )
    op.execute(_LOST)
    op.execute(_NEVER_READ)


def downgrade() -> None:
    """Revert."""
    for index in ("unread", "task", "crop_task_id"):
        op.drop_index(f"ix_annotations_{index}", "annotations")
    op.add_column(
        "annotations",
        sa.Column("seen_at", sa.DateTime(), nullable=False, server_default="1970-01-01 00:00:00"),
    )
    for table in ("task_states", "sources"):
        op.drop_index(f"ix_{table}_project_id", table)
        op.drop_table(table)
    op.drop_column("projects", "open_reading")
    op.drop_column("projects", "num_readings")
