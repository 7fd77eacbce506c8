"""Scripted annotators: they label from the masks, through Label Studio's API alone, as people do.

Each takes the next task of the label stream, paints every class inside the suggested regions with
the brush (void pixels stay free) and submits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ralis_backend.core.images import crop_scale
from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads.boxes import read_boxes
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results

if TYPE_CHECKING:
    from ralis_backend.labelstudio.client import LabelStudioClient
    from ralis_backend.offline.datasets import Sample
    from ralis_backend.online.tool import ToolProject


class _Annotator:
    """Who knows the truth of a project's images.

    Args:
        client: Label Studio's API.
        project: whose label stream is asked.
        truth: the labelled image of each task of the pool project.
        class_names: what the masks' values stand for.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        project: ToolProject,
        truth: Mapping[int, Sample],
        class_names: Sequence[str],
    ) -> None:
        self._client = client
        self._project_id = project.id
        self._config = parse_label_config(project.label_config)
        self._truth, self._class_names = truth, class_names


class CropAnnotator(_Annotator):
    """Labels the tasks of a regions project, one region each."""

    def label_next(self) -> int:
        """Label the next region; 0 if there is none."""
        started = time.monotonic()
        task = self._client.next_task(self._project_id)
        if task is None:
            return 0
        shown = task["data"]
        region = Region(*(int(shown[name]) for name in ("row", "col", "height", "width")))
        mask = self._truth[int(shown["source_task"])].mask()
        results = mask_to_results(
            mask[region.slices],
            self._class_names,
            self._config,
            key=f"script/{task['id']}",
            scale=crop_scale(region),
        )
        submit(self._client, task, results, started)
        return 1


class InPlaceAnnotator(_Annotator):
    """Labels the suggested regions on the whole images of the pool project."""

    def label_next(self) -> int:
        """Label every suggested region of the next image; 0 if there is none."""
        started = time.monotonic()
        task = self._client.next_task(self._project_id)
        if task is None:
            return 0
        mask = self._truth[int(task["id"])].mask()
        size = (mask.shape[0], mask.shape[1])
        suggested = max(task.get("predictions") or [{}], key=lambda it: it.get("id", 0))
        boxes = [it for it in suggested.get("result", []) if it["type"] == "rectanglelabels"]
        regions = read_boxes(boxes, self._config, size).regions
        if not regions:
            raise RuntimeError(
                f"task {task['id']} came without suggested regions; see the backend's log, and "
                f"`ralis doctor --project {self._project_id}`"
            )
        results = list(boxes)
        for box, region in zip(boxes, regions, strict=True):
            results += mask_to_results(
                mask[region.slices],
                self._class_names,
                self._config,
                key=f"script/{task['id']}/{box['id']}",
                offset=(region.row, region.col),
                image_size=size,
                extra={"parentID": box["id"]},
            )
        submit(self._client, task, results, started)
        return len(regions)


def submit(
    client: LabelStudioClient, task: Mapping[str, Any], results: list[Any], started: float
) -> None:
    """Submit an annotation of a task that was opened at `started` (monotonic seconds)."""
    fields: dict[str, Any] = {"result": results, "lead_time": time.monotonic() - started}
    predictions = task.get("predictions") or []
    if predictions:
        fields["parent_prediction"] = max(predictions, key=lambda it: it["id"])["id"]
    client.annotate(int(task["id"]), **fields)
