from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.cli import to_the_end as cli
from ralis_backend.core.segmenter import load
from ralis_backend.online.export import write_model
from ralis_backend.online.further import ALL_LABELS, NOT_IN_USE, Further, continued_text
from ralis_backend.online.report import notes
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Version
from ralis_backend.online.tool import ClassLabel, ImageUnreachable, ToolTask, ToolUnavailable
from ralis_backend.online.worker import Worker
from ralis_backend.online.worker import to_the_end as to_the_end_module
from ralis_backend.online.worker.lease import Lease
from ralis_backend.online.worker.to_the_end import BY_COMMAND, Ending, ToTheEnd
from tests.online.conftest import label_round
from tests.online.fake_tool import FakeTool
from tests.online.worker.test_improve import (
    CONFIG,
    further_of,
    idle,
    project_of,
    register,
    rested,
    version,
    versions_of,
)
from tests.online.worker.test_improve import store as store
from tests.online.worker.test_improve import tool as tool
from tests.online.worker.test_improve import trained as trained
from tests.online.worker.test_improve import untrained as untrained

pytestmark = pytest.mark.e2e  # trains until nothing gets better


@pytest.fixture
def worker(store: Store, tool: FakeTool) -> Worker:
    return rested(register(store, tool, CONFIG))


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
    known, newest = further_of(store), version(store, 1).metrics["newest_label_id"]
    assert (known.newest_label_id, known.ended) == (newest, BY_COMMAND)


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
    assert "v3 is not in use: somebody went back to v1" in cli._told(project_of(store), end)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the comparison at the end find these accuracies, of what is in use and of the other."""

    def score(in_use: int, trained: int) -> None:
        def found(segmenters, held_out):
            each = [np.array([[it, 1000 - it], [1000 - it, it]]) for it in (in_use, trained)]
            return np.stack([np.stack([matrix] * len(held_out)) for matrix in each])

        monkeypatch.setattr(to_the_end_module, "compare", found)

    return score


def test_a_newer_version_stays_unless_what_was_trained_is_better(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending], scored
):
    """Within the gate's tolerance it would take the place of a version that knows more labels."""
    scored(950, 946)
    rounds: list[int] = []

    def label(course: object, score: float) -> None:
        if not rounds:
            rounds.append(1)
            label_round(store, tool, 4)
            rested(worker)

    end = to_the_end(on_look=label)
    assert project_of(store).current_version == end.version.number == 2
    assert (end.start.number, end.is_better) == (1, False)
    assert len(versions_of(store)) == 2
    assert further_of(store, 2) == Further()  # the worker trains it on
    assert cli._told(project_of(store), end) == (
        "v2 stays in use, which came meanwhile: what was trained on from v1 is no better on what "
        "is held out"
    )


def test_labels_that_what_was_trained_does_not_know_count_as_new(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending], scored
):
    scored(950, 954)
    learned = project_of(store).trained_label_id
    rounds: list[int] = []

    def label(course: object, score: float) -> None:
        if not rounds:
            rounds.append(1)
            label_round(store, tool, 4)
            rested(worker)
            assert project_of(store).trained_label_id > learned

    end = to_the_end(on_look=label)
    assert (end.version.number, end.is_better) == (3, True)
    assert project_of(store).trained_label_id == learned
    rested(worker)
    assert version(store, 4).num_labels == 94


def test_a_class_that_is_added_meanwhile_joins(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending], monkeypatch
):
    def add_class(name: str) -> None:
        classes = (*tool.pool.classes, ClassLabel(name, "#FF0000"))
        tool.pool = replace(tool.pool, label_config=f"<{name}/>", classes=classes)
        store.projects.change(project_of(store).id, is_sync_requested=True)
        rested(worker)

    def look(course: object, score: float) -> None:
        if len(project_of(store).classes) == 2:
            add_class("third")

    on_all = ToTheEnd._on_all

    def then(*args: object) -> Version | None:
        add_class("fourth")
        return on_all(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ToTheEnd, "_on_all", then)
    end = to_the_end(has_all_labels=True, on_look=look)
    assert end.is_better
    assert end.for_all is not None
    for made, num_classes in ((end.version, 3), (end.for_all, 4)):
        assert load(store.blobs.path(str(made.weights_key))).num_classes == num_classes


def test_the_lease_is_not_held_while_what_was_trained_is_compared(
    store: Store, worker: Worker, to_the_end: Callable[..., Ending], monkeypatch
):
    """Held-out images may be many and large, and the worker waits for the lease."""
    owners = []
    compare = to_the_end_module.compare

    def noted(*args):
        owners.append(store.leases.state(project_of(store).id).owner)
        return compare(*args)

    monkeypatch.setattr(to_the_end_module, "compare", noted)
    to_the_end()
    assert owners == [None]


def test_what_is_read_under_the_lease_moves_it(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending], monkeypatch
):
    """Another version is in use when the lease is taken: it is compared anew, image by image."""
    moves: list[float] = []
    monkeypatch.setattr(Lease, "move", lambda lease: moves.append(1))
    compare = to_the_end_module.compare
    counts = []

    def noted(segmenters, held_out):
        if not counts:
            store.projects.request_training(project_of(store).id)
            rested(worker)
        before = len(moves)
        found = compare(segmenters, held_out)
        counts.append((len(held_out), len(moves) - before))
        return found

    monkeypatch.setattr(to_the_end_module, "compare", noted)
    to_the_end()
    (_, outside), (num_images, within) = counts
    assert outside == 0
    assert within >= num_images


