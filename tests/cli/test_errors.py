import errno
import io
import os
import sqlite3
import sys
from contextlib import closing

import pytest
import typer
from sqlalchemy import text

import ralis_backend.cli
from ralis_backend.cli.errors import CANNOT_START, starting
from ralis_backend.core.unavailable import UnavailableError
from ralis_backend.online.store import Store


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such strategy"), "ralis: no such strategy"),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "give that user the right"),
        (OSError(errno.EROFS, "Read-only file system", "/data"), "'/data'; expected a place"),
    ],
)
def test_a_start_that_would_fail_again_ends_with_a_code_of_its_own(error, told, capsys):
    with pytest.raises(SystemExit) as ended, starting():
        raise error
    assert ended.value.code == CANNOT_START
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("the database starts"),
        OSError(errno.ENOSPC, "No space"),
        OSError(errno.ENOSPC, "No space", "/data"),
        KeyError("bug"),
    ],
)
def test_a_start_that_may_succeed_later_can_be_tried_again(error):
    with pytest.raises(type(error)), starting():
        raise error


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "give that user the right"),
        (errno.EEXIST, "expected a folder: move the file away"),
        (errno.ENOTDIR, "expected a folder: move the file away"),
        (errno.EISDIR, "expected a file, not a folder"),
        (errno.ENOENT, "expected a path that exists"),
        (errno.ENOSPC, "No space left on device: '/data'"),
    ],
)
def test_an_error_about_a_place_is_one_line(monkeypatch, capsys, number, told):
    def refuse() -> None:
        raise OSError(number, os.strerror(number), "/data")

    monkeypatch.setattr(ralis_backend.cli, "app", refuse)
    with pytest.raises(SystemExit) as ended:
        ralis_backend.cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'/data'" in line
    assert told in line


def test_standard_output_without_room_is_told_in_one_line(monkeypatch, capsys):
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ralis_backend.cli, "app", refuse)
    with pytest.raises(SystemExit) as ended:
        ralis_backend.cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line


def test_letters_that_standard_output_does_not_have_are_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    monkeypatch.setattr(ralis_backend.cli, "app", lambda: typer.echo("Größe Поле"))
    ralis_backend.cli.main()
    assert written.getvalue() == "Größe ".encode("latin-1") + rb"\u041f\u043e\u043b\u0435" + b"\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["doctor", "--label-config", "/nowhere.xml"], "'/nowhere.xml'; expected a path"),
        (["doctor", "--label-config", "/"], "expected a file, not a folder"),
        (["status", "--project", "9" * 30], "less than or equal to 2147483647"),
        (["versions", "--project", "9" * 30], "less than or equal to 2147483647"),
    ],
)
def test_what_the_command_line_names_wrongly_is_told(
    environment, tmp_path, monkeypatch, capsys, arguments, told
):
    assert ended_with(monkeypatch, tmp_path, environment, *arguments) == 2
    written = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert told in written
    assert "Traceback" not in written


def test_a_data_folder_that_is_a_file_is_told(environment, tmp_path, monkeypatch, capsys):
    (tmp_path / "state").write_text("")
    code = ended_with(monkeypatch, tmp_path, environment, "worker", "--unsupervised")
    assert code == CANNOT_START
    assert "expected a folder" in capsys.readouterr().err.splitlines()[-1]


def test_a_database_that_fails_after_it_was_opened_is_told_in_one_line(
    environment, tmp_path, monkeypatch, capsys
):
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "ralis.db"
    Store.open(f"sqlite:///{path}", tmp_path / "state" / "blobs").close()
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = opened.execute("PRAGMA page_size").fetchone()
        found = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'projects'")
        (page,) = found.fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 64)
    assert ended_with(monkeypatch, tmp_path, environment, "status") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "malformed" in line
    assert "backup" in line


@pytest.fixture
def newer_database(environment, tmp_path):
    """The environment with a database that a newer release made."""
    (tmp_path / "state").mkdir()
    store = Store.open(f"sqlite:///{tmp_path / 'state' / 'ralis.db'}", tmp_path / "state" / "blobs")
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    return environment


def ended_with(monkeypatch, tmp_path, environment, *arguments):
    """The code with which `ralis` ends."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.nice", lambda _niceness: 0)
    monkeypatch.setattr("signal.signal", lambda _number, _handler: None)
    monkeypatch.setattr(sys, "argv", ["ralis", *arguments])
    with pytest.raises(SystemExit) as ended:
        ralis_backend.cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "made by a newer release"),
        ({"RALIS_STRATEGY": "presence"}, "looks for one class, named as 'presence:CLASS'"),
        ({"RALIS_LEARNER": "magic"}, "magic"),
        ({"RALIS_DEVICE": "cuda:77"}, "device 'cuda:77' cannot be used"),
        ({"RALIS_DATABASE_URL": "postgresql://u:secret@db/ralis"}, "install 'psycopg[binary]'"),
    ],
)
def test_a_worker_that_no_restart_can_mend_says_so(
    newer_database, tmp_path, monkeypatch, capsys, variables, told
):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    environment = {**newer_database, **variables}
    code = ended_with(monkeypatch, tmp_path, environment, "worker", "--unsupervised")
    assert code == CANNOT_START
    lines = capsys.readouterr().err.splitlines()
    assert told in lines[-1]
    assert "secret" not in lines[-1]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_worker_goes_by_whether_its_webhook_secret_is_damaged(
    environment, tmp_path, monkeypatch, capsys, is_damaged
):
    monkeypatch.setattr(
        "ralis_backend.online.worker.Worker.run", lambda _worker, _stop: sys.exit(0)
    )
    (tmp_path / "state").mkdir()
    if is_damaged:
        (tmp_path / "state" / "webhook-secret").write_text("short")
    chosen = {**environment, "RALIS_AUTH_USER": "ls", "RALIS_AUTH_PASSWORD": "0" * 12}
    code = ended_with(monkeypatch, tmp_path, chosen, "worker", "--unsupervised")
    assert code == (CANNOT_START if is_damaged else 0)
    assert ("webhook-secret is damaged" in capsys.readouterr().err) == is_damaged


def test_a_web_server_that_no_restart_can_mend_says_so(
    newer_database, tmp_path, monkeypatch, capsys
):
    from ralis_backend.cli.demo.label_studio import free_port

    code = ended_with(monkeypatch, tmp_path, newer_database, "web", "--port", str(free_port()))
    assert code == CANNOT_START
    assert "made by a newer release" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (["web"], {"RALIS_MODE": "bogus"}, "RALIS_MODE"),
        (["worker", "--unsupervised"], {"RALIS_MODE": "bogus"}, "RALIS_MODE"),
        (["web", "--host", "0.0.0.0"], {}, "RALIS_AUTH_USER"),
    ],
)
def test_a_wrong_setting_is_a_start_that_would_fail_again(
    environment, tmp_path, monkeypatch, capsys, arguments, variables, told
):
    code = ended_with(monkeypatch, tmp_path, {**environment, **variables}, *arguments)
    assert code == CANNOT_START
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
