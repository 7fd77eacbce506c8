"""projects count what changes how labels are read, and what may have been read otherwise is again.

That is what was left out, which later label configs may have a place for, and what was painted in
projects with a background that somebody chose: it may have been another one by the time that a
reading stored its labels. Labels that come out as they are keep their ids. An annotation whose
number a newer one of the same task has is gone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_UNREAD = "it has not been read yet"
_PROJECTS = sa.table(
    "projects", sa.column("id"), sa.column("background"), sa.column("classes", sa.JSON())
)
_ANNOTATIONS = sa.table(
    "annotations",
    *map(sa.column, ("id", "project_id", "host_uid", "annotation_id", "task_id", "created_at")),
    *map(sa.column, ("image_id", "crop_task_id", "error", "left_out")),
    sa.column("is_deleted", sa.Boolean()),
    sa.column("is_skipped", sa.Boolean()),
)


def upgrade() -> None:
    """Apply; safe to repeat."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("projects")}
    if "meaning" in known:
        return
    op.add_column(
        "projects", sa.Column("meaning", sa.Integer(), nullable=False, server_default="0")
    )
    _withdraw_replaced()
    _read_again(_ANNOTATIONS.c.left_out.is_not(None))
    for project_id in _projects_with_a_chosen_background():
        _read_again(_ANNOTATIONS.c.project_id == project_id, ~_ANNOTATIONS.c.is_skipped)


def downgrade() -> None:
    """Revert."""
    op.drop_column("projects", "meaning")


def _withdraw_replaced() -> None:
    older, newer = _ANNOTATIONS.c, _ANNOTATIONS.alias("newer").c
    same = ("host_uid", "annotation_id", "task_id", "image_id")
    is_replaced = sa.exists().where(
        *(newer[name] == older[name] for name in same),
        newer.crop_task_id.is_not_distinct_from(older.crop_task_id),
        newer.created_at > older.created_at,
        ~newer.is_deleted,
    )
    op.execute(_ANNOTATIONS.update().where(~older.is_deleted, is_replaced).values(is_deleted=True))


def _read_again(*which: sa.ColumnElement[bool]) -> None:
    has_been_read = (~_ANNOTATIONS.c.is_deleted, _ANNOTATIONS.c.error.is_(None))
    values = {"error": _UNREAD, "left_out": None}
    op.execute(_ANNOTATIONS.update().where(*has_been_read, *which).values(values))


def _projects_with_a_chosen_background() -> list[int]:
    """Without those whose one label has brought it, which it does when they become known."""
    rows = op.get_bind().execute(sa.select(_PROJECTS)).all()
    return [
        row.id
        for row in rows
        if row.background is not None
        or {entry.get("background") for entry in row.classes or ()} - {None, "one label"}
    ]
