from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core.acquisition import STRATEGIES, strategy
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.benchmark.arenas import ArenaConfig, check_arena, open_arena
from ralis_backend.offline.benchmark.run import Contest
from ralis_backend.offline.benchmark.workers import Match
from ralis_backend.offline.datasets import Dataset, DatasetClass, DatasetError, write_dataset
from ralis_backend.offline.scaled import scaled
from ralis_backend.simulation.full_arena import FullArena
from ralis_backend.simulation.game import GameRules, play
from ralis_backend.simulation.oracles import ORACLES
from ralis_backend.simulation.picking import pick
from tests.core.make_features import told
from tests.tiny_dataset import REGION_SIZE

RULES = GameRules(
    budgets=(3, 5), initial_regions=2, regions_per_step=1, pool_size=2,
    updates_per_step=1, initial_updates=1, final_updates=1,
)  # fmt: skip
FULL = FinetuneConfig(batch_size=2, crop_size=(32, 32))


@pytest.fixture
def make(tmp_path):
    """A dataset of small images with two classes, changed image by image."""

    def make(
        change=lambda split, image, mask: (image, mask), num_classes=2, background=None
    ) -> ArenaConfig:
        rng = np.random.default_rng(0)

        def drawn(split: str):
            mask = rng.integers(num_classes, size=(64, 64)).astype(np.uint8)
            return change(split, rng.integers(255, size=(64, 64, 3)).astype(np.uint8), mask)

        entries = [
            (split, f"all/{split}-{number}", *drawn(split))
            for split in ("d_s", "d_v", "test")
            for number in range(2)
        ]
        classes = [
            DatasetClass(f"class-{index}", (index, 0, 0), index == background)
            for index in range(num_classes)
        ]
        write_dataset(tmp_path / "small", classes, entries)
        return ArenaConfig(
            Dataset.open(tmp_path / "small"), REGION_SIZE, cache=tmp_path / "cache",
            spec=SegmenterSpec(2, encoder_weights=None),
        )  # fmt: skip

    make.root = tmp_path / "small"
    return make


def void_in(wanted: str):
    def change(split, image, mask):
        return image, np.full_like(mask, VOID) if split == wanted else mask

    return change


@pytest.mark.parametrize("split", ["d_v", "test"])
def test_a_split_that_is_all_void_is_refused(make, split):
    with pytest.raises(DatasetError, match=f"no pixel of split '{split}' .* is annotated"):
        check_arena(make(void_in(split)))


def test_images_that_are_measured_on_and_all_void_are_refused(make):
    turn = iter(range(2))

    def change(split, image, mask):
        is_void = split == "test" and next(turn) == 0
        return image, np.full_like(mask, VOID) if is_void else mask

    config = replace(make(change), fidelity="full", test_images=1)
    with pytest.raises(
        DatasetError, match=r"no pixel of the 1 images .* --test-images 1 .* of the 2"
    ):
        check_arena(config)
    check_arena(replace(config, test_images=2))


def test_a_state_set_needs_no_labels(make):
    check_arena(make(void_in("d_s")))


