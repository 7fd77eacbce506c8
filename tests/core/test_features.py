from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.core.features import concat, describe, predicted_mask, uncertainty_maps
from ralis_backend.core.regions import Region, grid
from ralis_backend.core.segmenter import ForwardPass


def _forward(size: tuple[int, int], num_classes: int = 4, stride: int = 16) -> ForwardPass:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((num_classes, *size), generator=generator)
    cells = [-(-side // stride) for side in size]
    embeddings = torch.randn((6, *cells), generator=generator)
    return ForwardPass(logits.softmax(dim=0), embeddings, stride)


def test_entropy_and_margin_by_hand():
    probabilities = torch.tensor([[[1.0, 0.5, 0.7]], [[0.0, 0.5, 0.2]], [[0.0, 0.0, 0.1]]])
    entropy, margin = uncertainty_maps(probabilities)
    expected = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(entropy[0], [0, np.log(2), expected], atol=1e-6)
    np.testing.assert_allclose(margin[0], [1, 0, 0.5], atol=1e-6)


@pytest.mark.parametrize("size", [(50, 70), (33, 129), (16, 16), (7, 5)])
def test_features_equal_a_loop_over_pixels_also_where_regions_overlap(size):
    forward = _forward(size)
    regions = [*grid(size, (20, 24)), *grid(size, (5, 5))[:3]]
    features = describe(forward, regions)
    probabilities = forward.probabilities.double().numpy()
    embeddings = forward.embeddings.double().numpy()
    for index, region in enumerate(regions):
        pixels = probabilities[:, region.slices[0], region.slices[1]].reshape(4, -1)
        ordered = np.sort(pixels, axis=0)
        np.testing.assert_allclose(
            features.entropy[index], -(pixels * np.log(pixels)).sum(axis=0).mean(), rtol=1e-4
        )
        np.testing.assert_allclose(
            features.margin[index], (ordered[-1] - ordered[-2]).mean(), rtol=1e-4
        )
        np.testing.assert_allclose(
            features.class_probabilities[index], pixels.mean(axis=1), rtol=1e-4
        )
        cells = [
            embeddings[:, row // 16, col // 16]
            for row in range(region.row, region.row + region.height)
            for col in range(region.col, region.col + region.width)
        ]
        mean = np.mean(cells, axis=0)
        np.testing.assert_allclose(
            features.embeddings[index], mean / np.linalg.norm(mean), rtol=1e-3, atol=1e-5
        )


def test_features_are_float32_of_the_right_shapes():
    features = describe(_forward((40, 60)), grid((40, 60), (20, 20)))
    assert len(features) == 6
    assert features.class_probabilities.shape == (6, 4)
    assert features.embeddings.shape == (6, 6)
    for values in vars(features).values():
        assert values.dtype == np.float32


def test_dead_features_and_one_class_give_no_nan():
    forward = ForwardPass(torch.ones(1, 8, 8), torch.zeros(3, 1, 1), 16)
    features = describe(forward, [Region(0, 0, 4, 4)])
    assert features.embeddings.tolist() == [[0, 0, 0]]
    assert features.entropy.tolist() == [0]
    assert features.margin.tolist() == [1]


def test_no_regions_give_empty_features():
    features = describe(_forward((8, 8)), [])
    assert len(features) == 0
    assert features.class_probabilities.shape == (0, 4)


def test_concat_keeps_the_order():
    first = describe(_forward((40, 40)), grid((40, 40), (20, 20)))
    second = describe(_forward((20, 60)), grid((20, 60), (20, 20)))
    joined = concat([first, second])
    np.testing.assert_array_equal(joined.entropy[:4], first.entropy)
    np.testing.assert_array_equal(joined.embeddings[4:], second.embeddings)
    with pytest.raises(ValueError, match="no features"):
        concat([])


def test_regions_outside_are_named():
    with pytest.raises(ValueError, match=r"col=5.*8 x 8"):
        describe(_forward((8, 8)), [Region(0, 5, 4, 4)])


def test_predicted_mask_is_the_likeliest_class():
    forward = _forward((9, 11))
    mask = predicted_mask(forward)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, forward.probabilities.numpy().argmax(axis=0))
