from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store, annotation_from_json, annotation_to_json, unpack
from ralis_backend.online.store.blobs import BlobStore
from ralis_backend.online.store.tables import Base, Image, Project
from ralis_backend.online.tool import ClassLabel, ToolAnnotation, ToolTask

START = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = (ClassLabel("road", "#804080"), ClassLabel("car", "#0000FF"))


def annotation(number: int = 1, seconds: int = 0, **values: object) -> ToolAnnotation:
    fields: dict[str, object] = {
        "id": number,
        "task_id": 1,
        "task_created_at": START,
        "annotator": "ann",
        "created_at": START,
        "updated_at": START + timedelta(seconds=seconds),
        "lead_time_s": 3.5,
        "is_skipped": False,
        "results": [{"id": "x"}],
        "suggested_version": None,
    }
    return ToolAnnotation(**{**fields, **values})  # type: ignore[arg-type]


@pytest.fixture
def project(store: Store) -> Project:
    return store.projects.register("1.100", 1, "<View/>", LABELS, "streets")


@pytest.fixture
def image(store: Store, project: Project) -> Image:
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/1.png")])
    return store.images.of(project.id)[0]


def label(
    store: Store, project: Project, image: Image, source: ToolAnnotation, *new: NewLabel
) -> None:
    row = store.annotations.put(project, "1.100", source, image, None)
    assert row is not None
    store.labels.put(row, new)


def test_the_migrations_make_the_tables_that_the_code_uses(store: Store):
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_opening_twice_at_once_is_fine(tmp_path: Path):
    opened: list[Store] = []
    threads = [
        threading.Thread(
            target=lambda: opened.append(
                Store.open(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "blobs")
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 3
    for each in opened:
        each.close()


def test_task_ids_that_are_handed_out_again_are_other_images(store: Store, project: Project):
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/old.png")])
    (old,) = store.images.of(project.id)
    later = START + timedelta(hours=1)
    store.images.reconcile(project.id, [ToolTask(1, later, "/data/new.png")])
    assert [row.ref for row in store.images.of(project.id)] == ["/data/new.png"]
    assert store.images.get(old.id).is_deleted
    found = store.images.find(project.id, 1)
    assert found is not None
    assert found.ref == "/data/new.png"


def test_overlapping_regions_keep_every_labelled_pixel_and_the_newest_wins(
    store: Store, project: Project, image: Image
):
    left = np.array([[0, 0, 0], [0, 0, VOID]], np.uint8)
    right = np.array([[1, VOID, 1], [1, 1, 1]], np.uint8)
    label(store, project, image, annotation(1, 1), NewLabel(Region(0, 0, 2, 3), left))
    label(store, project, image, annotation(2, 2), NewLabel(Region(0, 1, 2, 3), right))
    mask = store.labels.image_mask((2, 5), store.labels.of(project.id))
    np.testing.assert_array_equal(mask, [[0, 1, 0, 1, VOID], [0, 1, 1, 1, VOID]])


def test_an_older_state_of_an_annotation_changes_nothing(
    store: Store, project: Project, image: Image
):
    region = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))
    label(store, project, image, annotation(1, 5, results=[{"id": "new"}]), region)
    older = annotation(1, 2, results=[{"id": "old"}])
    assert store.annotations.put(project, "1.100", older, image, None) is None


def test_the_same_strokes_told_in_other_words_are_not_new_labels(
    store: Store, project: Project, image: Image
):
    region = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))
    label(store, project, image, annotation(1, 1, annotator="7"), region)
    newest = store.labels.newest_id(project.id)
    told_by_api = annotation(1, 1, annotator="ann@example.com", task_created_at=None)
    assert store.annotations.put(project, "1.100", told_by_api, image, None) is None
    assert store.labels.newest_id(project.id) == newest


