from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.attempts import TRAINING
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import ImageUnreachable, ToolTask
from tests.online.store.conftest import START, annotation, label


def test_task_ids_that_are_handed_out_again_are_other_images(store: Store, project: Project):
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/old.png")])
    (old,) = store.images.of(project.id)
    later = START + timedelta(hours=1)
    store.images.reconcile(project.id, [ToolTask(1, later, "/data/new.png")])
    assert [row.ref for row in store.images.of(project.id)] == ["/data/new.png"]
    assert store.images.get(old.id).is_deleted
    found = store.images.find(project.id, 1)
    assert found is not None
    assert found.ref == "/data/new.png"


def test_every_fifth_labelled_image_is_held_out_for_good(store: Store, project: Project):
    tasks = [ToolTask(i, START, f"/{i}.png") for i in range(1, 11)]
    store.images.reconcile(project.id, tasks)
    patch = NewLabel(Region(0, 0, 1, 1), np.zeros((1, 1), np.uint8))
    for number, image in enumerate(store.images.of(project.id), start=1):
        label(store, project, image, annotation(number, task_id=image.task_id), patch)
    held_out = [image.task_id for image in store.images.of(project.id) if image.is_validation]
    assert held_out == [5, 10]
    store.annotations.withdraw("1.100", [1])
    assert [image.task_id for image in store.images.of(project.id) if image.is_validation] == [
        5,
        10,
    ]


def test_an_image_knows_the_tools_id_of_its_project(store, project):
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/new.png")])
    assert {image.tool_project_id for image in store.images.of(project.id)} == {project.tool_id}


def test_an_address_that_changes_keeps_the_size_that_is_known(store: Store, project: Project):
    task = ToolTask(1, START, "https://bucket/a.png?signature=1")
    store.images.reconcile(project.id, [task])
    (image,) = store.images.of(project.id)
    store.images.change(image.id, height=64, width=96)
    for ref in ("https://bucket/a.png?signature=2", "https://other/a.png"):
        store.images.reconcile(project.id, [replace(task, image=ref)])
        assert [(row.ref, row.size) for row in store.images.of(project.id)] == [(ref, (64, 96))]


def test_an_image_that_comes_back_is_the_same_with_its_size(store: Store, project: Project):
    task = ToolTask(1, START, "/a.png")
    store.images.reconcile(project.id, [task])
    (image,) = store.images.of(project.id)
    store.images.change(image.id, height=64, width=96)
    store.images.reconcile(project.id, [])
    assert store.images.of(project.id) == []
    store.images.reconcile(project.id, [task])
    assert [(row.id, row.size) for row in store.images.of(project.id)] == [(image.id, (64, 96))]


def test_more_tasks_than_one_statement_takes_are_known_and_missed(store: Store, project: Project):
    tasks = [ToolTask(i, START, f"/{i}.png") for i in range(1, 1202)]
    for part in (tasks[:600], tasks[600:]):
        store.images.note(project.id, part)
    ids = set(range(1, 1300))
    assert store.images.known_tasks(project.id, ids) == set(range(1, 1202))
    store.images.mark_missing(project.id, {1, 1201})
    assert [row.task_id for row in store.images.of(project.id)] == [1, 1201]


def test_a_bad_image_is_tried_again_after_growing_pauses_or_at_another_address(
    store: Store, project: Project, image: Image
):
    pauses = []
    for _ in range(9):
        moment = now()
        store.images.fail(image.id, ValueError("truncated"))
        failed = store.images.get(image.id)
        assert failed.error == "truncated"
        assert failed.retry_at is not None
        assert not failed.may_be_tried(moment)
        assert failed.may_be_tried(failed.retry_at)
        assert store.images.to_try_again(project.id, moment, 5) == []
        (again,) = store.images.to_try_again(project.id, failed.retry_at, 5)
        assert again.id == image.id
        pauses.append((failed.retry_at - moment).total_seconds())
    assert [round(pause) for pause in pauses[:3]] == [60, 240, 960]
    assert round(pauses[-1]) == 86_400
    store.images.seen(image.id, (3, 4))
    seen = store.images.get(image.id)
    assert (seen.size, seen.error, seen.retry_at) == ((3, 4), None, None)
    assert seen.num_failures == 9  # until it has been described
    store.images.fail(image.id, ValueError("truncated"))
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/other.png")])
    moved = store.images.get(image.id)
    assert moved.may_be_tried(now())
    assert moved.num_failures == 10  # it is tried at once, and rests longer if it fails again


def test_an_image_that_is_only_out_of_reach_rests_for_minutes_however_long_its_host_is_down(
    store: Store, project: Project, image: Image
):
    pauses = []
    for error in [ImageUnreachable("503")] * 200 + [ValueError("truncated")]:
        moment = now()
        store.images.fail(image.id, error)
        retry_at = store.images.get(image.id).retry_at
        assert retry_at is not None
        pauses.append(round((retry_at - moment).total_seconds()))
    assert pauses == [60] + [300] * 199 + [240]


