from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ralis_backend.online.store import Store, database
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


def test_an_error_shows_none_of_the_values_that_were_written(tmp_path):
    opened = database.Database.open(f"sqlite:///{tmp_path / 'ralis.db'}")
    with pytest.raises(SQLAlchemyError) as refused, opened.write() as session:
        session.execute(text("insert into nowhere values (:who)"), {"who": "ann@labels.test"})
    opened.close()
    assert "nowhere" in str(refused.value)
    assert "ann@labels.test" not in str(refused.value)
