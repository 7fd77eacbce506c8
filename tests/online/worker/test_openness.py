"""The queue is filled as long as a region is open, whatever happened to those that were chosen."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.online.status import project_status
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker import Worker, new_version, rank
from ralis_backend.online.worker.publish import Publisher
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool


class Outage:
    """Images that the tool does not give, by task."""

    def __init__(self, tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks: set[int] = set()
        self._image = tool.image
        monkeypatch.setattr(tool, "image", self._read)

    def _read(self, task: ToolTask) -> bytes:
        if task.id in self.tasks:
            raise ValueError("403: the address has run out")
        return self._image(task)


@pytest.fixture
def outage(tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(tool, monkeypatch)


def at_publishing(monkeypatch: pytest.MonkeyPatch, outage: Outage, tasks: set[int]) -> None:
    """These images cannot be read from the first publishing on, until they are given again."""
    real, left = Publisher.publish, [tasks]

    def publish(self: Publisher, *values: object) -> None:
        outage.tasks |= left.pop() if left else set()
        real(self, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(Publisher, "publish", publish)


def read_again(store: Store, worker: Worker) -> Project:
    (project,) = store.projects.all()
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    return store.projects.by_id(project.id)


def images_asked(store: Store, project: Project) -> set[int]:
    """Pool tasks whose regions wait."""
    rows = store.queue.open(project.id)
    return {store.images.get(row.image_id).task_id for row in rows}


def test_where_the_chosen_images_fail_others_are_asked_and_the_round_is_the_same(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    outage: Outage,
    monkeypatch: pytest.MonkeyPatch,
):
    at_publishing(monkeypatch, outage, {1, 2, 3, 4})
    settle(make_worker(random_share=0.0))
    (project,) = store.projects.all()
    assert images_asked(store, project) == {5, 6}
    rows = store.queue.open(project.id)
    assert len({(row.round, row.rank) for row in rows}) == len(rows) >= 4
    assert project.round == 1


def test_where_no_image_can_be_read_at_publishing_the_queue_waits_for_them_and_no_step_is_tried(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    outage: Outage,
    monkeypatch: pytest.MonkeyPatch,
):
    at_publishing(monkeypatch, outage, {1, 2, 3, 4, 5, 6})
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    assert store.queue.open(project.id) == []
    assert not worker.advance_all()
    outage.tasks.remove(5)
    store.images.change(store.images.of_tasks(project.id, [5])[5].id, retry_at=now())
    settle(worker)
    project = store.projects.by_id(project.id)
    assert images_asked(store, project) == {5}
    assert project.round == 1


def test_waiting_tasks_that_somebody_deletes_are_made_again(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.pool_tasks = tool.pool_tasks[:2]
    worker = make_worker(random_share=0.0)
    settle(worker)
    for task_id in tool.queue():
        tool.region_tasks.pop(task_id)
    project = read_again(store, worker)
    assert (len(store.queue.open(project.id)), project.round) == (8, 1)


@pytest.mark.parametrize("mode", ["crops", "in-place"])
def test_an_older_label_that_goes_from_a_used_up_pool_opens_its_region(
    store: Store, tool: FakeTool, make_worker: MakeWorker, mode: str
):
    tool.pool_tasks = tool.pool_tasks[:2]
    for each in tool.pool_tasks:
        tool.annotate(each.id, [{"mask": tool.files[each.id][1].tolist()}], project_id=1)
    worker = make_worker(mode, random_share=0.0)
    settle(worker)
    tool.all_annotations[1].pop(min(tool.all_annotations[1]))
    project = read_again(store, worker)
    if mode == "crops":
        assert images_asked(store, project) == {1}
        assert project.round == 1
    shown = store.rankings.scored(store.versions.all(project.id)[-1].id).values()
    assert any(np.ptp(np.frombuffer(each.scores, "<f4")) > 0 for each in shown)


def test_ranking_again_without_labels_is_no_round_and_what_annotators_see_stays_told(
    store: Store, tool: FakeTool, make_worker: MakeWorker, outage: Outage, monkeypatch
):
    outage.tasks = {6}
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    seen = []
    real = rank.Ranker.rank

    def noted(self: rank.Ranker, *values: object) -> None:
        seen.append(project_status(store, store.projects.by_id(project.id)).published)
        real(self, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(rank.Ranker, "rank", noted)
    outage.tasks = set()
    store.images.change(store.images.of_tasks(project.id, [6])[6].id, retry_at=now())
    settle(worker)
    assert seen == ["v0"]
    assert store.projects.by_id(project.id).round == 1


def test_a_task_that_was_deleted_and_a_refused_version_leave_no_region_behind(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    tool.pool_tasks = tool.pool_tasks[:1]
    worker = make_worker(random_share=0.0)
    settle(worker)
    oldest, *_ = label_round(store, tool)
    settle(worker)
    monkeypatch.setattr(new_version, "is_promoted", lambda *_: False)
    monkeypatch.setattr(new_version, "_log_version", lambda *_: None)
    label_round(store, tool, len(tool.queue()))
    settle(worker)
    assert tool.queue() == []
    known = tool.all_annotations[2]
    known.pop(next(key for key, it in known.items() if it.task_id == oldest))
    tool.region_tasks.pop(oldest)
    project = read_again(store, worker)
    assert len(store.queue.open(project.id)) == 1
