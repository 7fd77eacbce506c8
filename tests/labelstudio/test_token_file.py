from __future__ import annotations

import logging
import stat

import pytest

from ralis_backend.labelstudio.token_file import TokenFile

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def test_a_token_is_kept_for_the_owner_alone_and_read_by_other_processes(tmp_path):
    path = tmp_path / "label-studio-token"
    assert TokenFile(path).read() is None
    TokenFile(path).keep(TOKEN)
    assert TokenFile(path).read() == TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["label-studio-token"]


def test_the_newest_token_is_used_and_the_same_one_is_not_written_again(tmp_path):
    path = tmp_path / "token"
    tokens = TokenFile(path)
    tokens.keep(TOKEN)
    before = path.stat().st_ino
    tokens.keep(TOKEN)
    assert path.stat().st_ino == before
    tokens.keep(TOKEN[::-1])
    assert tokens.read() == TOKEN[::-1]


@pytest.mark.parametrize("given", [None, "", "t", 7, f"{TOKEN}\nX: y", "a.b.c", "x" * 1000])
def test_what_is_no_legacy_token_is_ignored(tmp_path, given):
    tokens = TokenFile(tmp_path / "token")
    tokens.keep(TOKEN)
    tokens.keep(given)
    assert tokens.read() == TOKEN


def test_a_folder_that_cannot_be_written_is_logged_without_the_token(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    tokens = TokenFile(tmp_path / "file" / "token")
    with caplog.at_level(logging.INFO):
        tokens.keep(TOKEN)
    assert "cannot be kept" in caplog.text
    assert TOKEN not in caplog.text


def test_a_damaged_file_is_no_token(tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfe\n")
    assert TokenFile(tmp_path / "token").read() is None