def test_an_image_smaller_than_a_region_is_named_with_the_fix(make):
    def change(split, image, mask):
        return (image[:20], mask[:20]) if split == "test" else (image, mask)

    with pytest.raises(DatasetError, match=r"test-0.png is 20 x 64 .*--region-size 20x32"):
        check_arena(make(change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fidelity": "slow"}, "choose fast or full"),
        ({"test_images": 3}, "lower the cost of --fidelity full"),
        ({"image_scale": 0.5}, "lower the cost of --fidelity full"),
        ({"fidelity": "full", "image_scale": 0.0}, "expected above 0"),
        ({"learner": "paint+unlabelled"}, "needs --fidelity full"),
        ({"fidelity": "full", "learner": "unlabelled"}, "must begin with 'paint'"),
        ({"fidelity": "full", "learner": "paint+magic"}, "unknown objective 'magic'"),
        ({"fidelity": "full", "image_scale": 0.26}, "another number than at full size"),
        ({"pool": "d_t"}, "split 'd_t' of dataset small is empty"),
        ({"pool": "train"}, "no split 'train'; it has d_s"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        check_arena(replace(make(), **changes))


def test_grey_images_and_sixty_classes_are_played(make):
    config = make(num_classes=60)
    for path in (config.dataset.root / "images").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    check_arena(config)
    played = play(open_arena(config), strategy("entropy"), 0, RULES)
    assert len(played["curve"][0]["ious"]) == 60


def test_an_image_that_is_all_void_is_played(make):
    turn = iter(range(9))

    def change(split, image, mask):
        is_void = split == "d_v" and next(turn) == 0
        return image, np.full_like(mask, VOID) if is_void else mask

    arena = open_arena(make(change))
    assert arena.is_annotated.tolist() == [False] * 4 + [True] * 4
    assert len(play(arena, strategy("entropy"), 0, RULES)["labelled"]) == 5


@pytest.mark.parametrize("fidelity", ["fast", "full"])
def test_a_datasets_background_is_told_to_strategies_and_to_scores(make, fidelity):
    arena = open_arena(replace(make(background=1), fidelity=fidelity))
    assert (arena.background, arena.simulation().background) == (1, 1)
    assert arena.describe()["background"] == 1
    assert arena.describe()["classes"] == ["class-0", "class-1"]


def test_a_contest_travels_to_other_processes(make, tmp_path):
    contest = Contest(partial(open_arena, make()), strategy, RULES, tmp_path)
    sent = ForkingPickler.loads(ForkingPickler.dumps(contest.player))
    sent()(Match("random", 0), lambda share: None)
    assert json.loads((tmp_path / "runs" / "random-0.json").read_text())["seed"] == 0


def test_test_images_are_evenly_spaced(make):
    config = make()
    assert [it.key for it in config.test_samples()] == ["all/test-0", "all/test-1"]
    assert [it.key for it in replace(config, test_images=1).test_samples()] == ["all/test-0"]


@pytest.mark.e2e  # slow
def test_other_splits_and_labels_are_told_apart(make):
    config = make()
    facts = open_arena(config).describe()
    assert facts["pool_regions"] == 8
    assert open_arena(replace(config, measured_on="d_s")).describe() != facts
    shutil.rmtree(config.dataset.root)
    other = open_arena(make(void_in("d_v"))).describe()
    changed = {name for name in facts if facts[name] != other[name]}
    assert changed == {"pool_labels_sha256", "files_sha256"}
    json.dumps(facts)


@pytest.mark.parametrize("fidelity", ["fast", "full"])
def test_other_pictures_and_masks_to_measure_on_are_told_apart(make, fidelity):
    def facts(change):
        shutil.rmtree(make.root, ignore_errors=True)
        return open_arena(replace(make(change), fidelity=fidelity)).describe()

    before = facts(lambda split, image, mask: (image, mask))
    inverted = facts(lambda split, image, mask: (255 - image if split == "d_v" else image, mask))
    swapped = facts(lambda split, image, mask: (image, 1 - mask if split == "test" else mask))
    assert len({each["files_sha256"] for each in (before, inverted, swapped)}) == 3


@pytest.mark.parametrize("changes", [{}, {"fidelity": "full", "test_images": 1}])
def test_an_image_of_another_split_is_told_apart(make, changes):
    config = replace(make(), **changes)
    splits = dict(config.dataset.splits)
    *kept, moved = splits["d_s"]  # beside the test images where all are listed
    splits |= {"d_s": tuple(kept), "test": (moved, *splits["test"])}
    other = replace(config, dataset=replace(config.dataset, splits=splits))
    before, after = config.facts(), other.facts()
    assert {name for name in before if before[name] != after[name]} >= {"images"}
    assert (before["images"]["d_s"], after["images"]["test"]) == (2, 3)


def test_what_is_in_the_file_of_the_encoders_weights_is_known(make, tmp_path, monkeypatch):
    whole = "ralis_backend.simulation.full_arena.FullSimulation"
    monkeypatch.setattr(whole, lambda *_, **__: SimpleNamespace(class_pixels=np.ones((2, 3), int)))
    path = tmp_path / "own.safetensors"
    spec = SegmenterSpec(2, encoder_weights=str(path))
    config = replace(make(), fidelity="full", spec=spec)
    digests = set()
    for content in (b"a", b"b"):
        path.write_bytes(content)
        digests.add(open_arena(config).describe()["encoder_weights_sha256"])
    assert len(digests) == 2


@pytest.fixture
def full_arena(make) -> FullArena:
    dataset = make().dataset
    splits = [scaled(dataset.split(name), 0.5) for name in ("d_v", "d_s", "test")]
    return FullArena("small", *splits, SegmenterSpec(2, encoder_weights=None), (16, 16), FULL)


@pytest.mark.e2e
def test_the_segmenter_itself_plays_and_goes_on_to_the_bit(full_arena, tmp_path, monkeypatch):
    monkeypatch.setattr("ralis_backend.simulation.game._SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    whole = play(full_arena, strategy("entropy"), 0, RULES)
    assert [point["regions"] for point in whole["curve"]] == [3, 5]

    def stop(labelled: int) -> None:
        if labelled == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(full_arena, strategy("entropy"), 0, RULES, checkpoint=tmp_path / "game", on_step=stop)
    resumed = play(full_arena, strategy("entropy"), 0, RULES, checkpoint=tmp_path / "game")
    assert resumed["curve"] == whole["curve"]
    assert resumed["labelled"] == whole["labelled"]


def test_a_learner_of_unlabelled_pixels_sees_the_rest_of_the_pool(make, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "ralis_backend.simulation.full.finetune",
        lambda *args, **options: seen.append((args, options)),
    )
    config = replace(make(), fidelity="full", image_scale=0.5)
    paint, both = (
        open_arena(replace(config, learner=name)) for name in ("paint", "paint+unlabelled")
    )
    for arena in (paint, both):
        simulation = arena.simulation()
        simulation.begin(np.array([0]), 1, 0)
        simulation.learn([np.array([0])], 1, 0)
    num_regions = [[len(image.regions) for image in args[1]] for args, _ in seen]
    assert num_regions == [[1], [1], [1, 0], [1, 0]]
    assert [options["besides"] for _, options in seen] == [(), (), ("unlabelled",), ("unlabelled",)]
    assert "besides" not in paint.describe()["finetune"]
    assert both.describe()["finetune"]["besides"] == ("unlabelled",)


def test_every_strategy_picks_by_the_segmenter_itself(make):
    arena = open_arena(replace(make(), fidelity="full", image_scale=0.5))
    simulation = arena.simulation()
    simulation.begin(np.arange(2), 1, 0)
    pools = np.array([[2, 3, 4], [5, 6, 7]])
    for chosen in map(told, (*STRATEGIES.values(), *ORACLES.values())):
        picked = pick(simulation, chosen, np.arange(2), pools, np.random.default_rng(0), 0.5)
        assert picked[0] in pools[0], chosen.name
        assert picked[1] in pools[1], chosen.name


def test_the_full_test_set_is_measured_pixel_by_pixel(full_arena):
    matrix = full_arena.measure(np.arange(4), 1, 0)
    assert matrix.sum() == 2 * 32 * 32


def test_the_cost_of_a_game_is_foretold(full_arena):
    few, all_labels = full_arena.seconds(RULES)
    assert 0 < all_labels < few < full_arena.seconds(replace(RULES, final_updates=200))[0]
