"""What it costs to read a large project again in which nothing changed.

A server that answers as Label Studio's API does, with tasks of its real shape, and a database that
has been read already, each in a process of its own. Measured are an ordinary reading, which asks
for what changed, and one that lists every task; meanwhile another process stores webhooks.

    python benchmarks/full_reading.py --tasks 100000 --out benchmarks/results/full_reading.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from sqlalchemy import insert

from ralis_backend.core.files import write_json
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.payloads.tasks import parse_task
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.store import Store
from ralis_backend.online.store.database import pack
from ralis_backend.online.store.tables import Annotation, Image, Label, Source, TaskState
from ralis_backend.online.tool import ToolProject
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.sync import Sync
from ralis_backend.online.worker.tool_reader import WHOLE_EVERY

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
UID = f"1.{int(CREATED.timestamp())}"
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels></View>'
)
STROKES = np.random.default_rng(0).integers(0, 256, 1000).tolist()
RESULTS = [{"type": "brushlabels", "value": {"format": "rle", "rle": STROKES}}]
DIGEST = hashlib.sha256(pack([False, RESULTS])).hexdigest()
TARGET_S, TARGET_MB, TARGET_LOCK_MS, TARGET_WEBHOOK_MS = 15.0, 200.0, 200.0, 200.0
WEBHOOK_PAUSE_S = 0.02
ROWS = 2000


def main() -> None:
    """Measure, print, and write the figures if a file is named."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ralis-reading-") as folder:
        root = Path(folder)
        _in_process(_seed, root, options.tasks)
        with _server(options.tasks) as url, _annotators(root) as annotators:
            report = _measure(root, url, annotators, options.tasks)
    print(json.dumps(report, indent=2))
    if options.out is not None:
        write_json(options.out, report)
    sys.exit(0 if report["is_within_targets"] else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000, help="each with one annotation")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser.parse_args()


# The database


def _seed(root: Path, num_tasks: int) -> None:
    """A project whose tasks are all known, annotated and read."""
    store = Store.open(_database(root), root)
    project = store.projects.register(UID, 1, CONFIG, (), "Streets")
    payload = pack({"results": RESULTS})
    for start in range(0, num_tasks, ROWS):
        ids = range(start + 1, min(start + ROWS, num_tasks) + 1)
        with store.database.write() as session:
            for table, row in _rows(project.id, payload).items():
                session.execute(insert(table), [row(number) for number in ids])
    store.readings.note(Source(project_id=project.id, tool_uid=UID), changed_at=_changed(num_tasks))
    store.close()


def _rows(project_id: int, payload: bytes) -> dict[Any, Any]:
    place = {"row": 0, "col": 0, "height": 128, "width": 128}
    return {
        Image: lambda number: {
            "project_id": project_id, "task_id": number, "task_created_at": CREATED,
            "ref": _task(number)["data"]["image"], "height": 1080, "width": 1920,
        },
        Annotation: lambda number: {
            "project_id": project_id, "tool_uid": UID, "annotation_id": number, "task_id": number,
            "image_id": number, "annotator": "1", "created_at": CREATED,
            "updated_at": _changed(number), "digest": DIGEST, "payload": payload,
            "lead_time_s": 3.5,
        },
        Label: lambda number: {
            "project_id": project_id, "annotation_row_id": number, "image_id": number, **place,
        },
        TaskState: lambda number: {
            "project_id": project_id, "tool_uid": UID, "task_id": number,
            "state": parse_task(_task(number), "image").state,
        },
    }  # fmt: skip


def _database(root: Path) -> str:
    return f"sqlite:///{root / 'ralis.db'}"


# Label Studio


def _changed(number: int) -> datetime:
    return CREATED + timedelta(seconds=number)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _task(number: int) -> dict[str, Any]:
    """As `GET /api/tasks?fields=task_only` of release 1.23.2 lists it."""
    return {
        "id": number, "drafts": [], "annotators": [], "inner_id": number,
        "cancelled_annotations": 0, "total_annotations": 1, "total_predictions": 1,
        "annotations_results": "", "predictions_results": "", "file_upload": None,
        "storage_filename": None, "annotations_ids": "", "predictions_model_versions": "",
        "updated_by": [{"user_id": 1}],
        "data": {"image": f"/data/upload/1/{number:08x}-frame_{number}.png"},
        "meta": {}, "created_at": _text(CREATED), "updated_at": _text(_changed(number)),
        "is_labeled": True, "overlap": 1, "comment_count": 0, "unresolved_comment_count": 0,
        "last_comment_updated_at": None, "project": 1, "comment_authors": [],
    }  # fmt: skip


