from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ralis_backend.core.features import class_counts, entropy_grid, ralis
from ralis_backend.core.features.ralis import (
    FLOOR,
    MAX_REFERENCES,
    NUM_BINS,
    SMOOTHING,
    action_length,
    action_vectors,
    class_histograms,
    divergence_histograms,
    kl_divergences,
    region_length,
    region_vectors,
)


def _counts(num_regions: int, num_classes: int, num_pixels: int, seed: int = 0) -> torch.Tensor:
    """(R, C) pixels per class; some classes are missing from some regions."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(num_classes, 0.4), num_regions)
    return torch.from_numpy(
        np.stack([rng.multinomial(num_pixels, share) for share in shares]).astype(np.float32)
    )


def _divergence(candidate: np.ndarray, reference: np.ndarray) -> float:
    """KL of one pair, class by class."""
    total = 0.0
    for p, q in zip(candidate / candidate.sum(), reference / reference.sum(), strict=True):
        total += p * math.log(p / q)
    return total


def _slow_histograms(candidates: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The authors' histograms, a pair at a time."""
    rows = []
    for candidate in candidates.astype(np.float64):
        values = [_divergence(candidate, reference) for reference in references]
        counts, _ = np.histogram(values, bins=NUM_BINS)
        rows.append(counts / counts.sum())
    return np.array(rows)


def test_lengths_are_those_of_the_paper():
    assert (region_length(11), action_length(11)) == (204, 268)  # CamVid
    assert (region_length(19), action_length(19)) == (212, 276)  # Cityscapes


