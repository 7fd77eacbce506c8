from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Annotation, Image, Project
from ralis_backend.online.tool import ClassLabel, ToolAnnotation, ToolTask

START = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = (ClassLabel("road", "#804080"), ClassLabel("car", "#0000FF"))


def annotation(number: int = 1, seconds: int = 0, **values: object) -> ToolAnnotation:
    fields: dict[str, object] = {
        "id": number,
        "task_id": 1,
        "task_created_at": START,
        "annotator": "ann",
        "created_at": START,
        "updated_at": START + timedelta(seconds=seconds),
        "lead_time_s": 3.5,
        "is_skipped": False,
        "results": [{"id": "x"}],
        "suggested_version": None,
    }
    return ToolAnnotation(**{**fields, **values})  # type: ignore[arg-type]


@pytest.fixture
def project(store: Store) -> Project:
    return store.projects.register("1.100", 1, "<View/>", LABELS, "streets")


@pytest.fixture
def image(store: Store, project: Project) -> Image:
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/1.png")])
    return store.images.of(project.id)[0]


def label(
    store: Store,
    project: Project,
    image: Image,
    source: ToolAnnotation,
    *new: NewLabel,
    **answers: object,
) -> Annotation:
    row = store.annotations.put(project, "1.100", source, image, None)
    assert row is not None
    store.labels.put(row, new, answers)
    return row
