from __future__ import annotations

import re
import weakref
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import strategy
from ralis_backend.core.images import decode_image
from ralis_backend.core.text import reason_of
from ralis_backend.online.ranking import ALONE
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Image
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker import loop, rank
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


def break_on(
    monkeypatch: pytest.MonkeyPatch, tool: FakeTool, tasks: set[int], error: Exception
) -> None:
    """The segmenter fails on these tasks' images."""
    broken = [decode_image(tool.files[task][0]) for task in tasks]
    real = rank.describe_image

    def describe_image(segmenter: Any, image: np.ndarray, *others: Any) -> Any:
        if any(np.array_equal(image, each) for each in broken):
            raise error
        return real(segmenter, image, *others)

    monkeypatch.setattr(rank, "describe_image", describe_image)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_full_graphics_card_fails_the_ranking_and_is_no_images_fault(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool)
    waiting = set(tool.queue()[4:])
    with monkeypatch.context() as full:
        break_on(full, tool, {3, 4, 5, 6}, error)  # the first two had room
        settle(worker)
    (project,) = store.projects.all()
    assert store.images.bad(project.id) == []
    assert reason_of(error) in str(project.last_error)
    assert "rank failed" in str(project.last_error)
    assert waiting <= set(tool.region_tasks)
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    settle(worker)
    project = store.projects.by_id(project.id)
    assert (project.published_version, project.last_error) == (1, None)


def test_a_segmenter_that_fails_on_every_image_fails_the_ranking_and_one_that_works_does_not(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    error = ValueError("the segmenter's embeddings of this image is not finite")
    with monkeypatch.context() as broken:
        break_on(broken, tool, {1, 2, 3, 4, 5, 6}, error)
        settle(worker)
    (project,) = store.projects.all()
    assert store.images.bad(project.id) == []
    told = f"v0 cannot look at images (task 1, 2, 3): {error}"
    assert str(project.last_error).endswith(told)
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    break_on(monkeypatch, tool, {1, 2, 4, 5, 6}, error)  # two in a row, then three
    settle(worker)
    bad = {image.task_id: image.error for image in store.images.bad(project.id)}
    assert bad == dict.fromkeys((1, 2, 4, 5, 6), str(error))


def test_the_first_images_do_not_stop_the_ranking_of_the_others_for_good(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    break_on(monkeypatch, tool, {1, 2, 3}, ValueError("the segmenter breaks on it"))
    monkeypatch.setattr(rank, "MOST_RESTS", 2)
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    worker = make_worker(random_share=0.0)
    for _ in range(3):
        settle(worker)
    (project,) = store.projects.all()
    assert {image.task_id for image in store.images.bad(project.id)} == {1, 2, 3}
    assert len(tool.queue()) == 8


def test_images_that_the_segmenter_fails_on_are_not_kept_in_memory(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    seen: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def describe_image(_segmenter: object, image: np.ndarray, *_others: object) -> NoReturn:
        alive.append(sum(each() is not None for each in seen))
        seen.append(weakref.ref(image))
        raise ValueError("the segmenter breaks on it")

    monkeypatch.setattr(rank, "describe_image", describe_image)
    monkeypatch.setattr(rank, "MOST_RESTS", 0)
    settle(make_worker(random_share=0.0))
    assert alive == [0] * 6


def test_a_segmenter_that_fails_on_everything_does_not_go_through_the_whole_pool(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    break_on(monkeypatch, tool, {1, 2, 3, 4, 5, 6}, ValueError("the segmenter breaks on it"))
    monkeypatch.setattr(rank, "MOST_RESTS", 0)
    monkeypatch.setattr(rank, "MOST_AT_FIRST", 4)
    worker = make_worker(random_share=0.0)
    settle(worker)
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    met = []
    for _ in range(4):
        (project,) = store.projects.all()
        error = str(project.last_error)
        assert store.images.bad(project.id) == []
        assert re.search(r"v0 cannot look at images \(task \d, \d, \d, \d\): ", error)
        met += re.findall(r"\d(?=[,)])", error)
        worker.advance_all()
    assert set(met) == set("123456"), "each try begins with others"


def test_a_ranking_gets_past_many_images_in_front_that_the_segmenter_fails_on(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    break_on(monkeypatch, tool, {1, 2, 3, 4}, ValueError("the segmenter breaks on it"))
    monkeypatch.setattr(rank, "MOST_RESTS", 0)
    monkeypatch.setattr(rank, "MOST_AT_FIRST", 4)
    settle(make_worker(random_share=0.0))
    (project,) = store.projects.all()
    assert [image.task_id for image in store.images.bad(project.id)] == [1, 2, 3, 4]
    assert project.last_error is None


def test_a_ranking_that_failed_for_other_reasons_before_still_rests_for_a_full_graphics_card(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    (project,) = store.projects.all()
    for _ in range(2 * rank.MOST_RESTS):
        store.attempts.fail(project.id, "rank", "none of 6 images can be read")
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    break_on(monkeypatch, tool, {3, 4, 5, 6}, torch.OutOfMemoryError("CUDA out of memory"))
    settle(worker)
    assert store.images.bad(project.id) == []
    assert "v0 cannot look at images" in str(store.projects.by_id(project.id).last_error)


@pytest.mark.parametrize("most_rests", [10, 0])
def test_a_lost_graphics_card_is_no_images_fault_until_the_ranking_has_rested_often(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    most_rests: int,
):
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    break_on(monkeypatch, tool, {3, 4, 5, 6}, error)
    monkeypatch.setattr(rank, "MOST_RESTS", most_rests)
    worker = make_worker(random_share=0.0)
    ended: list[str] = []
    monkeypatch.setattr(worker, "_end_process", ended.append)
    settle(worker)
    (project,) = store.projects.all()
    assert (len(ended), len(store.images.bad(project.id))) == (1, 0 if most_rests else 1)


def test_a_worker_that_has_lost_its_graphics_card_ends(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    break_on(monkeypatch, tool, {1, 2, 3, 4, 5, 6}, error)
    worker = make_worker(random_share=0.0)
    ended: list[str] = []
    monkeypatch.setattr(worker, "_end_process", ended.append)
    settle(worker)
    assert [each.partition(" has ")[0] for each in ended] == ["rank of project 1"]
    (project,) = store.projects.all()
    assert "illegal memory access" in str(project.last_error)
    assert store.images.bad(project.id) == []


def test_an_image_that_is_too_large_for_the_card_is_left_out_alone(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    break_on(monkeypatch, tool, {1, 6}, torch.OutOfMemoryError("CUDA out of memory"))
    settle(make_worker(random_share=0.0))
    (project,) = store.projects.all()
    bad = {image.task_id: image.error for image in store.images.bad(project.id)}
    assert bad == dict.fromkeys((1, 6), "CUDA out of memory")
    assert len(tool.queue()) == 8


def test_an_image_that_only_the_segmenter_breaks_on_is_tried_less_and_less_often(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    tool.pool_tasks = tool.pool_tasks[:2]
    real = rank.describe_image
    break_on(monkeypatch, tool, {2}, ValueError("the segmenter breaks on it"))
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
