"""How far people agree on the regions that several of them painted, one row a region and pair."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ralis_backend.core.metrics import ious
from ralis_backend.online.agreement import Comparison, by_region, compare, scores
from ralis_backend.online.export.cells import inert
from ralis_backend.online.export.labelled_images import LabelledImages
from ralis_backend.online.labels import RegionLabel

AGREEMENT_COLUMNS = (
    "image", "row", "col", "height", "width", "annotator", "other_annotator", "pixels",
    "pixel_agreement", "kappa",
)  # fmt: skip
"""Followed by `iou <class>` for each class."""


def write_agreement(path: Path, labelled: LabelledImages, labels: Iterable[RegionLabel]) -> None:
    """Write the file where any region was painted by several people, and none otherwise."""
    names = [label.name for label in labelled.classes]
    shown = [it for it in labels if it.image_id in labelled.keys]
    rows = [
        _row(labelled.keys[found.first.image_id], found)
        for found in compare(by_region(shown), labelled.patch, len(names))
        if found.first.image_id not in labelled.left_out
    ]
    if not rows:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow([*AGREEMENT_COLUMNS, *(inert(f"iou {name}") for name in names)])
        writer.writerows(rows)


def _row(image: str, found: Comparison) -> Sequence[object]:
    region = found.first.region
    return [
        image, region.row, region.col, region.height, region.width,
        *map(inert, found.annotators), int(found.matrix.sum()),
        *map(_cell, (*scores(found.matrix), *ious(found.matrix))),
    ]  # fmt: skip


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
