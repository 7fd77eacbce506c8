from __future__ import annotations

import json

import numpy as np
import pytest

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads import predictions as module
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.predictions import (
    MAX_STROKES,
    batches,
    crop_prediction,
    image_prediction,
    score,
)
from ralis_backend.online.tool import CropPrediction, ImageSuggestion, SuggestedRegion
from tests.labelstudio.payloads.reading import region_boxes, results_to_mask

CLASSES = ["road", "car", "tree"]
SIZE = (12, 20)
LABELS = "".join(f'<Label value="{name}"/>' for name in CLASSES)
IMAGE = '<Image name="image" value="$image"/>'
RECTANGLES = (
    '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
    "</RectangleLabels>"
)
BRUSH = f'<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels>'
POLYGON = f'<PolygonLabels name="mask" toName="image">{LABELS}</PolygonLabels>'
PLAIN = parse_label_config(f"<View>{IMAGE}{BRUSH}</View>")
IN_PLACE = parse_label_config(f"<View>{IMAGE}{RECTANGLES}{BRUSH}</View>")
BITMASKS = parse_label_config(
    f"<View>{IMAGE}{RECTANGLES}{BRUSH.replace('Brush', 'Bitmask')}</View>"
)
POLYGONS = parse_label_config(f"<View>{IMAGE}{RECTANGLES}{POLYGON}</View>")


