import os
import sys

import pytest

from ralis_backend.cli import main


@pytest.fixture
def environment(tmp_path):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RALIS_", "LABEL_STUDIO_"))
    }
    return {
        **kept,
        "RALIS_DATA_DIR": str(tmp_path / "state"),
        "RALIS_ENCODER_WEIGHTS": "none",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def refused(environment, tmp_path, monkeypatch, capsys):
    """What `ralis` says on standard error where it refuses, with code 2, in an empty folder."""

    def run(*arguments, **variables):
        for name in set(os.environ) - set(environment):
            monkeypatch.delenv(name)
        for name, value in {**environment, **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ralis", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return run
