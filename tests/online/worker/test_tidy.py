from __future__ import annotations

from datetime import timedelta

import pytest

from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker import housekeeping as housekeeping_module
from ralis_backend.online.worker import standing as standing_module
from ralis_backend.online.worker.housekeeping import Housekeeping
from ralis_backend.online.worker.tidy import Tidying
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool

CONFIG = WorkerConfig(ranking=RANKING, kept_versions=2, kept_events_days=7)


@pytest.fixture
def project(store: Store) -> Project:
    return store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")


def add_version(store: Store, project: Project, number: int, parent: int, **values: object) -> None:
    key = f"versions/{project.id}/{number}-abc.safetensors"
    store.blobs.put(key, b"weights")
    fields: dict[str, object] = {"is_accepted": False, "metrics": {}, **values}
    store.versions.add(
        Version(
            project_id=project.id,
            number=number,
            parent=parent,
            num_labels=4,
            weights_key=key,
            created_at=now(),
            **fields,
        )
    )


def kept_files(store: Store, project: Project) -> list[int]:
    folder = store.blobs.root / "versions" / str(project.id)
    return sorted(int(path.name.split("-")[0]) for path in folder.iterdir())


def test_weights_that_nobody_needs_are_dropped_and_the_others_stay(store: Store, project: Project):
    for number in range(1, 11):
        add_version(
            store,
            project,
            number,
            parent=number - 1,
            is_accepted=number <= 6,
            metrics={"exported_at": "2026-01-01"} if number == 1 else {},
        )
    project = store.projects.change(project.id, current_version=5, published_version=3)
    Tidying(store, CONFIG).tidy(project)
    # exported; parent of the published; published; parent of, and in use; accepted; two newest
    assert kept_files(store, project) == [1, 2, 3, 4, 5, 6, 9, 10]
    dropped = [row.number for row in store.versions.all(project.id) if row.is_dropped]
    assert dropped == [7, 8]
    with pytest.raises(ValueError, match="the weights of v7 are no longer kept"):
        store.versions.use(project.id, 7)
    store.versions.use(project.id, 4)
    assert store.projects.by_id(project.id).current_version == 4


def test_files_that_no_row_names_go_and_those_of_other_projects_stay(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    used = {path for path in store.blobs.root.rglob("*") if path.is_file()}
    version = store.versions.find(project.id, 1)
    assert version is not None
    unused = [
        f"versions/{project.id}/7-dead.safetensors",
        f"rankings/{version.id}/1-dead.png",
        f"spool/{project.id}/run/entropy.f4",
    ]
    theirs = ["versions/99/1-abc.safetensors", "rankings/99/1-abc.png", "spool/99/run/entropy.f4"]
    for key in unused + theirs:
        path = store.blobs.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    Tidying(store, CONFIG).tidy(project)
    left = {path for path in store.blobs.root.rglob("*") if path.is_file()}
    assert left - used == {store.blobs.root / key for key in theirs}
    assert used <= left


def test_a_project_is_tidied_when_nothing_else_is_due_and_not_again_within_the_hour(
    store: Store, make_worker: MakeWorker
):
    worker = make_worker()
    path = store.blobs.root / "versions/1/7-dead.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    settle(worker)
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    worker._settled.clear()
    settle(worker)
    assert path.exists()


def test_old_events_of_unknown_projects_go(store: Store, tool: FakeTool, project: Project):
    store.projects.change(project.id, regions_uid="2.200")
    for uid in ("1.100", "2.200", "7.700"):
        store.events.add(uid, "ANNOTATION_CREATED", {})
    forgotten = store.projects.register("8.800", 8, "<View/>", CLASSES, "forgotten")
    store.projects.change(forgotten.id, is_deleted=True)
    store.events.add("8.800", "ANNOTATION_CREATED", {})
    assert store.events.drop_unclaimed(now() - timedelta(days=7)) == 0
    assert store.events.drop_unclaimed(now() + timedelta(seconds=1)) == 2
    assert len(store.events.unread(store.projects.get("1.100"))) == 2


def test_what_killed_writers_left_goes_when_it_has_not_changed_for_an_hour(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    for module in (housekeeping_module, standing_module):
        monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    left = store.blobs.root / "labels" / "ab" / ".writing-0123.png"
    grows = store.blobs.root / ".writing-4567.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    keeper = Housekeeping(store, tool, CONFIG)
    for hour in range(3):
        clock[0] = hour * 3600.0
        grows.write_bytes(b"x" * (hour + 1))
        keeper.keep()
        assert left.exists() == (hour < 1)
        assert grows.exists()
