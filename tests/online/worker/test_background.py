"""A project whose unpainted pixels are a class: labels, queue, training and predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import VOID
from ralis_backend.online.labels import NewLabel, labelled_pixels
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ClassLabel
from ralis_backend.online.worker import Worker, WorkerConfig
from tests.online.conftest import RANKING, TINY, settle
from tests.online.fake_tool import FakeTool

CRACK, ROAD = ClassLabel("Crack", "#E6194B"), ClassLabel("Road", "#804080")
MODES = pytest.mark.parametrize("mode", ["crops", "in-place"])

pytestmark = pytest.mark.e2e  # a dozen small trainings


@pytest.fixture
def tool() -> FakeTool:
    fake = FakeTool()
    fake.pool = replace(fake.pool, classes=(CRACK,))
    return fake


@pytest.fixture
def make(store: Store, tool: FakeTool) -> Callable[..., Worker]:
    """A worker of a project that has one label."""

    def made(mode: str = "crops", **values: object) -> Worker:
        pool = tool.pool
        store.projects.register(pool.uid, pool.id, pool.label_config, pool.classes, "pool")
        config = WorkerConfig(mode=mode, ranking=RANKING, finetune=TINY, **values)  # type: ignore[arg-type]
        return Worker(store, tool, config)

    return made


def project_of(store: Store) -> Project:
    return store.projects.get("1.100")


def crack(size: tuple[int, int], rows: int = 4) -> list[list[int]]:
    """The first rows cracked, nothing else painted."""
    mask = np.full(size, VOID, np.uint8)
    mask[:rows] = 0
    return mask.tolist()


def submit(
    store: Store, tool: FakeTool, mode: str, *submitted: Sequence[Mapping[str, Any]]
) -> None:
    """Annotate regions of one task each, as the mode has it; each of 32 x 32 pixels."""
    tasks = tool.queue() if mode == "crops" else [task.id for task in tool.pool_tasks]
    uid, number = ("2.200", 2) if mode == "crops" else ("1.100", 1)
    for task_id, results in zip(tasks, submitted, strict=False):
        given = [dict(it) for it in results]
        if mode == "in-place":
            given = [_on_whole_image(it) for it in given] + [{"box": (0, 0, 32, 32)}]
        event = tool.annotate(task_id, given, project_id=number)
        store.events.add(uid, "ANNOTATION_CREATED", event)


def _on_whole_image(result: dict[str, Any]) -> dict[str, Any]:
    if "mask" not in result:
        return result
    whole = np.full((64, 96), VOID, np.uint8)
    whole[:32, :32] = result["mask"]
    return {**result, "mask": whole.tolist()}


def pixels(store: Store) -> list[list[int]]:
    """Labelled pixels of each class, and void ones, of each painted region."""
    project = project_of(store)
    counted = labelled_pixels(store.labels.of(project.id), len(project.classes))
    return sorted(counted.tolist())


@MODES
def test_unpainted_pixels_and_empty_submissions_of_a_one_label_project_are_background(
    store: Store, tool: FakeTool, make: Callable[..., Worker], mode: str
):
    worker = make(mode)
    settle(worker)
    assert project_of(store).background_name == "Background"
    submit(store, tool, mode, [{"mask": crack((32, 32))}], [])
    settle(worker)
    assert project_of(store).class_names == ("Crack", "Background")
    assert pixels(store) == [[0, 1024, 0], [128, 896, 0]]


@MODES
def test_without_a_background_an_empty_submission_is_no_label_and_is_not_asked_again(
    store: Store, make_worker: Callable[..., Worker], mode: str
):
    tool = FakeTool()
    worker = make_worker(mode)
    worker = Worker(store, tool, worker._config)
    settle(worker)
    asked = {store.queue.get(row.id).region for row in store.queue.all(1)}
    submit(store, tool, mode, [], [{"mask": crack((32, 32))}])
    settle(worker)
    labels = store.labels.of(project_of(store).id)
    assert sorted(label.is_skipped for label in labels) == [False, True]
    assert pixels(store) == [[128, 0, 896]]
    empty = next(label for label in labels if label.is_skipped)
    waiting = {(row.image_id, row.region) for row in store.queue.open(1)}
    assert (empty.image_id, empty.region) not in waiting
    assert asked or mode == "in-place"


def test_of_a_whole_image_that_nobody_was_asked_about_only_what_is_painted_is_labelled(
    store: Store, make_worker: Callable[..., Worker]
):
    tool = FakeTool()
    worker = Worker(store, tool, make_worker("in-place")._config)
    settle(worker)
    whole = np.full((64, 96), VOID, np.uint8)
    whole[:8, :8] = 1
    for task_id, results in ((1, []), (2, [{"mask": whole.tolist()}])):
        tool.version = None
        tool.annotate(task_id, results, project_id=1)
    store.projects.change(1, is_sync_requested=True)
    settle(worker)
    assert [label.is_skipped for label in store.labels.of(1)] == [False]
    assert pixels(store) == [[0, 64, 960]]


@MODES
def test_predictions_never_draw_the_background(
    store: Store, tool: FakeTool, make: Callable[..., Worker], mode: str
):
    worker = make(mode)
    settle(worker)
    submit(store, tool, mode, *[[{"mask": crack((32, 32), rows)}] for rows in (0, 2, 4, 32)])
    settle(worker)
    project = project_of(store)
    assert project.current_version == 1
    masks = (
        [it.mask for it in tool.predictions.values()]
        if mode == "crops"
        else [it.mask for it in tool.image_predictions]
    )
    assert masks
    assert all(mask is not None for mask in masks)
    assert not any((mask == project.background_class).any() for mask in masks)


@MODES
def test_training_and_ranking_survive_regions_that_hold_nothing_but_background(
    store: Store, tool: FakeTool, make: Callable[..., Worker], mode: str
):
    worker = make(mode)
    settle(worker)
    submit(store, tool, mode, [], [], [], [])
    settle(worker)
    project = project_of(store)
    version = store.versions.find(project.id, 1)
    assert project.last_error is None
    assert version is not None
    assert version.strategy == "rarity"  # nobody has seen a crack yet
    assert len(store.rankings.of(version.id)) == len(tool.files)
    if mode == "crops":
        assert len(tool.queue()) == 8
        assert all("Background" not in row.reason for row in store.queue.open(project.id))


@MODES
def test_another_background_reads_all_labels_again_and_loses_nothing(
    store: Store, tool: FakeTool, make: Callable[..., Worker], mode: str
):
    worker = make(mode)
    settle(worker)
    submit(store, tool, mode, [{"mask": crack((32, 32))}], [])
    settle(worker)
    before, one = pixels(store), tool.pool
    both = replace(one, label_config="<View>2</View>", classes=(CRACK, ROAD))
    tool.pool = both

    def choose(choice: str | None) -> list[int]:
        """Pixels of the class that is chosen, of void without one, in each painted region."""
        pool = tool.pool
        register = store.projects.register
        register(pool.uid, pool.id, pool.label_config, pool.classes, "", None, choice)
        settle(worker)
        project = project_of(store)
        assert store.annotations.failed(project.id) == []
        assert (project.background_name or "") == (choice or "")
        index = project.class_names.index(choice) if choice else -1
        return sorted(row[index] for row in pixels(store))

    assert choose("Road") == [896, 1024]
    assert choose("") == [896], "what was submitted empty says nothing"
    assert choose("Background") == [896, 1024]
    tool.pool = one
    assert choose("Background") == [896, 1024]
    assert [[*row[:2], row[-1]] for row in pixels(store)] == before


@MODES
@pytest.mark.parametrize("has_background", [False, True])
def test_the_rest_of_a_region_is_what_the_annotator_says(
    store: Store, make_worker: Callable[..., Worker], mode: str, has_background: bool
):
    tool = FakeTool()
    worker = Worker(store, tool, make_worker(mode)._config)
    if has_background:
        store.projects.register("1.100", 1, "<View/>", tool.pool.classes, "", None, "Sky")
    settle(worker)
    painted = crack((32, 32))
    submit(
        store,
        tool,
        mode,
        [{"mask": painted}, {"rest": "bright"}],
        [{"rest": "bright"}],
        [{"mask": painted}, {"rest": "no such label"}],
    )
    settle(worker)
    ground = [896, 0] if has_background else [896]
    as_usual = [128, 0, *ground]
    filled = [[0, 1024], [128, 896]]
    void = [0, 0] if has_background else [0]
    assert pixels(store) == sorted([[*row, *void] for row in filled] + [as_usual])
    answers = store.answers.of(project_of(store).id)
    said = [(it.kind, it.value, it.annotator) for it in answers]
    assert ("rest", "bright", "ann") in said


def test_a_one_label_project_from_before_gets_its_background_and_its_labels_are_read_again(
    store: Store, tool: FakeTool, make: Callable[..., Worker]
):
    worker = make()
    settle(worker)
    submit(store, tool, "crops", [{"mask": crack((32, 32))}])
    settle(worker)
    project = project_of(store)
    (label,) = store.labels.of(project.id)
    old_mask = np.where(store.labels.mask(label) == 0, np.uint8(0), np.uint8(VOID))
    store.annotations.reread([label.annotation_row_id])
    (row,) = store.annotations.failed(project.id)
    store.labels.put(row, [NewLabel(label.region, old_mask)], {})
    before = [{"name": "Crack", "color": "#E6194B", "is_active": True}]
    store.projects.change(project.id, classes=before, is_sync_requested=True)
    assert pixels(store) == [[128, 896]]
    settle(worker)
    assert project_of(store).class_names == ("Crack", "Background")
    assert pixels(store) == [[128, 896, 0]]
