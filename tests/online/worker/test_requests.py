"""What people ask for while a training runs."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ralis_backend.online.further import NOT_IN_USE
from ralis_backend.online.report import notes
from ralis_backend.online.status import project_status, status_lines
from ralis_backend.online.store import Store
from ralis_backend.online.store.attempts import FAILURE
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolUnavailable
from ralis_backend.online.worker import Worker
from ralis_backend.online.worker.train import Trainer
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool

During = Callable[[Callable[[], object]], None]


@pytest.fixture
def during_training(monkeypatch: pytest.MonkeyPatch) -> During:
    """Something happens once, while the next training runs."""
    fit = Trainer._fit

    def set_up(happens: Callable[[], object]) -> None:
        waiting = [happens]

        def fit_meanwhile(self: Trainer, *values: object) -> object:
            if waiting:
                waiting.pop()()
            return fit(self, *values)  # type: ignore[arg-type]

        monkeypatch.setattr(Trainer, "_fit", fit_meanwhile)

    return set_up


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    made = make_worker()
    settle(made)
    return made


def project_of(store: Store) -> Project:
    return store.projects.all()[0]


def end_pauses(store: Store) -> None:
    """Whatever failed is tried again now."""
    project = store.projects.change(project_of(store).id, retry_at=None)
    store.attempts.forget(project.id, FAILURE)


def num_trained(store: Store) -> list[int]:
    """Labels that each version has learned from."""
    return [it.num_labels for it in store.versions.all(project_of(store).id) if it.number]


def test_a_training_asked_for_during_a_training_comes_after_it(
    store: Store, tool: FakeTool, worker: Worker, during_training: During
):
    def ask() -> None:
        label_round(store, tool, 1)
        store.projects.request_training(project_of(store).id)

    during_training(ask)
    label_round(store, tool, 4)
    settle(worker)
    project = project_of(store)
    assert num_trained(store) == [4, 5]
    assert store.labels.count(project.id, project.trained_label_id) == 0
    assert not project.is_training_requested


def test_a_training_that_was_asked_for_is_done_once(store: Store, tool: FakeTool, worker: Worker):
    label_round(store, tool, 1)
    store.projects.request_training(project_of(store).id)
    settle(worker)
    assert num_trained(store) == [1]


@pytest.mark.parametrize("ends", [ToolUnavailable("it is down"), FloatingPointError("NaN")])
def test_a_training_that_was_asked_for_and_failed_is_done_later(
    store: Store, tool: FakeTool, worker: Worker, during_training: During, ends: Exception
):
    def fail() -> None:
        raise ends

    during_training(fail)
    label_round(store, tool, 1)
    store.projects.request_training(project_of(store).id)
    settle(worker)
    assert num_trained(store) == []
    end_pauses(store)
    settle(worker)
    assert num_trained(store) == [1]


def test_a_training_that_was_asked_for_and_killed_is_done_by_the_next_worker(
    store: Store,
    tool: FakeTool,
    worker: Worker,
    make_worker: MakeWorker,
    during_training: During,
):
    label_round(store, tool, 1)
    store.projects.request_training(project_of(store).id)
    during_training(lambda: os._exit(9))
    store.close()
    pid = os.fork()
    if pid == 0:
        settle(make_worker())
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert not project_of(store).is_training_requested
    assert store.attempts.has_open_request(project_of(store).id)
    during_training(lambda: None)
    settle(make_worker())
    assert num_trained(store) == [1]


def test_what_was_asked_for_and_given_up_is_not_tried_for_ever(
    store: Store, tool: FakeTool, worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    def fail(*values: object) -> None:
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(Trainer, "_fit", fail)
    label_round(store, tool, 1)
    store.projects.request_training(project_of(store).id)
    for _ in range(4):
        settle(worker)
        end_pauses(store)
    assert not store.attempts.has_open_request(project_of(store).id)
    assert "training on the labels there are was given up" in str(project_of(store).last_error)


def test_damaged_weights_are_replaced_by_one_training(store: Store, tool: FakeTool, worker: Worker):
    label_round(store, tool)
    settle(worker)
    first = store.versions.find(project_of(store).id, 1)
    assert first is not None
    store.blobs.path(str(first.weights_key)).write_bytes(b"damaged")
    label_round(store, tool)
    settle(worker)
    assert num_trained(store) == [4, 8]
    assert project_of(store).current_version == 2


def test_who_goes_back_to_a_version_during_a_training_has_it_in_use_afterwards(
    store: Store, tool: FakeTool, worker: Worker, during_training: During
):
    label_round(store, tool)
    settle(worker)
    during_training(lambda: store.versions.use(project_of(store).id, 0))
    label_round(store, tool)
    settle(worker)
    project = project_of(store)
    second = store.versions.find(project.id, 2)
    assert second is not None
    assert (project.current_version, project.published_version, tool.version) == (0, 0, "v0")
    assert (second.is_accepted, second.parent) == (True, 1)
    assert second.metrics[NOT_IN_USE] == "somebody went back to v0 while it was trained"
    told = (
        "v2 is not in use: somebody went back to v0 while it was trained; "
        "`ralis versions --rollback v2` uses it"
    )
    assert told in notes([("v2", second.metrics)])
    assert f"  not used   {told}" in status_lines(project_status(store, project), 4)
    store.versions.use(project.id, 2)
    settle(worker)
    used = store.versions.find(project.id, 2)
    assert used is not None
    assert (project_of(store).published_version, NOT_IN_USE in used.metrics) == (2, False)


def test_who_goes_back_while_damaged_weights_are_found_is_not_overruled(
    store: Store, tool: FakeTool, worker: Worker
):
    label_round(store, tool)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    project = project_of(store)
    store.versions.use(project.id, 0)
    assert not store.versions.use_instead(project.id, 2, 1, is_training_requested=True)
    assert project_of(store).current_version == 0
    assert not project_of(store).is_training_requested
    assert store.versions.use_instead(project.id, 0, 1)
    assert project_of(store).current_version == 1
