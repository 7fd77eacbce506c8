import signal
import sys
import threading
import time

import pytest

from ralis_backend.cli.errors import CANNOT_START
from ralis_backend.cli.supervisor import Child, Supervisor, stopping_on_signals
from tests.cli.process import wait_for


def test_a_child_that_keeps_dying_is_restarted_with_growing_pauses(caplog):
    stop = threading.Event()
    child = Child("crash", (sys.executable, "-c", "raise SystemExit(3)"))
    runner = threading.Thread(target=Supervisor([child]).run, args=(stop,))
    with caplog.at_level("INFO"):
        runner.start()
        wait_for(lambda: caplog.text.count("crash ended with code 3") == 2, 20)
        stop.set()
        runner.join(10)
    pauses = [record.args[2] for record in caplog.records if "ended" in record.message]
    assert pauses == [1.0, 2.0]


def test_a_child_that_ignores_the_signal_is_killed():
    stop = threading.Event()
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = Child("deaf", (sys.executable, "-c", code))
    runner = threading.Thread(target=Supervisor([child], stop_s=0.5).run, args=(stop,))
    runner.start()
    wait_for(lambda: child.process is not None)
    time.sleep(0.5)
    stop.set()
    runner.join(10)
    assert not runner.is_alive()


def test_a_child_keeps_its_memory_unless_the_operator_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    names = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX")
    code = f"import os; print([os.environ[name] for name in {names}], file=open('seen', 'w'))"
    monkeypatch.chdir(tmp_path)
    stop = threading.Event()
    runner = threading.Thread(
        target=Supervisor([Child("printer", (sys.executable, "-c", code))]).run, args=(stop,)
    )
    runner.start()
    seen = tmp_path / "seen"
    wait_for(lambda: seen.exists() and seen.read_text().endswith("\n"))
    stop.set()
    runner.join(10)
    assert seen.read_text() == "['0', '1073741824', '3']\n"


def test_signals_stop_what_is_within_the_block_alone():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stopping_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_child_that_no_restart_can_mend_ends_all_of_them():
    other = Child("other", (sys.executable, "-c", "import time; time.sleep(60)"))
    broken = Child("broken", (sys.executable, "-c", f"raise SystemExit({CANNOT_START})"))
    with pytest.raises(ValueError, match="broken cannot start, see its message above"):
        Supervisor([other, broken]).run(threading.Event())
    assert other.process is None