def _suggestion(
    num_regions: int = 2, *, with_mask: bool = True, usefulness: float = 0.75
) -> ImageSuggestion:
    regions = tuple(
        SuggestedRegion(Region(4 * (rank // 5), 4 * (rank % 5), 4, 4), rank + 1, 0.5, "uncertain")
        for rank in range(num_regions)
    )
    return ImageSuggestion(
        task_id=7,
        image_size=SIZE,
        regions=regions,
        mask=np.tile(np.arange(20) % 3, (12, 1)).astype(np.uint8) if with_mask else None,
        version="v3",
        usefulness=usefulness,
    )


def _crop(mask: np.ndarray | None, usefulness: float = 0.25) -> CropPrediction:
    return CropPrediction(
        task_id=5,
        region=Region(4, 8, 2, 3),
        scale=4,
        mask=mask,
        usefulness=usefulness,
        rank=1,
        reason="uncertain",
    )


def test_the_most_useful_gets_the_lowest_score():
    assert [score(it) for it in (1.0, 0.75, 0.0)] == [0.0, 0.25, 1.0]
    assert [score(it) for it in (7.0, -1.0, np.float32(0.5))] == [0.0, 1.0, 0.5]


def test_scores_are_numbers_that_json_knows():
    for usefulness in (float("nan"), float("inf"), -float("inf")):
        assert 0 <= json.loads(json.dumps(score(usefulness))) <= 1


def test_a_crop_is_filled_with_its_mask_at_the_scale_it_is_shown():
    mask = np.array([[0, 1, VOID], [2, 2, 0]], np.uint8)
    prediction = crop_prediction(_crop(mask), CLASSES, PLAIN, "v3")
    assert {key: prediction[key] for key in ("task", "model_version", "score")} == {
        "task": 5,
        "model_version": "v3",
        "score": 0.75,
    }
    assert {(it["original_height"], it["original_width"]) for it in prediction["result"]} == {
        (8, 12)
    }
    np.testing.assert_array_equal(results_to_mask(prediction["result"], CLASSES, (2, 3)), mask)


def test_a_crop_before_the_first_version_is_empty_but_has_its_place_in_the_queue():
    prediction = crop_prediction(_crop(None), CLASSES, PLAIN, "v0")
    assert (prediction["result"], prediction["score"]) == ([], 0.75)


def test_the_same_suggestion_has_the_same_ids_and_another_version_others():
    mask = np.array([[0, 1, 2]] * 2, np.uint8)

    def ids(version: str) -> list[str]:
        crop = crop_prediction(_crop(mask), CLASSES, PLAIN, version)["result"]
        image = image_prediction(_suggestion(), CLASSES, IN_PLACE, version)["result"]
        return [result["id"] for result in crop + image]

    assert ids("v3") == ids("v3")
    assert len({*ids("v3"), *ids("v4")}) == 2 * len(ids("v3"))


def test_locked_rectangles_come_first_and_own_the_masks_inside():
    prediction = image_prediction(_suggestion(), CLASSES, IN_PLACE, "v3")
    rectangles, strokes = prediction["result"][:2], prediction["result"][2:]
    assert [it["type"] for it in rectangles] == ["rectanglelabels"] * 2
    assert {it["type"] for it in strokes} == {"brushlabels"}
    assert [it["readonly"] for it in rectangles] == [True, True]
    assert rectangles[0]["meta"]["text"] == ["Region 1 of 2", "uncertain"]
    assert [it["parentID"] for it in strokes] == [
        rectangle["id"] for rectangle in rectangles for _ in CLASSES
    ]
    assert (prediction["model_version"], prediction["score"]) == ("v3", 0.25)


@pytest.mark.parametrize(
    "config", [PLAIN, IN_PLACE, BITMASKS], ids=["meta", "rectangles", "bitmasks"]
)
@pytest.mark.parametrize("num_regions", [2, 12])
def test_regions_and_the_mask_inside_them_are_read_back(config, num_regions):
    suggestion = _suggestion(num_regions)
    results = image_prediction(suggestion, CLASSES, config, "v3")["result"]
    results = json.loads(json.dumps(results))
    regions = [suggested.region for suggested in suggestion.regions]
    assert region_boxes(results, config, SIZE) == regions
    expected = np.full(SIZE, VOID, np.uint8)
    for region in regions:
        expected[region.slices] = suggestion.mask[region.slices]
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, SIZE), expected)


def test_without_a_control_for_rectangles_the_boxes_stand_in_the_meta():
    results = image_prediction(_suggestion(1), CLASSES, PLAIN, "v3")["result"]
    assert {it["type"] for it in results} == {"brushlabels"}
    assert not any("parentID" in it for it in results)
    for result in results:
        assert {name: result["meta"][name] for name in ("text", "regions")} == {
            "text": ["Region 1 of 1", "uncertain"],
            "regions": [{"row": 0, "col": 0, "height": 4, "width": 4}],
        }


@pytest.mark.parametrize(
    "config", [PLAIN, IN_PLACE, BITMASKS], ids=["meta", "rectangles", "bitmasks"]
)
def test_regions_share_strokes_where_there_would_be_too_many_for_the_browser(config):
    results = image_prediction(_suggestion(12), CLASSES, config, "v3")["result"]
    strokes = [it for it in results if it["type"] == config.control_type]
    assert len(strokes) == len(CLASSES) <= MAX_STROKES
    assert not any("parentID" in it for it in strokes)


def test_a_call_carries_as_many_predictions_and_strokes_as_label_studio_takes(monkeypatch):
    monkeypatch.setattr(module, "PREDICTIONS_PER_CALL", 3)
    monkeypatch.setattr(module, "NUMBERS_PER_CALL", 10)
    light = {"result": []}
    heavy = {"result": [{"value": {"rle": [0] * 6}}, {"value": {"points": [[0, 0]]}}]}
    payloads = [light, light, light, light, heavy, heavy, light]
    assert list(batches(iter(payloads))) == [
        [light, light, light],
        [light, heavy, heavy],
        [light],
    ]
    assert list(batches(())) == []


def test_polygons_are_not_merged():
    results = image_prediction(_suggestion(12), CLASSES, POLYGONS, "v3")["result"]
    rectangles = [it["id"] for it in results if it["type"] == "rectanglelabels"]
    assert {it["parentID"] for it in results if it["type"] == "polygonlabels"} == {*rectangles}


def test_before_the_first_version_there_are_rectangles_alone():
    suggestion = _suggestion(with_mask=False)
    results = image_prediction(suggestion, CLASSES, IN_PLACE, "v0")["result"]
    assert [it["type"] for it in results] == ["rectanglelabels"] * 2
    assert image_prediction(suggestion, CLASSES, PLAIN, "v0")["result"] == []
