from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.loop import train
from ralis_backend.core.learning.registry import OBJECTIVES
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build
from tests.core.learning.test_finetune import SPEC, TINY, _image

# One image a step: over two maps of one pixel, normalisation keeps a sign and lets rounding decide.
ONE = replace(TINY, batch_size=1)
ADAMW = replace(ONE, steps=4)
PAPER = replace(
    ONE,
    optimizer="sgd",
    schedule="constant",
    rarity_share=0.0,
    class_weight_power=0.0,
    head_multiplier=1.0,
)
SHORT = replace(ONE, steps=2)


class Brighter:
    """Wants class 0 everywhere, on a grey image; keeps a note of what it was asked."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self.calls: list[str] = []

    def begin(self, segmenter: Segmenter) -> None:
        self.calls.append("begin")

    def loss(self, segmenter: Segmenter, step: int) -> torch.Tensor:
        self.calls.append(f"loss {step}")
        assert segmenter.model.training
        grey = segmenter.normalised(np.full((2, 32, 32, 3), 128, np.uint8))
        return -segmenter.logits(grey).log_softmax(dim=1)[:, 0].mean()

    def after_step(self, segmenter: Segmenter, step: int) -> None:
        self.calls.append(f"after {step}")

    def facts(self) -> Mapping[str, Any]:
        return {"brighter": {"calls": len(self.calls)}}


def _grey_is_0(segmenter: Segmenter) -> float:
    return float(segmenter.probabilities(np.full((32, 32, 3), 128, np.uint8))[0].mean())


@pytest.mark.parametrize(
    ("config", "architecture", "absolute", "ramp", "loss"),
    [
        (ADAMW, "FPN", 234385.6232207, 7090.0679970, 0.00064698),
        (PAPER, "FPN", 234354.7925500, 7102.0967176, 0.13899938),
        (SHORT, "Unet", 242167.7168911, 5924.7083648, 0.67443258),
    ],
)
def test_painted_regions_train_the_weights_they_always_did(
    config, architecture, absolute, ramp, loss
):
    """Recorded sums over all weights and statistics, as every kind of processor makes them."""
    segmenter = build(SegmenterSpec(2, architecture, encoder_weights=None))
    summary = finetune(segmenter, [_image(), _image(1)], config, seed=4)
    values = torch.cat(
        [each.double().flatten() for each in segmenter.state().values() if each.is_floating_point()]
    )
    assert float(values.abs().sum()) == pytest.approx(absolute, rel=1e-7)
    position = torch.arange(len(values)) / len(values)
    assert float((values * position).sum()) == pytest.approx(ramp, rel=1e-5)
    assert summary.final_loss == pytest.approx(loss, rel=1e-4)


def test_an_objective_without_any_label_is_learned():
    segmenter, objective = build(SPEC), Brighter()
    before = _grey_is_0(segmenter)
    config = FinetuneConfig(batch_size=2, learning_rate=1e-3)
    summary = train(segmenter, [objective], config, steps=5, steps_per_epoch=2.5, seed=0)
    assert _grey_is_0(segmenter) > before
    assert summary.epochs == 2
    assert not segmenter.model.training
    assert objective.calls[:4] == ["begin", "loss 1", "after 1", "loss 2"]
    assert objective.calls[-1] == "after 5"


def test_losses_are_added_by_their_weights(tiny_segmenters):
    losses = []
    for weights in ([1.0], [0.25, 0.75], [3.0]):
        objectives = [Brighter(weight) for weight in weights]
        summary = train(
            build(tiny_segmenters), objectives, TINY, steps=1, steps_per_epoch=1, seed=0
        )
        losses.append(summary.final_loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(3 * losses[0], rel=1e-5)


def test_other_objectives_are_learned_besides_painted_regions(monkeypatch):
    made = []

    def brighter(images, config, num_classes, *, seed):
        made.append((len(images), num_classes, seed, Brighter(0.5)))
        return made[-1][-1]

    monkeypatch.setitem(OBJECTIVES, "brighter", brighter)
    finetune(build(SPEC), [_image()], TINY, seed=4, besides=["brighter"])
    ((num_images, num_classes, seed, objective),) = made
    assert (num_images, num_classes, seed) == (1, 2, 4)
    assert objective.calls[-1] == "after 3"


def test_an_unknown_objective_is_named():
    with pytest.raises(ValueError, match="unknown objective 'dreams'; expected one of painted"):
        finetune(build(SPEC), [_image()], TINY, seed=0, besides=["dreams"])
