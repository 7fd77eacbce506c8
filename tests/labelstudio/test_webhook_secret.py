import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from ralis_backend.labelstudio.webhook_secret import WebhookSecret

UID = "3.1763700000"


def bearer(headers):
    return headers["Authorization"].removeprefix("Bearer ")


def test_each_project_has_a_secret_of_its_own_that_other_processes_know(tmp_path):
    secret, other = (WebhookSecret(tmp_path / "webhook-secret") for _ in range(2))
    own = bearer(secret.headers(UID))
    assert other.opens(own) == UID
    assert bearer(secret.headers("4.1763700000")) != own
    assert stat.S_IMODE((tmp_path / "webhook-secret").stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["webhook-secret"]


def test_what_was_not_given_out_opens_nothing(tmp_path):
    secret = WebhookSecret(tmp_path / "webhook-secret")
    own = bearer(secret.headers(UID))
    digest = own.partition("/")[2]
    for wrong in ("", "/", UID, digest, f"4.1/{digest}", own[:-1], own + "0", own.upper(), "ü/ü"):
        assert secret.opens(wrong) is None
    assert secret.opens(f"{UID}/{secret.fingerprint()}") is None


def test_processes_that_begin_together_agree(tmp_path):
    made = [WebhookSecret(tmp_path / "webhook-secret") for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        headers = list(pool.map(lambda secret: bearer(secret.headers(UID)), made))
    assert len(set(headers)) == 1


def test_without_its_file_there_is_a_new_one(tmp_path):
    path = tmp_path / "webhook-secret"
    before = WebhookSecret(path)
    own, fingerprint = bearer(before.headers(UID)), before.fingerprint()
    path.unlink()
    assert WebhookSecret(path).opens(own) is None
    assert WebhookSecret(path).fingerprint() != fingerprint


@pytest.mark.parametrize(
    "content", [b"", b"00ff", b"zz" * 32, b"\xff" * 64, b"0" * 63, b"0" * 65, b"00 " * 32]
)
def test_a_damaged_file_says_which_one_what_is_expected_and_what_to_do(tmp_path, content):
    path = tmp_path / "webhook-secret"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"delete it, and start web and worker again") as caught:
        WebhookSecret(path).headers(UID)
    assert str(caught.value).startswith(f"{path} is damaged: expected 64 hexadecimal digits")
    assert content.decode("latin-1") not in str(caught.value) or not content


def test_a_line_end_that_an_editor_adds_does_no_harm(tmp_path):
    path = tmp_path / "webhook-secret"
    headers = WebhookSecret(path).headers(UID)
    path.write_bytes(path.read_bytes() + b"\r\n")
    assert WebhookSecret(path).headers(UID) == headers


def test_a_secret_that_cannot_be_read_says_whose_it_must_be(tmp_path):
    (tmp_path / "webhook-secret").mkdir()
    with pytest.raises(ValueError, match=r"webhook-secret cannot be read .*must be a file of the"):
        WebhookSecret(tmp_path / "webhook-secret").headers(UID)
