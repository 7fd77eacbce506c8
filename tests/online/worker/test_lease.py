from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from ralis_backend.online import owner
from ralis_backend.online.owner import is_dead, own_name
from ralis_backend.online.store import Store
from ralis_backend.online.store.attempts import STEP
from ralis_backend.online.store.leases import LeaseLost
from ralis_backend.online.store.tables import Project
from ralis_backend.online.worker import standing
from ralis_backend.online.worker.lease import Fence, Leaser
from ralis_backend.online.worker.sync import Sync
from tests.online.conftest import MakeWorker
from tests.online.fake_tool import CLASSES, FakeTool


@pytest.fixture
def project_id(store: Store) -> int:
    return store.projects.register("1.100", 1, "<View/>", CLASSES, "pool").id


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What this process' monotonic clock says to those who watch leases."""
    moment = [1000.0]
    monkeypatch.setattr(standing.time, "monotonic", lambda: moment[0])
    return moment


def leaser(store: Store, name: str, seconds: float = 60.0, stall_s: float = 600.0) -> Leaser:
    return Leaser(store, name, seconds, stall_s, lambda: None)


def take(store: Store, project_id: int, name: str) -> int:
    generation = store.leases.take(project_id, name, store.leases.state(project_id))
    assert generation is not None
    return generation


def test_two_workers_do_not_advance_the_same_project(
    store: Store, tool: FakeTool, make_worker: MakeWorker, project_id: int
):
    generation = take(store, project_id, "another")
    worker = make_worker()
    assert not worker.advance_all()
    store.leases.release(project_id, "another", generation)
    assert worker.advance_all()


