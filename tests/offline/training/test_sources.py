from __future__ import annotations

from dataclasses import replace

import numpy as np

from ralis_backend.core.segmenter import SegmenterSpec
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
