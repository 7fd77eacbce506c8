from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads import brush_rle
from ralis_backend.labelstudio.payloads.annotations import parse_annotation
from ralis_backend.labelstudio.payloads.boxes import read_boxes
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import known_to_results, mask_to_results
from ralis_backend.labelstudio.payloads.paint import drawn_instead, read_paint
from ralis_backend.labelstudio.payloads.predictions import crop_prediction, image_prediction
from ralis_backend.labelstudio.payloads.strokes import fingerprint
from ralis_backend.online.tool import CropPrediction, ImageSuggestion, SuggestedRegion
from tests.fuzz.targets import annotation_json
from tests.labelstudio.payloads.reading import (
    is_refused,
    refusals,
    region_boxes,
    results_to_mask,
)

CONFIG_XML = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="region" toName="image">'
    '<Label value="Suggested region"/></RectangleLabels><BrushLabels name="mask" toName="image">'
    '<Label value="road"/><Label value="car"/></BrushLabels></View>'
)
CONFIG = parse_label_config(CONFIG_XML)


def _webhook(**fields: Any) -> dict[str, Any]:
    """An annotation as `ANNOTATION_CREATED` carries it, less what nobody reads."""
    return {
        "id": 11,
        "task": 3,
        "project": 1,
        "completed_by": 1,
        "result": [],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2025-11-21T05:21:00.123456Z",
        "updated_at": "2025-11-21T05:22:00Z",
        "lead_time": 12.5,
        "prediction": {"id": 4, "model_version": "ralis-v2", "result": []},
        "parent_prediction": 4,
        **fields,
    }


def test_the_webhooks_shape_is_read():
    annotation = parse_annotation(_webhook())
    assert (annotation.id, annotation.task_id, annotation.task_created_at) == (11, 3, None)
    assert annotation.created_at == datetime(2025, 11, 21, 5, 21, 0, 123456, UTC)
    assert annotation.updated_at == datetime(2025, 11, 21, 5, 22, tzinfo=UTC)
    assert (annotation.annotator, annotation.lead_time_s) == ("1", 12.5)
    assert (annotation.is_skipped, annotation.suggested_version) == (False, "v2")


@pytest.mark.parametrize(
    ("prediction", "is_of_others"),
    [
        ({"model_version": "sam"}, True),
        ({"model_version": "ralis-v2"}, False),
        ({"model_version": None}, False),  # dropped meanwhile
        ({"model_version": ""}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_start_from_a_prediction_of_others_is_told_from_one_that_is_lost(
    prediction, is_of_others
):
    for name, other in (("prediction", "parent_prediction"), ("parent_prediction", "prediction")):
        annotation = parse_annotation(_webhook(**{name: prediction, other: {}}))
        assert annotation.is_of_others == is_of_others


def test_the_apis_shape_with_the_whole_task_is_read():
    payload = _webhook(
        task={"id": 3, "created_at": "2025-11-20T00:00:00Z", "data": {"image": "/data/a.png"}},
        completed_by={"id": 1, "email": "anna@example.com", "first_name": ""},
        prediction={},
        parent_prediction={"model_version": "ralis-v1"},
    )
    annotation = parse_annotation(payload)
    assert annotation.task_created_at == datetime(2025, 11, 20, tzinfo=UTC)
    assert (annotation.annotator, annotation.suggested_version) == ("anna@example.com", "v1")


@pytest.mark.parametrize(
    ("completed_by", "annotator"),
    [
        (None, ""),
        (7, "7"),
        ("anna", "anna"),
        ({"id": 7}, "7"),
        ({"email": "", "id": 7}, "7"),
        ({}, ""),
    ],
)
def test_the_annotator_is_known_by_mail_or_id(completed_by, annotator):
    assert parse_annotation(_webhook(completed_by=completed_by)).annotator == annotator


def test_a_skip_is_no_labelling():
    assert parse_annotation(_webhook(was_cancelled=True)).is_skipped
    assert not parse_annotation(_webhook(was_cancelled=None)).is_skipped


def test_what_may_be_missing_may_be_missing():
    payload = _webhook()
    for name in ("updated_at", "lead_time", "prediction", "parent_prediction", "completed_by"):
        del payload[name]
    annotation = parse_annotation(payload)
    assert annotation.updated_at == annotation.created_at
    assert (annotation.lead_time_s, annotation.suggested_version) == (None, None)


@pytest.mark.parametrize(
    ("parent", "copied_from"), [(7, 7), (None, None), (True, None), ("7", None), (10**400, None)]
)
def test_a_duplicate_names_its_original(parent, copied_from):
    assert parse_annotation(_webhook(parent_annotation=parent)).copied_from == copied_from


@pytest.mark.parametrize("lead_time", [None, "3", True, float("nan"), float("inf"), 10**400, []])
def test_a_malformed_lead_time_is_no_reason_to_lose_an_annotation(lead_time):
    assert parse_annotation(_webhook(lead_time=lead_time)).lead_time_s is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": None}, "id is None"),
        ({"id": "11"}, "id is '11'"),
        ({"id": True}, "id is True"),
        ({"task": None}, "id is None"),
        ({"task": [3]}, "id is \\[3\\]"),
        ({"task": {}}, "id is None"),
        ({"task": {"id": 3, "created_at": "soon"}}, "created_at is 'soon'"),
        ({"created_at": None}, "11: created_at is None"),
        ({"created_at": 20250101}, "created_at is 20250101"),
        ({"created_at": "yesterday"}, "created_at is 'yesterday'"),
        ({"updated_at": "later"}, "updated_at is 'later'"),
    ],
)
def test_a_malformed_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        parse_annotation(_webhook(**fields))


@pytest.mark.parametrize("name", ["id", "task", "created_at"])
def test_a_missing_field_is_named(name):
    payload = _webhook()
    del payload[name]
    with pytest.raises(ValueError, match="id is None" if name == "task" else name):
        parse_annotation(payload)


@pytest.mark.parametrize("payload", [None, [], "annotation", 5])
def test_what_is_no_annotation_is_refused(payload):
    with pytest.raises(ValueError, match="expected an object"):
        parse_annotation(payload)


def test_an_annotation_gives_its_mask_and_its_regions():
    mask = np.array([[0, 1, VOID], [1, 1, VOID]], np.uint8)
    box = {"x": 0, "y": 0, "width": 200 / 3, "height": 100, "rotation": 0}
    rectangle = {
        "id": "box",
        "type": "rectanglelabels",
        "from_name": "region",
        "value": {**box, "rectanglelabels": ["Suggested region"]},
    }
    results = [rectangle, *mask_to_results(mask, ["road", "car"], CONFIG, key="k")]
    annotation = parse_annotation(_webhook(result=results))
    results = annotation.results
    np.testing.assert_array_equal(results_to_mask(results, ["road", "car"], (2, 3), None), mask)
    assert region_boxes(results, CONFIG, (2, 3)) == [Region(0, 0, 2, 2)]


def _case(shared, name, class_names, background=None):
    """One of the cases that people reported: an image 12 wide and 8 high."""
    payload = json.loads((shared / "cases/annotations" / f"{name}.json").read_text())
    annotation = parse_annotation(payload)
    assert (annotation.id, annotation.is_skipped) == (1, False)
    return read_paint(annotation.results, class_names, (8, 12), background)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brush-two-labels", r"'b1' has the labels \['road', 'car'\], expected exactly one"),
        ("polygon-no-points", "'p1' is a polygon of 0 points, expected 3"),
        ("polygon-two-points-open", "'p1' is a polygon of 2 points, expected 3"),
    ],
)
def test_an_odd_stroke_is_left_out_and_named_and_the_good_one_counts(shared: Path, name, message):
    painted = _case(shared, name, ["road", "car"])
    assert set(np.unique(painted.mask)) == {0, VOID}
    (text,) = painted.left_out
    assert re.search(message, text)


def test_a_stroke_on_a_turned_view_is_read_as_it_is(shared: Path):
    turned = _case(shared, "brush-turned-90", ["road", "car"])
    straight = _case(shared, "brush-two-labels", ["road", "car"])
    assert turned.left_out == ()
    np.testing.assert_array_equal(turned.mask, straight.mask)


def test_a_stroke_whose_label_the_project_lost_keeps_its_class_which_counts_as_void(shared: Path):
    painted = _case(shared, "brush-removed-label", ["road", "car", "tree"])
    assert (set(np.unique(painted.mask)), painted.left_out) == ({2, VOID}, ())
    unknown = _case(shared, "brush-removed-label", ["road", "car"])
    assert (unknown.mask == VOID).all()
    assert "'b1' has the label 'tree'" in unknown.left_out[0]


