"""Tensors and metadata <-> one safetensors file, written whole or not at all, checked on load.

The only format in which tensors are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ralis_backend.core.files import writing

FORMAT = "ralis-weights"
FORMAT_VERSION = "1"
_VALUES_AT_ONCE = 4_000_000


class WeightsError(ValueError):
    """A weights file cannot be written or used; the message says why and what to do."""


def save(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata to `path`; readers see the old file or the new one.

    Raises:
        WeightsError: if a value is not finite or the metadata is not JSON.
        OSError: if the disk refuses, for example because it is full.
    """
    _require_finite(path, tensors)
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"metadata of {path} is not JSON: {error}") from error
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "metadata": text}
    whole = {  # a copy each: safetensors refuses tensors that share memory
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    try:
        with writing(path) as partial:
            save_file(whole, partial, metadata=header)
    except SafetensorError as error:  # safetensors reports a full disk this way
        raise OSError(f"{path} could not be written: {error}") from error


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the metadata of a file that `save` wrote.

    Raises:
        WeightsError: if the file is truncated, of another format or version, or not finite.
        FileNotFoundError: if there is none.
    """
    tensors, header = _read(path)
    metadata = _checked_metadata(path, header)
    _require_finite(path, tensors)
    return tensors, metadata


def load_foreign(path: Path) -> dict[str, torch.Tensor]:
    """The tensors, on the CPU, of a safetensors file that any program may have written.

    Raises:
        WeightsError: if there is no such file, it is truncated, of another format, or not finite.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is no file; give the path of a safetensors file")
    tensors, _ = _read(path)
    _require_finite(path, tensors)
    return tensors


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors; raises as `load` does."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return _checked_metadata(path, file.metadata())
    except SafetensorError as error:
        raise WeightsError(f"{path} is truncated or no safetensors file ({error})") from error


def digest(path: Path) -> str:
    """SHA-256 of a file: whether it still is what something was computed with."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """Tensors and header; the format checks that every tensor lies within the file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is truncated or no safetensors file ({error}); restore it from a backup or "
            "use another version"
        ) from error


def _checked_metadata(path: Path, header: dict[str, str] | None) -> dict[str, Any]:
    header = header or {}
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by this program (no '{FORMAT}' in its header)")
    if header.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {header.get('format_version')!r}, expected "
            f"{FORMAT_VERSION!r}; use the release that wrote it, or train again"
        )
    try:
        metadata = json.loads(header["metadata"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"the metadata of {path} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"the metadata of {path} is {type(metadata).__name__}, expected object")
    return metadata


def _require_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise WeightsError(
                f"tensor '{name}' of {path} holds NaN or infinity; the training that made it "
                "failed: use an earlier version"
            )


def _is_finite(tensor: torch.Tensor) -> bool:
    # piece by piece: a check of a large mapped tensor at once holds it in memory several times
    pieces = torch.split(tensor.reshape(-1), _VALUES_AT_ONCE)
    return all(bool(torch.isfinite(piece).all()) for piece in pieces)
