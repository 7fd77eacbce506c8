"""Scenes whose left half is red noise (class 0) and whose right half is blue noise (class 1)."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.config import FinetuneConfig, UnlabelledConfig
from ralis_backend.core.learning.continuing import ContinuedTraining
from ralis_backend.core.learning.course import ContinuingConfig
from ralis_backend.core.learning.crops import LabelledImage, Unreadable, unlabelled
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.pseudo_labels import UNSURE
from ralis_backend.core.learning.registry import OBJECTIVES
from ralis_backend.core.learning.unlabelled import PoolCrops, UnlabelledPixels, dropped_channels
from ralis_backend.core.regions import VOID, Region
from ralis_backend.core.segmenter import SegmenterSpec, build
from tests.tiny_segmenter import TinySegmenter

SIZE = (48, 64)
CONFIG = FinetuneConfig(
    steps=6,
    batch_size=2,
    crop_size=(32, 32),
    unlabelled=UnlabelledConfig(warm_up=1, ramp=2, threshold=0.5),
)


def scene(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 80, (*SIZE, 3), np.uint8)
    pixels[:, :32, 0] += 150
    pixels[:, 32:, 2] += 150
    return pixels


def truth():
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 32:] = 1
    return mask


def labelled(*regions, seed=0):
    mask = np.full(SIZE, VOID, np.uint8)
    for region in regions:
        mask[region.slices] = truth()[region.slices]
    return LabelledImage(lambda: scene(seed), mask, regions)


def tiny():
    return TinySegmenter(SegmenterSpec(2, "tiny", encoder_weights=None))


class Perfect:
    """A teacher that knows the truth, to say what the objective makes of it."""

    def __init__(self, confidence):
        self.logit = np.log(confidence / (1 - confidence))

    def logits(self, pixels):
        is_blue = pixels[:, 2] > pixels[:, 0]
        logit = torch.where(is_blue, self.logit, -self.logit)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


CORNER = Region(0, 24, 16, 16)  # shows both classes


def objective(config=CONFIG, images=(), **changes):
    config = replace(config, unlabelled=replace(config.unlabelled, **changes))
    return UnlabelledPixels([labelled(CORNER), *images], config, 2, seed=0)


def test_only_pixels_without_a_label_count():
    made = objective(cutmix=0.0)
    segmenter = tiny()
    made.begin(segmenter)
    made._teacher.segmenter = Perfect(0.9)
    crops, masks = made._batch()
    targets = made._taught(segmenter.normalised(crops), torch.from_numpy(masks))
    assert ((targets == VOID).numpy() == (masks != VOID)).all()
    seen = made._teacher.segmenter.logits(segmenter.normalised(crops)).argmax(1)
    is_unlabelled = torch.from_numpy(masks == VOID)
    assert (targets[is_unlabelled] == seen[is_unlabelled]).all()


def test_the_teacher_names_no_class_that_was_removed():
    painted_before = Region(0, 0, 16, 16)
    made = UnlabelledPixels([labelled(painted_before)], CONFIG, 2, seed=0, removed_classes=(1,))
    segmenter = tiny()
    made.begin(segmenter)
    made._teacher.segmenter = Perfect(0.9)
    crops, masks = made._batch()
    targets = made._taught(segmenter.normalised(crops), torch.from_numpy(masks))
    seen = made._teacher.segmenter.logits(segmenter.normalised(crops)).argmax(1)
    is_unlabelled = torch.from_numpy(masks == VOID)
    assert (seen == 1).any()
    assert (targets[is_unlabelled & (seen == 1)] == UNSURE).all()
    assert (targets[is_unlabelled & (seen == 0)] == 0).all()


def test_objectives_are_told_of_removed_classes_if_they_ask(monkeypatch):
    told = []

    def asking(images, config, num_classes, *, seed, removed_classes=()):
        told.append(tuple(removed_classes))
        return UnlabelledPixels(images, config, num_classes, seed=seed)

    def plain(images, config, num_classes, *, seed):
        return UnlabelledPixels(images, config, num_classes, seed=seed)

    monkeypatch.setitem(OBJECTIVES, "asking", asking)
    monkeypatch.setitem(OBJECTIVES, "plain", plain)
    config, besides = replace(CONFIG, steps=1), ("asking", "plain")
    finetune(tiny(), [labelled(CORNER)], config, seed=0, besides=besides, removed_classes=(1,))
    rules = ContinuingConfig()
    ContinuedTraining(tiny(), config, rules, seed=0).learn_from([labelled(CORNER)], besides, (1,))
    assert told == [(1,), (1,)]


def test_an_image_is_decoded_once_for_everything_that_is_learned_from_it():
    num_loads = []
    image = labelled(CORNER)
    counted = replace(image, load=lambda: num_loads.append(1) or scene())
    finetune(tiny(), [counted], CONFIG, seed=0, besides=["unlabelled"])
    assert len(num_loads) == 1
    training = ContinuedTraining(tiny(), CONFIG, ContinuingConfig(), seed=0)
    training.learn_from([counted], ["unlabelled"])
    training.advance(3, lambda: False)
    assert len(num_loads) == 2


def test_the_loss_is_the_mean_over_all_pixels_that_nobody_labelled():
    made = objective()
    segmenter = tiny()
    made.begin(segmenter)
    targets = torch.tensor([[[0, 1, -1, VOID] * 2] * 8])  # half of what nobody labelled is believed
    made._class_weights = torch.tensor([1.0, 3.0])
    with torch.no_grad():
        for tensor in segmenter.state().values():
            tensor.zero_()  # both classes are as likely everywhere: ln 2 a pixel
    loss = made._disagreement(segmenter, torch.zeros(1, 3, 8, 8), targets)
    assert float(loss.detach()) == pytest.approx((1 + 3 + 0) * np.log(2) / 3)


def test_its_weight_grows_after_the_warm_up():
    settings = UnlabelledConfig(warm_up=10, ramp=4)
    assert [settings.ramp_at(step) for step in (1, 10, 11, 12, 14, 99)] == [0, 0, 0.25, 0.5, 1, 1]


def test_nothing_is_drawn_or_learned_before_the_warm_up_is_over():
    made = objective(warm_up=5)
    segmenter = tiny()
    made.begin(segmenter)
    loss = made.loss(segmenter, 5)
    assert float(loss) == 0
    assert not loss.requires_grad
    assert made.loss(segmenter, 6).requires_grad


def test_the_teacher_follows_the_segmenter():
    made = objective(decay=0.5)
    segmenter = tiny()
    made.begin(segmenter)
    before = next(iter(segmenter.state().values())).clone()
    with torch.no_grad():
        next(iter(segmenter.state().values())).add_(1)
    made.after_step(segmenter, 1)
    torch.testing.assert_close(next(iter(made._teacher.segmenter.state().values())), before + 0.5)


def test_a_collapsed_teacher_is_not_listened_to_and_people_are_told(caplog):
    made = objective(cutmix=0.0)
    segmenter = tiny()
    made.begin(segmenter)

    class SaysRed:
        def logits(self, pixels):
            return torch.stack([pixels[:, 0] * 0 + 5, pixels[:, 0] * 0], dim=1)

    made._teacher.segmenter = SaysRed()
    losses = [float(made.loss(segmenter, 10).detach()) for _ in range(45)]
    assert all(losses[:39])
    assert losses[-1] == 0
    assert made.facts()["unlabelled"]["has_collapsed"]
    (warning,) = caplog.messages
    assert "nearly everywhere that it is class 0" in warning


def going_on(monkeypatch, facts=MappingProxyType({})):
    """A training that goes on, whose teacher says everywhere red; both objectives so far."""
    monkeypatch.setattr(UnlabelledPixels, "_taught", _says_red)
    config = replace(CONFIG, unlabelled=replace(CONFIG.unlabelled, own_crops=1, pool_crops=0))
    return ContinuedTraining(tiny(), config, ContinuingConfig(), seed=0, facts=facts)


def _says_red(made, seen, masks):
    classes = torch.zeros_like(masks, dtype=torch.int64)
    return made._pseudo_labels.of(classes, torch.full(masks.shape, 0.9), masks)


def test_a_teacher_is_found_out_however_often_labels_come(monkeypatch, caplog):
    training = going_on(monkeypatch)
    teachers = set()
    for updates in range(10, 60, 10):
        training.learn_from([labelled(CORNER)], ["unlabelled"])
        training.advance(updates, lambda: False)
        (made,) = training._besides.values()
        teachers.add(made._teacher)
    assert len(teachers) == 1
    assert training.facts()["unlabelled"]["has_collapsed"]
    assert len(caplog.messages) == 1


def test_a_teacher_that_was_left_stays_so_when_the_training_is_taken_up_again(monkeypatch):
    training = going_on(monkeypatch, {"unlabelled": {"has_collapsed": True}})
    training.learn_from([labelled(CORNER)], ["unlabelled"])
    assert training.facts()["unlabelled"]["has_collapsed"]


def test_what_was_known_of_a_class_that_is_removed_is_forgotten():
    before = objective()
    masks = torch.full((1, 2, 2), VOID)
    for confidence in ([[[0.6, 0.6], [0.9, 0.9]]], [[[0.6, 0.6], [0.9, 0.9]]]):
        before._pseudo_labels.of(torch.tensor([[[0, 0], [1, 1]]]), torch.tensor(confidence), masks)
    made = UnlabelledPixels([labelled(CORNER)], CONFIG, 2, seed=0, before=before)
    torch.testing.assert_close(made._pseudo_labels.thresholds(), torch.tensor([0.5 * 2 / 3, 0.5]))
    one = [labelled(Region(0, 0, 16, 16))]
    made = UnlabelledPixels(one, CONFIG, 2, seed=0, before=before, removed_classes=(1,))
    torch.testing.assert_close(made._pseudo_labels.thresholds(), torch.tensor([0.5, 0.5]))
    assert made._pseudo_labels.shares().tolist() == [1, 0]


@pytest.mark.e2e  # slow
def test_a_segmenter_learns_what_only_unlabelled_pixels_show():
    """Two tiny labelled regions, and scenes in other light: the teacher carries them over."""
    config = replace(
        CONFIG,
        steps=200,
        learning_rate=3e-3,
        unlabelled=UnlabelledConfig(warm_up=40, ramp=40, threshold=0.6),
    )
    images = [labelled(CORNER), *(unlabelled(lambda i=i: scene(i), SIZE) for i in range(1, 4))]
    segmenter = tiny()
    finetune(segmenter, images, config, seed=0, besides=["unlabelled"])
    assert (segmenter.probabilities(scene(9)).argmax(0) == truth()).mean() > 0.9


@pytest.mark.e2e  # slow
def test_the_same_seed_gives_the_same_weights():
    def trained():
        segmenter = build(SegmenterSpec(2, encoder_weights=None))
        images = [labelled(CORNER), unlabelled(lambda: scene(1), SIZE)]
        finetune(segmenter, images, CONFIG, seed=4, besides=["unlabelled"])
        return segmenter.state()

    one, other = trained(), trained()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("steps", "expected"), [(600, (100, 200)), (450, (100, 150)), (83, (27, 27)), (1, (0, 0))]
)
def test_warm_up_and_ramp_take_a_third_each_of_a_short_training(steps, expected):
    settings = UnlabelledConfig().within(steps)
    assert (settings.warm_up, settings.ramp) == expected
    assert settings.ramp_at(steps) == 1


def trained(besides, steps):
    segmenter = tiny()
    config = replace(CONFIG, steps=steps, unlabelled=UnlabelledConfig(threshold=0.01))
    images = [labelled(CORNER), unlabelled(lambda: scene(1), SIZE)]
    finetune(segmenter, images, config, seed=0, besides=besides)
    return segmenter.state()


def test_a_short_training_learns_from_it_as_well():
    """As many updates as the warm-up of a long one has."""
    states = [trained(besides, 9) for besides in ([], ["unlabelled"])]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_that_goes_on_learns_from_it_from_its_first_update():
    states = []
    for besides in ([], ["unlabelled"]):
        config = replace(CONFIG, unlabelled=UnlabelledConfig(threshold=0.01))
        training = ContinuedTraining(tiny(), config, ContinuingConfig(), seed=0)
        training.learn_from([labelled(CORNER), unlabelled(lambda: scene(1), SIZE)], besides)
        training.advance(2, lambda: False)
        states.append(training.candidate.state())
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_painted_crops_are_drawn_as_without_it(monkeypatch):
    """What people painted is seen in the same order, whatever else is learned from."""
    monkeypatch.setattr(UnlabelledConfig, "ramp_at", lambda settings, step: 0.0)
    during_warm_up = replace(CONFIG, unlabelled=UnlabelledConfig())
    states = []
    for besides in ([], ["unlabelled"]):
        segmenter = tiny()
        finetune(segmenter, [labelled(CORNER)], during_warm_up, seed=0, besides=besides)
        states.append(segmenter.state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("side", [SIZE[0], 2 * SIZE[0]])  # of crops: they reach beyond the image
def test_a_pool_where_every_pixel_is_labelled_teaches_nothing_more(side):
    whole = Region(0, 0, *SIZE)
    config = replace(CONFIG, scale_range=(1.0, 1.0), crop_size=(side, side))
    made = UnlabelledPixels([labelled(whole)], config, 2, seed=0)
    segmenter = tiny()
    made.begin(segmenter)
    assert not made.facts()["unlabelled"]["is_all_labelled"]  # nobody looked yet
    assert float(made.loss(segmenter, 10).detach()) == 0
    assert made.facts()["unlabelled"]["is_all_labelled"]


def test_what_lies_beyond_an_image_is_no_pixel_that_nobody_labelled():
    config = replace(CONFIG, scale_range=(1.0, 1.0), crop_size=(2 * SIZE[0], 2 * SIZE[1]))
    made = objective(config, own_crops=1, pool_crops=1)
    made.begin(tiny())
    _, masks = made._batch()
    num_unlabelled = SIZE[0] * SIZE[1] - CORNER.height * CORNER.width
    assert (masks == VOID).sum(axis=(1, 2)).tolist() == 2 * [num_unlabelled]


def test_images_that_cannot_be_read_are_left_out_and_own_crops_remain():
    def unreadable():
        raise Unreadable("gone")

    made = objective(images=[unlabelled(unreadable, SIZE)], own_crops=0, pool_crops=3)
    made._pool._images = [it for it in made._pool._images if not it.regions]
    crops, masks = made._batch()
    assert len(crops) == len(masks) >= 1
    assert made._pool.some(2) == ([], [])


def test_pool_crops_come_from_every_image_and_carry_its_labels():
    images = [labelled(CORNER), unlabelled(lambda: scene(1), SIZE)]
    crops, masks = PoolCrops(images, CONFIG, np.random.default_rng(0)).some(40)
    assert {crop.shape for crop in crops} == {(32, 32, 3)}
    has_labels = [(mask != VOID).any() for mask in masks]
    assert 0 < sum(has_labels) < 40


def test_channels_are_dropped_within_only_and_none_without_an_encoder():
    pixels = torch.randn(2, 3, 32, 32)
    segmenter = build(SegmenterSpec(2, encoder_weights=None))
    with torch.no_grad():
        before = segmenter.logits(pixels)
        with dropped_channels(segmenter, 0.5):
            within = segmenter.logits(pixels)
        after = segmenter.logits(pixels)
    assert torch.equal(before, after)
    assert not torch.equal(before, within)
    with dropped_channels(tiny(), 0.5):
        pass


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"own_crops": 0, "pool_crops": 0}, "one of them at least 1"),
        ({"pool_crops": -1}, "must not be negative"),
        ({"threshold": 0.0}, r"threshold 0.0 must be in \(0, 1\]"),
        ({"feature_dropout": 1.0}, r"feature_dropout 1.0 in \[0, 1\)"),
        ({"blur": 1.5}, r"'blur': 1.5.*chances in \[0, 1\]"),
        ({"decay": 1.0}, "decay"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        objective(**changes).begin(tiny())
