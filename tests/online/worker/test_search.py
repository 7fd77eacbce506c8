from __future__ import annotations

import pytest

from ralis_backend.online.hits import shown_wish
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Wish
from ralis_backend.online.store.wishes import REACHED, STOPPED
from ralis_backend.online.wanted import Wanted, make_wish
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool


def wish_for(store: Store, project: Project, **values: object) -> Wish:
    wanted = Wanted("bright", **values)  # type: ignore[arg-type]
    return store.wishes.begin(make_wish(store, project, wanted, RANKING))


@pytest.fixture
def trained(store: Store, tool: FakeTool, make_worker: MakeWorker):
    """A worker whose project has one version that has learned both classes."""
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    assert project.current_version == 1
    return worker


def mined(store: Store, project: Project) -> list:
    return [row for row in store.queue.open(project.id) if row.wish_id is not None]


def test_a_wish_fills_the_queue_from_one_ranking_without_a_training(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    wish = wish_for(store, project, count=20)
    num_images = tool.calls.count("image")
    settle(trained)
    (project,) = store.projects.all()
    rows = mined(store, project)
    assert len(rows) == 20
    assert {row.strategy for row in rows} == {"presence:bright"}
    assert all(row.reason.startswith("looks for bright: ") for row in rows)
    assert (project.current_version, project.published_wish) == (1, wish.id)
    data = [tool.region_tasks[row.task_id].data for row in rows if row.task_id is not None]
    told = [it for it in data if it["strategy"] == "presence:bright"]
    assert len(told) >= 18  # two may be open in a browser: they say what they said
    assert all(it["reason"].startswith("looks for bright: ") for it in told)
    assert all(tool.predictions[task].reason.startswith("looks for ") for task in tool.queue())
    assert tool.calls.count("image") - num_images <= 2 * len(tool.files)  # ranked, then cut


def test_a_stopped_wish_gives_the_queue_back_to_the_ordinary_strategy(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    wish = wish_for(store, project)
    settle(trained)
    assert len(mined(store, project)) == 8
    store.wishes.end(wish.id, STOPPED)
    settle(trained)
    (project,) = store.projects.all()
    assert project.published_wish is None
    rows = store.queue.open(project.id)
    assert len(rows) == 8
    assert sum(row.strategy == "presence:bright" for row in rows) <= 2  # what may be open


def test_half_a_share_leaves_the_others_half_of_the_queue(store: Store, tool: FakeTool, trained):
    (project,) = store.projects.all()
    wish_for(store, project, share=0.5)
    settle(trained)
    assert 3 <= len(mined(store, project)) <= 4
    assert len(store.queue.open(project.id)) == 8


def test_a_wish_ends_by_itself_and_says_what_was_found(store: Store, tool: FakeTool, trained):
    (project,) = store.projects.all()
    wish_for(store, project, count=3)
    settle(trained)
    for _ in range(4):
        label_round(store, tool, 2)
        settle(trained)
    (wish,) = store.wishes.all(project.id)
    assert wish.ended_by == REACHED
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.num_labelled >= 3
    assert status.pixels_now > status.pixels_before
