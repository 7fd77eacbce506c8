from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ralis_backend import wiring
from ralis_backend.cli import app
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.simulation import verdict as replays
from tests.online.conftest import RANKING, TINY, settle
from tests.online.fake_tool import CLASSES, FakeTool


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTool:
    """A labelling tool with 20 images, and a project of it in the store of the settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RALIS_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RALIS_ENCODER_WEIGHTS", "none")
    monkeypatch.setenv("RALIS_DEVICE", "cpu")
    tool = FakeTool(num_images=20)
    monkeypatch.setattr(wiring, "create_tool", lambda settings: tool)
    return tool


def _label(tool: FakeTool, num_images: int, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    store = Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")
    store.projects.register(tool.pool.uid, tool.pool.id, tool.pool.label_config, CLASSES, "pool")
    for task in tool.pool_tasks[:num_images]:
        mask = tool.files[task.id][1].tolist()
        tool.annotate(task.id, [{"mask": mask}], project_id=1)
    settle(Worker(store, tool, WorkerConfig("crops", RANKING, TINY)))
    store.close()


def test_a_project_is_replayed_as_a_table_and_as_json(tool, tmp_path, monkeypatch):
    _label(tool, 18, tmp_path)

    def play(arena, strategy, *_):
        mious = {"margin": 0.5, "random": 0.3}
        return {"curve": [{"miou": mious.get(strategy.name, 0.4)}]}

    monkeypatch.setattr(replays, "play", play)
    monkeypatch.setenv("COLUMNS", "200")
    command = ["simulate", "--project", "1", "--strategies", "margin", "--json", "out/replay.json"]
    answer = CliRunner().invoke(app, command, catch_exceptions=False)
    assert answer.exit_code == 0
    assert "50.0" in answer.stdout
    assert "+10.0 [+10.0, +10.0] (coverage-diverse)" in answer.stdout
    assert "16 games on 108 labelled regions of 18 images" in answer.stdout
    content = json.loads((tmp_path / "out/replay.json").read_text())
    assert list(content["strategies"]) == ["margin", *replays.HEURISTICS, "random"]
    assert content["strategies"]["margin"]["verdict"] == "trusted"
    assert content["strategies"]["random"]["verdict"] == "not trusted"


def test_too_few_labels_say_how_many_it_takes(tool, tmp_path):
    _label(tool, 4, tmp_path)
    with pytest.raises(ValueError, match=r"24 regions of 4 images .* takes 96 regions of 8 images"):
        CliRunner().invoke(app, ["simulate", "--project", "1"], catch_exceptions=False)


def test_an_unknown_project_and_an_unknown_strategy_say_what_to_do(tool, tmp_path):
    _label(tool, 1, tmp_path)
    with pytest.raises(ValueError, match="ralis connect --project 7"):
        CliRunner().invoke(app, ["simulate", "--project", "7"], catch_exceptions=False)
    command = ["simulate", "--project", "1", "--strategies", "best"]
    with pytest.raises(ValueError, match=r"unknown strategy 'best'.*bald-rarity"):
        CliRunner().invoke(app, command, catch_exceptions=False)
