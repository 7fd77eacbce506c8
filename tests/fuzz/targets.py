"""What others send -> read, or refused with an error that callers catch; anything else is a fault.

Each target takes bytes, as fuzzers make them. `TARGETS` names them, with seeds to begin from.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ralis_backend.core import jpeg2000, weights
from ralis_backend.core.images import ImageError, decode_image, mask_from_png
from ralis_backend.core.palette import rgb
from ralis_backend.core.regions import Region
from ralis_backend.core.stored_images import file_facts
from ralis_backend.labelstudio.payloads import bitmask
from ralis_backend.labelstudio.payloads.annotations import parse_annotation
from ralis_backend.labelstudio.payloads.answers import read_answers
from ralis_backend.labelstudio.payloads.bitmask import BitmaskError, picture_size
from ralis_backend.labelstudio.payloads.boxes import read_boxes, read_refusals
from ralis_backend.labelstudio.payloads.brush_rle import RleError, decode, encode
from ralis_backend.labelstudio.payloads.events import event_payload
from ralis_backend.labelstudio.payloads.label_config import LabelConfigError, parse_label_config
from ralis_backend.labelstudio.payloads.paint import read_paint
from ralis_backend.labelstudio.payloads.regions_config import asks_everything, regions_config
from ralis_backend.labelstudio.payloads.tasks import TaskError, parse_task, project_uid
from ralis_backend.online.export.names import safe_name
from ralis_backend.online.file_names import shown_address, uploaded_name
from ralis_backend.online.tool import ToolAnnotation

SIZE = (12, 17)
CLASSES = ("road", "car")
HANDED_OUT = (Region(0, 0, 8, 8), Region(8, 8, 8, 9))
LABELS = "".join(f'<Label value="{name}" background="#804080"/>' for name in CLASSES)
REGION = '<RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
XML = (
    '<View><Image name="image" value="$image"/>{region}<{tag} name="mask" toName="image">'
    f"{LABELS}</{{tag}}></View>"
)
CONFIGS = tuple(
    parse_label_config(XML.format(tag=tag, region=region))
    for tag in ("BrushLabels", "PolygonLabels", "BitmaskLabels")
    for region in ("", f"{REGION}</RectangleLabels>")
)


@dataclass(frozen=True)
class Target:
    """A reader of bytes; it raises where it was not meant to. `seeds`: bytes that are read."""

    read: Callable[[bytes], None]
    seeds: Sequence[bytes]


def read_rle(content: bytes) -> None:
    """Two bytes of size, then a stream; what is read has the size that was asked for."""
    height, width = 1 + content[0] % 40 if content else 1, 1 + content[1] % 40 if content[1:] else 1
    with suppress(RleError):
        alpha = decode(content[2:], height, width)
        assert alpha.shape == (height, width)
        assert (decode(encode(alpha), height, width) == alpha).all()


def read_bitmask(content: bytes) -> None:
    """A data URL; what is read has the size that it said, and what is written is read."""
    with suppress(BitmaskError):
        url = content.decode(errors="replace")
        size = picture_size(url)
        if 0 < size[0] * size[1] <= 1_000_000:
            alpha = bitmask.decode(url)
            assert alpha.shape == size
            assert (bitmask.decode(bitmask.encode(alpha > 0)) == 255 * (alpha > 0)).all()


def read_payload(content: bytes) -> None:
    """JSON that Label Studio could send: an annotation, a task, an event, a project."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return
    read_json(value)


def read_json(value: Any) -> None:
    """The same of a value."""
    if isinstance(value, Mapping):
        event_payload(value)
        with suppress(ValueError):
            project_uid(value.get("project"))
    with suppress(TaskError):
        task = parse_task(value, "image")
        safe_name(uploaded_name(task.image))
        shown_address(task.image)
        assert abs(task.id) < 2**63
        if task.created_at is not None:
            task.created_at.astimezone(UTC)
        task.image.encode()
    try:
        annotation = parse_annotation(value)
    except ValueError as error:
        _check_message(error, 2000)
        return
    _check_storable(annotation)
    read_answers(annotation.results)
    for config in CONFIGS:
        for background in (None, "car"):
            painted = read_paint(annotation.results, CLASSES, SIZE, background)
            assert painted.mask.shape == SIZE
            assert set(np.unique(painted.mask)) <= {0, 1, 255}
            assert all(len(text) < 2000 for text in painted.left_out)
        regions = read_boxes(annotation.results, config, SIZE, HANDED_OUT).regions
        assert all(region.is_inside(SIZE) for region in regions)
        found = read_refusals(annotation.results, config, SIZE, regions)
        assert found.refused | found.disputed <= set(regions)


def _check_message(error: Exception, longest: int) -> None:
    assert len(str(error)) < longest


def _check_storable(annotation: ToolAnnotation) -> None:
    """A database takes it: ids of 64 bits, times that exist in UTC, text that can be encoded."""
    assert max(abs(annotation.id), abs(annotation.task_id)) < 2**63
    for moment in (annotation.created_at, annotation.updated_at, annotation.task_created_at):
        assert moment is None or moment.astimezone(UTC)
    for text in (annotation.annotator, annotation.suggested_version or ""):
        assert "\0" not in text
        text.encode()


