"""A step that fails again and again keeps from annotators nothing that another can bring."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn

import pytest

from ralis_backend.labelstudio.work_checks import error_checks
from ralis_backend.online.status import project_status, status_lines
from ralis_backend.online.store import Store, StoreError, now
from ralis_backend.online.store.attempts import STEP
from ralis_backend.online.store.projects import Projects
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ImageUnreachable, ToolTask, ToolUnavailable
from ralis_backend.online.worker import Worker, crop_queue, loop
from ralis_backend.online.worker.rank import Ranker
from ralis_backend.online.worker.steps import Report, ShouldStop
from ralis_backend.online.worker.train import Trainer
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, START, FakeTool, picture


def failing(message: str) -> Callable[..., NoReturn]:
    def fail(*_values: object, **_named: object) -> NoReturn:
        raise RuntimeError(message)

    return fail


def test_while_every_training_fails_annotators_get_what_the_version_in_use_has_ranked(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    with monkeypatch.context() as broken:
        broken.setattr(Trainer, "train", failing("CUDA out of memory"))
        for _ in range(3):  # the third is of what the queue was filled with meanwhile
            label_round(store, tool)
            settle(worker)
        (project,) = store.projects.all()
        assert (project.current_version, len(tool.queue())) == (0, 4)
        assert project.last_error == (
            "train failed and is tried again, while all else goes on: CUDA out of memory"
        )
        assert f"  problem    {project.last_error}" in status_lines(
            project_status(store, project), 4
        )
        assert [check.is_ok for check in error_checks(store)] == [False]
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    settle(worker)
    (project,) = store.projects.all()
    assert (project.current_version, project.last_error) == (1, None)
    assert list(error_checks(store)) == []


def test_while_every_ranking_fails_the_queue_is_filled_from_the_one_before(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    with monkeypatch.context() as broken:
        broken.setattr(Ranker, "rank", failing("No space left on device"))
        for _ in range(2):
            label_round(store, tool)
            settle(worker)
        (project,) = store.projects.all()
        assert (project.current_version, project.published_version) == (2, 0)
        label_round(store, tool, 1)
        settle(worker)
        assert len(tool.queue()) == 7
        label_round(store, tool, 4)
        settle(worker)
    assert len(tool.queue()) >= 4
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    settle(worker)
    (project,) = store.projects.all()
    assert project.current_version == project.published_version
    assert project.last_error is None
    assert {row.version for row in store.queue.open(project.id)} >= {project.current_version}


def test_while_every_ranking_ends_the_worker_the_queue_is_filled_from_the_one_before(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        """As the kernel does it: nothing can be noted any more."""

    def die(*_values: object) -> NoReturn:
        raise Killed

    def begin_again() -> Worker:
        store.projects.begin_again()
        return make_worker(random_share=0.0)

    settle(begin_again())
    with monkeypatch.context() as broken:
        broken.setattr(Ranker, "rank", die)
        label_round(store, tool)
        for _ in range(3):
            with pytest.raises(Killed):
                settle(begin_again())
        label_round(store, tool, 3)
        worker = begin_again()
        settle(worker)
        (project,) = store.projects.all()
        assert (project.current_version, project.published_version) == (1, 0)
        assert len(tool.queue()) == 8
        assert project.last_error is not None
        assert "all else goes on: it has ended the worker 2 times" in project.last_error
        broken.setattr(loop, "pause_after", lambda _: 0.0)
        with pytest.raises(Killed):
            settle(worker)
    settle(begin_again())
    assert store.projects.by_id(project.id).published_version == 0, "it rests longer each time"
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    settle(begin_again())
    project = store.projects.by_id(project.id)
    assert (project.published_version, project.last_error) == (project.current_version, None)
    assert store.attempts.failures(project.id) == {}


def test_a_worker_that_starts_tries_again_what_has_failed(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool)
    with monkeypatch.context() as broken:
        broken.setattr(Trainer, "train", failing("CUDA out of memory"))
        settle(worker)
    settle(worker)
    assert store.projects.all()[0].current_version == 0  # it rests
    store.projects.begin_again()
    settle(make_worker(random_share=0.0))
    assert store.projects.all()[0].current_version == 1


def test_images_that_nobody_can_read_in_a_project_that_is_used_up_keep_no_other_waiting(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    tool.pool_tasks = tool.pool_tasks[:1]
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool, 8)
    settle(worker)
    (project,) = store.projects.all()
    assert tool.queue() == []
    tool.pool_tasks += [
        ToolTask(number, START, f"/data/{number}.png") for number in range(100, 160)
    ]
    tool.files |= {number: (b"no image", picture(0)[1]) for number in range(100, 160)}
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    bad = store.images.bad(project.id)
    assert len(bad) == 60
    other = store.projects.register("3.300", 3, "<View/>", CLASSES, "other")
    values = {"synced_at": now(), "is_prepared": True, "is_sync_requested": True}
    store.projects.change(other.id, **values)
    for image in bad:
        store.images.change(image.id, retry_at=now())
    steps = []
    for step in worker._steps:

        def run(*values, name=step.name):  # type: ignore[no-untyped-def]
            steps.append((values[0].id, name))

        object.__setattr__(step, "run", run)
    worker.advance_all()
    assert [name for project_id, name in steps if project_id == project.id] == ["retry"]
    assert steps[-1] == (other.id, "sync")


def test_another_try_at_an_image_that_the_tool_does_not_answer_for_holds_up_nothing_else(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    read, tried = tool.image, []

    def image(task: ToolTask) -> bytes:
        tried.append(task.id)
        if task.id == 3:
            raise ToolUnavailable("it does not answer")
        return read(task)

    monkeypatch.setattr(tool, "image", image)
    for task_id, seconds in ((1, 30), (3, 20), (2, 10)):
        row = store.images.of_tasks(project.id, [task_id])[task_id]
        store.images.fail(row.id, ValueError("403"))
        store.images.change(row.id, retry_at=now() - timedelta(seconds=seconds))
    settle(worker)
    project = store.projects.by_id(project.id)
    assert (tried, project.num_failures, project.retry_at) == ([1, 3], 0, None)
    assert "retry failed and is tried again, while all else goes on" in str(project.last_error)
    assert [row.task_id for row in store.images.bad(project.id)] == [2, 3]
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    settle(worker)
    assert [row.task_id for row in store.images.bad(project.id)] == [3]


def test_a_ranking_whose_images_are_all_out_of_reach_leaves_the_queue_as_it_is(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    waiting = set(tool.queue())
    store.versions.change(store.versions.all(project.id)[0].id, ranked_at=None)
    store.projects.change(project.id, is_sync_requested=True)
    with monkeypatch.context() as down:
        down.setattr(tool, "image", failing("the bucket is down"))
        settle(worker)
    assert len(store.images.bad(project.id)) == 6
    assert set(tool.queue()) == waiting
    for image in store.images.bad(project.id):
        store.images.change(image.id, retry_at=now())
    settle(worker)
    (version,) = store.versions.all(project.id)
    assert len(store.rankings.num_regions(version.id)) == 6


def test_while_no_image_can_be_reached_nothing_that_waits_is_taken_out(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.25)
    settle(worker)
    (project,) = store.projects.all()
    label_round(store, tool)
    while not store.projects.by_id(project.id).current_version:
        worker.advance_all()
    label_round(store, tool, 1)
    waiting = tool.queue()
    monkeypatch.setattr(tool, "image", failing("the bucket is down"))
    settle(worker)  # a failure ends a turn
    settle(worker)
    project = store.projects.by_id(project.id)
    assert (project.current_version, project.published_version) == (1, 0)
    assert len(waiting) == 3
    assert set(tool.queue()) == set(waiting)


def out_of_reach(tool: FakeTool, tasks: set[int]) -> Callable[[ToolTask], bytes]:
    """As the tool gives images while a host does not deliver those of some tasks."""
    read = tool.image

    def image(task: ToolTask) -> bytes:
        if task.id in tasks:
            raise ImageUnreachable("bucket.example did not deliver an image: timed out")
        return read(task)

    return image


def ranked_anew(store: Store, tool: FakeTool, worker: Worker) -> Project:
    """A project whose version in use has ranked, and is not published yet."""
    settle(worker)
    label_round(store, tool)
    project = store.projects.all()[0]
    while not project.current_version or store.versions.all(project.id)[-1].ranked_at is None:
        worker.advance_all()
        project = store.projects.by_id(project.id)
    assert project.published_version == 0
    return project


def test_an_outage_between_ranking_and_publishing_takes_nothing_out(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    project = ranked_anew(store, tool, worker)
    waiting = set(tool.queue())
    with monkeypatch.context() as down:
        down.setattr(tool, "image", out_of_reach(tool, set(tool.files)))
        down.setattr(loop, "pause_after", lambda _: 0.0)
        for _ in range(4):  # whatever is planned in place of what cannot be read
            worker.advance_all()
    project = store.projects.by_id(project.id)
    assert project.published_version == 0
    assert "publish failed and is tried again" in str(project.last_error)
    assert waiting <= set(tool.region_tasks)
    assert all(row.task_id for row in store.queue.open(project.id))
    for image in store.images.bad(project.id):
        store.images.change(image.id, retry_at=now())
    settle(worker)
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    settle(worker)
    project = store.projects.by_id(project.id)
    assert (project.published_version, project.last_error) == (1, None)
    assert len(tool.queue()) == 8
    assert {row.version for row in store.queue.open(project.id)} > {0}


def test_a_ranking_whose_images_are_gone_does_not_keep_those_that_came_later_from_annotators(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    project = ranked_anew(store, tool, worker)
    monkeypatch.setattr(tool, "image", out_of_reach(tool, set(tool.files)))
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    for _ in range(4):
        worker.advance_all()
    tool.files[7] = picture(7)
    tool.pool_tasks.append(ToolTask(7, START, "/data/7.png"))
    store.projects.change(project.id, is_sync_requested=True)
    for _ in range(3):
        settle(worker)
    project = store.projects.by_id(project.id)
    (image,) = store.images.of_tasks(project.id, [7]).values()
    assert project.published_version == 1
    assert image.id in {row.image_id for row in store.queue.open(project.id)}


def test_a_version_that_can_show_nothing_while_the_next_one_fails_to_rank_rests(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    ranked_anew(store, tool, worker)
    settle(worker)
    monkeypatch.setattr(Ranker, "rank", failing("No space left on device"))
    label_round(store, tool, 5)
    settle(worker)
    (project,) = store.projects.all()
    assert (project.current_version, project.published_version) == (2, 1)
    for image in store.images.of(project.id):
        store.images.fail(image.id, ImageUnreachable("503"))
    label_round(store, tool, 1)
    tool.files[7] = picture(7)
    tool.pool_tasks.append(ToolTask(7, START, "/data/7.png"))
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    project = store.projects.by_id(project.id)
    assert "publish failed and is tried again" in str(project.last_error)
    before = store.versions.find(project.id, 1)
    assert before is not None
    assert before.ranked_at is not None, "nothing would rank it"


def test_what_cannot_be_read_when_a_queue_is_filled_is_made_up_for_before_anything_is_taken_out(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    project = ranked_anew(store, tool, worker)
    tool.calls.clear()
    before = set(tool.queue())
    monkeypatch.setattr(tool, "image", out_of_reach(tool, {1, 2, 3}))
    worker.advance_all()
    assert store.projects.by_id(project.id).published_version == 1
    assert len(tool.queue()) == 8
    assert before - set(tool.queue()), "what is worse was replaced"
    assert tool.calls.index("create_crop_tasks") < tool.calls.index("delete_unopened_tasks")


@pytest.mark.parametrize("num_reached", [0, 1])
def test_a_queue_is_filled_with_what_can_be_read_however_often_other_images_are_out_of_reach(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    num_reached: int,
):
    """The host fails at all that is planned first, or from the second picture on, and at more."""
    worker = make_worker(random_share=0.0)
    project = ranked_anew(store, tool, worker)
    old = set(tool.queue())
    read, reached, lost = tool.image, [], set()

    def image(task: ToolTask) -> bytes:
        is_known = task.id in reached or len(reached) < num_reached
        if not is_known and (task.id in lost or len(lost) < 5 - num_reached):
            lost.add(task.id)
            raise ImageUnreachable("bucket.example did not deliver an image: timed out")
        reached.append(task.id)
        return read(task)

    monkeypatch.setattr(tool, "image", image)
    worker.advance_all()
    project = store.projects.by_id(project.id)
    assert (project.published_version, project.last_error) == (1, None)
    assert set(tool.queue()) - old


def test_a_queue_that_is_planned_in_vain_for_long_is_left_to_further_tries_that_get_further(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0, ranking=replace(RANKING, regions_per_round=1))
    (project,) = store.projects.all()
    while not any(version.ranked_at for version in store.versions.all(project.id)):
        worker.advance_all()
    read, seconds, lost = tool.image, 0.0, []

    def image(task: ToolTask) -> bytes:
        nonlocal seconds
        if len(lost) == 5:
            return read(task)
        seconds += 61.0
        lost.append(task.id)
        raise ImageUnreachable("so it was not asked for this one", "bucket", was_asked=False)

    monkeypatch.setattr(tool, "image", image)
    monkeypatch.setattr(crop_queue.time, "monotonic", lambda: seconds)
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    num_lost = []
    for _ in range(4):
        worker.advance_all()
        num_lost.append(len(lost))
    assert num_lost == [2, 4, 5, 5], "two images a try, and none again"
    assert sorted(set(lost)) == sorted(lost)
    assert len(tool.queue()) == 2
    assert store.projects.by_id(project.id).last_error is None


@pytest.mark.parametrize("character", ["\ud83d", "\0"])
def test_an_error_that_quotes_what_no_database_takes_is_an_error_like_any_other(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    character: str,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.CRITICAL)  # what pytest writes of it goes through UTF-8 as well
    worker = make_worker(random_share=0.0)
    monkeypatch.setattr(Ranker, "rank", failing(f"k{character}se.png"))
    settle(worker)
    (project,) = store.projects.all()
    assert str(project.last_error).endswith("all else goes on: k?se.png")
    tool.fail_in["project"] = ToolUnavailable(f"title: k{character}")
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    project = store.projects.by_id(project.id)
    assert (project.last_error, project.num_failures) == ("title: k?", 1)
    assert store.attempts.count(project.id, STEP, "rank") == 0


def test_a_step_whose_end_cannot_be_noted_has_not_ended_the_worker(
    store: Store, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    (project,) = store.projects.all()
    store.projects.change(project.id, is_sync_requested=True, last_error="until it is read")
    change = Projects.change

    def refuse(projects: Projects, project_id: int, **values: Any) -> Project:
        if "last_error" in values:
            raise StoreError("database is full")
        return change(projects, project_id, **values)

    monkeypatch.setattr(Projects, "change", refuse)
    with pytest.raises(StoreError, match="full"):
        worker.advance(store.projects.looks()[0])
    assert store.attempts.count(project.id, STEP, "sync") == 0


def test_what_is_done_while_nothing_else_is_due_ends_when_a_failed_step_has_rested(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0, poll_s=0.0)
    asked: list[bool] = []

    def idle(project: Project, report: Report, should_stop: ShouldStop) -> None:
        asked.append(is_needed := should_stop())
        if not is_needed:
            monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)  # the pause is over
            asked.append(should_stop())

    worker._steps = tuple(
        replace(step, is_due=lambda *_: True, run=idle) if step.is_idle else step
        for step in worker._steps
    )
    monkeypatch.setattr(Ranker, "rank", failing("No space left on device"))
    for _ in range(9):
        if False not in asked:
            worker.advance_all()
    assert asked[-2:] == [False, True]