def test_every_fifth_labelled_image_is_held_out_for_good(store: Store, project: Project):
    tasks = [ToolTask(i, START, f"/{i}.png") for i in range(1, 11)]
    store.images.reconcile(project.id, tasks)
    patch = NewLabel(Region(0, 0, 1, 1), np.zeros((1, 1), np.uint8))
    for number, image in enumerate(store.images.of(project.id), start=1):
        label(store, project, image, annotation(number, task_id=image.task_id), patch)
    held_out = [image.task_id for image in store.images.of(project.id) if image.is_validation]
    assert held_out == [5, 10]
    store.annotations.withdraw("1.100", [1])
    assert [image.task_id for image in store.images.of(project.id) if image.is_validation] == [
        5,
        10,
    ]


def test_pixels_are_counted_per_class(store: Store, project: Project, image: Image):
    mask = np.array([[0, 1, 1], [VOID, 1, 0]], np.uint8)
    label(store, project, image, annotation(), NewLabel(Region(0, 0, 2, 3), mask))
    assert store.labels.of(project.id)[0].pixels == (2, 3)


def test_a_later_skip_does_not_hide_a_painted_label(store: Store, project: Project, image: Image):
    region = Region(0, 0, 1, 1)
    painted = NewLabel(region, np.zeros((1, 1), np.uint8))
    label(store, project, image, annotation(1, 1), painted)
    label(store, project, image, annotation(2, 2, is_skipped=True), NewLabel(region, None))
    assert [found.is_skipped for found in store.labels.of(project.id)] == [False]


def test_removed_labels_keep_their_index_and_new_ones_come_after(store: Store, project: Project):
    changed = (ClassLabel("car", "#00FF00"), ClassLabel("bus", "#FF0000"))
    again = store.projects.register("1.100", 1, "<View>2</View>", changed, "")
    assert again.class_names == ("road", "car", "bus")
    assert [entry["is_active"] for entry in again.classes] == [False, True, True]
    assert again.classes[1]["color"] == "#00FF00"
    assert again.title == "streets"


def test_annotations_survive_the_way_through_json():
    source = annotation(7, 3, suggested_version="v2", lead_time_s=None)
    assert annotation_from_json(annotation_to_json(source)) == source


def test_an_event_is_stored_as_it_came(store: Store, project: Project):
    store.events.add("1.100", "ANNOTATION_CREATED", {"annotation": {"id": 1, "text": "ü"}})
    (event,) = store.events.unread(project)
    assert unpack(event.payload) == {"annotation": {"id": 1, "text": "ü"}}
    store.events.drop(event.id)
    assert store.events.unread(project) == []


def test_an_unknown_project_is_named_with_what_to_do(store: Store, project: Project):
    with pytest.raises(
        ValueError, match=r"9\.9 is not known here \(known: 1\.100\).*ralis connect"
    ):
        store.projects.get("9.9")


def test_blob_keys_cannot_leave_the_folder(tmp_path: Path):
    blobs = BlobStore(tmp_path)
    for key in ("../x.png", "/etc/passwd", "a/../b.png", "labels/x"):
        with pytest.raises(ValueError, match="blob key"):
            blobs.put(key, b"")


def test_a_blob_that_cannot_be_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    blobs = BlobStore(tmp_path)
    blobs.put("labels/a.png", b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        blobs.put("labels/a.png", b"new")
    assert blobs.get("labels/a.png") == b"old"
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["a.png"]


KILLED = """
import sys
from ralis_backend.online.store import Store
from pathlib import Path
store = Store.open(sys.argv[1], Path(sys.argv[2]))
number = 0
while True:
    store.events.add("1.100", "ANNOTATION_CREATED", {"annotation": {"id": number}})
    print(number, flush=True)
    number += 1
"""


def test_every_event_that_was_acknowledged_survives_kill_9(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'ralis.db'}"
    command = [sys.executable, "-c", KILLED, url, str(tmp_path / "blobs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout if line.strip()]
    store = Store.open(url, tmp_path / "blobs")
    project = store.projects.register("1.100", 1, "<View/>", LABELS, "")
    stored = [
        unpack(event.payload)["annotation"]["id"] for event in store.events.unread(project, 10_000)
    ]
    assert stored[: len(acknowledged)] == acknowledged
    store.close()
