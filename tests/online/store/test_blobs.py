from __future__ import annotations

from pathlib import Path

import pytest

from ralis_backend.online.store.blobs import BlobStore


def test_a_blob_is_read_as_it_was_written_last(tmp_path: Path):
    blobs = BlobStore(tmp_path)
    assert blobs.put("labels/ab/c.png", b"old") == "labels/ab/c.png"
    blobs.put("labels/ab/c.png", b"new")
    assert blobs.get("labels/ab/c.png") == b"new"
    assert blobs.path("labels/ab/c.png") == tmp_path / "labels/ab/c.png"


def test_a_blob_that_was_never_written_is_not_found(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        BlobStore(tmp_path).get("labels/none.png")


def test_deleting_a_folder_leaves_the_others_and_may_be_repeated(tmp_path: Path):
    blobs = BlobStore(tmp_path)
    for key in ("rankings/1/2.png", "rankings/11/2.png"):
        blobs.put(key, b"")
    for _ in range(2):
        blobs.delete_folder("rankings/1")
    assert [path.name for path in (tmp_path / "rankings").iterdir()] == ["11"]


@pytest.mark.parametrize("prefix", ["..", "rankings/..", "/etc"])
def test_only_folders_of_blobs_can_be_deleted(tmp_path: Path, prefix: str):
    with pytest.raises(ValueError, match="blob key"):
        BlobStore(tmp_path).delete_folder(prefix)


def test_blob_keys_cannot_leave_the_folder(tmp_path: Path):
    blobs = BlobStore(tmp_path)
    for key in ("../x.png", "/etc/passwd", "a/../b.png", "labels/x"):
        with pytest.raises(ValueError, match="blob key"):
            blobs.put(key, b"")


def test_a_blob_that_cannot_be_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    blobs = BlobStore(tmp_path)
    blobs.put("labels/a.png", b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        blobs.put("labels/a.png", b"new")
    assert blobs.get("labels/a.png") == b"old"
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["a.png"]
