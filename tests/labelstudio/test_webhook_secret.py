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


def test_a_damaged_file_says_what_to_do(tmp_path):
    (tmp_path / "webhook-secret").write_text("00ff")
    with pytest.raises(ValueError, match="delete it"):
        WebhookSecret(tmp_path / "webhook-secret").headers(UID)
