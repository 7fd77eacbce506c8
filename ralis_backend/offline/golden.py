"""A golden file of the RALIS authors' numbers -> how far ours are from them, block by block.

Such a file (.npz) holds generated segmenter outputs, what the authors' code made of them, and the
weights of a query network with its Q-values; `compare` computes all of it again with our code.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ralis_backend.core.features import RegionFeatures, concat, describe, entropy_map
from ralis_backend.core.features.ralis import (
    NUM_BINS,
    NUM_ENTROPIES,
    action_length,
    action_vectors,
    region_length,
    region_vectors,
)
from ralis_backend.core.policy.network import QueryNetwork
from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import ForwardPass

TOLERANCE = 1e-4
HISTOGRAM_TOLERANCE = 1e-3
"""Of the mean total variation: a divergence near a bin's edge may fall on either side of it."""

_LAYERS = {
    "state_layers.0": ("bn1_s", "conv1_s"),
    "state_layers.1": ("bn2_s", "conv2_s"),
    "state_layers.2": ("bn3_s", "conv3_s"),
    "state_summary": ("bn_last_s", "linear_s"),
    "action_layers.0": ("bn1", "conv1"),
    "action_layers.1": ("bn2", "conv2"),
    "action_layers.2": ("bn3", "conv3"),
    "value": ("bn_final", "conv_final2"),
    "gate": ("bn_bias", "conv_bias"),
}
"""Our layer -> the authors' names of its BatchNorm and of its linear map."""

_STRIDE = 16


@dataclass(frozen=True)
class BlockDifference:
    """How far our numbers are from those of the file in one block.

    max_difference: largest absolute difference; of `predicted_class` the share of the pixels that
        differ; of the Q-values divided by max(1, |q|).
    mean_total_variation: of a block of histograms, the mean over regions of half the sum of the
        absolute differences; else None.
    tolerance: of the total variation where there is one, else of the largest difference.
    """

    block: str
    max_difference: float
    mean_total_variation: float | None
    tolerance: float

    @property
    def is_within(self) -> bool:
        """Whether the block agrees."""
        if self.mean_total_variation is None:
            return self.max_difference <= self.tolerance
        return self.mean_total_variation <= self.tolerance


@dataclass(frozen=True)
class _Geometry:
    """The regions of each image, and the classes."""

    num_classes: int
    rows: int
    cols: int
    region_height: int
    region_width: int

    def regions(self) -> list[Region]:
        """Row by row."""
        height, width = self.region_height, self.region_width
        return [
            Region(row * height, col * width, height, width)
            for row in range(self.rows)
            for col in range(self.cols)
        ]


def compare(
    path: Path, tolerance: float = TOLERANCE, histogram_tolerance: float = HISTOGRAM_TOLERANCE
) -> list[BlockDifference]:
    """The difference of every block of the golden file at `path`, in the order of computation.

    Raises:
        ValueError: if the file cannot be read, or an array is missing, misshapen or not finite.
    """
    arrays = _read(path)
    geometry = _geometry(arrays)
    _check_shapes(arrays, geometry)
    network = query_network(arrays)
    entropy, predicted, candidates = _described(arrays["candidate_logits"], geometry)
    state_regions = _described(arrays["state_logits"], geometry)[2]
    actions = _actions(candidates, arrays["labelled_class_distributions"])
    actions = actions.reshape(arrays["action_features"].shape)  # (P, N, D_action)
    state = _state(state_regions)  # (S, D_state)

    counts, pooled, labelled, unlabelled = _blocks(actions, geometry.num_classes)
    theirs = _blocks(arrays["action_features"], geometry.num_classes)
    own_arrays = _q_values(network, arrays["state_features"], arrays["action_features"])
    end_to_end = _q_values(network, state, actions)
    q_values = arrays["q_values"]
    return [
        _largest("entropy_map", entropy, arrays["entropy_map"], tolerance),
        _share("predicted_class", predicted, arrays["predicted_class"], tolerance),
        _largest("class_counts", counts, theirs[0], tolerance),
        _largest("pooled_entropy", pooled, theirs[1], tolerance),
        _variation("labelled_divergences", labelled, theirs[2], histogram_tolerance),
        _variation("unlabelled_divergences", unlabelled, theirs[3], histogram_tolerance),
        _largest("state_features", state, arrays["state_features"], tolerance),
        _relative("q_values", own_arrays, q_values, tolerance),
        _relative("q_values_end_to_end", end_to_end, q_values, tolerance),
    ]


