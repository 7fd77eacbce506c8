import shutil
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app, main
from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.labelstudio import client as client_module
from tests import REPOSITORY


def test_help_lists_the_commands_without_heavy_imports():
    told = CliRunner().invoke(app, ["--help"])
    assert told.exit_code == 0
    for name in ("serve", "web", "worker", "connect", "doctor", "versions", "simulate"):
        assert name in told.stdout
    code = "import ralis_backend.cli, sys; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "flask", "sqlalchemy", "numpy"} & set(modules)


def test_a_bad_setting_is_one_line_and_exit_code_2(refused):
    told = refused("serve", RALIS_REGION_SIZE="big")
    assert "RALIS_REGION_SIZE" in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "wanted"),
    [("versions", "there is no database"), ("connect", "LABEL_STUDIO_API_KEY")],
)
def test_what_is_missing_is_one_line_and_exit_code_2(refused, command, wanted):
    told = refused(command, "--project", "5")
    assert wanted in told
    assert len(told.strip().splitlines()) == 1


def test_connecting_to_a_label_studio_that_is_down_is_one_line_and_makes_nothing(
    refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", ())
    down = {"LABEL_STUDIO_URL": f"http://127.0.0.1:{free_port()}", "LABEL_STUDIO_API_KEY": "0" * 40}
    told = refused("connect", "--project", "5", **down)
    assert "does not answer" in told
    assert len(told.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_two_choices_of_a_background_are_refused_before_anything_is_asked(refused):
    said = refused("connect", "--project", "5", "--background", "a", "--no-background")
    assert "exclude each other" in said


COMMANDS = ("versions", "status", "train", "mine", "simulate", "export", "disconnect")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_looks_makes_no_data_folder_and_says_where_it_looked(
    refused, environment, tmp_path, command
):
    del environment["RALIS_DATA_DIR"]
    more = ["--out", "dataset"] if command == "export" else []
    told = refused(command, "--project", "5", *more)
    assert str(tmp_path / ".ralis" / "ralis.db") in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("platform", ["win32", "cygwin"])
def test_windows_is_told_of_wsl_and_docker_before_anything_else(monkeypatch, capsys, platform):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("sys.argv", ["ralis", "serve"])
    monkeypatch.setattr("ralis_backend.cli.app", lambda: pytest.fail("a command was run"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "WSL" in said
    assert "docker-compose.yml" in said


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_every_file_is_python_of_each_release_that_is_supported(minor):
    python = shutil.which(f"python3.{minor}")
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip(f"python3.{minor} is not installed")
    code = (
        "import ast, pathlib, sys\n"
        "for path in pathlib.Path(sys.argv[1]).rglob('*.py'):\n"
        "    compile(path.read_bytes(), str(path), 'exec', dont_inherit=True)"
    )
    checked = [python, "-W", "error", "-c", code, str(REPOSITORY / "ralis_backend")]
    assert subprocess.run(checked, capture_output=True, text=True, check=False).stderr == ""


def test_the_package_says_which_releases_it_is_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    releases = {it.rpartition(" ")[2] for it in project["classifiers"] if "Python :: 3." in it}
    assert releases == {"3.11", "3.12", "3.13"}
