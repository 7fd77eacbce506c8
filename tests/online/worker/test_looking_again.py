"""A class that nobody could look for in a ranking is looked for once more is known of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from ralis_backend.online.hits import WishStatus, shown_wish
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Annotation, CropTask, Project, Wish
from ralis_backend.online.wanted import Wanted, make_wish
from ralis_backend.online.worker import Worker, retry
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool

NOBODY = "no version has learned 'bright' and no region or example shows it"


def wish_for(store: Store, project: Project, **values: object) -> Wish:
    wanted = Wanted("bright", **values)  # type: ignore[arg-type]
    return store.wishes.begin(make_wish(store, project, wanted, RANKING))


def mined(store: Store, project: Project) -> list[CropTask]:
    return [row for row in store.queue.open(project.id) if row.wish_id is not None]


def status_of(store: Store, project: Project) -> WishStatus:
    found = shown_wish(store, store.projects.by_id(project.id))
    assert found is not None
    return found


def connect(store: Store, tool: FakeTool, worker: Worker, project: Project, count: int) -> None:
    """The project has so many of its classes now."""
    config = f"<View{count}/>"
    tool.pool = replace(tool.pool, label_config=config, classes=CLASSES[:count])
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)


def test_a_version_that_ranks_while_a_wish_rests_looks_when_the_class_is_back(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    wish = wish_for(store, project)
    connect(store, tool, worker, project, 1)
    assert "the wish rests" in str(status_of(store, project).note)
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    assert store.projects.by_id(project.id).current_version == 2
    connect(store, tool, worker, project, 2)
    assert store.projects.by_id(project.id).published_wish == wish.id
    assert status_of(store, project).note is None
    assert len(mined(store, project)) == 8


def test_the_first_region_that_shows_a_class_is_what_its_search_begins_with(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    wish_for(store, project)
    settle(worker)
    assert status_of(store, project).note.startswith(NOBODY)
    shows = [bool((tool.truth(task) == 1).any()) for task in tool.queue()]
    event = tool.annotate(tool.queue()[shows.index(True)])
    store.events.add("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    assert status_of(store, project).strategy == "similarity:bright"
    assert {row.strategy for row in mined(store, project)} == {"similarity:bright"}
    assert store.projects.by_id(project.id).current_version == 0


def test_a_region_without_the_class_is_no_reason_to_look_again(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    wish_for(store, project)
    settle(worker)
    version = store.versions.find(project.id, 0)
    event = tool.annotate(tool.queue()[0], [{"mask": [[0] * 32] * 32}])
    store.events.add("2.200", "ANNOTATION_CREATED", event)
    settle(worker)
    assert store.labels.count(project.id) == 1
    again = store.versions.find(project.id, 0)
    assert version is not None
    assert again is not None
    assert again.ranked_at == version.ranked_at


def test_an_example_that_can_be_read_again_is_looked_for(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retry, "_WORTH_A_RANKING", 2.0)
    file = tool.files.pop(3)
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    wish_for(store, project, examples=["task:3"])
    settle(worker)
    assert "there is no example of it" in str(status_of(store, project).note)
    tool.files[3] = file
    for image in store.images.of(project.id):
        if image.retry_at is not None:
            store.images.change(image.id, retry_at=image.retry_at - timedelta(days=2))
    settle(worker)
    assert status_of(store, project).strategy == "similarity:bright"
    assert mined(store, project)


def test_an_old_region_that_counts_again_is_looked_for(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    shows = [bool((tool.truth(task) == 1).any()) for task in tool.queue()]
    shown, other = shows.index(True), shows.index(False)
    for task in [tool.queue()[index] for index in (shown, other)]:
        store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task))
    settle(worker)
    with store.database.write() as session:
        first = session.scalars(select(Annotation).order_by(Annotation.id)).first()
        assert first is not None
        first.is_deleted = True
    wish_for(store, project)
    settle(worker)
    assert status_of(store, project).note.startswith(NOBODY)
    with store.database.write() as session:
        session.get_one(Annotation, first.id).is_deleted = False
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert status_of(store, project).strategy == "similarity:bright"
