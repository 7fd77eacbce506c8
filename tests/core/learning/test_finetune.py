from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ralis_backend.core.images import decode_image
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import Crops, LabelledImage, NothingReadable, Unreadable
from ralis_backend.core.learning.evaluation import evaluate, evaluate_each
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.loop import TrainingProgress
from ralis_backend.core.learning.painted import cross_entropy
from ralis_backend.core.metrics import mean_iou
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build

SPEC = SegmenterSpec(2, encoder_weights=None)
TINY = FinetuneConfig(steps=3, batch_size=2, crop_size=(32, 32))


def _image(seed: int = 0, size: tuple[int, int] = (48, 64), num_regions: int = 4) -> LabelledImage:
    """Red noise is class 0, blue noise class 1; only some regions are labelled."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(size, np.uint8)
    truth[:, size[1] // 3 + 5 * seed :] = 1
    pixels = rng.integers(0, 80, (*size, 3), np.uint8)
    pixels[..., 0] += np.where(truth == 0, 150, 0).astype(np.uint8)
    pixels[..., 2] += np.where(truth == 1, 150, 0).astype(np.uint8)
    regions = tuple(grid(size, (16, 24))[:num_regions])
    mask = np.full(size, VOID, np.uint8)
    for region in regions:
        mask[region.slices] = truth[region.slices]
    return LabelledImage(lambda: pixels, mask, regions)


def _state(segmenter: Segmenter) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in segmenter.model.state_dict().items()}


@pytest.mark.e2e
def test_two_images_are_learned():
    # Smaller crops leave BatchNorm a handful of values, and learning to the luck of the seed.
    images = [_image(seed, size=(96, 128), num_regions=16) for seed in (0, 1)]
    segmenter = build(SPEC)
    config = FinetuneConfig(steps=60, crop_size=(96, 96), learning_rate=1e-3)
    summary = finetune(segmenter, images, config, seed=0)
    assert mean_iou(evaluate(segmenter, images)) > 0.85
    assert summary.steps == 60
    assert summary.final_loss < 0.5
    assert summary.epochs == 60 * 4 / 32
    assert not summary.is_stopped


def test_the_same_seed_trains_the_same_weights_and_another_one_others():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    states = []
    for seed in (3, 3, 4):
        segmenter = build(SPEC)
        finetune(segmenter, [_image()], TINY, seed=seed)
        states.append(_state(segmenter))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_progress_is_told_at_each_step_and_stopping_is_obeyed():
    told: list[TrainingProgress] = []
    segmenter = build(SPEC)
    summary = finetune(
        segmenter, [_image()], TINY, seed=0, on_progress=told.append,
        should_stop=lambda: len(told) == 2,
    )  # fmt: skip
    assert [progress.step for progress in told] == [1, 2]
    assert told[1].percent == pytest.approx(100 * 2 / 3)
    assert told[1].epoch == 2 * 2 / 4
    assert told[1].seconds_left > 0
    assert np.isfinite(told[0].loss)
    assert summary.is_stopped
    assert summary.steps == 2
    assert not segmenter.model.training


def test_stopping_before_the_first_step_changes_nothing():
    segmenter = build(SPEC)
    before = _state(segmenter)
    summary = finetune(segmenter, [_image()], TINY, seed=0, should_stop=lambda: True)
    assert summary.steps == 0
    assert all(torch.equal(values, before[name]) for name, values in _state(segmenter).items())
    assert not segmenter.is_pretrained


def test_steps_grow_with_the_labels_within_bounds():
    config = FinetuneConfig()
    assert config.num_steps(1) < config.num_steps(48) < config.num_steps(240)
    assert config.num_steps(10**6) == config.max_steps
    assert FinetuneConfig(steps=7).num_steps(1000) == 7


def test_regions_of_which_little_is_labelled_are_drawn_as_much_less_as_their_weights_say():
    image, config = _image(), replace(TINY, rarity_share=0.0)
    regions = (Region(0, 0, 48, 32), Region(0, 32, 48, 32))
    chances = [
        Crops(
            [replace(image, regions=regions, weights=it)], config, 2, np.random.default_rng(0)
        ).chances
        for it in (None, (1, 0.25))
    ]
    np.testing.assert_allclose(chances, [[0.5, 0.5], [0.8, 0.2]])


def test_crops_that_miss_every_label_do_not_spoil_the_weights():
    image = _image()
    mask = np.full_like(image.mask, VOID)
    mask[0, 0] = 1  # one labelled pixel: most crops are all VOID
    rare = LabelledImage(image.load, mask, (Region(0, 0, 48, 64),))
    segmenter = build(SPEC)
    summary = finetune(segmenter, [rare], replace(TINY, scale_range=(2, 2)), seed=0)
    assert np.isfinite(summary.final_loss)
    assert all(values.isfinite().all() for values in segmenter.model.state_dict().values())


def test_one_crop_per_batch_is_safe_for_batch_normalisation():
    segmenter = build(SegmenterSpec(2, "DeepLabV3", encoder_weights=None))
    summary = finetune(segmenter, [_image()], replace(TINY, batch_size=1), seed=0)
    assert np.isfinite(summary.final_loss)


def test_a_trained_encoder_keeps_its_batch_statistics():
    segmenter = build(SPEC)
    finetune(segmenter, [_image()], TINY, seed=0)
    before = _state(segmenter)
    finetune(segmenter, [_image()], TINY, seed=1)
    names = [name for name in before if name.startswith("encoder.") and "running_" in name]
    after = _state(segmenter)
    assert names
    assert all(torch.equal(before[name], after[name]) for name in names)


def test_pixels_without_a_label_do_not_enter_the_loss():
    segmenter = build(SPEC)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    mask = np.full((1, 32, 32), VOID, np.uint8)
    mask[0, 4:9, 6:20] = 1
    loss = cross_entropy(segmenter, pixels, mask, torch.ones(2)).item()
    labelled = segmenter.probabilities(pixels[0])[1][mask[0] == 1]
    assert loss == pytest.approx(-np.log(labelled).mean(), rel=1e-4)


def test_crops_and_masks_move_together():
    image = _image()
    config = replace(
        TINY, batch_size=16, brightness=0, contrast=0, saturation=0, scale_range=(1, 1)
    )
    pixels, masks = Crops([image], config, 2, np.random.default_rng(0)).batch()
    assert ((pixels[..., 0] > pixels[..., 2]) == (masks == 0))[masks != VOID].all()


def test_rare_classes_are_drawn_more_often_and_weigh_more():
    truth = np.zeros((32, 320), np.uint8)
    truth[:, 288:] = 1
    image = LabelledImage(
        lambda: np.zeros((32, 320, 3), np.uint8), truth, tuple(grid((32, 320), (32, 32)))
    )
    samples = Crops([image], TINY, 2, np.random.default_rng(0))
    assert samples.chances[-1] > 2 * samples.chances[0]
    assert samples.chances.sum() == pytest.approx(1)
    weights = samples.class_weights()
    assert weights[1] > weights[0]
    assert weights @ [0.9, 0.1] == pytest.approx(1)


@pytest.mark.parametrize("size", [(20, 90), (90, 20), (9, 7), (33, 64)])
def test_images_smaller_than_a_crop_are_filled_with_void(size):
    mask = np.ones(size, np.uint8)
    image = LabelledImage(lambda: np.full((*size, 3), 9, np.uint8), mask, (Region(0, 0, *size),))
    samples = Crops([image], replace(TINY, crop_size=(64, 64)), 2, np.random.default_rng(0))
    pixels, masks = samples.batch()
    assert pixels.shape == (2, 64, 64, 3)
    assert (masks == 1).any()
    assert set(np.unique(masks)) <= {1, VOID}


def test_decoded_images_are_kept_within_their_bytes():
    loads: list[int] = []

    def loaded(index: int) -> LabelledImage:
        image = _image(index)
        return replace(image, load=lambda: loads.append(index) or image.load())

    images = [loaded(0), loaded(1)]
    finetune(build(SPEC), images, replace(TINY, batch_size=4), seed=0)
    assert sorted(loads) == [0, 1]
    loads.clear()
    finetune(build(SPEC), images, replace(TINY, batch_size=4, cache_bytes=1), seed=0)
    assert len(loads) > 2


def test_nothing_to_learn_from_is_an_error():
    image = _image()
    for images in ([], [replace(image, mask=np.full_like(image.mask, VOID))]):
        with pytest.raises(ValueError, match="no region holds a labelled pixel"):
            finetune(build(SPEC), images, TINY, seed=0)


def test_unknown_classes_and_changed_images_are_named():
    image = _image()
    wrong = np.where(image.mask == 1, 7, image.mask)
    with pytest.raises(ValueError, match="class index 7"):
        finetune(build(SPEC), [replace(image, mask=wrong)], TINY, seed=0)
    with pytest.raises(ValueError, match="changed after it was labelled"):
        finetune(
            build(SPEC),
            [replace(image, load=lambda: np.zeros((8, 8, 3), np.uint8))], TINY, seed=0,
        )  # fmt: skip


@pytest.mark.parametrize("values", [{"batch_size": 0}, {"crop_size": (48, 32)}, {"steps": 0}])
def test_settings_that_cannot_work_are_refused(values):
    with pytest.raises(ValueError, match="must be"):
        finetune(build(SPEC), [_image()], replace(TINY, **values), seed=0)


def test_a_loss_that_is_not_finite_is_an_error():
    segmenter = build(SPEC)
    with torch.no_grad():
        segmenter.model.segmentation_head[0].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        finetune(segmenter, [_image()], TINY, seed=0)
    assert not segmenter.model.training


def test_evaluate_counts_labelled_pixels_only():
    image = _image()
    matrix = evaluate(build(SPEC), [image, image])
    assert matrix.sum() == 2 * (image.mask != VOID).sum()


@pytest.mark.e2e
def test_real_images_are_learned_from_imagenet_weights(shared):
    folder = shared / "data" / "camvid"
    images = []
    for path in sorted((folder / "images" / "train").glob("*.jpg"))[:2]:
        pixels = decode_image(path.read_bytes())
        mask = np.array(Image.open(folder / "masks" / "train" / f"{path.stem}.png"))
        regions = tuple(grid(mask.shape, (90, 80)))
        images.append(LabelledImage(lambda pixels=pixels: pixels, mask, regions))
    segmenter = build(SegmenterSpec(11))
    assert segmenter.is_pretrained
    before = mean_iou(evaluate(segmenter, images))
    finetune(segmenter, images, FinetuneConfig(steps=20, crop_size=(128, 128)), seed=0)
    assert mean_iou(evaluate(segmenter, images)) > before + 0.15


def test_what_cannot_be_read_is_drawn_no_more_and_the_others_are_learned():
    good, bad = _image(0), _image(1)
    asked: list[int] = []

    def unreadable():
        asked.append(1)
        raise Unreadable("truncated")

    crops = Crops([replace(bad, load=unreadable), good], TINY, 2, np.random.default_rng(0))
    for _ in range(20):
        pixels, _ = crops.batch()
        assert len(pixels) == TINY.batch_size
    assert len(asked) == 1
    assert crops.chances.sum() == pytest.approx(1)
    assert not crops.chances[: len(bad.regions)].any()
    alone = Crops([replace(bad, load=unreadable)], TINY, 2, np.random.default_rng(0))
    with pytest.raises(NothingReadable, match=r"none of the \d+ labelled regions.*truncated"):
        alone.batch()


def test_a_region_of_which_one_label_cannot_be_read_is_drawn_by_its_others():
    good = _image(0)
    regions, shares = (*good.regions, good.regions[0]), (1.0, 1.0, 1.0, 1.0, 0.1)
    losses = [good.regions[0]]

    def load():
        if losses:
            raise Unreadable("truncated", losses.pop())
        return good.load()

    images = [replace(good, load=load, regions=regions, weights=shares)]
    crops = Crops(images, TINY, 2, np.random.default_rng(0))
    crops.batch()
    assert (crops.chances > 0).tolist() == [True, True, True, True, False]


def test_known_counts_of_pixels_are_taken_as_they_are_and_the_mask_is_not_looked_at():
    image = _image(0)
    counted = tuple(pixels[:2].tolist() for pixels in image.pixels_by_class())
    known = replace(image, class_pixels=counted)
    plain, told = (Crops([each], TINY, 2, np.random.default_rng(0)) for each in (image, known))
    np.testing.assert_array_equal(told.counts, plain.counts)
    np.testing.assert_array_equal(told.chances, plain.chances)
    Crops([replace(known, mask=None)], TINY, 2, np.random.default_rng(0))  # type: ignore[arg-type]


def test_two_segmenters_are_compared_on_the_same_images():
    good, bad = _image(0), _image(1)
    loads: list[int] = []

    def once():
        loads.append(1)
        if len(loads) > 1:
            return bad.load()
        raise Unreadable("for now")

    first, second = build(SPEC, seed=0), build(SPEC, seed=1)
    matrices = evaluate_each([first, second], [replace(bad, load=once), good])
    assert len(loads) == 1
    for segmenter, matrix in zip((first, second), matrices, strict=True):
        np.testing.assert_array_equal(matrix, evaluate(segmenter, [good]))
