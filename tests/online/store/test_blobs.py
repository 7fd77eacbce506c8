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


def test_of_a_folder_only_what_is_named_is_kept_and_the_others_stay(tmp_path: Path):
    blobs = BlobStore(tmp_path)
    for key in (
        "rankings/1/2.png",
        "rankings/1/3.png",
        "rankings/1/deep/4.png",
        "rankings/11/2.png",
    ):
        blobs.put(key, b"")
    assert blobs.keep_only("rankings/1", {"rankings/1/3.png"}) == 2
    assert blobs.keep_only("rankings/1", {"rankings/1/3.png"}) == 0
    assert blobs.keep_only("rankings/7", set()) == 0
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == [
        "rankings", "rankings/1", "rankings/1/3.png", "rankings/11", "rankings/11/2.png"
    ]  # fmt: skip
    blobs.delete("rankings/1/3.png")
    blobs.delete("rankings/1/3.png")
    assert not (tmp_path / "rankings/1/3.png").exists()


@pytest.mark.parametrize("prefix", ["..", "rankings/..", "/etc"])
def test_only_folders_of_blobs_can_be_deleted(tmp_path: Path, prefix: str):
    with pytest.raises(ValueError, match="blob key"):
        BlobStore(tmp_path).keep_only(prefix, set())


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
