"""One query step of RALIS, ours against the authors' code: time, and whether the numbers agree.

A step describes the candidates and the state set, compares their class histograms, and lets the
query network choose one region of each pool. Both take turns in one process on one thread, so that
a busy machine slows down both; a ratio is the authors' median time divided by ours. It is measured
once with the segmenter's forward pass (one network for both) and once from given logits.

`--original` is a checkout of ArantxaCasanova/ralis, as on GitHub; its code needs SciPy. Called of
it: `compute_state` and `select_action` of models/model_utils.py, with the network of
models/query_network.py; they track gradients and run the segmenter twice on each image. They run
as they are, but for what a machine without CUDA and a query step alone demand: `cuda()` returns its
object; models/fpn.py, models/fpn_bayesian.py, utils/final_utils.py and utils/progressbar.py, which
model_utils.py imports and a query step does not call, are empty stand-ins; so are the data sets,
which hold their images in memory and give the state set's regions row by row. Printing and the
warnings of old calls are silenced.

    OMP_NUM_THREADS=1 python benchmarks/query_step.py --original FOLDER \
        --out benchmarks/results/query_step.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ralis_backend.core.features import concat, describe
from ralis_backend.core.features.ralis import (
    NUM_BINS,
    action_vectors,
    region_length,
    region_vectors,
)
from ralis_backend.core.files import write_json
from ralis_backend.core.policy.network import QueryNetwork
from ralis_backend.core.regions import Region, grid
from ralis_backend.core.segmenter import ForwardPass, Segmenter, SegmenterSpec, build
from ralis_backend.offline.golden import query_network

NUM_CLASSES = 11
NUM_POOLS = 24
POOL_SIZES = (10, 20)
NUM_LABELLED = (0, 480, 1920)
NUM_STATE_IMAGES = 10
IMAGE_SIZE = (360, 480)
REGION_SIZE = (90, 80)
FEATURES = ("class_counts", "entropy_grid")  # what RALIS looks at

Step = tuple[np.ndarray, np.ndarray, np.ndarray]
"""State (S, D_state), actions (K, N, D_action), chosen index of each pool (K,)."""


@dataclass(frozen=True)
class Inputs:
    """What a step looks at.

    images: of the candidates, as our `forward_pass` and their network's input.
    candidates: (image, x, y) of each, sorted as the authors' code sorts them.
    labelled: (L, C + 1) shares of the classes of each labelled region.
    """

    images: list[Any]
    their_images: list[torch.Tensor]
    state_images: list[Any]
    their_state_images: list[torch.Tensor]
    candidates: list[tuple[int, int, int]]
    labelled: np.ndarray
    seed: int = 0


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, required=True, help="the authors' repository")
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]

    original = _import_original(options.original)
    spec = SegmenterSpec(NUM_CLASSES, encoder_weights=None)
    segmenter = build(spec)
    networks = _networks(original)
    cases = []
    for has_forward in (True, False):
        for pool_size in POOL_SIZES:
            for num_labelled in NUM_LABELLED:
                inputs = _inputs(segmenter if has_forward else None, pool_size, num_labelled)
                case = {
                    "forward_pass": has_forward,
                    "pool_size": pool_size,
                    "labelled": num_labelled,
                    **_compare(
                        _ours(inputs, networks[0], segmenter if has_forward else None),
                        _theirs(inputs, networks[1], segmenter if has_forward else None, original),
                        options.turns,
                    ),
                }
                print(json.dumps(case), file=sys.stderr)
                cases.append(case)
    report = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/query_step.py --original FOLDER",
        "pools": NUM_POOLS,
        "classes": NUM_CLASSES,
        "state_images": NUM_STATE_IMAGES,
        "image_size": IMAGE_SIZE,
        "region_size": REGION_SIZE,
        "segmenter": f"{spec.architecture} {spec.encoder}, random weights",
        "turns": options.turns,
        "threads": 1,
        "cpus": os.cpu_count(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cases": cases,
    }
    print(json.dumps(report, indent=2))
    if options.out is not None:
        write_json(options.out, report)


def _compare(ours: Callable[[], Step], theirs: Callable[[], Step], turns: int) -> dict[str, Any]:
    """Both in turn, in alternating order; the first turn of each warms up and is compared."""
    agreement = _agreement(ours(), theirs())
    ours_s: list[float] = []
    theirs_s: list[float] = []
    sides = [(ours, ours_s), (theirs, theirs_s)]
    for _ in range(turns):
        for step, times in sides:
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        sides.reverse()
    ours_median, theirs_median = statistics.median(ours_s), statistics.median(theirs_s)
    return {
        "ours_s": round(ours_median, 4),
        "original_s": round(theirs_median, 4),
        "ratio": round(theirs_median / ours_median, 2),
        **agreement,
    }


def _agreement(ours: Step, theirs: Step) -> dict[str, Any]:
    split = region_length(NUM_CLASSES)
    regions = np.abs(ours[1][..., :split] - theirs[1][..., :split])
    entropies = np.abs(ours[0] - theirs[0])[:, NUM_CLASSES + 1 :]
    histograms = np.abs(ours[1][..., split:] - theirs[1][..., split:])
    labelled, unlabelled = histograms[..., :NUM_BINS], histograms[..., NUM_BINS:]
    moved = np.abs(ours[0] - theirs[0])[:, : NUM_CLASSES + 1].sum() / 2
    return {
        "max_entropy_difference": float(
            max(entropies.max(), regions[..., NUM_CLASSES + 1 :].max())
        ),
        "pixels_of_another_class": round(float(moved + regions[..., : NUM_CLASSES + 1].sum() / 2)),
        "labelled_variation": round(float(labelled.sum(axis=-1).mean() / 2), 6),
        "unlabelled_variation": round(float(unlabelled.sum(axis=-1).mean() / 2), 6),
        "same_actions": f"{(ours[2] == theirs[2]).sum()} of {NUM_POOLS}",
    }


def _ours(inputs: Inputs, network: QueryNetwork, segmenter: Segmenter | None) -> Callable[[], Step]:
    by_image: list[list[Region]] = [[] for _ in inputs.images]
    for image, x, y in inputs.candidates:
        by_image[image].append(Region(y, x, *REGION_SIZE))
    whole = grid(IMAGE_SIZE, REGION_SIZE)
    labelled = torch.from_numpy(inputs.labelled)
    look = _given if segmenter is None else segmenter.forward_pass

    def step() -> Step:
        torch.manual_seed(inputs.seed)
        candidates = concat(
            [
                describe(look(image), regions, FEATURES)
                for image, regions in zip(inputs.images, by_image, strict=True)
                if regions
            ]
        )
        state_set = concat(
            [describe(look(image), whole, FEATURES) for image in inputs.state_images]
        )
        candidates = candidates.take(torch.randperm(len(candidates)).numpy())
        counts = torch.from_numpy(candidates.class_counts)
        pooled = torch.from_numpy(candidates.entropy_grid)
        actions = action_vectors(counts, pooled, labelled, counts, "faithful")
        actions = actions.reshape(NUM_POOLS, -1, actions.shape[1])  # (K, N, D_action)
        state = region_vectors(
            torch.from_numpy(state_set.class_counts),
            torch.from_numpy(state_set.entropy_grid),
            "faithful",
        )
        with torch.inference_mode():
            summary = network.summarise(state[None]).expand(NUM_POOLS, -1)
            chosen = network.action_values(summary, actions).argmax(dim=1)
        return state.numpy(), actions.numpy(), chosen.numpy()

    return step


def _given(logits: torch.Tensor) -> ForwardPass:
    return ForwardPass(logits.softmax(dim=0))


def _theirs(
    inputs: Inputs, network: nn.Module, segmenter: Segmenter | None, original: ModuleType
) -> Callable[[], Step]:
    options = SimpleNamespace(al_algorithm="ralis")
    train_set = SimpleNamespace(balance_cl=inputs.labelled.tolist(), num_classes=NUM_CLASSES)
    candidate_set = _CandidateSet(inputs)
    segmentation = _TheirSegmenter(segmenter)
    region_size = (REGION_SIZE[1], REGION_SIZE[0])

    def step() -> Step:
        torch.manual_seed(inputs.seed)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state, _ = original.compute_state(
                options,
                segmentation,
                list(inputs.candidates),
                candidate_set,
                train_set,
                num_groups=NUM_POOLS,
                reg_sz=region_size,
            )
            chosen, _, _ = original.select_action(options, network, state, 0, test=True)
        return state["subset"].numpy(), state["pool"].numpy(), chosen.numpy()

    return step


class _CandidateSet:
    """Stands for the authors' data set; its images are in memory already."""

    def __init__(self, inputs: Inputs) -> None:
        self.state_subset = inputs.their_state_images
        self._images = inputs.their_images
        self._mask = torch.zeros(IMAGE_SIZE)
        self._regions = [(region.col, region.row) for region in grid(IMAGE_SIZE, REGION_SIZE)]

    def get_specific_item(self, index: int) -> tuple[Any, ...]:
        return self._images[index], self._mask, None, None

    def get_subset_state(self, index: int) -> tuple[Any, ...]:
        return self.state_subset[index], self._mask, None, None, self._regions


