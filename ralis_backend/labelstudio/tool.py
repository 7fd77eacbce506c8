"""Label Studio as the worker sees it: implements `online.tool.Tool` with client and payloads.

What is asked and published; how projects are made ready is `setup`'s.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.client import Filter, LabelStudioClient
from ralis_backend.labelstudio.errors import LabelStudioError, NotFound
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.payloads.annotations import parse_annotation
from ralis_backend.labelstudio.payloads.answers import read_answers
from ralis_backend.labelstudio.payloads.boxes import read_boxes, read_refusals
from ralis_backend.labelstudio.payloads.descriptions import with_line
from ralis_backend.labelstudio.payloads.events import read_hint
from ralis_backend.labelstudio.payloads.label_config import (
    REGION_LABEL,
    LabelConfig,
    parse_label_config,
)
from ralis_backend.labelstudio.payloads.paint import drawn_instead, others_paint, read_paint
from ralis_backend.labelstudio.payloads.predictions import (
    batches,
    crop_prediction,
    image_prediction,
    is_ours,
    model_version,
)
from ralis_backend.labelstudio.payloads.regions_config import REGIONS_SIGN, shows_regions
from ralis_backend.labelstudio.payloads.tasks import (
    TaskError,
    count_of,
    crop_data,
    crop_files,
    crop_key,
    has_id,
    parse_task,
    parse_tasks,
    project_uid,
    utc_text,
)
from ralis_backend.labelstudio.regions_project import keep_settings, pool_of
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.online.tool import (
    Crop,
    CropPrediction,
    FoundRegions,
    Hint,
    ImageSuggestion,
    Painted,
    Refusals,
    TaskAnnotations,
    ToolAnnotation,
    ToolProject,
    ToolTask,
    Watch,
)

logger = logging.getLogger(__name__)

UPLOADS_PER_CALL = 25
"""Crops of two files each: Label Studio takes 100 files in a request."""
DELETIONS_PER_CALL = 500
MOST_LOGGED = 5
"""Of what is left out of one prediction of others."""
REFERENCES_LOOKED_AT = 50
NO_IMAGE = ""
"""An export gives addresses as they were imported, not as this server serves them: no key."""


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
        self._watch: Watch | None = None

    def watched(self, watch: Watch) -> LabelStudioTool:
        """The same tool, of whose requests `watch` is told, each before it is sent."""
        client = self._client.watched(watch)
        tool = LabelStudioTool(
            client, self._fetcher, self._setup.through(client), self._region_label
        )
        tool._watch = watch
        return tool

    # What it reads

    def project(self, project_id: int) -> ToolProject:
        """The project; `ValueError` if its label config cannot be used, saying why."""
        found = self._client.project(project_id)
        config = self._config(found["label_config"])
        return ToolProject(
            uid=project_uid(found),
            id=found["id"],
            title=str(found.get("title") or ""),
            label_config=found["label_config"],
            classes=config.labels,
            pool_uid=pool_of(found),
            regions_sign=REGIONS_SIGN if shows_regions(found["label_config"]) else None,
            shows_boxes=config.region_control is not None,
            num_tasks=count_of(found, "task_number"),
            num_annotations=count_of(
                found, "total_annotations_number", "skipped_annotations_number"
            ),
        )

    def tasks(self, project_id: int, changed_since: datetime | None = None) -> Iterator[ToolTask]:
        """All tasks of a project or those that changed, oldest first.

        One that is malformed has no image, and is one of them: Label Studio counts it.
        """
        filters: list[Filter] = []
        if changed_since is not None:
            filters.append(("updated_at", "Datetime", "greater_or_equal", utc_text(changed_since)))
        key = self._config(self._client.project(project_id)["label_config"]).image_key
        for task in parse_tasks(self._client.tasks(project_id, *filters), key, project_id):
            if isinstance(task, TaskError):
                logger.warning("project %s, %s", project_id, task)
            known = task.task if isinstance(task, TaskError) else task
            if known is not None:
                yield known

    def annotations(self, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskAnnotations]:
        """The submitted and skipped annotations of these tasks, task by task."""
        for payload in self._client.annotated_tasks(project_id, task_ids):
            try:
                task = parse_task(payload, NO_IMAGE)
                yield self._annotations_of(project_id, task, payload.get("annotations"))
            except TaskError as error:
                logger.warning("project %s, %s", project_id, error)

    def hint(self, action: str, payload: Mapping[str, Any]) -> Hint:
        """What a stored webhook says has changed."""
        return read_hint(action, payload)

    def mask(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        class_names: Sequence[str],
        size: tuple[int, int],
        background: str | None,
    ) -> Painted:
        """What the annotation paints, (height, width) uint8 indices, VOID where unpainted."""
        return read_paint(annotation.results, class_names, size, background)

    def answers(self, annotation: ToolAnnotation, *, is_asked: bool = False) -> dict[str, Any]:
        """What the annotation answers besides paint, by kind."""
        return read_answers(annotation.results, self._region_label, is_asked=is_asked)

    def annotated_regions(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        image_size: tuple[int, int],
        handed_out: Sequence[Region],
    ) -> FoundRegions:
        """The suggested regions that a whole-image annotation is about."""
        config = self._config(project.label_config)
        found = read_boxes(annotation.results, config, image_size, handed_out)
        return replace(found, drawn_instead=drawn_instead(annotation.results))

    def refusals(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        size: tuple[int, int],
        regions: Sequence[Region],
    ) -> Refusals:
        """Which of an annotation's regions were called not worth labelling."""
        config = self._config(project.label_config)
        return read_refusals(annotation.results, config, size, regions)

    def others_mask(
        self,
        pool: ToolProject,
        model_version: str,
        task_id: int,
        class_names: Sequence[str],
        size: tuple[int, int],
    ) -> np.ndarray | None:
        """What the newest prediction of that model version in a task shows; None without one."""
        found = [
            it
            for it in self._client.predictions(task_id)
            if it.get("model_version") == model_version
        ]
        if not found:
            return None
        newest = max(found, key=lambda it: it["id"])
        results = newest.get("result")
        if not isinstance(results, list):
            raise ValueError(f"prediction {newest['id']} has no list of results")
        shown = others_paint(results, class_names, size)
        for what in shown.left_out[:MOST_LOGGED]:
            logger.info("prediction %s of task %s: %s", newest["id"], task_id, what)
        return None if np.all(shown.mask == VOID) else shown.mask

    def image(self, task: ToolTask) -> bytes:
        """The bytes of a task's image file."""
        if self._watch is not None:
            self._watch(is_change=False)
        return self._fetcher.fetch(task)

    def image_kind(self, task: ToolTask) -> str:
        """Where a task's image lies, in words."""
        try:
            return self._fetcher.addresses.kind(task)
        except ValueError:
            return "malformed addresses"

    # What it changes

    def prepare(
        self,
        project: ToolProject,
        mode: str,
        regions_project_id: int | None,
        regions_uid: str | None = None,
    ) -> int | None:
        """Bring webhooks, sampling and, in crops mode, the regions project in order."""
        return self._setup.prepare(project, mode, regions_project_id, regions_uid)

    def tidy_doubles(self, project: ToolProject, regions_project_id: int) -> list[str]:
        """Delete empty doubles of a regions project; what to say of those that are not empty."""
        return self._setup.tidy_doubles(project, regions_project_id)

    def create_crop_tasks(
        self, pool: ToolProject, regions_project_id: int, crops: Sequence[Crop]
    ) -> list[ToolTask]:
        """Upload the crops' pictures and make their tasks; one task per crop, in order.

        Tasks that are there already are taken, not made again: an earlier call may have ended
        without an answer though Label Studio had made them.

        Files go to the regions project, which shows them: its config has one data key for the
        server, as uploads need, however many the pool's has.
        """
        if not crops:
            return []
        keys = [crop_key(crop_data(crop, "", "")) for crop in crops]
        made = self._made(regions_project_id)
        missing = [crop for crop, key in zip(crops, keys, strict=True) if key not in made]
        if missing:
            newest = max((task.id for task in made.values()), default=0)
            data = self._with_pictures(pool.id, regions_project_id, missing)
            try:
                self._client.import_tasks(regions_project_id, [{"data": it} for it in data])
            except LabelStudioError as error:
                made |= self._made(regions_project_id, newest)
                if not made.keys() >= set(keys):
                    raise
                logger.warning("project %s: the tasks are there: %s", regions_project_id, error)
            else:
                made |= self._made(regions_project_id, newest)
        lost = [key for key in keys if key not in made]
        if lost:
            raise LabelStudioError(
                f"Label Studio does not list {len(lost)} of the {len(crops)} tasks that it made "
                f"in project {regions_project_id}"
            )
        return [made[key] for key in keys]

    def publish_crop_predictions(
        self,
        regions_project_id: int,
        version: str,
        class_names: Sequence[str],
        predictions: Iterable[CropPrediction],
    ) -> None:
        """Store the predictions under `version`, make it the project's, drop the others."""
        config = self._config(self._client.project(regions_project_id)["label_config"])
        payloads = (
            crop_prediction(prediction, class_names, config, model_version(version))
            for prediction in predictions
        )
        self._replace_predictions(regions_project_id, model_version(version), payloads)
        self._drop_unmarked(regions_project_id)

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
                **image_prediction(suggestion, class_names, config, model_version(version)),
            }
            for suggestion in suggestions
        )
        self._replace_predictions(pool.id, model_version(version), payloads)

    def describe(self, project_id: int, line: str) -> None:
        """Keep a line about a project in its description; written only where it differs."""
        description = self._client.project(project_id).get("description")
        wanted = with_line(description, line)
        if description != wanted:
            self._client.update_project(project_id, description=wanted)

    def begun_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        """Those of the tasks in which something is saved; more in `delete_unopened_tasks`."""
        untouched = {task["id"] for task in self._client.tasks(project_id, *_UNTOUCHED)}
        others = set(task_ids) - untouched  # begun, or gone
        if not others:
            return []
        return sorted(others & {task["id"] for task in self._client.tasks(project_id)})

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

    def _made(self, regions_project_id: int, newest: int = 0) -> dict[tuple[str, ...], ToolTask]:
        """The tasks of regions that come after `newest`, by key; of equal ones the oldest."""
        later = ("id", "Number", "greater", newest)
        listed = self._client.tasks(regions_project_id, later)
        found: dict[tuple[str, ...], ToolTask] = {}
        for task in parse_tasks(listed, "image", regions_project_id):
            if isinstance(task, ToolTask):
                found.setdefault(crop_key(task.data), task)
        return found

    def _with_pictures(
        self, pool_id: int, project_id: int, crops: Sequence[Crop]
    ) -> list[dict[str, Any]]:
        """The data of each crop's task, its pictures uploaded to the project that shows them."""
        parts = [
            crops[start : start + UPLOADS_PER_CALL]
            for start in range(0, len(crops), UPLOADS_PER_CALL)
        ]
        below = self._fetcher.addresses.path_below(lambda: self._some_references(pool_id))
        with ThreadPoolExecutor(2) as threads:  # one encodes while the other's upload is stored
            uploaded = list(threads.map(lambda part: self._upload(project_id, part), parts))
        paths = [path for part in uploaded for path in part]
        return [
            crop_data(crop, below + image, below + context)
            for crop, (image, context) in zip(crops, paths, strict=True)
        ]

    def _some_references(self, project_id: int) -> list[str]:
        """Addresses of some of a project's images, as Label Studio writes them."""
        return [task.image for task in islice(self.tasks(project_id), REFERENCES_LOOKED_AT)]

    def _annotations_of(self, project_id: int, task: ToolTask, payloads: Any) -> TaskAnnotations:
        """Raises `TaskError` where it cannot be told which annotations there are."""
        if not isinstance(payloads, list) or not all(has_id(payload) for payload in payloads):
            raise TaskError(f"task {task.id} came without a list of annotations with ids")
        annotations: list[ToolAnnotation] = []
        unreadable: dict[int, str] = {}
        made = task.created_at and task.created_at.isoformat()
        place = {"id": task.id, "created_at": made}
        for payload in payloads:
            try:
                fields = {**payload, "task": place, "prediction": self._origin(payload)}
                annotations.append(parse_annotation(fields))
            except ValueError as error:
                logger.warning("project %s, task %s: %s", project_id, task.id, error)
                unreadable[payload["id"]] = str(error)
        return TaskAnnotations(task, annotations, unreadable)

    def _upload(self, project_id: int, crops: Sequence[Crop]) -> list[tuple[str, str]]:
        """Store the pictures of crops; the paths of each crop's two."""
        files = [file for crop in crops for file in crop_files(crop)]
        ids = self._client.upload_files(project_id, files, makes_tasks=False)
        paths = self._client.file_paths(project_id, ids)
        return list(zip(paths[::2], paths[1::2], strict=True))

    def _replace_predictions(
        self, project_id: int, version: str, payloads: Iterable[Mapping[str, Any]]
    ) -> None:
        """Old versions of ours go last, so that annotators always meet some prediction.

        What others have stored is none of ours: it is left alone, with or without a model version.
        """
        if self._client.model_versions(project_id).get(version):
            self._client.delete_predictions(project_id, version)
        num_sent = 0
        with ThreadPoolExecutor(1) as sender:  # the next part is encoded while one is stored
            sending: Future[None] | None = None
            for part in batches(payloads):
                if sending is not None:
                    sending.result()
                sending = sender.submit(self._client.import_predictions, project_id, part)
                num_sent += len(part)
            if sending is not None:
                sending.result()
        stored = self._client.model_versions(project_id)
        if stored.get(version, 0) > num_sent:
            raise LabelStudioError(
                f"project {project_id} has {stored[version]} predictions of {version}, {num_sent} "
                "were sent: Label Studio stored some twice; they are sent again"
            )
        if num_sent:
            keep_settings(self._client, project_id, {"model_version": version})
        for other in stored:
            if other != version and is_ours(other):
                self._client.delete_predictions(project_id, other)

    def _drop_unmarked(self, regions_project_id: int) -> None:
        """In a regions project: those of before predictions carried a mark of ours."""
        for version in self._client.model_versions(regions_project_id):
            if re.fullmatch(r"v[0-9]{1,9}", version):
                self._client.delete_predictions(regions_project_id, version)

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
