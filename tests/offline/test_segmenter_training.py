from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ralis_backend.core.checkpoints import OtherRun
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.rewards.config import RewardConfig
from ralis_backend.core.learning.rewards.scores import Noise
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import SegmenterSpec, build, load
from ralis_backend.offline.datasets import Dataset, DatasetError
from ralis_backend.offline.segmenter_training import Recipe, SegmenterTraining
from tests.tiny_dataset import REGION_SIZE, SPLIT_SIZES

RECIPE = Recipe(
    init="random",
    cycles=3,
    updates=4,
    region_size=REGION_SIZE,
    finetune=FinetuneConfig(batch_size=2, crop_size=(32, 32), learning_rate=3e-3, rarity_share=0.0),
    rewards=RewardConfig(num_maps=4, strides=(16, 8), patience=3),
)


class Interrupted(Exception):
    """The run ends here."""


@pytest.fixture
def training(tiny_dataset, tiny_segmenters, tmp_path):
    def make(recipe: Recipe = RECIPE, name: str = "mine", **options):
        spec = replace(tiny_segmenters, num_classes=1)
        return SegmenterTraining(
            recipe, tiny_dataset, spec, tmp_path / name, seed=options.pop("seed", 0), **options
        )

    return make


def _values(training: SegmenterTraining) -> torch.Tensor:
    return torch.cat([each.flatten() for each in training.segmenter.state().values()])


@pytest.mark.parametrize("reward", ["none", "pixel", "image"])
def test_a_segmenter_is_trained_measured_and_written(training, tmp_path, reward):
    results = training(replace(RECIPE, reward=reward)).run()
    assert results == json.loads((tmp_path / "mine.json").read_text())
    assert [point["updates"] for point in results["curve"]] == [0, 4, 8, 12]
    assert all(0 <= point["miou"] <= 1 for point in results["curve"])
    assert ("reward" in results["curve"][1]) == (reward != "none")
    assert results["images"] == {"pool": SPLIT_SIZES["d_v"], "test": SPLIT_SIZES["test"]}
    assert load(tmp_path / "mine.safetensors").num_classes == 3


