"""Label configs that people have, and odd annotations, on a real Label Studio server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.payloads.label_config import Control, LabelConfig, parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.labelstudio.tool import LabelStudioTool
from tests.e2e.pool import annotations_of, crops, predictions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LABELS = '<Label value="road"/><Label value="car"/>'
IMAGE = '<Image name="image" value="$image"/>'


def of(*tags: str) -> str:
    controls = "".join(f'<{tag} name="{tag}" toName="image">{LABELS}</{tag}>' for tag in tags)
    return f"<View>{IMAGE}{controls}</View>"


def connected(client: LabelStudioClient, tool: LabelStudioTool, xml: str) -> tuple[Any, int]:
    pool = tool.project(int(client.create_project("A pool", xml)["id"]))
    regions = tool.prepare(pool, "crops", None)
    assert regions is not None
    written = client.project(regions)["label_config"]
    assert tool.prepare(pool, "crops", regions) == regions
    assert client.project(regions)["label_config"] == written, "it is left alone"
    return pool, regions


def drawn_with(config: LabelConfig, control: Control) -> LabelConfig:
    """The config as if it had this control alone."""
    return LabelConfig(
        config.image_name, config.image_key, (control,), config.labels, None, config.region_label
    )


@pytest.mark.parametrize(
    "name",
    ["alias-hotkey-hint", "bitmask", "brush-and-polygon", "magic-wand", "smart-controls", None],
)
def test_masks_of_every_control_come_back_as_they_were_drawn(client, tool, shared, name):
    xml = of("BitmaskLabels", "PolygonLabels", "BrushLabels")
    if name is not None:
        xml = (shared / "cases/configs" / f"{name}.xml").read_text()
    pool, regions = connected(client, tool, xml)
    names = [label.name for label in pool.classes]
    config = parse_label_config(xml)
    tasks = tool.create_crop_tasks(pool, regions, crops(len(config.controls)))
    sent = predictions(tasks, [0.5] * len(tasks))
    tool.publish_crop_predictions(regions, "v1", names, sent)
    suggested = client.task(tasks[0].id)["predictions"][0]["result"]
    assert {it["type"] for it in suggested} == {config.control_type}
    for task, control, prediction in zip(tasks, config.controls, sent, strict=True):
        alone = drawn_with(config, control)
        results = mask_to_results(prediction.mask, names, alone, key="k", scale=prediction.scale)
        client.annotate(task.id, result=results)
    for annotation in annotations_of(tool, regions):
        painted = tool.mask(annotation, pool, names, (20, 20), None)
        assert painted.left_out == ()
        np.testing.assert_array_equal(painted.mask, sent[0].mask)
    client.delete_project(regions)
    client.delete_project(pool.id)


def test_a_pool_with_a_second_data_key_gets_its_crops(client, tool):
    xml = of("BrushLabels").replace(IMAGE, f'<Text name="caption" value="$caption"/>{IMAGE}')
    pool, regions = connected(client, tool, xml)
    client.import_tasks(pool.id, [{"data": {"image": "/data/upload/1/a.png", "caption": "A"}}])
    (task,) = tool.create_crop_tasks(pool, regions, crops(1))
    assert client.download(task.image, 10**7).status_code == 200
    assert f"/upload/{regions}/" in task.image
    client.delete_project(regions)
    client.delete_project(pool.id)


def test_odd_annotations_are_read_in_part_and_named(client, tool, shared):
    xml = of("PolygonLabels").replace('name="PolygonLabels"', 'name="tag"')
    xml = xml.replace(
        "</View>", '<Choices name="c" toName="image"><Choice value="yes"/></Choices></View>'
    )
    pool, regions = connected(client, tool, xml)
    cases = sorted((shared / "cases/annotations").glob("*.json"))
    tasks = client.import_tasks(pool.id, [{"data": {"image": "a"}} for _ in cases])
    for task_id, path in zip(tasks, cases, strict=True):
        client.annotate(task_id, result=json.loads(path.read_text())["result"])
    read = {
        path.stem: tool.mask(annotation, pool, ["road", "car"], (8, 12), None)
        for path, annotation in zip(cases, annotations_of(tool, pool.id), strict=True)
    }
    assert {name for name, it in read.items() if it.left_out} == {
        "brush-removed-label",
        "brush-two-labels",
        "polygon-no-points",
        "polygon-two-points-open",
    }
    painted = {name for name, it in read.items() if (it.mask != VOID).any()}
    assert painted == read.keys() - {"relation-and-choices-only", "brush-removed-label"}
    client.delete_project(regions)
    client.delete_project(pool.id)
