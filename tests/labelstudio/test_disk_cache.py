import os

from ralis_backend.labelstudio.disk_cache import DiskCache


def size(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_file_that_was_kept_is_there_for_the_next_process(tmp_path):
    DiskCache(tmp_path / "new", 1000).put("a", b"pixels")
    assert DiskCache(tmp_path / "new", 1000).get("a") == b"pixels"
    assert DiskCache(tmp_path / "new", 1000).get("b") is None


def test_it_keeps_within_its_bound_and_drops_what_was_used_longest_ago(tmp_path):
    cache = DiskCache(tmp_path, 450)
    for age, key in enumerate("abcd"):
        cache.put(key, b"x" * 100)
        os.utime(tmp_path / key, (age, age))
    cache.get("a")  # used again: now the newest
    cache.put("e", b"x" * 100)
    assert size(tmp_path) <= 450
    assert [key for key in "abcde" if cache.get(key)] == ["a", "c", "d", "e"]


def test_a_file_larger_than_the_bound_is_not_kept(tmp_path):
    cache = DiskCache(tmp_path, 10)
    cache.put("a", b"x" * 11)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_counts_and_goes_as_well(tmp_path):
    (tmp_path / ".writing-0").write_bytes(b"x" * 400)
    os.utime(tmp_path / ".writing-0", (0, 0))
    cache = DiskCache(tmp_path, 450)
    cache.put("a", b"x" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = DiskCache(tmp_path / "cache", 1000)
    cache.put("a", b"pixels")
    assert cache.get("a") is None
    assert "cannot be written" in caplog.text
