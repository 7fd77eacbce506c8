"""What others have predicted stays, never stops us, and may be what annotators begin with."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results
from ralis_backend.labelstudio.payloads.paint import others_paint
from ralis_backend.labelstudio.payloads.predictions import is_ours, model_version, version_of
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.tool import ImageSuggestion
from tests.labelstudio.fake_label_studio import FakeLabelStudio

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">'
    '<Label value="road"/><Label value="car"/></BrushLabels></View>'
)
PARSED = parse_label_config(CONFIG)
SIZE = (8, 12)
CLASSES = ("road", "car")


@pytest.fixture
def label_studio():
    fake = FakeLabelStudio()
    fake.add_project(CONFIG)
    fake.projects[1]["model_version"] = "sam"
    return fake


@pytest.fixture
def tool(label_studio, tmp_path):
    client = label_studio.client
    return LabelStudioTool(client, ImageFetcher(client, tmp_path, 0))


def painted():
    mask = np.full(SIZE, VOID, np.uint8)
    mask[1:4, 2:9] = 1
    mask[5:, :3] = 0
    return mask


def shown(results):
    return others_paint(results, CLASSES, SIZE).mask


def results(mask, **changes):
    return [{**it, **changes} for it in mask_to_results(mask, CLASSES, PARSED, key="x")]


@pytest.mark.parametrize(
    "name", ["v1", "v3", "sam", "ralis", "RALIS", "ralis-3", "ralis-v", "ralis-v1b", "", None, 7]
)
def test_model_versions_of_others_are_not_ours(name):
    assert not is_ours(name)
    assert version_of(name) is None


def test_a_version_of_ours_is_known_by_its_mark():
    assert model_version("v3") == "ralis-v3"
    assert version_of("ralis-v3") == "v3"


def suggestion(task_id):
    return ImageSuggestion(task_id, SIZE, (), None, "v3", 0.5)


@pytest.mark.parametrize("others", ["v2", "v3", "sam", "", None])
def test_in_place_ours_replace_ours_and_leave_others(label_studio, tool, others):
    theirs = {"id": 1, "task": 1, "model_version": others, "result": []}
    label_studio.predictions = [
        theirs,
        {"id": 2, "task": 1, "model_version": "ralis-v2", "result": []},
    ]
    pool = tool.project(1)
    for _ in range(2):
        tool.publish_image_predictions(pool, "v3", CLASSES, [suggestion(1)])
    assert theirs in label_studio.predictions
    versions = [it["model_version"] for it in label_studio.predictions]
    assert sorted(map(str, versions)) == sorted([str(others), "ralis-v3"])
    assert label_studio.projects[1]["model_version"] == "ralis-v3"


def test_in_a_regions_project_those_of_before_the_mark_go(label_studio, tool):
    label_studio.predictions = [
        {"id": 1, "task": 1, "model_version": name, "result": []} for name in ("v2", "sam")
    ]
    tool.publish_crop_predictions(1, "v3", CLASSES, [])
    assert [it["model_version"] for it in label_studio.predictions] == ["sam"]


def test_the_newest_prediction_of_the_version_is_what_others_mask_gives(label_studio, tool):
    old, new = np.zeros(SIZE, np.uint8), painted()
    label_studio.predictions = [
        {"id": 7, "task": 1, "model_version": "sam", "result": results(new)},
        {"id": 3, "task": 1, "model_version": "sam", "result": results(old)},
        {"id": 9, "task": 1, "model_version": "other", "result": results(old)},
        {"id": 10, "task": 2, "model_version": "sam", "result": results(old)},
    ]
    pool = tool.project(1)
    np.testing.assert_array_equal(tool.others_mask(pool, "sam", 1, CLASSES, SIZE), new)
    assert tool.others_mask(pool, "sam", 5, CLASSES, SIZE) is None
    label_studio.predictions[0]["result"] = None
    with pytest.raises(ValueError, match="prediction 7 has no list of results"):
        tool.others_mask(pool, "sam", 1, CLASSES, SIZE)


def test_a_mask_of_another_controls_name_and_polygons_are_read():
    mask = shown(results(painted(), from_name="sam", to_name="img"))
    np.testing.assert_array_equal(mask, painted())
    square = {
        "id": "a",
        "type": "polygonlabels",
        "from_name": "poly",
        "value": {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "polygonlabels": ["car"]},
    }
    expected = np.full(SIZE, VOID, np.uint8)
    expected[:4, :6] = 1
    np.testing.assert_array_equal(shown([square]), expected)


BAD = [
    None,
    7,
    {},
    {"type": "brushlabels"},
    {"type": "brushlabels", "value": {"format": "rle", "rle": [1, 2], "brushlabels": ["car"]}},
    {"type": "polygonlabels", "value": {"points": [], "polygonlabels": ["car"]}},
    {"type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["car"]}},
    {"type": [], "value": {}},
    {**results(painted())[0], "value": {"format": "rle", "rle": [], "brushlabels": ["tree"]}},
    {**results(painted())[0], "original_width": 10**9},
]


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_read_of_a_prediction_is_left_out_alone(bad):
    mask = shown([bad, *results(painted()), bad])
    np.testing.assert_array_equal(mask, painted())
    assert np.all(shown([bad]) == VOID)
    assert np.all(shown([]) == VOID)
