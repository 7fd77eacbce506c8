from __future__ import annotations

import numpy as np
import pytest
import torch

from ralis_backend.core.metrics import mean_iou
from ralis_backend.core.regions import VOID
from ralis_backend.simulation.heads import HeadConfig, Heads, Points

CPU = torch.device("cpu")
CONFIG = HeadConfig(hidden=16, batch_size=64)


def _points(num_regions: int = 40, num_points: int = 20, seed: int = 0) -> Points:
    """Two-dimensional points of three classes in three corners; a tenth is void."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (num_regions, num_points), generator=generator)
    corners = torch.tensor([[2.0, 0.0], [-2.0, 2.0], [-2.0, -2.0]])
    noise = torch.randn((num_regions, num_points, 2), generator=generator)
    features = (corners[labels] + 0.3 * noise).bfloat16()
    is_void = torch.rand(labels.shape, generator=generator) < 0.1
    return Points(features, torch.where(is_void, VOID, labels).to(torch.uint8))


def _heads(seeds: list[int], config: HeadConfig = CONFIG) -> Heads:
    return Heads.fresh(2, 3, config, seeds, CPU)


def test_heads_learn_and_void_is_not_counted():
    points = _points()
    trained = _heads([0, 1]).trained(points, [np.arange(20), np.arange(20)], 150, 0)
    matrices = trained.confusion_matrices(_points(seed=1))
    assert matrices.shape == (2, 3, 3)
    assert (matrices.sum(axis=(1, 2)) == int((_points(seed=1).labels != VOID).sum())).all()
    assert all(mean_iou(matrix) > 0.95 for matrix in matrices)


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_every_kind_of_processor_learns_and_sees_the_same(monkeypatch, capability: str):
    points, learned = _points(), [np.arange(5, 10)]
    usual = _heads([1]).trained(points, learned, 20, 7)
    flat = points.features.flatten(0, 1)
    seen = [usual.logits(flat)[0], usual.deep_passes(flat, 3)]
    seen += [usual.plain_logits(usual.hidden(flat)), usual.passes(usual.hidden(flat), 3)]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    heads = _heads([1]).trained(points, learned, 20, 7)
    again = [heads.logits(flat)[0], heads.deep_passes(flat, 3)]
    again += [heads.plain_logits(heads.hidden(flat)), heads.passes(heads.hidden(flat), 3)]
    for one, other in zip(seen, again, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def test_a_head_learns_the_same_alone_and_beside_others():
    points = _points()
    alone = _heads([1]).trained(points, [np.arange(5, 10)], 20, 7)
    beside = _heads([0, 1]).trained(points, [np.arange(3), np.arange(5, 10)], 20, 7)
    for one, other in zip(alone.weights, beside.only(1).weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_equal_labels_and_draws_give_equal_heads():
    copies = _heads([0]).copies(3)
    trained = copies.trained(_points(), [np.arange(8)] * 3, 10, 3)
    for weight in trained.weights:
        assert torch.equal(weight[0], weight[1])
        assert torch.equal(weight[0], weight[2])
    other = copies.trained(_points(), [np.arange(8)] * 3, 10, 4)
    assert not torch.equal(other.weights[0], trained.weights[0])


def test_training_leaves_the_heads_it_began_with():
    heads = _heads([0])
    before = [weight.clone() for weight in heads.weights]
    heads.trained(_points(), [np.arange(4)], 5, 0)
    assert all(torch.equal(one, other) for one, other in zip(before, heads.weights, strict=True))


def test_logits_equal_a_plain_computation():
    heads, points = _heads([3, 4]), _points(2)
    flat = points.features.reshape(-1, 2)
    logits = heads.logits(flat)
    for index in range(2):
        first, first_bias, second, second_bias = (weight[index] for weight in heads.weights)
        expected = torch.relu(flat.float() @ first + first_bias) @ second + second_bias
        torch.testing.assert_close(logits[index], expected, rtol=0.05, atol=0.05)


def test_weighting_classes_helps_the_rare_one():
    points = _points(60)
    is_rare = (points.labels == 2) & (torch.rand(points.labels.shape) > 0.03)
    overlapping = points.features + torch.randn(points.features.shape).bfloat16()
    skewed = Points(overlapping, torch.where(is_rare, VOID, points.labels).to(torch.uint8))
    recalls = []
    for power in (0.0, 0.5):
        config = HeadConfig(hidden=16, batch_size=64, class_weight_power=power)
        trained = _heads([0], config).trained(skewed, [np.arange(60)], 150, 0)
        matrix = trained.confusion_matrices(Points(overlapping, points.labels))[0]
        recalls.append(matrix[2, 2] / matrix[2].sum())
    assert recalls[1] > recalls[0]


def test_regions_without_an_annotated_point_cannot_be_learned_from():
    points = Points(_points().features, torch.full((40, 20), VOID, dtype=torch.uint8))
    with pytest.raises(ValueError, match="none of 3 labelled regions"):
        _heads([0]).trained(points, [np.arange(3)], 1, 0)
