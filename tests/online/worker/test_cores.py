import subprocess
import sys
import time

import pytest
import torch

from ralis_backend.online.worker.cores import (
    CpuTime,
    FreeCores,
    read_clocks,
    taken_by_others,
    threads_beside,
    usable_cores,
)


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("others", "num_cores", "most", "threads"),
    [
        (0.0, 2, 2, 2),
        (0.2, 2, 2, 2),
        (0.5, 2, 2, 1),
        (1.0, 2, 2, 1),
        (2.0, 2, 2, 1),
        (5.0, 2, 2, 1),
        (3.9, 16, 16, 12),
        (3.9, 64, 4, 4),
    ],
)
def test_there_is_a_thread_for_each_core_that_the_others_leave_free(
    others, num_cores, most, threads
):
    assert threads_beside(others, num_cores, most) == threads


def test_what_this_process_takes_is_no_load_of_others():
    before = CpuTime(wall=10.0, machine=100.0, own=5.0)
    assert taken_by_others(before, CpuTime(14.0, 112.0, 13.0)) == 1.0
    assert taken_by_others(before, CpuTime(14.0, 108.0, 13.0)) == 0.0
    assert taken_by_others(before, CpuTime(14.0, 107.9, 13.0)) == 0.0  # clocks tick coarsely


def test_threads_follow_the_load_and_are_not_counted_at_each_step(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    readings = iter(
        [
            CpuTime(0.0, 0.0, 0.0),
            CpuTime(1.0, 9.0, 0.0),  # too soon to say anything
            CpuTime(2.0, 6.0, 0.0),  # three cores are taken
            CpuTime(4.0, 14.0, 8.0),  # none is
        ]
    )
    torch.set_num_threads(4)
    cores = FreeCores(most=4, read=lambda: next(readings))
    assert [cores.adapt() for _ in range(3)] == [4, 1, 4]
    assert torch.get_num_threads() == 4


@pytest.mark.e2e  # loads torch anew
def test_an_operators_number_of_threads_is_never_exceeded():
    code = (
        "from ralis_backend.online.worker.cores import FreeCores; import torch\n"
        "clocks = iter([(0, 0, 0), (9, 0, 0)])\n"
        "from ralis_backend.online.worker.cores import CpuTime\n"
        "FreeCores(read=lambda: CpuTime(*next(clocks, (18, 0, 0)))).adapt()\n"
        "print(torch.get_num_threads())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert ended.stdout.strip() == "1", ended.stderr


def test_the_clocks_count_this_process_and_the_machine():
    before = read_clocks()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    after = read_clocks()
    assert after.own - before.own >= 0.2
    assert after.machine - before.machine >= 0.1
    assert after.wall - before.wall >= 0.1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.max": "nonsense\n"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_bounds_the_threads(files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores
