from __future__ import annotations

import json
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import decode_from_annotation, mask2rle
from label_studio_sdk.converter.converter import Format
from PIL import Image

from ralis_backend.core.regions import VOID, Region
from ralis_backend.labelstudio.payloads.boxes import MAX_REGIONS, read_boxes, read_refusals
from ralis_backend.labelstudio.payloads.brush_rle import encode
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.masks import mask_to_results, region_to_result
from ralis_backend.labelstudio.payloads.paint import read_paint
from ralis_backend.labelstudio.payloads.strokes import MAX_POINTS, fingerprint
from tests.labelstudio.payloads.reading import region_boxes, results_to_mask

CLASSES = ["road", "car", "tree"]
REGION_CONTROL = (
    '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
    "</RectangleLabels>"
)


def _xml(tag: str, *, regions: bool = False) -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in CLASSES)
    return (
        f'<View><Image name="image" value="$image"/>{REGION_CONTROL if regions else ""}'
        f'<{tag} name="mask" toName="image">{labels}</{tag}></View>'
    )


BRUSH = parse_label_config(_xml("BrushLabels"))
POLYGON = parse_label_config(_xml("PolygonLabels"))
IN_PLACE = parse_label_config(_xml("BrushLabels", regions=True))


def _stroke(alpha: np.ndarray, label: str = "road", **fields: Any) -> dict[str, Any]:
    return {
        "id": "stroke",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_height": alpha.shape[0],
        "original_width": alpha.shape[1],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": mask2rle(alpha), "brushlabels": [label]},
        **fields,
    }


def _polygon(points: Any, label: str = "road") -> dict[str, Any]:
    return {
        "id": "shape",
        "type": "polygonlabels",
        "from_name": "mask",
        "value": {"points": points, "polygonlabels": [label]},
    }


def _rectangle(x: Any, y: Any, width: Any, height: Any, **value: Any) -> dict[str, Any]:
    box = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {
        "id": "box",
        "type": "rectanglelabels",
        "from_name": "region",
        "value": {**box, "rectanglelabels": ["Suggested region"], **value},
    }


def _painted(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.uint8) * 255


def _blobs(seed: int, height: int, width: int) -> np.ndarray:
    """Classes 0 to 2 and VOID, in blobs."""
    noise = np.random.default_rng(seed).random((4, height, width)).astype(np.float32)
    classes = np.stack([cv2.GaussianBlur(it, (0, 0), 3) for it in noise]).argmax(axis=0)
    return np.where(classes == 3, VOID, classes).astype(np.uint8)


def _left_out(results, message, config=BRUSH, size=(1, 2)):
    """An odd result is named; the good stroke that stands before it counts all the same."""
    good = _stroke(np.eye(*size, dtype=np.uint8) * 255, "tree")
    if config is POLYGON:
        good = _polygon([[0, 0], [50, 0], [50, 50]], "tree")
    alone = results_to_mask([good], CLASSES, size)
    painted = read_paint([good, *results], CLASSES, size)
    (text,) = painted.left_out
    assert re.search(message, text)
    np.testing.assert_array_equal(painted.mask, alone)


def _no_boxes(results, config, size, message):
    found = read_boxes(results, config, size)
    assert found.regions == ()
    assert re.search(message, "; ".join(found.left_out))


sizes = st.tuples(st.integers(1, 30), st.integers(1, 37))
seeds = st.integers(0, 2**32 - 1)


# Brush


def test_unpainted_pixels_are_void():
    results = [_stroke(_painted([[1, 0], [0, 0]]), "car")]
    np.testing.assert_array_equal(
        results_to_mask(results, CLASSES, (2, 2)), [[1, VOID], [VOID, VOID]]
    )


def test_unpainted_pixels_are_the_background_class_where_the_project_has_one():
    results = [_stroke(_painted([[1, 0], [0, 0]]), "car")]
    np.testing.assert_array_equal(
        results_to_mask(results, CLASSES, (2, 2), background="tree"), [[1, 2], [2, 2]]
    )
    with pytest.raises(ValueError, match="background has the label 'sky'"):
        results_to_mask(results, CLASSES, (2, 2), background="sky")


def test_a_pixel_is_painted_from_half_coverage_on():
    results = [_stroke(np.array([[0, 127, 128, 255]], np.uint8))]
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, (1, 4)), [[VOID, VOID, 0, 0]])


def test_later_lies_over_earlier():
    results = [_stroke(_painted([[1, 1]]), "road"), _stroke(_painted([[0, 1]]), "car")]
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, (1, 2)), [[0, 1]])


