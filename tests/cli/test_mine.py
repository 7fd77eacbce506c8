"""`ralis mine` on a data folder of its own."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.online.store import Store
from ralis_backend.online.store.wishes import REPLACED, STOPPED
from tests.online.fake_tool import CLASSES, FakeTool


@pytest.fixture
def store(environment, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    opened = Store.open(f"sqlite:///{tmp_path / 'state' / 'ralis.db'}", tmp_path / "state")
    project = opened.projects.register("7.100", 7, "<View/>", CLASSES, "Streets")
    opened.images.reconcile(project.id, FakeTool().pool_tasks)
    yield opened
    opened.close()


def mine(*arguments):
    return CliRunner().invoke(app, ["mine", "--project", "7", *arguments])


def standing(store):
    return store.wishes.standing(store.projects.by_tool_id(7).id)


def test_a_search_is_begun_looked_at_replaced_and_ended(store):
    assert "has looked for no class so far" in mine().stdout
    begun = mine("--class", "bright", "--count", "200", "--share", "0.5", "--example", "task:3")
    assert begun.exit_code == 0, begun.exception
    assert "project 7 looks for bright, 200 regions" in begun.stdout
    assert "without a training" in begun.stdout
    assert "no worker lives" in begun.stdout
    assert (standing(store).count, standing(store).share) == (200, 0.5)
    assert "bright, by nobody yet, in 50 % of each round: 0 of 200" in mine().stdout
    status = CliRunner().invoke(app, ["status"]).stdout
    assert "  seeks      bright, by nobody yet" in status
    other = mine("--class", "dark", "--example", "task:1", "--example", "task:2")
    assert "project 7 does not look for bright any more" in other.stdout
    assert "looks for dark, until it is ended" in other.stdout
    ended = mine("--stop")
    assert "project 7 does not look for dark any more" in ended.stdout
    assert standing(store) is None
    told = mine().stdout
    assert "bright, by presence, in 50 % of each round: 0 of 200 mined regions labelled" in told
    assert REPLACED in told
    assert STOPPED in told
    assert "seeks" not in CliRunner().invoke(app, ["status"]).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop"], "looks for no class: there is nothing to stop"),
        (["--stop", "--class", "dark", "--count", "3"], "leave out --class, --count"),
        (["--count", "3", "--share", "0.5"], "--count, --share need --class"),
        (["--class", "Bicyclist", "--count", "0"], "no class 'Bicyclist'; its classes are: dark"),
        (["--class", "bright"], "no region of 'bright' is labelled"),
        (["--class", "bright", "--like", "dark"], "no region of 'dark' is labelled either"),
        (["--class", "bright", "--example", "3"], "'3' is no example"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_begun(store, arguments, message):
    answer = mine(*arguments)
    assert answer.exit_code == 1
    assert message in str(answer.exception)
    assert standing(store) is None


def test_a_project_that_was_disconnected_looks_for_nothing(store):
    store.projects.change(store.projects.by_tool_id(7).id, is_deleted=True)
    assert "ralis connect --project 7" in str(mine("--class", "bright").exception)
