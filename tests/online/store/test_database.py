from __future__ import annotations

import errno
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, delete, event, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ralis_backend.core.intensity import PixelRule
from ralis_backend.core.regions import Region
from ralis_backend.core.unavailable import UnavailableError
from ralis_backend.online.labels import NewLabel, RegionLabel
from ralis_backend.online.pictures import pixel_rule
from ralis_backend.online.store import Store, database, now
from ralis_backend.online.store.database import Database
from ralis_backend.online.store.tables import Annotation, Base, Label
from ralis_backend.online.tool import ImageUnreachable, ToolTask
from ralis_backend.online.worker import Worker
from tests.online.conftest import settle
from tests.online.fake_tool import CLASSES, START, FakeTool
from tests.online.store.conftest import annotation

PAINTED = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))


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


def test_a_database_that_is_up_to_date_opens_while_somebody_writes(store: Store, tmp_path: Path):
    with store.database.write() as session:
        session.execute(delete(Label))
        again = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
        assert again.projects.all() == []
    again.close()


def test_a_database_of_a_newer_release_is_refused(store: Store, tmp_path: Path):
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        ValueError, match=r"ralis.db was made by a newer release .* '9999'.*Install"
    ):
        Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")


def test_a_database_of_two_revisions_is_refused(store: Store, tmp_path: Path):
    with store.database.engine.begin() as connection:
        connection.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    with pytest.raises(
        ValueError, match=r"ralis.db names 2 revisions .*\(0001, .*expected one row"
    ):
        Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")


def test_a_file_that_is_no_database_is_named(tmp_path: Path):
    (tmp_path / "ralis.db").write_bytes(b"no database " * 99)
    with pytest.raises(ValueError, match=r"ralis.db cannot be used: file is not a database"):
        Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")


def test_a_database_that_cannot_be_reached_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none/ralis.db cannot be used: unable to open database"):
        Store.open(f"sqlite:///{tmp_path / 'none' / 'ralis.db'}", tmp_path / "blobs")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((number, UnavailableError) for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE)),
        (errno.EACCES, ValueError),
    ],
)
def test_a_database_that_cannot_be_opened_may_be_later_where_files_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[ValueError]
):
    def refuse(**_options: object) -> None:
        raise OSError(number, "no file")

    monkeypatch.setattr(database, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match="unable to open database") as refused:
        Database.open(f"sqlite:///{tmp_path / 'none' / 'ralis.db'}")
    assert type(refused.value) is kind


def test_a_full_disk_is_told_in_one_line_and_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    configure = database._configure_sqlite

    def with_four_pages(engine: Engine) -> None:
        configure(engine)

        @event.listens_for(engine, "connect")
        def _limit(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA max_page_count = 4")

    monkeypatch.setattr(database, "_configure_sqlite", with_four_pages)
    with pytest.raises(UnavailableError, match=r"ralis.db cannot be used: .* is full\. [^\n]*$"):
        Database.open(f"sqlite:///{tmp_path / 'ralis.db'}")


def go_back_to(store: Store, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with store.database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_labels_from_before_times_of_their_own_are_as_old_as_their_annotation_if_that_was_read(
    store: Store, tmp_path: Path
):
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "streets")
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/1.png")])
    (image,) = store.images.of(project.id)
    for number, seconds in ((1, 0), (2, 10)):
        row = store.annotations.put(project, "1.100", annotation(number, seconds), image, None)
        store.labels.put(row, [PAINTED], {})
    store.annotations.put(project, "1.100", annotation(2, 20, results=[{"id": "y"}]), image, None)
    go_back_to(store, "0017")
    opened = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    with opened.database.read() as session:
        rows = session.execute(text("SELECT is_repainted, is_start_lost FROM annotations"))
        assert [tuple(row) for row in rows] == [(0, 0), (1, 0)]
        times = session.scalars(select(Label.painted_at).order_by(Label.id)).all()
    assert times == [annotation(1, 0).updated_at, annotation(2, 20).updated_at]
    opened.close()


def test_starts_that_nobody_had_looked_at_are_lost_but_where_boxes_were_shown(
    store: Store, tmp_path: Path
):
    boxes = (
        '<View><RectangleLabels name="region" toName="image"><Label value="Look here"/>'
        "</RectangleLabels></View>"
    )
    for number, config in ((1, "<View/>"), (2, boxes)):
        project = store.projects.register(f"{number}.100", number, config, CLASSES, "streets")
        for count in (1, 2):
            store.annotations.put(project, project.uid, annotation(count), None, None)
    go_back_to(store, "0020")
    with store.database.engine.begin() as connection:
        statement = "UPDATE annotations SET is_start_lost = NULL WHERE annotation_id = 2"
        connection.exec_driver_sql(statement)
    opened = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    with opened.database.read() as session:
        lost = session.scalars(select(Annotation.is_start_lost).order_by(Annotation.id)).all()
    opened.close()
    assert lost == [False, True, False, False]


def test_annotations_from_before_starts_were_kept_began_from_what_was_handed_out_by_then(
    store: Store, tmp_path: Path
):
    first, second = ({"row": 0, "col": col, "height": 8, "width": 8} for col in (0, 8))
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "streets")
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/1.png")])
    (image,) = store.images.of(project.id)
    for number, version in ((1, "v3"), (2, "v4"), (3, None), (4, None), (5, "v9")):
        begun = annotation(number, suggested_version=version)
        store.annotations.put(project, "1.100", begun, image, None)
    store.annotations.put(project, "1.100", annotation(6, suggested_version="v3"), None, None)
    go_back_to(store, "0020")
    store.queue.hand_out(image.id, 3, [first])
    store.queue.hand_out(image.id, 4, [second, {**first, "is_taken_back": True}])
    with store.database.engine.begin() as connection:
        lost = "UPDATE annotations SET is_start_lost = 1 WHERE annotation_id = 4"
        connection.exec_driver_sql(lost)
    opened = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    query = select(Annotation.begun_from, Annotation.is_start_lost).order_by(Annotation.id)
    with opened.database.read() as session:
        starts = [tuple(row) for row in session.execute(query)]
    opened.close()
    left, right = [0, 0, 8, 8], [0, 8, 8, 8]
    assert starts == [
        ([left], False),
        ([right, left], True),
        ([], False),
        ([left, right], True),
        ([], False),
        (None, False),
    ]


