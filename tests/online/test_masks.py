from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.learning.crops import Unreadable
from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from tests.online.store.conftest import annotation, label

REGIONS = (Region(0, 0, 8, 8), Region(4, 6, 8, 8), Region(12, 8, 8, 8), Region(3, 3, 2, 2))


@pytest.fixture
def labelled(store: Store, project: Project, image: Image) -> Project:
    """Overlapping labels of classes 0 to 2; the last region reaches beyond 18 x 14 pixels."""
    rng = np.random.default_rng(0)
    for number, region in enumerate(REGIONS, start=1):
        patch = rng.choice(np.array([0, 1, 2, VOID], np.uint8), (region.height, region.width))
        label(store, project, image, annotation(number, number), NewLabel(region, patch))
    return project


def test_every_window_of_a_mask_is_that_of_the_whole(store: Store, labelled: Project):
    labels = store.labels.of(labelled.id)
    masks = LabelMasks(store, labelled, max_bytes=70)  # one patch at a time
    whole = store.labels.image_mask((20, 16), labels)
    mask = masks.of((20, 16), labels)
    assert mask.shape == whole.shape
    np.testing.assert_array_equal(np.asarray(mask), whole)
    for row in range(0, 20, 3):
        for col in range(0, 16, 3):
            for size in (1, 5, 30):
                part = (slice(row, row + size), slice(col, col + size))
                np.testing.assert_array_equal(mask[part], whole[part])
    assert masks._num_bytes <= 70
    cut = np.asarray(masks.of((18, 14), labels))  # an image that became smaller
    np.testing.assert_array_equal(cut, whole[:18, :14])


def test_a_lost_label_is_said_once_and_left_out_afterwards(store: Store, labelled: Project):
    first, *others = store.labels.of(labelled.id)
    store.blobs.path(str(first.mask_key)).unlink()
    masks = LabelMasks(store, labelled)
    mask = masks.of((20, 16), [first, *others])
    with pytest.raises(Unreadable) as raised:
        np.asarray(mask)
    assert raised.value.region == first.region
    expected = store.labels.image_mask((20, 16), others)
    np.testing.assert_array_equal(np.asarray(mask), expected)
    np.testing.assert_array_equal(LabelMasks(store, labelled).whole((20, 16), [first]), VOID)
    assert masks.readable([first, *others]) == others
    assert [row.id for row in store.annotations.failed(labelled.id)] == [first.annotation_row_id]


def test_removed_classes_count_for_nothing(store: Store, labelled: Project):
    labelled.classes = [
        {"name": name, "color": "#000000", "is_active": name != "b"} for name in "abc"
    ]
    labels = store.labels.of(labelled.id)
    masks = LabelMasks(store, labelled)
    assert set(np.unique(np.asarray(masks.of((20, 16), labels)))) <= {0, 2, VOID}
    for each in labels:
        counted = np.bincount(store.labels.mask(each).ravel(), minlength=256)[:3]
        assert masks.pixels(each) == (counted[0], 0, counted[2])[: len(each.pixels)]
    shown = LabelMasks(store, labelled, has_removed_classes=True)
    np.testing.assert_array_equal(
        shown.whole((20, 16), labels), store.labels.image_mask((20, 16), labels)
    )
