"""What the backend costs while nothing happens, and what it answers beside many labels.

An idle second of a worker with 500 projects in CPU seconds, and the time and memory of status,
metrics and suggestions with 1,000 and 100,000 labels in one project. Made in a database of its own,
without Label Studio.

    python benchmarks/idle_projects.py --out benchmarks/results/idle_projects.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from ralis_backend.app.monitoring import Metrics
from ralis_backend.core.files import write_json
from ralis_backend.core.images import mask_to_png
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.learner import Learner
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Annotation, CropTask, Label, Project, Version
from ralis_backend.online.tool import ClassLabel, ToolTask
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.loop import Worker
from ralis_backend.online.worker.steps import read_state

CLASSES = (ClassLabel("road", "#804080"), ClassLabel("car", "#0000FF"))
LABELS_PER_IMAGE = 50
SIDE = 128
REPEATS = 20


class SilentTool:
    """A tool that nobody should have to ask."""

    def watched(self, watch: object) -> SilentTool:
        """Nobody is told."""
        return self


def main() -> None:
    """Measure, print and write."""
    options = _options()
    results: dict[str, Any] = {"idle": idle(options.projects, options.seconds), "labels": {}}
    for count in options.labels:
        results["labels"][str(count)] = beside(count)
    write_json(options.out, results)
    print(json.dumps(results, indent=1))


def idle(num_projects: int, seconds: float) -> dict[str, float]:
    """CPU milliseconds of one second of a worker that has nothing to do."""
    with _store() as store:
        for number in range(1, num_projects + 1):
            project = store.projects.register(f"{number}.1", number, "<View/>", CLASSES, "pool")
            _settled(store, project)
        worker = Worker(store, SilentTool(), WorkerConfig(sync_s=1e9))  # type: ignore[arg-type]
        while worker.advance_all():
            pass  # tidies each project up once
        started, cpu = time.perf_counter(), time.process_time()
        stop = threading.Event()
        while time.perf_counter() - started < seconds:
            if not worker._advance_all_or_wait():
                stop.wait(worker._config.poll_s)
        passed = time.perf_counter() - started
        return {
            "projects": num_projects,
            "seconds": round(passed, 1),
            "cpu_ms_per_second": round(1000 * (time.process_time() - cpu) / passed, 2),
        }


def beside(num_labels: int) -> dict[str, Any]:
    """Median CPU milliseconds and peak kilobytes of each answer beside so many labels."""
    with _store() as store:
        project = _labelled_project(store, num_labels)
        learner = Learner(store, RankingConfig(region_size=(SIDE, SIDE)), None)
        metrics = Metrics(learner, None)
        task = ToolTask(1, _MOMENT, "/data/1.png")
        calls: dict[str, Callable[[], object]] = {
            "job_status": lambda: learner.status(project.uid),
            "metrics": metrics.render,
            "predict": lambda: learner.suggest(project.uid, [task]),
            "webhook": lambda: learner.learn(project.uid, "ANNOTATION_CREATED", {"id": 1}),
            "what is due": lambda: read_state(store, store.projects.by_id(project.id), 0.0, 24),
        }
        return {name: _measured(call) for name, call in calls.items()}


def _measured(call: Callable[[], object]) -> dict[str, float]:
    call()
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"cpu_ms": round(1000 * float(np.median(seconds)), 2), "peak_kB": round(peak / 1024, 1)}


def _settled(store: Store, project: Project) -> None:
    """A project that lacks nothing: read, ranked, published."""
    store.versions.add(
        Version(
            project_id=project.id,
            number=0,
            is_accepted=True,
            num_labels=0,
            created_at=now(),
            ranked_at=now(),
        ),
        is_prepared=True,
        is_sync_requested=False,
        synced_at=now(),
        published_version=0,
        num_labelled_regions=0,
    )


_MOMENT = now()


def _labelled_project(store: Store, num_labels: int) -> Project:
    """One project in crops mode, each label a done region task of its own."""
    project = store.projects.register("1.1", 1, "<View/>", CLASSES, "pool")
    _settled(store, project)
    num_images = num_labels // LABELS_PER_IMAGE
    tasks = [ToolTask(number, _MOMENT, f"/data/{number}.png") for number in _upto(num_images)]
    store.images.reconcile(project.id, tasks)
    images = store.images.of(project.id)
    size = {"height": SIDE, "width": SIDE * LABELS_PER_IMAGE * 2}
    for image in images[:1]:
        store.images.change(image.id, **size)
    mask = mask_to_png(np.zeros((SIDE, SIDE), np.uint8))
    key = store.blobs.put("labels/ab/abc.png", mask)
    rows = [
        (index + 1, images[index // LABELS_PER_IMAGE].id, SIDE * (index % LABELS_PER_IMAGE))
        for index in range(num_labels)
    ]
    with store.database.write() as session:
        session.execute(insert(CropTask), [_crop_task(project, *row) for row in rows])
        session.execute(insert(Annotation), [_annotation(project, *row) for row in rows])
        session.execute(insert(Label), [_label(project, key, *row) for row in rows])
    version = store.versions.all(project.id)[0]
    scores = np.zeros(2 * LABELS_PER_IMAGE, np.float32)
    store.rankings.put(version, images[0].id, scores, ["why"] * len(scores), None)
    count = store.labels.count_regions(project.id)
    return store.projects.change(project.id, num_labelled_regions=count)


def _crop_task(project: Project, number: int, image_id: int, col: int) -> dict[str, Any]:
    return {
        "id": number,
        "project_id": project.id,
        "image_id": image_id,
        **_region(col),
        "scale": 1,
        "round": 1,
        "rank": 1,
        "reason": "why",
        "strategy": "default",
        "version": 0,
        "usefulness": 0.5,
        "task_id": number,
        "task_created_at": _MOMENT,
        "state": "done",
    }


def _annotation(project: Project, number: int, image_id: int, col: int) -> dict[str, Any]:
    return {
        "id": number,
        "project_id": project.id,
        "tool_uid": "2.1",
        "annotation_id": number,
        "task_id": number,
        "image_id": image_id,
        "crop_task_id": number,
        "annotator": "ann",
        "created_at": _MOMENT,
        "updated_at": _MOMENT,
        "digest": "0" * 64,
        "payload": b"",
    }


def _label(project: Project, key: str, number: int, image_id: int, col: int) -> dict[str, Any]:
    return {
        "project_id": project.id,
        "annotation_row_id": number,
        "image_id": image_id,
        **_region(col),
        "is_skipped": False,
        "mask_key": key,
        "pixels": [SIDE * SIDE, 0],
    }


def _region(col: int) -> dict[str, int]:
    return {"row": 0, "col": col, "height": SIDE, "width": SIDE}


def _upto(count: int) -> Sequence[int]:
    return range(1, count + 1)


@contextmanager
def _store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="ralis-idle-") as folder:
        store = Store.open(f"sqlite:///{folder}/ralis.db", Path(folder) / "blobs")
        yield store
        store.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--projects", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--labels", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