def test_a_database_from_before_answers_gets_those_that_were_ticked_and_no_new_label(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], tmp_path: Path
):
    worker = make_worker()
    settle(worker)
    first, second = tool.queue()[:2]
    ticked = {"mask": tool.truth(first).tolist(), "type": "choices", "useful": True}
    tool.annotate(first, [ticked])
    tool.annotate(second)
    (project,) = store.projects.all()
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    labels, answers = store.labels.every(project.id), store.answers.of(project.id)
    assert (len(labels), len(answers)) == (2, 1)
    go_back_to(store, "0001")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    assert store.answers.of(project.id) == []
    assert store.labels.every(project.id) == labels
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.answers.of(project.id) == answers
    assert store.labels.every(project.id) == labels


def test_a_database_from_before_leases_counted_keeps_all_and_tries_lost_projects_again(
    store: Store, tmp_path: Path
):
    for number in (1, 2, 3):
        store.projects.register(f"{number}.100", number, "<View/>", CLASSES, "pool")
    alive, lost, forgotten = store.projects.all()
    store.images.reconcile(alive.id, FakeTool().pool_tasks)
    store.projects.change(alive.id, synced_at=START, lease_owner="host/7/abc", num_failures=2)
    store.projects.change(lost.id, is_deleted=True, last_error="project 2 does not exist")
    store.projects.change(forgotten.id, is_deleted=True)
    images = [(image.id, image.ref) for image in store.images.of(alive.id)]
    go_back_to(store, "0002")
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE projects SET is_sync_requested = 0")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    assert [project.uid for project in store.projects.all()] == ["1.100", "2.100"]
    assert store.projects.get("2.100").is_sync_requested
    after = store.projects.get("1.100")
    assert (after.synced_at, after.lease_owner, after.num_failures) == (START, None, 2)
    assert after.num_labelled_regions is None
    assert [(image.id, image.ref) for image in store.images.of(alive.id)] == images


def test_labels_that_a_database_from_before_has_lost_are_read_once_more(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], tmp_path: Path
):
    worker = make_worker()
    settle(worker)
    first, second, third = tool.queue()[:3]
    tool.annotate(first)
    tool.annotate(second)
    tool.annotate(third, [], is_skipped=True)
    (project,) = store.projects.all()
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    labels = store.labels.every(project.id)
    assert len(labels) == 3
    with store.database.write() as session:
        session.execute(delete(Label).where(Label.id == labels[0].id))
    go_back_to(store, "0002")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    lost = store.annotations.failed(project.id)
    assert [row.id for row in lost] == [labels[0].annotation_row_id]
    tool.num_read = 0
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    assert store.annotations.failed(project.id) == []
    assert tool.num_read == 3  # what was stored before is compared with the tool once
    restored = store.labels.every(project.id)
    assert sorted(map(_content, restored)) == sorted(map(_content, labels))
    assert {it.id for it in restored} > {it.id for it in labels[1:]}


