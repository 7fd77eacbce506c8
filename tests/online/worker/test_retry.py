"""What becomes readable again asks for what was done without it, and for nothing else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from ralis_backend.labelstudio.errors import Unavailable
from ralis_backend.labelstudio.outages import HostUnavailable, Outages
from ralis_backend.online.pictures import Pictures
from ralis_backend.online.store import Store, StoreError, images, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.tool import ImageUnreachable, ToolTask
from ralis_backend.online.worker import Worker, loop, retry
from ralis_backend.online.worker.retry import Retry
from ralis_backend.online.worker.train import Trainer
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, START, FakeTool


class Host:
    """Whoever has the images fails at one, so many times."""

    def __init__(self, tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read, self.task_id, self.num_failures = tool.image, 0, 0
        monkeypatch.setattr(tool, "image", self.image)

    def image(self, task: ToolTask) -> bytes:
        if task.id == self.task_id and self.num_failures > 0:
            self.num_failures -= 1
            raise ValueError("502")
        return self._read(task)


def labelled(store: Store, tool: FakeTool, worker: Worker, host: Host) -> Project:
    """A project with a round of labels; the host fails at one of their images."""
    settle(worker)
    task_id = label_round(store, tool)[0]
    host.task_id = tool.region_tasks[task_id].data["source_task"]
    (project,) = store.projects.all()
    return project


def pauses_are_over(store: Store, project: Project) -> None:
    for image in store.images.bad(project.id):
        store.images.change(image.id, retry_at=now())


def test_an_image_that_fails_in_a_ranking_alone_makes_no_version_of_the_same_labels(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    host = Host(tool, monkeypatch)
    worker = make_worker(random_share=0.0)
    project = labelled(store, tool, worker, host)
    while not store.projects.by_id(project.id).current_version:
        worker.advance_all()
    host.num_failures = 1
    settle(worker)
    assert len(store.images.bad(project.id)) == 1
    pauses_are_over(store, project)
    settle(worker)
    assert store.images.bad(project.id) == []
    assert [it.number for it in store.versions.all(project.id)] == [0, 1]


def test_labels_that_a_training_left_out_are_trained_on_once_however_often_their_image_fails_then(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    host = Host(tool, monkeypatch)
    worker = make_worker(random_share=0.0)
    project = labelled(store, tool, worker, host)
    host.num_failures = 1_000
    settle(worker)
    numbers = []
    for num_failures in (0, 1, 1):
        host.num_failures = num_failures
        pauses_are_over(store, project)
        settle(worker)
        numbers.append(store.projects.by_id(project.id).current_version)
        store.versions.change(store.versions.all(project.id)[-1].id, ranked_at=None)
    assert numbers == [2, 2, 2]
    assert "left_out" not in store.versions.all(project.id)[-1].metrics


def test_labels_that_a_training_left_out_are_trained_on_where_a_ranking_finds_their_image_readable(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    host = Host(tool, monkeypatch)
    worker = make_worker(random_share=0.0)
    project = labelled(store, tool, worker, host)
    host.num_failures = 1_000
    while not store.projects.by_id(project.id).current_version:
        worker.advance_all()
    host.num_failures = 0
    pauses_are_over(store, project)  # the retry comes after the ranking
    settle(worker)
    first, second = store.versions.all(project.id)[1:]
    assert ("left_out" in first.metrics, "left_out" in second.metrics) == (True, False)
    assert "publish" in first.metrics["seconds"], "annotators meet what was ranked before that"


def test_a_training_that_was_given_up_is_not_tried_again_when_an_image_fails_for_a_moment(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    trainings = []

    def diverge(*_values: object, attempt: int, **_named: object) -> None:
        trainings.append(attempt)
        raise FloatingPointError("the loss became nan")

    monkeypatch.setattr(Trainer, "train", diverge)
    monkeypatch.setattr(loop, "pause_after", lambda _: 0.0)
    worker = make_worker(random_share=0.0)
    project = labelled(store, tool, worker, Host(tool, monkeypatch))
    for _ in range(4):  # a failure ends a turn
        settle(worker)
    assert len(trainings) == 3
    painted = {label.image_id for label in store.labels.of(project.id)}
    store.images.fail(min(painted), ValueError("502"))
    pauses_are_over(store, project)
    settle(worker)
    assert (store.images.bad(project.id), len(trainings)) == ([], 3)
    store.projects.request_training(project.id)
    for _ in range(4):
        settle(worker)
    assert len(trainings) == 6


def test_an_address_that_changes_with_each_list_does_not_shorten_the_pauses_of_a_bad_image(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    host = Host(tool, monkeypatch)
    host.task_id, host.num_failures = 1, 1_000
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    for number in range(3):
        tool.pool_tasks = [
            replace(it, image=f"/data/{it.id}.png?{number}") for it in tool.pool_tasks
        ]
        store.projects.change(project.id, is_sync_requested=True)
        settle(worker)
    assert store.images.bad(project.id)[0].num_failures == 4


def test_images_that_become_readable_step_by_step_are_ranked_once_they_are_many(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    """As after an outage in the midst of a ranking: each step tries few of them."""
    monkeypatch.setattr(retry, "TRIES_PER_STEP", 1)
    monkeypatch.setattr(retry, "_WORTH_A_RANKING", 0.9)
    worker = make_worker(random_share=0.0)
    project = store.projects.all()[0]
    read = tool.image

    def image(task: ToolTask) -> bytes:
        if task.id > 3:
            raise ValueError("503")
        return read(task)

    monkeypatch.setattr(tool, "image", image)
    settle(worker)
    (version,) = store.versions.all(project.id)
    assert len(store.rankings.num_regions(version.id)) == 3
    monkeypatch.setattr(tool, "image", read)
    pauses_are_over(store, project)
    settle(worker)
    assert len(store.rankings.num_regions(version.id)) == 6


@pytest.fixture
def half_ranked(store: Store, tool: FakeTool) -> tuple[Project, Version]:
    """A project whose version has ranked three of six images."""
    pool = tool.pool
    project = store.projects.register(pool.uid, pool.id, pool.label_config, CLASSES, "pool")
    store.images.reconcile(project.id, tool.pool_tasks)
    values = {"num_labels": 0, "created_at": now(), "ranked_at": now()}
    version = Version(project_id=project.id, number=0, is_accepted=True, **values)
    version = store.versions.add(version)
    for image in store.images.of(project.id)[:3]:
        store.rankings.put(version, image.id, np.ones(6, np.float32), [""] * 6, None)
    return project, version


def fail_once(store: Store, project: Project, *task_ids: int) -> None:
    for image in store.images.of_tasks(project.id, task_ids).values():
        store.images.fail(image.id, ValueError("502"))
    pauses_are_over(store, project)


def is_ranked(store: Store, version: Version) -> bool:
    return store.versions.all(version.project_id)[0].ranked_at is not None


def test_images_that_came_since_a_ranking_ask_for_none_when_one_that_was_ranked_is_back(
    store: Store, tool: FakeTool, half_ranked: tuple[Project, Version]
):
    project, version = half_ranked
    fail_once(store, project, 1)
    Retry(store, tool).retry(project, version, lambda: False)
    assert store.images.bad(project.id) == []
    assert is_ranked(store, version)
    fail_once(store, project, 4)
    Retry(store, tool).retry(project, version, lambda: False)
    assert not is_ranked(store, version)


def test_what_became_readable_asks_for_a_ranking_though_the_step_ends_in_an_error_then(
    store: Store,
    tool: FakeTool,
    half_ranked: tuple[Project, Version],
    monkeypatch: pytest.MonkeyPatch,
):
    project, version = half_ranked
    fail_once(store, project, 4, 5)
    read = tool.image

    def image(task: ToolTask) -> bytes:
        if task.id == 5:
            raise StoreError("database is locked")
        return read(task)

    monkeypatch.setattr(tool, "image", image)
    with pytest.raises(StoreError, match="locked"):
        Retry(store, tool).retry(project, version, lambda: False)
    assert not is_ranked(store, version)


def test_rankings_are_counted_once_for_all_images_that_become_readable_in_a_step(
    store: Store,
    tool: FakeTool,
    half_ranked: tuple[Project, Version],
    monkeypatch: pytest.MonkeyPatch,
):
    project, version = half_ranked
    fail_once(store, project, 1, 4, 5, 6)
    counted, changed = [], []
    count, change = store.images.num_missed, store.versions.change
    monkeypatch.setattr(store.images, "num_missed", lambda *of: counted.append(of) or count(*of))
    monkeypatch.setattr(
        store.versions, "change", lambda *of, **to: changed.append(to) or change(*of, **to)
    )
    Retry(store, tool).retry(project, version, lambda: False)
    assert store.images.bad(project.id) == []
    assert (len(counted), changed) == (1, [{"ranked_at": None}])


class Bucket:
    """A host of twelve images, on a clock of its own; `gone`: those that it fails on."""

    def __init__(self, store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start, self.seconds = now(), 0.0
        self._store, self._tool = store, tool
        self._outages = Outages(lambda: self.seconds)
        self.gone = set(range(1, 13))
        self.asked: list[int] = []
        monkeypatch.setattr(tool, "image", self.image)
        for module in (images, retry):
            monkeypatch.setattr(module, "now", self.now)
        self.project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
        tasks = [ToolTask(number, START, f"{number}.png") for number in self.gone]
        store.images.reconcile(self.project.id, tasks)

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.seconds)

    def image(self, task: ToolTask) -> bytes:
        try:
            with self._outages.asking("bucket"):
                self.asked.append(task.id)
                if task.id in self.gone:
                    raise Unavailable("503")
        except HostUnavailable as error:
            raise ImageUnreachable(
                "503", error.host, was_asked=error.was_asked, failing_s=error.failing_s
            ) from None
        return self._tool.files[1][0]

    def retry_for(self, minutes: int) -> set[int]:
        """Try once a minute; the tasks whose images are still bad."""
        end = self.seconds + minutes * 60
        while self.seconds < end:
            self.seconds += 61
            Retry(self._store, self._tool).retry(self.project, None, lambda: False)
        return {each.task_id for each in self._store.images.bad(self.project.id)}


@pytest.fixture
def bucket(store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return Bucket(store, tool, monkeypatch)


@pytest.mark.parametrize("gone", [{1}, {1, 2, 3, 4, 5}])
def test_pictures_that_keep_failing_keep_no_others_of_a_host_away_that_is_back(
    store: Store, bucket: Bucket, gone: set[int]
):
    for each in store.images.of(bucket.project.id):
        with suppress(ImageUnreachable):
            Pictures(store, bucket.project, bucket.image).read(each)
    bucket.gone = gone
    assert bucket.retry_for(minutes=10) == gone


def has_been_down(store: Store, bucket: Bucket, hours: int) -> None:
    """All images of it were asked for meanwhile, equally often, and are due."""
    away = {"unreachable_since": now() - timedelta(hours=hours), "unreachable_host": "bucket"}
    for each in store.images.of(bucket.project.id):
        store.images.change(each.id, error="503", num_failures=3, retry_at=bucket.now(), **away)


def test_files_that_are_gone_keep_no_others_away_after_a_long_outage_of_a_small_pool(
    store: Store, bucket: Bucket
):
    has_been_down(store, bucket, hours=60)
    bucket.gone = {1, 2, 3, 4, 5, 6, 7}
    assert bucket.retry_for(minutes=5) == bucket.gone


def test_of_a_host_that_is_down_for_good_one_image_an_hour_is_asked_for_after_a_day(
    store: Store, bucket: Bucket
):
    has_been_down(store, bucket, hours=24 * 60)
    bucket.retry_for(minutes=10)
    assert sorted(bucket.asked) == list(range(1, 13)), "each once, and none before a day is over"
    bucket.seconds += 86_400
    bucket.retry_for(minutes=60)
    assert len(bucket.asked) == 12 + 1


def test_an_outage_costs_two_tries_a_minute_however_many_images_are_out_of_reach(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def image(task: ToolTask) -> bytes:
        asked.append(task.id)
        raise ImageUnreachable("503", "bucket", was_asked=len(asked) == 1)

    monkeypatch.setattr(tool, "image", image)
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.images.reconcile(project.id, tool.pool_tasks)
    for each in store.images.of(project.id):
        store.images.fail(each.id, ImageUnreachable("503", "bucket"))
        store.images.change(each.id, retry_at=now())
    for _ in range(2):
        Retry(store, tool).retry(project, None, lambda: False)
    assert asked == [1, 2]


def test_images_that_hang_keep_a_try_at_the_others_for_ten_seconds(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    seconds = 0.0

    def image(task: ToolTask) -> bytes:
        nonlocal seconds
        seconds += 6.0
        raise ImageUnreachable("ReadTimeout")

    monkeypatch.setattr(tool, "image", image)
    monkeypatch.setattr(retry.time, "monotonic", lambda: seconds)
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.images.reconcile(project.id, tool.pool_tasks)
    for each in store.images.of(project.id):
        store.images.change(each.id, retry_at=now())
    Retry(store, tool).retry(project, None, lambda: False)
    assert seconds == 12.0
