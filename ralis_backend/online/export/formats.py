"""The file formats of an export: each writes images and masks into a folder, one at a time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ralis_backend.core.palette import palette_png
from ralis_backend.core.regions import VOID
from ralis_backend.core.registry import Registry
from ralis_backend.online.export.labelled_images import ExportedClass, ExportedImage

Writer = Callable[[Iterable[ExportedImage], Sequence[ExportedClass], Path], None]


def write_png(images: Iterable[ExportedImage], classes: Sequence[ExportedClass], out: Path) -> None:
    """Our datasets' layout: index masks with a palette, and `splits.json`."""
    splits: dict[str, list[str]] = {"d_s": [], "d_t": [], "d_v": [], "d_r": [], "test": []}
    colors = [label.color for label in classes]
    for image in images:
        _write(out / "images" / image.split / f"{image.name}{image.suffix}", image.content)
        mask = palette_png(image.mask, colors)
        _write(out / "masks" / image.split / f"{image.name}.png", mask)
        splits["d_r" if image.split == "val" else "d_v"].append(f"{image.split}/{image.name}")
    (out / "splits.json").write_text(json.dumps(splits, indent=1) + "\n")


def write_coco(
    images: Iterable[ExportedImage], classes: Sequence[ExportedClass], out: Path
) -> None:
    """`annotations/instances_<split>.json`: every connected area of a class as one annotation.

    COCO has no VOID: `labelled_boxes` of an image (x, y, width, height) say where it was labelled.
    Category ids are class indices + 1. The background is no category: it is what a labelled box
    has no annotation of.
    """
    sought = _looked_for(classes)
    categories = [
        {"id": index + 1, "name": classes[index].name, "supercategory": ""} for index in sought
    ]
    splits: dict[str, dict[str, list[Any]]] = defaultdict(lambda: {"images": [], "annotations": []})
    for image_id, image in enumerate(images, start=1):
        split = splits[image.split]
        file_name = f"{image.name}{image.suffix}"
        _write(out / "images" / image.split / file_name, image.content)
        split["images"].append({
            "id": image_id,
            "file_name": file_name,
            "height": image.mask.shape[0],
            "width": image.mask.shape[1],
            "labelled_boxes": [[r.col, r.row, r.width, r.height] for r in image.regions],
        })  # fmt: skip
        for class_index, component in _components(image.mask, sought):
            rle = coco_mask.encode(np.asfortranarray(component.astype(np.uint8)))
            split["annotations"].append({
                "id": len(split["annotations"]) + 1,
                "image_id": image_id,
                "category_id": class_index + 1,
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
                "area": float(coco_mask.area(rle)),
                "bbox": [float(value) for value in coco_mask.toBbox(rle)],
                "iscrowd": 0,
            })  # fmt: skip
    (out / "annotations").mkdir()
    for name, split in splits.items():
        content = {"info": {}, "licenses": [], "categories": categories, **split}
        (out / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def write_yolo_seg(
    images: Iterable[ExportedImage], classes: Sequence[ExportedClass], out: Path
) -> None:
    """`labels/<split>/<name>.txt`, a polygon per connected area, and `data.yaml`.

    A polygon has no hole: holes are joined to the outline by a seam. YOLO has no VOID either, so
    what was not labelled counts as background there. A background of our own is no class: the
    others are numbered anew, without a gap, as `data.yaml` says.
    """
    number = {index: place for place, index in enumerate(_looked_for(classes))}
    seen = set()
    for image in images:
        seen.add(image.split)
        _write(out / "images" / image.split / f"{image.name}{image.suffix}", image.content)
        height, width = image.mask.shape
        lines = []
        for class_index, component in _components(image.mask, number):
            polygon = outline(component) / [width, height]
            lines.append(
                " ".join([str(number[class_index]), *(f"{v:.6f}" for v in polygon.ravel())])
            )
        text = "".join(f"{line}\n" for line in lines)
        _write(out / "labels" / image.split / f"{image.name}.txt", text.encode())
    val = "val" if "val" in seen else "train"
    train = "train" if "train" in seen else val
    names = "".join(f"  {i}: {yaml_text(classes[index].name)}\n" for index, i in number.items())
    (out / "data.yaml").write_text(
        f"path: .\ntrain: images/{train}\nval: images/{val}\nnames:\n{names}", encoding="utf-8"
    )


def write_hf(images: Iterable[ExportedImage], classes: Sequence[ExportedClass], out: Path) -> None:
    """Parquet files of a Hugging Face dataset: `load_dataset("<folder>")` reads them offline.

    Columns: `image` and `mask` (pictures, the mask's values are class indices), `name`.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]
    from datasets import Features, Image, Value

    features = Features({"image": Image(), "mask": Image(), "name": Value("string")})
    schema, colors = features.arrow_schema, [label.color for label in classes]
    files = {"train": "train", "val": "validation"}
    writers: dict[str, Any] = {}
    (out / "data").mkdir()
    try:
        for image in images:
            if image.split not in writers:
                path = out / "data" / f"{files[image.split]}-00000-of-00001.parquet"
                writers[image.split] = pq.ParquetWriter(path, schema)
            row = {
                "image": {"bytes": image.content, "path": f"{image.name}{image.suffix}"},
                "mask": {"bytes": palette_png(image.mask, colors), "path": f"{image.name}.png"},
                "name": image.name,
            }
            writers[image.split].write_table(pa.Table.from_pylist([row], schema=schema))
    finally:
        for writer in writers.values():
            writer.close()
    lines = "".join(
        f"  - split: {files[split]}\n    path: data/{files[split]}-*.parquet\n" for split in writers
    )
    ground = "".join(
        f", {index} is background" for index, label in enumerate(classes) if label.is_background
    )
    (out / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}---\n\n"
        f"Images with index masks; the class names are in `classes.json`, 255 is void{ground}.\n"
    )


FORMATS: Registry[Writer] = Registry("format", "ralis_backend.export_formats")
"""What `ralis export --format` offers; a format of one's own is one function and one entry."""
FORMATS.register("png", write_png)
FORMATS.register("coco", write_coco)
FORMATS.register("yolo-seg", write_yolo_seg)
FORMATS.register("hf", write_hf)


def yaml_text(text: str) -> str:
    """Text as a YAML scalar in double quotes, whatever is in it.

    JSON is no YAML here: it leaves DEL as it is, and writes an emoji as two halves.
    """
    return f'"{"".join(map(_yaml_character, text))}"'


def _yaml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def outline(component: np.ndarray) -> np.ndarray:
    """One polygon, (N, 2) as (x, y) pixels, around a connected (H, W) bool area.

    The outline is traced on an enlarged copy, so that an area one pixel wide has a surface.
    """
    doubled = np.repeat(np.repeat(component.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [c[:, 0] for c, h in zip(contours, hierarchy[0], strict=True) if h[3] < 0]
    holes = [c[:, 0] for c, h in zip(contours, hierarchy[0], strict=True) if h[3] >= 0]
    polygon = max(outer, key=len)
    for hole in holes:
        polygon = _joined(polygon, hole)
    return (polygon + 0.5) / 2


def _joined(polygon: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The polygon with a detour around the hole, from the corner nearest to it and back."""
    distance = np.abs(polygon[:, None] - hole[None]).sum(axis=2)
    corner, start = np.unravel_index(distance.argmin(), distance.shape)
    detour = np.roll(hole, -start, axis=0)
    return np.concatenate([polygon[: corner + 1], detour, detour[:1], polygon[corner:]])


def _looked_for(classes: Sequence[ExportedClass]) -> list[int]:
    """The indices of all classes but the background."""
    return [index for index, label in enumerate(classes) if not label.is_background]


def _components(mask: np.ndarray, classes: Collection[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Each connected area of each of these classes."""
    for class_index in np.unique(mask[mask != VOID]).tolist():
        if class_index not in classes:
            continue
        count, labels = cv2.connectedComponents((mask == class_index).astype(np.uint8))
        for component in range(1, count):
            yield class_index, labels == component


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