def test_an_image_is_out_of_reach_for_a_day_from_its_first_failure_or_until_it_is_to_blame(
    store: Store, project: Project, image: Image
):
    store.images.fail(image.id, ImageUnreachable("503"))
    since = store.images.get(image.id).unreachable_since
    assert since is not None
    store.images.fail(image.id, ImageUnreachable("503"))
    failed = store.images.get(image.id)
    assert failed.unreachable_since == since
    assert failed.is_out_of_reach(since + timedelta(hours=23))
    assert not failed.is_out_of_reach(since + timedelta(hours=24))
    store.images.seen(image.id, (3, 4))
    assert not store.images.get(image.id).is_out_of_reach(since)
    store.images.fail(image.id, ImageUnreachable("503"))
    assert store.images.get(image.id).unreachable_since > since
    store.images.fail(image.id, ValueError("truncated"))
    assert not store.images.get(image.id).is_out_of_reach(since)

    store.images.seen(image.id, (3, 4))
    assert store.images.get(image.id).unreachable_since is None


def test_a_clock_that_was_ahead_puts_no_image_out_of_reach_and_hides_none_that_is_due(
    store: Store, project: Project, image: Image
):
    (before,) = store.projects.looks()
    ahead = now() + timedelta(days=30)
    store.images.fail(image.id, ImageUnreachable("503"))
    store.images.change(image.id, unreachable_since=ahead, retry_at=ahead)
    assert not store.images.get(image.id).is_out_of_reach(now())
    assert [row.id for row in store.images.to_try_again(project.id, now(), 5)] == [image.id]
    (after,) = store.projects.looks()
    assert after != before, "it is looked for"
    store.images.mark_missing(project.id, set())
    assert store.projects.looks() == [before], "unless its task is gone"
    store.images.fail(image.id, ImageUnreachable("503"))
    failed = store.images.get(image.id)
    assert failed.is_out_of_reach(now())
    assert not failed.is_out_of_reach(now() + timedelta(days=1))


@pytest.mark.parametrize(
    ("away", "was_asked", "pause"),
    [
        (timedelta(hours=1), False, timedelta(minutes=2.5)),
        (timedelta(hours=1), True, timedelta(minutes=5)),
        (timedelta(hours=12), True, timedelta(minutes=30)),
        (timedelta(days=1), False, timedelta(hours=1)),
        (timedelta(days=30), True, timedelta(days=1)),
    ],
)
def test_what_its_host_has_not_delivered_for_long_is_asked_for_more_seldom(
    store: Store, image: Image, away: timedelta, was_asked: bool, pause: timedelta
):
    store.images.fail(image.id, ImageUnreachable("503"))
    moment = now()
    store.images.change(image.id, unreachable_since=moment - away)
    store.images.fail(image.id, ImageUnreachable("503", "bucket", was_asked=was_asked))
    retry_at = store.images.get(image.id).retry_at
    assert retry_at is not None
    assert round((retry_at - moment) / pause, 2) == 1


def unreachable(store: Store, project: Project, *hosts: str) -> list[Image]:
    """Images that were asked for in vain and are due again."""
    tasks = [ToolTask(number, START, f"{number}.png") for number in range(1, len(hosts) + 1)]
    store.images.reconcile(project.id, tasks)
    images = store.images.of(project.id)
    for image, host in zip(images, hosts, strict=True):
        store.images.fail(image.id, ImageUnreachable("503", host))
        store.images.change(image.id, retry_at=START)
    return images


def test_an_image_that_was_not_asked_for_has_not_failed_and_puts_off_the_rest_of_its_host(
    store: Store, project: Project
):
    first, *_ = unreachable(store, project, "down", "down", "fine", "down")
    store.images.fail(first.id, ImageUnreachable("not asked", "down", was_asked=False))
    assert [row.task_id for row in store.images.to_try_again(project.id, now(), 5)] == [3]
    later = now() + timedelta(minutes=1)
    due = store.images.to_try_again(project.id, later, 5)
    assert sorted((row.task_id, row.num_failures) for row in due) == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
    ]


def test_images_that_have_failed_least_are_tried_first(store: Store, project: Project):
    first, second, _ = unreachable(store, project, "down", "down", "down")
    for image, count in ((first, 2), (second, 1)):
        for _ in range(count):
            store.images.fail(image.id, ImageUnreachable("503", "down"))
    due = store.images.to_try_again(project.id, now() + timedelta(minutes=5), 2)
    assert [row.task_id for row in due] == [3, 2]


@pytest.mark.parametrize("is_read", [True, False])
def test_an_image_that_a_host_answers_for_brings_the_others_of_it_back(
    store: Store, project: Project, is_read: bool
):
    images = unreachable(store, project, "back", "back", "down", "back")
    later = now() + timedelta(hours=1)
    for image in images:
        store.images.change(image.id, retry_at=later)
    store.images.change(images[3].id, num_failures=3)  # while others came: it is gone for good
    if is_read:
        store.images.seen(images[0].id, (3, 4))
    else:
        store.images.fail(images[0].id, ValueError("404"))
    assert [row.task_id for row in store.images.to_try_again(project.id, now(), 5)] == [2]


