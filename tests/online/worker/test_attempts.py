from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.online.store import Store
from ralis_backend.online.store.attempts import FAILURE, MOST_ATTEMPTS, STEP, SetAsideError
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.online.worker.loop import pause_after
from ralis_backend.online.worker.sync import attempt_on
from tests.online.conftest import RANKING, TINY, MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool

pytestmark = pytest.mark.e2e  # rounds of small trainings

DIED = 9


class DeadlyTool(FakeTool):
    """Its image of one task ends whatever process reads it."""

    deadly_task: int | None = 3

    def image(self, task: ToolTask) -> bytes:
        if task.id == self.deadly_task:
            os._exit(DIED)
        return super().image(task)


def in_a_child(work: Callable[[], None]) -> int:
    """The exit code of a process of its own that does some work."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def worker_process(tmp_path: Path, tool: FakeTool) -> int:
    """A worker from its start until nothing is due, or until it dies."""

    def work() -> None:
        store = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
        store.projects.begin_again()
        settle(Worker(store, tool, WorkerConfig(ranking=RANKING, finetune=TINY)))

    return in_a_child(work)


def test_an_image_that_ends_the_worker_three_times_is_set_aside_and_the_rest_goes_on(
    store: Store, tmp_path: Path
):
    tool = DeadlyTool(num_images=4)
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.close()
    assert [worker_process(tmp_path, tool) for _ in range(3)] == [DIED] * 3
    resting = store.projects.by_id(project.id)
    assert resting.last_error is not None
    assert resting.last_error.startswith("rank failed and is tried again")
    assert "it has ended the worker 2 times" in resting.last_error
    assert worker_process(tmp_path, tool) == 0  # the step rests, the worker lives
    store.attempts.forget(project.id, FAILURE)  # the pause is over
    assert worker_process(tmp_path, tool) == 0
    images = {image.task_id: image.error for image in store.images.of(project.id)}
    assert [task for task, error in images.items() if error] == [3]
    assert "the image of task 3 was set aside: it ended the worker 3 times" in str(images[3])
    done = store.projects.by_id(project.id)
    assert done.published_version == 0
    assert done.last_error == images[3]
    assert len(store.rankings.of(store.versions.all(project.id)[0].id)) == 3


def test_what_was_set_aside_is_tried_again_when_everything_is(store: Store, tmp_path: Path):
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.attempts.set_aside(project.id, "image", 7, "the image of task 7 was set aside")
    with pytest.raises(SetAsideError), store.attempts.trying(project.id, "image", 7, "image 7"):
        pass
    store.projects.request_training(project.id)
    with store.attempts.trying(project.id, "image", 7, "image 7"):
        pass
    assert store.attempts.notes(project.id) == []


def test_only_after_a_step_has_ended_the_worker_are_its_items_counted(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    (project,) = store.projects.all()
    image = store.images.of(project.id)[0]
    attempt = attempt_on(image)
    with store.attempts.trying(*attempt):
        assert store.attempts._counts(*attempt[:3])["image"] == 0
    for _ in range(2):
        store.attempts.begin(project.id, STEP, "rank")
    with store.attempts.trying(*attempt):
        assert store.attempts._counts(*attempt[:3])["image"] == 2
    assert store.attempts._counts(*attempt[:3])["image"] == 0


def test_an_error_is_no_death(store: Store, tool: FakeTool, make_worker: MakeWorker):
    worker = make_worker()
    for _ in range(2 * MOST_ATTEMPTS):
        tool.fail_next = ValueError("the label config has no labels")
        store.projects.change(store.projects.all()[0].id, retry_at=None)
        worker.advance_all()
    (project,) = store.projects.all()
    assert store.attempts.begin(project.id, STEP, "sync") == 1


def test_a_step_that_ends_the_worker_rests_longer_each_time_and_the_other_projects_go_on(
    store: Store, tmp_path: Path
):
    class Deadly(FakeTool):
        def project(self, project_id: int):  # type: ignore[no-untyped-def]
            if project_id == 9:
                os._exit(DIED)
            return super().project(project_id)

    store.projects.register("9.900", 9, "<View/>", CLASSES, "deadly")
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.close()
    tool = Deadly(num_images=1)
    assert [worker_process(tmp_path, tool) for _ in range(3)] == [DIED] * 3
    assert worker_process(tmp_path, tool) == 0
    assert store.projects.by_id(project.id).published_version == 0
    deadly = store.projects.get("9.900")
    assert deadly.num_failures == 3
    store.projects.change(deadly.id, retry_at=None)
    assert worker_process(tmp_path, tool) == DIED
    assert store.projects.get("9.900").num_failures == 4
    assert pause_after(4) > pause_after(3)


def diverging(make_worker: MakeWorker) -> Worker:
    """A worker whose loss is no number from the second step on."""
    worker = make_worker()
    config = FinetuneConfig(steps=4, batch_size=2, crop_size=(32, 32), learning_rate=1e30)
    return Worker(
        worker._store, worker._housekeeping._tool, replace(worker._config, finetune=config)
    )


def test_a_training_that_diverges_has_another_seed_each_time_and_is_given_up_after_three(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    from ralis_backend.online.worker import train

    seeds = []
    real = train.finetune

    def finetune(*values, **named):  # type: ignore[no-untyped-def]
        seeds.append(named["seed"])
        return real(*values, **named)

    monkeypatch.setattr(train, "finetune", finetune)
    worker = diverging(make_worker)
    settle(worker)
    labelled = label_round(store, tool)
    for _ in range(4):
        settle(worker)
        store.attempts.forget(store.projects.all()[0].id, FAILURE)  # the pause is over
    (project,) = store.projects.all()
    assert len(set(seeds)) == MOST_ATTEMPTS == len(seeds)
    assert project.last_error is not None
    assert "training on the labels there are was given up: the loss became" in project.last_error
    assert (project.current_version, project.num_failures, project.retry_at) == (0, 0, None)
    labelled += label_round(store, tool, 1)
    settle(worker)
    assert len(tool.queue()) == 8  # the version in use has filled the queue again
    assert not set(tool.queue()) & set(labelled)
    assert store.projects.all()[0].last_error == project.last_error


def test_new_labels_after_a_training_was_given_up_are_trained_on(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = diverging(make_worker)
    settle(worker)
    label_round(store, tool)
    for _ in range(4):
        settle(worker)
        store.attempts.forget(store.projects.all()[0].id, FAILURE)  # the pause is over
    mended = make_worker()
    settle(mended)
    assert store.projects.all()[0].current_version == 0
    label_round(store, tool)
    settle(mended)
    (project,) = store.projects.all()
    assert (project.current_version, project.last_error) == (1, None)
