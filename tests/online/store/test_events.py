from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ralis_backend.online.store import Store, unpack
from ralis_backend.online.store.tables import Project
from ralis_backend.online.worker import Worker
from tests.online.conftest import selects, settle
from tests.online.store.conftest import LABELS


def test_an_event_is_stored_as_it_came(store: Store, project: Project):
    store.events.add("1.100", "ANNOTATION_CREATED", {"annotation": {"id": 1, "text": "ü"}})
    (event,) = store.events.unread(project)
    assert unpack(event.payload) == {"annotation": {"id": 1, "text": "ü"}}
    store.events.drop(event.id)
    assert store.events.unread(project) == []


def test_whether_there_are_events_is_asked_without_reading_one(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = make_worker()
    settle(worker)
    with selects(store) as read:
        settle(worker)
    assert [it for it in read if "events.payload" in it] == []


KILLED = """
import sys
from ralis_backend.online.store import Store
from pathlib import Path
store = Store.open(sys.argv[1], Path(sys.argv[2]))
number = 0
while True:
    store.events.add("1.100", "ANNOTATION_CREATED", {"annotation": {"id": number}})
    print(number, flush=True)
    number += 1
"""


@pytest.mark.e2e
def test_every_event_that_was_acknowledged_survives_kill_9(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'ralis.db'}"
    command = [sys.executable, "-c", KILLED, url, str(tmp_path / "blobs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout if line.strip()]
    store = Store.open(url, tmp_path / "blobs")
    project = store.projects.register("1.100", 1, "<View/>", LABELS, "")
    stored = [
        unpack(event.payload)["annotation"]["id"] for event in store.events.unread(project, 10_000)
    ]
    assert stored[: len(acknowledged)] == acknowledged
    store.close()