@pytest.mark.parametrize("origin", ["manual", "prediction-changed"])
def test_what_a_person_touched_lies_over_untouched_predictions(origin):
    results = [
        _stroke(_painted([[1, 0, 0]]), "road", origin=origin),
        _stroke(_painted([[1, 1, 1]]), "car", origin="prediction"),
        _stroke(_painted([[0, 0, 1]]), "tree", origin="prediction"),
    ]
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, (1, 3)), [[0, 1, 2]])
    painted = read_paint(results, CLASSES, (1, 3), "road")
    np.testing.assert_array_equal(painted.made_in(Region(0, 0, 1, 3)), [[0, VOID, VOID]])


def test_results_of_other_controls_are_no_strokes():
    results = [
        {"id": "c", "type": "choices", "from_name": "feedback", "value": {"choices": ["Useful"]}},
        _rectangle(0, 0, 100, 100),
        {**_rectangle(0, 0, 100, 100), "type": "keypointlabels"},
        {"from_id": "a", "to_id": "b", "type": "relation"},
    ]
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, (1, 1)), [[VOID]])
    np.testing.assert_array_equal(results_to_mask([], CLASSES, (1, 1)), [[VOID]])


@settings(deadline=None, max_examples=25)
@given(size=sizes, seed=seeds, scale=st.integers(1, 5))
def test_a_mask_comes_back_from_an_enlarged_crop_bit_by_bit(size, seed, scale):
    mask = _blobs(seed, *size)
    results = json.loads(json.dumps(mask_to_results(mask, CLASSES, BRUSH, key="k", scale=scale)))
    assert len(results) == len(np.unique(mask[mask != VOID]))
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, size), mask)


