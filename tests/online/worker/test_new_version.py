from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ralis_backend.core import segmenter as segmenters
from ralis_backend.core.regions import Region
from ralis_backend.online.further import ALL_LABELS, AWAITED
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store, StoreError, now
from ralis_backend.online.store.leases import LeaseLost
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import ToolUnavailable
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.new_version import ContinuedWork, NewVersions
from ralis_backend.online.worker.training_plan import TrainingPlan, plan_training
from tests.online.conftest import RANKING
from tests.online.fake_tool import FakeTool
from tests.online.store.conftest import annotation, label

SEEN = np.array([[[3, 1], [1, 3]]])
"""(1, 2, 2): of each class 3 of 4 pixels are right, an IoU of 3/5."""


@pytest.fixture
def new_versions(store: Store) -> NewVersions:
    return NewVersions(store, WorkerConfig(ranking=RANKING))


@pytest.fixture
def held_out(store: Store, project: Project, image: Image) -> Image:
    """An image with six painted regions that is held out."""
    store.images.seen(image.id, (9, 9))
    patches = [NewLabel(Region(row, 0, 1, 1), np.zeros((1, 1), np.uint8)) for row in range(6)]
    label(store, project, image, annotation(1), *patches)
    store.images.change(image.id, is_validation=True)
    return image


def version(store: Store, project: Project, number: int = 1, **metrics: Any) -> Version:
    return store.versions.add(
        Version(
            project_id=project.id,
            number=number,
            parent=number - 1,
            is_accepted=True,
            num_labels=6,
            metrics=metrics,
            created_at=now(),
        )
    )


def plan_of(store: Store, project: Project) -> TrainingPlan:
    return plan_training(
        store.images.of(project.id), store.labels.of(project.id), None, moment=now()
    )


@pytest.mark.parametrize(
    ("known", "is_caught_up"),
    [
        ({AWAITED: 6, "validation_regions": 0}, True),
        ({"validation_regions": 5}, False),
        ({ALL_LABELS: True}, False),
    ],
)
def test_what_nothing_judged_has_its_score_once_the_next_one_is_compared_with_it(
    store: Store,
    project: Project,
    held_out: Image,
    new_versions: NewVersions,
    known: dict[str, Any],
    is_caught_up: bool,
):
    in_use, plan = version(store, project, **known), plan_of(store, project)
    read = LabelledImages(store, FakeTool(), project)
    new_versions.catch_up(project, in_use, plan, read, None)
    new_versions.catch_up(project, in_use, TrainingPlan((), (), (), 0), read, SEEN)
    new_versions.catch_up(project, in_use, plan, read, SEEN)
    found = store.versions.find(project.id, 1)
    assert found is not None
    if not is_caught_up:
        assert found.metrics == known
        return
    assert AWAITED not in found.metrics
    assert found.metrics["validation_regions"] == 6
    assert found.metrics["validation_images"] == 1
    assert found.metrics["validation_miou"] == pytest.approx(3 / 5)


def catch_up_with_bad_weights_before(
    error: BaseException,
    store: Store,
    project: Project,
    new_versions: NewVersions,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The metrics of v2 where the weights of v1, which stood before its round, fail so."""
    before = version(store, project, steps=1, newest_label_id=3, newest_region_id=3)
    store.versions.change(before.id, weights_key="versions/1/1.safetensors")
    waits = {AWAITED: 6, "validation_regions": 0}
    in_use = version(store, project, 2, steps=1, newest_label_id=9, newest_region_id=9, **waits)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(segmenters, "load", fail)
    plan, read = plan_of(store, project), LabelledImages(store, FakeTool(), project)
    new_versions.catch_up(project, in_use, plan, read, SEEN)
    found = store.versions.find(project.id, 2)
    assert found is not None
    return found.metrics


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        PermissionError(13, "Permission denied"),
        ValueError("a value that is not finite"),
        ToolUnavailable("Label Studio does not answer"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_a_score_does_without_the_gain_where_the_version_before_cannot_be_scored(
    store: Store,
    project: Project,
    held_out: Image,
    new_versions: NewVersions,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
):
    metrics = catch_up_with_bad_weights_before(error, store, project, new_versions, monkeypatch)
    assert metrics["validation_miou"] == pytest.approx(3 / 5)
    assert "validation_gain" not in metrics
    assert AWAITED not in metrics
    assert f"what was gained over v1 is not told: {error}" in caplog.text


@pytest.mark.parametrize(
    "error", [StoreError("database is locked"), LeaseLost(), torch.AcceleratorError("lost")]
)
def test_a_score_is_no_reason_to_go_on_without_database_lease_or_accelerator(
    store: Store,
    project: Project,
    held_out: Image,
    new_versions: NewVersions,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
):
    with pytest.raises(type(error)):
        catch_up_with_bad_weights_before(error, store, project, new_versions, monkeypatch)


@pytest.mark.parametrize(
    ("newest", "of_round", "before_round"),
    [((9, 9, 9), 1, 0), ((5, 9, 9), 2, 1), ((5, 7, 9), 3, 2)],
)
def test_training_on_gains_over_the_version_before_the_round_though_that_was_trained_again(
    store: Store,
    project: Project,
    new_versions: NewVersions,
    newest: tuple[int, ...],
    of_round: int,
    before_round: int,
):
    for number, label_id in enumerate(newest, start=1):
        known = {"newest_label_id": label_id, "newest_region_id": label_id}
        parent = version(store, project, number, steps=1, **known)
    work = ContinuedWork(
        TrainingPlan((), (), (), 0), LabelledImages(store, FakeTool(), project), 9, 50, 1.0, {}
    )
    better = new_versions.continued(project, parent, work, SEEN, SEEN)
    assert better is not None
    assert (better.round_version, better.before_round) == (of_round, before_round)
    assert better.metrics["continued"]["from"] == 3
