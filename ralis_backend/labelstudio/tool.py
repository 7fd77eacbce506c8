"""Label Studio as the worker sees it: implements `online.tool.Tool` with client and payloads.

What is asked and published; how projects are made ready is `setup`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.client import Filter, LabelStudioClient
from ralis_backend.labelstudio.errors import NotFound
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.payloads.annotations import (
    annotated_regions,
    decode_annotation,
    parse_annotation,
)
from ralis_backend.labelstudio.payloads.answers import read_answers
from ralis_backend.labelstudio.payloads.label_config import (
    REGION_LABEL,
    LabelConfig,
    parse_label_config,
)
from ralis_backend.labelstudio.payloads.predictions import (
    batches,
    crop_prediction,
    image_prediction,
)
from ralis_backend.labelstudio.payloads.tasks import (
    TaskError,
    crop_data,
    crop_files,
    parse_tasks,
    parse_time,
    project_uid,
)
from ralis_backend.labelstudio.setup import ProjectSetup, keep_settings
from ralis_backend.online.tool import (
    Crop,
    CropPrediction,
    ImageSuggestion,
    ToolAnnotation,
    ToolProject,
    ToolTask,
)

logger = logging.getLogger(__name__)

UPLOADS_PER_CALL = 25
"""Crops of two files each: Label Studio takes 100 files in a request."""
DELETIONS_PER_CALL = 500


class LabelStudioTool:
    """One Label Studio server.

    Args:
        client: its API.
        fetcher: reads image files.
        setup: makes projects ready; None: for a backend that is connected already.
        region_label: names the rectangles of suggested regions.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        fetcher: ImageFetcher,
        setup: ProjectSetup | None = None,
        region_label: str = REGION_LABEL,
    ) -> None:
        self._client = client
        self._fetcher = fetcher
        self._setup = setup or ProjectSetup(client, region_label=region_label)
        self._region_label = region_label
        self._versions: dict[int, str | None] = {}

    # What it reads

    def project(self, project_id: int) -> ToolProject:
        """The project; `ValueError` if its label config cannot be used, saying why."""
        found = self._client.project(project_id)
        config = self._config(found["label_config"])
        return ToolProject(
            uid=project_uid(found),
            id=int(found["id"]),
            title=str(found["title"]),
            label_config=str(found["label_config"]),
            classes=config.labels,
        )

    def tasks(self, project_id: int) -> Iterator[ToolTask]:
        """All tasks of a project, oldest first."""
        key = self._config(self._client.project(project_id)["label_config"]).image_key
        for task in parse_tasks(self._client.tasks(project_id), key):
            if isinstance(task, TaskError):
                logger.warning("project %s, %s", project_id, task)
            else:
                yield task

    def annotations(self, project_id: int) -> Iterator[ToolAnnotation]:
        """All submitted and skipped annotations of a project; no drafts."""
        for task in self._client.annotated_tasks(project_id):
            for annotation in task["annotations"]:
                try:
                    fields = {**annotation, "task": task, "prediction": self._origin(annotation)}
                    yield parse_annotation(fields)
                except ValueError as error:
                    logger.warning("project %s, task %s: %s", project_id, task.get("id"), error)

    def parse_annotation(self, payload: Mapping[str, Any]) -> ToolAnnotation:
        """An annotation from a webhook; `ValueError` if malformed."""
        return parse_annotation({**payload, "prediction": self._origin(payload)})

    def mask(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        class_names: Sequence[str],
        size: tuple[int, int],
        background: str | None,
    ) -> np.ndarray:
        """The annotation as (height, width) uint8 indices, VOID where unpainted."""
        config = self._config(project.label_config)
        return decode_annotation(annotation, config, class_names, size, background)

    def answers(self, annotation: ToolAnnotation) -> dict[str, Any]:
        """What the annotation answers besides paint, by kind."""
        return read_answers(annotation.results)

    def annotated_regions(
        self, annotation: ToolAnnotation, project: ToolProject, image_size: tuple[int, int]
    ) -> list[Region]:
        """The suggested rectangles that a whole-image annotation carries; empty if none."""
        return annotated_regions(annotation, self._config(project.label_config), image_size)

    def image(self, task: ToolTask) -> bytes:
        """The bytes of a task's image file."""
        return self._fetcher.fetch(task)

    # What it changes

    def prepare(
        self, project: ToolProject, mode: str, regions_project_id: int | None
    ) -> int | None:
        """Bring webhooks, sampling and, in crops mode, the regions project in order."""
        return self._setup.prepare(project, mode, regions_project_id)

    def create_crop_tasks(
        self, pool: ToolProject, regions_project_id: int, crops: Sequence[Crop]
    ) -> list[ToolTask]:
        """Upload the crops' pictures and make their tasks; one task per crop, in order.

        Files go to the pool project, whose config has one data key as uploads need; tasks of
        other projects may show them.
        """
        if not crops:
            return []
        parts = [
            crops[start : start + UPLOADS_PER_CALL]
            for start in range(0, len(crops), UPLOADS_PER_CALL)
        ]
        with ThreadPoolExecutor(2) as threads:  # one encodes while the other's upload is stored
            uploaded = list(threads.map(lambda part: self._upload(pool.id, part), parts))
        paths = [path for part in uploaded for path in part]
        data = [
            crop_data(crop, image, context)
            for crop, (image, context) in zip(crops, paths, strict=True)
        ]
        ids = self._client.import_tasks(regions_project_id, [{"data": it} for it in data])
        created = self._created(regions_project_id, ids)
        return [
            ToolTask(task_id, created[task_id], fields["image"], fields)
            for task_id, fields in zip(ids, data, strict=True)
        ]

    def publish_crop_predictions(
        self,
        regions_project_id: int,
        version: str,
        class_names: Sequence[str],
        predictions: Sequence[CropPrediction],
    ) -> None:
        """Store the predictions under `version`, make it the project's, drop the others."""
        config = self._config(self._client.project(regions_project_id)["label_config"])
        payloads = (
            crop_prediction(prediction, class_names, config, version) for prediction in predictions
        )
        self._replace_predictions(regions_project_id, version, payloads)

    def publish_image_predictions(
        self,
        pool: ToolProject,
        version: str,
        class_names: Sequence[str],
        suggestions: Iterable[ImageSuggestion],
    ) -> None:
        """The same for whole-image tasks."""
        config = self._config(pool.label_config)
        payloads = (
            {
                "task": suggestion.task_id,
                **image_prediction(suggestion, class_names, config, version),
            }
            for suggestion in suggestions
        )
        self._replace_predictions(pool.id, version, payloads)

    def delete_unopened_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        """Delete those of the tasks that nobody has begun.

        Label Studio does not say which tasks are open in a browser, but saves a draft seconds
        after the first stroke. It deletes itself those without draft, annotation and skip, in
        one query, so that nothing that was saved before can go. What remains possible: a task
        goes that somebody has opened and not yet painted on, or painted on within the last
        seconds, and submitting it fails. The caller keeps the head of the queue, where open
        tasks are.
        """
        wanted = set(task_ids)
        for start in range(0, len(task_ids), DELETIONS_PER_CALL):
            part = task_ids[start : start + DELETIONS_PER_CALL]
            self._client.delete_tasks(project_id, part, _UNTOUCHED)
        return sorted(wanted - {task["id"] for task in self._client.tasks(project_id)})

    def _upload(self, project_id: int, crops: Sequence[Crop]) -> list[tuple[str, str]]:
        """Store the pictures of crops; the paths of each crop's two."""
        files = [file for crop in crops for file in crop_files(crop)]
        ids = self._client.upload_files(project_id, files, makes_tasks=False)
        paths = self._client.file_paths(project_id, ids)
        return list(zip(paths[::2], paths[1::2], strict=True))

    def _created(self, project_id: int, ids: Sequence[int]) -> dict[int, datetime]:
        """When the tasks were made; other tasks with ids in between may come along."""
        first = ("id", "Number", "greater_or_equal", min(ids))
        last = ("id", "Number", "less_or_equal", max(ids))
        return {
            task["id"]: parse_time(task["created_at"])
            for task in self._client.tasks(project_id, first, last)
        }

    def _replace_predictions(
        self, project_id: int, version: str, payloads: Iterable[Mapping[str, Any]]
    ) -> None:
        """Old versions go last, so that annotators always meet some prediction."""
        if self._client.model_versions(project_id).get(version):
            self._client.delete_predictions(project_id, version)
        has_any = False
        with ThreadPoolExecutor(1) as sender:  # the next part is encoded while one is stored
            sending: Future[None] | None = None
            for part in batches(payloads):
                if sending is not None:
                    sending.result()
                sending = sender.submit(self._client.import_predictions, project_id, part)
                has_any = True
            if sending is not None:
                sending.result()
        if has_any:
            keep_settings(self._client, project_id, {"model_version": version})
        for other in self._client.model_versions(project_id):
            if other != version:
                self._client.delete_predictions(project_id, other)

    def _origin(self, annotation: Mapping[str, Any]) -> Mapping[str, Any]:
        """The prediction that an annotation started from, as far as its version is concerned."""
        embedded = annotation.get("prediction")
        if isinstance(embedded, Mapping) and embedded.get("model_version"):
            return embedded
        parent = annotation.get("parent_prediction")
        if not isinstance(parent, int):
            return {}
        if parent not in self._versions:
            try:
                self._versions[parent] = self._client.prediction(parent).get("model_version")
            except NotFound:  # dropped with its version
                self._versions[parent] = None
        return {"model_version": self._versions[parent]}

    def _config(self, xml: str) -> LabelConfig:
        return parse_label_config(xml, self._region_label)


_UNTOUCHED: tuple[Filter, ...] = (
    ("draft_exists", "Boolean", "equal", False),
    ("total_annotations", "Number", "equal", 0),
    ("cancelled_annotations", "Number", "equal", 0),
)
