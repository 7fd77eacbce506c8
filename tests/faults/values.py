"""The labelling tool's values as JSON and back, for what a process that is killed leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.online.tool import (
    ClassLabel,
    CropPrediction,
    ImageSuggestion,
    SuggestedRegion,
    ToolAnnotation,
    ToolProject,
    ToolTask,
)

RECORDS = (
    ClassLabel,
    CropPrediction,
    ImageSuggestion,
    Region,
    SuggestedRegion,
    ToolAnnotation,
    ToolProject,
    ToolTask,
)

_MAKE: dict[str, Callable[[Any], Any]] = {
    "mapping": dict,
    "mask": lambda rows: np.array(rows, np.uint8),
    "moment": datetime.fromisoformat,
    "set": set,
    "tuple": tuple,
    **{record.__name__: lambda given, record=record: record(**dict(given)) for record in RECORDS},
}


def dumps(value: Any) -> bytes:
    """Lists and plain values as JSON has them, all others as `{their kind: what they hold}`."""
    return json.dumps(_plain(value)).encode()


def loads(content: bytes) -> Any:
    """What `dumps` was given."""
    return json.loads(content, object_pairs_hook=_made)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {"mapping": [[_plain(key), _plain(each)] for key, each in value.items()]}
    if isinstance(value, (set, tuple)):
        return {type(value).__name__: [_plain(each) for each in value]}
    if isinstance(value, np.ndarray):
        return {"mask": value.tolist()}
    if isinstance(value, datetime):
        return {"moment": value.isoformat()}
    if is_dataclass(value):
        held = [[it.name, _plain(getattr(value, it.name))] for it in fields(value)]
        return {type(value).__name__: held}
    raise TypeError(f"a {type(value).__name__} has no form in JSON here; add it to RECORDS")


def _made(pairs: list[tuple[str, Any]]) -> Any:
    ((kind, held),) = pairs
    return _MAKE[kind](held)
