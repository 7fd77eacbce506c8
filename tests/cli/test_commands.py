import subprocess
import sys

import pytest

from ralis_backend.cli import main
from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.labelstudio import client as client_module
from tests.cli.process import ralis


def test_help_lists_the_commands_without_heavy_imports(environment, tmp_path):
    answer = ralis(environment, tmp_path, "--help")
    assert answer.returncode == 0
    for name in ("serve", "web", "worker", "connect", "doctor", "versions", "simulate"):
        assert name in answer.stdout
    code = "import ralis_backend.cli, sys; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "flask", "sqlalchemy", "numpy"} & set(modules)


def test_a_bad_setting_is_one_line_and_exit_code_2(environment, tmp_path):
    answer = ralis({**environment, "RALIS_REGION_SIZE": "big"}, tmp_path, "serve")
    assert answer.returncode == 2
    assert "RALIS_REGION_SIZE" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "wanted"),
    [("versions", "there is no database"), ("connect", "LABEL_STUDIO_API_KEY")],
)
def test_what_is_missing_is_one_line_and_exit_code_2(
    environment, tmp_path, monkeypatch, capsys, command, wanted
):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ralis", command, "--project", "5"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert wanted in capsys.readouterr().err


def test_connecting_to_a_label_studio_that_is_down_is_one_line_and_makes_nothing(
    environment, tmp_path, monkeypatch, capsys
):
    down = {"LABEL_STUDIO_URL": f"http://127.0.0.1:{free_port()}", "LABEL_STUDIO_API_KEY": "0" * 40}
    for name, value in {**environment, **down}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", ())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ralis", "connect", "--project", "5"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "does not answer" in told
    assert len(told.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


COMMANDS = ("versions", "status", "train", "simulate", "export", "disconnect")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_looks_makes_no_data_folder_and_says_where_it_looked(
    environment, tmp_path, monkeypatch, capsys, command
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RALIS_DATA_DIR")
    monkeypatch.chdir(tmp_path)
    more = ["--out", "dataset"] if command == "export" else []
    monkeypatch.setattr(sys, "argv", ["ralis", command, "--project", "5", *more])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert str(tmp_path / ".ralis" / "ralis.db") in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