class _TheirSegmenter(nn.Module):
    """Logits and a second output, as the authors' network; without a segmenter those given."""

    def __init__(self, segmenter: Segmenter | None) -> None:
        super().__init__()
        self.model = nn.Identity() if segmenter is None else segmenter.model
        self._is_given = segmenter is None

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        if self._is_given:
            return pixels, None
        height, width = IMAGE_SIZE
        padded = functional.pad(pixels, (0, -width % 32, 0, -height % 32), mode="reflect")
        return self.model(padded)[:, :, :height, :width], None


def _inputs(segmenter: Segmenter | None, pool_size: int, num_labelled: int) -> Inputs:
    """Scenes for the segmenter, else logits in patches; as many images as hold the candidates."""
    # here, since `gpu` takes this module's sizes where the commands' packages are missing
    from ralis_backend.cli.demo.scenes import generate

    rng = np.random.default_rng(0)
    regions = grid(IMAGE_SIZE, REGION_SIZE)
    num_candidates = NUM_POOLS * pool_size
    num_images = num_candidates // len(regions) + 1  # the authors' code takes one more than needed
    places = [(image, region.col, region.row) for image in range(num_images) for region in regions]
    drawn = rng.choice(len(places), num_candidates, replace=False)
    shares = rng.dirichlet(np.full(NUM_CLASSES + 1, 0.3), num_labelled)
    pixels = np.array([rng.multinomial(REGION_SIZE[0] * REGION_SIZE[1], each) for each in shares])
    labelled = pixels.reshape(num_labelled, NUM_CLASSES + 1) / (REGION_SIZE[0] * REGION_SIZE[1])
    if segmenter is None:
        images: list[Any] = [_logits(index) for index in range(num_images + NUM_STATE_IMAGES)]
        theirs = images
    else:
        images = [scene.image for scene in generate(num_images + NUM_STATE_IMAGES, IMAGE_SIZE)]
        theirs = [segmenter.normalised(image) for image in images]
    return Inputs(
        images=images[:num_images],
        their_images=theirs[:num_images],
        state_images=images[num_images:],
        their_state_images=theirs[num_images:],
        candidates=sorted(places[index] for index in drawn),
        labelled=np.where(labelled == 0, 1e-7, labelled),
    )


