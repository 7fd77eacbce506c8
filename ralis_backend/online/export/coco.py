"""`coco`: instances as COCO's readers take them, run-length encoded or as polygons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from ralis_backend.core.regions import VOID
from ralis_backend.online.export.areas import connected_areas, polygons
from ralis_backend.online.export.folder import write_file
from ralis_backend.online.export.labelled_images import (
    SPLITS,
    ExportedClass,
    ExportedImage,
    looked_for,
)


class Segmentation(NamedTuple):
    """How an area is written.

    encode: (H, W) bool -> what `segmentation` holds.
    about: how readers take it.
    """

    encode: Callable[[np.ndarray], Any]
    about: str


def write_coco(
    images: Iterable[ExportedImage],
    classes: Sequence[ExportedClass],
    out: Path,
    segmentation: str = "rle",
) -> None:
    """`annotations/instances_<split>.json`: every connected area of a class as one annotation.

    COCO has no VOID: `labelled_area` of an image, run-length encoded, is what is not void, and
    `labelled_boxes` (x, y, width, height) say which regions were labelled. Category ids are class
    indices + 1. The background is no category: it is what the labelled area has no annotation of.
    `iscrowd` is 0 whatever the segmentation: 1 tells readers to leave an area of its category out,
    and void is of none.
    """
    encode, about = SEGMENTATIONS[segmentation]
    sought = looked_for(classes)
    splits: dict[str, dict[str, Any]] = {
        name: {
            "info": {"description": "exported by RALIS backend"},
            "licenses": [],
            "categories": [
                {"id": index + 1, "name": classes[index].name, "supercategory": ""}
                for index in sought
            ],
            "images": [],
            "annotations": [],
        }
        for name in SPLITS
    }
    for image_id, image in enumerate(images, start=1):
        split = splits[image.split]
        write_file(out / "images" / image.split / image.file_name, image.content)
        split["images"].append({
            "id": image_id,
            "file_name": image.file_name,
            "height": image.mask.shape[0],
            "width": image.mask.shape[1],
            "labelled_boxes": [[r.col, r.row, r.width, r.height] for r in image.regions],
            "labelled_area": _rle(image.mask != VOID),
        })  # fmt: skip
        for class_index, area in connected_areas(image.mask, sought):
            split["annotations"].append({
                "id": len(split["annotations"]) + 1,
                "image_id": image_id,
                "category_id": class_index + 1,
                "segmentation": encode(area),
                "area": float(area.sum()),
                "bbox": _box(area),
                "iscrowd": 0,
            })  # fmt: skip
    for name, split in splits.items():
        content = json.dumps(split).encode()
        write_file(out / "annotations" / f"instances_{name}.json", content)
        (out / "images" / name).mkdir(parents=True, exist_ok=True)
    write_file(out / "README.md", _GUIDE.format(about=about).encode())


def _rle(area: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(area.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _polygons(area: np.ndarray) -> list[list[float]]:
    return [polygon.ravel().astype(float).tolist() for polygon in polygons(area)]


def _box(area: np.ndarray) -> list[float]:
    rows, cols = np.nonzero(area.any(axis=1))[0], np.nonzero(area.any(axis=0))[0]
    width, height = cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1
    return [float(value) for value in (cols[0], rows[0], width, height)]


SEGMENTATIONS = {
    "rle": Segmentation(
        _rle,
        "`segmentation` is run-length encoded and compressed, holes included. pycocotools reads "
        "it; readers that take polygons alone (torchvision's reference scripts, for one) want "
        "`ralis export --format coco --coco-segmentation polygon`.",
    ),
    "polygon": Segmentation(
        _polygons,
        "`segmentation` is a list of polygons whose union is the area, to the pixel in "
        "pycocotools. COCO's polygons have no holes: an area with holes is cut into several "
        "polygons that leave them out.",
    ),
}
"""What `--coco-segmentation` offers."""

_GUIDE = """\
## How to load it

In this folder:

```python
from pycocotools import mask
from pycocotools.coco import COCO

coco = COCO("annotations/instances_train.json")
names = {{category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}}
for image_id, image in coco.imgs.items():
    picture = f"images/train/{{image['file_name']}}"
    labelled = mask.decode(image["labelled_area"])  # (H, W): 0 is VOID
    print(picture, labelled.mean())
    for annotation in coco.imgToAnns[image_id]:
        area = coco.annToMask(annotation)  # (H, W): 1 inside
        print(picture, names[annotation["category_id"]], area.sum())
```

Or `torchvision.datasets.CocoDetection("images/train", "annotations/instances_train.json")`.

Each annotation is a connected area of a class, not one object: two cars that touch are one.
`category_id` is the class's value + 1. {about} `iscrowd` is 0 everywhere: 1 would tell readers to
leave the area out.

COCO does not know VOID: no annotation covers what is not labelled. A background is no category
either: it is what the labelled area has no annotation of. `labelled_area` of an image is
everything that is not VOID; leave the rest out of the loss if your trainer can. `labelled_boxes`,
each [x, y, width, height], are the regions that were labelled: parts of them may be VOID.
"""