class _LabelStudio(BaseHTTPRequestHandler):
    """The calls of a reading; `num_tasks` is set by the server's class."""

    num_tasks = 0
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer as the API does."""
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if address.path == "/api/tasks":
            self._answer(self._page(query))
        elif address.path.endswith("/export"):
            self._answer([self._exported(int(number)) for number in query["ids[]"]])
        else:
            self._answer(self._project())

    def _project(self) -> dict[str, Any]:
        return {
            "id": 1, "title": "Streets", "label_config": CONFIG, "created_at": _text(CREATED),
            "task_number": self.num_tasks, "total_annotations_number": self.num_tasks,
            "skipped_annotations_number": 0,
        }  # fmt: skip

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        conditions = json.loads(query["query"][0])["filters"]["items"]
        least = {item["filter"].rpartition(":")[2]: item["value"] for item in conditions}
        first = least["id"] + 1
        if "updated_at" in least:
            since = datetime.fromisoformat(least["updated_at"]) - CREATED
            first = max(first, int(since.total_seconds()))
        left = range(max(first, 1), self.num_tasks + 1)
        tasks = [_task(number) for number in left[: int(query["page_size"][0])]]
        return {"total_annotations": len(left), "total": len(left), "tasks": tasks}

    def _exported(self, number: int) -> dict[str, Any]:
        annotation = {
            "id": number, "completed_by": 1, "was_cancelled": False, "lead_time": 3.5,
            "created_at": _text(CREATED), "updated_at": _text(_changed(number)), "prediction": {},
            "parent_prediction": None, "result": RESULTS,
        }  # fmt: skip
        return {**_task(number), "annotations": [annotation]}

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


def _serve(num_tasks: int, address: Connection) -> None:
    handler = type("Seeded", (_LabelStudio,), {"num_tasks": num_tasks})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    address.send(server.server_port)
    server.serve_forever()


@contextmanager
def _server(num_tasks: int) -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = _start(_serve, num_tasks, theirs)
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


class _Prepared:
    """Stands in for the set-up of projects, which is not measured."""

    def prepare(
        self,
        project: ToolProject,
        mode: str,
        regions_project_id: int | None,
        regions_uid: str | None = None,
    ) -> None:
        """Nothing is to be done."""


# Webhooks that come meanwhile


def _webhooks(root: Path, control: Connection) -> None:
    """Between "go" and "stop" store a webhook every few milliseconds; answer with the seconds."""
    store = Store.open(_database(root), root)
    payload = {"annotation": {"id": 1, "task": 1}}
    while control.recv() == "go":
        seconds = []
        while not control.poll(WEBHOOK_PAUSE_S):
            start = time.perf_counter()
            store.events.add("2.0", "ANNOTATION_CREATED", payload)
            seconds.append(time.perf_counter() - start)
        control.recv()
        control.send(seconds)
    store.close()


@contextmanager
def _annotators(root: Path) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = _start(_webhooks, root, theirs)
    yield ours
    ours.send("end")
    process.join()


# Measuring


def _measure(root: Path, url: str, annotators: Connection, num_tasks: int) -> dict[str, Any]:
    store = Store.open(_database(root), root)
    locks = _timed_writes(store)
    client = LabelStudioClient(url, "0" * 40)
    tool = LabelStudioTool(client, ImageFetcher(client, root, 0), _Prepared())  # type: ignore[arg-type]
    sync = Sync(store, tool, WorkerConfig(mode="in-place"))
    readings = {
        "what changed": _read(store, sync, locks, annotators, num_readings=0),
        "every task": _read(store, sync, locks, annotators, num_readings=WHOLE_EVERY - 1),
    }
    store.close()
    client.close()
    return {
        "tasks": num_tasks,
        "annotations": num_tasks,
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "readings": readings,
        "is_within_targets": readings["what changed"]["seconds"] < TARGET_S
        and all(map(_leaves_room, readings.values())),
    }


def _read(
    store: Store, sync: Sync, locks: list[float], annotators: Connection, num_readings: int
) -> dict[str, float]:
    project = store.projects.get(UID)
    store.projects.change(project.id, num_readings=num_readings)
    locks.clear()
    memory = _peak_mb()
    annotators.send("go")
    start, cpu = time.perf_counter(), time.process_time()
    sync.full(project)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    annotators.send("stop")
    webhooks = annotators.recv()
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "extra_memory_mb": round(_peak_mb() - memory, 1),
        "write_transactions": len(locks),
        "longest_write_transaction_ms": round(1000 * max(locks), 1),
        "webhooks": len(webhooks),
        "webhook_p99_ms": round(1000 * float(np.quantile(webhooks or [0.0], 0.99)), 1),
    }


def _leaves_room(reading: dict[str, float]) -> bool:
    """Whether the rest of the backend can go on meanwhile."""
    return (
        reading["extra_memory_mb"] < TARGET_MB
        and reading["longest_write_transaction_ms"] < TARGET_LOCK_MS
        and reading["webhook_p99_ms"] < TARGET_WEBHOOK_MS
    )


def _timed_writes(store: Store) -> list[float]:
    """Seconds that each write transaction takes from now on, its commit included."""
    write, seconds = store.database.write, []

    @contextmanager
    def timed() -> Iterator[Any]:
        with write() as session:
            session.connection()  # from here on others wait
            start = time.perf_counter()
            yield session
        seconds.append(time.perf_counter() - start)

    store.database.write = timed  # type: ignore[method-assign]
    return seconds


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _start(target: Any, *arguments: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def _in_process(target: Any, *arguments: Any) -> None:
    process = _start(target, *arguments)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{target.__name__} ended with {process.exitcode}")


if __name__ == "__main__":
    main()
