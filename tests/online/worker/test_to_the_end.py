from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.cli.to_the_end import _told
from ralis_backend.core.segmenter import load
from ralis_backend.online.export import write_model
from ralis_backend.online.further import ALL_LABELS, Further, continued_text
from ralis_backend.online.report import notes
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker
from ralis_backend.online.worker.to_the_end import BY_COMMAND, Ending, ToTheEnd
from tests.online.conftest import label_round
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.worker.test_improve import (
    CONFIG,
    further_of,
    idle,
    labelled_tool,
    project_of,
    rested,
    version,
    versions_of,
)

pytestmark = pytest.mark.e2e  # trains until nothing gets better


@pytest.fixture
def tool() -> FakeTool:
    return labelled_tool()


@pytest.fixture
def worker(store: Store, tool: FakeTool) -> Worker:
    pool = tool.pool
    store.projects.register(pool.uid, pool.id, pool.label_config, CLASSES, "pool")
    return rested(Worker(store, tool, CONFIG))


@pytest.fixture
def to_the_end(store: Store, tool: FakeTool) -> Callable[..., Ending]:
    def train(**options: object) -> Ending:
        command = ToTheEnd(store, tool, CONFIG)
        return command.train(project_of(store), **options)  # type: ignore[arg-type]

    return train


def test_what_is_better_is_in_use_and_not_trained_on(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending]
):
    looks = []
    end = to_the_end(on_look=lambda course, score: looks.append(score))
    project, second = project_of(store), version(store, 2)
    assert (end.version.number, project.current_version, end.for_all) == (2, 2, None)
    assert end.best_updates > 0
    assert second.metrics["validation_miou"] == pytest.approx(max(looks), abs=1e-4)
    assert second.metrics["validation_miou"] > version(store, 1).metrics["validation_miou"] + 0.01
    assert (second.parent, second.round_version, second.num_labels) == (1, 1, 90)
    assert further_of(store, 2).ended == BY_COMMAND
    number = project.round
    rested(worker)
    assert (tool.version, project_of(store).round) == ("v2", number)
    idle(worker)
    assert further_of(store, 2).updates == 0
    (line,) = (it for it in notes([("v2", second.metrics)]) if "trained on from" in it)
    assert line == f"v2: {continued_text(second.metrics, second.metrics['continued'])}"


def test_what_has_learned_from_all_labels_is_for_export_alone(
    store: Store, worker: Worker, to_the_end: Callable[..., Ending], tmp_path
):
    end = to_the_end(has_all_labels=True)
    assert end.for_all is not None
    made = version(store, end.for_all.number)
    assert made.metrics["training_regions"] == 90
    assert made.metrics[ALL_LABELS] == {
        "updates": max(end.best_updates, CONFIG.finetune.steps or 0)
    }
    assert (made.is_accepted, project_of(store).current_version) == (False, end.version.number)
    with pytest.raises(ValueError, match=rf"v{made.number} has learned from what is held out"):
        store.versions.use(project_of(store).id, made.number)
    assert notes([(made.name, made.metrics)]) == [
        f"{made.name} has learned from what is held out, too: it is for export alone"
    ]
    write_model(store, project_of(store), tmp_path, (32, 32), made.number)
    exported = load(tmp_path / "segmenter.safetensors")
    stored = load(store.blobs.path(str(made.weights_key)))
    image = np.full((32, 32, 3), 90, np.uint8)
    np.testing.assert_array_equal(exported.probabilities(image), stored.probabilities(image))
    rested(worker)
    assert version(store, made.number).ranked_at is None
    assert project_of(store).people["advice"].startswith("Label on")


def test_where_nothing_is_better_the_version_in_use_stays_and_that_is_noted(
    store: Store, worker: Worker, to_the_end: Callable[..., Ending], monkeypatch
):
    monkeypatch.setattr(
        "ralis_backend.online.worker.to_the_end.held_out_score", lambda matrices, background: 0.5
    )
    end = to_the_end()
    assert (end.version.number, end.best_updates) == (1, 0)
    assert len(versions_of(store)) == 1
    assert further_of(store) == Further(
        version(store, 1).metrics["newest_label_id"], ended=BY_COMMAND
    )


def test_it_is_judged_by_what_is_in_use_when_it_is_done(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending]
):
    """The worker trains a round meanwhile: neither waits for the other."""

    def label(course: object, score: float) -> None:
        if len(versions_of(store)) == 1:
            label_round(store, tool, 4)
            rested(worker)

    end = to_the_end(on_look=label)
    second, third = version(store, 2), version(store, 3)
    assert "continued" not in second.metrics
    assert end.version.number == project_of(store).current_version == 3
    assert third.metrics["validation_miou_before"] == second.metrics["validation_miou"]
    assert (third.parent, third.num_labels, second.num_labels) == (1, 90, 94)


def test_who_goes_back_meanwhile_is_not_overruled(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending]
):
    label_round(store, tool, 4)
    rested(worker)
    end = to_the_end(on_look=lambda course, score: store.versions.use(project_of(store).id, 1))
    assert (end.version.number, project_of(store).current_version) == (3, 1)
    assert "v3 is not in use: somebody went back to v1" in _told(project_of(store), end)


def test_without_enough_that_is_held_out_it_says_what_is_missing(
    store: Store, tool: FakeTool, to_the_end: Callable[..., Ending]
):
    for number in range(11, 16):
        del tool.all_annotations[1][number]
    store.projects.register("1.100", 1, tool.pool.label_config, CLASSES, "pool")
    with pytest.raises(ValueError, match="project 1 has no trained version yet; label some"):
        to_the_end()
    rested(Worker(store, tool, replace(CONFIG, improve_s=0.0)))
    with pytest.raises(ValueError, match=r"holds out 12 labelled regions in 2 images, expected at"):
        to_the_end()


def test_damaged_weights_are_named(store: Store, worker: Worker, to_the_end: Callable[..., Ending]):
    store.blobs.path(str(version(store, 1).weights_key)).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"v1 cannot be trained on: .* is truncated or no"):
        to_the_end()


def test_an_export_of_a_version_that_is_not_there_says_so(store: Store, worker: Worker, tmp_path):
    with pytest.raises(ValueError, match="project 1 has no version v7 whose weights are kept"):
        write_model(store, project_of(store), tmp_path, (32, 32), 7)
