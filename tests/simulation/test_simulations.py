from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ralis_backend.core.features import NotDescribed, entropy_grid
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.metrics import mean_iou
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.datasets import Dataset, DatasetError
from ralis_backend.offline.point_features import PointFeatures
from ralis_backend.offline.training.config import REPAIRED
from ralis_backend.offline.training.open_simulation import open_simulation
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.fast import FastSimulation
from ralis_backend.simulation.full import FullSimulation
from ralis_backend.simulation.heads import Points
from ralis_backend.simulation.points import RegionPoints
from tests.tiny_dataset import REGION_SIZE

CONFIG = replace(REPAIRED, region_size=REGION_SIZE)
RANDOM = SegmenterSpec(3, encoder_weights=None)
FULL = FinetuneConfig(batch_size=2, crop_size=(32, 32))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Features of the tiny dataset are computed by the first test that needs them."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def make_fast(tiny_dataset, cache):
    def make(dataset: Dataset = tiny_dataset, **changes: object) -> Simulation:
        config = replace(CONFIG, **changes)
        return open_simulation(dataset, config, cache, spec=RANDOM)

    return make


@pytest.fixture
def make_full(tiny_dataset, tiny_segmenters):
    def make(spec: SegmenterSpec = tiny_segmenters) -> Simulation:
        splits = [tiny_dataset.split(name) for name in ("d_t", "d_s", "d_r")]
        return FullSimulation(*splits, spec, REGION_SIZE, first=FULL, config=FULL)

    return make


@pytest.fixture
def own_dataset(tiny_dataset, tmp_path):
    """A copy whose files may be changed."""
    shutil.copytree(tiny_dataset.root, tmp_path / "own")
    return Dataset.open(tmp_path / "own")


@pytest.fixture(params=["fast", "full"])
def make(request, make_fast, make_full):
    return make_fast if request.param == "fast" else make_full


def test_the_pool_is_the_splits_regions_with_their_true_pixels(make, tiny_dataset):
    simulation = make()
    assert simulation.num_classes == 3
    assert simulation.num_state_regions == 12
    masks = [sample.mask() for sample in tiny_dataset.split("d_t")]
    expected = np.sum([np.bincount(mask.ravel(), minlength=256) for mask in masks], axis=0)
    assert simulation.class_pixels.shape == (30, 4)
    np.testing.assert_array_equal(simulation.class_pixels.sum(axis=0), expected[[0, 1, 2, 255]])
    top_left = simulation.class_pixels[0]
    np.testing.assert_array_equal(
        top_left, np.bincount(masks[0][:32, :32].ravel(), minlength=256)[[0, 1, 2, 255]]
    )


def test_features_come_in_the_order_asked_for_and_count_the_regions_pixels(make):
    simulation = make()
    simulation.begin(np.arange(4), 2, 0)
    some = np.array([17, 3, 29, 3])
    features, everything = simulation.describe(some), simulation.describe(np.arange(30))
    for name in everything:
        np.testing.assert_allclose(features[name], everything[name][some], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features.class_counts.sum(axis=1), 32 * 32, rtol=1e-5)
    np.testing.assert_allclose(simulation.class_counts(some), features.class_counts, atol=1e-3)
    assert features.entropy_grid.shape == (4, 192)
    assert (features.entropy_grid[:, :64] <= features.entropy_grid[:, 128:]).all()
    assert len(simulation.describe_state()) == 12
    assert len(simulation.describe(np.zeros(0, np.int64))) == 0


def test_features_asked_for_are_all_that_is_told_whatever_was_described_before(make):
    simulation = make()
    everything, some = simulation.describe(np.arange(6)), np.arange(4, 8)  # of two images
    assert set(everything) > {"entropy", "class_counts"}
    np.testing.assert_array_equal(simulation.class_counts(some)[:2], everything.class_counts[4:])
    assert list(simulation.describe(some, ("entropy",))) == ["entropy"]


def test_training_copies_share_their_start_and_the_first_is_kept(make):
    simulation = make()
    simulation.begin(np.arange(3), 2, 0)
    alike = simulation.learn([np.arange(6), np.arange(6), np.arange(3)], 2, 5)
    assert alike.shape == (3, 3, 3)
    np.testing.assert_array_equal(alike[0], alike[1])
    np.testing.assert_array_equal(simulation.evaluate(), alike[0])


def test_the_same_seed_gives_the_same_segmenter(make):
    played = []
    for _ in range(2):
        simulation = make()
        simulation.begin(np.zeros(0, np.int64), 2, 0)
        simulation.learn([np.arange(5)], None, 9)
        simulation.begin(np.zeros(0, np.int64), 2, 0)  # the first segmenter is remembered
        played.append(simulation.learn([np.arange(5)], None, 9))
    np.testing.assert_array_equal(*played)