def test_an_enlarged_crop_is_averaged_over_the_area_of_each_pixel():
    alpha = _painted([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    # coverage by quarters: 3/4, 1/4; 4/4, 0
    np.testing.assert_array_equal(
        results_to_mask([_stroke(alpha)], CLASSES, (2, 2)), [[0, VOID], [0, VOID]]
    )


def test_a_scale_that_is_no_whole_number_is_averaged_too():
    alpha = _painted([[1, 0, 0]] * 3)
    # 3 columns on 2: the first pixel has 1 of 1.5 columns painted, the second none
    np.testing.assert_array_equal(
        results_to_mask([_stroke(alpha)], CLASSES, (2, 2)), [[0, VOID]] * 2
    )


def test_a_mask_painted_on_a_smaller_picture_is_enlarged():
    results = [_stroke(_painted([[1, 0], [0, 0]]))]
    mask = results_to_mask(results, CLASSES, (4, 4))
    np.testing.assert_array_equal(np.argwhere(mask == 0), [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_a_mask_of_other_proportions_belongs_to_another_image():
    turned = _stroke(np.zeros((20, 40), np.uint8))
    _left_out([turned], r"image of 40 x 20 pixels, .* 20 x 40", BRUSH, (40, 20))


def test_a_region_in_place_is_painted_where_it_lies():
    mask = np.array([[0, 1], [VOID, 0], [2, 2]], np.uint8)
    results = mask_to_results(mask, CLASSES, BRUSH, key="k", offset=(1, 4), image_size=(5, 7))
    whole = np.full((5, 7), VOID, np.uint8)
    whole[1:4, 4:6] = mask
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, (5, 7)), whole)


def test_classes_that_the_control_does_not_offer_are_left_out():
    mask = np.array([[0, 3, 4]], np.uint8)
    results = mask_to_results(mask, [*CLASSES, "removed"], BRUSH, key="k")
    assert [result["value"]["brushlabels"] for result in results] == [["road"]]


def test_ids_depend_on_the_key_and_the_class_alone():
    mask = np.array([[0, 1, 2]], np.uint8)
    first = [it["id"] for it in mask_to_results(mask, CLASSES, BRUSH, key="a")]
    again = [it["id"] for it in mask_to_results(mask[:, ::-1], CLASSES, BRUSH, key="a")]
    other = [it["id"] for it in mask_to_results(mask, CLASSES, BRUSH, key="b")]
    assert first == again
    assert len({*first, *other}) == 6


def test_a_result_has_the_fields_of_label_studio():
    mask = np.array([[VOID, 1]], np.uint8)
    regions = [Region(0, 0, 1, 1), Region(0, 0, 1, 2)]
    parent = {"parentID": "p"}
    (result,) = mask_to_results(
        mask, CLASSES, BRUSH, key="k", scale=2, score=0.5, extra=parent, suggested_in=regions
    )
    known = {"row": 0, "col": 0, "height": 1, "width": 2}
    assert result == {
        "id": result["id"],
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": 4,
        "original_height": 2,
        "image_rotation": 0,
        "value": {
            "format": "rle",
            "rle": encode(_painted([[0, 0, 1, 1], [0, 0, 1, 1]])),
            "brushlabels": ["car"],
        },
        "score": 0.5,
        "parentID": "p",
        "meta": {
            "suggested": [known | {"fingerprint": fingerprint(mask == 1, "car")}],
            "result_id": result["id"],
        },
    }


def test_real_masks_come_back_bit_by_bit_and_the_converter_reads_them(shared: Path, tmp_path: Path):
    folder = shared / "data/camvid"
    names = [it["name"] for it in json.loads((folder / "classes.json").read_text())["classes"]]
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    xml = (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="mask" toName="image">{labels}</BrushLabels></View>'
    )
    config = parse_label_config(xml)
    file = sorted((folder / "masks").rglob("*.png"))[0]
    mask = np.array(Image.open(file))
    results = mask_to_results(mask, names, config, key="k")
    np.testing.assert_array_equal(results_to_mask(results, names, mask.shape), mask)

    _assert_read_by_converter(results, xml, mask, names, tmp_path)


def _assert_read_by_converter(
    results: list[dict[str, Any]], xml: str, mask: np.ndarray, names: list[str], folder: Path
) -> None:
    """Label Studio's own export writes the same pixels, class by class."""
    task = {
        "id": 1,
        "data": {"image": "a.png"},
        "annotations": [{"id": 2, "completed_by": 3, "result": results}],
    }
    (folder / "tasks.json").write_text(json.dumps([task]))
    converter = Converter(xml, str(folder), download_resources=False)
    (folder / "out").mkdir()
    converter.convert(
        str(folder / "tasks.json"), str(folder / "out"), Format.BRUSH_TO_NUMPY, is_dir=False
    )
    written = {file.stem.split("-mask-")[1]: np.load(file) for file in folder.glob("out/*.npy")}
    painted = [index for index in range(len(names)) if (mask == index).any()]
    assert set(written) == {f"{names[index]}-0" for index in painted}
    for index in painted:
        np.testing.assert_array_equal(written[f"{names[index]}-0"] == 255, mask == index)


def test_label_studios_own_decoder_reads_an_enlarged_region_in_place():
    mask = np.array([[0, 1], [VOID, 0]], np.uint8)
    results = mask_to_results(
        mask, CLASSES, BRUSH, key="k", scale=2, offset=(1, 3), image_size=(6, 9)
    )
    flat = [{**result, **result["value"]} for result in results]
    layers = decode_from_annotation("mask", flat)
    expected = np.zeros((6, 9), np.uint8)
    expected[1:3, 5:7] = 255
    np.testing.assert_array_equal(layers["mask-car-0"], expected)


# Polygons


def _fill(points: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    return results_to_mask([_polygon(points)], CLASSES, size) == 0


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    expected = np.zeros((10, 10), bool)
    expected[2:6, 3:7] = True
    np.testing.assert_array_equal(
        _fill([[30, 20], [70, 20], [70, 60], [30, 60]], (10, 10)), expected
    )
    nearly = [[34, 24], [74, 24], [74, 64], [34, 64]]  # 3.4 to 7.4: the same centres
    np.testing.assert_array_equal(_fill(nearly, (10, 10)), expected)
    np.testing.assert_array_equal(_fill(nearly[::-1], (10, 10)), expected)


def test_a_triangle_covers_half_of_the_square():
    np.testing.assert_array_equal(
        _fill([[0, 0], [100, 0], [0, 100]], (3, 3)), [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    )


@settings(deadline=None, max_examples=25)
@given(cut=st.tuples(st.floats(0, 100), st.floats(0, 100)), size=sizes)
def test_polygons_that_share_an_edge_neither_overlap_nor_leave_a_gap(cut, size):
    left, right = cut
    parts = [
        _fill([[0, 0], [100, 0], [100, right], [0, left]], size),
        _fill([[0, left], [100, right], [100, 100], [0, 100]], size),
    ]
    np.testing.assert_array_equal(np.add(*parts, dtype=int), 1)


@settings(deadline=None, max_examples=25)
@given(
    points=st.lists(st.tuples(st.integers(-20, 120), st.integers(-20, 120)), min_size=3, max_size=7)
)
def test_any_polygon_is_filled_like_a_slow_count_of_its_windings(points):
    size = (7, 9)
    # a hair off, so that no edge meets a pixel's centre
    corners = [(x + 0.0137, y + 0.0071) for x, y in points]
    expected = np.zeros(size, bool)
    for row in range(size[0]):
        for col in range(size[1]):
            x, y = (col + 0.5) / size[1] * 100, (row + 0.5) / size[0] * 100
            winding = 0
            for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (ay < y) != (by < y) and ax + (y - ay) * (bx - ax) / (by - ay) < x:
                    winding += 1 if ay < by else -1
            expected[row, col] = winding != 0
    np.testing.assert_array_equal(_fill([list(it) for it in corners], size), expected)


def test_a_polygon_beyond_the_image_is_cut_at_its_edge():
    np.testing.assert_array_equal(
        _fill([[50, -900], [1e300, -900], [1e300, 1e300], [50, 1e300]], (2, 4)), [[0, 0, 1, 1]] * 2
    )
    assert not _fill([[200, 0], [300, 0], [300, 100]], (5, 5)).any()


def test_a_polygon_that_crosses_itself_fills_both_of_its_wings():
    bow = _fill([[0, 0], [100, 100], [100, 0], [0, 100]], (5, 9))
    assert bow[2, 0]
    assert bow[2, 8]
    assert not bow[0, 4]
    assert not bow[4, 4]


def test_a_polygon_without_area_paints_nothing():
    assert not _fill([[10, 10], [90, 90], [10, 10]], (9, 9)).any()
    assert not _fill([[50, 50]] * 3, (9, 9)).any()


@pytest.mark.parametrize("painted", ["ring", "two holes", "island in a hole", "line", "dot"])
def test_outlines_with_holes_come_back(painted):
    mask = np.full((20, 24), VOID, np.uint8)
    if painted == "line":
        mask[3:17, 5] = 1
    elif painted == "dot":
        mask[0, 0] = mask[19, 23] = 1
    else:
        mask[2:18, 3:21] = 1
        mask[5:9, 6:10] = VOID
    if painted == "two holes":
        mask[11:15, 12:18] = VOID
    if painted == "island in a hole":
        mask[4:16, 5:19] = 0
        mask[8:12, 9:14] = 1
    results = json.loads(json.dumps(mask_to_results(mask, CLASSES, POLYGON, key="k")))
    assert len({result["id"] for result in results}) == len(results)
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, mask.shape), mask)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, scale=st.integers(1, 4))
def test_outlines_keep_within_a_pixel_of_the_mask(seed, scale):
    mask = _blobs(seed, 37, 41)
    results = mask_to_results(mask, CLASSES, POLYGON, key="k", scale=scale)
    again = results_to_mask(results, CLASSES, mask.shape)
    for index in range(3):
        painted = (mask == index).astype(np.uint8)
        inner = cv2.erode(painted, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        outer = cv2.dilate(painted, np.ones((3, 3)))
        assert (again[inner == 1] != VOID).all()
        assert (outer[again == index] == 1).all()


# Malformed


def _with_value(**value: Any) -> dict[str, Any]:
    stroke = _stroke(_painted([[1, 0]]))
    return {**stroke, "value": {**stroke["value"], **value}}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (_with_value(brushlabels=[]), "expected exactly one"),
        (_with_value(brushlabels=["road", "car"]), "expected exactly one"),
        (_with_value(brushlabels="road"), "expected exactly one"),
        (_with_value(brushlabels=[None]), "expected exactly one"),
        (_with_value(brushlabels=[["road"]]), "expected exactly one"),
        (_with_value(format="png"), "brush format 'png'"),
        (_with_value(rle=[]), "'stroke' has the rle \\[\\]"),
        (_with_value(rle=None), "'stroke' has the rle None"),
        (_with_value(rle="abc"), "brush RLE is a str"),
        (_with_value(rle={"0": 1}), "brush RLE is a dict"),
        (_with_value(rle=[1.5] * 20), "0 to 255"),
        (_with_value(rle=[None] * 20), "0 to 255"),
        (_stroke(_painted([[1, 0]]), id=2, type="brush"), "result 2, a brush, has no label"),
        ({**_stroke(_painted([[1, 0]])), "type": "sprays"}, "the type 'sprays'"),
        ({**_stroke(_painted([[1, 0]])), "type": None}, "the type None"),
        ({**_stroke(_painted([[1, 0]])), "type": ["brushlabels"]}, "the type \\['brushlabels'\\]"),
        ({}, "without id"),
        (_with_value(rle=["a"] * 20), "0 to 255"),
        (_with_value(rle=mask2rle(_painted([[1, 0]]))[:8]), "cut off"),
        (_with_value(rle=mask2rle(_painted([[1, 0, 1]]))), "another image"),
        (_stroke(_painted([[1, 0]]), value=None), "has the value None"),
        (_stroke(_painted([[1, 0]]), value=[1]), "has the value \\[1\\]"),
        (_stroke(_painted([[1, 0]]), original_width=None), "original_width None"),
        (_stroke(_painted([[1, 0]]), original_width="2"), "original_width '2'"),
        (_stroke(_painted([[1, 0]]), original_width=2.5), "original_width 2.5"),
        (_stroke(_painted([[1, 0]]), original_height=0), "original_height 0"),
        (_stroke(_painted([[1, 0]]), original_height=-1), "original_height -1"),
        (_stroke(_painted([[1, 0]]), original_height=float("nan")), "original_height nan"),
        (_stroke(_painted([[1, 0]]), original_height=10**9, original_width=10**9), "at most"),
        ({"type": "brushlabels", "from_name": "mask"}, "without id"),
        ("stroke", "number 2 is 'stroke', expected an object"),
        (None, "number 2 is None, expected an object"),
    ],
)
def test_a_malformed_stroke_is_named(result, message):
    _left_out([result], message)