def query_network(arrays: Mapping[str, np.ndarray]) -> QueryNetwork:
    """The query network whose weights the authors' code saved, in eval mode.

    Args:
        arrays: `num_classes`, and the weights under `net/<layer>.<parameter>`.

    Raises:
        ValueError: if a weight is missing or of another shape.
    """
    num_classes = _count(arrays, "num_classes")
    num_state_regions = _array(arrays, "net/linear_s.weight").shape[-1]
    network = QueryNetwork(num_classes, num_state_regions)
    weights = {}
    for name, own in network.state_dict().items():
        layer, part, parameter = name.rsplit(".", 2)
        norm, linear = _LAYERS[layer]
        key = f"net/{norm if part == 'norm' else linear}.{parameter}"
        theirs = _array(arrays, key)
        if theirs.ndim == 3 and theirs.shape[2] == 1:  # a 1x1 convolution is a linear map
            theirs = theirs[:, :, 0]
        _check_shape(key, theirs.shape, tuple(own.shape))
        weights[name] = torch.from_numpy(np.array(theirs)).to(own.dtype)
    network.load_state_dict(weights)
    return network.eval()


def _described(
    logits: np.ndarray, geometry: _Geometry
) -> tuple[np.ndarray, np.ndarray, RegionFeatures]:
    """(I, C, H, W) -> entropy (I, H, W), predicted classes (I, H, W), features of all regions."""
    entropies, classes, features = [], [], []
    for image in logits:
        probabilities = torch.from_numpy(image.astype(np.float32)).softmax(dim=0)
        cells = [-(-side // _STRIDE) for side in probabilities.shape[1:]]
        forward = ForwardPass(probabilities, torch.zeros(1, *cells), _STRIDE)
        entropies.append(entropy_map(probabilities).numpy())
        classes.append(probabilities.argmax(dim=0).numpy())
        features.append(describe(forward, geometry.regions()))
    return np.stack(entropies), np.stack(classes), concat(features)


def _state(features: RegionFeatures) -> np.ndarray:
    """(S, D_state)."""
    counts, grid = torch.from_numpy(features.class_counts), torch.from_numpy(features.entropy_grid)
    state: np.ndarray = region_vectors(counts, grid, "faithful").numpy()
    return state


def _actions(candidates: RegionFeatures, labelled: np.ndarray) -> np.ndarray:
    """(R, D_action)."""
    counts = torch.from_numpy(candidates.class_counts)
    grid = torch.from_numpy(candidates.entropy_grid)
    references = torch.from_numpy(labelled.astype(np.float64))
    actions: np.ndarray = action_vectors(counts, grid, references, counts, "faithful").numpy()
    return actions


def _q_values(network: QueryNetwork, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """(S, D_state) and (P, N, D_action) -> (P, N)."""
    with torch.inference_mode():
        summary = network.summarise(torch.from_numpy(state.astype(np.float32))[None])  # (1, 128)
        pools = torch.from_numpy(actions.astype(np.float32))
        q: np.ndarray = network.action_values(summary.expand(len(pools), -1), pools).numpy()
    return q


def _blocks(actions: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """The class counts, the pooled entropy and the two histograms of (P, N, D_action)."""
    starts = np.cumsum([num_classes + 1, NUM_ENTROPIES, NUM_BINS])
    return np.split(actions, starts, axis=-1)


def _largest(block: str, ours: np.ndarray, theirs: np.ndarray, limit: float) -> BlockDifference:
    return BlockDifference(block, float(_differences(ours, theirs).max()), None, limit)


def _share(block: str, ours: np.ndarray, theirs: np.ndarray, limit: float) -> BlockDifference:
    return BlockDifference(block, float((ours != theirs).mean()), None, limit)


def _relative(block: str, ours: np.ndarray, theirs: np.ndarray, limit: float) -> BlockDifference:
    differences = _differences(ours, theirs) / np.maximum(1, np.abs(theirs))
    return BlockDifference(block, float(differences.max()), None, limit)


def _variation(block: str, ours: np.ndarray, theirs: np.ndarray, limit: float) -> BlockDifference:
    differences = _differences(ours, theirs)
    variations = differences.sum(axis=-1) / 2
    return BlockDifference(block, float(differences.max()), float(variations.mean()), limit)


def _differences(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    differences: np.ndarray = np.abs(ours.astype(np.float64) - theirs)
    return differences


def _read(path: Path) -> dict[str, np.ndarray]:
    fix = "give a golden file as numpy.savez writes it"
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no zip file")
            with np.load(file, allow_pickle=False) as loaded:
                return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {fix}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays ({error}); {fix}") from error


def _geometry(arrays: Mapping[str, np.ndarray]) -> _Geometry:
    return _Geometry(
        num_classes=_count(arrays, "num_classes"),
        rows=_count(arrays, "rows"),
        cols=_count(arrays, "cols"),
        region_height=_count(arrays, "region_height"),
        region_width=_count(arrays, "region_width"),
    )


def _check_shapes(arrays: Mapping[str, np.ndarray], geometry: _Geometry) -> None:
    """Raise a ValueError unless all arrays fit each other."""
    num_classes, per_image = geometry.num_classes, geometry.rows * geometry.cols
    num_images, size = _images(arrays, "candidate_logits", geometry)
    num_state_regions = _images(arrays, "state_logits", geometry)[0] * per_image
    actions = _array(arrays, "action_features").shape
    num_pools = actions[0] if actions else 0
    pool_size = num_images * per_image // max(1, num_pools)
    if num_pools * pool_size != num_images * per_image:
        raise ValueError(
            f"action_features holds {num_pools} pools, expected a divisor of the "
            f"{num_images * per_image} candidates; write every candidate into one pool"
        )
    labelled = _array(arrays, "labelled_class_distributions")
    expected: dict[str, tuple[int | None, ...]] = {
        "entropy_map": (num_images, *size),
        "predicted_class": (num_images, *size),
        "action_features": (num_pools, pool_size, action_length(num_classes)),
        "state_features": (num_state_regions, region_length(num_classes)),
        "q_values": (num_pools, pool_size),
        "net/linear_s.weight": (None, num_state_regions),
    }
    if labelled.size:  # an empty list has no second axis
        expected["labelled_class_distributions"] = (None, num_classes + 1)
    for name, shape in expected.items():
        _check_shape(name, _array(arrays, name).shape, shape)
    if (labelled < 0).any():
        raise ValueError(
            "labelled_class_distributions has a negative entry, expected pixels or shares of each "
            "class; write the file again"
        )


def _images(
    arrays: Mapping[str, np.ndarray], name: str, geometry: _Geometry
) -> tuple[int, tuple[int, int]]:
    """How many images (I, C, H, W) logits hold, and their (H, W)."""
    shape = _array(arrays, name).shape
    _check_shape(name, shape, (None, geometry.num_classes, None, None))
    least = (geometry.rows * geometry.region_height, geometry.cols * geometry.region_width)
    if shape[0] < 1 or shape[2] < least[0] or shape[3] < least[1]:
        raise ValueError(
            f"{name} has shape {shape}, expected at least one image of at least {least[0]} x "
            f"{least[1]} pixels to hold {geometry.rows} x {geometry.cols} regions of "
            f"{geometry.region_height} x {geometry.region_width}; correct the sizes in the file"
        )
    return shape[0], (shape[2], shape[3])


def _count(arrays: Mapping[str, np.ndarray], name: str) -> int:
    array = _array(arrays, name)
    if array.size != 1 or array.item() < 1 or array.item() != int(array.item()):
        raise ValueError(f"{name} is {array.tolist()}, expected one whole number of at least 1")
    return int(array.item())


def _array(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The array `name`, of finite numbers."""
    if name not in arrays:
        raise ValueError(f"the golden file has no array '{name}'; write the file again with it")
    array = arrays[name]
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(
            f"{name} ({array.dtype}) has values that are no finite numbers; write the file again"
        )
    return array


def _check_shape(name: str, actual: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    """`None` stands for any length."""
    fits = len(actual) == len(expected) and all(
        wanted in (None, found) for wanted, found in zip(expected, actual, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in expected)
        raise ValueError(
            f"{name} has shape {actual}, expected ({wanted}); check num_classes, rows, cols and "
            "the region's size in the file"
        )
