"""A small pool project for tests on a real Label Studio: its labels, pictures, crops and tools."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ralis_backend.core.images import context_picture, crop_picture
from ralis_backend.core.regions import VOID, grid
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.tool import Crop, CropPrediction, ToolAnnotation, ToolTask

BACKEND = "http://127.0.0.1:9"  # nobody answers there; webhooks fail quietly, as they may
HEADERS = {"Authorization": "Basic dXNlcjpzZWNyZXQ="}
CLASSES = ("road", "car")
SIZE = (60, 80)
REGIONS = grid(SIZE, (20, 20))
SCALE = 3


def config(*names: str) -> str:
    """A labelling interface with a brush for each of the names."""
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
    )


def png(height: int = SIZE[0], width: int = SIZE[1]) -> tuple[np.ndarray, bytes]:
    """A picture of noise, and its file."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return pixels, file.getvalue()


def make_setup(client: LabelStudioClient, **options: Any) -> ProjectSetup:
    return ProjectSetup(
        client, **{"backend_url": BACKEND, "webhook_headers": lambda uid: HEADERS, **options}
    )


def make_tool(client: LabelStudioClient, folder: Path) -> LabelStudioTool:
    fetcher = ImageFetcher(client, folder / "images", 10**8)
    return LabelStudioTool(client, fetcher, make_setup(client))


def crops(count: int) -> list[Crop]:
    """The first regions of the picture as crops, in their order."""
    pixels, _ = png()
    return [
        Crop(
            source_task=11,
            region=region,
            image=crop_picture(pixels, region, SCALE),
            context=context_picture(pixels, region),
            scale=SCALE,
            round=1,
            rank=rank,
            reason="uncertain",
            strategy="entropy",
            version="v1",
        )
        for rank, region in enumerate(REGIONS[:count], start=1)
    ]


def predictions(tasks: list[ToolTask], usefulness: list[float]) -> list[CropPrediction]:
    """A mask of both classes, one pixel void, for each task."""
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 1
    mask[0, 0] = VOID
    return [
        CropPrediction(task.id, region, SCALE, mask, value, rank, "uncertain")
        for rank, (task, region, value) in enumerate(
            zip(tasks, REGIONS, usefulness, strict=False), start=1
        )
    ]


def annotations_of(tool: LabelStudioTool, project_id: int) -> list[ToolAnnotation]:
    """Every annotation of a project."""
    annotated = [task.id for task in tool.tasks(project_id) if task.num_annotations]
    return [it for found in tool.annotations(project_id, annotated) for it in found.annotations]
