"""Label Studio's webhooks -> what of them is stored for the worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def event_payload(data: Mapping[str, Any]) -> dict[str, Any]:
    """A webhook without what the worker does not read: settings, copies of predictions, task data.

    The parent prediction is sent with every annotation, brush data and all; its model version is
    enough. Of many tasks only ids and creation times are kept.
    """
    payload = {name: value for name, value in data.items() if name not in ("action", "project")}
    if isinstance(project := data.get("project"), Mapping):
        payload["project"] = _only(project, ("id", "created_at"))
    if isinstance(task := payload.get("task"), Mapping):
        payload["task"] = {
            name: value
            for name, value in task.items()
            if name not in ("annotations", "predictions")
        }
    if isinstance(tasks := payload.get("tasks"), list):
        payload["tasks"] = [
            _only(task, ("id", "created_at")) if isinstance(task, Mapping) else task
            for task in tasks
        ]
    for name in ("annotation", "annotations"):
        if name in payload:
            payload[name] = _without_prediction_results(payload[name])
    return payload


def _without_prediction_results(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_prediction_results(entry) for entry in value]
    if not isinstance(value, Mapping) or not isinstance(value.get("prediction"), Mapping):
        return value
    prediction = {name: item for name, item in value["prediction"].items() if name != "result"}
    return {**value, "prediction": prediction}


def _only(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
