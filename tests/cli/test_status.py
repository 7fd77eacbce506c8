"""The commands that look into the data folder, and ask something of the worker."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.versions import _table
from ralis_backend.online.owner import own_name
from ralis_backend.online.store import Store
from tests.online.fake_tool import CLASSES


@pytest.fixture
def store(environment, tmp_path, monkeypatch):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    opened = Store.open(f"sqlite:///{tmp_path / 'state' / 'ralis.db'}", tmp_path / "state")
    opened.projects.register("7.100", 7, "<View/>", CLASSES, "Streets")
    yield opened
    opened.close()


def told(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_status_tells_of_each_project_and_whether_a_worker_lives(store):
    store.projects.register("8.100", 8, "<View/>", CLASSES, "Fields\x1b[2J")
    answer = told("status")
    assert answer.exit_code == 0
    assert "no worker lives: start `ralis serve`" in answer.stdout
    assert "project 7 (Streets)" in answer.stdout
    assert "project 8 (Fields\\x1b[2J)" in answer.stdout
    store.workers.beat(own_name())
    answer = told("status", "--project", "7")
    assert "a worker lives" in answer.stdout
    assert "project 8" not in answer.stdout


def test_watching_ends_with_ctrl_c(store, monkeypatch):
    def press_ctrl_c(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", press_ctrl_c)
    answer = told("status", "--watch")
    assert answer.exit_code == 130
    assert "project 7 (Streets)" in answer.stdout


def test_a_project_that_is_not_known_is_answered_with_those_that_are(store):
    answer = told("status", "--project", "9")
    assert answer.exit_code == 1
    assert "known: 7 (Streets)" in str(answer.exception)


def test_train_asks_for_a_training_and_says_who_does_it(store):
    answer = told("train", "--project", "7")
    assert answer.exit_code == 0
    assert "as soon as something is labelled" in answer.stdout
    assert "no worker lives" in answer.stdout
    assert store.projects.by_tool_id(7).is_training_requested
    assert store.projects.by_tool_id(7).is_sync_requested, "the newest labels are read first"


def test_train_takes_up_no_project_that_was_disconnected(store):
    store.projects.change(store.projects.by_tool_id(7).id, is_deleted=True)
    answer = told("train", "--project", "7")
    assert "ralis connect --project 7" in str(answer.exception)
    assert not store.projects.by_tool_id(7).is_training_requested


@pytest.mark.parametrize("said", ["n\n", ""])
def test_disconnect_asks_and_does_nothing_without_a_yes(store, said):
    answer = CliRunner().invoke(app, ["disconnect", "--project", "7"], input=said)
    assert str(answer.exception) == (
        "project 7 stays connected: nobody said yes; --yes does not ask"
    )
    assert "Take this backend off project 7 (Streets)?" in answer.stdout
    assert not store.projects.by_tool_id(7).is_deleted


def test_the_table_of_versions_is_whole_in_80_columns():
    versions = [
        {
            "version": "v12",
            "is_current": True,
            "is_accepted": True,
            "labelled_regions": 1234,
            "created_at": "2026-01-31T12:34:56+00:00",
            "strategy": "placebo-untrained",
            "metrics": {
                "validation_miou": 0.48512,
                "validation_foreground_miou": 0.51234,
                "background": "Background",
                "random_slice": {"pixel_accuracy": [0.978, 0.951, 0.991], "regions": 15},
            },
        }
    ]
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(_table(versions))
    shown = console.file.getvalue()
    assert "…" not in shown
    for word in (
        "version",
        "regions",
        "mIoU",
        "accepted",
        "v12",
        "1234",
        "0.485",
        "0.512",
        "97.8",
        "12:34",
    ):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 80


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["scipy.stats"] = None  # no import of these succeeds
from typer.testing import CliRunner
from ralis_backend.cli import app
for line in sys.stdin:
    answer = CliRunner().invoke(app, line.split())
    print(line.strip(), answer.exit_code, answer.output, repr(answer.exception))
"""


def test_what_looks_or_asks_does_not_wait_for_torch(store, environment, tmp_path):
    commands = {
        "status": "project 7 (Streets)",
        "versions --project 7": "labelled",
        "train --project 7": "no worker lives",
        "mine --project 7 --class bright": "bright",
        "connect --project 7": "does not answer",
        "disconnect --project 7": "does not answer",
    }
    dead = {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "LABEL_STUDIO_API_KEY": "x" * 40}
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        env={**environment, **dead},
        cwd=tmp_path,
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "torch" not in said
    for text in commands.values():
        assert text in said, said