def test_a_task_that_loses_its_image_waits_for_no_host(store: Store, project: Project):
    (image,) = unreachable(store, project, "down")
    store.images.reconcile(project.id, [ToolTask(1, START, "")])
    lost = store.images.get(image.id)
    assert (lost.unreachable_since, lost.unreachable_host) == (None, None)


def test_a_request_for_a_training_lets_no_image_wait(store: Store, project: Project, image: Image):
    store.images.reconcile(project.id, [ToolTask(1, START, "a.png"), ToolTask(2, START, "")])
    for _ in range(5):
        store.images.fail(image.id, ValueError("truncated"))
    store.projects.request_training(project.id)
    assert [it.task_id for it in store.images.to_try_again(project.id, now(), 5)] == [1]


@pytest.mark.parametrize(
    ("trained", "of_project", "is_skipped", "is_given_up", "is_held_out", "is_due"),
    [
        (0, 1, False, False, False, True),
        (1, 1, False, False, False, False),  # a training has read it
        (0, 0, False, False, False, False),  # it is to be trained on anyway
        (0, 1, True, False, False, False),
        (0, 1, False, True, False, False),
        (0, 1, False, False, True, False),  # it teaches nothing
    ],
)
def test_labels_that_a_training_left_out_are_due_when_their_image_is_read_again_and_not_before(
    store: Store,
    project: Project,
    image: Image,
    trained: int,
    of_project: int,
    is_skipped: bool,
    is_given_up: bool,
    is_held_out: bool,
    is_due: bool,
):
    patch = NewLabel(Region(0, 0, 1, 1), None if is_skipped else np.zeros((1, 1), np.uint8))
    label(store, project, image, annotation(is_skipped=is_skipped), patch)
    newest = store.labels.newest_id(project.id)
    store.images.change(image.id, is_validation=is_held_out)
    store.images.note_trained([image.id], newest * trained)
    store.projects.change(project.id, trained_label_id=newest * of_project)
    if is_given_up:
        store.attempts.set_aside(project.id, TRAINING, newest, "it was given up")
    store.images.seen(image.id, (3, 4))
    assert not store.projects.by_id(project.id).is_training_requested
    store.images.fail(image.id, ValueError("502"))
    store.images.seen(image.id, (3, 4))
    assert store.projects.by_id(project.id).is_training_requested is is_due


def _two_of_one_picture(store: Store, project: Project, *sides: bool | None) -> list[Image]:
    tasks = [ToolTask(number, START, f"/data/{number}.png") for number in (1, 2, 3)]
    store.images.reconcile(project.id, tasks)
    for image, side in zip(store.images.of(project.id), sides, strict=False):
        store.images.change(image.id, is_validation=side)
    for image, content in zip(store.images.of(project.id), ("same", "same", "other"), strict=True):
        store.images.seen(image.id, (3, 4), content)
    return store.images.of(project.id)


def test_a_picture_in_two_tasks_is_found(store: Store, project: Project):
    first, second, _ = _two_of_one_picture(store, project)
    assert store.images.doubles(project.id) == {second.id: first.id}
    store.images.reconcile(project.id, [ToolTask(2, START, "/data/2.png")])
    assert store.images.doubles(project.id) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((True, False, True), (False, False, True)),  # it may have been learned from
        ((True, True, False), (True, True, False)),
        ((True, None, None), (True, None, None)),
    ],
)
def test_a_picture_stands_on_one_side_of_the_split(
    store: Store, project: Project, before: tuple[bool | None, ...], after: tuple[bool | None, ...]
):
    images = _two_of_one_picture(store, project, *before)
    assert tuple(image.is_validation for image in images) == after


def test_the_held_out_fifth_follows_the_picture_even_when_its_first_task_is_gone(
    store: Store, project: Project
):
    _, second, _ = _two_of_one_picture(store, project, True, None, False)
    store.images.reconcile(project.id, [ToolTask(2, START, "/data/2.png")])
    painted = NewLabel(Region(0, 0, 1, 1), np.zeros((1, 1), np.uint8))
    label(store, project, store.images.get(second.id), annotation(1, 1, task_id=2), painted)
    assert store.images.get(second.id).is_validation is True


def test_the_pool_has_as_many_pixels_as_its_images_and_the_mean_for_unread_ones(
    store: Store, project: Project
):
    assert store.images.pixels(project.id) == 0
    tasks = [ToolTask(number, START, f"/data/{number}.png") for number in (1, 2, 3)]
    store.images.reconcile(project.id, tasks)
    for image, size in zip(store.images.of(project.id)[:2], ((2, 3), (4, 4)), strict=True):
        store.images.seen(image.id, size)
    assert store.images.pixels(project.id) == 33
