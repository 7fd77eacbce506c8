from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.worker import Worker, WorkerConfig, unused_masks
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


def test_housekeeping_does_the_rest_where_a_part_of_it_fails(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    done: list[str] = []

    def fail() -> None:
        done.append("failed")
        raise OverflowError("date value out of range")

    keeper = Housekeeping(store, tool, CONFIG)
    for part in ("_look_for_the_gone", "_drop_events", "_remove_partial_files"):
        monkeypatch.setattr(keeper, part, fail)
    monkeypatch.setattr(keeper, "_remove_masks", lambda: done.append("masks"))
    keeper.keep()
    assert done == ["failed"] * 3 + ["masks"]
    assert caplog.text.count("housekeeping goes on") == 3


@pytest.fixture
def masks(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], int]:
    """Looks for unused masks after so many hours; the number that was removed."""
    clock = [0.0]
    monkeypatch.setattr(unused_masks.time, "monotonic", lambda: clock[0])
    looker = unused_masks.UnusedMasks(store)

    def look(hours: float) -> int:
        clock[0] += 3600 * hours
        return looker.remove()

    return look


def mask_files(store: Store) -> set[str]:
    root = store.blobs.root
    return {path.relative_to(root).as_posix() for path in (root / "labels").rglob("*.png")}


def labelled(store: Store, tool: FakeTool, worker: Worker) -> None:
    settle(worker)
    label_round(store, tool)
    settle(worker)
    assert mask_files(store) == store.labels.mask_keys() != set()


def put_unused(store: Store) -> str:
    return store.blobs.put(f"labels/ab/{'ab' * 32}.png", b"painted otherwise since")


def test_a_mask_of_before_an_edit_goes_after_a_day_and_those_in_use_stay(
    store: Store, tool: FakeTool, make_worker: MakeWorker, masks: Callable[[float], int]
):
    labelled(store, tool, make_worker())
    used = mask_files(store)
    unused = put_unused(store)
    assert [masks(hours) for hours in (0, 1, 22.9)] == [0, 0, 0]
    assert unused in mask_files(store)
    assert masks(0.1) == 1
    assert [path.name for path in store.blobs.root.rglob(".writing-*")] == []
    assert mask_files(store) == used


def test_a_mask_that_comes_into_use_again_stays(
    store: Store, tool: FakeTool, make_worker: MakeWorker, masks: Callable[[float], int]
):
    labelled(store, tool, make_worker())
    unused = put_unused(store)
    masks(0)
    assert store.blobs.have(unused, b"painted otherwise since") == unused  # its row comes later
    assert [masks(25), masks(23)] == [0, 0]
    assert unused in mask_files(store)


@pytest.mark.parametrize("is_touched", [True, False])
def test_a_mask_that_comes_into_use_at_the_last_moment_stays(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    masks: Callable[[float], int],
    monkeypatch: pytest.MonkeyPatch,
    is_touched: bool,
):
    labelled(store, tool, make_worker())
    unused, stored = put_unused(store), store.labels.mask_keys()
    masks(0)
    looks = 0

    def keys_and_use() -> set[str]:
        nonlocal looks
        looks += 1
        if is_touched and looks == 1:
            store.blobs.have(unused, b"painted otherwise since")
        return stored | ({unused} if looks == 2 and not is_touched else set())

    monkeypatch.setattr(store.labels, "mask_keys", keys_and_use)
    assert masks(25) == 0
    assert looks == 2
    assert store.blobs.get(unused) == b"painted otherwise since"


def test_no_mask_goes_where_the_database_has_no_labels(store: Store, masks: Callable[[float], int]):
    unused = put_unused(store)
    assert [masks(0), masks(25)] == [0, 0]
    assert mask_files(store) == {unused}
