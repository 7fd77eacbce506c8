from __future__ import annotations

import socket
import subprocess
import sys
import threading

from ralis_backend.online.store import Store
from tests.online.conftest import MakeWorker
from tests.online.fake_tool import CLASSES, FakeTool


def test_two_workers_do_not_advance_the_same_project(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    project_id = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool").id
    assert store.projects.acquire_lease(project_id, "another", 60)
    assert not make_worker().advance_all()
    store.projects.release_lease(project_id, "another")
    assert make_worker().advance_all()


def test_a_lease_whose_owner_died_is_taken_over(store: Store):
    project_id = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool").id
    assert store.projects.acquire_lease(project_id, "dead", -1)
    assert store.projects.acquire_lease(project_id, "alive", 60)
    assert not store.projects.acquire_lease(project_id, "dead", 60)


def test_the_lease_of_a_worker_that_was_killed_here_is_free_at_once(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    dead = f"{socket.gethostname()}/{ended.pid}/abc"
    assert store.projects.acquire_lease(store.projects.all()[0].id, dead, 1000)
    stop = threading.Event()
    stop.set()
    worker.run(stop)
    assert store.projects.all()[0].lease_owner is None