@pytest.mark.e2e  # slow
def test_the_fast_segmenter_becomes_better_with_labels(make_fast):
    simulation = make_fast()
    simulation.begin(np.arange(1), 20, 0)
    before = mean_iou(simulation.evaluate())
    after = mean_iou(simulation.learn([np.arange(30)], 200, 0)[0])
    assert after > before + 0.1


@pytest.mark.e2e  # slow
def test_computed_features_are_kept_and_a_damaged_file_is_computed_anew(tiny_dataset, tmp_path):
    told: list[str] = []

    def features() -> PointFeatures:
        return PointFeatures(tiny_dataset, REGION_SIZE, tmp_path, spec=RANDOM, report=told.append)

    first = features().split("d_r")
    assert any("d_r" in line for line in told)
    told.clear()
    again = features().split("d_r")
    assert told == []
    assert torch.equal(first.points.features, again.points.features)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    mended = features().split("d_r")
    assert torch.equal(first.points.features, mended.points.features)


@pytest.mark.e2e  # slow
def test_an_edited_mask_is_read_anew(own_dataset, tmp_path):
    def features() -> PointFeatures:
        return PointFeatures(own_dataset, REGION_SIZE, tmp_path / "cache", spec=RANDOM)

    before = features().split("d_r").class_pixels
    path = own_dataset.split("d_r")[0].mask_path
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    after = features().split("d_r").class_pixels
    assert after[:, 0].sum() > before[:, 0].sum()


class MeanEncoder:
    """In place of an encoder: one point a region, of which the scale is the only feature."""

    def __init__(self, spec: SegmenterSpec, device: str) -> None:
        self.scale = 0.0

    def fit(self, images: Iterable[tuple[np.ndarray, object]]) -> None:
        self.scale = float(sum(image.mean() for image, _ in images))

    def points(self, images: Iterable[object], look_twice: bool) -> RegionPoints:
        count = len(list(images))
        features = torch.full((count, 1, 1), self.scale)
        return RegionPoints(
            Points(features, torch.zeros((count, 1), dtype=torch.uint8)), (1, 1),
            np.ones((count, 1), np.float32), np.ones((count, 4), np.int64), np.arange(count),
            (64, 96), np.zeros((count, 2), np.float32),
        )  # fmt: skip


