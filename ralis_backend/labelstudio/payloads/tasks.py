"""Label Studio's tasks, projects and times, from the API or a request -> `ToolTask`, uid, datetime.

And back: what a region's own task holds and shows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np

from ralis_backend.core.text import storable
from ralis_backend.online.tool import MAX_ID, Crop, ToolTask, is_id

UNNAMED_KEY = "$undefined$"
"""The data key of files that were uploaded before the project had a label config."""
DATA_DIGEST = "data:sha256,"
_UID = re.compile(r"[0-9]{1,19}(\.[0-9]{1,19})?")
_COUNTS = ("total_annotations", "cancelled_annotations")
CROP_QUALITY = 95
CONTEXT_QUALITY = 85
_CROP_KEY = (
    "source_task",
    "source_created_at",
    "row",
    "col",
    "height",
    "width",
    "round",
    "version",
)


class TaskError(ValueError):
    """A task that cannot be read; the message names it and says what is wrong.

    task: as far as it can be told, without an image; None if not even its id can.
    """

    def __init__(self, message: str, task: ToolTask | None = None) -> None:
        super().__init__(message)
        self.task = task


def parse_task(payload: Any, image_key: str, project_id: int | None = None) -> ToolTask:
    """A task as Label Studio writes it.

    Args:
        payload: the task's JSON.
        image_key: the key of its data that the label config shows.
        project_id: of its project; None: as the JSON says.

    Returns:
        The task; its `image` is empty where the data has no text under the key.

    Raises:
        TaskError: if the id, the data or the time is malformed.
    """
    if not has_id(payload):
        raise TaskError("the task is no JSON object with a numeric id")
    data = payload.get("data")
    if not isinstance(data, Mapping):
        raise TaskError(f"task {payload['id']} has no data: expected an object under 'data'")
    image = data.get(image_key) or data.get(UNNAMED_KEY)
    return ToolTask(
        id=payload["id"],
        created_at=_created_at(payload),
        image=_reference(image) if isinstance(image, str) else "",
        data=data,
        project_id=_project_id(payload) if project_id is None else project_id,
        num_annotations=count_of(payload, *_COUNTS) or 0,
        changed_at=_changed_at(payload),
        state=_state(payload),
    )


def data_reference(image: str) -> str:
    """What stands for an image that is in its task itself: `data:sha256,<digest>`."""
    digest = hashlib.sha256(image.encode(errors="surrogatepass")).hexdigest()
    return f"{DATA_DIGEST}{digest}"


def _reference(image: str) -> str:
    """An image's address, for the database: one that is the image itself stays in the tool."""
    return data_reference(image) if image[:5].lower() == "data:" else storable(image)


def parse_tasks(
    payloads: Iterable[Any], image_key: str, project_id: int | None = None
) -> Iterator[ToolTask | TaskError]:
    """Each task, or why it cannot be read, in order: one that is malformed costs no other."""
    for place, payload in enumerate(payloads, start=1):
        try:
            yield parse_task(payload, image_key, project_id)
        except TaskError as error:
            known = _as_far_as_known(payload, project_id)
            yield TaskError(f"task number {place} of the list: {error}", known)


def _as_far_as_known(payload: Any, project_id: int | None) -> ToolTask | None:
    if not has_id(payload):
        return None
    try:
        created_at = _created_at(payload)
    except TaskError:
        created_at = None
    num_annotations = count_of(payload, *_COUNTS) or 0
    return ToolTask(
        payload["id"], created_at, "", project_id=project_id, num_annotations=num_annotations
    )


def project_uid(project: Any) -> str:
    """`<id>.<unix seconds of creation>`, as Label Studio itself names projects to backends.

    Args:
        project: the uid itself, or the project's JSON with `id` and `created_at`.

    Raises:
        ValueError: if it is neither.
    """
    uid = project
    if isinstance(project, Mapping) and is_id(project.get("id")):
        created_at = project.get("created_at")
        if isinstance(created_at, str):
            uid = f"{project['id']}.{int(parse_time(created_at).timestamp())}"
    if isinstance(uid, str) and _UID.fullmatch(uid) and int(uid.partition(".")[0]) <= MAX_ID:
        return uid
    raise ValueError(
        "the JSON names no project: expected under 'project' its '<id>.<creation time>', or an "
        "object with id and created_at"
    )


def parse_time(text: str) -> datetime:
    """An ISO 8601 time; UTC where it names no zone.

    Raises:
        ValueError: if it is none.
    """
    try:
        parsed = datetime.fromisoformat(text)
        # the first and the last day do not exist in every zone
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:40]!r} is no time; expected one such as 2025-01-31T12:00:00Z"
        ) from None


def has_id(payload: Any) -> bool:
    """Whether this is a JSON object with a numeric id."""
    return isinstance(payload, Mapping) and is_id(payload.get("id"))


def utc_text(moment: datetime) -> str:
    """A time as Label Studio's filters read it: its offset could be taken for a space."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def count_of(payload: Mapping[str, Any], *names: str) -> int | None:
    """The sum of counts; None if one of them is not told."""
    counts: list[int] = []
    for name in names:
        count = payload.get(name)
        if not isinstance(count, int) or count < 0:
            return None
        counts.append(count)
    return sum(counts)


def crop_data(crop: Crop, image: str, context: str) -> dict[str, Any]:
    """The data of a region's task; `image` and `context` are the addresses of its pictures."""
    region = crop.region
    reason = f" · {crop.reason}" if crop.reason else ""
    last = f" of {crop.num_in_round}" if crop.num_in_round >= crop.rank else ""
    return {
        "image": image,
        "context": context,
        "note": f"Round {crop.round} · region {crop.rank}{last}{reason}",
        "source_task": crop.source_task,
        "source_created_at": crop.source_created_at and utc_text(crop.source_created_at),
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


def crop_key(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells the tasks of regions apart, of a task's data: the same crop has the same key."""
    return tuple(str(data.get(name))[:100] for name in _CROP_KEY)


def crop_files(crop: Crop) -> list[tuple[str, bytes]]:
    """The pictures of a region's task as names and JPEG files: the region, its context."""
    region = crop.region
    name = f"task{crop.source_task}-row{region.row}-col{region.col}"
    return [
        (f"{name}.jpg", _jpeg(crop.image, CROP_QUALITY)),
        (f"{name}-context.jpg", _jpeg(crop.context, CONTEXT_QUALITY)),
    ]


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    is_encoded, content = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)
    if not is_encoded:
        raise ValueError(f"a picture of shape {picture.shape} could not be encoded as JPEG")
    return content.tobytes()


def _created_at(payload: Mapping[str, Any]) -> datetime | None:
    value = payload.get("created_at")
    if value is None:
        return None
    try:
        return parse_time(str(value))
    except ValueError as error:
        raise TaskError(f"task {payload['id']}: created_at: {error}") from None


def _project_id(payload: Mapping[str, Any]) -> int | None:
    value = payload.get("project")
    return value if is_id(value) else None


def _changed_at(payload: Mapping[str, Any]) -> datetime | None:
    try:
        return parse_time(str(payload.get("updated_at")))
    except ValueError:
        return None


def _state(payload: Mapping[str, Any]) -> str:
    """Label Studio dates a task anew with each change of its annotations, and counts them."""
    if not payload.get("updated_at"):
        return ""
    said = [payload.get(name) for name in ("created_at", "updated_at", *_COUNTS)]
    return hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()
