from __future__ import annotations

import logging

import numpy as np
import onnxruntime
import pytest
import torch

from ralis_backend.core import weights
from ralis_backend.core.segmenter import SegmenterSpec, load
from ralis_backend.core.segmenter import smp as module
from ralis_backend.core.segmenter.onnx import export_onnx
from ralis_backend.core.segmenter.smp import SmpSegmenter

SPEC = SegmenterSpec(3, encoder_weights=None)


@pytest.fixture(scope="module")
def segmenter() -> SmpSegmenter:
    return SmpSegmenter(SPEC, seed=1)


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (1, 1), (5, 200), (33, 31)])
def test_an_image_of_any_size_gets_probabilities(segmenter, size):
    probabilities = segmenter.probabilities(_image(*size))
    assert probabilities.shape == (3, *size)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_a_forward_pass_gives_embeddings_of_stride_16(segmenter):
    forward = segmenter.forward_pass(_image(50, 70), ("embeddings",))
    assert forward.embedding_stride == 16
    assert forward.embeddings.shape == (96, 4, 6)


@pytest.mark.parametrize(("architecture", "stride"), [("FPN", 4), ("Unet", 4), ("PSPNet", 8)])
def test_bald_of_an_fpn_equals_the_slow_loop_over_dropout_masks(architecture, stride):
    segmenter = SmpSegmenter(SegmenterSpec(3, architecture, encoder_weights=None), seed=1)
    image = _image(64, 96)
    forward = segmenter.forward_pass(image, ("bald",))
    assert forward.bald_stride == stride
    assert forward.bald.shape == (64 // stride, 96 // stride)
    assert (forward.bald >= 0).all()
    if architecture != "FPN":  # whose heads look at several cells, or at a finer map
        return
    assert forward.bald.max() > 1e-4
    model, drawn = segmenter.model, torch.Generator().manual_seed(0)
    passes = []
    with torch.inference_mode():
        decoded = model.decoder(model.encoder(segmenter.normalised(image)[None]))
        for _ in range(10):
            is_kept = torch.rand(decoded.shape[1], generator=drawn) >= 0.2
            logits = model.segmentation_head[0](decoded * is_kept[:, None, None] / 0.8)
            passes.append(logits[0].softmax(dim=0))
    each = torch.stack(passes)
    mean = each.mean(dim=0)
    mutual = -(mean * mean.log()).sum(dim=0) + (each * each.log()).sum(dim=1).mean(dim=0)
    torch.testing.assert_close(forward.bald, mutual.clamp(min=0), atol=1e-5, rtol=1e-3)


def _decoded_naively(segmenter, image, num_passes, seed):
    """BALD of whole passes of the network with dropout in its decoder, one after another."""
    model, passes = segmenter.model, []
    drawn = torch.Generator().manual_seed(seed)

    def drop(share):
        def hook(module, inputs, output):
            is_kept = torch.rand(output.shape[1], generator=drawn) >= share
            return output * (is_kept / (1 - share)).reshape(1, -1, 1, 1)

        return hook

    hooks = [
        each.register_forward_hook(drop(0.1))
        for each in model.decoder.modules()
        if isinstance(each, torch.nn.ReLU)
    ]
    hooks.append(model.decoder.register_forward_hook(drop(0.2)))
    with torch.inference_mode():
        for _ in range(num_passes):
            decoded = model.decoder(model.encoder(segmenter.normalised(image)[None]))
            passes.append(model.segmentation_head[0](decoded)[0].softmax(dim=0))
    for hook in hooks:
        hook.remove()
    each = torch.stack(passes)
    mean = each.mean(dim=0)
    mutual = -(mean * mean.log()).sum(dim=0) + (each * each.log()).sum(dim=1).mean(dim=0)
    return mutual.clamp(min=0)


def test_deep_bald_equals_whole_passes_with_dropout_in_the_decoder():
    segmenter = SmpSegmenter(SegmenterSpec(3, encoder_weights=None), seed=1)
    image = _image(64, 96)
    forward = segmenter.forward_pass(image, ("deep_bald",))
    assert forward.bald is None
    assert forward.deep_bald.shape == (16, 24)
    assert forward.stride_of("deep_bald") == 4
    naive = _decoded_naively(segmenter, image, 20, seed=0)
    torch.testing.assert_close(forward.deep_bald, naive, atol=1e-5, rtol=1e-3)
    assert naive.max() > 0.01
    again = segmenter.forward_pass(image, ("deep_bald",))  # no hook stays, no mask moves on
    torch.testing.assert_close(again.deep_bald, forward.deep_bald, atol=0, rtol=0)
    torch.testing.assert_close(again.probabilities, segmenter.forward_pass(image).probabilities)


@pytest.mark.parametrize("architecture", ["Unet", "PSPNet", "DeepLabV3Plus", "Segformer"])
def test_every_decoder_gives_deep_bald(architecture):
    segmenter = SmpSegmenter(SegmenterSpec(3, architecture, encoder_weights=None), seed=1)
    forward = segmenter.forward_pass(_image(64, 96), ("deep_bald", "bald"))
    assert forward.deep_bald.shape == forward.bald.shape
    assert (forward.deep_bald >= 0).all()
    assert forward.deep_bald.max() > 0  # small where batch statistics are not trained


def test_a_second_look_mirrors_the_image_and_its_probabilities(segmenter):
    image = _image(50, 70)
    forward = segmenter.forward_pass(image, ("mirrored",))
    mirrored = segmenter.probabilities(np.ascontiguousarray(image[:, ::-1]))[:, :, ::-1]
    np.testing.assert_allclose(forward.mirrored.numpy(), mirrored, atol=1e-6)
    plain = segmenter.forward_pass(image)
    assert plain.offered == set()
    assert plain.mirrored is plain.bald is plain.embeddings is None
    with pytest.raises(ValueError, match=r"kind smp offers no bold; expected some of bald"):
        segmenter.forward_pass(image, ("bold",))


@pytest.mark.e2e  # slow
def test_tiles_agree_with_one_pass_where_the_network_is_local():
    # An FPN's GroupNorm looks at the whole tile; a Unet looks no further than its convolutions.
    local = SmpSegmenter(SegmenterSpec(3, "Unet", encoder_weights=None), seed=2)
    image = _image(700, 430)
    whole = local.forward_pass(image, ("bald", "embeddings"))
    local.max_pixels_per_pass = 120_000
    tiled = local.forward_pass(image, ("bald", "embeddings"))
    assert tiled.probabilities.shape == (3, 700, 430)
    assert tiled.embeddings.shape == whole.embeddings.shape
    assert tiled.embedding_stride == whole.embedding_stride
    assert tiled.bald.shape == whole.bald.shape == (704 // 4, 448 // 4)
    torch.testing.assert_close(tiled.probabilities.sum(dim=0), torch.ones(700, 430))
    assert (tiled.probabilities - whole.probabilities).abs().mean() < 0.02


def test_the_same_seed_builds_the_same_network_and_leaves_the_global_generator_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second, other = (SmpSegmenter(SPEC, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    image = _image(40, 40)
    np.testing.assert_array_equal(first.probabilities(image), second.probabilities(image))
    assert np.abs(first.probabilities(image) - other.probabilities(image)).max() > 1e-3


def test_a_saved_segmenter_computes_the_same_after_loading(segmenter, tmp_path):
    path = tmp_path / "v1.safetensors"
    segmenter.save(path, {"version": "v1"})
    loaded = load(path)
    image = _image(50, 70)
    np.testing.assert_array_equal(loaded.probabilities(image), segmenter.probabilities(image))
    assert loaded.spec == segmenter.spec
    assert loaded.is_pretrained == segmenter.is_pretrained
    assert weights.load_metadata(path)["version"] == "v1"


def test_files_that_hold_something_else_are_refused(segmenter, tmp_path):
    path = tmp_path / "w"
    weights.save(path, {"a": torch.zeros(1)}, {"kind": "policy"})
    with pytest.raises(weights.WeightsError, match="holds a policy, not a segmenter"):
        load(path)
    spec = {"num_classes": 4, "architecture": "FPN", "encoder": "mobilenet_v2"}
    metadata = {"kind": "segmenter", "spec": spec, "seed": 0, "is_pretrained": False}
    weights.save(path, segmenter.model.state_dict(), metadata)
    with pytest.raises(weights.WeightsError, match="does not fit"):
        load(path)


def test_added_classes_keep_the_known_ones_and_begin_improbable(segmenter):
    image = _image(64, 64)
    before = segmenter.probabilities(image)
    grown = segmenter.resized(5)
    after = grown.probabilities(image)
    assert grown.num_classes == 5
    np.testing.assert_allclose(after[:3] / after[:3].sum(axis=0), before, atol=1e-5)
    shrunk = grown.resized(3)
    np.testing.assert_allclose(shrunk.probabilities(image), before, atol=1e-5)
    assert shrunk.spec == segmenter.spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SegmenterSpec(0), "num_classes is 0"),
        (SegmenterSpec(256), "num_classes is 256"),
        (SegmenterSpec(2, architecture="Fpm"), "unknown architecture 'Fpm'.*Unet"),
        (SegmenterSpec(2, encoder="resnet19"), "unknown encoder 'resnet19'.*resnet18"),
        (SegmenterSpec(2, encoder_weights="imagined"), "no weights 'imagined'"),
    ],
)
def test_unknown_networks_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        SmpSegmenter(spec)


def test_images_of_another_kind_are_refused(segmenter):
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
            segmenter.forward_pass(image)


def test_missing_weights_warn_and_name_the_cache(caplog):
    with caplog.at_level(logging.WARNING):  # no folder of this encoder is in the cache
        random = SmpSegmenter(SegmenterSpec(2, encoder="resnet18"))
    assert "HF_HUB_CACHE" in caplog.text
    assert "resnet18" in caplog.text
    assert not random.is_pretrained


def test_without_a_network_one_line_says_so_and_the_hub_nothing(monkeypatch, caplog):
    create = module._create

    def unreachable(spec, seed):
        if spec.encoder_weights is not None:
            logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
            raise ConnectionError("no network")
        return create(spec, seed)

    monkeypatch.setattr(module, "_create", unreachable)
    monkeypatch.setattr(module, "_NOT_TO_BE_HAD", set())
    SmpSegmenter(SegmenterSpec(2))
    (record,) = caplog.records
    assert "could not be had (no network)" in record.message
    logging.getLogger("huggingface_hub.utils._http").warning("as before")
    assert "as before" in caplog.text


def test_imagenet_weights_come_from_the_cache(shared, caplog):
    with caplog.at_level(logging.WARNING):
        pretrained = SmpSegmenter(SegmenterSpec(2))
    assert pretrained.is_pretrained
    assert caplog.text == ""


@pytest.mark.e2e
def test_the_onnx_file_computes_the_same_at_other_sizes(segmenter, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(segmenter, path, (64, 96))
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = _image(128, 160)
    pixels = image.transpose(2, 0, 1)[None].astype(np.float32)
    (probabilities,) = session.run(None, {"image": pixels})
    np.testing.assert_allclose(probabilities[0], segmenter.probabilities(image), atol=1e-4)
