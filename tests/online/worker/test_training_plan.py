from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.random_slice import SLICE
from ralis_backend.online.store.tables import Image, Version
from ralis_backend.online.worker.training_plan import TrainingPlan, plan_training
from tests.online.conftest import make_label

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEFT, RIGHT = Region(0, 0, 32, 32), Region(0, 32, 32, 32)

IMAGES = [
    Image(id=1, height=32, width=64, is_validation=False),
    Image(id=2, height=32, width=64, is_validation=True),
    Image(id=3, height=32, width=64, is_validation=None),
    Image(id=4, is_validation=False),  # never read
]
LABELS = [
    make_label(1, LEFT, id=1, strategy=SLICE),
    make_label(2, LEFT, id=2),
    make_label(1, RIGHT, id=3, strategy=SLICE),
    make_label(1, LEFT, id=4, is_skipped=True, strategy=SLICE),
    make_label(4, LEFT, id=5, strategy=SLICE),
    make_label(2, RIGHT, id=6, strategy=SLICE),
]


def ids(plan: TrainingPlan, name: str) -> list[tuple[int, list[int]]]:
    return [(part.image.id, [it.id for it in part.labels]) for part in getattr(plan, name)]


def test_held_out_images_are_for_validation_and_skipped_regions_for_nothing():
    plan = plan_training(IMAGES, LABELS, None, NOW)
    assert ids(plan, "training") == [(1, [1, 3])]
    assert ids(plan, "validation") == [(2, [2, 6])]
    assert plan.num_labels == 5
    sliver = make_label(1, LEFT, id=7, share_beside=0.1)
    assert plan_training(IMAGES, [*LABELS, sliver], None, NOW).num_labels == 5
    assert plan.training[0].size == (32, 64)


def test_a_version_is_measured_on_each_new_draw_alone_be_it_held_out_or_not():
    in_use = Version(number=1, metrics={"newest_label_id": 2})
    assert ids(plan_training(IMAGES, LABELS, in_use, NOW), "unseen") == [(1, [3]), (2, [6])]


def test_a_version_that_has_learned_nothing_is_not_measured():
    assert plan_training(IMAGES, LABELS, None, NOW).unseen == []
    assert plan_training(IMAGES, LABELS, Version(number=0, metrics={}), NOW).unseen == []


def test_a_region_outside_its_image_is_left_out_and_named_and_its_neighbours_count():
    outside = make_label(1, Region(16, 48, 32, 32), id=7)
    plan = plan_training(IMAGES, [*LABELS, outside], None, NOW)
    assert ids(plan, "training") == [(1, [1, 3])]
    (reason,) = plan.left_out
    assert "Region(row=16, col=48" in reason
    assert "32 x 64 pixels" in reason


def test_an_image_that_could_not_be_read_shortly_before_is_left_out_and_named():
    bad = Image(id=1, task_id=5, height=32, width=64, error="truncated")
    bad.retry_at, bad.is_validation = NOW + timedelta(minutes=1), False
    plan = plan_training([bad, *IMAGES[1:]], LABELS, None, NOW)
    assert plan.training == []
    assert list(plan.left_out) == ["task 5: truncated"]
    later = plan_training([bad, *IMAGES[1:]], LABELS, None, NOW + timedelta(minutes=1))
    assert ids(later, "training") == [(1, [1, 3])]


def test_what_is_held_out_counts_whether_it_can_be_read_or_not():
    bad = Image(id=2, task_id=6, height=32, width=64, error="truncated", is_validation=True)
    bad.retry_at = NOW + timedelta(minutes=1)
    outside = make_label(2, Region(16, 48, 32, 32), id=7)  # its image has changed
    plan = plan_training([IMAGES[0], bad], [*LABELS, outside], None, NOW)
    assert plan.validation == []
    assert ids(plan, "held_out") == [(2, [2, 6])]


@pytest.fixture
def can_judge(monkeypatch):
    """Two held-out regions are enough."""
    monkeypatch.setattr("ralis_backend.online.worker.training_plan.can_judge", lambda num: num >= 2)


