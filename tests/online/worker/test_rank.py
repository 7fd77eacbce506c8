from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ralis_backend.core.acquisition import strategy
from ralis_backend.online.ranking import ALONE
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Image
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker import rank
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import START, FakeTool, picture


def test_one_unreadable_image_does_not_stop_the_others(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.files[2] = (b"not an image", tool.files[2][1])
    settle(make_worker())
    project = store.projects.all()[0]
    errors = {image.task_id: image.error for image in store.images.of(project.id)}
    assert errors[2]
    assert errors[1] is None
    assert 2 not in {task.data["source_task"] for task in tool.region_tasks.values()}


def add_image(store: Store, tool: FakeTool, project_id: int) -> None:
    tool.files[99] = picture(99)
    tool.pool_tasks.append(ToolTask(99, START, "/data/99.png"))
    store.projects.change(project_id, is_sync_requested=True)


def test_new_images_are_ranked_at_once_when_the_pool_is_used_up(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.pool_tasks = tool.pool_tasks[:2]
    worker = make_worker(random_share=0.0)
    settle(worker)
    while tool.queue():
        label_round(store, tool, 8)
        settle(worker)
    (project,) = store.projects.all()
    add_image(store, tool, project.id)
    settle(worker)
    found = store.images.of_tasks(project.id, [99])[99].id
    assert {row.image_id for row in store.queue.open(project.id)} == {found}


def test_an_image_that_only_the_segmenter_breaks_on_is_tried_less_and_less_often(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    tool.pool_tasks = tool.pool_tasks[:2]
    broken = tool.files[2][0]
    real = rank.describe_image

    def describe_image(segmenter: Any, content: bytes, *others: Any) -> Any:
        if content == broken:
            raise ValueError("the segmenter breaks on it")
        return real(segmenter, content, *others)

    monkeypatch.setattr(rank, "describe_image", describe_image)
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()

    def again() -> Image:
        image = store.images.of_tasks(project.id, [2])[2]
        store.images.change(image.id, retry_at=now())
        settle(worker)
        return store.images.of_tasks(project.id, [2])[2]

    failures = [again().num_failures for _ in range(2)]
    assert failures == [2, 3]
    monkeypatch.setattr(rank, "describe_image", real)
    mended = again()
    assert (mended.error, mended.num_failures) == (None, 0)


def test_a_strategy_that_breaks_in_what_is_beside_its_scores_still_ranks(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    kind = type(strategy("coverage"))

    def alone(*_: object) -> None:
        raise RuntimeError("it breaks")

    monkeypatch.setattr(kind, "alone", alone)
    monkeypatch.setattr(kind, "reasons", lambda *_: ["one for all"])
    worker = make_worker(random_share=0.0, ranking=replace(RANKING, strategy="coverage"))
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    version = store.versions.find(project.id, 1)
    assert version is not None
    assert version.strategy == "coverage"
    assert version.metrics.get(ALONE) is None
    assert project.last_error is None