def test_class_histograms_by_hand():
    histograms = class_histograms(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    assert histograms.tolist() == [[3, FLOOR, FLOOR], [FLOOR, 4, FLOOR]]


def test_region_vectors_by_hand():
    counts, grid = torch.tensor([[3.0, 1.0]]), torch.full((1, 192), math.log(2) / 2)
    faithful = region_vectors(counts, grid, "faithful")
    np.testing.assert_allclose(faithful[0], [3, 1, 1e-7] + 192 * [math.log(2) / 2], rtol=1e-6)
    repaired = region_vectors(counts, grid, "repaired")
    np.testing.assert_allclose(repaired[0], [0.75, 0.25, 0] + 192 * [0.5], atol=1e-6)
    assert faithful.dtype == repaired.dtype == torch.float32


def test_divergence_by_hand():
    candidates = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    references = torch.tensor([[2.0, 2.0], [10.0, 30.0]])
    expected = [
        [0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0.75 * math.log(3) + 0.25 * math.log(1 / 3)],
        [0, 0.5 * math.log(2) + 0.5 * math.log(2 / 3)],
    ]
    np.testing.assert_allclose(kl_divergences(candidates, references), expected, atol=1e-12)


def test_histogram_of_own_bins_by_hand():
    candidates = torch.tensor([[1.0, 1.0]])
    references = torch.tensor([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [1.0, 15.0]])
    nearest, farther, farthest = 0.0, 0.5 * math.log(4 / 3), 0.5 * math.log(64 / 15)
    expected = np.zeros(32)
    for value in (nearest, farther, farther):
        expected[int(value / farthest * 32)] += 0.25
    expected[31] = 0.25  # the largest divergence closes the last bin
    histograms = divergence_histograms(candidates, references, "faithful")
    np.testing.assert_allclose(histograms, expected[None])


@pytest.mark.parametrize(
    ("num_candidates", "num_references", "num_classes"), [(7, 50, 11), (13, 3, 2), (5, 301, 19)]
)
def test_faithful_histograms_equal_numpys_of_a_loop_over_pairs(
    num_candidates, num_references, num_classes
):
    candidates = class_histograms(_counts(num_candidates, num_classes, 3311))
    shares = _counts(num_references, num_classes + 1, 3311, seed=1).double() / 3311
    expected = _slow_histograms(candidates.numpy(), np.where(shares == 0, FLOOR, shares.numpy()))
    histograms = divergence_histograms(candidates, shares, "faithful")
    assert histograms.shape == (num_candidates, NUM_BINS)
    assert histograms.dtype == torch.float32
    np.testing.assert_allclose(histograms.sum(dim=1), 1, atol=1e-6)
    variation = np.abs(histograms.numpy() - expected).sum(axis=1) / 2
    assert variation.mean() < 1e-3


def test_bins_are_numpys_also_where_values_lie_on_edges():
    rows = np.stack([np.arange(33.0), np.linspace(-1, 1, 33), np.linspace(0.1, 0.7, 33)])
    counted = ralis._own_bins(torch.from_numpy(rows))
    expected = [np.histogram(row, bins=32)[0] for row in rows]
    np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize("num_classes", [2, 11, 19])
@pytest.mark.parametrize("count", [1, 2, 5, 24, 240])
def test_candidates_of_one_class_alike_lie_in_the_bin_that_numpy_gives_zeros(count, num_classes):
    counts = torch.zeros(count, num_classes)
    counts[:, 1] = 7200
    candidates = class_histograms(counts)
    expected, _ = np.histogram(np.zeros(count), bins=NUM_BINS)
    histograms = divergence_histograms(candidates, candidates, "faithful")
    np.testing.assert_allclose(histograms, np.tile(expected / count, (count, 1)))


@pytest.mark.parametrize("num_classes", [3, 6, 12, 20])
@pytest.mark.parametrize("count", [1, 2, 5, 13, 40])
def test_equal_divergences_share_one_of_the_two_middle_bins(count, num_classes):
    candidates = class_histograms(_counts(24, num_classes - 1, 120))
    references = class_histograms(_counts(1, num_classes - 1, 120, seed=1)).expand(count, -1)
    histograms = divergence_histograms(candidates, references, "faithful")
    np.testing.assert_array_equal(histograms[:, 15] + histograms[:, 16], np.ones(24))
    np.testing.assert_array_equal(histograms.amax(dim=1), np.ones(24))


@pytest.mark.parametrize("variant", ["faithful", "repaired"])
def test_without_labelled_regions_their_histogram_is_zero(variant):
    counts, grid = _counts(4, 3, 99), torch.rand(4, 192)
    actions = action_vectors(counts, grid, torch.zeros(0, 4), counts, variant)
    assert actions.shape == (4, action_length(3))
    assert not actions[:, -2 * NUM_BINS : -NUM_BINS].any()
    np.testing.assert_allclose(actions[:, -NUM_BINS:].sum(dim=1), 1, atol=1e-6)


@pytest.mark.parametrize("variant", ["faithful", "repaired"])
@pytest.mark.parametrize("size", [(33, 40), (90, 80), (5, 17), (3, 3)])
def test_actions_are_the_region_then_the_labelled_then_the_unlabelled_block(variant, size):
    generator = torch.Generator().manual_seed(3)
    predicted = torch.randint(0, 5, (6, *size), generator=generator)
    entropy = math.log(5) * torch.rand((6, *size), generator=generator)
    counts, grid = class_counts(predicted, 5), entropy_grid(entropy)
    labelled = _counts(20, 6, size[0] * size[1], seed=1)
    actions = action_vectors(counts, grid, labelled, counts, variant)
    candidates = class_histograms(counts)
    blocks = [
        region_vectors(counts, grid, variant),
        divergence_histograms(candidates, labelled, variant),
        divergence_histograms(candidates, candidates, variant),
    ]
    assert actions.dtype == torch.float32
    assert actions.isfinite().all()
    np.testing.assert_array_equal(actions, torch.cat(blocks, dim=1))


@pytest.mark.parametrize("variant", ["faithful", "repaired"])
def test_regions_without_any_labelled_pixel_give_no_nan(variant):
    candidates = class_histograms(_counts(3, 4, 50))
    void_only = torch.tensor([[0.0, 0.0, 0.0, 0.0, 50.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    histograms = divergence_histograms(candidates, void_only, variant)
    np.testing.assert_allclose(histograms.sum(dim=1), 1, atol=1e-6)


@pytest.mark.parametrize("variant", ["faithful", "repaired"])
def test_comparing_a_few_pairs_at_a_time_changes_nothing(variant, monkeypatch):
    candidates = class_histograms(_counts(23, 7, 900))
    references = _counts(31, 8, 900, seed=1)
    at_once = divergence_histograms(candidates, references, variant)
    for pairs in (1, 100):
        monkeypatch.setattr(ralis, "_MAX_PAIRS_AT_ONCE", pairs)
        np.testing.assert_array_equal(
            divergence_histograms(candidates, references, variant), at_once
        )


def test_candidates_without_regions_give_no_rows():
    for variant in ("faithful", "repaired"):
        for num_references in (0, 5):
            references = torch.ones(num_references, 4)
            histograms = divergence_histograms(torch.zeros(0, 4), references, variant)
            assert histograms.shape == (0, NUM_BINS)


def test_repaired_region_vectors_do_not_depend_on_the_regions_size():
    counts, grid = _counts(5, 4, 200), torch.rand(5, 192)
    small = region_vectors(counts, grid, "repaired")
    large = region_vectors(9 * counts, grid, "repaired")
    np.testing.assert_allclose(small, large, atol=1e-6)
    assert small.min() >= 0
    assert small[:, :5].max() <= 1


def test_repaired_entropies_are_shares_of_the_largest_whatever_the_number_of_classes():
    for num_classes in (1, 2, 19):
        grid = torch.full((1, 192), math.log(max(2, num_classes)))
        vectors = region_vectors(_counts(1, num_classes, 30), grid, "repaired")
        np.testing.assert_allclose(vectors[0, num_classes + 1 :], 1, rtol=1e-6)


def test_repaired_bins_are_the_same_for_every_candidate():
    """Two candidates at the same divergence from the references fall into the same bins."""
    candidates = torch.tensor([[80.0, 20.0], [20.0, 80.0]])
    references = torch.tensor([[50.0, 50.0], [50.0, 50.0]])
    histograms = divergence_histograms(candidates, references, "repaired")
    np.testing.assert_array_equal(histograms[0], histograms[1])
    nearer = divergence_histograms(torch.tensor([[60.0, 40.0]]), references, "repaired")
    assert nearer.argmax() < histograms[0].argmax()
    wider = torch.cat([references, torch.tensor([[1.0, 99.0], [99.0, 1.0]])])
    among_others = divergence_histograms(candidates, wider, "repaired")
    for before, after in zip(histograms, among_others, strict=True):
        assert after[before.argmax()] == 0.5  # their place does not move with the others' range


def test_repaired_histograms_equal_a_loop_with_fixed_edges():
    candidates, references = _counts(9, 5, 640), _counts(40, 5, 640, seed=1)
    largest = math.log(1 / SMOOTHING)
    edges = np.array([1e-3 * (1e3 * largest) ** (step / 30) for step in range(31)])
    histograms = divergence_histograms(candidates, references, "repaired")
    for candidate, histogram in zip(candidates.numpy() / 640, histograms.numpy(), strict=True):
        expected = np.zeros(NUM_BINS)
        for reference in references.numpy() / 640:
            divergence = _divergence(candidate + SMOOTHING, reference + SMOOTHING)
            expected[(edges < divergence).sum()] += 1 / 40
        np.testing.assert_allclose(histogram, expected, atol=1e-6)


def test_repaired_divergences_are_bounded_and_the_last_bin_stays_empty():
    for num_classes in (2, 11, 150):
        extremes = torch.eye(num_classes) * 7200
        divergences = kl_divergences(ralis._smoothed(extremes), ralis._smoothed(extremes))
        assert divergences.min() > -1e-9
        assert divergences.max() < math.log(1 / SMOOTHING)
        histograms = divergence_histograms(extremes, extremes, "repaired")
        assert not histograms[:, -1].any()
        np.testing.assert_allclose(histograms[:, 0], 1 / num_classes, rtol=1e-6)


def test_repaired_smoothing_keeps_a_missing_class_from_deciding():
    """One pixel of a class that the reference lacks: far in the authors' code, near in ours."""
    candidates = torch.tensor([[7199.0, 1.0]])
    references = torch.tensor([[7200.0, 0.0]])
    smoothed = kl_divergences(ralis._smoothed(candidates), ralis._smoothed(references))
    assert 0 <= smoothed.item() < 1e-4


def test_repaired_compares_with_a_bounded_number_of_references(monkeypatch):
    monkeypatch.setattr(ralis, "MAX_REFERENCES", 10)
    candidates, references = _counts(3, 4, 100), _counts(25, 4, 100, seed=1)
    bounded = divergence_histograms(candidates, references, "repaired")
    every_third = divergence_histograms(candidates, references[::3], "repaired")
    np.testing.assert_array_equal(bounded, every_third)
    assert MAX_REFERENCES == 4096
