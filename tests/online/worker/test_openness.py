"""The queue is filled as long as a region is open, whatever happened to those that were chosen."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.online.further import CONTINUED
from ralis_backend.online.status import project_status
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import ToolTask, ToolUnavailable
from ralis_backend.online.worker import Worker, new_version, rank
from ralis_backend.online.worker.publish import Publisher
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import START, FakeTool, picture


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


def forget_images_of(store: Store, tool: FakeTool, worker: Worker, tasks: set[int]) -> Project:
    """Somebody deletes these tasks of the pool; it takes three lists until that is believed."""
    tool.pool_tasks = [task for task in tool.pool_tasks if task.id not in tasks]
    for _ in range(3):
        project = read_again(store, worker)
    return project


def test_tasks_whose_images_are_deleted_give_way_but_for_those_that_somebody_has_begun(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    begun = tool.queue()[0]
    gone = {tool.region_tasks[task_id].data["source_task"] for task_id in tool.queue()[:2]}
    tool.begun = {begun}
    project = forget_images_of(store, tool, worker, gone)
    rows = store.queue.open(project.id)
    of_gone = [row for row in rows if store.images.get(row.image_id).is_deleted]
    assert [row.task_id for row in of_gone] == [begun]
    assert (len(rows), project.round) == (8, 1)
    event = tool.annotate(begun)
    store.events.add("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    status = project_status(store, store.projects.by_id(project.id))
    said = "1 painted region lies in images that are gone from the project: they count when"
    assert any(note.startswith(said) for note in status.people)


def test_planned_tasks_whose_images_are_deleted_do_not_stop_the_queue(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.fail_in["create_crop_tasks"] = ToolUnavailable("503")
    for number in range(7, 10):
        tool.files[number] = picture(number)
        tool.pool_tasks.append(ToolTask(number, START, f"/data/{number}.png"))
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    planned = images_asked(store, project)
    assert (len(store.queue.planned(project.id)), tool.queue()) == (8, [])
    store.projects.change(project.id, retry_at=None)
    forget_images_of(store, tool, worker, planned)
    left = {task.id for task in tool.pool_tasks}
    assert len(tool.queue()) == min(8, 6 * len(left))
    assert images_asked(store, project) <= left


def test_rounds_count_labels_whatever_version_is_in_use(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    assert (project.current_version, project.round) == (1, 2)
    store.projects.request_training(project.id)  # on the same labels
    settle(worker)
    again = store.projects.by_id(project.id)
    assert (again.current_version, again.published_version, again.round) == (2, 2, 2)
    store.versions.use(project.id, 1)
    settle(worker)
    back = store.projects.by_id(project.id)
    assert (back.published_version, back.round) == (1, 2)
    label_round(store, tool, 1)
    settle(worker)
    in_use = store.versions.find(project.id, 1)
    assert in_use is not None
    store.versions.add(
        Version(
            project_id=project.id,
            number=3,
            parent=1,
            is_accepted=True,
            num_labels=5,
            weights_key=in_use.weights_key,
            created_at=now(),
            metrics={CONTINUED: {"from": 1, "round_version": 1, "before_round": 0}},
        ),
        instead_of=1,
    )
    settle(worker)
    trained_on = store.projects.by_id(project.id)
    assert (trained_on.published_version, trained_on.round) == (3, 2), "it has learned the fifth"
    waiting = {store.images.get(row.image_id) for row in store.queue.open(project.id)}
    painted = {label.image_id for label in store.labels.of(project.id)}
    gone = next(image.task_id for image in waiting if image.id not in painted)
    assert forget_images_of(store, tool, worker, {gone}).round == 2
    label_round(store, tool, 3)
    settle(worker)
    assert store.projects.by_id(project.id).round == 3
    rows = [row for row in store.queue.all(project.id) if row.state != "deleted"]
    assert len({(row.round, row.rank) for row in rows}) == len(rows)


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
