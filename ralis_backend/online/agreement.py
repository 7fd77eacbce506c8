"""Masks that several people painted of the same regions -> how far they agree.

Pixels that both painted are compared. Cohen's kappa is the share of pixels with the same class,
corrected for what would agree by chance: J. Cohen, "A Coefficient of Agreement for Nominal Scales",
Educational and Psychological Measurement 20 (1960). A class's IoU is the intersection of both
people's masks over their union, which is the same whoever comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ralis_backend.core.metrics import confusion_matrix, ious
from ralis_backend.core.regions import VOID
from ralis_backend.online.labels import RegionLabel


@dataclass(frozen=True)
class Comparison:
    """One region as two people painted it.

    first, second: their labels, by name of the annotator.
    matrix: (C, C) int64, how often each class of the first met each of the second.
    """

    first: RegionLabel
    second: RegionLabel
    matrix: np.ndarray

    @property
    def annotators(self) -> tuple[str, str]:
        """Both names, the first in the alphabet first."""
        return self.first.annotator, self.second.annotator


def by_region(labels: Iterable[RegionLabel]) -> list[list[RegionLabel]]:
    """The painted labels of each region that several people painted, each person's newest.

    Args:
        labels: oldest first.
    """
    found: dict[object, dict[str, RegionLabel]] = defaultdict(dict)
    for label in labels:
        if label.is_closing and not label.is_skipped:
            found[label.image_id, label.region][label.annotator] = label
    return [list(people.values()) for people in found.values() if len(people) > 1]


def compare(
    groups: Iterable[Sequence[RegionLabel]],
    mask: Callable[[RegionLabel], np.ndarray | None],
    num_classes: int,
) -> Iterator[Comparison]:
    """Each two people's masks of each region.

    Args:
        groups: of each region one label a person.
        mask: gives a label's (height, width) uint8 mask; None: it cannot be read and is left out.
        num_classes: C.
    """
    for group in groups:
        labels = sorted(group, key=lambda label: label.annotator)
        masks = {label.id: mask(label) for label in labels}
        for first, second in combinations(labels, 2):
            one, other = masks[first.id], masks[second.id]
            if one is not None and other is not None:
                matrix = confusion_matrix(other, np.where(other == VOID, other, one), num_classes)
                yield Comparison(first, second, matrix)


def summary(comparisons: Iterable[Comparison], class_names: Sequence[str]) -> dict[str, Any]:
    """JSON values of all comparisons together, and of each two people; empty without any.

    Returns:
        `regions`, `pixels`, `pixel_agreement`, `kappa`, `iou` by class name (None where neither
        painted it), and `pairs`: the same with `annotators`.
    """
    by_pair: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for each in comparisons:
        by_pair[each.annotators].append(each)
    if not by_pair:
        return {}
    every = [each for pair in by_pair.values() for each in pair]
    pairs = [
        {"annotators": list(names), **_figures(found, class_names)}
        for names, found in sorted(by_pair.items())
    ]
    return {**_figures(every, class_names), "pairs": pairs}


def scores(matrix: np.ndarray) -> tuple[float, float]:
    """Share of pixels with the same class, and Cohen's kappa; NaN where they are not defined."""
    pixels = matrix.sum()
    if not pixels:
        return float("nan"), float("nan")
    observed = float(np.trace(matrix) / pixels)
    expected = float(matrix.sum(axis=0) @ matrix.sum(axis=1) / pixels**2)
    return observed, float("nan") if expected == 1 else (observed - expected) / (1 - expected)


def lines(found: Mapping[str, Any]) -> list[str]:
    """A summary in words; empty without comparisons."""
    if not found:
        return []
    classes = [
        f"{name} {100 * value:.0f}" for name, value in found["iou"].items() if value is not None
    ]
    said = [f"people who painted the same region: {_words(found)}; IoU in %: {', '.join(classes)}"]
    if len(found["pairs"]) > 1:
        said += [f"{' and '.join(pair['annotators'])}: {_words(pair)}" for pair in found["pairs"]]
    return said


def _figures(found: Sequence[Comparison], class_names: Sequence[str]) -> dict[str, Any]:
    matrix = np.sum([each.matrix for each in found], axis=0)
    observed, kappa = scores(matrix)
    regions = {(each.first.image_id, each.first.region) for each in found}
    return {
        "regions": len(regions),
        "pixels": int(matrix.sum()),
        "pixel_agreement": _rounded(observed),
        "kappa": _rounded(kappa),
        "iou": {
            name: _rounded(value) for name, value in zip(class_names, ious(matrix), strict=True)
        },
    }


def _words(found: Mapping[str, Any]) -> str:
    regions = f"{found['regions']} region{'' if found['regions'] == 1 else 's'}"
    if found["pixel_agreement"] is None:
        return f"{regions}, without a pixel that both painted"
    kappa = "not defined" if found["kappa"] is None else f"{found['kappa']:.2f}"
    agree = f"{100 * found['pixel_agreement']:.1f} % of the pixels alike"
    return f"{agree}, kappa {kappa}, {regions}"


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def people_notes(people: Mapping[str, Any]) -> list[str]:
    """How far annotators agree, and what they left that counts for less than it seems.

    Args:
        people: figures of a project, as the worker keeps them with it.
    """
    found = lines(people.get("agreement") or {})
    if count := people.get("bulk_annotations"):
        found.append(
            f"made from predictions in bulk, and nobody's labels until somebody updates or stars "
            f"them: {count} annotation{'' if count == 1 else 's'}"
        )
    if count := people.get("double_images"):
        found.append(
            f"showing a picture that another task shows as well, whose regions are asked once: "
            f"{count} task{'' if count == 1 else 's'}"
        )
    return found
