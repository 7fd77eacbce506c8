"""Segmenter, features, policies and training on a device give what they give on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import PoolState
from ralis_backend.core.features import FEATURES, RegionFeatures, describe, predicted_mask
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.continuing import train_until_converged
from ralis_backend.core.learning.course import ContinuingConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.metrics import mean_iou
from ralis_backend.core.policy import PolicySpec, QueryNetwork, RalisPolicy, network_inputs
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import MAPS, ForwardPass, SegmenterSpec, build, load
from ralis_backend.core.segmenter.smp import SmpSegmenter
from tests.gpu.stand_in import StandInForCuda
from tests.tiny_segmenter import TinySegmenter

SPEC = SegmenterSpec(3, encoder_weights=None)
SHORT = FinetuneConfig(steps=3, batch_size=2, crop_size=(32, 32))
ON_TENSOR_CORES = 2e-2
"""Share of the largest value: convolutions in TF32 have ten bits of mantissa, over many layers."""


def _image(height: int = 70, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _labelled_image() -> LabelledImage:
    mask = np.full((70, 90), 1, np.uint8)
    return LabelledImage(_image, mask, tuple(grid(mask.shape, (32, 32))))


def _forward_pass() -> ForwardPass:
    """Of 70 x 90 pixels and three classes, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"probabilities": (3, 70, 90), "embeddings": (8, 5, 6), "bald": (18, 23)}
    shapes["deep_bald"] = shapes["bald"]
    maps = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    probabilities = (5 * maps["probabilities"]).softmax(dim=0)
    mirrored = probabilities.flip(2)
    others = {name: maps[name] for name in ("embeddings", "bald", "deep_bald")}
    return ForwardPass(probabilities, mirrored=mirrored, **others)


def _on(device: str, forward: ForwardPass) -> ForwardPass:
    tensors = {
        name: value.to(device) for name, value in vars(forward).items() if torch.is_tensor(value)
    }
    return replace(forward, **tensors)


def _features() -> RegionFeatures:
    return describe(_forward_pass(), grid((70, 90), (32, 32)))


@pytest.mark.e2e  # seconds where a stand-in takes the device's place
@pytest.mark.parametrize("size", [(50, 70), (40, 500)])
def test_a_forward_pass_agrees_with_the_cpu_whole_and_in_tiles(device, size):
    image = _image(*size)
    here, there = (
        SmpSegmenter(SPEC, seed=1, device=each, max_pixels_per_pass=16_000).forward_pass(
            image, MAPS
        )
        for each in ("cpu", device)
    )
    for name in ("probabilities", *MAPS):
        found = getattr(there, name)
        assert found.device.type == "cuda"
        expected = getattr(here, name)
        scale = float(expected.abs().max())
        torch.testing.assert_close(found.cpu(), expected, atol=ON_TENSOR_CORES * scale, rtol=0)


@pytest.mark.parametrize("region_size", [(32, 32), (5, 40)])
def test_described_regions_agree_with_the_cpu(device, region_size):
    regions = grid((70, 90), region_size)
    here = describe(_forward_pass(), regions)
    there = describe(_on(device, _forward_pass()), regions)
    assert set(there) == set(here) == set(FEATURES)
    for name in FEATURES:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(
        predicted_mask(_on(device, _forward_pass())), predicted_mask(_forward_pass())
    )


@pytest.mark.parametrize("variant", ["faithful", "repaired"])
@pytest.mark.parametrize("num_labelled", [0, 5])
def test_a_networks_inputs_agree_with_the_cpu(device, variant, num_labelled):
    features = _features()
    labelled = np.random.default_rng(1).integers(0, 500, (num_labelled, 4))
    state = PoolState(labelled, None, 2, np.random.default_rng(0), features)
    here, there = (
        network_inputs(state, features, variant, each) for each in (torch.device("cpu"), device)
    )
    for found, expected in zip(there, here, strict=True):
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_a_policy_on_the_device_ranks_as_on_the_cpu(device, tmp_path):
    features = _features()
    network = QueryNetwork(3, len(features))
    spec = PolicySpec(("a", "b", "c"), (32, 32), len(features))
    RalisPolicy(spec, network.to(device)).save(tmp_path / "policy.safetensors")
    loaded = RalisPolicy.load(tmp_path / "policy.safetensors")
    labelled = np.ones((3, 4), np.int64)
    state = PoolState(labelled, None, 2, np.random.default_rng(0), features)
    there = RalisPolicy(spec, network).fitted(("c", "a", "b"), (32, 32)).scores(state, features)
    here = loaded.fitted(("c", "a", "b"), (32, 32)).scores(state, features)
    np.testing.assert_allclose(there, here, atol=1e-4, rtol=1e-3)


def test_a_segmenter_trained_on_the_device_is_measured_resized_saved_and_loaded(device, tmp_path):
    segmenter, image, images = build(SPEC, device=device), _image(), [_labelled_image()]
    assert np.isfinite(finetune(segmenter, images, SHORT, seed=0).final_loss)
    assert evaluate(segmenter, images).sum() == images[0].mask.size
    assert segmenter.resized(4).probabilities(image).shape == (4, 70, 90)
    segmenter.save(tmp_path / "segmenter.safetensors")
    loaded = load(tmp_path / "segmenter.safetensors")
    np.testing.assert_allclose(
        segmenter.probabilities(image), loaded.probabilities(image), atol=ON_TENSOR_CORES
    )


@pytest.mark.long
@pytest.mark.e2e  # likewise
def test_training_goes_on_on_the_device_and_gives_what_is_better_there(device):
    rules = ContinuingConfig(updates_per_look=2, patience=1)
    segmenter, images = build(SPEC, device=device), [_labelled_image()]
    end = train_until_converged(segmenter, images, images, SHORT, rules, mean_iou, seed=0)
    assert end.course.updates >= 2
    assert end.segmenter.device == segmenter.device


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_training_seeds_the_device_that_it_runs_on(name, index):
    with StandInForCuda() as cuda:
        finetune(TinySegmenter(SPEC, device=name), [_labelled_image()], SHORT, seed=7)
    assert cuda.seeds == {index: 7}
