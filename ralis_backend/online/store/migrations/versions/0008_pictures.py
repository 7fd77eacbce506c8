"""how a project's pictures of more than 8 bits are shown.

Where a model has been trained already they go on being shown by their highest bits.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0005"
branch_labels = None
depends_on = None

_projects = sa.table(
    "projects", sa.column("pixel_rule", sa.JSON), sa.column("current_version", sa.Integer)
)
_AS_BEFORE = {
    "ranges": {"integers": [0, 65535], "floats": [0, 1]},
    "sources": {"integers": "as before", "floats": "as before"},
}


def upgrade() -> None:
    """Apply."""
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("projects")}
    if "pixel_rule" not in columns:
        op.add_column("projects", sa.Column("pixel_rule", sa.JSON(), nullable=True))
    has_model = _projects.c.current_version > 0
    op.execute(
        sa.update(_projects)
        .where(has_model, _projects.c.pixel_rule.is_(sa.null()))
        .values(pixel_rule=_AS_BEFORE)
    )


def downgrade() -> None:
    """Revert."""
    op.drop_column("projects", "pixel_rule")
