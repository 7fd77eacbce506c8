"""Label Studio's annotations, from a webhook or the API -> `ToolAnnotation`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ralis_backend.core.text import storable
from ralis_backend.labelstudio.payloads.predictions import is_ours, version_of
from ralis_backend.labelstudio.payloads.results import shown
from ralis_backend.labelstudio.payloads.tasks import parse_time
from ralis_backend.online.tool import ToolAnnotation, is_id

MAX_ANNOTATOR = 320
"""The longest e-mail address."""


def parse_annotation(payload: Mapping[str, Any]) -> ToolAnnotation:
    """An annotation as Label Studio writes it; its results are looked at when they are read.

    Args:
        payload: the annotation's JSON; `task` is the task's id (webhooks) or the whole task (API),
            `prediction` or `parent_prediction` what it started from, if known, or
            `parent_annotation`, where it is a duplicate.

    Raises:
        ValueError: naming the field that is missing or malformed.
    """
    if not isinstance(payload, Mapping):
        raise ValueError(f"the annotation is a {type(payload).__name__}, expected an object")
    results = payload.get("result")
    if not isinstance(results, list):
        results = [results]  # one that cannot be read, and is named as the others are
    task = payload.get("task")
    task_fields = task if isinstance(task, Mapping) else {"id": task}
    created_at = _time(payload, "created_at")
    begun_from = _begun_from(payload)
    return ToolAnnotation(
        id=_integer(payload, "id"),
        task_id=_integer(task_fields, "id"),
        task_created_at=_time(task_fields, "created_at") if task_fields.get("created_at") else None,
        annotator=_annotator(payload.get("completed_by")),
        created_at=created_at,
        updated_at=_time(payload, "updated_at") if payload.get("updated_at") else created_at,
        lead_time_s=_lead_time(payload.get("lead_time")),
        is_skipped=bool(payload.get("was_cancelled")),
        results=results,
        suggested_version=version_of(begun_from),
        is_starred=payload.get("ground_truth") is True,
        is_machine=_is_machine(payload),
        copied_from=_copied_from(payload.get("parent_annotation")),
        is_of_others=begun_from is not None and not is_ours(begun_from),
    )


def _time(payload: Mapping[str, Any], name: str) -> datetime:
    value = payload.get(name)
    try:
        if isinstance(value, str):
            return parse_time(value)
    except ValueError:
        pass
    raise ValueError(
        f"annotation or task {shown(payload.get('id'))}: {name} is {shown(value)}, expected a time "
        "such as 2025-01-31T12:00:00Z"
    )


def _integer(payload: Mapping[str, Any], name: str) -> int:
    value = payload.get(name)
    if not isinstance(value, int) or not is_id(value):
        raise ValueError(f"annotation or task: {name} is {shown(value)}, expected an id")
    return value


def _annotator(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    return "" if value is None else storable(str(value)[:MAX_ANNOTATOR])


def _is_machine(payload: Mapping[str, Any]) -> bool:
    """Whether "Create annotations from predictions" wrote it, and nobody has touched it since.

    Such an annotation names its prediction and nothing that a person leaves: no time, no star, no
    skip, nobody who updated it (whoever submits an annotation is named there, too).
    """
    return (
        payload.get("parent_prediction") is not None
        and not _lead_time(payload.get("lead_time"))
        and payload.get("updated_by") is None
        and not payload.get("ground_truth")
        and not payload.get("was_cancelled")
    )


def _copied_from(value: Any) -> int | None:
    return value if isinstance(value, int) and is_id(value) else None


def _lead_time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _begun_from(payload: Mapping[str, Any]) -> str | None:
    """The model version of the prediction that an annotation names; None: it names none."""
    for name in ("prediction", "parent_prediction"):
        prediction = payload.get(name)
        if isinstance(prediction, Mapping):
            version = prediction.get("model_version")
            if isinstance(version, str) and version:
                return version
    return None
