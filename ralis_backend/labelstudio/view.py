"""The regions project's tab in the data manager: round, rank, reason and state, in queue order."""

from __future__ import annotations

from typing import Any

from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.once import deleted, found_or_made

VIEW_TITLE = "Regions (RALIS)"
"""The mark by which the tab is found again."""
_HIDDEN = (
    "inner_id",
    "total_predictions",
    "annotations_results",
    "annotations_ids",
    "predictions_score",
    "predictions_model_versions",
    "predictions_results",
    "file_upload",
    "storage_filename",
    "created_at",
    "updated_at",
    "updated_by",
    "avg_lead_time",
    "draft_exists",
    "data.context",
    "data.note",
    "data.source_task",
    "data.row",
    "data.col",
    "data.height",
    "data.width",
    "data.scale",
    "data.strategy",
    "data.version",
)
_COLUMNS = [f"tasks:{name}" for name in _HIDDEN]
VIEW = {
    "title": VIEW_TITLE,
    "type": "list",
    "target": "tasks",
    "gridWidth": 4,
    "hiddenColumns": {"explore": _COLUMNS, "labeling": _COLUMNS},
    "columnsDisplayType": {"tasks:data.round": "Number", "tasks:data.rank": "Number"},
    "columnsWidth": {"tasks:data.reason": 420},
    "ordering": ["tasks:predictions_score"],
}
"""What waits comes first, most useful first, as annotators meet it; then what is done."""


def keep_view(client: LabelStudioClient, project_id: int, *, is_wanted: bool = False) -> None:
    """Make the tab once; delete its doubles.

    Args:
        client: Label Studio's API.
        project_id: of the regions project.
        is_wanted: whether it is made although there are other tabs: people may have deleted it.
    """
    views = client.views(project_id)
    if not _ours(views) and (is_wanted or not views):
        found_or_made(
            f"the tab of project {project_id}",
            lambda: next(iter(_ours(client.views(project_id))), None),
            lambda: client.create_view(project_id, VIEW),
        )
        views = client.views(project_id)
    for double in _ours(views)[1:]:
        deleted(client.delete_view, int(double["id"]))


def _ours(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [it for it in views if (it.get("data") or {}).get("title") == VIEW_TITLE]
    return sorted(found, key=lambda it: int(it["id"]))
