"""Label Studio as the worker sees it: implements `online.tool.Tool` with client and payloads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.client import (
    File,
    Filter,
    LabelStudioClient,
    NotFound,
)
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.payloads.annotations import (
    annotated_regions,
    decode_annotation,
    parse_annotation,
    parse_time,
)
from ralis_backend.labelstudio.payloads.answers import read_answers
from ralis_backend.labelstudio.payloads.label_config import (
    REGION_LABEL,
    LabelConfig,
    parse_label_config,
    regions_config,
)
from ralis_backend.labelstudio.payloads.predictions import crop_prediction, image_prediction
from ralis_backend.online.tool import (
    Crop,
    CropPrediction,
    ImageSuggestion,
    ToolAnnotation,
    ToolProject,
    ToolTask,
)

logger = logging.getLogger(__name__)

BACKEND_TITLE = "RALIS"
MARKER = "ralis:pool="
"""Stands in a regions project's description, so that it is found again by its pool's uid."""

LEAST_USEFUL_FIRST = {
    "sampling": "Uncertainty sampling",
    "show_collab_predictions": True,
    "evaluate_predictions_automatically": False,
}
UPLOADS_PER_CALL = 25
"""Crops of two files each: Label Studio takes 100 files in a request."""
PREDICTIONS_PER_CALL = 200
NUMBERS_PER_CALL = 8_000_000
"""Of brush RLE, up to five bytes of JSON each: Label Studio takes 250 MB in a request."""
DELETIONS_PER_CALL = 500
CROP_QUALITY = 95
CONTEXT_QUALITY = 85


class LabelStudioTool:
    """One Label Studio server.

    Args:
        client: its API.
        fetcher: reads image files.
        backend_url: where Label Studio reaches the backend; None: where it is connected.
        user, password: what Label Studio sends to the backend as basic auth.
        webhook_headers: sent with each webhook, since Label Studio leaves its basic auth out there.
        region_label: names the rectangles of suggested regions.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        fetcher: ImageFetcher,
        *,
        backend_url: str | None = None,
        user: str | None = None,
        password: str | None = None,
        webhook_headers: Mapping[str, str] | None = None,
        region_label: str = REGION_LABEL,
    ) -> None:
        self._client = client
        self._fetcher = fetcher
        self._backend_url = backend_url.rstrip("/") if backend_url else None
        self._credentials = (user, password) if user and password else None
        self._webhook_headers = dict(webhook_headers or {})
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
        for task in self._client.tasks(project_id):
            yield _tool_task(task, key)

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

    # What it sets up

    def connect(self, project_id: int, mode: str) -> ToolProject:
        """Prepare a project and make this backend its ML backend; safe to repeat.

        Raises:
            LabelStudioError: saying what to do, where Label Studio refuses the backend's address
                or credentials.
            ValueError: if there is no backend address, or the label config cannot be used.
        """
        if self._backend_url is None:
            raise ValueError(
                "the backend's own address is not known; set RALIS_BACKEND_URL to where Label "
                "Studio reaches it, for example http://localhost:9090"
            )
        project = self.project(project_id)
        self._connect_backend(project, self._backend_url)
        self.prepare(project, mode, None)
        return project

    def prepare(
        self, project: ToolProject, mode: str, regions_project_id: int | None
    ) -> int | None:
        """Bring webhooks, sampling and, in crops mode, the regions project in order."""
        address = self.address(project.id)
        self._keep_webhook(project.id, address)
        if mode != "crops":
            self._keep_settings(project.id, LEAST_USEFUL_FIRST)
            return None
        regions_id = self._regions_project(project, regions_project_id)
        self._keep_webhook(regions_id, address)
        return regions_id

    def address(self, project_id: int) -> str | None:
        """Where Label Studio reaches this backend: as set, or as connected to the pool project.

        None where that cannot be told; labels then come with the next full reading only.
        """
        if self._backend_url is not None:
            return self._backend_url
        backends = self._client.backends(project_id)
        ours = [it for it in backends if it["title"] == BACKEND_TITLE] or backends
        addresses = {str(it["url"]).rstrip("/") for it in ours}
        if len(addresses) == 1:
            return addresses.pop()
        logger.warning(
            "project %s has %d ML backends; set RALIS_BACKEND_URL to the address of this one",
            project_id,
            len(addresses),
        )
        return None

    def _connect_backend(self, project: ToolProject, url: str) -> None:
        settings: dict[str, Any] = {"title": BACKEND_TITLE, "auth_method": "NONE"}
        if self._credentials:
            user, password = self._credentials
            settings.update(
                auth_method="BASIC_AUTH", basic_auth_user=user, basic_auth_pass=password
            )
        known = [it for it in self._client.backends(project.id) if same_url(it["url"], url)]
        if known:
            self._client.update_backend(known[0]["id"], project.id, url, **settings)
        else:
            self._client.create_backend(project.id, url, **settings)

    def _keep_webhook(self, project_id: int, address: str | None) -> None:
        """Exactly one webhook to this backend, for all actions, with our header."""
        if address is None:
            return
        url = f"{address}/webhook"
        hooks = [it for it in self._client.webhooks(project_id) if same_url(it["url"], url)]
        if not hooks:
            self._client.create_webhook(project_id, url, self._webhook_headers)
            return
        hook = hooks[0]
        is_right = (
            hook.get("is_active")
            and hook.get("send_payload")
            and hook.get("send_for_all_actions")
            and dict(hook.get("headers") or {}) == self._webhook_headers
        )
        if not is_right:
            self._client.update_webhook(hook["id"], url, self._webhook_headers)
        for extra in hooks[1:]:
            self._client.delete_webhook(extra["id"])

    def _keep_settings(self, project_id: int, wanted: Mapping[str, Any]) -> None:
        project = self._client.project(project_id)
        changes = {name: value for name, value in wanted.items() if project.get(name) != value}
        if changes:
            self._client.update_project(project_id, **changes)

    def _regions_project(self, pool: ToolProject, regions_project_id: int | None) -> int:
        marker = f"{MARKER}{pool.uid}"
        config = regions_config(self._config(pool.label_config))
        found = self._find_regions_project(marker, regions_project_id)
        if found is None:
            made = self._client.create_project(
                f"{pool.title[:40]} · regions",
                config,
                description=f"Suggested regions of project {pool.id}, kept by RALIS. {marker}",
                **LEAST_USEFUL_FIRST,
            )
            return int(made["id"])
        regions_id = int(found["id"])
        self._keep_settings(regions_id, LEAST_USEFUL_FIRST)
        if self._config(found["label_config"]).labels != self._config(config).labels:
            # Label Studio accepts it when a label goes that annotations still use.
            self._client.update_project(regions_id, label_config=config)
        return regions_id

    def _find_regions_project(self, marker: str, project_id: int | None) -> dict[str, Any] | None:
        if project_id is not None:
            try:
                found = self._client.project(project_id)
            except NotFound:
                found = {}
            if marker in str(found.get("description")):
                return found
        for found in self._client.projects():
            if marker in str(found.get("description")):
                return found
        return None

    # What it publishes

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
            _crop_data(crop, image, context)
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
        suggestions: Sequence[ImageSuggestion],
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
        files = [file for crop in crops for file in _files(crop)]
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
            for part in _batches(payloads):
                if sending is not None:
                    sending.result()
                sending = sender.submit(self._client.import_predictions, project_id, part)
                has_any = True
            if sending is not None:
                sending.result()
        if has_any:
            self._keep_settings(project_id, {"model_version": version})
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
        return _parsed(xml, self._region_label)