def test_an_annotation_without_strokes_is_all_background_or_nothing(shared: Path):
    nothing = _case(shared, "relation-and-choices-only", ["road", "car"])
    assert ((nothing.mask == VOID).all(), nothing.left_out) == (True, ())
    background = _case(shared, "relation-and-choices-only", ["road", "car"], "car")
    assert (background.mask == 1).all()


@pytest.mark.parametrize(
    ("kinds", "drawn"),
    [
        ([], ()),
        (["choices", "relation", "textarea", "rating", "taxonomy", "number"], ()),
        (["rectanglelabels", "choices"], ("rectanglelabels",)),
        (["keypointlabels", "ellipse", "ellipse"], ("ellipse", "keypointlabels")),
        (["rectanglelabels", "brushlabels"], ()),
        (["rectanglelabels", "brush"], ()),
        (["vector", None, 3], ("vector",)),
    ],
)
def test_what_is_drawn_in_an_annotation_without_strokes_is_told(kinds, drawn):
    assert drawn_instead([{"id": "a", "type": kind} for kind in kinds]) == drawn


def test_choices_and_relations_alone_are_nothing_drawn(shared: Path):
    name = "cases/annotations/relation-and-choices-only.json"
    assert drawn_instead(json.loads((shared / name).read_text())["result"]) == ()


@pytest.mark.parametrize("results", [None, {}, "stroke", 3, [None], ["stroke", None], [[]]])
def test_results_that_are_no_list_of_objects_are_named_and_cost_nothing_else(results):
    annotation = parse_annotation(_webhook(result=results))
    painted = read_paint(annotation.results, ["road"], (2, 3))
    assert painted.left_out != ()
    assert (painted.mask == VOID).all()
    refusal = {"type": "choices", "value": {"choices": ["Not worth labelling"]}}
    assert is_refused([results, refusal], CONFIG, (2, 3))


def test_feedback_that_a_region_is_not_worth_labelling_refuses_it_unless_somebody_painted():
    refusal = {"type": "choices", "value": {"choices": ["Not worth labelling"]}}
    untouched = _stroke("prediction", slice(0, 8))
    painted = _stroke("manual", slice(7, 8), slice(3, 4))
    empty = {"type": "brushlabels", "origin": "manual", "value": {}}
    assert is_refused([untouched, empty, refusal], CONFIG, (4, 8))
    assert not is_refused([untouched, painted, refusal], CONFIG, (4, 8))
    assert not is_refused([untouched], CONFIG, (4, 8))


def _suggested(key: str, x: float) -> dict[str, Any]:
    box = {"x": x, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["Suggested region"]}
    return {"id": key, "type": "rectanglelabels", "from_name": "region", "value": box}


def _tick(key: str, text: str) -> dict[str, Any]:
    value = {"x": 0, "y": 0, "width": 50, "height": 100, "choices": [text]}
    return {"id": key, "type": "choices", "from_name": "feedback", "value": value}


def test_a_region_that_is_not_worth_labelling_is_refused_alone():
    boxes = [_suggested("a", 0), _suggested("b", 50)]
    accepted = {"id": "s", "type": "brushlabels", "origin": "prediction", "parentID": "a"}
    results = [*boxes, accepted, _tick("a", "Useful"), _tick("b", "Not worth labelling")]
    assert read_boxes(results, CONFIG, (4, 8)).regions == (LEFT, RIGHT)
    assert refusals(results, CONFIG, (4, 8)).refused == {RIGHT}


def test_all_regions_refused_are_all_that_was_shown():
    boxes = [_suggested("a", 0), _suggested("b", 50)]
    ticks = [_tick(key, "Not worth labelling") for key in ("a", "b")]
    unread = {"id": "s", "type": "brushlabels", "origin": "manual"}
    for results in ([*boxes, *ticks], [*boxes, *ticks, unread]):
        assert refusals(results, CONFIG, (4, 8)).refused == {LEFT, RIGHT}


def _stroke(origin: str, columns: slice, rows: slice = slice(None)) -> dict[str, Any]:
    """Of the label road, on an image of 4 x 8; nothing tells what was suggested there."""
    mask = np.full((4, 8), VOID, np.uint8)
    mask[rows, columns] = 0
    (result,) = mask_to_results(mask, ["road"], CONFIG, key=f"{origin}{columns}{rows}")
    return {**result, "origin": origin, "meta": {}}


LEFT, RIGHT, WHOLE = Region(0, 0, 4, 4), Region(0, 4, 4, 4), Region(0, 0, 4, 8)


