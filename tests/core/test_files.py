import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ralis_backend.core.files import (
    OWNER_ONLY,
    check_folder,
    write_bytes,
    write_json,
    writing,
    writing_folder,
)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def old(tmp_path):
    """A file that was there before."""
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def umask():
    """What files lose by default, whatever the machine's own umask."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_replaces_the_old_one_and_leaves_nothing_beside_it(old):
    write_bytes(old, b"new")
    assert old.read_bytes() == b"new"
    assert names(old.parent) == ["result.json"]


def test_missing_folders_are_made(tmp_path):
    write_bytes(tmp_path / "a" / "b" / "c.bin", b"x")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"x"


def test_json_ends_with_a_line_break_and_holds_finite_numbers_only(old):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(old, {"score": float("nan")})
    assert old.read_bytes() == b"old"
    write_json(old, {"score": 0.5})
    assert json.loads(old.read_text()) == {"score": 0.5}
    assert old.read_text().endswith("}\n")


@pytest.mark.usefixtures("umask")
def test_others_may_read_a_file_unless_it_is_the_owners_alone(tmp_path):
    write_bytes(tmp_path / "open", b"x")
    write_json(tmp_path / "secret", {}, mode=OWNER_ONLY)
    assert mode(tmp_path / "open") == 0o644
    assert mode(tmp_path / "secret") == 0o600


def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(tmp_path):
    with writing(tmp_path / "secret", mode=OWNER_ONLY) as partial:
        assert mode(partial) == 0o600


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(old, monkeypatch, call):
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full_disk)
    else:
        monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_bytes(old, b"new")
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["result.json"]


def test_a_block_that_fails_leaves_the_old_file_and_no_temporary_one(old):
    def write():
        with writing(old) as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["result.json"]


def test_a_kill_while_writing_leaves_the_old_file_whole(old):
    code = """
import os, signal, sys
from pathlib import Path
from ralis_backend.core.files import writing
with writing(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(old)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert old.read_bytes() == b"old"


def test_content_is_on_the_disk_before_the_file_has_its_name_and_the_name_after(old, monkeypatch):
    seen = []
    real = os.fsync

    def fsync(descriptor):
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), old.read_bytes()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(old, b"new")
    assert seen == [(False, b"old"), (True, b"new")]


def test_a_folder_is_on_the_disk_with_its_files_before_it_has_its_name_and_the_name_after(
    tmp_path, monkeypatch
):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path.name if path != tmp_path else "/", (tmp_path / "set").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with writing_folder(tmp_path / "set") as partial:
        (partial / "masks").mkdir()
        (partial / "masks" / "1.png").write_bytes(b"x")
        name = partial.name
    assert synced == [("1.png", False), ("masks", False), (name, False), ("/", True)]


def test_folders_that_had_to_be_made_are_on_the_disk_as_well(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(tmp_path / "a" / "b" / "file", b"x")
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)


def test_a_cache_does_not_wait_for_the_disk(old, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    write_bytes(old, b"new", survives_power_loss=False)
    assert old.read_bytes() == b"new"


def test_a_file_system_that_cannot_sync_folders_is_written_to_all_the_same(old, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(old, b"new")
    assert old.read_bytes() == b"new"


def test_writers_that_go_by_the_suffix_find_it(tmp_path):
    with writing(tmp_path / "numbers.npz") as partial:
        assert partial.suffix == ".npz"
        assert partial.parent == tmp_path


@pytest.mark.usefixtures("umask")
def test_a_folder_appears_when_it_is_complete(tmp_path):
    with writing_folder(tmp_path / "deep" / "dataset") as partial:
        (partial / "classes.json").write_text("{}")
        assert not (tmp_path / "deep" / "dataset").exists()
    assert names(tmp_path / "deep") == ["dataset"]
    assert names(tmp_path / "deep" / "dataset") == ["classes.json"]
    assert mode(tmp_path / "deep" / "dataset") == 0o755


def test_an_empty_folder_is_replaced_and_a_full_one_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")

    def fill(path):
        with writing_folder(path) as partial:
            (partial / "new").write_text("y")

    fill(tmp_path / "empty")
    assert names(tmp_path / "empty") == ["new"]
    with pytest.raises(OSError, match="not empty"):
        fill(tmp_path / "full")
    assert names(tmp_path / "full") == ["mine"]
    assert names(tmp_path) == ["empty", "full"]


def test_the_folder_one_is_in_can_be_filled(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with writing_folder(Path(".")) as partial:
        (partial / "new").write_text("y")
    assert names(tmp_path / "here") == ["new"]


@pytest.mark.parametrize("target", ["there", "new", "deep/new"])
def test_a_folder_may_be_a_link(tmp_path, target):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(target)
    check_folder(tmp_path / "link")
    with writing_folder(tmp_path / "link") as partial:
        (partial / "new").write_text("y")
    assert names(tmp_path / target) == ["new"]
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_is_there_stays_the_same_one(tmp_path, monkeypatch):
    (tmp_path / "mounted").mkdir()
    before = (tmp_path / "mounted").stat().st_ino  # renaming over a mount point is refused
    with writing_folder(tmp_path / "mounted") as partial:
        (partial / "new").write_text("y")
        assert names(tmp_path) == ["mounted"]
    assert (tmp_path / "mounted").stat().st_ino == before


def test_what_cannot_be_moved_to_the_end_leaves_an_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    real = Path.rename

    def rename(path, target):
        if Path(target) == tmp_path / "there" / "b":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)

    def fill():
        with writing_folder(tmp_path / "there") as partial:
            for name in ("a", "b"):
                (partial / name).write_text("y")

    with pytest.raises(OSError, match="Input/output"):
        fill()
    assert names(tmp_path / "there") == []


def test_where_no_folder_can_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for name, number in (("file", errno.ENOTDIR), ("file/x", errno.ENOTDIR)):
        with pytest.raises(OSError, match=f"{name}'") as refused:
            check_folder(tmp_path / name)
        assert refused.value.errno == number
    with pytest.raises(OSError, match="loop"):
        check_folder(tmp_path / "loop")
    check_folder(tmp_path / "deep" / "new")
    assert names(tmp_path) == ["file", "loop"]


def test_a_folder_whose_block_fails_vanishes(tmp_path):
    def fill():
        with writing_folder(tmp_path / "dataset") as partial:
            (partial / "half").write_text("x")
            raise ValueError("no more images")

    with pytest.raises(ValueError, match="no more images"):
        fill()
    assert names(tmp_path) == []
