"""A first look without LABEL_STUDIO_API_KEY: the token that Label Studio hands over at /setup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ralis_backend.app import create_app
from ralis_backend.cli.demo.label_studio import LabelStudioServer
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import Unauthorised
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.settings import Settings
from ralis_backend.wiring import create_client, create_fetcher
from tests.e2e.pool import config, png
from tests.local_server import serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@contextmanager
def no_legacy_tokens(url: str, personal_token: str) -> Iterator[None]:
    """As where an organisation has switched them off; as they were, after the block."""
    with closing(LabelStudioClient(url, personal_token)) as admin:
        before = admin._get("/api/jwt/settings")
        admin._send("POST", "/api/jwt/settings", {**before, "legacy_api_tokens_enabled": False})
        try:
            yield
        finally:
            admin._send("POST", "/api/jwt/settings", before)


@pytest.fixture
def settings(
    label_studio: LabelStudioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    return Settings(_env_file=None, label_studio_url=label_studio.url, data_dir=tmp_path / "ralis")


@pytest.fixture
def backend_url(settings: Settings, closed_stores: None) -> Iterator[str]:
    with serving(create_app(settings)) as url:
        yield url


def test_connecting_lends_the_token_for_as_long_as_legacy_tokens_are_on(
    label_studio: LabelStudioServer,
    client: LabelStudioClient,
    personal_token: str,
    settings: Settings,
    backend_url: str,
) -> None:
    project_id = client.create_project("Without key", config("road"))["id"]
    _, content = png()
    client.upload_files(project_id, [("road.png", content)])
    with closing(create_client(settings)) as ours:
        tool = LabelStudioTool(ours, create_fetcher(settings, ours))
        with pytest.raises(Unauthorised, match="LABEL_STUDIO_API_KEY is not set"):
            ours.project(project_id)

        client.create_backend(project_id, backend_url, "RALIS")
        assert ours.project(project_id)["title"] == "Without key"
        (task,) = tool.tasks(project_id)
        assert tool.image(task) == content
        assert tool.prepare(tool.project(project_id), settings.mode, None) is None  # in-place

        with (
            no_legacy_tokens(label_studio.url, personal_token),
            pytest.raises(Unauthorised, match="legacy tokens are off"),
        ):
            ours.project(project_id)
    client.delete_project(project_id)
