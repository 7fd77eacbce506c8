"""labels know what a person painted in their region from what a tick makes of it."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; safe to repeat. Of what was labelled before it is unknown until it is read again."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("labels")}
    if "made_digest" not in known:
        op.add_column("labels", sa.Column("made_digest", sa.String(64), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("labels", "made_digest")
