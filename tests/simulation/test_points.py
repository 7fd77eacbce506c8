from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import SegmenterSpec, build
from ralis_backend.simulation.points import PointEncoder

SIZE = (64, 96)


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def _split(spec: SegmenterSpec, look_twice: bool = False):
    encoder, regions = PointEncoder(spec), grid(SIZE, (32, 32))
    encoder.fit((_image(seed), regions) for seed in range(3))
    mask = np.zeros(SIZE, np.uint8)
    return encoder.points([(_image(0), mask, regions), (_image(1), mask, regions)], look_twice)


def test_points_need_a_scale_first():
    encoder = PointEncoder(SegmenterSpec(2, encoder_weights=None))
    with pytest.raises(RuntimeError, match="call fit first"):
        encoder.points([])


@pytest.mark.parametrize("kind", ["smp", "tiny"])
def test_every_kind_of_segmenter_gives_features_of_its_stages(request, kind):
    spec = SegmenterSpec(2, encoder_weights=None)
    if kind == "tiny":
        spec = request.getfixturevalue("tiny_segmenters")
    regions = _split(spec, look_twice=True)
    stages = build(spec).stages(_image(0))
    sizes = [len(features) for features, _ in stages]
    reduced = min(96, sizes[-1])
    assert regions.points.features.shape == (12, 16, sum(sizes[:-1]) + reduced)
    assert regions.embeddings.shape == (12, sizes[-2])
    np.testing.assert_allclose(np.linalg.norm(regions.embeddings, axis=1), 1, rtol=1e-5)
    assert regions.mirrored.shape == regions.points.features.shape
    assert [stride for _, stride in stages] == {"smp": [4, 8, 16, 32], "tiny": [2, 4]}[kind]


def test_embeddings_are_the_mean_of_the_last_but_one_stage(tiny_segmenters):
    regions = _split(tiny_segmenters)
    fine = build(tiny_segmenters).stages(_image(0))[0][0]  # (8, 32, 48), a cell of two pixels
    # points lie at 4, 12, 20, 28: where four cells meet
    cells = [(fine[:, at - 1 : at + 1]) for at in (2, 6, 10, 14)]
    sampled = [
        each[:, :, at - 1 : at + 1].mean(dim=(1, 2)) for each in cells for at in (2, 6, 10, 14)
    ]
    mean = torch.stack(sampled).mean(dim=0)
    np.testing.assert_allclose(regions.embeddings[0], mean / mean.norm(), rtol=1e-4, atol=1e-5)
