from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

from ralis_backend.online.store import Store, now
from ralis_backend.online.worker.lease import is_dead, leased, own_name
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


def test_a_lease_outlives_its_seconds_for_as_long_as_the_step_runs(store: Store):
    project_id = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool").id
    with leased(store, project_id, "alive", 0.4) as lease:
        assert lease is not None
        time.sleep(1.0)
        assert not store.projects.acquire_lease(project_id, "another", 60)
        assert not lease.is_lost
    assert store.projects.acquire_lease(project_id, "another", 60)


def test_a_step_learns_that_another_worker_has_taken_over(store: Store):
    project_id = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool").id
    with leased(store, project_id, "slow", 0.4) as lease:
        assert lease is not None
        later = now() + timedelta(minutes=1)
        store.projects.change(project_id, lease_owner="another", lease_until=later)
        for _ in range(100):
            if lease.is_lost:
                break
            time.sleep(0.05)
        assert lease.is_lost
    assert store.projects.get("1.100").lease_owner == "another"


def test_only_a_process_of_this_machine_that_ended_is_dead():
    assert not is_dead(own_name())
    assert not is_dead(None)
    assert not is_dead("another-machine/1/abc")
    assert not is_dead(f"{socket.gethostname()}/no-number/abc")
