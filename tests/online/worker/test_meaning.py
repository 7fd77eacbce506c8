"""What labels are read with changes: the label config, the background, an image's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads.boxes import read_boxes
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.labelstudio.payloads.paint import read_paint
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import (
    FoundRegions,
    Painted,
    ToolAnnotation,
    ToolProject,
    ToolUnavailable,
)
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.online.worker import reading as reading_module
from ralis_backend.online.worker import sync as sync_module
from ralis_backend.online.worker.catching_up import catch_up
from ralis_backend.online.worker.label_reader import READING
from ralis_backend.online.worker.people import People
from ralis_backend.online.worker.reading import Reading
from ralis_backend.online.worker.sync import Sync
from tests.online.conftest import RANKING, TINY, settle
from tests.online.fake_tool import FakeTool, picture

CONFIG = WorkerConfig(mode="in-place", improve_s=0.0, ranking=RANKING, finetune=TINY)
POOL, SIZE = "1.100", (64, 96)
NAMES = ("dark", "bright", "tree")


def label_config(*names: str, control: str = "label") -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    return (
        '<View><Image name="image" value="$image"/>'
        '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
        "</RectangleLabels>"
        f'<BrushLabels name="{control}" toName="image">{labels}</BrushLabels></View>'
    )


class PaintedTool(FakeTool):
    """Annotations of whole images are what Label Studio sends, read by the label config."""

    def __init__(self) -> None:
        super().__init__()
        self.offer(*NAMES[:2])

    def offer(self, *names: str, control: str = "label") -> None:
        """Another label config, with these labels."""
        xml = label_config(*names, control=control)
        classes = parse_label_config(xml).labels
        self.pool = replace(self.pool, label_config=xml, classes=classes, shows_boxes=True)

    def paint(self, class_index: int, *, size=SIZE) -> dict[str, Any]:
        """Submit the left half of the first image painted; the event of it."""
        mask = np.full(size, VOID, np.uint8)
        mask[:, : size[1] // 2] = class_index
        config = parse_label_config(label_config(*NAMES))
        self.version = None  # it was not begun from a suggestion
        results = mask_to_results(mask, NAMES, config, key="k")
        return self.annotate(1, results, project_id=1)

    def mask(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        class_names: Sequence[str],
        size: tuple[int, int],
        background: str | None,
    ) -> Painted:
        return read_paint(annotation.results, class_names, size, background)

    def annotated_regions(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        image_size: tuple[int, int],
        handed_out: Sequence[Region],
    ) -> FoundRegions:
        config = parse_label_config(project.label_config)
        return read_boxes(annotation.results, config, image_size, handed_out)


@pytest.fixture
def tool() -> PaintedTool:
    return PaintedTool()


@pytest.fixture
def worker(store: Store, tool: PaintedTool) -> Worker:
    """At rest, with a ranking published."""
    choose(store, tool, None)
    made = Worker(store, tool, CONFIG)
    settle(made)
    return made


def choose(store: Store, tool: FakeTool, background: str | None) -> None:
    """As `ralis connect --background` does it, whoever works on the project."""
    pool = tool.pool
    register = store.projects.register
    register(pool.uid, pool.id, pool.label_config, pool.classes, "pool", None, background)


def the(store: Store) -> Project:
    return store.projects.get(POOL)


def pixels(store: Store) -> dict[str, int]:
    """Labelled pixels of each class that has any."""
    project = the(store)
    counts = dict.fromkeys(project.class_names, 0)
    for label in store.labels.of(project.id):
        for name, count in zip(project.class_names, label.pixels, strict=False):
            counts[name] += count
    return {name: count for name, count in counts.items() if count}


def read_all(store: Store, worker: Worker) -> None:
    store.projects.change(the(store).id, is_sync_requested=True)
    settle(worker)


def on_the_way(store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """What a long step asks again and again, which knows the project as it is now."""
    monkeypatch.setattr(reading_module, "EVERY_S", 0.0)
    reading = Reading(Sync(store, tool, CONFIG), People(store))
    return reading.on_the_way(the(store), lambda: False)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_class_that_is_added_while_a_long_step_runs_is_read_then(
    store: Store,
    tool: PaintedTool,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    is_told: bool,
):
    ask = on_the_way(store, tool, monkeypatch)
    tool.offer(*NAMES)
    if is_told:
        store.events.add(POOL, "PROJECT_UPDATED", {})
        ask()
    store.events.add(POOL, "ANNOTATION_CREATED", tool.paint(2))
    ask()
    assert pixels(store) == {"tree": 64 * 48}


def test_a_class_is_known_to_an_annotation_whose_webhook_came_before_that_of_the_label_config(
    store: Store, tool: PaintedTool, worker: Worker
):
    tool.offer(*NAMES)
    store.events.add(POOL, "ANNOTATION_CREATED", tool.paint(2))
    worker.advance_all()
    store.events.add(POOL, "PROJECT_UPDATED", {})
    settle(worker)
    assert pixels(store) == {"tree": 64 * 48}


def test_an_export_without_a_worker_reads_a_class_that_is_new(
    store: Store, tool: PaintedTool, worker: Worker
):
    tool.offer(*NAMES)
    tool.paint(2)
    assert catch_up(store, tool, CONFIG, the(store)) == ""
    assert pixels(store) == {"tree": 64 * 48}


@pytest.mark.parametrize("reads", ["worker", "export"])
def test_what_was_left_out_is_read_again_when_the_label_config_has_it(
    store: Store,
    tool: PaintedTool,
    worker: Worker,
    reads: str,
):
    store.events.add(POOL, "ANNOTATION_CREATED", tool.paint(2))
    settle(worker)
    assert pixels(store) == {}
    (odd,) = store.annotations.left_out(the(store).id)
    assert "add it to the label config" in odd.what[0]
    tool.offer(*NAMES)
    if reads == "worker":
        read_all(store, worker)
    else:
        assert catch_up(store, tool, CONFIG, the(store)) == ""
    assert pixels(store) == {"tree": 64 * 48}
    assert store.annotations.left_out(the(store).id) == []


def test_labels_of_a_control_that_is_gone_stay_when_they_are_read_again(
    store: Store, tool: PaintedTool, worker: Worker
):
    store.events.add(POOL, "ANNOTATION_CREATED", tool.paint(1))
    settle(worker)
    tool.offer(*NAMES[:2], control="other")
    choose(store, tool, "dark")
    read_all(store, worker)
    assert pixels(store) == {"bright": 64 * 48, "dark": 64 * 48}
    assert store.annotations.left_out(the(store).id) == []


def test_a_rest_that_is_no_label_is_named_and_read_again_once_it_is_one(
    store: Store, tool: PaintedTool, worker: Worker
):
    tool.paint(1)
    painted = tool.all_annotations[1][1]
    tool.all_annotations[1][1] = replace(painted, results=[*painted.results, {"rest": "tree"}])
    read_all(store, worker)
    (odd,) = store.annotations.left_out(the(store).id)
    assert "said to be 'tree', which is not one of dark, bright" in str(odd.what)
    assert pixels(store) == {"bright": 64 * 48}
    tool.offer(*NAMES)
    read_all(store, worker)
    assert pixels(store) == {"bright": 64 * 48, "tree": 64 * 48}


def test_what_did_not_fit_the_size_that_was_known_is_read_again_when_the_image_was_seen(
    store: Store, tool: PaintedTool, worker: Worker
):
    image = store.images.of(the(store).id)[0]
    store.images.seen(image.id, SIZE)
    tool.files[1] = picture(1, (100, 96))
    store.events.add(POOL, "ANNOTATION_CREATED", tool.paint(1, size=(100, 96)))
    settle(worker)
    assert pixels(store) == {}
    store.images.seen(image.id, (100, 96))
    settle(worker)
    assert pixels(store).keys() == {"bright"}
    assert store.annotations.left_out(the(store).id) == []


def test_a_background_that_is_chosen_while_everything_is_read_counts_for_all(
    store: Store, tool: PaintedTool, worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    tool.paint(1)
    read_all(store, worker)
    assert pixels(store) == {"bright": 64 * 48}
    list_tasks = tool.tasks

    def choose_and_list(*values: Any) -> Any:
        monkeypatch.setattr(tool, "tasks", list_tasks)
        choose(store, tool, "dark")
        return list_tasks(*values)

    monkeypatch.setattr(tool, "tasks", choose_and_list)
    read_all(store, worker)
    assert pixels(store) == {"bright": 64 * 48, "dark": 64 * 48}


def test_a_background_that_is_chosen_while_a_long_step_runs_counts_for_what_is_read_then(
    store: Store, tool: PaintedTool, worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    ask = on_the_way(store, tool, monkeypatch)
    choose(store, tool, "dark")
    store.events.add(POOL, "ANNOTATION_CREATED", tool.paint(1))
    ask()
    assert pixels(store) == {"bright": 64 * 48, "dark": 64 * 48}


def test_an_export_reads_what_another_background_asks_for_or_says_that_it_waits(
    store: Store, tool: PaintedTool, worker: Worker
):
    tool.paint(1)
    read_all(store, worker)
    choose(store, tool, "dark")
    project = the(store)
    taken = store.leases.take(project.id, "elsewhere", store.leases.state(project.id))
    assert taken is not None
    said = catch_up(store, tool, CONFIG, project, wait_s=0)
    assert said.startswith("1 annotation in Label Studio is not read yet")
    store.leases.release(project.id, "elsewhere", taken)
    assert catch_up(store, tool, CONFIG, project) == ""
    assert pixels(store) == {"bright": 64 * 48, "dark": 64 * 48}


@pytest.fixture
def sync(store: Store, tool: PaintedTool) -> Sync:
    choose(store, tool, None)
    return Sync(store, tool, CONFIG)


def misread(store: Store, tool: PaintedTool, sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """One annotation as all void and one as a skip, by a release with another `READING`."""
    tool.paint(1)
    tool.annotate(2, tool.all_annotations[1][1].results, project_id=1, is_skipped=True)
    with monkeypatch.context() as old:
        nothing = np.full(SIZE, VOID, np.uint8)
        void = Painted(nothing, nothing != VOID, nothing, ())
        old.setattr(tool, "mask", lambda *_: void)
        old.setattr(sync_module, "READING", READING - 1)
        sync.full(the(store))
    assert pixels(store) == {}
    tool.all_annotations[1][2] = replace(tool.all_annotations[1][2], is_skipped=False)


@pytest.mark.parametrize("reads", ["worker", "export"])
def test_what_an_older_release_misread_is_read_again_once(
    store: Store,
    tool: PaintedTool,
    sync: Sync,
    monkeypatch: pytest.MonkeyPatch,
    reads: str,
):
    misread(store, tool, sync, monkeypatch)
    if reads == "worker":
        sync.full(the(store))
    else:
        assert catch_up(store, tool, CONFIG, the(store)) == ""
    assert pixels(store) == {"bright": 2 * 64 * 48}
    assert the(store).read_as == READING
    before = tool.num_read
    sync.full(the(store))
    assert tool.num_read == before


def test_a_reading_after_an_upgrade_that_breaks_off_goes_on(
    store: Store, tool: PaintedTool, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    misread(store, tool, sync, monkeypatch)
    before = store.labels.every(the(store).id)
    with monkeypatch.context() as down:
        down.setattr(tool, "tasks", raising(ToolUnavailable("down")))
        with pytest.raises(ToolUnavailable):
            sync.full(the(store))
    assert store.labels.every(the(store).id) == before, "labels count until they are read"
    sync.full(the(store))
    assert pixels(store) == {"bright": 2 * 64 * 48}


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise error

    return call
