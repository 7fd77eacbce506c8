"""Tests of a segmenter, and of an objective that segmenters learn from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core.features import describe
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.objective import Objective, ObjectiveFactory
from ralis_backend.core.regions import VOID, grid
from ralis_backend.core.segmenter import MAPS, Segmenter, SegmenterSpec, build, load
from ralis_backend.core.segmenter.registry import Kind

NUM_CLASSES = 3
SIZES = ((64, 64), (37, 53))
"""Height and width of images; sides need be no multiple of any stride."""
_CONFIG = FinetuneConfig(steps=1, batch_size=2, crop_size=(64, 64), learning_rate=1e-2)
_TOLERANCE = 1e-4


def builds_a_segmenter(name: str, kind: Kind) -> None:
    """Without pretrained weights, under the name of its entry point."""
    segmenter = _built(name, kind)
    if segmenter.kind != name:
        raise ValueError(
            f"its kind is '{segmenter.kind}', expected '{name}' as the entry point is called: "
            "files name it; rename one of them"
        )
    if segmenter.num_classes != NUM_CLASSES:
        raise ValueError(f"it has {segmenter.num_classes} classes, expected spec.num_classes")


def begins_alike_with_the_same_seed(name: str, kind: Kind) -> None:
    """And a training can be repeated."""
    _check_equal(_built(name, kind), _built(name, kind), "of two segmenters with the same seed")


def gives_probabilities_at_any_size(name: str, kind: Kind) -> None:
    """Each pixel's sum to 1."""
    segmenter = _built(name, kind)
    for size in SIZES:
        found = segmenter.probabilities(_pixels(size))
        expected = (NUM_CLASSES, *size)
        if found.shape != expected or found.dtype != np.float32:
            raise ValueError(
                f"probabilities of an image of {size[0]} x {size[1]} pixels have shape "
                f"{found.shape} and dtype {found.dtype}, expected {expected} and float32; pad to "
                "the stride, and cut afterwards"
            )
        if not np.allclose(found.sum(axis=0), 1, atol=_TOLERANCE) or found.min() < 0:
            raise ValueError(
                f"a pixel's probabilities sum to {found.sum(axis=0).max():.3f}, expected 1; end "
                "with softmax"
            )


def offers_what_it_says(name: str, kind: Kind) -> None:
    """And strategies can be told it of each region."""
    segmenter = _built(name, kind)
    if unknown := sorted(segmenter.offers - set(MAPS)):
        raise ValueError(f"it offers unknown {unknown}; expected some of {', '.join(MAPS)}")
    for size in SIZES:
        seen = segmenter.forward_pass(_pixels(size), segmenter.offers)
        if missing := sorted(segmenter.offers - seen.offered):
            raise ValueError(
                f"it offers {', '.join(missing)}, but its forward pass holds none; fill the field, "
                "or leave the name out of offers"
            )
        features = describe(seen, grid(size, (16, 16)))
        for each in features:
            if not np.isfinite(features[each]).all():
                raise ValueError(f"the regions' {each} is not finite; look at what it is made of")


def shows_two_stages_or_more(name: str, kind: Kind) -> None:
    """Which the fast simulation and the trust gate are made of."""
    stages = _built(name, kind).stages(_pixels(SIZES[1]))
    strides = [stride for _, stride in stages]
    if not 2 <= len(stages) <= 4 or strides != sorted(strides):
        raise ValueError(f"its stages have the strides {strides}, expected 2 to 4, rising")
    for features, stride in stages:
        height, width = features.shape[1:]
        if height * stride < SIZES[1][0] or width * stride < SIZES[1][1]:
            raise ValueError(
                f"a stage of stride {stride} has {height} x {width} cells, which do not cover an "
                f"image of {SIZES[1][0]} x {SIZES[1][1]} pixels; pad to the stride"
            )


def learns(name: str, kind: Kind) -> None:
    """A step changes its weights."""
    segmenter = _built(name, kind)
    before = {each: tensor.clone() for each, tensor in segmenter.state().items()}
    finetune(segmenter, _labelled(), _CONFIG, seed=0)
    after = segmenter.state()
    if all(torch.equal(tensor, after[each]) for each, tensor in before.items()):
        raise ValueError(
            "a training step changed no weight; `state` must give what `model` learns, and logits "
            "must be computed with gradients"
        )


