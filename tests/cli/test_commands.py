import shutil
import subprocess
import sys
import tomllib

import pytest

from ralis_backend.cli import main
from tests.cli.process import ralis
from tests.conftest import ROOT


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
    [("versions", "ralis connect --project 5"), ("connect", "LABEL_STUDIO_API_KEY")],
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
    checked = [python, "-W", "error", "-c", code, str(ROOT / "ralis_backend")]
    assert subprocess.run(checked, capture_output=True, text=True, check=False).stderr == ""


def test_the_package_says_which_releases_it_is_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    releases = {it.rpartition(" ")[2] for it in project["classifiers"] if "Python :: 3." in it}
    assert releases == {"3.11", "3.12", "3.13"}