def test_another_image_of_the_scale_means_other_features(own_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("ralis_backend.offline.point_features.PointEncoder", MeanEncoder)

    def features() -> list[float]:
        points = PointFeatures(own_dataset, (64, 96), tmp_path / "cache").split("d_r").points
        return points.features.flatten().tolist()

    before = features()
    path = own_dataset.split("d_v")[0].image_path
    changed_at, image = path.stat().st_mtime_ns, np.asarray(Image.open(path))
    Image.fromarray(255 - image).save(path)
    os.utime(path, ns=(changed_at, changed_at))
    difference = 255 - 2 * image.mean()
    np.testing.assert_allclose(features(), [each + difference for each in before], rtol=1e-5)


def test_points_lie_inside_their_region_and_carry_its_labels(tiny_dataset, tmp_path):
    features = PointFeatures(tiny_dataset, (32, 40), tmp_path, spec=RANDOM)
    regions = features.split("d_r")
    assert regions.lattice == (4, 5)
    assert len(regions) == 12  # the last column is shifted inside
    mask = tiny_dataset.split("d_r")[0].mask()
    expected = mask[4:32:8, 60:96:8]  # the third region begins at column 56
    np.testing.assert_array_equal(regions.points.labels[2].reshape(4, 5), expected)


def test_the_truth_is_told_to_those_who_ask(make):
    simulation = make()
    simulation.begin(np.arange(4), 2, 0)
    regions = np.array([7, 0, 3])
    truth = simulation.reveal(regions)
    np.testing.assert_array_equal(truth.class_pixels, simulation.class_pixels[regions])
    assert ((truth.error >= 0) & (truth.error <= 1)).all()
    assert 0 < truth.error.mean() < 1
    bald = simulation.describe(regions).bald
    annotated = simulation.class_pixels[regions, :-1].sum(axis=1) / 32**2
    whole = annotated == 1
    np.testing.assert_allclose(truth.class_bald.sum(axis=1)[whole], bald[whole], rtol=0.02)
    assert not truth.class_bald[simulation.class_pixels[regions, :-1] == 0].any()


def test_classwise_uncertainty_adds_up_to_the_whole(make):
    simulation = make()
    simulation.begin(np.arange(4), 2, 0)
    features = simulation.describe(np.arange(6))
    np.testing.assert_allclose(features.class_bald.sum(axis=1), features.bald, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(features.class_entropy.sum(axis=1), features.entropy, rtol=1e-2)
    assert features.bald.max() > 1e-5
    with pytest.raises(NotDescribed, match="mirror_divergence was not described"):
        features.mirror_divergence  # noqa: B018  (raises)


@pytest.mark.e2e  # slow
def test_a_second_look_is_cached_beside_the_first(tiny_dataset, tmp_path):
    def features() -> PointFeatures:
        return PointFeatures(tiny_dataset, (32, 32), tmp_path, spec=RANDOM)

    pool, state = features().split("d_t", look_twice=True), features().split("d_s")
    again = features().split("d_t", look_twice=True)
    assert torch.equal(pool.mirrored, again.mirrored)
    assert features().split("d_t").mirrored is None
    simulation = FastSimulation(pool, state, state)
    simulation.begin(np.arange(6), 20, 0)
    divergence = simulation.describe(np.arange(6)).mirror_divergence
    assert (divergence > 0).all()


def test_the_fast_entropy_grid_is_that_of_the_stretched_points(make_fast):
    simulation = make_fast()
    simulation.begin(np.arange(10), 5, 0)
    logits = simulation._logits(simulation._pool, torch.arange(2))
    p = logits.softmax(dim=2)
    entropy = torch.special.entr(p).sum(dim=2).reshape(2, 1, 4, 4)
    stretched = torch.nn.functional.interpolate(entropy, REGION_SIZE, mode="bilinear")[:, 0]
    np.testing.assert_allclose(
        simulation.describe(np.arange(2)).entropy_grid, entropy_grid(stretched), atol=1e-5
    )


def test_a_balanced_reward_set_is_half_as_large(make_fast):
    whole, half = make_fast(), make_fast(reward_regions="balanced")
    assert half.evaluate().sum() < 0.6 * whole.evaluate().sum()


@pytest.mark.parametrize("fidelity", ["fast", "full"])
def test_a_datasets_background_is_known_where_policies_are_trained(
    tiny_dataset, tiny_segmenters, cache, fidelity
):
    ground, *others = tiny_dataset.classes
    dataset = replace(tiny_dataset, classes=(replace(ground, is_background=True), *others))
    spec = RANDOM if fidelity == "fast" else tiny_segmenters
    config = replace(CONFIG, fidelity=fidelity)
    assert open_simulation(dataset, config, cache, spec=spec).background == 0


def test_a_class_that_never_occurs_is_refused_by_name(make_fast, tiny_dataset):
    more = replace(tiny_dataset, classes=(*tiny_dataset.classes, tiny_dataset.classes[0]))
    with pytest.raises(DatasetError, match=r"d_t.*never occurs"):
        make_fast(more)


def test_a_dataset_without_a_split_is_refused(make_fast, tiny_dataset):
    splits = {**tiny_dataset.splits, "d_r": ()}
    with pytest.raises(DatasetError, match=r"no images in d_r.*splits\.json"):
        make_fast(replace(tiny_dataset, splits=splits))


@pytest.mark.parametrize(("split", "initial_regions"), [("d_r", 48), ("d_s", 0)])
def test_a_set_that_is_all_void_is_refused_where_labels_are_needed(
    make_fast, own_dataset, split, initial_regions
):
    for sample in own_dataset.split(split):
        mask = np.asarray(Image.open(sample.mask_path))
        Image.fromarray(np.full_like(mask, 255)).save(sample.mask_path)
    rules = replace(CONFIG.environment, initial_regions=initial_regions)
    with pytest.raises(DatasetError, match=f"no pixel of split '{split}'.*is annotated"):
        make_fast(own_dataset, environment=rules)


def test_a_balanced_reward_set_needs_the_fast_simulation(make_fast):
    with pytest.raises(ValueError, match="reward_regions 'balanced'"):
        make_fast(fidelity="full", reward_regions="balanced")


def test_images_smaller_than_a_region_are_refused(make_fast):
    with pytest.raises(DatasetError, match="smaller than a region of 128 x 128"):
        make_fast(region_size=(128, 128))


def test_features_of_random_weights_are_refused_unless_they_are_asked_for(
    tiny_dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("ralis_backend.core.segmenter.smp._NOT_TO_BE_HAD", set())
    features = PointFeatures(tiny_dataset, REGION_SIZE, tmp_path)
    with pytest.raises(ValueError, match="imagenet weights of mobilenet_v2 could not be had"):
        features.split("d_r")
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("is_tiny", [True, False])
def test_a_segmenter_of_any_kind_plays_the_full_simulation(make_full, is_tiny):
    simulation = make_full() if is_tiny else make_full(RANDOM)
    simulation.begin(np.arange(4), 2, 0)
    matrices = simulation.learn([np.arange(8), np.arange(4)], 3, 0)
    assert matrices.shape == (2, 3, 3)
    np.testing.assert_array_equal(simulation.evaluate(), matrices[0])
    assert simulation.embeddings(np.arange(5)).shape == (5, 12 if is_tiny else 96)


def test_a_full_simulation_without_images_is_refused(tiny_dataset):
    some = tiny_dataset.split("d_r")
    with pytest.raises(ValueError, match="the state set has no image"):
        FullSimulation(some, [], some, RANDOM, REGION_SIZE)