def comes_back_from_its_file(name: str, kind: Kind) -> None:
    """And its copies compute the same."""
    segmenter = _built(name, kind)
    finetune(segmenter, _labelled(), _CONFIG, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        segmenter.save(Path(folder) / "segmenter.safetensors")
        _check_equal(segmenter, load(Path(folder) / "segmenter.safetensors"), "after save and load")
    _check_equal(segmenter, segmenter.copy(), "of its copy")


def takes_another_number_of_classes(name: str, kind: Kind) -> None:
    """What it knows of the first ones stays."""
    segmenter = _built(name, kind)
    known = segmenter.probabilities(_pixels(SIZES[0]))
    grown = segmenter.resized(NUM_CLASSES + 2).probabilities(_pixels(SIZES[0]))
    if len(grown) != NUM_CLASSES + 2:
        raise ValueError(f"resized to {NUM_CLASSES + 2} classes it gives {len(grown)}")
    kept = grown[:NUM_CLASSES] / grown[:NUM_CLASSES].sum(axis=0)
    if not np.allclose(kept, known, atol=1e-3):
        raise ValueError(
            "resized to more classes it forgets the first ones; only tensors whose first dimension "
            "is the number of classes may grow, see NetworkSegmenter.resized"
        )


SEGMENTER_TESTS = (
    builds_a_segmenter,
    begins_alike_with_the_same_seed,
    gives_probabilities_at_any_size,
    offers_what_it_says,
    shows_two_stages_or_more,
    learns,
    comes_back_from_its_file,
    takes_another_number_of_classes,
)


def makes_an_objective(name: str, factory: ObjectiveFactory) -> None:
    """See `Objective`."""
    objective = _objective(factory)
    expected = ("weight", "begin", "loss", "after_step", "facts")
    if missing := [each for each in expected if not hasattr(objective, each)]:
        raise ValueError(f"the objective has no {', '.join(missing)}; see Objective")
    weight = objective.weight
    if not isinstance(weight, int | float) or not np.isfinite(weight) or weight <= 0:
        raise ValueError(f"its weight is {weight!r}, expected a positive number")


def gives_a_finite_loss_to_learn_from(name: str, factory: ObjectiveFactory) -> None:
    """A scalar that depends on the segmenter's weights."""
    segmenter, objective = build(_SPEC), _objective(factory)
    segmenter.model.train()
    objective.begin(segmenter)
    for step in (1, _LATE):
        loss = objective.loss(segmenter, step)
        if not isinstance(loss, torch.Tensor) or loss.ndim or not torch.isfinite(loss):
            raise ValueError(f"its loss is {loss!r}, expected a tensor with one finite number")
    if not loss.requires_grad:
        raise ValueError(
            "its loss has no gradient; compute it from segmenter.logits(...), outside "
            "torch.no_grad, and without .item()"
        )
    torch.autograd.backward(loss)
    if not any(_is_changed(each) for each in segmenter.model.parameters()):
        raise ValueError("its loss depends on no weight; compute it from segmenter.logits(...)")
    objective.after_step(segmenter, _LATE)


OBJECTIVE_TESTS = (makes_an_objective, gives_a_finite_loss_to_learn_from)

_LATE = 1_000_000
"""A step by which whatever is learned later than paint has begun."""
_SPEC = SegmenterSpec(NUM_CLASSES, encoder_weights=None)


def _is_changed(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _objective(factory: ObjectiveFactory) -> Objective:
    return factory(_labelled(), _CONFIG, NUM_CLASSES, seed=0)


def _built(name: str, kind: Kind) -> Segmenter:
    return kind(SegmenterSpec(NUM_CLASSES, name, encoder_weights=None), seed=1)


def _pixels(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


def _labelled() -> Sequence[LabelledImage]:
    """One image of three stripes, a colour for each; people labelled its upper half."""
    mask = np.repeat(np.arange(NUM_CLASSES, dtype=np.uint8), 22)[None, :64].repeat(64, axis=0)
    pixels = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)[mask]
    mask[32:] = VOID
    return [LabelledImage(lambda: pixels, mask, tuple(grid((32, 64), (32, 32))))]


def _check_equal(one: Segmenter, other: Any, where: str) -> None:
    pixels = _pixels(SIZES[0])
    if not np.allclose(one.probabilities(pixels), other.probabilities(pixels), atol=1e-5):
        raise ValueError(
            f"the probabilities {where} differ; `build` must draw from torch's global generator, "
            "and `state` must hold all that it learns"
        )
