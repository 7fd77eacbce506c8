"""annotations keep the regions that they began from; labels know what is drawn in their region."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_PLACE = ("row", "col", "height", "width")
_AT_ONCE = 1000

_projects = sa.table("projects", sa.column("id", sa.Integer), sa.column("label_config", sa.Text))
_annotations = sa.table(
    "annotations",
    sa.column("id", sa.Integer),
    sa.column("project_id", sa.Integer),
    sa.column("host_uid", sa.String),
    sa.column("task_id", sa.Integer),
    sa.column("image_id", sa.Integer),
    sa.column("crop_task_id", sa.Integer),
    sa.column("suggested_version", sa.Integer),
    sa.column("is_deleted", sa.Boolean),
    sa.column("is_start_lost", sa.Boolean),
    sa.column("begun_from", sa.JSON(none_as_null=True)),
)
_suggestions = sa.table(
    "suggestions",
    sa.column("image_id", sa.Integer),
    sa.column("version", sa.Integer),
    sa.column("regions", sa.JSON),
)


def upgrade() -> None:
    """Apply; safe to repeat. What is drawn in a label is unknown until it is read again."""
    inspector = sa.inspect(op.get_bind())
    if "drawn_digest" not in {column["name"] for column in inspector.get_columns("labels")}:
        op.add_column("labels", sa.Column("drawn_digest", sa.String(64), nullable=True))
    if "begun_from" not in {column["name"] for column in inspector.get_columns("annotations")}:
        of_whole = sa.Column("begun_from", sa.JSON(), nullable=True, server_default="[]")
        op.add_column("annotations", of_whole)
    _decide_open_starts()
    _fill_starts()


def downgrade() -> None:
    """Revert: what is known of lost starts stays so."""
    op.drop_column("annotations", "begun_from")
    op.drop_column("labels", "drawn_digest")


def _decide_open_starts() -> None:
    """Where nobody had looked whether they are lost, they are where a config has no boxes."""
    has_boxes = _projects.c.label_config.like("%RectangleLabels%")  # their label is a setting
    is_lost = _annotations.c.project_id.not_in(sa.select(_projects.c.id).where(has_boxes))
    is_open = _annotations.c.is_start_lost.is_(None)
    op.execute(sa.update(_annotations).where(is_open).values(is_start_lost=is_lost))


def _fill_starts() -> None:
    """What was handed out for their images, under their version or, where it is lost, any."""
    known = _annotations.c
    unplaced = sa.update(_annotations).where(known.image_id.is_(None))
    op.execute(unplaced.values(begun_from=sa.null()))
    begun = sa.select(known.id, known.image_id, known.suggested_version, known.is_start_lost).where(
        known.image_id.is_not(None),
        known.crop_task_id.is_(None),
        sa.or_(known.suggested_version.is_not(None), known.is_start_lost),
    )
    rows = op.get_bind().execute(begun.order_by(known.image_id, known.id)).all()
    filling = (
        sa.update(_annotations)
        .where(known.id == sa.bindparam("row_id"))
        .values(begun_from=sa.bindparam("places"), is_start_lost=sa.bindparam("is_lost"))
    )
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        handed_out = _handed_out({row.image_id for row in part})
        found = [_start(row, handed_out[row.image_id]) for row in part]
        if filled := [it for it in found if it["places"]]:
            op.get_bind().execute(filling, filled)


def _handed_out(image_ids: set[int]) -> Mapping[int, list[tuple[int, Sequence[Any]]]]:
    """Of each image the versions, and the regions that were handed out under each."""
    columns = _suggestions.c
    query = sa.select(columns.image_id, columns.version, columns.regions)
    found: dict[int, list[tuple[int, Sequence[Any]]]] = defaultdict(list)
    for row in op.get_bind().execute(query.where(columns.image_id.in_(image_ids))):
        found[row.image_id].append((row.version, row.regions))
    return found


def _start(row: Any, handed_out: Sequence[tuple[int, Sequence[Any]]]) -> dict[str, Any]:
    version = row.suggested_version
    lists = [regions for number, regions in handed_out if version in (None, number)]
    entries = [entry for regions in lists for entry in regions]
    places = dict.fromkeys(tuple(entry[name] for name in _PLACE) for entry in entries)
    is_lost = row.is_start_lost or any(entry.get("is_taken_back") for entry in entries)
    return {"row_id": row.id, "places": [list(it) for it in places], "is_lost": is_lost}