@pytest.mark.parametrize("results", [None, "abc", 3, {"id": "a"}, [None], [[], "stroke"]])
def test_results_that_are_no_list_of_strokes_are_named(results):
    assert read_paint(results, CLASSES, (1, 2)).left_out != ()
    assert read_boxes(results, BRUSH, (1, 2)).regions == ()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (None, "0 points"),
        ([], "0 points"),
        ([[0, 0], [1, 1]], "2 points"),
        ({"0": [1, 2]}, "no points"),
        ([[0, 0], [1, 1], [2]], "point \\[2\\]"),
        ([[0, 0], [1, 1], 5], "point 5"),
        ([[0, 0], [1, 1], [None, 1]], "points None"),
        ([[0, 0], [1, 1], ["1", 1]], "points '1'"),
        ([[0, 0], [1, 1], [True, 1]], "points True"),
        ([[0, 0], [1, 1], [float("nan"), 1]], "points nan"),
        ([[0, 0], [1, 1], [float("inf"), 1]], "points inf"),
        ([[0, 0], [1, 1], [10**400, 1]], "points 1000"),
        ([[0, 0]] * (MAX_POINTS + 1), "100001 points"),
    ],
)
def test_a_malformed_polygon_is_named(points, message):
    _left_out([_polygon(points)], f"'shape'.*{message}", POLYGON, (5, 5))


