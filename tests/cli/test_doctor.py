import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.demo.label_studio import free_port


@pytest.mark.e2e
def test_doctor_names_what_fails_and_what_to_do(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nowhere = f"http://127.0.0.1:{free_port()}"
    there = {"LABEL_STUDIO_URL": nowhere, "RALIS_BACKEND_URL": nowhere}
    answer = CliRunner().invoke(app, ["doctor"], env={**environment, **there})
    assert answer.exit_code == 1
    assert "ok   data folder" in answer.stdout
    assert "FAIL Label Studio" in answer.stdout
    assert "-> start it, and set LABEL_STUDIO_URL" in answer.stdout
