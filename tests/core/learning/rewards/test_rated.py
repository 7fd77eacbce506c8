from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import Unreadable
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.loop import train
from ralis_backend.core.learning.registry import OBJECTIVES
from ralis_backend.core.learning.rewards import rated as module
from ralis_backend.core.learning.rewards.rated import RatedBesidePaint, RatedConfig, RatedRegion
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec
from tests.core.learning.test_finetune import _image
from tests.tiny_segmenter import TinySegmenter

CONFIG = FinetuneConfig(batch_size=2, crop_size=(32, 32), learning_rate=1e-3)
FEW = RatedConfig(min_ratings=2)
REGION = Region(16, 24, 16, 24)


def _rated(score: float, shown: int = 1, load=None) -> RatedRegion:
    mask = np.full((48, 64), VOID, np.uint8)
    mask[REGION.slices] = shown
    return RatedRegion(load or _image(1).load, mask, REGION, score)


def _segmenter() -> Segmenter:
    return TinySegmenter(SegmenterSpec(2, "tiny", encoder_weights=None))


def _learned(rated: list[RatedRegion], guards: RatedConfig, steps: int = 20) -> Segmenter:
    segmenter = _segmenter()
    objective = RatedBesidePaint(rated, [_image()], CONFIG, 2, seed=0, guards=guards)
    train(segmenter, [objective], CONFIG, steps=steps, steps_per_epoch=1, seed=0)
    return segmenter


def _share_of(segmenter: Segmenter, shown: int) -> float:
    """Mean probability of a class in the region."""
    probabilities = segmenter.probabilities(_image(1).load())
    return float(probabilities[shown][REGION.slices].mean())


def test_what_was_rated_well_becomes_more_probable_than_what_was_rated_badly():
    guards = replace(FEW, weight=10.0, kl_weight=0)
    # with both classes on the same pixels, one of them liked
    liked = [_rated(1.0, 1), _rated(0.0, 0)]
    disliked = [_rated(0.0, 1), _rated(1.0, 0)]
    assert _share_of(_learned(liked, guards), 1) > _share_of(_learned(disliked, guards), 1) + 0.02


def test_equal_ratings_teach_what_the_paint_alone_does():
    guards = replace(FEW, kl_weight=0)
    states = [
        _learned([_rated(0.5, 1), _rated(0.5, 0)], replace(guards, weight=weight)).state()
        for weight in (0.0, 5.0)
    ]
    assert all(torch.equal(values, states[1][name]) for name, values in states[0].items())


def test_advantages_are_over_what_masks_of_that_class_usually_get(monkeypatch):
    monkeypatch.setattr(module, "_PRIOR_REGIONS", 0.0)
    counts = np.array([[10, 0], [10, 0], [0, 10], [5, 5]])
    scores = np.array([1.0, 0.0, 0.5, 0.5])
    # class 0: (1 + 0 + 0.25) / 2.5 = 0.5; class 1: 0.75 / 1.5 = 0.5; deviation sqrt(0.5 / 4)
    expected = np.array([[0.5, 0.5], [-0.5, -0.5], [0, 0], [0, 0]]) / 0.125**0.5
    np.testing.assert_allclose(module._advantages(counts, scores), expected, atol=1e-4)


def test_of_a_bad_mask_the_pixels_of_which_the_reference_is_unsure_count():
    advantages = torch.full((2, 1, 10), -1.0)
    advantages[1] = 1.0
    sure = torch.linspace(0.5, 0.95, 10)  # the first is a coin flip
    log_reference = torch.stack([sure, 1 - sure]).log()[None, :, None].expand(2, 2, 1, 10)
    kept = module._uncertain_if_bad(advantages, log_reference, 0.2)
    assert kept[0, 0].tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert (kept[1] == 1).all()


@pytest.mark.parametrize("num_doubtful", [0, 1])
def test_of_a_bad_mask_a_share_counts_where_the_reference_is_sure_of_the_rest(num_doubtful):
    sure = torch.ones(10)
    sure[:num_doubtful] = 0.5
    log_reference = torch.stack([sure, 1 - sure]).clamp(min=1e-30).log()[None, :, None]
    kept = module._uncertain_if_bad(torch.full((1, 1, 10), -1.0), log_reference, 0.2)
    assert kept.sum() == -2
    assert (kept[0, 0, :num_doubtful] == -1).all()


def test_at_least_half_of_the_pixels_that_count_are_painted():
    chosen = torch.rand((2, 8, 8), generator=torch.Generator().manual_seed(0)) < 0.8
    generator = torch.Generator().manual_seed(0)
    kept = module._at_most(chosen, 20, generator)
    assert int(kept.sum()) == 20
    assert not (kept & ~chosen).any()
    assert torch.equal(module._at_most(chosen, 1000, generator), chosen)
    assert not module._at_most(chosen, 0, generator).any()


def test_a_batch_without_paint_learns_nothing_from_ratings(monkeypatch):
    limits = []
    monkeypatch.setattr(
        module, "_at_most", lambda chosen, limit, _: limits.append(limit) or chosen & False
    )
    objective = RatedBesidePaint(
        [_rated(1.0), _rated(0.0)], [_image()], CONFIG, 2, seed=0, guards=FEW
    )
    segmenter = _segmenter()
    objective.begin(segmenter)
    assert torch.isfinite(objective.loss(segmenter, 1))
    assert 0 < limits[0] < 2 * 32 * 32  # painted pixels of the batch


def test_the_reference_is_the_segmenter_before_the_training():
    objective = RatedBesidePaint(
        [_rated(1.0), _rated(0.0)], [_image()], CONFIG, 2, seed=0, guards=FEW
    )
    segmenter = _segmenter()
    before = segmenter.copy().state()
    train(segmenter, [objective], CONFIG, steps=3, steps_per_epoch=1, seed=0)
    reference = objective._reference.state()
    assert all(torch.equal(values, before[name]) for name, values in reference.items())
    assert any(not torch.equal(values, before[name]) for name, values in segmenter.state().items())


@pytest.mark.parametrize("score", [float("nan"), -0.5, 1.01])
def test_a_rating_that_is_none_is_refused(score):
    with pytest.raises(ValueError, match="expected 0"):
        RatedBesidePaint([_rated(score), _rated(1)], [_image()], CONFIG, 2, seed=0, guards=FEW)


def test_few_ratings_are_refused():
    with pytest.raises(ValueError, match="1 regions are rated, expected at least 50"):
        RatedBesidePaint([_rated(1)], [_image()], CONFIG, 2, seed=0)


def test_a_rated_image_that_cannot_be_read_is_left_out():
    def missing():
        raise Unreadable("gone")

    rated = [_rated(1.0), _rated(0.0), _rated(0.5, load=missing)]
    assert _learned(rated, FEW, steps=3).is_pretrained


def test_ratings_serve_beside_painted_regions_of_which_every_pixel_is_labelled(monkeypatch):
    factory = partial(RatedBesidePaint, [_rated(1.0), _rated(0.0)], guards=FEW)
    monkeypatch.setitem(OBJECTIVES, "rated", factory)
    whole = _image(num_regions=100)
    assert not (np.asarray(whole.mask) == VOID).any()
    summary = finetune(_segmenter(), [whole], replace(CONFIG, steps=2), seed=0, besides=["rated"])
    assert np.isfinite(summary.final_loss)
