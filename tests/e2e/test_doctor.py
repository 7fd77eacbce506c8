"""`ralis doctor` on a real Label Studio server: what fails, and what it says to do."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.core.images import encode_png
from ralis_backend.core.policy.registry import find_strategy
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.doctor import Surroundings, checks
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from tests import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HEADERS = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="road"/><Label value="car"/></BrushLabels></View>'
)


@pytest.fixture
def around(client, tmp_path, backend_url):
    return surroundings(client, tmp_path, backend_url)


def surroundings(client, folder, backend_url):
    setup = ProjectSetup(
        client,
        backend_url=backend_url,
        user="user",
        password="secret",
        webhook_headers=lambda uid: HEADERS,
    )
    return Surroundings(
        client=client,
        tool=LabelStudioTool(client, ImageFetcher(client, folder / "images", 10**8), setup),
        setup=setup,
        backend_url=backend_url,
        headers=lambda uid: HEADERS,
        data_dir=folder,
        spec=SegmenterSpec(2, encoder_weights=None),
        device="cpu",
        strategy=lambda classes: find_strategy("entropy", folder, classes, (128, 128)).name,
    )


def failures(around, project_id):
    return {it.name: it for it in checks(around, project_id) if not it.is_ok}


@pytest.fixture
def project_id(client):
    made = client.create_project("To be examined", CONFIG)["id"]
    content = encode_png(np.zeros((30, 40, 3), np.uint8))
    client.upload_files(made, [("road.png", content)])
    yield made
    client.delete_project(made)


def test_a_connected_project_passes_every_check(around, project_id):
    around.setup.connect(around.tool.project(project_id), "in-place")
    found = list(checks(around, project_id))
    assert [it.name for it in found if not it.is_ok] == []
    details = {it.name: it.detail for it in found}
    assert "legacy token of admin@example.com" in details["token"]
    assert details["label config"] == "2 labels: road, car"
    assert "40 x 30 pixels" in details["image download"]


def test_a_project_that_is_not_connected_is_told_to(around, project_id):
    found = failures(around, project_id)
    assert set(found) == {"ML backend", "webhook"}
    for check in found.values():
        assert f"ralis connect --project {project_id}" in check.fix


def test_a_backend_that_is_down_is_not_said_to_be_reached(client, tmp_path, project_id):
    found = list(
        checks(surroundings(client, tmp_path, f"http://127.0.0.1:{free_port()}"), project_id)
    )
    assert "backend" in {it.name for it in found if not it.is_ok}
    assert [it for it in found if it.is_ok and "reaches this backend" in it.detail] == []


def test_a_connected_backend_without_webhook_is_noticed(around, client, project_id):
    around.setup.connect(around.tool.project(project_id), "in-place")
    for hook in client.webhooks(project_id):
        client.delete_webhook(hook["id"])
    found = failures(around, project_id)
    assert set(found) == {"webhook"}
    assert "SSRF_PROTECTION_ENABLED=false" in found["webhook"].fix


def test_a_webhook_without_credentials_is_noticed(around, client, project_id):
    around.setup.connect(around.tool.project(project_id), "in-place")
    (hook,) = client.webhooks(project_id)
    client.update_webhook(hook["id"], hook["url"], {})
    assert "own secret" in failures(around, project_id)["webhook"].detail


def test_an_image_that_is_gone_and_a_config_that_cannot_be_used_are_named(around, client):
    two = CONFIG.replace("</View>", '<PolygonLabels name="b" toName="image"/></View>')
    made = client.create_project("Two controls", two)["id"]
    assert "b" in failures(around, made)["label config"].detail
    client.update_project(made, label_config=CONFIG)
    client.import_tasks(made, [{"data": {"image": "https://elsewhere.test/a.png"}}])
    check = failures(around, made)["image download"]
    assert "RALIS_IMAGE_HOSTS" in check.detail
    client.delete_project(made)


def test_a_policy_that_does_not_fit_the_labels_is_named(around, client, project_id):
    policies = REPOSITORY / "policies"
    wrong = replace(
        around,
        strategy=lambda classes: find_strategy("ralis", policies, classes, (128, 128)).name,
    )
    check = failures(wrong, project_id)["strategy"]
    assert "policy ralis was trained for the 11 classes" in check.detail
    assert "RALIS_STRATEGY" in check.fix


def test_a_project_that_does_not_exist_is_a_failed_check_and_no_crash(around):
    found = failures(around, 999_999)
    assert "404" in found["project"].detail


def test_a_wrong_token_ends_the_examination_with_what_to_do(label_studio, tmp_path, backend_url):
    client = LabelStudioClient(label_studio.url, "f" * 40)
    found = list(checks(surroundings(client, tmp_path, backend_url), 1))
    assert found[-1].name == "token"
    assert not found[-1].is_ok
    assert "Account & Settings" in found[-1].fix
    client.close()
