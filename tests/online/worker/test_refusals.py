"""Label Studio's own results, read to the end: what becomes of regions not worth labelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio.payloads import brush_rle
from ralis_backend.labelstudio.payloads.answers import read_answers
from ralis_backend.labelstudio.payloads.boxes import read_boxes, read_refusals
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.paint import drawn_instead, read_paint
from ralis_backend.labelstudio.payloads.strokes import OWNER
from ralis_backend.online.store import Store
from ralis_backend.online.tool import (
    FoundRegions,
    Painted,
    Refusals,
    ToolAnnotation,
    ToolProject,
    ToolTask,
)
from ralis_backend.online.worker import WorkerConfig
from ralis_backend.online.worker.sync import Sync
from tests.online.conftest import RANKING
from tests.online.fake_tool import FakeTool

POOL, SIZE, NAMES = "1.100", (64, 96), ("road", "car")
WHOLE = slice(None)
CROP_TASK = 11
NOT_WORTH = "Not worth labelling"
BOXES = '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'


class LabelStudioResults(FakeTool):
    """Annotations hold what Label Studio sends."""

    def __init__(self) -> None:
        super().__init__(1)
        self.version = None  # nobody remembers what was suggested
        data = {"source_task": 1, "row": 0, "col": 0, "height": 32, "width": 32, "round": 1}
        data |= {"rank": 1, "strategy": "entropy", "version": "v0"}
        self.region_tasks[CROP_TASK] = ToolTask(CROP_TASK, self.tick(), "/data/crop.png", data)
        self.offer(has_boxes=True)

    def offer(self, *, has_boxes: bool) -> None:
        labels = "".join(f'<Label value="{name}"/>' for name in NAMES)
        xml = (
            '<View><Image name="image" value="$image"/>'
            f"{f'{BOXES}</RectangleLabels>' if has_boxes else ''}"
            f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
        )
        classes = parse_label_config(xml).labels
        self.pool = replace(self.pool, label_config=xml, classes=classes, shows_boxes=has_boxes)

    def answers(self, annotation: ToolAnnotation, *, is_asked: bool = False) -> dict[str, Any]:
        return read_answers(annotation.results, is_asked=is_asked)

    def mask(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        class_names: Sequence[str],
        size: tuple[int, int],
        background: str | None,
    ) -> Painted:
        return read_paint(annotation.results, class_names, size, background)

    def annotated_regions(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        image_size: tuple[int, int],
        handed_out: Sequence[Region],
    ) -> FoundRegions:
        config = parse_label_config(project.label_config)
        found = read_boxes(annotation.results, config, image_size, handed_out)
        return replace(found, drawn_instead=drawn_instead(annotation.results))

    def refusals(
        self,
        annotation: ToolAnnotation,
        project: ToolProject,
        size: tuple[int, int],
        regions: Sequence[Region],
    ) -> Refusals:
        config = parse_label_config(project.label_config)
        return read_refusals(annotation.results, config, size, regions)


@pytest.fixture
def tool() -> LabelStudioResults:
    return LabelStudioResults()


@pytest.fixture(params=["road", None], ids=["background", "no background"])
def background(request: pytest.FixtureRequest) -> str | None:
    return request.param


def stroke(
    rows: slice, cols: slice, size: tuple[int, int] = SIZE, origin: str = "manual"
) -> dict[str, Any]:
    """A brush stroke of the class car."""
    alpha = np.zeros(size, np.uint8)
    alpha[rows, cols] = 255
    return {
        "id": f"stroke {rows} {cols} {origin}",
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "image",
        "original_width": size[1],
        "original_height": size[0],
        "origin": origin,
        "value": {"format": "rle", "rle": brush_rle.encode(alpha), "brushlabels": ["car"]},
    }


def box(name: str, region: Region) -> dict[str, Any]:
    height, width = SIZE
    value = {"x": 100 * region.col / width, "y": 100 * region.row / height, "rotation": 0}
    value |= {"width": 100 * region.width / width, "height": 100 * region.height / height}
    value |= {"rectanglelabels": ["Suggested region"]}
    return {"id": name, "type": "rectanglelabels", "from_name": "region", "value": value}


def tick(about: str | None = None) -> dict[str, Any]:
    """Not worth labelling: the result of this id, or all that is shown."""
    value = {"choices": [NOT_WORTH]}
    return {"id": about or "all", "type": "choices", "from_name": "feedback", "value": value}


def read(
    store: Store,
    tool: LabelStudioResults,
    results: Sequence[dict[str, Any]],
    background: str | None,
    task_id: int = CROP_TASK,
    handed_out: Sequence[Region] = (),
) -> dict[tuple[int, int], dict[str, int] | None]:
    """Pixels of each class by the place of each labelled region, None for a skip."""
    pool = tool.pool
    register = store.projects.register
    register(pool.uid, pool.id, pool.label_config, pool.classes, "pool", None, background)
    mode = "crops" if task_id == CROP_TASK else "in-place"
    sync = Sync(store, tool, WorkerConfig(mode=mode, improve_s=0.0, ranking=RANKING))
    sync.full(store.projects.get(POOL))
    if handed_out:
        image = store.images.of(store.projects.get(POOL).id)[0]
        store.queue.hand_out(image.id, 3, [asdict(it) for it in handed_out])
        tool.version = "v3"
    tool.annotate(task_id, results, project_id=2 if mode == "crops" else 1, annotation_id=1)
    sync.full(store.projects.get(POOL))
    return labels(store)


def labels(store: Store) -> dict[tuple[int, int], dict[str, int] | None]:
    project = store.projects.get(POOL)
    return {
        (it.region.row, it.region.col): None
        if it.is_skipped
        else {
            name: count
            for name, count in zip(project.class_names, it.pixels, strict=False)
            if count
        }
        for it in store.labels.of(project.id)
    }


NOTHING = slice(0, 0)
ERASED = stroke(NOTHING, NOTHING, (32, 32), "prediction-changed")


@pytest.mark.parametrize(
    "strokes",
    [
        [],
        [ERASED],
        [stroke(NOTHING, NOTHING, (32, 32))],
        [{**ERASED, "value": {"format": "rle", "rle": [], "brushlabels": ["car"]}}],
        [stroke(WHOLE, WHOLE, (32, 32), "prediction"), ERASED],
    ],
)
def test_a_crop_of_which_no_pixel_is_painted_is_refused_by_a_tick(store, tool, background, strokes):
    assert read(store, tool, [*strokes, tick()], background) == {(0, 0): None}


def test_what_is_painted_in_a_ticked_crop_counts_and_nothing_else_of_it(store, tool, background):
    painted = [ERASED, stroke(slice(3, 4), slice(3, 4), (32, 32)), tick()]
    assert read(store, tool, painted, background) == {(0, 0): {"car": 1}}


def test_whatever_was_erased_and_whoever_said_so_a_region_in_place_is_refused(
    store, tool, background
):
    whole = Region(0, 0, 32, 32)
    erased = stroke(NOTHING, NOTHING, SIZE, "prediction-changed")
    for about in ("a", None):
        assert read(store, tool, [box("a", whole), erased, tick(about)], background, 1) == {
            (0, 0): None
        }


LEFT, RIGHT = Region(0, 0, 32, 32), Region(0, 32, 32, 32)


@pytest.mark.parametrize(
    ("first", "paint", "expected"),
    [
        (LEFT, slice(32, 64), None),
        (LEFT, slice(31, 64), {"car": 32}),  # one column too far: no background beside it
        (Region(0, 8, 32, 32), slice(32, 64), None),  # the boxes overlap
        (Region(0, 8, 32, 32), slice(31, 64), {"car": 9 * 32}),
    ],
)
def test_what_is_painted_in_the_neighbour_makes_no_background_of_a_ticked_region(
    store, tool, background, first, paint, expected
):
    results = [box("a", first), box("b", RIGHT), stroke(slice(0, 32), paint), tick("a")]
    found = read(store, tool, results, background, 1)
    assert found == {(0, first.col): expected, (0, 32): {"car": 1024}}


def test_a_ticked_region_teaches_nothing_of_the_masks_that_were_left_as_suggested(
    store, tool, background
):
    masks = [stroke(slice(0, 32), slice(0, 64), origin="prediction"), suggested(LEFT)]
    spill = stroke(slice(0, 32), slice(31, 40))
    results = [box("a", LEFT), box("b", RIGHT), *masks, spill, tick("a")]
    found = read(store, tool, results, background, 1)
    assert found == {(0, 0): {"car": 32}, (0, 32): {"car": 1024}}
    tool.offer(has_boxes=False)
    results = [suggested(LEFT), suggested(RIGHT), spill, tick(suggested(LEFT)["id"])]
    assert read(store, tool, results, background, 1) == found


def test_a_dab_in_a_ticked_crop_is_all_that_counts_of_it(store, tool, background):
    masks = [stroke(WHOLE, WHOLE, (32, 32), "prediction")]
    dab = stroke(slice(3, 4), slice(3, 5), (32, 32))
    for results in ([*masks, dab, tick()], [dab, *masks, tick()]):
        assert read(store, tool, results, background) == {(0, 0): {"car": 2}}


def test_regions_that_are_all_ticked_do_not_hide_what_is_painted_in_them(store, tool):
    boxes = [box("a", Region(0, 8, 32, 32)), box("b", RIGHT)]
    results = [*boxes, stroke(slice(0, 1), slice(32, 33)), tick("a"), tick("b")]
    assert read(store, tool, results, "road", 1) == {(0, 8): {"car": 1}, (0, 32): {"car": 1}}


def suggested(region: Region) -> dict[str, Any]:
    """A suggested mask of a region, as it is without a control for boxes; untouched."""
    painted = stroke(*region.slices, origin="prediction")
    return {**painted, "meta": {"regions": [asdict(region)]}}


def test_regions_of_masks_stay_what_they_are_when_the_owner_adds_boxes(store, tool):
    tool.offer(has_boxes=False)
    masks = [suggested(LEFT), suggested(RIGHT)]
    found = read(store, tool, [*masks, tick(masks[0]["id"])], None, 1)
    assert found == {(0, 0): None, (0, 32): {"car": 1024}}
    tool.offer(has_boxes=True)
    for background in (None, "road", None):
        assert read(store, tool, [*masks, tick(masks[0]["id"])], background, 1) == found


def test_a_region_with_a_box_and_a_mask_s_meta_counts_once(store, tool):
    region = Region(0, 0, 32, 32)
    found = read(store, tool, [box("a", region), suggested(region), suggested(region)], None, 1)
    assert found == {(0, 0): {"car": 1024}}
    assert len(store.labels.of(store.projects.get(POOL).id)) == 1


def test_paint_outside_the_boxes_keeps_none_of_them_from_being_refused(store, tool):
    results = [box("a", Region(0, 0, 32, 32)), stroke(WHOLE, slice(32, 40)), tick()]
    assert read(store, tool, results, "road", 1) == {(0, 0): None}


LOWER = Region(32, 0, 32, 32)


def test_a_tick_for_all_that_is_shown_is_one_for_each_region(store, tool, background):
    boxes = [box("a", LEFT), box("b", RIGHT), box("c", LOWER)]
    results = [*boxes, stroke(slice(32, 33), slice(0, 1)), tick()]
    expected = {(0, 0): None, (0, 32): None, (32, 0): {"car": 1}}
    assert read(store, tool, results, background, 1) == expected
    useful = tick("b") | {"value": {"choices": ["Useful"]}}
    found = read(store, tool, [*results, useful], background, 1)
    assert found[(0, 32)] == ({"road": 1024} if background else None)


def test_regions_that_were_handed_out_are_refused_by_a_tick_though_nothing_names_them(
    store, tool, background
):
    results = [stroke(slice(32, 64), slice(0, 9)), tick()]
    found = read(store, tool, results, background, 1, [LEFT, RIGHT])
    assert found == {(0, 0): None, (0, 32): None, (32, 0): {"car": 288}}


def test_cells_of_a_ticked_image_in_which_nothing_is_painted_are_refused(store, tool, background):
    found = read(store, tool, [stroke(slice(40, 41), slice(70, 72)), tick()], background, 1)
    cells = dict.fromkeys((row, col) for row in (0, 32) for col in (0, 32, 64))
    assert found == {**cells, (32, 64): {"car": 2}}


@pytest.mark.parametrize("has_boxes", [True, False])
def test_a_suggested_mask_that_was_deleted_and_painted_anew_is_the_same_region(
    store, tool, background, has_boxes
):
    tool.offer(has_boxes=has_boxes)
    painted = stroke(slice(0, 32), slice(0, 20))
    rest = {"road": 384} if background else {}
    for kept in ([suggested(RIGHT)], []):
        found = read(store, tool, [*kept, painted], background, 1, [LEFT, RIGHT])
        assert found[(0, 0)] == {"car": 640, **rest}
        assert set(found) == {(0, 0), (0, 32)}


def test_a_tick_for_a_rectangle_of_the_owners_own_refuses_no_suggested_region(
    store, tool, background
):
    tool.offer(has_boxes=False)
    own = box("own", Region(2, 2, 5, 5))
    own["value"]["rectanglelabels"] = ["Object"]
    found = read(store, tool, [suggested(LEFT), suggested(RIGHT), own, tick("own")], background, 1)
    assert found == {(0, 0): {"car": 1024}, (0, 32): {"car": 1024}}


@pytest.mark.parametrize("is_remembered", [True, False])
def test_regions_of_a_picture_that_was_larger_are_those_that_people_saw(
    store, tool, background, is_remembered
):
    tool.offer(has_boxes=False)
    twice = (2 * SIZE[0], 2 * SIZE[1])
    shown = Region(0, 64, 64, 64)
    painted = stroke(slice(0, 64), slice(64, 84), twice, "prediction")
    if not is_remembered:
        painted["meta"] = {"regions": [asdict(shown)]}
    found = read(store, tool, [painted], background, 1, [shown] if is_remembered else [])
    assert found == {(0, 32): {"car": 320, **({"road": 704} if background else {})}}


def test_what_a_pasted_box_says_of_its_rest_is_said_of_no_other_region(store, tool):
    tool.offer(has_boxes=False)
    pasted = box("b", RIGHT) | {"meta": {OWNER: "a"}}
    rest = {"id": "b", "type": "choices", "from_name": "rest", "value": {"choices": ["road"]}}
    painted = stroke(slice(0, 32), slice(0, 20))
    assert read(store, tool, [painted, pasted, rest], None, 1, [LEFT]) == {(0, 0): {"car": 640}}


def test_a_stroke_that_spills_into_a_ticked_region_hides_nothing_that_others_painted(
    store, tool, background
):
    boxes = [box("a", LEFT), box("b", RIGHT)]
    whole = read(store, tool, [*boxes, stroke(slice(0, 32), slice(0, 20))], background, 1)
    spill = [*boxes, stroke(slice(0, 32), slice(31, 50)), tick("a")]
    tool.annotate(1, spill, project_id=1, annotation_id=2, annotator="bob")
    sync = Sync(store, tool, WorkerConfig(mode="in-place", improve_s=0.0, ranking=RANKING))
    sync.full(store.projects.get(POOL))
    assert labels(store)[(0, 0)] == whole[(0, 0)]
    assert labels(store)[(0, 32)]["car"] == 18 * 32


ACCEPTED = stroke(WHOLE, WHOLE, (32, 32), "prediction")
OWN, CORRECTED = stroke(slice(0, 9), WHOLE, (32, 32)), stroke(slice(0, 7), WHOLE, (32, 32))


@pytest.mark.parametrize("before", [[OWN], [ACCEPTED]], ids=["own", "accepted"])
@pytest.mark.parametrize("is_painted_with", ["neither", "tick", "untick"])
def test_neither_a_tick_that_comes_nor_one_that_goes_paints_without_a_stroke(
    store, tool, background, before, is_painted_with
):
    read(store, tool, before, background)
    tool.annotate(CROP_TASK, [CORRECTED], annotation_id=2, annotator="bob")
    more = [*before, stroke(slice(20, 22), WHOLE, (32, 32))]
    ticked = more if is_painted_with == "tick" else before
    read(store, tool, [*ticked, tick()], background)
    read(store, tool, before if is_painted_with == "neither" else more, background)
    (counted,) = store.labels.of(store.projects.get(POOL).id)
    assert counted.annotator == ("bob" if is_painted_with == "neither" else "ann")
