"""Tensors and metadata <-> one safetensors file, written whole or not at all, checked on load.

The only format in which tensors are kept.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ralis_backend.core.files import writing

if TYPE_CHECKING:
    import torch

FORMAT = "ralis-weights"
FORMAT_VERSION = "1"
MAX_HEADER_BYTES = 16_000_000
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 16
MAX_DIMENSION = 2**40
_DTYPES = (
    "F64", "F32", "F16", "BF16", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8",
    "BOOL",
)  # fmt: skip
_VALUES_AT_ONCE = 4_000_000


class WeightsError(ValueError):
    """A weights file cannot be written or used; the message says why and what to do."""


def save(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata to `path`; readers see the old file or the new one.

    Raises:
        WeightsError: if a value is not finite or the metadata is not JSON.
        OSError: if the disk refuses, for example because it is full.
    """
    from safetensors.torch import save_file

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
    metadata = _checked_metadata(path, _header(path))
    tensors = _read(path)
    _require_finite(path, tensors)
    return tensors, metadata


def load_foreign(path: Path) -> dict[str, torch.Tensor]:
    """The tensors, on the CPU, of a safetensors file that any program may have written.

    Raises:
        WeightsError: if there is no such file, it is truncated, of another format, or not finite.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is no file; give the path of a safetensors file")
    _header(path)
    tensors = _read(path)
    _require_finite(path, tensors)
    return tensors


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors; raises as `load` does."""
    return _checked_metadata(path, _header(path))


def require_dimension(count: Any, tensors: Mapping[str, torch.Tensor]) -> int:
    """A number of metadata that makes a network so wide, before the network is made.

    Raises:
        ValueError: if it is no whole number, or no tensor of the file is so wide.
    """
    widest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= widest:
        raise ValueError(f"a width of {str(count)[:40]}, but the tensors are {widest} wide at most")
    return count


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


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors; the format checks that every one lies within the file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _header(path: Path) -> dict[str, str]:
    """The file's own metadata; what is announced of its tensors is checked before any is made.

    What safetensors takes for granted, torch may not: it fails on a type or a dimension that it
    does not know, and takes minutes for many.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _damaged(path, "its header is not all there")
        if length > MAX_HEADER_BYTES:
            raise _damaged(path, f"its header has {length} bytes, at most {MAX_HEADER_BYTES}")
        content = file.read(length)
    try:
        header = json.loads(content)
        metadata = header.pop("__metadata__", {})
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise _damaged(path, f"its header is no JSON object: {error}") from error
    if not isinstance(metadata, dict) or not all(isinstance(it, str) for it in metadata.values()):
        raise _damaged(path, "its metadata is no JSON object of texts")
    if len(header) > MAX_TENSORS:
        raise _damaged(path, f"it has {len(header)} tensors, at most {MAX_TENSORS}")
    for name, entry in header.items():
        _check_tensor(path, name, entry)
    return metadata


def _check_tensor(path: Path, name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or entry.get("dtype") not in _DTYPES:
        kind = entry.get("dtype") if isinstance(entry, dict) else entry
        raise _damaged(
            path, f"tensor {name[:80]!r} is of type {str(kind)[:40]!r}, not {', '.join(_DTYPES)}"
        )
    shape = entry.get("shape")
    is_right = (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(it) is int and 0 <= it <= MAX_DIMENSION for it in shape)
    )
    if not is_right:
        raise _damaged(path, f"tensor {name[:80]!r} has the shape {reprlib.repr(shape)}")


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"{path} is truncated or no safetensors file ({why}); restore it from a backup or use "
        "another version"
    )


def _checked_metadata(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by this program (no '{FORMAT}' in its header)")
    if header.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {header.get('format_version')!r}, expected "
            f"{FORMAT_VERSION!r}; use the release that wrote it, or train again"
        )
    try:
        metadata = json.loads(header["metadata"], parse_constant=_refuse_constant)
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"the metadata of {path} is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"the metadata of {path} is {type(metadata).__name__}, expected object")
    return metadata


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _require_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not _is_finite(tensor):
            raise WeightsError(
                f"tensor '{name}' of {path} holds NaN or infinity; the training that made it "
                "failed: use an earlier version"
            )


def _is_finite(tensor: torch.Tensor) -> bool:
    import torch

    # piece by piece: a check of a large mapped tensor at once holds it in memory several times
    pieces = torch.split(tensor.reshape(-1), _VALUES_AT_ONCE)
    return all(bool(torch.isfinite(piece).all()) for piece in pieces)
