from __future__ import annotations

import logging
import stat

import pytest

from ralis_backend.labelstudio.token_file import MAX_REFUSED, Handover, TokenFile

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def test_a_token_is_kept_for_the_owner_alone_and_read_by_other_processes(tmp_path):
    path = tmp_path / "label-studio-token"
    assert TokenFile(path).read() is None
    TokenFile(path).keep(TOKEN)
    assert TokenFile(path).read() == TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["label-studio-token"]


def test_the_same_token_is_not_written_again(tmp_path):
    door = Door(tmp_path)
    door.offer(TOKEN)
    before = (tmp_path / "token").stat().st_ino
    door.offer(TOKEN)
    assert (tmp_path / "token").stat().st_ino == before


class Door:
    """A handover to a file, at a Label Studio that accepts the tokens in `good`."""

    def __init__(self, folder, *, may_replace=True):
        self.tokens = TokenFile(folder / "token")
        self.good = {TOKEN, TOKEN[::-1]}
        self.tried = []
        self.now = 0.0
        self.handover = Handover(
            self.tokens,
            ["http://label-studio:8080", "https://labels.test/ls"],
            self._works,
            may_replace=may_replace,
            clock=lambda: self.now,
        )

    def _works(self, token):
        self.tried.append(token)
        return None if self.good is None else token in self.good

    def offer(self, token, hostname="http://localhost:8080"):
        self.handover.offer(token, hostname)
        return self.tokens.read()


@pytest.mark.parametrize("given", [None, "", "t", 7, f"{TOKEN}\nX: y", "a.b.c", "x" * 1000])
def test_what_is_no_legacy_token_is_ignored(tmp_path, given):
    door = Door(tmp_path)
    assert door.offer(TOKEN) == TOKEN
    assert door.offer(given) == TOKEN
    assert door.tried == [TOKEN]


@pytest.mark.parametrize(
    ("hostname", "is_known"),
    [
        ("http://label-studio:8080", True),
        ("https://labels.test/ls/", True),
        ("http://localhost:8080", True),
        ("http://127.0.0.1:3000", True),
        ("http://label-studio:9999", False),
        ("http://attacker.test", False),
        ("http://localhost.attacker.test:8080", False),
        ("http://label-studio:8080@attacker.test", False),
        ("http://me:sesame@attacker.test", False),
        ("", False),
        (None, False),
        ("http://[", False),
    ],
)
def test_a_token_is_taken_of_a_known_label_studio_alone(tmp_path, hostname, is_known, caplog):
    assert Door(tmp_path).offer(TOKEN, hostname) == (TOKEN if is_known else None)
    assert ("LABEL_STUDIO_PUBLIC_URL" in caplog.text) is not is_known
    assert "sesame" not in caplog.text


def test_a_token_that_does_not_work_replaces_none_and_is_not_tried_again_at_once(tmp_path):
    door = Door(tmp_path)
    door.offer(TOKEN)
    for _ in range(5):
        assert door.offer("9" * 40) == TOKEN
    assert door.tried == [TOKEN, "9" * 40]
    door.now += 31
    door.good = {"9" * 40}
    assert door.offer("9" * 40) == "9" * 40


def test_a_token_that_cannot_be_tried_is_not_kept(tmp_path):
    door = Door(tmp_path)
    door.good = None
    assert door.offer(TOKEN) is None


def test_without_authentication_a_token_that_works_stays(tmp_path):
    door = Door(tmp_path, may_replace=False)
    assert door.offer(TOKEN) == TOKEN
    assert door.offer(TOKEN[::-1]) == TOKEN
    door.now += 31
    door.good = {TOKEN[::-1]}
    assert door.offer(TOKEN[::-1]) == TOKEN[::-1]
    assert Door(tmp_path).offer(TOKEN) == TOKEN, "with it, the newest that works is used"


def test_many_wrong_tokens_are_not_all_tried(tmp_path):
    door = Door(tmp_path)
    door.good = set()
    for number in range(100):
        door.offer(f"{number:040}")
    assert len(door.tried) == MAX_REFUSED


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
