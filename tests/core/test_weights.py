from __future__ import annotations

import json
import struct
import time

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


OURS = {"format": weights.FORMAT, "format_version": "1"}
READERS = [weights.load, weights.load_foreign, weights.load_metadata]


def _written(path, header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def _tensor(dtype="F32", shape=(1,), content=b"0000"):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, len(content)]}}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        {"__metadata__": []},
        {"__metadata__": {"a": 1}},
        {"a": []},
        {"a": "F32"},
        _tensor("F4", (8,)),
        _tensor("F8_E4M3", (4,)),
        _tensor([], (1,)),
        _tensor("F32", (-1,)),
        _tensor("F32", (1.0,)),
        _tensor("F32", (True,)),
        _tensor("F32", (0, 2**63 + 1)),
        _tensor("F32", (2**62, 4)),
        _tensor("F32", (1,) * 100_000),
        {f"t{index}": {} for index in range(weights.MAX_TENSORS + 1)},
        {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)},
    ],
    ids=lambda header: str(header)[:30],
)
def test_a_header_that_torch_would_fail_on_is_refused_before_any_tensor(tmp_path, read, header):
    path = _written(tmp_path / "w", header, b"0000")
    started = time.monotonic()
    with pytest.raises(WeightsError, match="truncated or no safetensors file"):
        read(path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100, 20_000_000])
def test_a_header_longer_than_the_file_or_the_limit_is_not_read(tmp_path, read, length):
    path = tmp_path / "w"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(30_000_000 if length == 20_000_000 else 20)
    with pytest.raises(WeightsError, match=r"not all there|header has 20000000 bytes"):
        read(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": NaN}', "-Infinity"])
@pytest.mark.parametrize("read", [weights.load, weights.load_metadata])
def test_metadata_that_is_nested_without_end_or_no_json_is_refused(tmp_path, read, text):
    path = _written(tmp_path / "w", {"__metadata__": {**OURS, "metadata": text}})
    with pytest.raises(WeightsError, match=r"metadata .* is not JSON"):
        read(path)


def test_complex_values_must_be_finite_too(tmp_path):
    path = _written(tmp_path / "w", _tensor("C64", (1,), b"\xff" * 8), b"\xff" * 8)
    with pytest.raises(WeightsError, match="NaN"):
        weights.load_foreign(path)


@pytest.mark.parametrize("count", [0, -1, 4, 10**12, 2.0, True, "3", None, [3]])
def test_a_width_that_no_tensor_has_is_refused(count):
    with pytest.raises(ValueError, match="3 wide at most"):
        weights.require_dimension(count, TENSORS)
    assert weights.require_dimension(3, TENSORS) == 3