# What odd strokes mean for the pixels below and beside them

ODD_PLACE = _with_value(rle=mask2rle(_painted([[1, 0]]))[:8])
TWO_LABELS = _with_value(brushlabels=["road", "car"])


@pytest.mark.parametrize(
    ("odd", "with_background"),
    [
        (_stroke(_painted([[1, 0]]), "boat"), [[VOID, 2]]),
        (TWO_LABELS, [[VOID, 2]]),
        (_with_value(brushlabels=[]), [[VOID, 2]]),
        (_with_value(rle=[]), [[2, 2]]),
        (_polygon([]), [[2, 2]]),
        (None, [[2, 2]]),
        (ODD_PLACE, [[VOID, VOID]]),
        ({**_stroke(_painted([[1, 0]])), "type": "brush"}, [[VOID, VOID]]),
        ([], [[2, 2]]),
    ],
)
def test_what_somebody_painted_oddly_is_not_taken_for_background(odd, with_background):
    painted = read_paint([odd], CLASSES, (1, 2), background="tree")
    np.testing.assert_array_equal(painted.mask, with_background)
    assert len(painted.left_out) == 1
    assert (read_paint([odd], CLASSES, (1, 2)).mask == VOID).all()


def test_a_label_that_is_none_of_the_classes_makes_its_pixels_void():
    results = [_stroke(_painted([[1, 1]])), _stroke(_painted([[0, 1]]), "boat")]
    painted = read_paint(results, CLASSES, (1, 2))
    np.testing.assert_array_equal(painted.mask, [[0, VOID]])
    assert re.search("'stroke' has the label 'boat'.*road, car, tree", painted.left_out[0])


def test_a_stroke_with_two_labels_leaves_the_good_ones_under_it():
    results = [_stroke(_painted([[1, 1]]), "car"), TWO_LABELS]
    np.testing.assert_array_equal(read_paint(results, CLASSES, (1, 2)).mask, [[1, 1]])


def test_the_same_label_twice_is_one():
    results = [_with_value(brushlabels=["car", "car"])]
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, (1, 2)), [[1, VOID]])


