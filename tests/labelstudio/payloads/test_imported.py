"""Masks of whole images that were imported: what is void stays so beside a background."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.payloads.label_config import LabelConfig, parse_label_config
from ralis_backend.labelstudio.payloads.masks import known_to_results
from ralis_backend.labelstudio.payloads.paint import read_paint
from tests.labelstudio.payloads.reading import results_to_mask

SIZE = (7, 10)


def offered(*names: str, tag: str = "BrushLabels") -> LabelConfig:
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    control = f'<{tag} name="paint" toName="image">{labels}</{tag}>'
    return parse_label_config(f'<View><Image name="image" value="$image"/>{control}</View>')


def imported(mask: np.ndarray, names: list[str], config: LabelConfig) -> list[dict[str, Any]]:
    return json.loads(json.dumps(known_to_results(mask, names, config, key="k")))


CASES = {
    "no background": (["road", "car"], ["road", "car"], None),
    "a label is background": (["road", "car"], ["road", "car"], "road"),
    "one label": (["car"], ["car", "Background"], "Background"),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[list[str], list[str], str | None]:
    """Labels of the project, its classes, its background."""
    return request.param


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels"])
@pytest.mark.parametrize("values", [[0, 1, VOID], [0, VOID], [1, VOID], [0, 1], [1]])
def test_a_mask_comes_back_as_it_was(case, tag, values):
    labels, names, background = case
    mask = np.random.default_rng(3).choice(np.array(values, np.uint8), SIZE)
    results = imported(mask, names, offered(*labels, tag=tag))
    np.testing.assert_array_equal(results_to_mask(results, names, SIZE, background), mask)


def test_background_beside_void_comes_back_though_a_polygon_cannot_say_it():
    mask = np.full(SIZE, VOID, np.uint8)
    mask[2:5, 3:8] = 1
    results = imported(mask, ["car", "Background"], offered("car", tag="PolygonLabels"))
    read = results_to_mask(results, ["car", "Background"], SIZE, "Background")
    np.testing.assert_array_equal(read, mask)


def test_what_is_void_stays_so_when_strokes_are_changed_or_deleted_and_paint_counts():
    mask = np.full(SIZE, VOID, np.uint8)
    mask[:4], mask[:2] = 0, 1
    kept, gone = imported(mask, ["road", "car"], offered("road", "car"))
    dab = np.full(SIZE, VOID, np.uint8)
    dab[6, :3] = 1
    (made,) = imported(dab, ["road", "car"], offered("road", "car"))
    del made["meta"]
    read = results_to_mask(
        [{**kept, "origin": "prediction-changed"}, made], ["road", "car"], SIZE, "road"
    )
    expected = mask.copy()
    expected[:2], expected[6, :3] = 0, 1
    assert gone["value"]["brushlabels"] == ["car"]
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("damaged", ["no PNG", "data:image/png;base64,AAAA"])
def test_nothing_is_background_where_nobody_can_tell_what_is_void(damaged):
    mask = np.full(SIZE, VOID, np.uint8)
    mask[0] = 1
    (result,) = imported(mask, ["road", "car"], offered("road", "car"))
    painted = read_paint([result | {"meta": {"void": damaged}}], ["road", "car"], SIZE, "road")
    np.testing.assert_array_equal(painted.mask, mask)
    assert len(painted.left_out) == 1


def test_what_is_void_of_an_image_is_not_void_of_one_that_a_stroke_is_pasted_into():
    mask = np.full(SIZE, VOID, np.uint8)
    mask[0] = 1
    (result,) = imported(mask, ["road", "car"], offered("road", "car"))
    pasted = [{**result, "id": "new"}]
    read = results_to_mask(pasted, ["road", "car"], SIZE, "road")
    np.testing.assert_array_equal(read, np.where(mask == 1, 1, 0))
    nothing = np.full(SIZE, VOID, np.uint8)
    nothing[0] = 0
    (empty,) = known_to_results(nothing, ["car"], offered("road"), key="k")
    for name, ground in ((empty["id"], VOID), ("new", 0)):
        read = results_to_mask([{**empty, "id": name}], ["road"], SIZE, "road")
        assert read[3, 3] == ground


def test_an_import_of_an_earlier_release_says_what_is_void_whatever_its_id():
    mask = np.full(SIZE, VOID, np.uint8)
    mask[0] = 1
    (result,) = imported(mask, ["road", "car"], offered("road", "car"))
    del result["meta"]["result_id"]
    read = results_to_mask([{**result, "id": "any"}], ["road", "car"], SIZE, "road")
    np.testing.assert_array_equal(read, mask)