@pytest.mark.parametrize(
    ("strokes", "refused"),
    [
        ([_stroke("manual", slice(0, 4)), _stroke("manual", slice(4, 8))], set()),
        ([_stroke("prediction-changed", slice(0, 8))], set()),
        ([_stroke("prediction", slice(4, 8)), _stroke("manual", slice(7, 8), slice(3, 4))], set()),
        ([_stroke("prediction", slice(0, 8)), _stroke("manual", slice(0, 4))], {RIGHT}),
        ([_stroke("prediction", slice(0, 8))], {RIGHT}),
        ([{"id": "s", "type": "brushlabels", "origin": "manual", "value": {}}], {RIGHT}),
    ],
)
def test_a_ticked_region_is_refused_unless_a_person_painted_a_pixel_of_it(strokes, refused):
    boxes = [_suggested("a", 0), _suggested("b", 50)]
    found = refusals([*boxes, *strokes, _tick("b", "Not worth labelling")], CONFIG, (4, 8))
    assert (found.refused, found.disputed) == (refused, {RIGHT} - refused)


def test_ticked_regions_that_were_painted_all_count():
    boxes = [_suggested("a", 0), _suggested("b", 50)]
    ticks = [_tick(key, "Not worth labelling") for key in ("a", "b")]
    results = [*boxes, _stroke("manual", slice(3, 5)), *ticks]
    found = refusals(results, CONFIG, (4, 8))
    assert (found.refused, found.disputed) == (set(), {LEFT, RIGHT})


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels"])
def test_a_suggestion_that_only_its_answer_made_a_changed_one_is_no_paint(tag, scale):
    xml = CONFIG_XML.replace("BrushLabels", tag)
    mask = np.full((4, 8), VOID, np.uint8)
    mask[1:3, 2:7] = 0
    made = suggestion(mask, xml, scale)
    suggested = json.loads(json.dumps({**made, "origin": "prediction-changed"}))

    def is_untouched(stroke: dict[str, Any]) -> bool:
        tick = {"type": "choices", "value": {"choices": ["Not worth labelling"]}}
        return is_refused([stroke, tick], CONFIG, (4, 8))

    assert is_untouched(suggested)
    assert is_untouched({**suggested, "origin": "manual"}), "made from a prediction in bulk"
    assert not is_untouched({**suggested, "origin": "manual", "meta": {}})
    assert not is_untouched({**suggested, "meta": {"text": ["of an earlier release"]}})
    for odd in (7, [7], [{}], [{**asdict(WHOLE), "fingerprint": 7}]):
        assert not is_untouched({**suggested, "meta": {"suggested": odd}})
    of_a_release = fingerprint(mask != VOID, "road")
    assert is_untouched({**suggested, "meta": {"suggested": of_a_release}})
    kind = made["type"]
    assert not is_untouched({**suggested, "value": {**made["value"], kind: ["car"]}})
    mask[3, 7] = 0
    painted = suggestion(mask, xml, scale)
    assert not is_untouched({**suggested, "value": painted["value"]})


def suggestion(mask: np.ndarray, xml: str, scale: int = 1) -> dict[str, Any]:
    """The one stroke that a mask of the label road is suggested as in a region's task."""
    crop = CropPrediction(5, WHOLE, scale, mask, 0.5, 1, "")
    (made,) = crop_prediction(crop, ["road"], parse_label_config(xml), "ralis-v1")["result"]
    return made


def in_place(mask: np.ndarray, xml: str = CONFIG_XML) -> list[dict[str, Any]]:
    """What is suggested on the whole image for its left and right half."""
    regions = tuple(SuggestedRegion(it, rank, 0.5, "") for rank, it in enumerate((LEFT, RIGHT), 1))
    shown = ImageSuggestion(5, (4, 8), regions, mask, "v1", 0.5)
    results = image_prediction(shown, ["road", "car"], parse_label_config(xml), "ralis-v1")
    return [{**it, "origin": "prediction"} for it in json.loads(json.dumps(results["result"]))]


WITHOUT_BOXES = CONFIG_XML.replace(
    '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
    "</RectangleLabels>",
    "",
)