def test_whole_sizes_as_floats_are_sizes_and_a_turned_view_changes_nothing():
    fields = {"original_width": 2.0, "original_height": 1.0, "image_rotation": 90}
    result = _stroke(_painted([[1, 0]]), **fields)
    np.testing.assert_array_equal(results_to_mask([result], CLASSES, (1, 2)), [[0, VOID]])
    polygon = {**_polygon([[0, 0], [50, 0], [50, 100], [0, 100]]), "image_rotation": 270}
    np.testing.assert_array_equal(results_to_mask([polygon], CLASSES, (1, 2)), [[0, VOID]])
    box = {**_rectangle(0, 0, 50, 100), "image_rotation": 180}
    assert region_boxes([box], IN_PLACE, (20, 40)) == [Region(0, 0, 20, 20)]


def test_the_label_of_a_tools_result_stands_in_another_of_the_same_id():
    stroke = _stroke(_painted([[1, 0]]))
    of_tool = {**stroke, "type": "magicwand", "from_name": "wand"}
    results = results_to_mask([of_tool, stroke], CLASSES, (1, 2))
    np.testing.assert_array_equal(results, [[0, VOID]])


@pytest.mark.parametrize("name", ["mask", "gone", None, ["mask"]])
def test_strokes_of_all_kinds_are_put_together_whatever_their_controls_are_called(name):
    polygon = _polygon([[50, 0], [100, 0], [100, 100], [50, 100]], "car")
    results = [{**it, "from_name": name} for it in (_stroke(_painted([[1, 1]])), polygon)]
    np.testing.assert_array_equal(results_to_mask(results, CLASSES, (1, 2)), [[0, 1]])


@pytest.mark.parametrize("config", [IN_PLACE, BRUSH], ids=["renamed", "removed"])
def test_suggested_rectangles_are_known_by_their_label_whatever_their_control_is_called(config):
    boxes = [{**_rectangle(0, 0, 50, 100), "from_name": "before"}]
    assert region_boxes(boxes, config, (20, 40)) == [Region(0, 0, 20, 20)]


# Work that is bounded before it begins


def _seconds(results, config, size, message):
    started = time.monotonic()
    painted = read_paint(results, CLASSES, size)
    seconds = time.monotonic() - started
    assert re.search(message, " ".join(painted.left_out))
    assert (painted.mask == VOID).all()
    return seconds


def test_a_hundred_thousand_large_polygons_are_refused_at_once():
    triangle = _polygon([[0, 0], [100, 0], [0, 100]])
    size = (1080, 1920)
    seconds = _seconds([triangle] * 100_000, POLYGON, size, "of its 100000 strokes cover")
    assert seconds < 5  # painted, they took 19 minutes


def test_thousands_of_small_polygons_are_painted():
    side = 50
    results = [
        _polygon([[col, row], [col + 1, row], [col + 1, row + 1], [col, row + 1]])
        for row in range(0, 100, 2)
        for col in range(0, 100, 2)
    ]
    mask = results_to_mask(results, CLASSES, (1000, 1000))
    assert (mask == 0).sum() == side * side * 100


def test_a_polygon_that_runs_to_and_fro_over_a_large_image_is_refused_at_once():
    zigzag = _polygon([[index % 100, 100 * (index % 2)] for index in range(MAX_POINTS)])
    seconds = _seconds([zigzag] * 10, POLYGON, (10_000, 10_000), "strokes cover")
    assert seconds < 10


def test_strokes_of_a_few_bytes_each_that_cover_a_huge_image_are_refused_at_once():
    alpha = np.zeros((10_000, 10_000), np.uint8)
    results = [_stroke(np.zeros((1, 1), np.uint8), original_height=10_000, original_width=10_000)]
    results[0]["value"]["rle"] = encode(alpha)
    seconds = _seconds(results * 50, BRUSH, (10_000, 10_000), "of its 50 strokes cover")
    assert seconds < 1


def test_a_hundred_strokes_on_a_usual_image_are_painted():
    stroke = _stroke(_painted([[1, 0], [0, 0]]).repeat(300, 0).repeat(300, 1))
    mask = results_to_mask([stroke] * 100, CLASSES, (600, 600))
    assert (mask == 0).sum() == 300 * 300


def test_a_picture_far_larger_than_the_region_that_it_shows_is_refused_before_it_is_unpacked():
    results = [_stroke(np.zeros((1, 1), np.uint8), original_height=9000, original_width=9000)]
    tracemalloc.start()
    (text,) = read_paint(results, CLASSES, (128, 128)).left_out
    assert "more than 8 times as large as the 128 x 128" in text
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_stream_far_longer_than_its_picture_needs_is_refused():
    result = _with_value(rle=encode(_painted([[1, 0]])) + [0] * 1000)
    _left_out([result], r"brush RLE has 10.. bytes, expected 105 at most")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"original_width": 40, "original_height": 20}, "the proportions of 20 x 40"),
        ({"original_width": 2000, "original_height": 4000}, "more than 8 times"),
        ({"original_width": 20}, "original_height None"),
        ({"original_width": "20", "original_height": 40}, "original_width '20'"),
    ],
)
def test_polygons_and_boxes_on_another_picture_are_refused_as_strokes_are(fields, message):
    polygon = {**_polygon([[0, 0], [100, 0], [100, 100]]), **fields}
    _left_out([polygon], f"'shape'.*{message}", POLYGON, (40, 20))
    _no_boxes([{**_rectangle(0, 0, 10, 10), **fields}], IN_PLACE, (40, 20), f"'box'.*{message}")


