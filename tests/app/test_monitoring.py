import os
import subprocess
import sys

import pytest

from tests.app.calls import UID, setup


def test_metrics_count_requests_and_show_projects(client):
    setup(client)
    client.get("/setup")
    text = client.get("/metrics").text
    assert 'ralis_request_seconds_count{endpoint="setup",outcome="ok"} 1.0' in text
    assert f'ralis_model_version{{project="{UID}"}} 0.0' in text


def test_what_failed_is_counted_apart_from_what_was_refused(client, learner, monkeypatch):
    client.post("/setup", json={})
    monkeypatch.setattr(learner, "register", lambda *_: 1 / 0)
    setup(client)
    text = client.get("/metrics").text
    assert 'ralis_request_seconds_count{endpoint="setup",outcome="refused"} 1.0' in text
    assert 'ralis_request_seconds_count{endpoint="setup",outcome="failed"} 1.0' in text


def test_the_version_and_what_the_worker_does_are_shown_by_project(client, store):
    setup(client)
    project = store.projects.get(UID)
    store.projects.change(project.id, current_version=4, progress={"state": "training"})
    text = client.get("/metrics").text
    assert f'ralis_model_version{{project="{UID}"}} 4.0' in text
    assert f'ralis_state{{project="{UID}",state="training"}} 1.0' in text


@pytest.mark.e2e
def test_several_processes_report_together(tmp_path):
    code = """
import sys
from pathlib import Path
from ralis_backend.app.monitoring import Metrics

class NoProjects:
    def status(self, uid):
        return {}

metrics = Metrics(NoProjects(), Path(sys.argv[1]))
metrics.observe("predict", 200, 0.1)
print(metrics.render().decode())
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    counted = 'ralis_request_seconds_count{endpoint="predict",outcome="ok"}'
    assert f"{counted} 1.0" in texts[0]
    assert f"{counted} 2.0" in texts[1]
