"""What several people leave in a real Label Studio: skips, stars, bulk annotations, overlap."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.store import Store
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.people import People
from ralis_backend.online.worker.sync import Sync
from tests.e2e.pool import CLASSES, crops, png, predictions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def bob(label_studio):
    """A second annotator, who signed up as people do."""
    with httpx.Client(base_url=label_studio.url, follow_redirects=True) as browser:
        browser.get("/user/signup/")
        form = {
            "email": "bob@example.com",
            "password": "ralis-test-2",
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        browser.post("/user/signup/", data=form, headers={"Referer": label_studio.url})
        token = browser.get("/api/current-user/token").json()["token"]
    opened = LabelStudioClient(label_studio.url, token)
    yield opened
    opened.close()


def queue(tool, pool, regions, count):
    tasks = tool.create_crop_tasks(pool, regions, crops(count))
    found = predictions(tasks, [1 - place / count for place in range(count)])
    tool.publish_crop_predictions(regions, "v1", CLASSES, found)
    return [task.id for task in tasks]


def read(tool, project_id, task_id):
    """The annotations of one task, by id."""
    (found,) = tool.annotations(project_id, [task_id])
    return {annotation.id: annotation for annotation in found.annotations}


def update(client, annotation_id, **fields):
    client._send("PATCH", f"/api/annotations/{annotation_id}/", fields)


def test_what_one_skips_is_not_handed_to_the_next_even_if_it_once_was(
    client, bob, tool, pool, regions
):
    first, second = queue(tool, pool, regions, 2)
    assert client.project(regions)["skip_queue"] == "IGNORE_SKIPPED"
    assert client.next_task(regions)["id"] == first
    client.annotate(first, result=[], was_cancelled=True)
    assert bob.next_task(regions)["id"] == second
    client.update_project(regions, skip_queue="REQUEUE_FOR_OTHERS")  # somebody's click
    tool.prepare(pool, "crops", regions)
    assert client.project(regions)["skip_queue"] == "IGNORE_SKIPPED"
    bob.annotate(second, result=[], lead_time=1)
    assert bob.next_task(regions) is None


def test_a_star_is_read_and_goes_with_the_next_one(client, bob, tool, pool):
    (task,) = client.import_tasks(pool.id, [{"data": {"image": "/data/upload/1/1.png"}}])
    ann = client.annotate(task, result=[], lead_time=3)["id"]
    other = bob.annotate(task, result=[], lead_time=4)["id"]
    before = read(tool, pool.id, task)
    assert [before[it].is_starred for it in (ann, other)] == [False, False]
    states = [next(tool.tasks(pool.id)).state]
    for starred in (ann, other):
        update(client, starred, ground_truth=True)
        states.append(next(tool.tasks(pool.id)).state)
        found = read(tool, pool.id, task)
        assert [it for it in (ann, other) if found[it].is_starred] == [starred]
    update(client, other, ground_truth=False)
    states.append(next(tool.tasks(pool.id)).state)
    found = read(tool, pool.id, task)
    assert not any(it.is_starred for it in found.values())
    assert found[other].updated_at > before[other].updated_at  # though nobody painted
    assert len(set(states)) == 4  # each is seen in the list of tasks


def test_annotations_made_from_predictions_in_bulk_are_told_from_peoples(
    client, bob, tool, pool, regions
):
    tasks = queue(tool, pool, regions, 4)
    client._request(
        "POST",
        "/api/dm/actions",
        params={"id": "predictions_to_annotations", "project": regions},
        json={
            "selectedItems": {"all": True, "excluded": []},
            "project": str(regions),
            "model_version": "ralis-v1",
        },
    )
    made = [next(iter(read(tool, regions, task).values())) for task in tasks]
    assert all(it.is_machine and it.lead_time_s is None for it in made)
    assert client.next_task(regions) is None  # to Label Studio, all of it is done
    left, updated, starred, skipped = made
    update(bob, updated.id, result=list(updated.results), lead_time=2.5)
    update(bob, starred.id, ground_truth=True)
    update(bob, skipped.id, was_cancelled=True)
    found = [read(tool, regions, task)[it.id] for task, it in zip(tasks, made, strict=True)]
    assert [it.is_machine for it in found] == [True, False, False, False]
    assert found[1].annotator == left.annotator  # who pressed the button, not who updated
    client.delete_predictions(regions, "ralis-v1")
    assert not read(tool, regions, tasks[0])[left.id].is_machine  # nothing tells any more


def test_with_an_overlap_of_two_a_region_is_handed_to_two_people(client, bob, tool, pool, regions):
    client.update_project(regions, maximum_annotations=2)
    first, second = queue(tool, pool, regions, 2)
    for _ in range(2):
        for who in (client, bob):
            task = who.next_task(regions)["id"]
            who.annotate(task, result=[], lead_time=1)
    assert client.next_task(regions) is None
    assert bob.next_task(regions) is None
    for task in (first, second):
        assert len({it.annotator for it in read(tool, regions, task).values()}) == 2


def test_the_owners_description_is_kept_beside_our_line(client, tool, pool):
    client.update_project(pool.id, description="Streets. Ask Ann.")
    tool.describe(pool.id, "Model v1")
    tool.describe(pool.id, 'Model v2, "A pool · regions"')
    expected = 'Streets. Ask Ann.\n\n[RALIS: Model v2, "A pool · regions"]'
    assert client.project(pool.id)["description"] == expected
    calls = []
    tool.watched(lambda is_change: calls.append(is_change)).describe(
        pool.id, 'Model v2, "A pool · regions"'
    )
    assert calls == [False]  # nothing is written where nothing has changed


def test_two_people_on_whole_images_agree_as_they_painted_and_a_star_decides(
    client, bob, tool, pool, tmp_path
):
    _, content = png(40, 40)
    client.upload_files(pool.id, [("one.png", content), ("again.png", content)])
    first, again = sorted(task.id for task in tool.tasks(pool.id))
    label_config = parse_label_config(pool.label_config)
    masks = np.zeros((2, 40, 40), np.uint8)
    masks[1, 20:] = 1  # half of the pixels alike
    ids = [
        who.annotate(
            first, result=mask_to_results(mask, CLASSES, label_config, key="x"), lead_time=5
        )["id"]
        for who, mask in ((client, masks[0]), (bob, masks[1]))
    ]
    client.annotate(
        again, result=mask_to_results(masks[0], CLASSES, label_config, key="y"), lead_time=5
    )
    store = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    project = store.projects.register(
        pool.uid, pool.id, pool.label_config, pool.classes, pool.title
    )
    rules = WorkerConfig(mode="in-place", ranking=RankingConfig(region_size=(40, 40)))
    sync, people = Sync(store, tool, rules), People(store)

    def of_bob():
        sync.changes(project)
        people.count(project)
        labels = [it for it in store.labels.of(project.id) if it.region.height == 40]
        (of_first,) = [it for it in labels if store.images.get(it.image_id).task_id == first]
        return bool(store.labels.mask(of_first).any())

    assert of_bob()  # the newest
    update(client, ids[0], ground_truth=True)
    assert not of_bob()
    update(client, ids[0], ground_truth=False)
    assert of_bob()
    figures = store.projects.by_id(project.id).people
    assert figures["double_images"] == 1
    agreement = figures["agreement"]
    assert (agreement["regions"], agreement["pixel_agreement"]) == (1, 0.5)
    assert agreement["iou"] == {"road": 0.5, "car": 0.0}
    sides = {image.is_validation for image in store.images.of(project.id)}
    assert sides == {False}
    store.close()
