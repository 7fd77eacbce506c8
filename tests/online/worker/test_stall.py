from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.online.worker.stall import STALLED
from ralis_backend.online.worker.steps import Step
from tests.online.conftest import RANKING, TINY
from tests.online.fake_tool import CLASSES, FakeTool


def test_a_step_that_makes_no_progress_is_noted_and_ends_its_process(store: Store, tool: FakeTool):
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    ended = threading.Event()
    said: list[str] = []
    noted: list[str | None] = []

    def end_process(message: str) -> None:
        said.append(message)
        noted.append(store.projects.by_id(project.id).last_error)
        ended.set()

    config = WorkerConfig(ranking=RANKING, finetune=TINY, lease_s=0.4, stall_s=0.2)
    worker = Worker(store, tool, config, end_process)
    hang = Step("hang", lambda state, config: True, lambda *_: ended.wait(10))
    worker._steps = (hang,)
    worker.advance_all()
    assert said == ["hang of project 1 made no progress for 0 s"]
    (note,) = noted
    assert note is not None
    assert note.endswith("while all else goes on: it made no progress for 0 s")
    resting = store.projects.by_id(project.id)
    assert (resting.num_failures, resting.retry_at) == (0, None), "the other steps go on"


HANGING = """
import re, sys, time
from pathlib import Path
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.online.worker.steps import Step
from tests.online.fake_tool import CLASSES, FakeTool

folder, hang = Path(sys.argv[1]), sys.argv[2]
store = Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")
store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
worker = Worker(store, FakeTool(), WorkerConfig(lease_s=1.0, stall_s=1.0))

def run(*_):
    if hang == "native":
        re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter: no thread runs
    time.sleep(1000)

worker._steps = (Step("hang", lambda *_: True, run),)
worker.advance_all()
"""


@pytest.mark.e2e
@pytest.mark.parametrize(("hang", "code"), [("sleep", STALLED), ("native", 1)])
def test_a_worker_that_hangs_ends_says_where_and_its_successor_begins_at_once(
    tmp_path: Path, hang: str, code: int
):
    command = [sys.executable, "-c", textwrap.dedent(HANGING), str(tmp_path), hang]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert 'File "<string>", line' in done.stderr  # where it hung
    store = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    (project,) = store.projects.all()
    assert project.lease_owner is not None
    if hang == "sleep":
        assert project.last_error is not None
        assert project.last_error.endswith("it made no progress for 1 s")
    store.projects.begin_again()
    assert Worker(store, FakeTool(), WorkerConfig()).advance_all()
    assert store.projects.all()[0].lease_generation == project.lease_generation + 1
    store.close()
