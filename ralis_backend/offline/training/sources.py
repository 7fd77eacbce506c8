"""Fully labelled datasets -> regions as the fast simulation sees them, to train policies on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.trainer import Equipment
from ralis_backend.simulation.points import RegionPoints


def regions_of(
    datasets: Sequence[Dataset], split: str, region_size: tuple[int, int], equipment: Equipment
) -> dict[str, RegionPoints]:
    """The regions of one split of each dataset, by name; features are computed where not cached.

    Raises:
        ValueError: if two datasets have one name, or an image is smaller than a region.
    """
    _check_names(datasets)
    return {
        dataset.name: PointFeatures(
            dataset,
            region_size,
            equipment.cache,
            spec=equipment.spec,
            device=equipment.device,
            report=equipment.report,
        ).split(split)
        for dataset in datasets
    }


def digest(source: RegionPoints) -> str:
    """Sixteen characters that tell the regions of one dataset from another's."""
    content = source.class_pixels.tobytes() + source.embeddings.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _check_names(datasets: Sequence[Dataset]) -> None:
    folders: dict[str, str] = {}
    for dataset in datasets:
        if dataset.name in folders:
            raise ValueError(
                f"{folders[dataset.name]} and {dataset.root} are both named '{dataset.name}', and "
                "a policy tells its datasets apart by their folders' names; rename one of the "
                "folders"
            )
        folders[dataset.name] = str(dataset.root)
