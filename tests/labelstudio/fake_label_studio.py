"""Label Studio's projects, tasks, backends and webhooks in memory, as its API answers them."""

from __future__ import annotations

import json
import re

import httpx

from ralis_backend.labelstudio.client import LabelStudioClient

CREATED = "2025-11-21T04:40:00Z"


def streamed(answer):
    """An answer whose body is still to come, as one over a network is; can be made again."""
    stream = httpx.ByteStream(answer.content)
    return httpx.Response(answer.status_code, headers=answer.headers, stream=stream)


class FakeLabelStudio:
    """What was changed stands in `writes`, (method, path) each."""

    def __init__(self):
        self.projects = {}
        self.tasks = {}
        self.backends = []
        self.webhooks = []
        self.writes = []
        self.exports = {}
        self.views = []
        self.predictions = []
        self.before = self.after = lambda call: None  # told of each call
        self.queries = []

    @property
    def client(self):
        return LabelStudioClient(
            "http://ls.test:8080", "token", transport=httpx.MockTransport(self._answer)
        )

    def add_project(self, label_config, **settings):
        project_id = 1 + max(self.projects, default=0)
        project = {"id": project_id, "title": "Streets", "created_at": CREATED, **settings}
        self.projects[project_id] = {**project, "label_config": label_config}
        self.tasks[project_id] = []
        return project_id

    def _answer(self, request):
        body = json.loads(request.content) if request.content else None
        if request.method != "GET":
            self.writes.append((request.method, request.url.path))
        for pattern, answer in self._routes().items():
            call = f"{request.method} {request.url.path}"
            if match := re.fullmatch(pattern, call):
                self.before(call)
                found = answer(
                    *(int(number) for number in match.groups()), request.url.params, body
                )
                self.after(call)
                if found is None:
                    return httpx.Response(404, json={"detail": "Not found"})
                return httpx.Response(200, json=found)
        raise AssertionError(f"{request.method} {request.url.path} is not known to the fake")

    def _routes(self):
        return {
            r"GET /api/projects/(\d+)": lambda number, *_: self.projects.get(number),
            r"GET /api/projects": lambda *_: {"results": list(self.projects.values())},
            r"POST /api/projects": lambda _, body: self.projects[
                self.add_project(task_number=0, **body)
            ],
            r"PATCH /api/projects/(\d+)": lambda number, _, body: self._change(
                self.projects.values(), number, body
            ),
            r"GET /api/tasks": lambda params, _: self._page(params),
            r"GET /api/projects/(\d+)/export": lambda number, *_: self.exports[number],
            r"GET /api/ml": lambda *_: self.backends,
            r"DELETE /api/ml/(\d+)": lambda number, *_: self._delete(self.backends, number),
            r"DELETE /api/projects/(\d+)": lambda number, *_: self._delete_project(number),
            r"GET /api/dm/views/": lambda params, _: [
                view for view in self.views if view["project"] == int(params["project"])
            ],
            r"POST /api/dm/views/": lambda _, body: self._add(self.views, body),
            r"DELETE /api/dm/views/(\d+)/": lambda number, *_: self._delete(self.views, number),
            r"GET /api/predictions": lambda params, _: [
                it for it in self.predictions if it["task"] == int(params["task"])
            ],
            r"GET /api/projects/(\d+)/model-versions": lambda *_: self._model_versions(),
            r"DELETE /api/projects/(\d+)/model-versions": lambda _, __, body: self._drop(body),
            r"POST /api/projects/(\d+)/import/predictions": lambda _, __, body: {
                "created": len([self._add(self.predictions, it) for it in body])
            },
            r"POST /api/ml": lambda _, body: self._add(self.backends, body),
            r"PATCH /api/ml/(\d+)": lambda number, _, body: self._change(
                self.backends, number, body
            ),
            r"GET /api/webhooks/": lambda params, _: [
                hook for hook in self.webhooks if hook["project"] == int(params["project"])
            ],
            r"POST /api/webhooks/": lambda _, body: self._add(self.webhooks, body),
            r"PATCH /api/webhooks/(\d+)/": lambda number, _, body: self._change(
                self.webhooks, number, body
            ),
            r"DELETE /api/webhooks/(\d+)/": lambda number, *_: self._delete(self.webhooks, number),
        }

    def _delete_project(self, project_id):
        del self.projects[project_id]
        for rows in (self.webhooks, self.views):
            rows[:] = [row for row in rows if row["project"] != project_id]
        return {}

    def _drop(self, body):
        assert body["model_version"], "Label Studio answers 400"
        kept = [it for it in self.predictions if it["model_version"] != body["model_version"]]
        self.predictions = kept
        return {"count": 0}

    def _model_versions(self):
        versions = [it["model_version"] for it in self.predictions]
        return {version: versions.count(version) for version in versions}

    def _page(self, params):
        self.queries.append(json.loads(params["query"]))
        tasks = self.tasks[int(params["project"])]
        return {"tasks": tasks, "total": len(tasks)}

    @staticmethod
    def _add(rows, body):
        row = {"id": 1 + max((row["id"] for row in rows), default=0), **body}
        rows.append(row)
        return row

    @staticmethod
    def _change(rows, number, body):
        row = next(row for row in rows if row["id"] == number)
        row.update(body)
        return row

    @staticmethod
    def _delete(rows, number):
        rows[:] = [row for row in rows if row["id"] != number]
        return {}