def _logits(seed: int) -> torch.Tensor:
    """(C, H, W): smooth patches of classes under noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn((1, NUM_CLASSES, 7, 9), generator=generator)
    smooth = functional.interpolate(coarse, IMAGE_SIZE, mode="bilinear", align_corners=True)[0]
    return smooth + torch.randn((NUM_CLASSES, *IMAGE_SIZE), generator=generator)


def _networks(original: ModuleType) -> tuple[QueryNetwork, nn.Module]:
    """The same weights in our network and in the authors'."""
    length = region_length(NUM_CLASSES)
    num_state_regions = NUM_STATE_IMAGES * len(grid(IMAGE_SIZE, REGION_SIZE))
    torch.manual_seed(0)
    theirs = original.QueryNetworkDQN(
        indexes_full_state=num_state_regions, input_size=length, input_size_subset=length
    )
    for name, values in theirs.state_dict().items():  # inputs are pixel counts
        if name in ("bn1.running_var", "bn1_s.running_var"):
            values[: NUM_CLASSES + 1] = 1000.0**2
    arrays = {f"net/{name}": values.numpy() for name, values in theirs.state_dict().items()}
    ours = query_network({"num_classes": np.array(NUM_CLASSES), **arrays})
    return ours, theirs.eval()


def _import_original(folder: Path) -> ModuleType:
    """The authors' models/model_utils.py, with stand-ins for what a query step does not call."""
    if not (folder / "models" / "model_utils.py").is_file():
        raise SystemExit(
            f"{folder} holds no models/model_utils.py; check out ArantxaCasanova/ralis there"
        )
    stand_ins = {
        "models.fpn": ("FPN50",),
        "models.fpn_bayesian": ("FPN50_bayesian",),
        "utils.final_utils": ("get_logfile",),
        "utils.progressbar": ("progress_bar",),
    }
    for name, attributes in stand_ins.items():
        module = ModuleType(name)
        for attribute in attributes:
            setattr(module, attribute, None)
        sys.modules[name] = module
    _without_cuda((torch.Tensor, nn.Module))
    sys.path.insert(0, str(folder))
    from models import model_utils

    return model_utils


def _without_cuda(classes: Sequence[Any]) -> None:
    for each in classes:
        each.cuda = lambda self, *_, **__: self


if __name__ == "__main__":
    main()
