from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.datasets import Dataset, write_dataset
from ralis_backend.offline.training.sources import digest, regions_of
from ralis_backend.offline.training.trainer import Equipment


def test_every_dataset_gives_the_regions_of_one_split(tiny_dataset, tmp_path):
    told: list[str] = []
    equipment = Equipment(tmp_path, SegmenterSpec(3, encoder_weights=None), report=told.append)
    found = regions_of([tiny_dataset], "d_t", (32, 32), equipment)
    assert list(found) == [tiny_dataset.name]
    source = found[tiny_dataset.name]
    assert len(source) == 30
    assert told
    again = regions_of([tiny_dataset], "d_t", (32, 32), equipment)[tiny_dataset.name]
    assert digest(again) == digest(source)
    other = replace(source, class_pixels=np.roll(source.class_pixels, 1, axis=0))
    assert digest(other) != digest(source)


def _copied(dataset: Dataset, root: Path) -> Dataset:
    entries = [
        (split, key, dataset.samples[key].image(), dataset.samples[key].mask())
        for split, keys in dataset.splits.items()
        for key in keys
    ]
    write_dataset(root, dataset.classes, entries)
    return Dataset.open(root)


def test_datasets_of_one_name_are_refused_before_any_is_read(tiny_dataset, tmp_path):
    other = _copied(tiny_dataset, tmp_path / "other" / tiny_dataset.name)
    with pytest.raises(ValueError, match=r"other/tiny are both named 'tiny'.*rename one"):
        regions_of([tiny_dataset, other], "d_t", (32, 32), Equipment(tmp_path / "cache"))
