"""Label Studio's API: its calls under plain names, errors that say what to do."""

from __future__ import annotations

import copy
import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from ralis_backend.labelstudio.deadline import DeadlineTransport, ending_within
from ralis_backend.labelstudio.deep_json import parsed
from ralis_backend.labelstudio.errors import (
    LabelStudioError,
    NotFound,
    Unauthorised,
    Unavailable,
)
from ralis_backend.labelstudio.network import Network
from ralis_backend.labelstudio.token_auth import TokenAuth

logger = logging.getLogger(__name__)

PAGE_SIZE = 500
EXPORT_SIZE = 200
MAX_DOWNLOAD_S = 300.0
MAX_CALL_S = 900.0
"""One call with its answer, however slowly it comes; a long export takes minutes."""
UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""Images are compressed already."""
RETRY_PAUSES_S = (0.5, 1.0, 2.0)
HASTY_S = 10.0
"""For a byte of what probably does not come."""

Json = Any
_KINDS: Mapping[type, str] = {int: "a whole number", str: "text", list: "a list"}
File = tuple[str, bytes]
Filter = tuple[str, str, str, Any]
"""A condition on tasks: column, its type, operator and value."""


class LabelStudioClient:
    """Calls of one Label Studio server, safe to share between threads.

    Args:
        url: its address, with or without a trailing slash.
        api_key: a personal access token or a legacy token, or what gives a legacy token.
        timeout_s: of one call, but for uploads and imports, which may take five times as long.
        network: certificates and proxies.
        transport: replaces the network in tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | Callable[[], str | None],
        *,
        timeout_s: float = 60.0,
        network: Network | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.network = network or Network()
        self.auth = TokenAuth(self.url, api_key)
        self._timeout_s = timeout_s
        self._watch: Callable[..., None] = _allow
        self._http = httpx.Client(
            base_url=self.url,
            auth=self.auth,
            timeout=_timeout(timeout_s),
            transport=transport
            or DeadlineTransport(self.network.ssl_context, self.network.proxy_of(self.url)),
            trust_env=False,
        )

    def watched(self, watch: Callable[..., None]) -> LabelStudioClient:
        """The same client; `watch(is_change=...)` is told of each call before it is sent."""
        client = copy.copy(self)
        client._watch = watch
        return client

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # The server

    def version(self) -> str:
        """Label Studio's release, for example 1.23.2."""
        answer = self._object(self._get("/api/version"), "its version")
        return str(answer.get("release", "unknown"))

    def must_answer(self) -> None:
        """One cheap call that needs its database, asked once; `Unavailable` where it fails."""
        try:
            self._request("GET", "/api/current-user/whoami", timeout=HASTY_S)
        except Unavailable:
            raise
        except LabelStudioError as error:
            logger.debug("%s answers, though not as hoped: %s", self.url, error)

    def whoami(self) -> dict[str, Any]:
        """The user whose token this is."""
        return self._object(self._get("/api/current-user/whoami"), "whose token this is")

    # Projects

    def project(self, project_id: int) -> dict[str, Any]:
        """One project's settings."""
        answer = self._get(f"/api/projects/{project_id}")
        return self._object(
            answer, f"project {project_id}", id=int, created_at=str, label_config=str
        )

    def projects(self) -> Iterator[dict[str, Any]]:
        """All projects that the user sees."""
        page = 1
        while True:
            answer = self._get("/api/projects", page=page, page_size=100)
            answer = self._object(answer, "its projects", results=list)
            yield from self._objects(answer["results"], "its projects", id=int)
            if not answer.get("next"):
                return
            page += 1

    def create_project(self, title: str, label_config: str, **settings: Json) -> dict[str, Any]:
        """A new project; `title` must have at least three characters."""
        fields = {"title": title, "label_config": label_config, **settings}
        made = self._send("POST", "/api/projects", fields)
        _field(made, "id", "a new project")
        return dict(made)

    def update_project(self, project_id: int, **settings: Json) -> dict[str, Any]:
        """Change settings of a project."""
        answer = self._send("PATCH", f"/api/projects/{project_id}", settings)
        return self._object(answer, f"a change of project {project_id}")

    def delete_project(self, project_id: int) -> None:
        """Delete a project with its tasks and annotations."""
        self._send("DELETE", f"/api/projects/{project_id}")

    # Tasks and annotations

    def tasks(self, project_id: int, *filters: Filter) -> Iterator[Json]:
        """A project's tasks in order of their ids, without annotations and predictions.

        Each page begins after the last id of the page before, so that none is left out or listed
        twice when tasks are made or deleted meanwhile.

        Args:
            project_id: of the project.
            filters: conditions of the data manager that all must hold.
        """
        newest = 0
        while True:
            query = filtered(*filters, ("id", "Number", "greater", newest))
            answer = self._get(
                "/api/tasks",
                project=project_id,
                fields="task_only",
                page_size=PAGE_SIZE,
                query=json.dumps({"ordering": ["tasks:id"], **query}),
            )
            tasks, total = self._page(answer)
            yield from tasks
            if not tasks or len(tasks) >= total:
                return
            newest = tasks[-1]["id"]

    def annotated_tasks(self, project_id: int, task_ids: Sequence[int]) -> Iterator[Json]:
        """These tasks with their annotations and skips, a bounded number per call.

        A task that the project does not have (any more) is left out.
        """
        for start in range(0, len(task_ids), EXPORT_SIZE):
            answer = self._get(
                f"/api/projects/{project_id}/export",
                **{
                    "exportType": "JSON",
                    "download_all_tasks": "true",
                    "ids[]": list(task_ids[start : start + EXPORT_SIZE]),
                },
            )
            if not isinstance(answer, list):
                raise self._odd(f"the export of project {project_id}", "a list of tasks")
            yield from answer

    def task(self, task_id: int) -> dict[str, Any]:
        """One task with its annotations and predictions."""
        return self._object(self._get(f"/api/tasks/{task_id}"), f"task {task_id}")

    def next_task(self, project_id: int) -> dict[str, Any] | None:
        """What the label stream hands the token's user next; None when nothing is left."""
        try:
            answer = self._get(f"/api/projects/{project_id}/next")
        except NotFound:
            return None
        return self._object(answer, "the next task")

    def annotate(self, task_id: int, **fields: Json) -> dict[str, Any]:
        """Submit an annotation: `result`, `lead_time`, `was_cancelled`, `parent_prediction`."""
        answer = self._send("POST", f"/api/tasks/{task_id}/annotations/", fields)
        return self._object(answer, "a new annotation")

    def upload_files(
        self, project_id: int, files: Sequence[File], *, makes_tasks: bool = True
    ) -> list[int]:
        """Store files with a project, whose config must have one data key.

        Args:
            project_id: of the project.
            files: names and contents.
            makes_tasks: each file becomes a task.

        Returns:
            The ids of the stored files, in order.
        """
        answer = self._request(
            "POST",
            f"/api/projects/{project_id}/import",
            params={} if makes_tasks else {"commit_to_project": "false"},
            files=[
                (f"file{position}", (name, content))
                for position, (name, content) in enumerate(files)
            ],
            timeout=5 * self._timeout_s,
        )
        file_ids = list(_field(answer, "file_upload_ids", "an upload"))
        if len(file_ids) != len(files):
            raise LabelStudioError(
                f"Label Studio stored {len(file_ids)} of {len(files)} files in project {project_id}"
            )
        return file_ids

    def file_paths(self, project_id: int, file_ids: Sequence[int]) -> list[str]:
        """The paths of uploaded files below the server's address, `/data/upload/...`, in order."""
        answer = self._get(
            f"/api/projects/{project_id}/file-uploads", ids=json.dumps(list(file_ids))
        )
        files = self._objects(answer, "its uploaded files", id=int, file=str)
        paths = {file["id"]: f"/data/{file['file']}" for file in files}
        if not paths.keys() >= set(file_ids):
            raise LabelStudioError(
                f"Label Studio does not list all of {len(file_ids)} files that it stored in "
                f"project {project_id}"
            )
        return [paths[file_id] for file_id in file_ids]

    def import_tasks(self, project_id: int, tasks: Sequence[Json]) -> list[int]:
        """Make tasks of JSON; their ids, in order."""
        answer = self._request(
            "POST",
            f"/api/projects/{project_id}/import",
            params={"return_task_ids": "true"},
            json=list(tasks),
            timeout=5 * self._timeout_s,
        )
        ids = [int(task_id) for task_id in _field(answer, "task_ids", "an import of tasks")]
        if len(ids) != len(tasks):
            raise LabelStudioError(
                f"Label Studio made {len(ids)} of {len(tasks)} tasks in project {project_id}"
            )
        return sorted(ids)

    def delete_tasks(
        self,
        project_id: int,
        task_ids: Sequence[int],
        filters: Sequence[Filter] = (),
    ) -> None:
        """Delete tasks with everything in them.

        Args:
            project_id: of the project.
            task_ids: the tasks.
            filters: of the data manager; a task that does not fulfil them when Label Studio
                deletes is kept.
        """
        self._request(
            "POST",
            "/api/dm/actions",
            params={"id": "delete_tasks", "project": project_id},
            json={
                "selectedItems": {"all": False, "included": list(task_ids)},
                "project": str(project_id),
                **filtered(*filters),
            },
            timeout=5 * self._timeout_s,
        )

    # Predictions

    def import_predictions(self, project_id: int, predictions: Sequence[Json]) -> None:
        """Store predictions, `{task, result, score, model_version}` each.

        Raises:
            LabelStudioError: if Label Studio dropped some; it does so without a word.
        """
        answer = self._request(
            "POST",
            f"/api/projects/{project_id}/import/predictions",
            json=list(predictions),
            timeout=5 * self._timeout_s,
        )
        num_stored = _field(answer, "created", "an import of predictions")
        if num_stored != len(predictions):
            raise LabelStudioError(
                f"Label Studio stored {num_stored} of {len(predictions)} predictions in "
                f"project {project_id}; its validation refused the others"
            )

    def prediction(self, prediction_id: int) -> dict[str, Any]:
        """One stored prediction."""
        answer = self._get(f"/api/predictions/{prediction_id}")
        return self._object(answer, f"prediction {prediction_id}")

    def predictions(self, task_id: int) -> list[dict[str, Any]]:
        """The stored predictions of one task, of all versions."""
        answer = self._get("/api/predictions", task=task_id)
        return self._objects(answer, f"the predictions of task {task_id}", id=int)

    def model_versions(self, project_id: int) -> dict[str, int]:
        """The stored predictions' versions, and how many each has."""
        what = f"the model versions of project {project_id}"
        answer = self._object(self._get(f"/api/projects/{project_id}/model-versions"), what)
        return self._object(answer, what, **dict.fromkeys(answer, int))

    def delete_predictions(self, project_id: int, version: str) -> None:
        """Delete a version's predictions."""
        self._send(
            "DELETE", f"/api/projects/{project_id}/model-versions", {"model_version": version}
        )

    # Backends and webhooks

    def backends(self, project_id: int) -> list[dict[str, Any]]:
        """The ML backends of a project. Label Studio asks each for its health meanwhile."""
        answer = self._get("/api/ml", project=project_id)
        return self._objects(answer, f"the backends of project {project_id}", id=int, url=str)

    def create_backend(self, project_id: int, url: str, title: str, **settings: Json) -> Json:
        """Connect an ML backend; Label Studio calls it before it answers."""
        return self._send(
            "POST", "/api/ml", {"project": project_id, "url": url, "title": title, **settings}
        )

    def update_backend(self, backend_id: int, project_id: int, url: str, **settings: Json) -> Json:
        """Change an ML backend; without url and project Label Studio fails."""
        return self._send(
            "PATCH", f"/api/ml/{backend_id}", {"project": project_id, "url": url, **settings}
        )

    def delete_backend(self, backend_id: int) -> None:
        """Disconnect an ML backend."""
        self._send("DELETE", f"/api/ml/{backend_id}")

    def train(self, backend_id: int) -> None:
        """Press "Start training"."""
        self._send("POST", f"/api/ml/{backend_id}/train")

    def webhooks(self, project_id: int) -> list[dict[str, Any]]:
        """The webhooks of a project."""
        answer = self._get("/api/webhooks/", project=project_id)
        return self._objects(answer, f"the webhooks of project {project_id}", id=int, url=str)

    def create_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> Json:
        """A webhook for all actions."""
        return self._send("POST", "/api/webhooks/", _webhook(url, headers, project=project_id))

    def update_webhook(self, webhook_id: int, url: str, headers: Mapping[str, str]) -> Json:
        """Change a webhook to all actions with these headers."""
        return self._send("PATCH", f"/api/webhooks/{webhook_id}/", _webhook(url, headers))

    def delete_webhook(self, webhook_id: int) -> None:
        """Delete a webhook."""
        self._send("DELETE", f"/api/webhooks/{webhook_id}/")

    # Views of the data manager

    def views(self, project_id: int) -> list[dict[str, Any]]:
        """The tabs of a project's data manager."""
        answer = self._get("/api/dm/views/", project=project_id)
        return self._objects(answer, f"the tabs of project {project_id}", id=int)

    def create_view(self, project_id: int, content: Mapping[str, Json]) -> Json:
        """A tab that everybody sees."""
        return self._send("POST", "/api/dm/views/", {"project": project_id, "data": dict(content)})

    def delete_view(self, view_id: int) -> None:
        """Delete a tab."""
        self._send("DELETE", f"/api/dm/views/{view_id}/")

    # The wire

    def download(self, path: str, max_bytes: int, *, is_hasty: bool = False) -> httpx.Response:
        """The file at a path of this server, its body read up to `max_bytes`.

        A redirect is returned as it is, not followed: the token must not travel to other hosts.

        Args:
            path: below the server's address.
            max_bytes: of the file.
            is_hasty: tried once and not waited for long.
        """
        if is_hasty:
            return self._download(path, max_bytes, HASTY_S)
        for pause_s in RETRY_PAUSES_S:
            try:
                response = self._download(path, max_bytes, self._timeout_s)
            except Unavailable as error:
                logger.info("%s; next try in %.1f s", error, pause_s)
            else:
                if response.status_code < 500:
                    return response
            time.sleep(pause_s)
        return self._download(path, max_bytes, self._timeout_s)

    def _download(self, path: str, max_bytes: int, timeout_s: float) -> httpx.Response:
        self._watch(is_change=False)
        try:
            with (
                ending_within(MAX_DOWNLOAD_S),
                self._http.stream(
                    "GET", path, headers=UNCOMPRESSED, timeout=_timeout(timeout_s)
                ) as response,
            ):
                read_bounded(response, max_bytes)
        except httpx.HTTPError as error:
            where = path.partition("?")[0]
            raise Unavailable(f"{self.url} did not deliver {where}: {_text(error)}") from None
        return response

    def _get(self, path: str, **parameters: Json) -> Json:
        for pause_s in RETRY_PAUSES_S:
            try:
                return self._request("GET", path, params=parameters)
            except Unavailable as error:
                logger.info("%s; next try in %.1f s", error, pause_s)
                time.sleep(pause_s)
        return self._request("GET", path, params=parameters)

    def _page(self, answer: Json) -> tuple[list[Json], int]:
        """The tasks of a page, and how many there are from its first on."""
        content = answer if isinstance(answer, dict) else {}
        tasks, total = content.get("tasks"), content.get("total")
        if (
            not isinstance(tasks, list)
            or not isinstance(total, int)
            or not all(isinstance(task, dict) and isinstance(task.get("id"), int) for task in tasks)
        ):
            raise self._odd("a page of tasks", "tasks with ids and their total")
        return tasks, total

    def _object(self, answer: Json, what: str, **kinds: type) -> dict[str, Any]:
        """An answer that must be a JSON object with these fields of these types."""
        if not isinstance(answer, dict):
            raise self._odd(what, "a JSON object")
        for name, kind in kinds.items():
            if not isinstance(answer.get(name), kind):
                raise self._odd(what, f"an object with {name!r} ({_KINDS[kind]})")
        return answer

    def _objects(self, answer: Json, what: str, **kinds: type) -> list[dict[str, Any]]:
        """The same of each in a list."""
        if not isinstance(answer, list):
            raise self._odd(what, "a list")
        return [self._object(each, what, **kinds) for each in answer]

    def _odd(self, what: str, expected: str) -> LabelStudioError:
        return Unavailable(f"{self.url} answered {what} with something else than {expected}")

    def _send(self, method: str, path: str, content: Json = None) -> Json:
        return self._request(method, path, json=content if content is not None else {})

    def _request(self, method: str, path: str, **arguments: Json) -> Json:
        self._watch(is_change=method != "GET")
        try:
            with ending_within(MAX_CALL_S):
                response = self._http.request(method, path, **arguments)
        except httpx.TimeoutException:
            raise Unavailable(f"Label Studio at {self.url} took too long for {path}") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise LabelStudioError(
                f"LABEL_STUDIO_URL {self.url!r} is no address; expected for example "
                "http://localhost:8080"
            ) from None
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Label Studio at {self.url} does not answer ({_text(error)}); {_advice(error)}"
            ) from None
        if response.is_error:
            raise self._error(response, method, path)
        if response.is_redirect:
            location = str(response.headers.get("location", "nowhere"))
            target = without_credentials(location.split("?")[0])
            raise LabelStudioError(
                f"{self.url}{path} redirects to {target}; set LABEL_STUDIO_URL to the address that "
                "Label Studio itself has (scheme, host and port), not to a proxy or a login page"
            )
        if not response.content:
            if method == "GET":
                raise Unavailable(f"{self.url}{path} answered with nothing")
            return {}
        if "json" not in response.headers.get("content-type", ""):
            raise LabelStudioError(
                f"{self.url}{path} answered with {response.headers.get('content-type')!r} instead "
                "of JSON; LABEL_STUDIO_URL probably points to another server or to a login page"
            )
        try:
            return parsed(response.content)
        except ValueError:
            raise Unavailable(f"{self.url}{path} answered with broken JSON") from None

    def _error(self, response: httpx.Response, method: str, path: str) -> LabelStudioError:
        status = response.status_code
        what = f"Label Studio answered {status} to {method} {path}{_detail(response)}"
        if status == 404:
            return NotFound(what)
        if status == 401:
            return Unauthorised(f"{what}: {self.auth.advice()}")
        if status == 403 and "reserved network address" in what:
            return Unauthorised(
                f"{what}: Label Studio refuses addresses inside private networks; start it with "
                "both ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false"
            )
        if status == 403:
            return Unauthorised(f"{what}: the token's user may not do this; take an owner's token")
        if status >= 500 or status == 429:
            return Unavailable(what)
        return LabelStudioError(what)


