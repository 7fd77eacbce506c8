"""A project with labels that tests export."""

import io
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image as PillowImage

from ralis_backend.core.images import encode_png
from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.export import export_project
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import CropTask
from ralis_backend.online.tool import ClassLabel, ToolAnnotation, ToolTask

START = datetime(2025, 1, 1, tzinfo=UTC)
SIZE = (40, 56)
UID = "7.1700000000"


@dataclass
class Exported:
    store: Store
    files: dict[int, bytes]
    masks: dict[int, np.ndarray]

    def image(self, task: ToolTask) -> bytes:
        return self.files[task.id]

    def export(self, out, format_name="png"):
        return export_project(self.store, self.image, UID, out, format_name)


def jpeg(image):
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue()


def annotation(number, task_id, seconds=12.5):
    moment = START + timedelta(minutes=number)
    return ToolAnnotation(
        id=number, task_id=task_id, task_created_at=START, annotator="ann@example.com",
        created_at=moment, updated_at=moment, lead_time_s=seconds, is_skipped=False, results=[],
        suggested_version="v1",
    )  # fmt: skip


@pytest.fixture
def grown(tmp_path, empty_database):
    """Six images; two regions painted in each of the first five, the last one skipped."""
    shutil.copy(empty_database, tmp_path)
    store = Store.open(f"sqlite:///{tmp_path}/ralis.db", tmp_path / "blobs")
    classes = [
        ClassLabel("road", "#804080"),
        ClassLabel("a & b", "red"),
        ClassLabel("sky", "#0000FF"),
    ]
    project = store.projects.register(UID, 7, "<View/>", classes, "Street")
    rng = np.random.default_rng(0)
    files, masks = {}, {}
    tasks = []
    for task_id in range(1, 7):
        picture = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        files[task_id] = jpeg(picture) if task_id % 2 else encode_png(picture)
        suffix = "jpg" if task_id % 2 else "png"
        tasks.append(ToolTask(task_id, START, f"/data/upload/7/0123abcd-frame_{task_id}.{suffix}"))
    store.images.reconcile(project.id, tasks)
    images = {row.task_id: row for row in store.images.of(project.id)}
    for number, task_id in enumerate([1, 2, 3, 4, 5], start=1):
        image = images[task_id]
        store.images.change(image.id, height=SIZE[0], width=SIZE[1])
        expected = np.full(SIZE, VOID, np.uint8)
        regions = [Region(0, 0, 16, 16), Region(24, 40, 16, 16)]
        crops = [
            CropTask(
                project_id=project.id, image_id=image.id, row=r.row, col=r.col, height=r.height,
                width=r.width, scale=1, round=2, rank=1, reason="uncertain", strategy="entropy",
                version=1, usefulness=1.0, task_id=100 * task_id + index, task_created_at=START,
            )
            for index, r in enumerate(regions)
        ]  # fmt: skip
        store.queue.add(crops)
        for index, (region, crop) in enumerate(zip(regions, crops, strict=True)):
            patch = rng.choice(np.array([0, 1, 2, VOID], np.uint8), (16, 16))
            expected[region.slices] = patch
            row = store.annotations.put(
                project, "8.1", annotation(10 * number + index, crop.task_id), image, crop
            )
            store.labels.put(row, [NewLabel(region, patch)], {"useful": index == 0})
        masks[task_id] = expected
    skipped = store.annotations.put(project, UID, annotation(99, 6), images[6], None)
    store.labels.put(skipped, [NewLabel(Region(0, 0, 16, 16), None)], {})
    yield Exported(store, files, masks)
    store.close()
