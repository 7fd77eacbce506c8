from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.datasets import Dataset, write_dataset
from ralis_backend.offline.training.sources import digest, games_facts, regions_of
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
    assert games_facts({"a": source}) == {
        "datasets": {"a": digest(source)}, "scored_classes": "shown",
    }  # fmt: skip
    ground, *others = tiny_dataset.classes
    dataset = replace(tiny_dataset, classes=(replace(ground, is_background=True), *others))
    with_background = regions_of([dataset], "d_t", (32, 32), equipment)
    assert with_background["tiny"].background == 0
    assert games_facts(with_background)["backgrounds"] == {"tiny": 0}


def test_regions_of_which_a_game_may_be_another_are_told_apart(source):
    points = source.points
    others = [
        source,
        replace(source, class_pixels=np.roll(source.class_pixels, 1, axis=0)),
        replace(source, embeddings=2 * source.embeddings),
        replace(source, points=replace(points, features=2 * points.features)),
        replace(source, points=replace(points, labels=points.labels.roll(1, dims=0))),
        replace(source, image_index=source.image_index[::-1]),
        replace(source, places=source.places + 1),
        replace(source, background=0),
    ]
    assert len({digest(each) for each in others}) == len(others)


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