def test_polygons_and_boxes_of_an_enlarged_picture_are_rescaled():
    fields = {"original_width": 80, "original_height": 160}
    polygon = {**_polygon([[0, 0], [100, 0], [100, 50], [0, 50]]), **fields}
    mask = results_to_mask([polygon], CLASSES, (40, 20))
    assert (mask[:20] == 0).all()
    assert (mask[20:] == VOID).all()
    box = {**_rectangle(0, 50, 100, 50), **fields}
    assert region_boxes([box], IN_PLACE, (40, 20)) == [Region(20, 0, 20, 20)]


def test_regions_without_end_are_refused_at_once():
    many = [_rectangle(col / 20, row / 20, 0.05, 0.05) for row in range(40) for col in range(40)]
    assert len(region_boxes(many[:MAX_REGIONS], IN_PLACE, (2000, 2000))) == MAX_REGIONS
    for results in (many, [_rectangle(0, 0, 100, 100 - index) for index in range(50)]):
        _no_boxes(results, IN_PLACE, (2000, 2000), "delete some")
    same = [_rectangle(0, 0, 50, 50)] * 50_000
    assert region_boxes(same, IN_PLACE, (2000, 2000)) == [Region(0, 0, 1000, 1000)]


def test_what_is_named_in_an_error_is_cut_short():
    nested: Any = "x" * 10**6
    for _ in range(5000):
        nested = [nested]
    for result in (
        _with_value(brushlabels=nested),
        _with_value(brushlabels=["x" * 10**6]),
        _with_value(format="x" * 10**6),
        _stroke(_painted([[1, 0]]), value=nested),
        _stroke(_painted([[1, 0]]), type=nested),
        nested,
        _stroke(_painted([[1, 0]]), original_width=nested, id="x" * 10**6),
    ):
        (text,) = read_paint([result], CLASSES, (1, 2)).left_out
        assert len(text) < 500


# Suggested regions


@settings(deadline=None, max_examples=50)
@given(
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    corners=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
)
def test_a_region_comes_back_from_percent_to_the_pixel(size, corners):
    row, col = int(corners[0] * size[0]), int(corners[1] * size[1])
    region = Region(
        row, col, 1 + int(corners[2] * (size[0] - row)), 1 + int(corners[3] * (size[1] - col))
    )
    result = region_to_result(region, IN_PLACE, size, key="k", score=0.5, text=["Region 1 of 1"])
    assert region_boxes([json.loads(json.dumps(result))], IN_PLACE, size) == [region]


def test_boxes_are_in_pixels_and_clipped_to_the_image():
    results = [
        _rectangle(50, 25, 25, 50),
        _rectangle(-10, -10, 30, 30),
        _rectangle(90, 90, 1e300, 1e300),
        _rectangle(50, 25, 25, 50),  # twice
        _rectangle(150, 0, 10, 10),  # outside
        _rectangle(10, 10, 0, 10),  # empty
        _rectangle(0, 0, 10, 10, rectanglelabels=["car"]),
        _rectangle(0, 0, 10, 10, rectanglelabels="Suggested region"),
        _rectangle(0, 0, 10, 10, rectanglelabels=None),
    ]
    assert region_boxes(results, IN_PLACE, (20, 40)) == [
        Region(5, 20, 10, 10),
        Region(0, 0, 4, 8),
        Region(18, 36, 2, 4),
    ]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (_rectangle(None, 0, 1, 1), "x None"),
        (_rectangle(0, float("nan"), 1, 1), "y nan"),
        (_rectangle(0, 0, float("inf"), 1), "width inf"),
        (_rectangle(0, 0, 1, "1"), "height '1'"),
        (_rectangle(0, 0, 1, 10**400), "height 1000"),
        (_rectangle(0, 0, 1, 1, rotation=30), "turned by 30"),
        ({**_rectangle(0, 0, 1, 1), "value": 5}, "has the value 5"),
    ],
)
def test_a_malformed_box_is_named(result, message):
    _no_boxes([result], IN_PLACE, (20, 40), f"'box'.*{message}")