def project_uid(project: Mapping[str, Any]) -> str:
    """`<id>.<unix seconds of creation>`, as Label Studio itself names projects to backends."""
    return f"{project['id']}.{int(parse_time(project['created_at']).timestamp())}"


@lru_cache(maxsize=64)
def _parsed(xml: str, region_label: str) -> LabelConfig:
    return parse_label_config(xml, region_label)


def _batches(payloads: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Predictions, as many per call as Label Studio takes, made when their turn comes."""
    part: list[Mapping[str, Any]] = []
    num_numbers = 0
    for payload in payloads:
        part.append(payload)
        num_numbers += sum(len(it["value"].get("rle", ())) for it in payload["result"])
        if len(part) == PREDICTIONS_PER_CALL or num_numbers > NUMBERS_PER_CALL:
            yield part
            part, num_numbers = [], 0
    if part:
        yield part


def _tool_task(task: Mapping[str, Any], image_key: str) -> ToolTask:
    data = task["data"]
    image = data.get(image_key) or data.get("$undefined$") or ""
    return ToolTask(int(task["id"]), parse_time(task["created_at"]), str(image), data)


_UNTOUCHED: tuple[Filter, ...] = (
    ("draft_exists", "Boolean", "equal", False),
    ("total_annotations", "Number", "equal", 0),
    ("cancelled_annotations", "Number", "equal", 0),
)


def _files(crop: Crop) -> tuple[File, File]:
    region = crop.region
    name = f"task{crop.source_task}-row{region.row}-col{region.col}"
    return (
        (f"{name}.jpg", _jpeg(crop.image, CROP_QUALITY)),
        (f"{name}-context.jpg", _jpeg(crop.context, CONTEXT_QUALITY)),
    )


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    is_encoded, content = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)
    if not is_encoded:
        raise ValueError(f"a picture of shape {picture.shape} could not be encoded as JPEG")
    return content.tobytes()


def _crop_data(crop: Crop, image: str, context: str) -> dict[str, Any]:
    region = crop.region
    reason = f" · {crop.reason}" if crop.reason else ""
    return {
        "image": image,
        "context": context,
        "note": f"Round {crop.round} · region {crop.rank}{reason}",
        "source_task": crop.source_task,
        "row": region.row,
        "col": region.col,
        "height": region.height,
        "width": region.width,
        "scale": crop.scale,
        "round": crop.round,
        "rank": crop.rank,
        "reason": crop.reason,
        "strategy": crop.strategy,
        "version": crop.version,
    }


def same_url(left: str, right: str) -> bool:
    """Whether two addresses are the same but for credentials and a trailing slash."""
    return _bare(left) == _bare(right)


def _bare(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}".rstrip("/")