def read_label_config(content: bytes) -> None:
    """A labelling interface; what is read makes an interface of regions that is read alike."""
    text = content.decode(errors="replace")
    try:
        config = parse_label_config(text)
    except LabelConfigError as error:
        _check_message(error, 20_000)
        return
    assert all(rgb(label.color) is not None and label.name for label in config.labels)
    again = regions_config(config)
    assert asks_everything(again, config)
    assert parse_label_config(again).labels == config.labels


def read_image(content: bytes) -> None:
    """An image file and a mask's; small ones only, so that time is spent on variety."""
    with suppress(ImageError):
        image = decode_image(content, max_pixels=1_000_000)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert 0 < image.shape[0] * image.shape[1] <= 1_000_000
    with suppress(ImageError):
        assert mask_from_png(content, max_pixels=1_000_000).ndim == 2


def read_jpeg2000(content: bytes) -> None:
    """Its header and tiles; a process of its own decodes what remains."""
    with suppress(ImageError):
        file_facts(content, max_pixels=1_000_000)
    with suppress(jpeg2000.Jpeg2000Error):
        jpeg2000.check_tiles(content)


def read_weights(content: bytes) -> None:
    """A weights file, read in each of the three ways."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        for read in (weights.load, weights.load_foreign, weights.load_metadata):
            with suppress(weights.WeightsError):
                read(Path(file.name))


def annotation_json() -> dict[str, Any]:
    """An annotation with a result of each kind that is read."""
    common = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    alpha = np.zeros(SIZE, np.uint8)
    alpha[2:5, 3:9] = 255
    brush = {"format": "rle", "rle": encode(alpha), "brushlabels": ["road"]}
    polygon = {"points": [[0, 0], [50, 0], [50, 70]], "closed": True, "polygonlabels": ["car"]}
    box = {"x": 0, "y": 10, "width": 50, "height": 50, "rotation": 0}
    rectangle = {**box, "rectanglelabels": ["Suggested region"]}
    bits = {"imageDataURL": bitmask.encode(alpha > 0), "bitmasklabels": ["road"]}
    kinds = [
        ("brushlabels", "mask", brush),
        ("polygonlabels", "mask", polygon),
        ("bitmasklabels", "mask", bits),
    ]
    results: list[dict[str, Any]] = [
        {"id": name, "type": kind, "from_name": name, "to_name": "image", "value": value, **common}
        for kind, name, value in [*kinds, ("rectanglelabels", "region", rectangle)]
    ]
    boxes = [{"row": 0, "col": 1, "height": 5, "width": 6}]
    results[0] |= {"origin": "prediction", "meta": {"regions": boxes}}
    answer = {"choices": ["Not worth labelling"]}
    results.append({"id": "c", "type": "choices", "from_name": "feedback", "value": answer})
    time = "2025-01-31T12:00:00Z"
    return {
        "id": 3,
        "task": {"id": 7, "created_at": time, "data": {"image": "/data/upload/1/a.png"}},
        "project": {"id": 1, "created_at": time},
        "data": {"image": "/data/upload/1/a.png"},
        "created_at": time,
        "updated_at": time,
        "completed_by": {"id": 1, "email": "a@b.co"},
        "lead_time": 3.5,
        "was_cancelled": False,
        "prediction": {"model_version": "ralis-v1", "result": []},
        "result": results,
    }


def safetensors_file(header: Any, content: bytes = b"") -> bytes:
    """A file with this header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def _image(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    image.save(file, kind)
    return file.getvalue()


def _images() -> list[bytes]:
    kinds = [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "CMYK"), ("GIF", "P")]
    kinds += [("BMP", "RGB"), ("TIFF", "LAB"), ("TIFF", "F"), ("WEBP", "RGBA"), ("PPM", "L")]
    return [_image(kind, mode) for kind, mode in kinds]


_OURS = {"format": weights.FORMAT, "format_version": "1", "metadata": '{"kind": "x"}'}
_TENSOR = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
_STREAM = bytes(encode(np.array([[0, 255, 255], [7, 0, 0]], np.uint8)))

TARGETS: dict[str, Target] = {
    "bitmask": Target(read_bitmask, [bitmask.encode(np.eye(5, 7, dtype=bool)).encode()]),
    "rle": Target(read_rle, [b"\x01\x02" + _STREAM, b"\x01\x02" + _STREAM[:7] + bytes(9)]),
    "payload": Target(read_payload, [json.dumps(annotation_json()).encode()]),
    "label-config": Target(
        read_label_config,
        [XML.format(tag=tag, region=REGION + "</RectangleLabels>").encode()
         for tag in ("BrushLabels", "PolygonLabels", "BitmaskLabels")],
    ),
    "image": Target(read_image, _images()),
    "jpeg2000": Target(read_jpeg2000, [_image("JPEG2000", "RGB")]),
    "weights": Target(
        read_weights, [safetensors_file({"__metadata__": _OURS, "a": _TENSOR}, b"0000")]
    ),
}  # fmt: skip