def _field(answer: Json, name: str, what: str) -> Json:
    """A field of an answer to a call that changed something; without it nobody knows what."""
    if not isinstance(answer, Mapping) or name not in answer:
        raise LabelStudioError(f"Label Studio answered to {what} without {name!r}")
    return answer[name]


def _allow(*, is_change: bool) -> None:
    """Where nobody watches."""


def read_bounded(response: httpx.Response, max_bytes: int) -> None:
    """Read a streamed body into `response`, at most `max_bytes`, within `MAX_DOWNLOAD_S`.

    Raises:
        ValueError: if there is more.
        Unavailable: if it comes too slowly.
    """
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    expand = _expander(response)
    content = bytearray()
    deadline = time.monotonic() + MAX_DOWNLOAD_S
    for chunk in response.iter_raw():
        content += expand(chunk, max_bytes + 1 - len(content))
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
        if time.monotonic() > deadline:
            raise Unavailable(f"an image did not arrive within {MAX_DOWNLOAD_S:.0f} s")
    response._content = bytes(content)


def _too_large(max_bytes: int) -> ValueError:
    return ValueError(f"the file is larger than {max_bytes} bytes, the limit for one image")


def _expander(response: httpx.Response) -> Callable[[bytes, int], bytes]:
    """Undoes a body's compression, piece by piece; never makes more than it is told.

    httpx's own decoders expand a whole piece before its size is known, once per encoding that
    the header names.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return lambda chunk, _: chunk
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(
            f"the file comes compressed as {encoding[:100]!r}, expected as it is or with gzip; "
            "store it without Content-Encoding"
        )
    expander = zlib.decompressobj(32 + zlib.MAX_WBITS)

    def expand(chunk: bytes, max_length: int) -> bytes:
        try:
            return expander.decompress(chunk, max_length)
        except zlib.error as error:
            raise ValueError(f"the file's compression ({encoding}) is damaged: {error}") from None

    return expand


def filtered(*filters: Filter) -> dict[str, Any]:
    """The data manager's query for tasks that fulfil all conditions; empty without any."""
    items = [
        {"filter": f"filter:tasks:{column}", "type": kind, "operator": operator, "value": value}
        for column, kind, operator, value in filters
    ]
    return {"filters": {"conjunction": "and", "items": items}} if items else {}


def without_credentials(url: str) -> str:
    """An address without the user and password in it."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _webhook(url: str, headers: Mapping[str, str], **fields: Json) -> dict[str, Json]:
    return {
        "url": url,
        "headers": dict(headers),
        "send_payload": True,
        "send_for_all_actions": True,
        "is_active": True,
        **fields,
    }


def _detail(response: httpx.Response) -> str:
    """Label Studio's own words, cut short; nothing where the answer is no JSON."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    words = content.get("validation_errors") or content.get("detail") or content
    return f" ({str(words)[:300]})"


def _advice(error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            "its certificate is not of an authority that is trusted here: set SSL_CERT_FILE to a "
            "file with your authority's certificate (PEM)"
        )
    if isinstance(error, httpx.ProxyError):
        return (
            "the proxy of HTTPS_PROXY or HTTP_PROXY refuses it; name the host in NO_PROXY if it is "
            "reached without"
        )
    return "is it running, and is LABEL_STUDIO_URL right as seen from the backend?"


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(10.0, seconds))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
