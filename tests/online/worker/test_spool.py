from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.features import RegionFeatures
from ralis_backend.online.worker.spool import FeatureSpool


def features(num_regions: int, seed: int) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    return RegionFeatures(
        num_regions,
        {
            "entropy": rng.random(num_regions, np.float32),
            "class_probabilities": rng.random((num_regions, 3), np.float32),
        },
    )


def test_what_was_added_is_read_back_in_order_and_mapped_not_held(tmp_path):
    images = [features(4, 0), features(0, 1), features(7, 2)]
    with FeatureSpool(tmp_path / "spool") as spool:
        for image in images:
            spool.append(image)
        table = spool.features()
        assert len(table) == 11
        for name in ("entropy", "class_probabilities"):
            expected = np.concatenate([image[name] for image in images])
            np.testing.assert_array_equal(table[name], expected)
            assert isinstance(table[name], np.memmap)
        taken = table.take(np.array([10, 0]))
        np.testing.assert_array_equal(taken.entropy, [images[2].entropy[6], images[0].entropy[0]])
    assert not (tmp_path / "spool").exists()


def test_what_a_killed_run_left_is_not_read(tmp_path):
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "entropy").write_bytes(b"\0" * 400)
    with FeatureSpool(tmp_path / "spool") as spool:
        spool.append(features(2, 0))
        np.testing.assert_array_equal(spool.features().entropy, features(2, 0).entropy)


def test_a_pool_without_regions_has_no_features(tmp_path):
    with FeatureSpool(tmp_path / "spool") as spool:
        assert len(spool.features()) == 0
        spool.append(features(0, 0))
        assert spool.features().class_probabilities.shape == (0, 3)


def test_the_folder_goes_when_the_ranking_fails(tmp_path):
    def fill() -> None:
        with FeatureSpool(tmp_path / "spool") as spool:
            spool.append(features(2, 0))
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert not (tmp_path / "spool").exists()
