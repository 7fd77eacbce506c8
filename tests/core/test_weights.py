from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ralis_backend.core import weights
from ralis_backend.core.weights import WeightsError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}
METADATA = {"classes": ["Straße", "sky"], "miou": 0.5, "nested": {"x": None}}


def test_tensors_and_metadata_survive_the_file(tmp_path):
    path = tmp_path / "deep" / "v1.safetensors"
    weights.save(path, TENSORS, METADATA)
    tensors, metadata = weights.load(path)
    assert metadata == METADATA == weights.load_metadata(path)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_tensors_that_share_memory_and_strided_ones_are_written(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    weights.save(tmp_path / "w", {"whole": base, "turned": base.T, "row": base[1]}, {})
    tensors, _ = weights.load(tmp_path / "w")
    assert torch.equal(tensors["turned"], base.T)
    assert torch.equal(tensors["row"], base[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path, bad):
    broken = {"layer.weight": torch.tensor([1.0, bad])}
    with pytest.raises(WeightsError, match=r"layer\.weight"):
        weights.save(tmp_path / "w", broken, {})
    assert list(tmp_path.iterdir()) == []
    header = {"format": weights.FORMAT, "format_version": "1", "metadata": "{}"}
    save_file(broken, tmp_path / "w", metadata=header)
    with pytest.raises(WeightsError, match=r"layer\.weight"):
        weights.load(tmp_path / "w")


def test_a_truncated_file_is_refused_at_every_length(tmp_path):
    path = tmp_path / "w"
    weights.save(path, TENSORS, METADATA)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            weights.load(path)


def test_foreign_files_and_versions_are_refused(tmp_path):
    path = tmp_path / "w"
    save_file(TENSORS, path)
    with pytest.raises(WeightsError, match="not written by this program"):
        weights.load(path)
    save_file(TENSORS, path, metadata={"format": weights.FORMAT, "format_version": "2"})
    with pytest.raises(WeightsError, match="version '2'"):
        weights.load(path)
    for text in ("[]", "{"):
        header = {"format": weights.FORMAT, "format_version": "1", "metadata": text}
        save_file(TENSORS, path, metadata=header)
        with pytest.raises(WeightsError, match="metadata"):
            weights.load_metadata(path)


def test_metadata_that_is_not_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "w"
    weights.save(path, TENSORS, {"v": 1})
    for bad in ({"v": object()}, {"v": float("nan")}):
        with pytest.raises(WeightsError, match="not JSON"):
            weights.save(path, TENSORS, bad)
    assert weights.load(path)[1] == {"v": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "none")
