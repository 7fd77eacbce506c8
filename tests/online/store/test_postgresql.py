"""The store in PostgreSQL, a real server: what SQLite gives by itself has to be asked for there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from ralis_backend.core.unavailable import UnavailableError
from ralis_backend.online.store import Store, database
from ralis_backend.online.store.database import Database, refusal
from ralis_backend.online.store.tables import Base, Project
from ralis_backend.online.worker import Worker, WorkerConfig
from tests.online.conftest import RANKING, TINY, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.store.postgresql import Server, programs, server
from tests.real_parts import missing

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    folder = programs()
    if folder is None:
        missing("PostgreSQL is not installed; on Debian: apt-get install postgresql")
        return
    with server(folder) as found:
        yield found


@pytest.fixture
def opened(running: Server) -> Iterator[Database]:
    with closing(Database.open(running.new_database())) as found:
        yield found


def test_who_opens_it_at_once_makes_the_tables_that_the_code_uses(running: Server):
    address = running.new_database()
    with ThreadPoolExecutor(4) as threads:
        for each in threads.map(Database.open, [address] * 4):
            each.close()
    with closing(Database.open(address)) as found, found.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize("usual", ["read committed", "serializable"])
def test_transactions_that_write_come_one_after_the_other(opened: Database, usual: str):
    name = opened.engine.url.database
    with opened.engine.begin() as connection:
        rule = f"ALTER DATABASE {name} SET default_transaction_isolation = '{usual}'"
        connection.exec_driver_sql(rule)
    opened.engine.dispose()
    project_id = add_project(opened)

    def count_up(_: int) -> None:
        with opened.write() as session:
            project = session.get_one(Project, project_id)
            project.num_losses += 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count_up, range(40)))
    with opened.read() as session:
        assert session.get_one(Project, project_id).num_losses == 40


def test_a_transaction_that_reads_sees_one_state(opened: Database):
    project_id = add_project(opened)
    with opened.read() as session:
        before = session.get_one(Project, project_id).title
        with opened.write() as other:
            other.get_one(Project, project_id).title = "changed"
        session.expire_all()
        assert session.get_one(Project, project_id).title == before
    with opened.read() as session:
        assert session.get_one(Project, project_id).title == "changed"


def test_who_waits_too_long_for_another_may_try_again(
    opened: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "_BUSY_S", 1)
    query = select(Project.id)
    with opened.write() as session:
        session.scalar(query)
        with pytest.raises(database.StoreError) as refused, opened.write() as other:
            other.scalar(query)
    assert database.is_refusal(refused.value)
    assert isinstance(refusal(refused.value), UnavailableError)
    with opened.write() as session:
        assert session.scalar(query) is None


def test_who_falls_silent_while_it_writes_holds_nobody_up(
    opened: Database, monkeypatch: pytest.MonkeyPatch
):
    project_id = add_project(opened)
    monkeypatch.setattr(database, "_SILENT_S", 1)
    silent = opened.write()
    session = silent.__enter__()
    session.get_one(Project, project_id).title = "never said"
    session.flush()
    with opened.write() as other:
        other.get_one(Project, project_id).num_losses = 1
    with pytest.raises(database.StoreError) as refused:
        silent.__exit__(None, None, None)
    assert isinstance(refusal(refused.value), UnavailableError)
    with opened.read() as session:
        project = session.get_one(Project, project_id)
        assert (project.title, project.num_losses) == ("as it was", 1)


def test_the_loop_comes_to_the_same_as_with_a_file(running: Server, tmp_path: Path):
    reached = []
    for url in (f"sqlite:///{tmp_path / 'ralis.db'}", running.new_database()):
        with closing(Store.open(url, tmp_path / "blobs")) as store:
            tool = FakeTool(num_images=2)
            worker = Worker(store, tool, WorkerConfig(ranking=RANKING, finetune=TINY))
            store.projects.register(
                tool.pool.uid, tool.pool.id, tool.pool.label_config, CLASSES, "pool"
            )
            settle(worker)
            label_round(store, tool)
            settle(worker)
            (project,) = store.projects.all()
            labels = store.labels.of(project.id)
            found = {
                "labels": sorted((it.image_id, it.region, it.mask_key) for it in labels),
                "class pixels": [store.labels.class_pixels(project.id, it) for it in (0, 1)],
                "versions": [(it.number, it.num_labels) for it in store.versions.all(project.id)],
                "queue": sorted((it.image_id, it.region) for it in store.queue.open(project.id)),
                "error": project.last_error,
            }
            reached.append(found)
    assert reached[0] == reached[1]
    assert len(reached[1]["labels"]) == 4
    assert reached[1]["error"] is None


def add_project(found: Database) -> int:
    with found.write() as session:
        project = Project(uid="1.100", tool_id=1, title="as it was", classes=[], num_losses=0)
        session.add(project)
        session.flush()
        return project.id
