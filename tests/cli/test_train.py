import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app, train
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Version
from ralis_backend.online.worker.to_the_end import Ending


@pytest.mark.parametrize(("is_stopped", "code"), [(False, 0), (True, 130)])
def test_a_script_can_tell_a_training_that_was_stopped_from_one_that_ended(
    tmp_path, monkeypatch, environment, is_stopped, code
):
    folder = tmp_path / "state"
    folder.mkdir()
    store = Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")
    store.projects.register("5.100", 5, "<View/>", (), "pool")
    store.close()
    in_use = Version(number=3)
    end = Ending(in_use, in_use, is_better=False, best_updates=50, is_stopped=is_stopped)
    monkeypatch.setattr(train, "train_to_the_end", lambda *_arguments, **_options: end)
    monkeypatch.chdir(tmp_path)
    command = ["train", "--project", "5", "--until-converged"]
    assert CliRunner().invoke(app, command, env=environment).exit_code == code
