from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from ralis_backend.online.store import Store, database, now
from ralis_backend.online.store.tables import Base
from ralis_backend.online.worker import Worker
from tests.online.conftest import settle
from tests.online.fake_tool import FakeTool


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


def go_back_to(store: Store, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with store.database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


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


def test_a_database_from_before_pauses_keeps_its_images(store: Store, tmp_path: Path):
    project = store.projects.register("1.100", 1, "<View/>", [], "pool")
    store.images.reconcile(project.id, FakeTool().pool_tasks)
    image = store.images.of(project.id)[0]
    store.images.seen(image.id, (3, 4))
    store.images.fail(store.images.of(project.id)[1].id, "truncated")
    go_back_to(store, "0002")
    Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs").close()
    kept = store.images.of(project.id)
    assert [row.task_id for row in kept] == [1, 2, 3, 4, 5, 6]
    assert kept[0].size == (3, 4)
    assert kept[1].error == "truncated"
    assert all(row.num_failures == 0 for row in kept)
    assert [row.id for row in store.images.to_try_again(project.id, now(), 9)] == [kept[1].id]