LEARNED = Version(number=1, weights_key="versions/1/1.safetensors", metrics={})


def unlabelled_ids(images, in_use=LEARNED, learner="paint+unlabelled"):
    plan = plan_training(images, LABELS, in_use, NOW, learner)
    assert all(part.labels == () for part in plan.unlabelled)
    assert list(plan.learned_from) == [*plan.training, *plan.unlabelled]
    return [part.image.id for part in plan.unlabelled]


@pytest.mark.usefixtures("can_judge")
def test_images_without_any_label_are_learned_from_unless_held_out_unread_or_bad():
    bad = Image(id=9, task_id=9, height=32, width=64, error="truncated")
    bad.retry_at = NOW + timedelta(minutes=1)
    held_out = Image(id=8, height=32, width=64, is_validation=True)
    never_read = Image(id=7)
    images = [*IMAGES, held_out, never_read, bad]
    assert unlabelled_ids(images) == [3]
    assert unlabelled_ids(images, learner="paint") == []


@pytest.mark.usefixtures("can_judge")
def test_a_picture_is_not_unlabelled_that_is_held_out_or_labelled_in_another_task():
    shown = {1: "painted", 2: "held out", 5: "skipped", 6: "unread"}
    first = [
        Image(id=1, height=32, width=64, is_validation=False),
        Image(id=2, height=32, width=64, is_validation=True),
        Image(id=5, height=32, width=64),
        Image(id=6, height=32, width=64, is_validation=True, retry_at=NOW + timedelta(minutes=1)),
    ]
    twins = [Image(id=10 + number, height=32, width=64) for number in shown]
    for image in [*first, *twins]:
        image.content = shown[image.id % 10]
    alone = Image(id=20, height=32, width=64, content="alone")
    skip = make_label(5, LEFT, id=9, is_skipped=True)
    plan = plan_training([*first, *twins, alone], [*LABELS, skip], LEARNED, NOW, "paint+unlabelled")
    assert [part.image.id for part in plan.unlabelled] == [20]


@pytest.mark.usefixtures("can_judge")
def test_of_a_large_pool_some_are_drawn_others_for_each_version(monkeypatch):
    monkeypatch.setattr("ralis_backend.online.worker.training_plan.MOST_UNLABELLED_IMAGES", 5)
    images = [IMAGES[1], *(Image(id=number, height=8, width=8) for number in range(20, 40))]
    versions = [Version(number=number, weights_key="it", metrics={}) for number in (1, 2, 1)]
    draws = [unlabelled_ids(images, each) for each in versions]
    assert [len(set(draw)) for draw in draws] == [5, 5, 5]
    assert draws[0] == draws[2] != draws[1]


@pytest.mark.parametrize(
    ("in_use", "labels", "why"),
    [
        (None, LABELS, "what has learned nothing yet is no teacher"),
        (Version(number=0, metrics={}), LABELS, "what has learned nothing yet is no teacher"),
        (LEARNED, LABELS[:5], "1 labelled regions that can be read are held out, expected"),
    ],
)
@pytest.mark.usefixtures("can_judge")
def test_only_paint_is_learned_from_where_nobody_could_tell_what_the_rest_does(in_use, labels, why):
    plan = plan_training(IMAGES, labels, in_use, NOW, "paint+unlabelled")
    assert (list(plan.besides), list(plan.unlabelled)) == ([], [])
    assert plan.not_yet is not None
    assert plan.not_yet.startswith(why)
    assert plan_training(IMAGES, labels, in_use, NOW).not_yet is None


@pytest.mark.usefixtures("can_judge")
def test_a_plan_without_the_rest_has_the_same_labels():
    plan = plan_training(IMAGES, LABELS, LEARNED, NOW, "paint+unlabelled")
    alone = plan.from_paint_alone()
    assert (list(plan.besides), list(alone.besides)) == (["unlabelled"], [])
    assert list(alone.learned_from) == plan.training
    assert alone.validation == plan.validation