def _content(label: RegionLabel) -> tuple[object, ...]:
    return label.image_id, label.region.row, label.region.col, str(label.mask_key), label.pixels


def test_an_error_shows_none_of_the_values_that_were_written(tmp_path):
    opened = database.Database.open(f"sqlite:///{tmp_path / 'ralis.db'}")
    with pytest.raises(SQLAlchemyError) as refused, opened.write() as session:
        session.execute(text("insert into nowhere values (:who)"), {"who": "ann@labels.test"})
    opened.close()
    assert "nowhere" in str(refused.value)
    assert "ann@labels.test" not in str(refused.value)


def test_a_database_that_does_not_know_what_was_said_hears_it_again(store: Store, tmp_path: Path):
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.projects.change(project.id, said="a" * 64)
    go_back_to(store, "0011")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    assert store.projects.by_id(project.id).said is None


def test_a_database_does_not_know_how_older_releases_read_its_labels(store: Store, tmp_path: Path):
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.projects.read_as(project.id, 7)
    assert store.projects.by_id(project.id).read_as == 7
    go_back_to(store, "0013")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    assert store.projects.by_id(project.id).read_as == 0


def test_a_database_from_before_pauses_keeps_its_images(store: Store, tmp_path: Path):
    project = store.projects.register("1.100", 1, "<View/>", [], "pool")
    store.images.reconcile(project.id, FakeTool().pool_tasks)
    image = store.images.of(project.id)[0]
    store.images.seen(image.id, (3, 4))
    store.images.fail(store.images.of(project.id)[1].id, ValueError("truncated"))
    go_back_to(store, "0002")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    kept = store.images.of(project.id)
    assert [row.task_id for row in kept] == [1, 2, 3, 4, 5, 6]
    assert kept[0].size == (3, 4)
    assert kept[1].error == "truncated"
    assert all(row.num_failures == 0 for row in kept)
    assert [row.id for row in store.images.to_try_again(project.id, now(), 9)] == [kept[1].id]


@pytest.mark.parametrize("has_column", [False, True])
def test_a_database_that_knows_or_does_not_know_since_when_images_are_out_of_reach_opens(
    store: Store, tmp_path: Path, has_column: bool
):
    project = store.projects.register("1.100", 1, "<View/>", [], "pool")
    store.images.reconcile(project.id, FakeTool().pool_tasks)
    first, second, *_ = store.images.of(project.id)
    store.images.fail(second.id, ImageUnreachable("503"))
    go_back_to(store, "0021")
    if has_column:
        with store.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE images ADD unreachable_since DATETIME")
            connection.exec_driver_sql("UPDATE images SET unreachable_since = '2026-01-01'")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    assert store.images.get(first.id).unreachable_since is None, "it can be read"
    assert (store.images.get(second.id).unreachable_since is not None) is has_column


def test_trained_projects_from_before_go_on_showing_their_pictures_as_they_did(
    store: Store, tmp_path: Path
):
    trained = store.projects.register("1.100", 1, "<View/>", CLASSES, "trained")
    store.projects.change(trained.id, current_version=2)
    store.projects.register("2.100", 2, "<View/>", CLASSES, "new")
    go_back_to(store, "0005")
    store.close()
    opened = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    rules = {project.title: pixel_rule(project) for project in opened.projects.all()}
    opened.close()
    assert rules["trained"].ranges == {"integers": (0, 65535), "floats": (0, 1)}
    assert rules["new"] == PixelRule()


