import pytest
from typer.testing import CliRunner

from ralis_backend.cli import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "a", "--dataset", "b"], "exclude each other"),
        (["--mode", "sideways"], "choose crops or in-place"),
        (["--region-size", "12"], "is not height x width"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert not (tmp_path / ".demo").exists()
