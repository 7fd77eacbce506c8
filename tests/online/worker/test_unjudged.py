from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.further import AWAITED, NOT_IN_USE
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.attempts import TRAINING
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import ImageUnreachable, ToolTask
from ralis_backend.online.worker.stretch import Basis
from ralis_backend.online.worker.unjudged import is_judging_due, note_tried
from tests.online.store.conftest import START, annotation, label

UNJUDGED = {NOT_IN_USE: "0 can be read", "validation_regions": 0}


def _version(store: Store, project: Project, number: int, **values: Any) -> Version:
    columns = {"parent": 1, "is_accepted": False, "num_labels": 6, "metrics": UNJUDGED} | values
    return store.versions.add(
        Version(project_id=project.id, number=number, created_at=now(), **columns)
    )


def _held_out(store: Store, project: Project, *counts: int) -> list[Image]:
    """Images with so many labelled regions each, that their host has just failed to deliver."""
    tasks = [ToolTask(number, START, f"{number}.png") for number in range(1, len(counts) + 1)]
    store.images.reconcile(project.id, tasks)
    images = store.images.of(project.id)
    for number, (image, count) in enumerate(zip(images, counts, strict=True)):
        store.images.seen(image.id, (9, 9))
        patches = [
            NewLabel(Region(row, 0, 1, 1), np.zeros((1, 1), np.uint8)) for row in range(count)
        ]
        label(store, project, image, annotation(number + 1), *patches)
        store.images.change(image.id, is_validation=True)
        store.images.fail(image.id, ImageUnreachable("timed out"))
    store.projects.change(project.id, current_version=1)
    return images


def test_it_is_trained_again_once_enough_can_be_read_and_no_more_while_that_stays_so(
    store: Store, project: Project
):
    small, large = _held_out(store, project, 3, 4)
    project = store.projects.by_id(project.id)
    _version(store, project, 2)
    assert not is_judging_due(store, project)
    store.images.seen(small.id, (9, 9))
    assert not is_judging_due(store, project), "three regions judge nothing"
    store.images.seen(large.id, (9, 9))
    assert is_judging_due(store, project)
    note_tried(store, project, Basis.of(store, project))
    assert not is_judging_due(store, project), "the training came to nothing"


def test_labels_that_are_painted_during_a_training_were_not_tried_with(
    store: Store, project: Project
):
    readable, _ = _held_out(store, project, 3, 2)
    store.images.seen(readable.id, (9, 9))
    project = store.projects.by_id(project.id)
    _version(store, project, 2)
    basis = Basis.of(store, project)
    patches = [NewLabel(Region(row, 5, 1, 1), np.zeros((1, 1), np.uint8)) for row in range(2)]
    label(store, project, readable, annotation(9), *patches)
    assert is_judging_due(store, project)
    note_tried(store, project, basis)
    assert is_judging_due(store, project)
    note_tried(store, project, Basis.of(store, project))
    assert not is_judging_due(store, project)


def test_what_came_into_use_unjudged_is_trained_once_more_when_enough_can_be_read(
    store: Store, project: Project
):
    small, large = _held_out(store, project, 3, 4)
    project = store.projects.by_id(project.id)
    metrics = {AWAITED: 7, "validation_regions": 0}
    _version(store, project, 1, parent=0, is_accepted=True, metrics=metrics)
    note_tried(store, project, Basis.of(store, project))
    store.images.change(large.id, unreachable_since=now() - timedelta(days=2))
    store.images.seen(small.id, (9, 9))
    assert not is_judging_due(store, project), "three regions judge nothing"
    store.images.seen(large.id, (9, 9))
    assert is_judging_due(store, project)
    _version(store, project, 2, metrics={"validation_regions": 7})
    assert not is_judging_due(store, project), "one that was trained from it was judged"


def test_who_is_away_for_a_day_is_not_waited_for(store: Store, project: Project):
    small, medium, large = _held_out(store, project, 1, 3, 4)
    project = store.projects.by_id(project.id)
    _version(store, project, 2)
    for image, is_due in ((small, False), (medium, True), (large, True)):
        store.images.change(image.id, unreachable_since=now() - timedelta(days=1))
        assert is_judging_due(store, project) is is_due  # as soon as the others cannot judge it


@pytest.mark.parametrize(
    ("values", "is_due"),
    [
        ({}, True),
        ({"parent": 0}, False),  # somebody went back
        ({"metrics": {"validation_regions": 7}}, False),  # it was judged
        ({"metrics": {NOT_IN_USE: "training to the end could not be compared"}}, True),
        ({"is_accepted": True}, False),  # of what somebody went back to meanwhile
    ],
)
def test_only_what_was_trained_last_from_the_version_in_use_and_not_judged_is_trained_again(
    store: Store, project: Project, values: dict[str, Any], is_due: bool
):
    for image in _held_out(store, project, 5):
        store.images.seen(image.id, (9, 9))
    project = store.projects.by_id(project.id)
    if values.get("parent") != 0:
        _version(store, project, 2)
    _version(store, project, 3, **values)
    assert is_judging_due(store, project) is is_due


def test_training_that_was_given_up_is_not_begun_again_for_it(store: Store, project: Project):
    for image in _held_out(store, project, 5):
        store.images.seen(image.id, (9, 9))
    newest = store.labels.newest_id(project.id)
    project = store.projects.change(project.id, trained_label_id=newest)
    _version(store, project, 2)
    store.attempts.set_aside(project.id, TRAINING, newest, "it was given up")
    assert not is_judging_due(store, project)
