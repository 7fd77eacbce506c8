from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import onnxruntime
import pytest
import torch

from ralis_backend.core import weights
from ralis_backend.core.features import (
    FEATURES,
    describe,
    describe_parts,
    maps_for,
    predicted_classes,
)
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.metrics import mean_iou
from ralis_backend.core.regions import Region, grid
from ralis_backend.core.segmenter import ForwardPass, SegmenterSpec, build, load, network
from ralis_backend.core.segmenter.onnx import export_onnx
from ralis_backend.core.segmenter.registry import encoder_facts, encoder_spec
from ralis_backend.core.segmenter.smp import SmpSegmenter
from tests.tiny_segmenter import TinySegmenter

CONFIG = FinetuneConfig(steps=60, batch_size=4, crop_size=(32, 32), learning_rate=5e-3)


TINY = replace(CONFIG, steps=3)


def _stripes() -> LabelledImage:
    """Three stripes, each of its colour, of sides that are no multiples of the stride."""
    mask = np.repeat(np.arange(3, dtype=np.uint8), 22)[None].repeat(50, axis=0)
    pixels = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)[mask]
    return LabelledImage(lambda: pixels, mask, tuple(grid((50, 66), (25, 22))))


def test_a_segmenter_of_another_package_learns_ranks_and_lives_on(tiny_segmenters, tmp_path):
    image = _stripes()
    segmenter = build(tiny_segmenters, seed=1)
    assert isinstance(segmenter, TinySegmenter)
    before = mean_iou(evaluate(segmenter, [image]))
    finetune(segmenter, [image], CONFIG, seed=0)
    assert mean_iou(evaluate(segmenter, [image])) > max(0.8, before)
    seen = segmenter.forward_pass(image.load(), segmenter.offers)
    features = describe(seen, list(image.regions))
    assert features.embeddings.shape == (6, 12)
    assert np.isfinite(features.mirror_divergence).all()

    segmenter.save(tmp_path / "v1", {"version": "v1"})
    loaded = load(tmp_path / "v1")
    assert loaded.spec == tiny_segmenters
    expected = segmenter.probabilities(image.load())
    np.testing.assert_array_equal(loaded.probabilities(image.load()), expected)
    grown = loaded.resized(5)
    after = grown.probabilities(image.load())
    np.testing.assert_allclose(after[:3] / after[:3].sum(axis=0), expected, atol=1e-5)


@pytest.mark.e2e
def test_a_segmenter_of_another_package_is_exported(tiny_segmenters, tmp_path):
    segmenter, image = build(tiny_segmenters), _stripes().load()[:48, :64]
    export_onnx(segmenter, tmp_path / "tiny.onnx", (32, 32))
    session = onnxruntime.InferenceSession(tmp_path / "tiny.onnx")
    pixels = image.transpose(2, 0, 1)[None].astype(np.float32)
    (probabilities,) = session.run(None, {"image": pixels})
    np.testing.assert_allclose(probabilities[0], segmenter.probabilities(image), atol=1e-4)


def test_a_copy_computes_the_same_and_learns_on_its_own():
    segmenter = build(SegmenterSpec(2, encoder_weights=None), seed=3)
    copy, pixels = segmenter.copy(), _stripes().load()
    before = segmenter.probabilities(pixels)
    np.testing.assert_array_equal(copy.probabilities(pixels), before)
    finetune(copy, [replace(_stripes(), mask=np.ones((50, 66), np.uint8))], TINY, seed=0)
    assert copy.is_pretrained
    assert not segmenter.is_pretrained
    np.testing.assert_array_equal(segmenter.probabilities(pixels), before)
    assert np.abs(copy.probabilities(pixels) - before).max() > 0.1


def test_files_of_before_there_were_kinds_are_read(tmp_path):
    segmenter = SmpSegmenter(SegmenterSpec(2, encoder_weights=None), seed=2)
    metadata = {"kind": "segmenter", "spec": asdict(segmenter.spec), "seed": 2}
    weights.save(tmp_path / "w", segmenter.state(), metadata | {"is_pretrained": True})
    loaded = load(tmp_path / "w")
    assert loaded.is_pretrained
    assert torch.equal(loaded.logits(torch.ones(1, 3, 32, 32)),
                       segmenter.logits(torch.ones(1, 3, 32, 32)))  # fmt: skip


def test_a_file_of_a_kind_that_is_not_registered_is_refused_by_name(tmp_path):
    TinySegmenter(SegmenterSpec(2, "tiny")).save(tmp_path / "w")
    with pytest.raises(weights.WeightsError, match="kind 'tiny', expected one of smp"):
        load(tmp_path / "w")
    with pytest.raises(ValueError, match=r"unknown architecture 'tiny'.*kind: none is installed"):
        build(SegmenterSpec(2, "tiny"))


