from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from ralis_backend.online.store import Store
from ralis_backend.online.store.database import Database
from ralis_backend.online.worker import Worker, WorkerConfig
from tests.online.conftest import RANKING, STRIDE, TINY, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool

ALIVE = WorkerConfig(ranking=RANKING, finetune=TINY)
IMPATIENT = WorkerConfig(ranking=RANKING, finetune=TINY, lease_s=0.0)
"""Takes every lease over at once: as if the other worker had not moved for a minute."""


@dataclass
class Site:
    """A labelled round that waits for its training: a data folder, and the tool."""

    folder: Path
    tool: FakeTool

    def copied(self, folder: Path) -> Site:
        shutil.copytree(self.folder, folder)
        return Site(folder, copy.deepcopy(self.tool))

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = Store.open(f"sqlite:///{self.folder / 'ralis.db'}", self.folder / "blobs")
        yield store
        store.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "site", FakeTool(num_images=2))
    made.folder.mkdir()
    with made.store() as store:
        pool = made.tool.pool
        store.projects.register(pool.uid, pool.id, pool.label_config, CLASSES, "pool")
        settle(Worker(store, made.tool, ALIVE))
        label_round(store, made.tool)
    return made


class Interruption:
    """Calls something once, at the n-th point at which another worker could act."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.num_points = 0
        self._number = number
        self._act = act
        self._is_acting = False

    def point(self, *_: object) -> None:
        if self._is_acting:
            return
        self.num_points += 1
        if self.num_points == self._number:
            self._is_acting = True
            self._act()
            self._is_acting = False


def outcome(store: Store, tool: FakeTool) -> dict[str, object]:
    """What both annotators and the export see in the end."""
    (project,) = store.projects.all()
    queue = store.queue.open(project.id)
    labels = store.labels.of(project.id)
    return {
        "labels": sorted((it.image_id, it.region, it.mask_key) for it in labels),
        "versions": [(it.number, it.num_labels) for it in store.versions.all(project.id)],
        "in use": (project.current_version, project.published_version, tool.version),
        "queue": sorted((it.image_id, it.region) for it in queue if it.task_id),
        "tasks": sorted(
            (it.data["source_task"], it.data["row"], it.data["col"])
            for it in tool.region_tasks.values()
        ),
        "predictions": sorted(tool.predictions) == sorted(it.task_id for it in queue),
        "masks": all(
            store.blobs.path(it.mask_key).exists()
            for it in store.rankings.of(store.versions.all(project.id)[-1].id).values()
            if it.mask_key
        ),
        "errors": project.last_error,
    }


def interrupted(site: Site, number: int) -> tuple[dict[str, object], int]:
    """The outcome when another worker takes over at point `number`, and how many there were."""
    with site.store() as store, site.store() as others:
        interruption = Interruption(number, lambda: settle(Worker(others, site.tool, IMPATIENT)))
        worker = Worker(store, site.tool, ALIVE)
        real_call = site.tool._call

        def call(name: str) -> None:
            interruption.point()
            real_call(name)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(site.tool, "_call", call)
            for kind in ("read", "write"):
                patched.setattr(Database, kind, _interrupted_before(store, kind, interruption))
            settle(worker)
        num_points = interruption.num_points
        (project,) = store.projects.all()
        store.projects.change(project.id, is_sync_requested=True)
        settle(Worker(store, site.tool, ALIVE))
        return outcome(store, site.tool), num_points


def _interrupted_before(
    store: Store, kind: str, interruption: Interruption
) -> Callable[[Database], AbstractContextManager[Session]]:
    """`Database.read` or `write` with a point before each transaction: within it others wait."""
    real = getattr(Database, kind)

    @contextmanager
    def transaction(database: Database) -> Iterator[Session]:
        is_heartbeat = threading.current_thread() is not threading.main_thread()
        if database.engine is store.database.engine and not is_heartbeat:
            interruption.point()
        with real(database) as session:
            yield session

    return transaction


def test_a_worker_that_is_overtaken_half_way_makes_nothing_twice(site: Site, tmp_path: Path):
    undisturbed, num_points = interrupted(site.copied(tmp_path / "0"), 0)
    assert undisturbed["in use"] == (1, 1, "v1")
    got, _ = interrupted(site.copied(tmp_path / "1"), num_points // 2)
    assert got == undisturbed


@pytest.mark.long
@pytest.mark.e2e
def test_a_worker_that_is_overtaken_at_many_points_makes_nothing_twice(site: Site, tmp_path: Path):
    undisturbed, num_points = interrupted(site.copied(tmp_path / "0"), 0)
    for number in range(1, num_points + 1, 4 * STRIDE):
        folder = tmp_path / str(number)
        got, _ = interrupted(site.copied(folder), number)
        shutil.rmtree(folder)
        assert got == undisturbed, f"overtaken at point {number} of {num_points}"
