from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from ralis_backend.core.segmenter import SegmenterSpec, build, load
from ralis_backend.core.segmenter.smp import SmpSegmenter

TIMM = "test_convnext"


def _encoder(encoder: str, seed: int) -> dict[str, torch.Tensor]:
    segmenter = SmpSegmenter(SegmenterSpec(2, encoder=encoder, encoder_weights=None), seed=seed)
    return segmenter.model.encoder.state_dict()


def _spec(path: Path, encoder: str = "mobilenet_v2") -> SegmenterSpec:
    return SegmenterSpec(2, encoder=encoder, encoder_weights=str(path))


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.safetensors"


@pytest.mark.parametrize("prefix", ["", "encoder.", "teacher.model."])
def test_an_encoders_tensors_are_found_below_any_prefix_and_beside_a_head(path, prefix):
    wanted = _encoder("mobilenet_v2", seed=7)
    tensors = {prefix + name: tensor for name, tensor in wanted.items()}
    _write(path, tensors | {"head.fc.weight": torch.ones(2, 2)})
    segmenter = SmpSegmenter(_spec(path), seed=0)
    assert segmenter.is_pretrained
    found = segmenter.model.encoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_file_with_the_names_of_timm_fills_an_encoder_of_timm(path):
    torch.manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        whole = timm.create_model(TIMM, num_classes=10)
    _write(path, whole.state_dict())
    segmenter = SmpSegmenter(_spec(path, f"tu-{TIMM}"))
    stem = segmenter.model.encoder.state_dict()["model.stem_0.weight"]
    assert torch.equal(stem, whole.state_dict()["stem.0.weight"])
    assert segmenter.probabilities(np.zeros((40, 50, 3), np.uint8)).shape == (2, 40, 50)


def test_what_does_not_fit_is_listed(path):
    tensors = _encoder("mobilenet_v2", seed=0)
    del tensors["features.0.0.weight"]
    tensors["features.3.conv.9.weight"] = torch.ones(3)
    tensors["features.0.1.weight"] = torch.ones(5)
    with pytest.raises(ValueError, match="encoder 'mobilenet_v2'") as raised:
        build(_spec(_write(path, tensors)))
    for complaint in (
        "1 missing: features.0.0.weight",
        "1 unexpected: features.3.conv.9.weight",
        r"features.0.1.weight is (5,), expected (32,)",
        "RALIS_ENCODER",
    ):
        assert complaint in str(raised.value)


def test_a_file_of_something_else_is_refused_and_its_names_are_shown(path):
    _write(path, {f"blocks.{index}.weight": torch.ones(2) for index in range(9)})
    with pytest.raises(ValueError, match=r"missing: .*9 unexpected: blocks.0.weight.*3 more"):
        build(_spec(path))


def test_counters_of_batch_normalisation_may_be_missing(path):
    tensors = _encoder("mobilenet_v2", seed=0)
    kept = {name: it for name, it in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(tensors)
    assert build(_spec(_write(path, kept))).is_pretrained


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is no file"), (b"\x80\x04pickled", "no safetensors file")]
)
def test_files_that_cannot_be_read_are_no_reason_for_random_weights(path, content, message):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build(_spec(path))


def test_a_truncated_file_and_one_with_nan_are_refused(path):
    tensors = _encoder("mobilenet_v2", seed=0)
    _write(path, tensors)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated"):
        build(_spec(path))
    _write(path, tensors | {"features.0.1.bias": torch.full((32,), torch.nan)})
    with pytest.raises(ValueError, match="NaN"):
        build(_spec(path))


def test_versions_do_not_need_the_file_any_more(path, tmp_path):
    segmenter = build(_spec(_write(path, _encoder("mobilenet_v2", seed=4))))
    segmenter.save(tmp_path / "v1")
    path.unlink()
    image = np.full((32, 32, 3), 90, np.uint8)
    loaded = load(tmp_path / "v1")
    assert loaded.spec == segmenter.spec
    np.testing.assert_array_equal(loaded.probabilities(image), segmenter.probabilities(image))
    assert loaded.resized(3).copy().num_classes == 3
