from __future__ import annotations

import logging
import threading
from datetime import timedelta

import numpy as np
import pytest

from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.client import (
    LabelStudioError,
    NotFound,
    Unauthorised,
    Unavailable,
)
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.projects import Look
from ralis_backend.online.store.tables import Project
from ralis_backend.online.worker import standing
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.loop import MOST_LOSSES, Worker, pause_after
from ralis_backend.online.worker.steps import Kind, Step
from tests.online.conftest import RANKING, TINY, MakeWorker, label_round, selects, settle
from tests.online.fake_tool import CLASSES, FakeTool


def test_enough_labels_make_a_version_and_a_new_queue(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    labelled = label_round(store, tool)
    settle(worker)
    project = store.projects.all()[0]
    assert project.current_version == 1
    assert tool.version == "v1"
    assert len(store.labels.of(project.id)) == 4
    assert set(labelled) <= set(tool.region_tasks)
    assert len(tool.queue()) <= 8
    masks = [tool.predictions[task_id].mask for task_id in tool.queue()]
    assert all(mask is not None and mask.max() < 2 for mask in masks)
    version = store.versions.find(project.id, 1)
    assert version is not None
    assert set(version.metrics["seconds"]) == {"train", "rank", "publish"}


@pytest.mark.e2e  # slow
def test_three_rounds_end_in_labels_that_equal_the_truth(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for _ in range(3):
        label_round(store, tool)
        settle(worker)
    project = store.projects.all()[0]
    assert project.current_version == 3
    labels = store.labels.of(project.id)
    assert len(labels) == 12
    for image in store.images.of(project.id):
        own = [label for label in labels if label.image_id == image.id]
        if own:
            mask = store.labels.image_mask((64, 96), own)
            truth = tool.files[image.task_id][1]
            np.testing.assert_array_equal(mask[mask != VOID], truth[mask != VOID])


def test_how_busy_the_machine_is_is_asked_before_each_image_and_training_step(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    make_worker()  # registers the project
    states: list[str] = []

    def adapt() -> None:
        states.append((store.projects.all()[0].progress or {}).get("state", ""))

    config = WorkerConfig(ranking=RANKING, finetune=TINY)
    worker = Worker(store, tool, config, adapt=adapt)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    assert states.count("ranking") >= 2 * len(tool.files)
    assert states.count("training") >= TINY.num_steps(4)


def test_a_tool_that_is_down_costs_nothing_but_time(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    tool.fail_next = Unavailable("Label Studio does not answer")
    settle(worker)
    project = store.projects.all()[0]
    assert project.last_error == "Label Studio does not answer"
    assert project.retry_at is not None
    store.projects.change(project.id, retry_at=None)
    settle(worker)
    assert store.projects.all()[0].current_version == 1
    assert store.projects.all()[0].last_error is None


def lose(worker: Worker, store: Store, times: int) -> None:
    """Let the tool say `times` that it does not know the project, with the pauses over at once."""
    for _ in range(times):
        for project in store.projects.all():
            store.projects.change(project.id, is_sync_requested=True, retry_at=None)
        worker.advance_all()


def test_a_project_is_gone_when_the_tool_says_so_again_and_again_and_keeps_its_labels(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    project = store.projects.all()[0]
    tool.is_gone = True
    lose(worker, store, MOST_LOSSES - 1)
    (losing,) = store.projects.all()
    assert losing.num_losses == MOST_LOSSES - 1
    assert losing.last_error == "project 1 does not exist"
    lose(worker, store, 1)
    assert store.projects.all() == []
    assert len(store.labels.of(project.id)) == 4


def test_the_pauses_before_a_project_is_given_up_take_minutes():
    assert sum(pause_after(number) for number in range(1, MOST_LOSSES)) >= 300


def test_a_project_that_was_missing_once_goes_on_as_if_nothing_had_been(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    tool.is_gone = True
    lose(worker, store, 3)
    tool.is_gone = False
    store.projects.change(store.projects.all()[0].id, retry_at=None)
    settle(worker)
    (project,) = store.projects.all()
    assert (project.num_losses, project.num_failures, project.last_error) == (0, 0, None)


def test_a_restart_does_not_hasten_the_end_of_a_project(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    tool.is_gone = True
    lose(worker, store, 1)
    for _ in range(MOST_LOSSES):
        restarted = make_worker()
        restarted._store.projects.begin_again()
        assert not restarted.advance_all()
    (project,) = store.projects.all()
    assert project.num_losses == 1


def test_a_project_that_was_gone_is_found_again_by_the_worker_itself(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    tool.is_gone = True
    lose(worker, store, MOST_LOSSES)
    for error in (None, Unavailable("down"), ValueError("no labels")):
        tool.fail_next = error
        worker._housekeeping._done_at = float("-inf")
        worker._housekeeping.keep()
        assert store.projects.all() == []
    tool.is_gone = False
    worker._housekeeping._done_at = float("-inf")
    worker._housekeeping.keep()
    (project,) = store.projects.all()
    assert project.is_sync_requested
    settle(worker)


def test_something_in_a_project_that_is_gone_does_not_end_the_project(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    tool.fail_next = NotFound("prediction 7 does not exist")
    store.projects.change(store.projects.all()[0].id, is_sync_requested=True)
    settle(worker)
    (project,) = store.projects.all()
    assert project.last_error == "prediction 7 does not exist"
    assert project.retry_at is not None


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("Label Studio does not answer"),
        NotFound("prediction 7 does not exist"),
        Unauthorised("the token has expired"),
        LabelStudioError("Label Studio refused the call"),
        ValueError("the label config has no labels"),
        OSError("no space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_operator_can_mend_is_one_line_in_the_log(
    error: Exception,
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    caplog: pytest.LogCaptureFixture,
):
    worker = make_worker()
    tool.fail_next = error
    worker.advance_all()
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert str(error) in record.getMessage()
    assert record.exc_info is None


def test_what_nobody_expected_is_logged_with_its_traceback(
    tool: FakeTool, make_worker: MakeWorker, caplog: pytest.LogCaptureFixture
):
    class ToolboxFault(Exception):
        """Named like an error of the tool, and none."""

    worker = make_worker()
    tool.fail_next = ToolboxFault("a fault of our own")
    worker.advance_all()
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert str(record.exc_info[1]) == "a fault of our own"


@pytest.mark.parametrize(
    ("num_failures", "pause_s"), [(1, 5.0), (2, 10.0), (6, 160.0), (7, 300.0), (5000, 300.0)]
)
def test_the_pause_doubles_to_five_minutes_and_stays_there_for_weeks(num_failures, pause_s):
    assert pause_after(num_failures) == pause_s


def test_a_project_that_cannot_even_be_looked_at_does_not_stop_the_others(
    store: Store, tool: FakeTool, make_worker: MakeWorker, caplog: pytest.LogCaptureFixture
):
    broken = store.projects.register("9.900", 9, "<View/>", CLASSES, "broken")
    worker = make_worker()
    real = worker._due

    def due(project: Project, kind: Kind) -> list[Step]:
        if project.id == broken.id:
            raise RuntimeError("a row that nobody understands")
        return real(project, kind)

    worker._due = due  # type: ignore[method-assign]
    settle(worker)
    assert store.projects.get("1.100").published_version == 0
    assert store.projects.get("9.900").last_error == "a row that nobody understands"
    assert "project 9: it could not be looked at" in caplog.text


def test_a_database_that_cannot_be_asked_does_not_end_the_worker(
    store: Store, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(poll_s=0.0)
    stop = threading.Event()
    failures = iter([OSError("disk full"), OSError("disk full")])
    real = store.projects.looks

    def looks() -> list[Look]:
        for failure in failures:
            raise failure
        stop.set()
        return real()

    monkeypatch.setattr(store.projects, "looks", looks)
    worker.run(stop)
    assert stop.is_set()


def test_a_clock_that_is_set_back_for_a_year_delays_neither_a_retry_nor_a_reading(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    settle(worker)
    next_year = now() + timedelta(days=365)
    store.projects.change(store.projects.all()[0].id, synced_at=next_year, retry_at=next_year)
    clock = [1000.0]
    monkeypatch.setattr(standing.time, "monotonic", lambda: clock[0])
    assert not worker.advance_all()
    clock[0] += pause_after(1)
    assert not worker.advance_all()  # nothing is due yet
    tool.calls.clear()
    clock[0] += worker._config.sync_s
    assert worker.advance_all()
    assert "tasks" in tool.calls


def test_an_idle_worker_asks_one_thing_for_all_its_projects(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    with selects(store) as read:
        assert not worker.advance_all()
    assert len(read) == 1


def test_the_project_whose_annotators_wait_comes_first_with_all_that_it_needs(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    settle(worker)
    (busy,) = store.projects.all()
    rows = {busy.uid: busy}
    for number in (3, 4, 5):
        row = store.projects.register(f"{number}.100", number, "<View/>", CLASSES, "another")
        rows[row.uid] = store.projects.change(row.id, regions_tool_id=number + 10, synced_at=now())
    store.projects.change(rows["5.100"].id, regions_tool_id=None)  # in place: nobody waits
    left = {busy.uid: 2, "3.100": 0, "4.100": 2, "5.100": 1}
    done: list[str] = []

    def work(project: Project, *_: object) -> None:
        left[project.uid] -= 1
        done.append(project.uid)
        if project.uid == busy.uid and not left["3.100"]:
            left["3.100"] = 2  # meanwhile people have emptied its queue
            worker._settled.clear()

    step = Step("work", lambda state, _: left[state.project.uid] > 0, work)
    monkeypatch.setattr(worker, "_steps", (step,))
    monkeypatch.setattr(worker, "_settled", {})
    settle_all(worker)
    assert done == [
        *("4.100", "4.100"),
        *(busy.uid, "3.100", "3.100", "5.100"),
        *(busy.uid, "3.100", "3.100"),
    ]


def settle_all(worker: Worker) -> None:
    """Passes until none has anything to do, each looking at everything anew."""
    while worker.advance_all():
        worker._settled.clear()


def test_a_project_whose_annotators_wait_in_vain_holds_up_nobody(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    settle(worker)
    (busy,) = store.projects.all()
    failing = store.projects.register("3.100", 3, "<View/>", CLASSES, "another")
    done: list[str] = []

    def work(project: Project, *_: object) -> None:
        done.append(project.uid)
        if project.uid == failing.uid:
            raise ValueError("it cannot be done")

    step = Step("work", lambda state, _: done.count(state.project.uid) < 3, work)
    monkeypatch.setattr(worker, "_steps", (step,))
    worker._settled.clear()
    worker.advance_all()
    assert done == [failing.uid, busy.uid]
