from __future__ import annotations

from dataclasses import replace

import pytest

from ralis_backend.online.further import Further
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.online.worker.steps import (
    Kind,
    ProjectState,
    Step,
    all_due,
    are_events_due,
    is_publishing_due,
    is_ranking_due,
    is_sync_due,
    is_training_due,
    worker_steps,
)
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool, picture

CONFIG = WorkerConfig(ranking=RANKING, sync_s=300.0)  # four regions a round
MOMENT = now()


def make_state(**values: object) -> ProjectState:
    """A project that lacks nothing: version 1 ranked and published, eight regions waiting.

    Values of the project's row and of the state may be given alike.
    """
    columns: dict[str, object] = {
        "is_sync_requested": False,
        "is_prepared": True,
        "synced_at": MOMENT,
        "is_training_requested": False,
        "current_version": 1,
        "published_version": 1,
        "published_label_id": 7,
        "trained_label_id": 7,
        "regions_tool_id": 2,
    }
    of_project = {name: value for name, value in values.items() if name in columns}
    state = ProjectState(
        project=Project(**(columns | of_project)),
        unread_s=299.0,
        has_events=False,
        has_labels=True,
        num_new_labels=0,
        newest_label_id=7,
        is_ranked=True,
        is_published=True,
        num_waiting=8,
        num_planned=0,
    )
    of_state = {name: value for name, value in values.items() if name not in columns}
    return replace(state, **of_state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"is_sync_requested": True},
        {"is_prepared": False},
        {"synced_at": None},
        {"unread_s": 300.0},
    ],
)
def test_a_project_is_read_when_asked_for_unprepared_or_not_read_for_a_while(values):
    assert is_sync_due(make_state(**values), CONFIG)


def test_a_project_that_was_read_lately_is_not_read_again():
    assert not is_sync_due(make_state(unread_s=299.0), CONFIG)


def test_webhooks_are_read_when_there_are_any():
    assert are_events_due(make_state(has_events=True), CONFIG)
    assert not are_events_due(make_state(), CONFIG)


@pytest.mark.parametrize(
    ("values", "is_due"),
    [
        ({"num_new_labels": 4}, True),
        ({"num_new_labels": 3}, False),
        ({"num_new_labels": 0, "is_training_requested": True}, True),
        ({"has_labels": False, "is_training_requested": True}, False),
        ({"is_judging_due": True}, True),
        ({"has_labels": False, "is_judging_due": True}, False),
        ({"num_new_labels": 1, "num_waiting": 0}, True),
        ({"num_new_labels": 0, "num_waiting": 0}, False),
        ({"num_new_labels": 1, "num_waiting": 0, "is_published": False}, False),
        ({"num_new_labels": 1, "num_waiting": 0, "regions_tool_id": None}, False),
    ],
)
def test_training_needs_a_round_of_labels_a_request_an_unjudged_version_or_an_empty_queue(
    values, is_due
):
    assert is_training_due(make_state(**values), CONFIG) is is_due


def test_ranking_is_due_until_the_version_in_use_has_ranked():
    assert is_ranking_due(make_state(is_ranked=False), CONFIG)
    assert not is_ranking_due(make_state(), CONFIG)


@pytest.mark.parametrize(
    ("values", "is_due"),
    [
        ({}, False),
        ({"is_published": False}, True),
        ({"num_planned": 1}, True),
        ({"may_have_open": True, "num_waiting": 3}, True),
        ({"may_have_open": True, "num_waiting": 4}, False),
        ({"may_have_open": False, "num_waiting": 3}, False),
        ({"may_have_open": True, "num_waiting": 0, "regions_tool_id": None}, False),
        ({"may_have_open": True, "is_used_up": True, "regions_tool_id": None}, True),
        ({"may_have_open": True, "leaves_share": True}, False),
        ({"may_have_open": True, "trained_label_id": 8, "leaves_share": True}, True),
        ({"may_have_open": True, "trained_label_id": 8}, False),
        ({"trained_label_id": 8, "leaves_share": True}, False),
        ({"has_ranking": False, "is_published": False}, False),
        ({"has_ranking": False, "num_waiting": 3, "may_have_open": True}, True),
        ({"has_ranking": False, "num_waiting": 0, "published_version": None}, False),
    ],
)
def test_publishing_needs_another_ranking_planned_tasks_or_room_for_open_regions(values, is_due):
    assert is_publishing_due(make_state(**values), CONFIG) is is_due


def test_the_first_step_that_is_due_is_done_and_none_where_all_is_well(
    store: Store, tool: FakeTool
):
    steps = worker_steps(store, tool, CONFIG)
    wanting: dict[str, object] = {
        "is_sync_requested": True,
        "has_events": True,
        "num_new_labels": 4,
        "is_ranked": False,
        "is_published": False,
    }
    met = []
    for name in list(wanting):
        step = all_due(steps, make_state(**wanting), CONFIG)[0]
        met.append(step.name)
        del wanting[name]  # what the step has mended
    assert met == ["sync", "events", "train", "rank", "publish"]
    is_ranked = make_state(is_published=False, num_new_labels=4)
    assert [step.name for step in all_due(steps, is_ranked, CONFIG)][:2] == ["publish", "train"]
    *others, tidy, improve = steps
    assert all_due(steps, make_state(), CONFIG) == [tidy]  # when all else is well
    assert all_due([*others, improve], make_state(), CONFIG) == []
    assert all_due([*others, improve], make_state(further=Further()), CONFIG) == [improve]


def test_work_is_all_that_is_not_idle_and_other_projects_wait_only_for_what_brings_tasks(
    store: Store, tool: FakeTool
):
    steps = worker_steps(store, tool, CONFIG)
    names = {kind: [step.name for step in steps if step.is_of(kind)] for kind in Kind}
    assert names[Kind.SERVING] == [
        "sync",
        "events",
        "publish",
        "train",
        "rank",
        "publish",
    ]
    assert names[Kind.WORK] == [*names[Kind.SERVING], "retry", "tidy"]
    assert names[Kind.IDLE] == ["improve"]


def test_a_new_step_is_one_entry(store: Store, tool: FakeTool, make_worker: MakeWorker):
    worker = make_worker()
    settle(worker)
    done: list[str] = []
    worker._steps += (
        Step(
            "count",
            lambda state, config: not done,
            lambda project, report, should_stop: done.append(project.uid),
        ),
    )
    worker._settled.clear()
    settle(worker)
    assert done == ["1.100"]


def test_when_annotators_run_out_it_trains_with_what_there_is(
    store: Store, make_worker: MakeWorker
):
    tool = FakeTool(num_images=1)
    tool.files = {1: picture(1, (32, 96))}
    worker = make_worker()
    worker = Worker(store, tool, worker._config)
    settle(worker)
    assert len(tool.queue()) == 3
    label_round(store, tool, 3)
    settle(worker)
    assert store.projects.all()[0].current_version == 1
    assert tool.queue() == []


def test_training_without_labels_is_not_due(store: Store, make_worker: MakeWorker):
    worker = make_worker()
    store.projects.change(store.projects.all()[0].id, is_training_requested=True)
    settle(worker)
    assert store.projects.all()[0].current_version == 0