def test_a_stopped_training_goes_on_as_if_nothing_had_happened(training):
    whole = training(name="whole")
    expected = whole.run()
    assert expected["curve"][-1]["stride"] == 8  # the scale went on, too

    def stop(progress) -> None:
        if progress.done > 1.5:
            raise Interrupted

    with pytest.raises(Interrupted):
        training(name="stopped").run(stop)
    again = training(name="stopped")
    assert len(again.curve) == 2
    found = again.run()
    assert torch.equal(_values(again), _values(whole))
    for one, other in zip(found["curve"], expected["curve"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_finished_training_is_not_repeated(training):
    training().run()
    told = []
    training().run(told.append)
    assert told == []


def test_the_checkpoint_of_another_training_is_refused(training):
    training().run()
    with pytest.raises(OtherRun, match="differs in recipe"):
        training(replace(RECIPE, reward="pixel"))


def test_numbers_of_other_masks_are_not_given_as_those_of_these(
    tiny_dataset, tiny_segmenters, tmp_path
):
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)

    def opened():
        spec = replace(tiny_segmenters, num_classes=1)
        return SegmenterTraining(
            replace(RECIPE, cycles=1), Dataset.open(root), spec, tmp_path / "a", seed=0
        )

    opened().run()
    tested = Dataset.open(root).split("test")[0]
    tested.mask_path.write_bytes(tiny_dataset.split("d_v")[0].mask_path.read_bytes())
    with pytest.raises(OtherRun, match="differs in files_sha256"):
        opened()


def test_a_training_does_not_go_on_from_other_weights_of_the_same_path(
    training, tiny_segmenters, tmp_path, monkeypatch
):
    path = tmp_path / "own.safetensors"

    def begun(spec, **options):
        segmenter = build(tiny_segmenters, **options)  # which reads no weights
        segmenter.spec = replace(tiny_segmenters, encoder_weights=str(path))
        return segmenter

    monkeypatch.setattr("ralis_backend.offline.segmenter_training.build", begun)
    recipe = replace(RECIPE, init="imagenet", cycles=1, updates=1)
    path.write_bytes(b"these")
    training(recipe).run()
    path.write_bytes(b"others")
    with pytest.raises(OtherRun, match=r"differs in segmenter\.encoder_weights_sha256"):
        training(recipe)


def test_an_image_that_was_moved_to_the_test_is_told_apart(tiny_dataset, tiny_segmenters, tmp_path):
    recipe = replace(RECIPE, cycles=1, updates=1, regions=4, test_images=2)

    def opened(dataset: Dataset) -> SegmenterTraining:
        spec = replace(tiny_segmenters, num_classes=1)
        return SegmenterTraining(recipe, dataset, spec, tmp_path / "a", seed=0)

    opened(tiny_dataset).run()
    *kept, moved = tiny_dataset.splits["d_v"]
    splits = {"d_v": tuple(kept), "test": (moved, *tiny_dataset.splits["test"])}
    with pytest.raises(OtherRun, match=r"split_images\.d_v, split_images\.test"):
        opened(replace(tiny_dataset, splits={**tiny_dataset.splits, **splits}))


def test_a_background_and_a_class_that_the_test_lacks_are_not_scored(
    tiny_dataset, tiny_segmenters, tmp_path, monkeypatch
):
    matrix = np.array([[90, 5, 5], [10, 20, 0], [0, 0, 0]])
    monkeypatch.setattr("ralis_backend.offline.segmenter_training.evaluate", lambda *_: matrix)
    ground, *others = tiny_dataset.classes
    with_background = replace(tiny_dataset, classes=(replace(ground, is_background=True), *others))
    spec, recipe = replace(tiny_segmenters, num_classes=1), replace(RECIPE, cycles=1, updates=1)

    def trained(dataset: Dataset) -> dict:
        training = SegmenterTraining(recipe, dataset, spec, tmp_path / "a", seed=0)
        return training.run()["curve"][-1]

    point = trained(with_background)
    assert point["iou"] == [
        pytest.approx(90 / 110, abs=1e-5),
        pytest.approx(20 / 35, abs=1e-5),
        None,
    ]
    assert point["miou"] == pytest.approx(20 / 35, abs=1e-5)
    with pytest.raises(OtherRun, match="differs in background"):
        trained(tiny_dataset)


def test_a_training_begins_with_the_segmenter_of_a_file_and_is_held_near_it(training, tmp_path):
    training(name="first").run()
    init = str(tmp_path / "first.safetensors")
    first = training(name="first").curve[-1]
    second = training(replace(RECIPE, init=init, cycles=1), name="second")
    assert second.run()["curve"][0]["miou"] == first["miou"]
    free = replace(RECIPE.rewards, kl_weight=0.0)
    third = training(replace(RECIPE, init=init, cycles=1, rewards=free), name="third")
    third.run()
    assert not torch.equal(_values(second), _values(third))


def test_a_file_of_other_classes_is_refused(training, tiny_segmenters, tmp_path):
    build(replace(tiny_segmenters, num_classes=2)).save(tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="2 classes apart, the dataset has 3"):
        training(replace(RECIPE, init=str(tmp_path / "two.safetensors")))


def test_a_start_that_is_none_is_refused(training):
    with pytest.raises(ValueError, match="neither random nor imagenet nor the file"):
        training(replace(RECIPE, init="nothing"))


def test_only_the_labels_of_drawn_regions_are_learned(training):
    material = []

    def lesson(it):
        material.append(it)
        raise Interrupted

    with pytest.raises(Interrupted):
        training(replace(RECIPE, regions=7), lesson=lesson).run()
    images = material[0].images
    assert sum(len(image.regions) for image in images) == 7
    for image in images:
        outside = np.asarray(image.mask).copy()
        for region in image.regions:
            outside[region.slices] = VOID
        assert (outside == VOID).all()


def test_more_regions_than_there_are_are_refused(training):
    with pytest.raises(ValueError, match=r"31 regions .* there are 30"):
        training(replace(RECIPE, regions=31))


def test_what_scores_lack_changes_what_is_learned(training):
    exact, noisy = training(name="exact"), training(replace(RECIPE, noise=Noise(1.0)), name="noisy")
    exact.run()
    noisy.run()
    assert not torch.equal(_values(exact), _values(noisy))


def test_a_dataset_without_labelled_images_is_refused(training, tiny_dataset):
    samples = {key: replace(each, mask_path=None) for key, each in tiny_dataset.samples.items()}
    bare = Dataset("bare", tiny_dataset.root, tiny_dataset.classes, samples, tiny_dataset.splits)
    with pytest.raises(DatasetError, match="split d_v of bare has no image with a mask"):
        SegmenterTraining(RECIPE, bare, SegmenterSpec(1), training()._out, seed=0)


@pytest.mark.parametrize("split", ["d_v", "test"])
def test_images_that_are_all_void_are_refused_before_anything_is_trained(
    tiny_dataset, tiny_segmenters, tmp_path, split
):
    first = tiny_dataset.splits[split][0]
    shape = tiny_dataset.samples[first].mask().shape
    Image.fromarray(np.full(shape, VOID, np.uint8)).save(tmp_path / "void.png")
    void = replace(tiny_dataset.samples[first], mask_path=tmp_path / "void.png")
    dataset = replace(
        tiny_dataset,
        samples={**tiny_dataset.samples, first: void},
        splits={**tiny_dataset.splits, split: (first,)},
    )
    with pytest.raises(DatasetError, match=f"no pixel of the 1 images of split {split} of"):
        SegmenterTraining(RECIPE, dataset, tiny_segmenters, tmp_path / "void", seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cycles": 0}, "at least 1"),
        ({"image_scale": 0.0}, "expected above 0"),
        ({"reward": "applause"}, "unknown reward 'applause'; expected one of none, pixel, image"),
        ({"rewards": RewardConfig(num_maps=1)}, "num_maps is 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(training, change, message):
    with pytest.raises(ValueError, match=message):
        training(replace(RECIPE, **change))


def test_a_pool_of_one_image_is_enough(tiny_dataset, tiny_segmenters, tmp_path):
    splits = {**tiny_dataset.splits, "d_v": tiny_dataset.splits["d_v"][:1]}
    single = replace(tiny_dataset, splits=splits)
    results = SegmenterTraining(RECIPE, single, tiny_segmenters, tmp_path / "one", seed=0).run()
    assert results["images"]["pool"] == 1