def test_a_step_whose_lease_was_taken_has_not_ended_the_worker(
    store: Store, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker()
    project_id = store.projects.all()[0].id
    real = Sync.full

    def overtaken(sync: Sync, project: Project) -> None:
        take(store, project_id, "another")
        store.attempts.begin(project_id, STEP, "sync")
        real(sync, project)

    monkeypatch.setattr(Sync, "full", overtaken)
    assert not worker.advance_all()
    assert store.leases.state(project_id).owner == "another"
    assert store.attempts.count(project_id, STEP, "sync") == 1, "that of the other"


def test_a_lease_is_taken_over_when_its_heartbeat_was_seen_to_stand_still(
    store: Store, project_id: int, clock: list[float]
):
    generation = take(store, project_id, "slow")
    contender = leaser(store, "contender")
    for _ in range(3):  # alive: each look finds another heartbeat
        with contender.leased(project_id) as lease:
            assert lease is None
        clock[0] += 59
        assert store.leases.beat(project_id, "slow", generation)
    with contender.leased(project_id) as lease:
        assert lease is None
    clock[0] += 60
    with contender.leased(project_id) as lease:
        assert lease is not None
        assert not store.leases.beat(project_id, "slow", generation)
        assert store.projects.by_id(project_id).is_sync_requested


@pytest.mark.parametrize("jump_s", [-1e6, 1e6])
def test_no_wall_clock_steals_or_frees_a_lease(
    store: Store, project_id: int, monkeypatch: pytest.MonkeyPatch, jump_s: float
):
    take(store, project_id, "alive")
    contender = leaser(store, "contender")
    real = time.time
    with contender.leased(project_id) as lease:
        assert lease is None
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    with contender.leased(project_id) as lease:
        assert lease is None


def test_of_two_that_take_over_one_gets_it(store: Store, project_id: int):
    take(store, project_id, "dead")
    seen = store.leases.state(project_id)
    assert store.leases.take(project_id, "first", seen) == seen.generation + 1
    assert store.leases.take(project_id, "second", seen) is None


def test_a_heartbeat_between_look_and_taking_over_keeps_the_lease(store: Store, project_id: int):
    generation = take(store, project_id, "slow")
    seen = store.leases.state(project_id)
    assert store.leases.beat(project_id, "slow", generation)
    assert store.leases.take(project_id, "contender", seen) is None


def test_the_lease_of_a_worker_that_was_killed_here_is_free_at_once(
    store: Store, tool: FakeTool, make_worker: MakeWorker, project_id: int
):
    code = f"import runpy; print(runpy.run_path({owner.__file__!r})['own_name']())"  # no torch
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    take(store, project_id, ended.stdout.strip())
    assert make_worker().advance_all()


def test_a_lease_outlives_its_seconds_for_as_long_as_the_step_runs(store: Store, project_id: int):
    contender = leaser(store, "another", 0.4)
    with leaser(store, "alive", 0.4).leased(project_id) as lease:
        assert lease is not None
        for _ in range(10):
            time.sleep(0.1)
            with contender.leased(project_id) as other:
                assert other is None
        assert not lease.is_lost
    with contender.leased(project_id) as other:
        assert other is not None


def test_a_step_learns_that_another_worker_has_taken_over(store: Store, project_id: int):
    with leaser(store, "slow", 0.4).leased(project_id) as lease:
        assert lease is not None
        take(store, project_id, "another")
        for _ in range(100):
            if lease.is_lost:
                break
            time.sleep(0.05)
        assert lease.is_lost
    assert store.projects.get("1.100").lease_owner == "another"


def test_nothing_is_written_under_a_lease_that_is_lost(store: Store, project_id: int):
    fence = Fence(store)
    held = store.guarded(fence.guard)
    with leaser(store, "slow").leased(project_id) as lease:
        assert lease is not None
        with fence.around(lease):
            held.projects.change(project_id, title="mine")
            take(store, project_id, "another")
            with pytest.raises(LeaseLost, match="another worker has taken over"):
                held.projects.change(project_id, title="late")
            with pytest.raises(LeaseLost):
                fence.watch(is_change=True)
            fence.watch(is_change=False)
            assert held.projects.by_id(project_id).title == "mine"
            assert lease.is_lost


def test_a_step_without_a_lease_writes_nothing(store: Store, project_id: int):
    held = store.guarded(Fence(store).guard)
    with pytest.raises(LeaseLost, match="without a lease"):
        held.projects.change(project_id, title="late")


def test_a_step_that_does_not_move_loses_its_heartbeat_and_is_reported_once(
    store: Store, project_id: int
):
    stalled = threading.Event()
    slow = Leaser(store, "slow", 0.4, 0.2, stalled.set)
    with slow.leased(project_id) as lease:
        assert lease is not None
        for _ in range(10):
            lease.move()
            time.sleep(0.05)
        assert not stalled.is_set()
        assert stalled.wait(5)
        beaten = store.leases.state(project_id).heartbeat
        time.sleep(0.3)
        assert store.leases.state(project_id).heartbeat == beaten


def test_only_a_process_of_this_boot_and_namespace_that_ended_is_dead():
    mine = own_name()
    machine, pid, started, nonce = mine.split("/")
    assert len(mine) <= 64
    assert mine != own_name()
    assert not is_dead(mine)
    assert is_dead(f"{machine}/{pid}/{int(started) + 1}/{nonce}")  # the pid is another process' now
    assert not is_dead(f"0123456789abcdef/{pid}/{int(started) + 1}/{nonce}")
    assert not is_dead(f"{machine}/no-number/1/abc")
    assert not is_dead(f"/{pid}/1/abc")
    for name in (None, "", "host/1/abc", "a/b/c/d/e"):
        assert not is_dead(name)


def test_another_container_with_the_same_host_name_is_not_dead(monkeypatch: pytest.MonkeyPatch):
    theirs = own_name().split("/")
    theirs[1] = "999999999"  # a process that is not seen from here
    assert is_dead("/".join(theirs))
    monkeypatch.setattr(owner, "_machine", lambda: "another namespace")
    assert not is_dead("/".join(theirs))


def test_where_the_kernel_does_not_tell_nobody_is_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
):
    name = own_name()
    monkeypatch.setattr(owner, "_PROC", tmp_path_factory.mktemp("no-proc"))
    assert not is_dead(name)
    assert not is_dead(own_name())


def test_a_zombie_is_dead():
    pid = os.fork()
    if pid == 0:
        time.sleep(0.1)
        os._exit(0)
    try:
        machine, _, _, nonce = own_name().split("/")
        name = f"{machine}/{pid}/{owner._started(pid)}/{nonce}"
        assert not is_dead(name)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(name)
    finally:
        os.waitpid(pid, 0)


def test_a_database_that_fails_for_a_moment_does_not_lose_the_lease(
    store: Store, project_id: int, monkeypatch: pytest.MonkeyPatch
):
    failed = threading.Event()
    real = store.leases.beat

    def beat(*values: object) -> bool:
        if not failed.is_set():
            failed.set()
            raise OSError("disk full")
        return real(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(store.leases, "beat", beat)
    with leaser(store, "alive", 0.2).leased(project_id) as lease:
        assert lease is not None
        assert failed.wait(5)
        time.sleep(0.2)
        assert not lease.is_lost