def test_held_out_images_that_cannot_be_read_are_named(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending]
):
    held_out = [it.task_id for it in store.images.of(project_of(store).id) if it.is_validation]
    for task in held_out:
        tool.files[task] = (b"broken", tool.files[task][1])
    with pytest.raises(
        ValueError, match=rf"project 1 holds out 0 can be read.*at least 3 with 5.*{held_out[0]}: "
    ):
        to_the_end()
    assert further_of(store).ended is None
    with pytest.raises(ValueError, match=rf"in 0 images.*could not be read: task {held_out[0]}: "):
        to_the_end()


def test_what_is_stopped_keeps_the_best_so_far(
    store: Store, worker: Worker, to_the_end: Callable[..., Ending]
):
    looks: list[float] = []
    end = to_the_end(
        has_all_labels=True,
        on_look=lambda course, score: looks.append(course.best_updates),
        should_stop=lambda: bool(looks) and looks[-1] > 0,
    )
    assert (end.is_stopped, end.is_better, end.for_all) == (True, True, None)
    assert end.best_updates == looks[-1]
    assert project_of(store).current_version == end.version.number == 2
    assert further_of(store, 2).ended is None  # the worker may go on
    assert cli._told(project_of(store), end) == (
        "Stopped before the end; the same command goes on from the best so far. v2 is in use: it "
        f"was best after {end.best_updates} more updates"
    )


def test_without_enough_that_is_held_out_it_says_what_is_missing(
    untrained: tuple[Store, FakeTool],
):
    store, tool = untrained
    for number in range(11, 16):
        del tool.all_annotations[1][number]
    worker = register(store, tool, replace(CONFIG, improve_s=0.0))
    to_the_end = ToTheEnd(store, tool, CONFIG)
    with pytest.raises(ValueError, match="project 1 has no trained version yet; label some"):
        to_the_end.train(project_of(store))
    rested(worker)
    with pytest.raises(ValueError, match=r"holds out 12 labelled regions in 2 images, expected at"):
        to_the_end.train(project_of(store))


def test_damaged_weights_are_named(store: Store, worker: Worker, to_the_end: Callable[..., Ending]):
    store.blobs.path(str(version(store, 1).weights_key)).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"v1 cannot be trained on: .* is truncated or no"):
        to_the_end()


def test_an_export_of_a_version_that_is_not_there_says_so(store: Store, worker: Worker, tmp_path):
    with pytest.raises(ValueError, match="project 1 has no version v7 whose weights are kept"):
        write_model(store, project_of(store), tmp_path, (32, 32), 7)


def test_what_is_held_out_is_read_again_for_the_comparison(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending], monkeypatch
):
    monkeypatch.setattr(to_the_end_module, "PAUSES_S", (0.0,))
    read, failed = tool.image, set[int]()

    def image(task: ToolTask) -> bytes:
        if task.id in (5, 10, 15) and task.id not in failed and looks:
            failed.add(task.id)
            raise errors[task.id]
        return read(task)

    errors = {
        5: ToolUnavailable("it does not answer"),
        10: ImageUnreachable("503"),  # waited for as well
        15: ValueError("404"),
    }
    looks: list[float] = []
    monkeypatch.setattr(tool, "image", image)
    end = to_the_end(on_look=lambda course, score: looks.append(score))
    assert (end.is_better, end.version.number, end.is_stopped) == (True, 2, True)
    assert further_of(store, 2).ended is None, "the last looks saw too little"


def test_what_nothing_can_judge_is_kept_beside_what_is_in_use(
    store: Store, tool: FakeTool, worker: Worker, to_the_end: Callable[..., Ending], monkeypatch
):
    monkeypatch.setattr(to_the_end_module, "PAUSES_S", (0.0,))
    read, looks = tool.image, []

    def image(task: ToolTask) -> bytes:
        if len(looks) >= 3 and task.id in (5, 10, 15):
            raise ToolUnavailable("Label Studio does not answer")
        return read(task)

    monkeypatch.setattr(tool, "image", image)
    end = to_the_end(on_look=lambda course, score: looks.append(score))
    assert (end.is_better, end.version.number, project_of(store).current_version) == (False, 2, 1)
    why = end.version.metrics[NOT_IN_USE]
    assert why.startswith("of the 3 images that are held out 0 could be read")
    assert "Label Studio does not answer" in why
    assert further_of(store).ended is None
    store.versions.use(project_of(store).id, 2)


def test_a_training_waits_for_ten_minutes_in_all_for_images_that_nobody_delivers(
    monkeypatch: pytest.MonkeyPatch,
):
    slept: list[float] = []
    monkeypatch.setattr(to_the_end_module.time, "sleep", slept.append)

    class HalfIsGone(FakeTool):
        def image(self, task: ToolTask) -> bytes:
            if task.id % 2:
                raise ImageUnreachable("bucket.test did not deliver an image")
            return b"pixels"

    patient = to_the_end_module._Patient(HalfIsGone(1))
    patient.is_patient = True
    for number in range(200):
        task = ToolTask(number, None, "a.png")
        if number % 2:
            with pytest.raises(ImageUnreachable):
                patient.image(task)
        else:
            assert patient.image(task) == b"pixels"
    assert slept[:3] == [5.0, 15.0, 45.0]
    assert sum(slept) <= to_the_end_module.PATIENCE_S