def test_boxes_that_stand_in_the_masks_meta_are_read_whatever_the_config_has_now():
    box = {"row": 2, "col": 3, "height": 4, "width": 5}
    inside = {"meta": {"text": ["Region 1 of 1"], "regions": [box, {**box, "row": 18}]}}
    results = [inside, {"meta": {"regions": [box, {**box, "col": 99}]}}, {"meta": None}, {}]
    for config in (BRUSH, IN_PLACE):  # the control may have come later
        assert region_boxes(results, config, (20, 40)) == [Region(2, 3, 4, 5), Region(18, 3, 2, 5)]


@pytest.mark.parametrize(
    "regions",
    [
        5,
        "ab",
        {"row": 1},
        [1],
        [{"row": 1}],
        [None],
        [{"row": None, "col": 0, "height": 1, "width": 1}],
        [{"row": float("inf"), "col": 0, "height": 1, "width": 1}],
        [{"row": float("nan"), "col": 0, "height": 1, "width": 1}],
    ],
)
def test_malformed_boxes_in_the_meta_are_named(regions):
    results = [{"id": "x", "meta": {"regions": regions}}]
    _no_boxes(results, BRUSH, (20, 40), "'x' has the regions")


def test_pasted_boxes_are_no_regions_where_others_say_where_to_paint():
    first, second = Region(0, 0, 40, 40), Region(40, 40, 40, 40)

    def boxes(region: Region) -> dict[str, Any]:
        return region_to_result(region, IN_PLACE, (80, 80), key="k", score=0.5, text=[])

    pasted = {**boxes(second), "id": "pasted"}
    found = read_boxes([pasted, boxes(first)], IN_PLACE, (80, 80))
    assert found.regions == (first,)
    assert found.are_boxes
    assert "'pasted' is a suggested region that was pasted" in found.left_out[0]
    assert read_boxes([pasted], IN_PLACE, (80, 80), [first]).regions == (first,)
    alone = read_boxes([pasted], IN_PLACE, (80, 80))
    assert (alone.regions, alone.left_out) == ((second,), ())
    helper = {**boxes(first), "value": {**boxes(first)["value"], "rectanglelabels": ["Car"]}}
    assert read_boxes([pasted, helper], IN_PLACE, (80, 80)).regions == (second,)


def test_a_tick_that_was_pasted_with_a_box_refuses_nothing_where_the_region_has_a_box_of_its_own():
    first, second = Region(0, 0, 40, 40), Region(40, 40, 40, 40)
    own, other = (
        region_to_result(region, IN_PLACE, (80, 80), key=key, score=0.5, text=[])
        for key, region in (("a", first), ("b", second))
    )
    pasted = {**own, "id": "pasted"}
    tick = {
        "id": "pasted",
        "type": "choices",
        "from_name": "useful",
        "to_name": "image",
        "value": {"choices": ["Not worth labelling"]},
    }
    pasted_with_tick = [pasted, tick]
    regions, size = [first, second], (80, 80)
    found = read_refusals([own, other, *pasted_with_tick], IN_PLACE, size, regions)
    assert found.refused == set()
    assert read_refusals(pasted_with_tick, IN_PLACE, size, [first]).refused == {first}


def test_a_digest_tells_what_is_drawn_in_a_region_whatever_the_classes_and_the_background_are():
    size, region, beside = (4, 6), Region(0, 0, 4, 3), Region(0, 3, 4, 3)

    def digest(*strokes: dict[str, Any], names=("road",), rest: str | None = None) -> str:
        found = read_paint(strokes, names, size, None if rest is None else "road")
        assert found.digest(region, rest) != found.digest(beside, rest)
        return found.digest(region, rest)

    def drawn(where: Region, label: str, **fields: Any) -> dict[str, Any]:
        alpha = np.zeros(size, np.uint8)
        alpha[where.slices] = 255
        return _stroke(alpha, label, **fields)

    tree = drawn(Region(1, 1, 2, 1), "tree")
    there = digest(tree)
    assert digest(tree, names=("road", "tree")) == digest(tree, names=("tree", "road")) == there
    assert digest(tree, drawn(Region(1, 4, 1, 1), "car")) == there
    others = [
        digest(drawn(Region(1, 1, 2, 1), "car")),
        digest(drawn(Region(1, 1, 1, 1), "tree")),
        digest(drawn(Region(1, 1, 2, 1), "tree", origin="prediction")),
        digest(tree, drawn(Region(3, 2, 1, 1), "road")),
        digest(tree, rest="road"),
    ]
    assert len({there, *others}) == 6