@pytest.mark.parametrize("xml", [CONFIG_XML, WITHOUT_BOXES], ids=["boxes", "meta"])
@pytest.mark.parametrize("most", [10, 0], ids=["a stroke a region", "shared strokes"])
def test_what_is_changed_in_one_region_of_a_mask_is_no_paint_in_another(monkeypatch, xml, most):
    monkeypatch.setattr("ralis_backend.labelstudio.payloads.predictions.MAX_STROKES", most)
    results = in_place(np.array([[0, 1] * 4] * 4, np.uint8), xml)
    changed = next(it for it in reversed(results) if it["type"] == "brushlabels")
    alpha = brush_rle.decode(changed["value"]["rle"], 4, 8).copy()
    alpha[0, 4:] = 0
    changed |= {"origin": "prediction-changed"}
    changed["value"] = {**changed["value"], "rle": brush_rle.encode(alpha)}
    tick = {"id": "all", "type": "choices", "value": {"choices": ["Not worth labelling"]}}
    found = refusals([*results, tick], parse_label_config(xml), (4, 8))
    assert (found.refused, found.disputed) == ({LEFT}, {RIGHT})


def test_every_mask_names_all_regions_that_were_handed_out_and_is_ticked_for_its_own():
    mask = np.full((4, 8), VOID, np.uint8)
    mask[:, 5:7] = 1  # of nothing else the model is sure
    (only,) = in_place(mask, WITHOUT_BOXES)
    config = parse_label_config(WITHOUT_BOXES)
    assert region_boxes([only], config, (4, 8)) == [LEFT, RIGHT]
    tick = _tick(only["id"], "Not worth labelling")
    assert refusals([only, tick], config, (4, 8)).refused == {RIGHT}


def test_a_mask_that_is_pasted_names_no_region_and_is_somebodys_paint():
    config = parse_label_config(WITHOUT_BOXES)
    copied, *_ = in_place(np.zeros((4, 8), np.uint8), WITHOUT_BOXES)
    pasted = {**copied, "id": "new"}  # as Label Studio does it, meta and origin and all
    assert region_boxes([copied], config, (4, 8)) == [LEFT, RIGHT]
    assert region_boxes([pasted], config, (4, 8)) == []
    of_release = {key: it for key, it in copied["meta"].items() if key != "result_id"}
    assert region_boxes([{**pasted, "meta": of_release}], config, (4, 8)) == [LEFT, RIGHT]
    tick = {"id": "all", "type": "choices", "value": {"choices": ["Not worth labelling"]}}
    assert is_refused([copied, tick], config, (4, 8))
    assert not is_refused([pasted, tick], config, (4, 8))
    below = in_place(np.ones((4, 8), np.uint8), WITHOUT_BOXES)[0]
    for results in ([pasted, below], [below, pasted]):
        mask = results_to_mask(results, ["road", "car"], (4, 8))
        assert (mask[:, :4] == 0).all()


@pytest.mark.parametrize("number", [10**400, -(10**400), 1e308, math.nan, math.inf, "9" * 400])
@pytest.mark.parametrize("place", ["row", "height"])
def test_a_region_in_meta_that_no_picture_has_costs_nothing_else(number, place):
    stroke = _stroke("manual", slice(0, 4))
    odd = [{**asdict(LEFT), place: number}]
    tick = _tick(stroke["id"], "Not worth labelling")
    stroke["meta"] = {"suggested": odd, "regions": [asdict(LEFT)]}
    assert refusals([stroke, tick], CONFIG, (4, 8)).disputed == {LEFT}
    stroke["meta"] = {"suggested": [asdict(LEFT)], "regions": odd}
    found = read_boxes([stroke, _suggested("a", 0), tick], CONFIG, (4, 8))
    assert found.regions == (LEFT,)
    assert "expected objects with row, col, height and width" in found.left_out[0]
    assert len(found.left_out[0]) < 300


@pytest.mark.parametrize("number", [10**400, 1e308])
@pytest.mark.parametrize("name", ["original_height", "original_width"])
def test_a_picture_of_astronomical_size_is_named_in_short(number, name):
    box = {**_suggested("a", 0), "original_height": 4, "original_width": 8, name: number}
    (why,) = read_boxes([box], CONFIG, (4, 8)).left_out
    assert f"{name} 1" in why
    assert len(why) < 200


