import io
import logging
import os
import stat
import subprocess

import pytest
from PIL import Image

from ralis_backend.cli import worker
from ralis_backend.cli.log import LineFormatter, configure_logging
from ralis_backend.core.files import make_private_folder
from ralis_backend.core.images import decode_image
from ralis_backend.online.store import Store
from tests.app.calls import settings
from tests.cli.process import RALIS, wait_for


def test_a_name_from_outside_neither_ends_a_line_nor_moves_the_cursor(capsys):
    configure_logging("INFO")
    logging.getLogger("x").warning("project %s", "a\nb\x1b[2J\r2026 ERROR forged")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"WARNING x: project a\nb\x1b[2J\r2026 ERROR forged")


def test_what_a_picture_says_of_people_is_not_logged_at_any_level(capsys):
    tags = Image.Exif()
    tags[0x010E] = "Erika Mustermann 1970-01-01"
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=tags)
    configure_logging("DEBUG")
    decode_image(file.getvalue())
    logging.getLogger("ralis_backend.cli.x").debug("epoch %d", 3)
    logging.getLogger("PIL.Image").warning("odd file")
    written = capsys.readouterr().err
    assert "Mustermann" not in written
    assert "epoch 3" in written
    assert "odd file" in written


def test_a_traceback_keeps_its_lines_but_no_escapes():
    file = io.StringIO()
    handler = logging.StreamHandler(file)
    handler.setFormatter(LineFormatter("%(message)s"))
    log = logging.Logger("x")
    log.addHandler(handler)
    try:
        raise ValueError("road\x1b[2J")
    except ValueError:
        log.exception("failed")
    assert "\x1b" not in file.getvalue()
    assert file.getvalue().count("\n") > 3


@pytest.mark.parametrize(
    ("mode", "kept"), [(0o755, 0o700), (0o777, 0o770), (0o770, 0o770), (0o700, 0o700)]
)
def test_a_data_folder_that_others_can_enter_is_closed(tmp_path, mode, kept):
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    make_private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == kept
    make_private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


@pytest.mark.e2e
def test_what_a_command_writes_its_user_alone_can_read(environment, tmp_path):
    database = tmp_path / "state" / "ralis.db"
    before = os.umask(0o022)
    try:
        worker = subprocess.Popen(
            [*RALIS, "worker", "--unsupervised"], env=environment, cwd=tmp_path
        )
        wait_for(database.exists)
        worker.terminate()
        worker.wait(30)
    finally:
        os.umask(before)
    written = list((tmp_path / "state").rglob("*"))
    assert database in written
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_webhooks_are_renewed_once_for_each_secret(tmp_path):
    chosen = settings(data_dir=tmp_path, auth_user="ralis", auth_password="secret")
    store = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    project = store.projects.register("1.100", 1, "<View/>", (), "")

    def is_renewed():
        store.projects.change(project.id, is_prepared=True)
        worker.renew_webhooks(store, chosen)
        return not store.projects.get("1.100").is_prepared

    assert [is_renewed(), is_renewed()] == [True, False]
    (tmp_path / "webhook-secret").unlink()
    assert [is_renewed(), is_renewed()] == [True, False]
    (tmp_path / "webhooks-carry").write_bytes(b"\xff damaged")
    assert [is_renewed(), is_renewed()] == [True, False]
    store.close()
