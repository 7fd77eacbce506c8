"""A Label Studio over real sockets that does what it is asked and then loses its answer."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from tests.local_server import LocalServer

CREATED = "2025-11-21T04:40:00Z"
TIMEOUT_S = 0.5
FAULTS = (
    "drop", "reset", "half headers", "half body", "half JSON", "late", "500", "502", "504",
    "HTML", "HTML 500", "empty",
)  # fmt: skip


class FlakyLabelStudio:
    """What is stored stands in `tasks`, `files`, `predictions`, `projects`, `webhooks`, `backends`.

    `faults` says, per pattern of `METHOD path`, how the next answers are lost, one after another.
    """

    def __init__(self):
        self.projects, self.tasks, self.files = {}, [], []
        self.predictions, self.webhooks, self.backends, self.views = [], [], [], []
        self.faults = {}
        self.is_cut_short = False  # an import stores the first half only, and fails
        self._lock = threading.Lock()
        around = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                call = f"{self.command} {urlsplit(self.path).path}"
                with around._lock:
                    answer = around._do(call, parse_qs(urlsplit(self.path).query), body)
                    lost = around._fault(call)
                _send(self, answer, lost)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

            def log_message(self, *arguments):
                pass

        self._server = LocalServer(Handler)

    @property
    def url(self):
        return self._server.url

    def __enter__(self):
        self._server.__enter__()
        return self

    def __exit__(self, *_):
        self._server.__exit__()

    def _fault(self, call):
        for pattern, faults in self.faults.items():
            if faults and re.fullmatch(pattern, call):
                return faults.pop(0)
        return None

    def _do(self, call, query, body):
        is_json = body[:1] in (b"{", b"[")
        content = json.loads(body) if is_json else body
        for pattern, do in {
            r"POST /api/projects/(\d+)/import": self._import,
            r"GET /api/projects/(\d+)/file-uploads": self._file_uploads,
            r"POST /api/projects/(\d+)/import/predictions": self._import_predictions,
            r"GET /api/projects/(\d+)/model-versions": self._model_versions,
            r"DELETE /api/projects/(\d+)/model-versions": self._drop_version,
            r"GET /api/projects/(\d+)": lambda number, *_: self.projects[number],
            r"PATCH /api/projects/(\d+)": self._change_project,
            r"GET /api/projects": lambda *_: {"results": list(self.projects.values())},
            r"POST /api/projects": self._add_project,
            r"GET /api/tasks": self._tasks,
            r"GET /api/webhooks/": lambda query, _: _of(self.webhooks, query),
            r"POST /api/webhooks/": lambda _, body: _add(self.webhooks, body),
            r"GET /api/ml": lambda query, _: _of(self.backends, query),
            r"POST /api/ml": lambda _, body: _add(self.backends, body),
            r"PATCH /api/ml/(\d+)": lambda *_: {},
            r"GET /api/dm/views/": lambda query, _: _of(self.views, query),
            r"POST /api/dm/views/": lambda _, body: _add(self.views, body),
        }.items():
            if match := re.fullmatch(pattern, call):
                return do(*(int(it) for it in match.groups()), query, content)
        raise AssertionError(f"{call} is not known to the fake")

    def _add_project(self, _, body):
        number = len(self.projects) + 1
        self.projects[number] = {"id": number, "created_at": CREATED, **body}
        return self.projects[number]

    def _change_project(self, number, _, body):
        self.projects[number].update(body)
        return self.projects[number]

    def _import(self, number, query, content):
        if isinstance(content, bytes):
            names = re.findall(rb'filename="([^"]+)"', content)
            first = len(self.files)
            self.files += [f"upload/{number}/0123abcd-{name.decode()}" for name in names]
            return {"file_upload_ids": list(range(first, len(self.files)))}
        if self.is_cut_short:
            content = content[: len(content) // 2]
        made = [
            {"id": len(self.tasks) + place, "created_at": CREATED, "project": number, **task}
            for place, task in enumerate(content, start=1)
        ]
        self.tasks += made
        return {"task_ids": [task["id"] for task in made]}

    def _file_uploads(self, _, query, __):
        return [{"id": it, "file": self.files[it]} for it in json.loads(query["ids"][0])]

    def _tasks(self, query, _):
        conditions = json.loads(query["query"][0])["filters"]["items"]
        tasks = [task for task in self.tasks if task["project"] == int(query["project"][0])]
        for condition in conditions:
            assert condition["filter"] == "filter:tasks:id"
            assert condition["operator"] == "greater"
            tasks = [task for task in tasks if task["id"] > condition["value"]]
        return {"tasks": tasks[: int(query["page_size"][0])], "total": len(tasks)}

    def _import_predictions(self, number, _, content):
        self.predictions += [{"project": number, **it} for it in content]
        return {"created": len(content)}

    def _model_versions(self, number, *_):
        versions = [it["model_version"] for it in self.predictions if it["project"] == number]
        return {version: versions.count(version) for version in versions}

    def _drop_version(self, _, __, body):
        kept = [it for it in self.predictions if it["model_version"] != body["model_version"]]
        self.predictions = kept
        return {}


def _of(rows, query):
    return [row for row in rows if row["project"] == int(query["project"][0])]


def _add(rows, body):
    rows.append({"id": len(rows) + 1, **body})
    return rows[-1]


def _send(handler, answer, fault):
    content, kind, status = json.dumps(answer).encode(), "application/json", 200
    if fault in ("drop", "reset", "half headers"):
        if fault == "half headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        return
    if fault == "late":
        time.sleep(2 * TIMEOUT_S)
    length = len(content)
    if fault in ("half body", "half JSON"):
        content = content[: len(content) // 2]
        length = length if fault == "half body" else len(content)
        handler.close_connection = True
    elif fault == "empty":
        content, length = b"", 0
    elif fault is not None and fault != "late":
        kind = "text/html" if "HTML" in fault else kind
        content = b"<html>Bad gateway</html>" if "HTML" in fault else b'{"detail": "failed"}'
        length, status = len(content), int(re.sub(r"\D", "", fault) or 200)
    try:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(content)
    except OSError:
        handler.close_connection = True