@pytest.mark.parametrize("origin", ["prediction", "prediction-changed", "manual", None])
def test_paint_lies_over_what_was_suggested_whatever_label_studio_calls_that(origin):
    mask = np.array([[0, 0, 1, 1] * 2] * 4, np.uint8)
    road, car, *others = in_place(mask, WITHOUT_BOXES)
    alpha = np.full((4, 8), 0, np.uint8)
    alpha[:, :4] = 255
    road |= {"origin": "prediction-changed"}
    road["value"] = {**road["value"], "rle": brush_rle.encode(alpha)}
    results = [road, {**car, "origin": origin}, *others]
    expected = mask.copy()
    expected[:, :4] = 0
    np.testing.assert_array_equal(results_to_mask(results, ["road", "car"], (4, 8)), expected)


def test_ground_truth_that_is_imported_is_not_what_was_suggested():
    mask = np.array([[0, 0, 1, 1] * 2] * 4, np.uint8)
    for result in known_to_results(mask, ["road", "car"], CONFIG, key="k"):
        assert not is_refused([result, _tick("all", "Not worth labelling")], CONFIG, (4, 8))


def test_strokes_that_would_take_minutes_to_paint_save_no_ticked_region(monkeypatch):
    monkeypatch.setattr("ralis_backend.labelstudio.payloads.boxes.most_cost", lambda _size: 9)
    results = [_suggested("b", 50), _stroke("manual", slice(4, 8))]
    found = refusals([*results, _tick("b", "Not worth labelling")], CONFIG, (4, 8))
    assert found.refused == {RIGHT}


@pytest.mark.parametrize(("regions", "refused"), [([RIGHT], {RIGHT}), ([LEFT, RIGHT], set())])
def test_a_tick_for_a_mask_refuses_the_region_that_the_mask_is_of_alone(regions, refused):
    boxes = '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
    xml = CONFIG_XML.replace(f"{boxes}</RectangleLabels>", "")
    mask = _stroke("prediction", slice(0, 8))
    mask["meta"] = {"regions": [asdict(it) for it in regions]}
    tick = _tick(mask["id"], "Not worth labelling")
    config = parse_label_config(xml)
    assert region_boxes([mask, tick], config, (4, 8)) == regions
    assert refusals([mask, tick], config, (4, 8)).refused == refused


@pytest.mark.parametrize("name", ["id", "task"])
@pytest.mark.parametrize("number", [2**63, -(2**63), 10**400])
def test_an_id_that_no_database_takes_is_refused(name, number):
    with pytest.raises(ValueError, match=r"id is .*expected an id"):
        parse_annotation({**annotation_json(), name: number})


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
@pytest.mark.parametrize("name", ["created_at", "updated_at"])
def test_a_time_that_does_not_exist_in_utc_is_refused(name, time):
    with pytest.raises(ValueError, match=f"{name} is .*expected a time"):
        parse_annotation({**annotation_json(), name: time})


def test_text_that_no_database_takes_is_replaced():
    half = {"email": "a\ud800\0@b.co"}
    found = parse_annotation({
        **annotation_json(), "completed_by": half, "prediction": {"model_version": "v\udfff"}
    })  # fmt: skip
    assert (found.annotator, found.suggested_version) == ("a??@b.co", None)
    assert (
        len(parse_annotation({**annotation_json(), "completed_by": "x" * 10**6}).annotator) == 320
    )


def test_an_error_of_an_annotation_is_short_whatever_is_in_it():
    for name in ("id", "created_at", "task"):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parse_annotation({**annotation_json(), name: {"x" * 10**6: [["y"] * 10**5]}})
        assert len(str(caught.value)) < 500


def test_a_star_is_read():
    assert parse_annotation(_webhook(ground_truth=True)).is_starred
    for value in (False, None, "true", 1):
        assert not parse_annotation(_webhook(ground_truth=value)).is_starred


BULK = {"lead_time": None, "updated_by": None, "parent_prediction": 4, "prediction": {}}
"""What 1.23.2 writes for "Create annotations from predictions"."""


@pytest.mark.parametrize("lead_time", [None, 0, 0.0, "", float("nan")])
def test_what_was_made_from_predictions_in_bulk_is_a_machines(lead_time):
    assert parse_annotation(_webhook(**{**BULK, "lead_time": lead_time})).is_machine


@pytest.mark.parametrize(
    "touched",
    [
        {"lead_time": 2.5},
        {"updated_by": 2},
        {"ground_truth": True},
        {"was_cancelled": True},
        {"parent_prediction": None},
    ],
)
def test_what_a_person_has_touched_is_a_persons(touched):
    assert not parse_annotation(_webhook(**{**BULK, **touched})).is_machine