def test_a_mistyped_architecture_is_told_every_kind(tiny_segmenters):
    with pytest.raises(ValueError, match=r"unknown architecture 'tinny'.*Unet.*kind: tiny$"):
        build(replace(tiny_segmenters, architecture="tinny"))


def test_a_kind_without_an_encoder_lacks_no_weights_and_reads_none(tiny_segmenters, tmp_path):
    assert not build(replace(tiny_segmenters, encoder_weights="imagenet")).lacks_weights
    own = tmp_path / "own.safetensors"
    with pytest.raises(ValueError, match="kind tiny reads no file of encoder weights"):
        build(replace(tiny_segmenters, encoder_weights=str(own)))


def test_a_large_image_is_looked_at_in_tiles_whatever_the_kind(tiny_segmenters):
    segmenter, image = build(tiny_segmenters, seed=1), np.zeros((300, 900, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, 900).astype(np.uint8)
    whole = segmenter.forward_pass(image, segmenter.offers)
    segmenter.max_pixels_per_pass = 150_000
    tiled = segmenter.forward_pass(image, segmenter.offers)
    assert tiled.embedding_stride == whole.embedding_stride == 4
    for name in ("probabilities", "embeddings", "mirrored"):
        torch.testing.assert_close(getattr(tiled, name), getattr(whole, name), atol=0.02, rtol=0)


def test_features_depend_on_the_encoder_and_on_what_is_in_its_file(tiny_segmenters, tmp_path):
    assert encoder_facts(SegmenterSpec(2, "Unet")) == {
        "encoder": "mobilenet_v2", "encoder_weights": "imagenet",
    }  # fmt: skip
    assert encoder_spec(SegmenterSpec(2, "DeepLabV3")).architecture == "FPN"
    assert encoder_facts(tiny_segmenters)["architecture"] == "tiny"
    path = tmp_path / "own.safetensors"
    digests = set()
    for content in (b"a", b"b"):
        path.write_bytes(content)
        facts = encoder_facts(SegmenterSpec(2, encoder_weights=str(path)))
        digests.add(facts["encoder_weights_sha256"])
    assert len(digests) == 2


def test_a_large_image_is_described_part_by_part_as_it_is_as_a_whole(tiny_segmenters):
    segmenter = build(tiny_segmenters, seed=1)
    image = np.random.default_rng(0).integers(0, 256, (301, 903, 3), np.uint8)
    regions = grid((301, 903), (64, 64))
    segmenter.max_pixels_per_pass = 70_000
    parts = list(segmenter.parts(image, segmenter.offers))
    assert len(parts) > 4
    features, predicted = describe_parts(parts, (301, 903), regions)
    whole = segmenter.forward_pass(image, segmenter.offers)
    expected = describe(whole, regions)
    offered = [name for name in FEATURES if maps_for((name,)) <= segmenter.offers]
    assert len(offered) == 13
    for name in offered:
        np.testing.assert_allclose(
            features[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name
        )
    np.testing.assert_array_equal(predicted, whole.predicted.numpy())
    np.testing.assert_array_equal(predicted_classes(segmenter, image), predicted)


def test_an_image_that_fits_is_one_part(tiny_segmenters):
    segmenter, image = build(tiny_segmenters), _stripes().load()
    ((region, seen),) = segmenter.parts(image, ("bald",))
    assert region == Region(0, 0, 50, 66)
    torch.testing.assert_close(seen.bald, segmenter.forward_pass(image, ("bald",)).bald)


@pytest.mark.e2e  # slow
def test_many_classes_are_seen_in_smaller_tiles(tiny_segmenters, monkeypatch):
    monkeypatch.setattr(network, "MAX_VALUES_PER_PASS", 255 * 90_000)
    image = np.zeros((400, 500, 3), np.uint8)
    few, many = build(tiny_segmenters), build(tiny_segmenters.for_classes(255))
    assert len(list(few.parts(image))) == 1
    assert max(seen.probabilities[0].numel() for _, seen in many.parts(image)) <= 90_000


def test_a_segmenter_with_a_look_of_its_own_is_asked_for_it(tiny_segmenters):
    class Own(TinySegmenter):
        def forward_pass(self, image, maps=()):
            return ForwardPass(torch.ones(1, *image.shape[:2]))

    segmenter = Own(tiny_segmenters)
    segmenter.max_pixels_per_pass = 1_000
    ((_, seen),) = segmenter.parts(np.zeros((90, 90, 3), np.uint8))
    assert len(seen.probabilities) == 1
