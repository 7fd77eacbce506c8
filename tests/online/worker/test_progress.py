from __future__ import annotations

import logging

import pytest

from ralis_backend.online.store import Store
from ralis_backend.online.worker import progress as progress_module
from ralis_backend.online.worker.progress import Progress
from tests.online.fake_tool import CLASSES


def test_progress_is_written_once_a_second_and_logged_every_ten(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    clock = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    report = Progress(store, project)
    written = []
    for moment in (100.0, 100.9, 101.0, 109.9, 110.0):
        clock[0] = moment
        report({"state": "training", "step": moment})
        written.append(store.projects.get("1.100").progress["step"])
    assert written == [100.0, 100.0, 101.0, 109.9, 109.9]
    assert [record.getMessage() for record in caplog.records] == [
        "project 1: state training, step 110.0"
    ]
    report.end()
    assert store.projects.get("1.100").progress == {"state": "idle"}
