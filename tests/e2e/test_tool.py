"""The worker's tool on a real Label Studio server."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import httpx
import numpy as np
import pytest

from ralis_backend.cli.demo import label_studio as server_module
from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.core.images import decode_image
from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import LabelStudioError, NotFound, Unauthorised
from ralis_backend.labelstudio.payloads.tasks import project_uid
from tests.e2e.conftest import LABEL_STUDIO, PASSWORD, TOKEN, USERNAME
from tests.e2e.pool import (
    BACKEND,
    CLASSES,
    HEADERS,
    annotations_of,
    config,
    crops,
    make_setup,
    make_tool,
    png,
    predictions,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def stream(client, project_id, count):
    """The tasks that an annotator meets, submitting each as it came."""
    met = []
    for _ in range(count):
        task = client.next_task(project_id)
        suggested = task["predictions"][0]
        client.annotate(
            task["id"],
            result=suggested["result"],
            lead_time=2.5,
            parent_prediction=suggested["id"],
        )
        met.append((task["id"], suggested["model_version"]))
    return met


# Setting up


def test_preparing_again_changes_nothing(client, tool, pool, regions):
    before = client.project(regions), client.webhooks(regions), client.webhooks(pool.id)
    assert tool.prepare(pool, "crops", regions) == regions
    assert tool.prepare(pool, "crops", None) == regions  # found by the mark in its description
    assert tool.prepare(pool, "crops", pool.id) == regions  # not any project will do
    assert (client.project(regions), client.webhooks(regions), client.webhooks(pool.id)) == before


def test_both_projects_have_one_webhook_with_our_header(client, tool, pool, regions):
    for project_id in (pool.id, regions):
        (hook,) = client.webhooks(project_id)
        assert hook["url"] == f"{BACKEND}/webhook"
        assert hook["headers"] == HEADERS
        assert hook["send_for_all_actions"]
        assert hook["send_payload"]
    client.create_webhook(pool.id, f"{BACKEND}/webhook", {})
    client.update_webhook(client.webhooks(regions)[0]["id"], f"{BACKEND}/webhook/", {"a": "b"})
    tool.prepare(pool, "crops", regions)
    for project_id in (pool.id, regions):
        (hook,) = client.webhooks(project_id)
        assert hook["headers"] == HEADERS


def test_the_regions_project_serves_the_most_useful_and_the_pool_stays_as_it_is(
    client, tool, pool, regions
):
    made = client.project(regions)
    assert made["title"] == "A pool · regions"
    assert made["sampling"] == "Uncertainty sampling"
    assert made["show_collab_predictions"]
    assert not made["evaluate_predictions_automatically"]
    assert tool.project(regions).classes == pool.classes
    assert client.project(pool.id)["sampling"] == "Sequential sampling"
    assert tool.prepare(pool, "in-place", None) is None
    assert client.project(pool.id)["sampling"] == "Uncertainty sampling"


def test_a_deleted_regions_project_is_made_anew(client, tool, pool, regions):
    client.delete_project(regions)
    fresh = tool.prepare(pool, "crops", regions)
    assert project_uid(client.project(fresh)).startswith(f"{fresh}.")
    assert tool.prepare(pool, "crops", None) == fresh
    client.delete_project(fresh)


def test_labels_follow_the_pool_and_old_annotations_stay_readable(client, tool, pool, regions):
    (task,) = tool.create_crop_tasks(pool, regions, crops(1))
    sent = predictions([task], [0.5])
    tool.publish_crop_predictions(regions, "v1", CLASSES, sent)
    stream(client, regions, 1)  # uses road and car
    client.update_project(pool.id, label_config=config("car", "tree"))
    tool.prepare(tool.project(pool.id), "crops", regions)
    made = tool.project(regions)
    assert [label.name for label in made.classes] == ["car", "tree"]
    (annotation,) = annotations_of(tool, regions)
    mask = tool.mask(annotation, made, (*CLASSES, "tree"), (20, 20), None).mask
    np.testing.assert_array_equal(mask, sent[0].mask)


def test_connecting_twice_leaves_one_backend_and_the_version_in_use(client, pool, backend_url):
    setup = make_setup(client, backend_url=backend_url, user="user", password="secret")
    setup.connect(pool, "in-place")
    (backend,) = client.backends(pool.id)
    assert (backend["title"], backend["state"]) == ("RALIS", "CO")
    (task_id,) = client.import_tasks(pool.id, [{"data": {"image": "/data/upload/1/a.png"}}])
    prediction = {"task": task_id, "result": [], "score": 0.5, "model_version": "v1"}
    client.import_predictions(pool.id, [prediction])
    client.update_project(pool.id, model_version="v1")
    setup.connect(pool, "in-place")
    assert len(client.backends(pool.id)) == 1
    (hook,) = client.webhooks(pool.id)
    assert hook["headers"] == HEADERS
    assert client.project(pool.id)["model_version"] == "v1"


def test_wrong_credentials_are_reported_when_connecting(client, pool, backend_url):
    setup = make_setup(client, backend_url=backend_url, user="user", password="wrong")
    with pytest.raises(LabelStudioError, match="400"):
        setup.connect(pool, "in-place")


# Tasks and predictions


def test_crop_tasks_come_in_order_with_what_an_annotator_sees(client, tool, pool, regions):
    client.import_tasks(regions, [{"data": {"image": "a", "context": "b", "note": "c"}}])
    wanted = crops(12)
    made = tool.create_crop_tasks(pool, regions, wanted)
    assert [task.data["rank"] for task in made] == list(range(1, 13))
    stored = {task.id: task for task in tool.tasks(regions)}
    for crop, task in zip(wanted, made, strict=True):
        assert stored[task.id] == task
        assert task.data["note"].startswith(f"Round 1 · region {crop.rank} · uncertain")
        region = Region(*(task.data[name] for name in ("row", "col", "height", "width")))
        assert region == crop.region
        assert (task.data["source_task"], task.data["version"]) == (11, "v1")
        shown = replace(task, project_id=regions)  # its uploads
        pixels = decode_image(tool.image(shown)).astype(float)
        assert pixels.shape == crop.image.shape
        assert np.abs(pixels - crop.image).mean() < 25  # JPEG of noise; another crop has > 50
    context = httpx.get(
        client.url + made[0].data["context"], headers={"Authorization": f"Token {TOKEN}"}
    )
    assert decode_image(context.content).shape == wanted[0].context.shape
    assert tool.create_crop_tasks(pool, regions, []) == []
    assert list(client.tasks(pool.id)) == []  # uploading made no tasks there


def test_the_label_stream_follows_usefulness_and_a_new_version_its_own(client, tool, pool, regions):
    tasks = tool.create_crop_tasks(pool, regions, crops(8))
    ids = [task.id for task in tasks]
    first = [0.5, 0.9, 0.1, 0.8, 0.3, 0.2, 0.7, 0.4]
    tool.publish_crop_predictions(regions, "v1", CLASSES, predictions(tasks, first))
    best = [ids[index] for index in np.argsort(first)[::-1]]
    assert stream(client, regions, 3) == [(task_id, "ralis-v1") for task_id in best[:3]]
    second = [0.1, 0.0, 0.9, 0.0, 0.8, 0.7, 0.0, 0.6]
    tool.publish_crop_predictions(regions, "v2", CLASSES, predictions(tasks, second))
    assert client.project(regions)["model_version"] == "ralis-v2"
    assert client.model_versions(regions) == {"ralis-v2": 8}
    expected = [task_id for task_id in (ids[i] for i in np.argsort(second)[::-1])]
    rest = [task_id for task_id in expected if task_id not in best[:3]]
    assert stream(client, regions, 5) == [(task_id, "ralis-v2") for task_id in rest]
    assert client.next_task(regions) is None
    # Labels made from v1 still say so, though its predictions are gone.
    found = {it.task_id: it for it in annotations_of(tool, regions)}
    assert found[best[0]].suggested_version == "v1"
    assert found[rest[0]].suggested_version == "v2"


def test_publishing_a_version_again_stores_it_once(client, tool, pool, regions):
    tasks = tool.create_crop_tasks(pool, regions, crops(3))
    for _ in range(2):
        tool.publish_crop_predictions(regions, "v1", CLASSES, predictions(tasks, [0.1, 0.2, 0.3]))
    assert client.model_versions(regions) == {"ralis-v1": 3}


def test_an_untouched_suggestion_comes_back_as_the_mask_that_was_sent(tool, client, pool, regions):
    tasks = tool.create_crop_tasks(pool, regions, crops(1))
    sent = predictions(tasks, [0.5])
    tool.publish_crop_predictions(regions, "v1", CLASSES, sent)
    stream(client, regions, 1)
    (annotation,) = annotations_of(tool, regions)
    assert (annotation.lead_time_s, annotation.is_skipped) == (2.5, False)
    mask = tool.mask(annotation, tool.project(regions), CLASSES, (20, 20), None).mask
    np.testing.assert_array_equal(mask, sent[0].mask)


def test_predictions_that_label_studio_drops_are_reported(client, pool):
    (task_id,) = client.import_tasks(pool.id, [{"data": {"image": "/data/upload/1/a.png"}}])
    wrong = {"from_name": "other", "to_name": "image", "type": "brushlabels", "value": {}}
    with pytest.raises(LabelStudioError, match="0 of 1 predictions"):
        client.import_predictions(pool.id, [{"task": task_id, "result": [wrong], "score": 0.5}])


def test_only_untouched_tasks_are_deleted(client, tool, pool, regions):
    tasks = tool.create_crop_tasks(pool, regions, crops(6))
    labelled, skipped, drafted, untouched, gone, kept = (task.id for task in tasks)
    client.annotate(labelled, result=[], lead_time=1)
    client.annotate(skipped, result=[], was_cancelled=True)
    client._send("POST", f"/api/tasks/{drafted}/drafts", {"result": [], "lead_time": 1})
    client.delete_tasks(regions, [gone])
    asked = [labelled, skipped, drafted, untouched, gone]
    assert tool.begun_tasks(regions, [untouched, gone]) == []
    assert tool.begun_tasks(regions, asked) == [labelled, skipped, drafted]
    assert tool.delete_unopened_tasks(regions, asked) == [untouched, gone]
    assert [task.id for task in tool.tasks(regions)] == [labelled, skipped, drafted, kept]
    assert tool.delete_unopened_tasks(regions, asked) == [untouched, gone]
    assert tool.delete_unopened_tasks(regions, []) == []


def test_annotations_are_those_submitted_and_skipped_but_no_drafts(client, tool, pool):
    data = [{"data": {"image": f"/data/upload/1/{number}.png"}} for number in range(4)]
    submitted, skipped, drafted, _ = client.import_tasks(pool.id, data)
    client.annotate(submitted, result=[], lead_time=7.5)
    client.annotate(submitted, result=[], lead_time=8.5)
    client.annotate(skipped, result=[], was_cancelled=True)
    client._send("POST", f"/api/tasks/{drafted}/drafts", {"result": [], "lead_time": 1})
    created = {task.id: task.created_at for task in tool.tasks(pool.id)}
    found = sorted(annotations_of(tool, pool.id), key=lambda annotation: annotation.id)
    assert [it.task_id for it in found] == [submitted, submitted, skipped]
    assert [it.is_skipped for it in found] == [False, False, True]
    assert [it.lead_time_s for it in found] == [7.5, 8.5, None]
    for annotation in found:
        assert annotation.task_created_at == created[annotation.task_id]
        assert annotation.annotator
        assert annotation.suggested_version is None


# Tokens and images


def test_a_personal_token_works_for_calls_and_images(label_studio, pool, personal_token, tmp_path):
    client = LabelStudioClient(label_studio.url, personal_token)
    assert client.auth.is_personal
    assert client.whoami()["email"] == USERNAME
    pixels, content = png()
    client.upload_files(pool.id, [("road.png", content)])
    tool = make_tool(client, tmp_path)
    (task,) = tool.tasks(pool.id)
    np.testing.assert_array_equal(decode_image(tool.image(task)), pixels)
    client.auth._access = "expired"
    assert client.project(pool.id)["id"] == pool.id
    client.close()


@pytest.mark.parametrize("token", ["f" * 40, "a.b.c"])
def test_tokens_of_both_kinds_that_are_wrong_are_refused(label_studio, token):
    client = LabelStudioClient(label_studio.url, token)
    with pytest.raises(Unauthorised, match="LABEL_STUDIO_API_KEY"):
        client.whoami()
    client.close()


def test_images_that_are_gone_or_in_no_storage_are_not_found(client, tool, pool):
    references = [f"/data/upload/{pool.id}/0123abcd-gone.png", "s3://no-such-storage/a.png"]
    client.import_tasks(pool.id, [{"data": {"image": it}} for it in references])
    for task in tool.tasks(pool.id):
        with pytest.raises(NotFound):
            tool.image(task)


@pytest.fixture(scope="module")
def careful_label_studio(label_studio_data, tmp_path_factory):
    """As installed, but for one of the two switches: addresses inside are refused as webhooks."""
    folder = tmp_path_factory.mktemp("careful")
    shutil.copytree(label_studio_data, folder / "data")
    files = folder / "files"
    files.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(server_module._SWITCHES, "SSRF_PROTECTION_ENABLED", "true")
        with LabelStudioServer(
            *(LABEL_STUDIO, folder / "data", free_port(), USERNAME, PASSWORD, TOKEN),
            local_files_root=folder,
        ) as server:
            yield server, files


@pytest.fixture
def careful(careful_label_studio):
    server, files = careful_label_studio
    client = LabelStudioClient(server.url, TOKEN)
    yield client, files
    client.close()


def test_local_files_are_read_once_their_storage_is_connected(careful, tmp_path):
    client, files = careful
    pixels, content = png()
    (files / "road 1.png").write_bytes(content)
    project_id = client.create_project("Local files", config(*CLASSES))["id"]
    reference = "/data/local-files/?d=files%2Froad%201.png"
    client.import_tasks(project_id, [{"data": {"image": reference}}])
    tool = make_tool(client, tmp_path)
    (task,) = tool.tasks(project_id)
    with pytest.raises((NotFound, Unauthorised)):
        tool.image(task)
    client._send(
        *("POST", "/api/storages/localfiles"),
        {"project": project_id, "path": str(files), "use_blob_urls": True, "title": "files"},
    )
    np.testing.assert_array_equal(decode_image(tool.image(task)), pixels)


def test_a_blocked_address_names_both_switches_also_when_tried_again(
    careful, tmp_path, backend_url
):
    client, _ = careful
    project_id = client.create_project("Blocked", config(*CLASSES))["id"]
    project = make_tool(client, tmp_path).project(project_id)
    setup = make_setup(client, backend_url=backend_url, user="user", password="secret")
    for _ in range(2):  # at the first refusal, Label Studio stores the backend all the same
        with pytest.raises(Unauthorised, match=r"ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION"):
            setup.connect(project, "in-place")
    assert client.webhooks(project_id) == []


# How long it takes


def test_five_hundred_annotations_are_read_in_seconds(client, tool, pool):
    ids = client.import_tasks(
        pool.id,
        [
            {
                "data": {"image": f"/data/upload/1/{number}.png"},
                "annotations": [{"result": [], "lead_time": 1.0}],
            }
            for number in range(500)
        ],
    )
    start = time.monotonic()
    found = list(annotations_of(tool, pool.id))
    assert time.monotonic() - start < 30
    assert [annotation.task_id for annotation in found] == ids
