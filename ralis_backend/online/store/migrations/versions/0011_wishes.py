"""wishes: regions of one class that are looked for, and which tasks and rankings are for them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_INDEX = "ix_wishes_project_id"


def _new_columns() -> dict[str, list[sa.Column]]:
    """By table; made anew for each use, since a column belongs to one table object."""
    return {
        "projects": [
            sa.Column("said_wish", sa.JSON(), nullable=True),
            sa.Column("published_wish", sa.Integer(), nullable=True),
        ],
        "crop_tasks": [sa.Column("wish_id", sa.Integer(), nullable=True)],
        "rankings": [
            sa.Column("mined_scores", sa.LargeBinary(), nullable=True),
            sa.Column("mined_reasons", sa.JSON(), nullable=True),
        ],
    }


def upgrade() -> None:
    """Apply."""
    for table, columns in _new_columns().items():
        known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
        for column in columns:
            if column.name not in known:
                op.add_column(table, column)
    if sa.inspect(op.get_bind()).has_table("wishes"):
        return
    op.create_table(
        "wishes",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("project_id", sa.Integer(), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=True),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("examples", sa.JSON(), nullable=False),
        sa.Column("like_class", sa.Text(), nullable=True),
        sa.Column("is_of_connection", sa.Boolean(), nullable=False),
        sa.Column("begun_at", sa.DateTime(), nullable=False),
        sa.Column("since_label_id", sa.Integer(), nullable=False),
        sa.Column("pixels_before", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("ended_by", sa.String(length=64), nullable=True),
    )
    op.create_index(_INDEX, "wishes", ["project_id"])


def downgrade() -> None:
    """Revert."""
    op.drop_table("wishes")
    for table, columns in _new_columns().items():
        for column in columns:
            op.drop_column(table, column.name)
