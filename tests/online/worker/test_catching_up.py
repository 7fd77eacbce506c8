"""What is submitted while nobody reads: a training, an export, a busy worker."""

from __future__ import annotations

import pytest

from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolError, ToolTask, ToolUnavailable
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker import reading as reading_module
from ralis_backend.online.worker.catching_up import catch_up
from ralis_backend.online.worker.sync import Sync
from tests.online.conftest import RANKING, TINY, MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool

CONFIG = WorkerConfig(ranking=RANKING, finetune=TINY)


@pytest.fixture
def project(store: Store, make_worker: MakeWorker) -> Project:
    """A project whose queue waits for annotators."""
    settle(make_worker())
    return store.projects.all()[0]


def take_lease(store: Store, project: Project) -> None:
    """As a worker on another machine does."""
    state = store.leases.state(project.id)
    assert store.leases.take(project.id, "elsewhere", state) is not None


def test_what_no_webhook_told_of_is_read_first(store: Store, tool: FakeTool, project: Project):
    for task_id in tool.queue()[:3]:
        tool.annotate(task_id)
    assert catch_up(store, tool, CONFIG, project) == ""
    assert len(store.labels.of(project.id)) == 3
    assert store.projects.by_id(project.id).num_labelled_regions == 3
    assert store.leases.state(project.id).owner is None


def test_beside_a_busy_worker_it_says_how_many_are_missing(
    store: Store, tool: FakeTool, project: Project
):
    take_lease(store, project)
    assert catch_up(store, tool, CONFIG, project, wait_s=0) == ""
    tool.annotate(tool.queue()[0])
    said = catch_up(store, tool, CONFIG, project, wait_s=0)
    assert said.startswith("1 annotation in Label Studio is not read yet: the worker is busy")
    tool.annotate(tool.queue()[0])
    assert catch_up(store, tool, CONFIG, project, wait_s=0).startswith("2 annotations")
    assert store.labels.of(project.id) == []


@pytest.mark.parametrize(
    "error", [ToolUnavailable("no answer"), ToolError("not yours"), ValueError("no brush")]
)
def test_without_the_tool_it_says_so(store: Store, tool: FakeTool, project: Project, error):
    tool.fail_next = error
    said = catch_up(store, tool, CONFIG, project)
    assert "submitted since the last reading is missing" in said
    assert str(error) in said


def test_annotations_that_cannot_be_read_are_counted(
    store: Store, tool: FakeTool, project: Project
):
    tool.annotate(tool.queue()[0], [{"unknown": True}])
    assert catch_up(store, tool, CONFIG, project).startswith("1 annotation could not be read")


def test_the_newest_labels_join_a_training_that_is_about_to_begin(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    project = store.projects.all()[0]
    label_round(store, tool, 4)
    worker.advance_all()  # reads the webhooks
    tool.annotate(tool.queue()[0])  # and its webhook is lost
    worker.advance_all()
    (version,) = [it for it in store.versions.all(project.id) if it.number == 1]
    assert version.num_labels == 5


def test_a_training_begins_without_what_cannot_be_read(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool, 4)
    worker.advance_all()
    tool.fail_in["project"] = ToolUnavailable("down for a moment")
    worker.advance_all()
    assert store.projects.all()[0].current_version == 1


def submit_with_the_next_image(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody submits a region when the worker reads its next image, in a training say."""
    is_done: list[bool] = []

    def image(task: ToolTask) -> bytes:
        if not is_done:
            is_done.append(True)
            store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(tool.queue()[0]))
        return FakeTool.image(tool, task)

    monkeypatch.setattr(tool, "image", image)


def test_webhooks_are_read_while_a_training_runs(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading_module, "EVERY_S", 0.0)
    worker = make_worker()
    settle(worker)
    project = store.projects.all()[0]
    label_round(store, tool, 4)
    worker.advance_all()
    submit_with_the_next_image(store, tool, monkeypatch)
    worker.advance_all()
    (version,) = [it for it in store.versions.all(project.id) if it.number == 1]
    assert version.num_labels == 4  # what it was planned from
    assert len(store.labels.of(project.id)) == 5
    assert store.labels.count(project.id, store.projects.all()[0].trained_label_id) == 1


@pytest.mark.parametrize(
    "error", [ToolUnavailable("down for a moment"), KeyError("label_config"), TypeError("None")]
)
def test_an_unreadable_webhook_does_not_end_a_training(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    monkeypatch.setattr(reading_module, "EVERY_S", 0.0)
    worker = make_worker()
    settle(worker)
    label_round(store, tool, 4)
    worker.advance_all()
    project = store.projects.all()[0]
    submit_with_the_next_image(store, tool, monkeypatch)
    tool.fail_in["project"] = error
    monkeypatch.setattr(Sync, "changes", lambda self, project: None)  # else it fails there
    worker.advance_all()
    assert tool.fail_in == {}
    assert store.projects.by_id(project.id).current_version == 1
    assert len(store.labels.of(project.id)) == 5  # at the next try
