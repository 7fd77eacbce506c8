from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.features import (
    FEATURES,
    NotDescribed,
    RegionFeatures,
    class_counts,
    concat,
    describe,
    describe_parts,
    entropy_grid,
    entropy_map,
    maps_for,
    margin_map,
    predicted_mask,
)
from ralis_backend.core.regions import Region, grid
from ralis_backend.core.segmenter import ForwardPass


def _forward(size: tuple[int, int], num_classes: int = 4, stride: int = 16) -> ForwardPass:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((num_classes, *size), generator=generator)
    cells = [-(-side // stride) for side in size]
    embeddings = torch.randn((6, *cells), generator=generator)
    cells = [-(-side // 4) for side in size]
    bald, deep_bald = (torch.rand(cells, generator=generator) for _ in range(2))
    probabilities = logits.softmax(dim=0)
    return ForwardPass(probabilities, embeddings, stride, bald, deep_bald=deep_bald)


def test_entropy_and_margin_by_hand():
    probabilities = torch.tensor([[[1.0, 0.5, 0.7]], [[0.0, 0.5, 0.2]], [[0.0, 0.0, 0.1]]])
    entropy, margin = entropy_map(probabilities), margin_map(probabilities)
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


@pytest.mark.parametrize("size", [(50, 70), (33, 129), (7, 5)])
def test_peaks_and_deep_bald_equal_a_loop_over_cells(size):
    forward = _forward(size)
    regions = [*grid(size, (20, 24)), *grid(size, (5, 5))[:3]]
    features = describe(
        forward, regions, ("class_peaks", "bald_peak", "deep_bald", "deep_bald_peak")
    )
    probabilities, bald = forward.probabilities.numpy(), forward.deep_bald.numpy()
    cells = np.zeros((4, *bald.shape))
    for row, col in np.ndindex(*bald.shape):
        cells[:, row, col] = probabilities[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4].mean(
            axis=(1, 2)
        )
    for index, region in enumerate(regions):
        rows = np.unique(np.arange(region.row, region.row + region.height) // 4)
        cols = np.unique(np.arange(region.col, region.col + region.width) // 4)
        touched = np.ix_(rows, cols)
        for name in range(4):
            largest = cells[name][touched].max()
            np.testing.assert_allclose(features.class_peaks[index, name], largest, rtol=1e-5)
        assert features.deep_bald_peak[index] == bald[touched].max()
        assert features.bald_peak[index] == forward.bald.numpy()[touched].max()
        pixels = bald.repeat(4, axis=0).repeat(4, axis=1)[region.slices]
        np.testing.assert_allclose(features.deep_bald[index], pixels.mean(), rtol=1e-4)


def test_class_counts_by_hand():
    predicted = torch.tensor([[[0, 2], [2, 2]], [[1, 1], [0, 3]]])
    assert class_counts(predicted, 4).tolist() == [[1, 0, 3, 0], [1, 2, 0, 1]]


def test_entropy_grid_of_single_pixel_cells_is_the_map_itself():
    entropy = torch.arange(64.0).reshape(1, 8, 8)
    assert entropy_grid(entropy)[0].tolist() == [*range(64)] * 3


def test_entropy_grid_pools_min_mean_and_max_row_by_row():
    entropy = torch.zeros(1, 16, 8)
    entropy[0, 2:4, 5] = torch.tensor([1.0, 3.0])  # the two pixels of cell (1, 5)
    expected = torch.zeros(8, 8)
    lowest, means, highest = entropy_grid(entropy).reshape(3, 8, 8)
    for cells, value in ((lowest, 1), (means, 2), (highest, 3)):
        expected[1, 5] = value
        np.testing.assert_array_equal(cells, expected)


@pytest.mark.parametrize("size", [(8, 8), (90, 80), (33, 41), (15, 129), (9, 23)])
def test_entropy_grid_equals_a_loop_and_leaves_out_the_last_rows_and_columns(size):
    generator = torch.Generator().manual_seed(1)
    entropy = torch.rand((3, *size), generator=generator)
    pooled = entropy_grid(entropy).reshape(3, 3, 8, 8)
    height, width = size[0] // 8, size[1] // 8
    for index, row, col in np.ndindex(3, 8, 8):
        cell = entropy[index, row * height : (row + 1) * height, col * width : (col + 1) * width]
        expected = [cell.min(), cell.mean(), cell.max()]
        np.testing.assert_allclose(pooled[index, :, row, col], expected, rtol=1e-5)
    entropy[:, 8 * height :], entropy[:, :, 8 * width :] = 99, 99
    assert entropy_grid(entropy).max() < 1


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (3, 20), (17, 5)])
def test_entropy_grid_of_a_small_region_stretches_it(size):
    generator = torch.Generator().manual_seed(2)
    entropy = torch.rand((2, *size), generator=generator)
    lowest, means, highest = entropy_grid(entropy).reshape(2, 3, 8, 8).unbind(dim=1)
    assert (lowest <= means + 1e-6).all()
    assert (means <= highest + 1e-6).all()
    assert torch.isin(lowest, entropy).all()
    assert torch.isin(highest, entropy).all()


def test_a_region_of_four_by_four_pixels_has_each_pixel_in_four_cells():
    entropy = torch.arange(16.0).reshape(1, 4, 4)
    doubled = entropy[0].repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)
    for cells in entropy_grid(entropy).reshape(3, 8, 8):
        np.testing.assert_array_equal(cells, doubled)


@pytest.mark.parametrize(
    ("size", "region_size"), [((50, 70), (20, 24)), ((33, 129), (33, 40)), ((7, 5), (4, 3))]
)
def test_counts_and_grids_of_an_image_equal_a_loop_over_its_regions(size, region_size):
    forward = _forward(size)
    regions = [*grid(size, region_size), *grid(size, (5, 5))[:3]]  # of two sizes, overlapping
    regions = regions[::2] + regions[1::2]
    features = describe(forward, regions)
    predicted = forward.probabilities.numpy().argmax(axis=0)
    entropy = entropy_map(forward.probabilities)
    for index, region in enumerate(regions):
        counts = np.bincount(predicted[region.slices].ravel(), minlength=4)
        np.testing.assert_array_equal(features.class_counts[index], counts)
        assert features.class_counts[index].sum() == region.height * region.width
        alone = entropy_grid(entropy[region.slices][None])[0]
        np.testing.assert_allclose(features.entropy_grid[index], alone, rtol=1e-6)


def test_take_keeps_each_regions_features_together():
    features = describe(_forward((40, 60)), grid((40, 60), (20, 20)))
    taken = features.take(np.array([4, 1]))
    assert len(taken) == 2
    assert set(taken) == set(features) == set(FEATURES) - {"mirror_divergence"}
    for name in features:
        np.testing.assert_array_equal(taken[name], features[name][[4, 1]])


def test_features_are_float32_of_the_right_shapes():
    features = describe(_forward((40, 60)), grid((40, 60), (20, 20)))
    assert len(features) == 6
    assert features.class_probabilities.shape == (6, 4)
    assert features.embeddings.shape == (6, 6)
    assert features.class_counts.shape == (6, 4)
    assert features.entropy_grid.shape == (6, 192)
    for name in features:
        assert features[name].dtype == np.float32


def test_dead_features_and_one_class_give_no_nan():
    forward = ForwardPass(torch.ones(1, 8, 8), torch.zeros(3, 1, 1), 16)
    features = describe(forward, [Region(0, 0, 4, 4)])
    assert features.embeddings.tolist() == [[0, 0, 0]]
    assert features.entropy.tolist() == [0]
    assert features.margin.tolist() == [1]
    assert features.class_counts.tolist() == [[16]]
    assert not features.entropy_grid.any()


def test_no_regions_give_empty_features():
    features = describe(_forward((8, 8)), [])
    assert len(features) == 0
    assert features.class_probabilities.shape == (0, 4)
    assert features.class_counts.shape == (0, 4)
    assert features.entropy_grid.shape == (0, 192)


def test_concat_keeps_the_order():
    first = describe(_forward((40, 40)), grid((40, 40), (20, 20)))
    second = describe(_forward((20, 60)), grid((20, 60), (20, 20)))
    joined = concat([first, second])
    np.testing.assert_array_equal(joined.entropy[:4], first.entropy)
    np.testing.assert_array_equal(joined.embeddings[4:], second.embeddings)
    np.testing.assert_array_equal(joined.class_counts[4:], second.class_counts)
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


def test_only_what_is_asked_for_is_described_and_equal_to_the_whole():
    forward, regions = _forward((40, 60)), grid((40, 60), (20, 20))
    everything = describe(forward, regions)
    for name in everything:
        alone = describe(forward, regions, (name,))
        assert list(alone) == [name]
        np.testing.assert_array_equal(alone[name], everything[name])


def test_a_feature_that_was_not_described_says_what_was():
    features = describe(_forward((8, 8)), [Region(0, 0, 4, 4)], ("entropy",))
    with pytest.raises(NotDescribed, match=r"bald was not described.*described: entropy"):
        features.bald  # noqa: B018  (raises)
    with pytest.raises(AttributeError, match="size"):
        features.size  # noqa: B018  (no feature at all)


def test_unknown_features_and_maps_that_nobody_looked_at_are_named():
    forward = ForwardPass(torch.full((2, 8, 8), 0.5))
    with pytest.raises(ValueError, match=r"unknown features \['sharpness'\]; expected .*entropy"):
        describe(forward, [], ("sharpness",))
    with pytest.raises(ValueError, match="the forward pass holds no bald; ask for maps_for"):
        describe(forward, [], ("entropy", "class_bald"))
    assert maps_for(("entropy", "class_bald")) == {"bald"}
    assert set(describe(forward, [Region(0, 0, 4, 4)])) == {
        name for name in FEATURES if not maps_for((name,))
    }


def test_a_table_refuses_columns_of_another_length():
    with pytest.raises(ValueError, match="entropy has 2 rows, expected 3 regions"):
        RegionFeatures(3, {"entropy": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="unknown feature 'sharpness'"):
        RegionFeatures(1, {"sharpness": np.zeros(1, np.float32)})


@pytest.mark.parametrize(("cuts", "size"), [((16, 48), (70, 90)), ((32, 32), (33, 129))])
def test_an_image_in_parts_is_described_as_the_whole_of_it(cuts, size):
    forward = replace(_forward(size), mirrored=_forward(size).probabilities.flip(2))
    regions = [*grid(size, (20, 24)), Region(0, 0, *size), *grid(size, (5, 5))[7:9]]
    parts = list(_parts(forward, cuts, size))
    features, predicted = describe_parts(parts, size, regions)
    whole = describe(forward, regions)
    assert set(features) == set(FEATURES)
    for name in FEATURES:
        np.testing.assert_allclose(features[name], whole[name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(predicted, predicted_mask(forward))


def _parts(forward, cuts, size):
    for row, height in _steps(cuts[0], size[0]):
        for col, width in _steps(cuts[1], size[1]):
            maps = {}
            for name, values in forward.maps.items():
                step = forward.stride_of(name)
                rows = slice(row // step, -(-(row + height) // step))
                cols = slice(col // step, -(-(col + width) // step))
                maps[name] = values[..., rows, cols]
            yield Region(row, col, height, width), replace(forward, **maps)


def _steps(step, length):
    return [(start, min(step, length - start)) for start in range(0, length, step)]


def test_selected_regions_are_copied_when_they_are_looked_at():
    table = RegionFeatures(
        5, {"entropy": np.arange(5.0), "class_counts": np.arange(10.0).reshape(5, 2)}
    )
    index = np.array([4, 0, 2])
    selected, taken = table.select(index), table.take(index)
    assert list(selected) == list(taken)
    assert len(selected) == 3
    np.testing.assert_array_equal(selected.class_counts, taken.class_counts)
    part = selected.take(np.array([2, 0]))
    np.testing.assert_array_equal(part.entropy, [2, 4])
    own = selected.replaced(entropy=np.array([7.0, 8, 9]))
    np.testing.assert_array_equal(own.take(np.array([1])).entropy, [8])
    np.testing.assert_array_equal(own.class_counts, taken.class_counts)
    np.testing.assert_array_equal(
        np.concatenate([each.entropy for _, each in own.blocks(2)]), [7, 8, 9]
    )
    assert table.select(np.arange(5)) is table
    with pytest.raises(NotDescribed):
        _ = selected.bald