def test_of_a_database_from_before_meanings_only_what_may_be_wrong_is_read_again(
    store: Store, tmp_path: Path
):
    uids = ["as usual", "chosen", "one label"]
    classes = {"one label": CLASSES[:1]}
    for number, uid in enumerate(uids, start=1):
        choice = "dark" if uid == "chosen" else None
        project = store.projects.register(
            uid, number, "<View/>", classes.get(uid, CLASSES), "", None, choice
        )
        store.images.reconcile(project.id, [ToolTask(1, START, "/data/1.png")])
        image = store.images.of(project.id)[0]
        for left_out, source in (
            ((), annotation(1)),
            (["a label that is none"], annotation(2)),
            ((), annotation(3, is_skipped=True)),
        ):
            row = store.annotations.put(project, uid, source, image, None)
            assert row is not None
            store.labels.put(row, [PAINTED], {}, left_out)
    replaced = annotation(1, created_at=START + timedelta(days=1))
    project = store.projects.get("as usual")
    row = store.annotations.put(project, "as usual", replaced, store.images.of(project.id)[0], None)
    assert row is not None
    store.labels.put(row, [PAINTED], {})
    go_back_to(store, "0011")
    store.close()
    opened = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    waiting = {
        uid: [it.annotation_id for it in opened.annotations.waiting(opened.projects.get(uid).id)]
        for uid in uids
    }
    counts = [opened.annotations.count(uid) for uid in uids]
    kept = [len(opened.labels.every(opened.projects.get(uid).id)) for uid in uids]
    opened.close()
    assert waiting == {"as usual": [2], "chosen": [1, 2], "one label": [2]}
    assert counts == [3, 3, 3], "the annotation whose number another one has is gone"
    assert kept == [3, 3, 3], "labels count until they are read"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "postgresql://user:secret@db/ralis",
            r"reached with psycopg, .* install 'psycopg\[binary\]",
        ),
        ("unheard-of://user:secret@db/ralis", "no address of a PostgreSQL or SQLite database"),
        ("mysql://user:secret@db/ralis", "no address of a PostgreSQL or SQLite database"),
        ("user:secret@db", "no address of a PostgreSQL or SQLite database"),
        ("postgresql://user:hunter@secret:three@127.0.0.1/ralis", "password @ : / are written %40"),
        ("sqlite://user:hunter@1:2/secret@127.0.0.1/ralis", "password @ : / are written %40"),
        ("sqlite:///ralis.db?timeout=secret", "an option that cannot be used"),
    ],
)
def test_a_database_for_which_something_is_missing_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, url: str, message: str
):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=message) as refused:
        Database.open(url)
    assert "secret" not in str(refused.value)


def test_where_a_database_is_that_fails_is_said_without_user_password_and_options(tmp_path: Path):
    place = tmp_path / "none" / "ralis.db"
    with pytest.raises(ValueError, match=r"database sqlite:///.*/none/ralis.db cannot") as refused:
        Database.open(f"sqlite:///file:{place}?uri=true&mode=ro&password=secret")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "reason", "advice"),
    [
        (sqlite3.DatabaseError, "SQLITE_CORRUPT_VTAB", "put a backup in its place"),
        (sqlite3.OperationalError, "SQLITE_IOERR_WRITE", "disk may be full"),
        (sqlite3.OperationalError, "SQLITE_FULL", "disk may be full"),
        (sqlite3.OperationalError, "SQLITE_BUSY", "Another program"),
        (sqlite3.OperationalError, "SQLITE_CANTOPEN", "needs the right to write it"),
        (sqlite3.OperationalError, "SQLITE_READONLY_DIRECTORY", "needs the right to write it"),
        (sqlite3.OperationalError, "", "Expected a database of this program"),
    ],
)
def test_the_advice_fits_what_a_database_refuses(
    kind: type[sqlite3.Error], reason: str, advice: str
):
    error = kind("no")
    error.sqlite_errorname = reason
    raised = DBAPIError.instance("SELECT 'secret'", None, error, sqlite3.Error)
    assert isinstance(raised, DBAPIError)
    assert database.is_refusal(raised)
    refused = database.refusal(raised)
    lasts = reason.startswith(("SQLITE_CORRUPT", "SQLITE_READONLY"))
    assert isinstance(refused, UnavailableError) != lasts
    said = str(refused)
    assert advice in said
    assert "secret" not in said
    assert ("backup" in said) == reason.startswith("SQLITE_CORRUPT")


def test_a_fault_of_the_program_is_no_refusal_of_the_database():
    for kind in (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raised = DBAPIError.instance("", None, kind("no"), sqlite3.Error)
        assert isinstance(raised, DBAPIError)
        assert not database.is_refusal(raised)


def test_a_database_that_is_locked_may_answer_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "_configure_sqlite", lambda _engine: None)  # waits 30 s
    path = tmp_path / "ralis.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="database is locked"):
            Database.open(f"sqlite:///{path}?timeout=0")
    with pytest.raises(ValueError, match="unable to open") as refused:
        Database.open(f"sqlite:///{tmp_path / 'none' / 'ralis.db'}")
    assert not isinstance(refused.value, UnavailableError)
