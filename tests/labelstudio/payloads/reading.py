"""What annotations say when nothing of them may be left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads.boxes import read_boxes, read_refusals
from ralis_backend.labelstudio.payloads.label_config import LabelConfig
from ralis_backend.labelstudio.payloads.paint import read_paint
from ralis_backend.online.tool import Refusals


def results_to_mask(results: Any, *values: Any, **options: Any) -> np.ndarray:
    """The mask of results that can all be read."""
    painted = read_paint(results, *values, **options)
    assert painted.left_out == ()
    return painted.mask


def region_boxes(results: Any, config: LabelConfig, size: tuple[int, int]) -> list[Region]:
    """The regions of results that can all be read."""
    found = read_boxes(results, config, size)
    assert found.left_out == ()
    return list(found.regions)


def refusals(results: Any, config: LabelConfig, size: tuple[int, int]) -> Refusals:
    """What of the regions that an annotation carries was refused."""
    return read_refusals(results, config, size, read_boxes(results, config, size).regions)


def is_refused(results: Any, config: LabelConfig, size: tuple[int, int]) -> bool:
    """Whether a region's task was refused."""
    return bool(read_refusals(results, config, size, [Region(0, 0, *size)]).refused)
