"""Fully labelled datasets -> regions as the fast simulation sees them, to train policies on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.rewards import SCORED_CLASSES
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
        dataset.name: replace(
            PointFeatures(
                dataset,
                region_size,
                equipment.cache,
                spec=equipment.spec,
                device=equipment.device,
                report=equipment.report,
            ).split(split),
            background=dataset.background,
        )
        for dataset in datasets
    }


def digest(source: RegionPoints) -> str:
    """Sixteen characters that tell regions from others of which a game may be another."""
    facts = (source.region_size, source.lattice, source.background, source.removed_classes)
    content = hashlib.sha256(json.dumps(facts).encode())
    tensors = (source.points.features, source.points.labels, source.mirrored)
    for tensor in (each for each in tensors if each is not None):
        content.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    for array in (source.embeddings, source.class_pixels, source.image_index, source.places):
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()[:16]


def games_facts(sources: Mapping[str, RegionPoints]) -> dict[str, Any]:
    """What the scores of games of these depend on, as JSON: their regions, and what is scored."""
    backgrounds = {
        name: each.background for name, each in sources.items() if each.background is not None
    }
    return {
        "datasets": {name: digest(source) for name, source in sources.items()},
        "scored_classes": SCORED_CLASSES,
        **({"backgrounds": backgrounds} if backgrounds else {}),
    }


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
