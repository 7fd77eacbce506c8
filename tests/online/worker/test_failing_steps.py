"""A step that fails again and again keeps from annotators nothing that another can bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from ralis_backend.labelstudio.work_checks import error_checks
from ralis_backend.online.status import project_status, status_lines
from ralis_backend.online.store import Store, now
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker import Worker, loop
from ralis_backend.online.worker.rank import Ranker
from ralis_backend.online.worker.train import Trainer
from tests.online.conftest import MakeWorker, label_round, settle
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
