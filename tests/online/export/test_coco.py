import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from ralis_backend.core.regions import VOID
from ralis_backend.online.export.areas import connected_areas, polygons

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")


def torchvision_masks(annotations, height, width):
    """As `references/detection/coco_utils.py` of torchvision makes masks, word by word."""
    kept = [it for it in annotations if it["iscrowd"] == 0]
    masks = []
    for segments in (it["segmentation"] for it in kept):
        rles = coco_mask.frPyObjects(segments, height, width)
        mask = coco_mask.decode(rles)
        if len(mask.shape) < 3:
            mask = mask[..., None]
        masks.append(mask.any(axis=2))
    return masks


@pytest.mark.parametrize("seed", range(12))
def test_polygons_are_the_area_to_the_pixel_without_its_holes(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random(rng.integers(1, 40, 2)) < rng.choice([0.4, 0.6, 0.85])).astype(np.uint8)
    mask = np.kron(mask, np.ones(rng.integers(1, 4, 2), np.uint8))
    for _, area in connected_areas(mask, range(2)):
        found = polygons(area)
        annotation = {"segmentation": [p.ravel().astype(float).tolist() for p in found]}
        (seen,) = torchvision_masks([annotation | {"iscrowd": 0}], *area.shape)
        np.testing.assert_array_equal(seen, area)


def test_an_area_with_a_hole_is_polygons_without_one():
    area = np.ones((9, 12), bool)
    area[3:6, 4:8] = False
    found = polygons(area)
    assert len(found) == 2
    for reader in (_filled_by_opencv, _filled_by_area):
        assert reader(found, area.shape) == reader([], area.shape) + 9 * 12 - 3 * 4


def _filled_by_area(found, shape):
    return sum(cv2.contourArea(polygon.astype(np.float32)) for polygon in found)


def _filled_by_opencv(found, shape):
    """A reader that draws with ten points to a pixel."""
    drawn = np.zeros((shape[0] * 10, shape[1] * 10), np.uint8)
    for polygon in found:
        cv2.fillPoly(drawn, [polygon.astype(np.int32) * 10], 1)
    rows, cols = shape
    return round((drawn.reshape(rows, 10, cols, 10).mean(axis=(1, 3)) > 0.5).sum())


@pytest.mark.parametrize("name", ["coco", "coco-polygon"])
def test_pycocotools_reads_the_masks_of_either_segmentation(grown, tmp_path, name):
    grown.export(tmp_path / "out", name)
    for split in ("train", "val"):
        coco = COCO(tmp_path / f"out/annotations/instances_{split}.json")
        for image in coco.imgs.values():
            mask = np.full((image["height"], image["width"]), VOID, np.uint8)
            for annotation in coco.imgToAnns[image["id"]]:
                area = coco.annToMask(annotation).astype(bool)
                assert annotation["area"] == area.sum()
                assert annotation["bbox"] == coco_mask.toBbox(coco.annToRLE(annotation)).tolist()
                mask[area] = annotation["category_id"] - 1
            np.testing.assert_array_equal(coco_mask.decode(image["labelled_area"]), mask != VOID)
            task = int(image["file_name"].removeprefix("frame_")[0])
            np.testing.assert_array_equal(mask, grown.masks[task])


def test_torchvision_s_reference_reads_every_polygon(grown, tmp_path):
    grown.export(tmp_path / "out", "coco-polygon")
    content = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    (image,) = content["images"]
    masks = torchvision_masks(content["annotations"], image["height"], image["width"])
    assert len(masks) == len(content["annotations"]) > 0
    for mask, annotation in zip(masks, content["annotations"], strict=True):
        assert mask.sum() == annotation["area"]


def test_both_splits_are_there_and_their_ids_begin_at_one(grown, tmp_path):
    project = grown.store.projects.all()[0]
    for image in grown.store.images.of(project.id):
        grown.store.images.change(image.id, is_validation=False)
    grown.export(tmp_path / "out", "coco")
    train, val = (
        json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())
        for split in ("train", "val")
    )
    assert len(train["images"]) == 5
    assert val["images"] == val["annotations"] == []
    assert val["categories"] == train["categories"]
    assert [it["id"] for it in train["annotations"]] == [*range(1, len(train["annotations"]) + 1)]
