"""A file of an encoder's tensors -> the encoder, or an error that says what does not fit.

Names are those of the encoder itself or of timm, which writes `stages.0.x` where its feature
extractors have `stages_0.x`; all may stand below a prefix, as `encoder.` or `model.`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ralis_backend.core import weights

SUFFIX = ".safetensors"
_NAMES_SHOWN = 6
_COUNTER = "num_batches_tracked"
"""BatchNorm counts its updates in it; nothing here reads that, and older files have none."""


def is_file(encoder_weights: str) -> bool:
    """Whether it is a file's path, and no name that the hub knows."""
    return encoder_weights.endswith(SUFFIX)


def load(path: Path, encoder: nn.Module, name: str) -> None:
    """Fill `encoder` with the tensors of a safetensors file; what heads need is left out.

    Args:
        path: the file; it needs no header of ours.
        encoder: any module.
        name: of the encoder, for errors.

    Raises:
        weights.WeightsError: if the file cannot be read, or names or shapes differ.
    """
    wanted = encoder.state_dict()
    found = _named_as(wanted, weights.load_foreign(path))
    complaints = _complaints(wanted, found)
    if complaints:
        raise weights.WeightsError(
            f"{path} does not hold the weights of encoder '{name}': {'; '.join(complaints)}. Set "
            "RALIS_ENCODER to the encoder that the file was made with, or RALIS_ENCODER_WEIGHTS "
            "to another file"
        )
    encoder.load_state_dict({key: found.get(key, kept) for key, kept in wanted.items()})


def _named_as(
    wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The file's tensors of the encoder, under the encoder's names; those it lacks keep theirs."""
    candidates = []
    for own in ("", _shared_prefix(wanted)):
        names = {_flat(name.removeprefix(own)): name for name in wanted}
        candidates.append((names, *_best_prefix(names, tensors)))
    names, prefix, num_found = max(candidates, key=lambda candidate: candidate[2])
    return {
        names.get(_flat(name), name): tensor
        for name, tensor in weights.below(prefix, tensors).items()
        if _is_of(names, name) or not num_found
    }


def _best_prefix(names: Mapping[str, str], tensors: Iterable[str]) -> tuple[str, int]:
    """The prefix, a shorter one first, below which most of `names` are found, and how many are."""
    hits: Counter[str] = Counter({"": 0})
    for tensor in tensors:
        parts = tensor.split(".")
        for length in range(len(parts)):
            if _flat(".".join(parts[length:])) in names:
                hits["".join(f"{part}." for part in parts[:length])] += 1
    return min(hits.items(), key=lambda each: (-each[1], len(each[0])))


def _is_of(names: Iterable[str], tensor: str) -> bool:
    """Whether a tensor belongs to a part that the encoder has: a classifier's does not."""
    part = f"{tensor.split('.')[0]}_"
    return any(name.startswith(part) for name in names)


def _shared_prefix(names: Iterable[str]) -> str:
    """The first part of the names, with its dot, where all have the same."""
    first = {name.split(".")[0] for name in names}
    return f"{first.pop()}." if len(first) == 1 else ""


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _complaints(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in found and not name.endswith(_COUNTER)]
    unexpected = [name for name in found if name not in wanted]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    listed = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {what}: {_some(names)}" for what, names in listed if names]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
