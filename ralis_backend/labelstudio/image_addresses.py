"""A task's image reference -> whose it is and where to ask for it; nothing is fetched here.

Label Studio names its own files in several ways: below its path, and under its public address.
What is its own is asked of the address that the operator gave, whatever the reference says.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from urllib.parse import SplitResult, parse_qs, urlsplit

import httpx

from ralis_backend.hosts import host_of
from ralis_backend.labelstudio.address_book import place_of
from ralis_backend.labelstudio.client import without_credentials
from ralis_backend.online.tool import ToolTask

CLOUD_SCHEMES = ("s3", "gs", "azure-blob", "azure_spi", "databricks")
ANY_PROJECT = "*"
ANY_FOLDER = "*"

_UPLOAD = re.compile(r"/data/upload/([0-9]+)/.+", re.ASCII)
_UPLOAD_IN_CLOUD = re.compile(r"upload/([0-9]+)/.+", re.ASCII)
_RESOLVED = re.compile(r"/(tasks|projects)/([0-9]+)/(?:resolve|presign)/", re.ASCII)
_KINDS = {
    "/data/upload/": "uploads",
    "/data/local-files/": "local files",
    "/storage-data/": "uploads in a bucket",
    "/tasks/": "cloud storage",
    "/projects/": "cloud storage",
}
_BELOW = re.compile(
    r"((?:/[A-Za-z0-9._~-]+)*?)"
    r"(/data/upload/.*|/data/local-files/|/storage-data/uploaded/"
    r"|/(?:tasks|projects)/[0-9]+/(?:resolve|presign)/)",
    re.ASCII | re.DOTALL,
)
"""A file of Label Studio behind whatever path the server itself lies below."""


class ImageNotAllowed(ValueError):
    """The image lies where the operator does not allow the backend to read."""


class ImageAddresses:
    """The rules of one Label Studio server.

    Args:
        url: where the backend reaches it.
        allowed_hosts: names of further hosts, in ASCII; `*.example.com` allows every host below.
        upload_projects: projects whose files tasks of other projects may show; `*` for all.
        public_url: where browsers reach it, if that is another address.
        learned: gives the addresses that it said are its own; they are names and nothing more.
        local_folders: projects and folders of local files that their tasks may show; `*` for all.
            Empty: whatever Label Studio delivers.
    """

    def __init__(
        self,
        url: str,
        allowed_hosts: Sequence[str] = (),
        upload_projects: Sequence[str] = (),
        public_url: str | None = None,
        learned: Callable[[], Sequence[str]] = tuple,
        local_folders: Sequence[tuple[str, str]] = (),
    ) -> None:
        own = (url, public_url or url)
        self._own_places = {place for each in own if (place := place_of(each))}
        self._learned = learned
        self._path = _path_below(public_url) if public_url else _path_below(url)
        self._is_path_said = bool(public_url or self._path)
        self._allowed_hosts = tuple(host.lower() for host in allowed_hosts)
        self._upload_projects = frozenset(upload_projects)
        self._local_folders = tuple(local_folders)

    def kind(self, task: ToolTask) -> str:
        """Where a task's image lies, in words; what is of one kind is reached in one way."""
        image = task.image
        if not image:
            return "no image"
        try:
            parts = _parts(task)
        except ValueError:
            return "no valid address"
        if parts.scheme.lower() == "data":
            return "in the task itself"
        if parts.scheme in CLOUD_SCHEMES:
            return f"cloud storage ({parts.scheme}://)"
        if parts.scheme in ("http", "https") and not self.is_label_studios(image):
            return f"the host {parts.hostname}"
        if parts.scheme not in ("", "http", "https"):
            return f"{parts.scheme} addresses"
        path = file_path(path_of(image)) or ""
        place = next((name for start, name in _KINDS.items() if path.startswith(start)), None)
        if place is None:
            return "other addresses"
        return place if image.startswith("/") else f"{place} at {parts.netloc.rpartition('@')[2]}"

    def path_below(self, references: Callable[[], Iterable[str]]) -> str:
        """The path that browsers find Label Studio below: `/ls` of `https://host/ls`, or nothing.

        As the operator says it, else as Label Studio writes its own files' addresses.

        Args:
            references: gives addresses of some tasks' images; not called where it is known.
        """
        if self._is_path_said:
            return self._path
        found: Counter[str] = Counter()
        for reference in references():
            with suppress(httpx.InvalidURL, ValueError):
                is_own = reference.startswith("/") or self.is_label_studios(reference)
                below = _BELOW.fullmatch(path_of(reference).path) if is_own else None
                found.update([below[1]] if below else [])
        return found.most_common(1)[0][0] if found else ""

    def is_label_studios(self, url: str) -> bool:
        """Whether what lies at an http(s) address is asked of Label Studio."""
        return self.is_own(url) or (not self.is_named(url) and self._is_learned(url))

    def place(self, task: ToolTask) -> str:
        """Where the image lies: a path of Label Studio, or an address elsewhere.

        Raises:
            ImageNotAllowed: if it is nowhere that the backend reads.
            ValueError: if it is no address.
        """
        parts = _parts(task)
        if parts.scheme in CLOUD_SCHEMES:
            encoded = base64.urlsafe_b64encode(task.image.encode()).decode()
            return f"/tasks/{task.id}/resolve/?fileuri={encoded}"
        if not parts.scheme and task.image.startswith("/"):
            return self.own_path(task, task.image)
        if parts.scheme not in ("http", "https"):
            shown = without_secrets(task.image)[:100]
            raise ImageNotAllowed(
                f"task {task.id}: {shown!r} is no address that the backend reads; use "
                "uploads, local files, cloud storage connected to Label Studio, or http(s)"
            )
        if not self.is_label_studios(task.image):
            return task.image
        if self.is_named(task.image) and not file_path(path_of(task.image)):
            return task.image  # of another server behind the same reverse proxy
        return self.own_path(task, task.image)

    def is_own(self, url: str) -> bool:
        """Whether an address is on the Label Studio server itself, as the operator says."""
        return place_of(url) in self._own_places

    def _is_learned(self, url: str) -> bool:
        place = place_of(url)
        return place is not None and place in {place_of(known) for known in self._learned()}

    def is_named(self, url: str) -> bool:
        """Whether the operator named the host, or one above it with a star, for images."""
        try:
            host = host_of(url)
        except ValueError:
            return False
        return any(
            host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))
            for allowed in self._allowed_hosts
        )

    def own_path(self, task: ToolTask, reference: str) -> str:
        """The path below Label Studio's address, one that serves files.

        The request carries our token: a task must not send it to any other of its calls.
        """
        url = path_of(reference)
        path = file_path(url)
        query = url.query.decode()
        if path is None or not self._may_show(task, path, query):
            raise ImageNotAllowed(
                f"task {task.id}: {without_secrets(reference)[:100]!r} is no file of Label "
                "Studio; expected an address below /data/upload/, /data/local-files/ or "
                "/tasks/<number>/resolve/"
            )
        raw = url.raw_path.decode().partition("?")[0]
        raw = raw.removeprefix(url.path.removesuffix(path))
        return f"{raw}?{query}" if query else raw

    def _may_show(self, task: ToolTask, path: str, query: str) -> bool:
        """Whether a path serves files.

        Raises:
            ImageNotAllowed: if the file belongs to another project or task. Label Studio would
                deliver whatever the operator may read, and crops of it are shown to annotators.
        """
        if "/../" in path or path.startswith("//"):
            return False
        if found := _UPLOAD.fullmatch(path):
            self._refuse_foreign(task, "projects", found[1])
        elif path == "/storage-data/uploaded/":
            files = parse_qs(query).get("filepath", [])
            inside = _UPLOAD_IN_CLOUD.fullmatch(files[0]) if len(files) == 1 else None
            if inside is None or "/../" in inside[0]:
                return False
            self._refuse_foreign(task, "projects", inside[1])
        elif found := _RESOLVED.fullmatch(path):
            self._refuse_foreign(task, found[1], found[2])
        elif path == "/data/local-files/":
            files = parse_qs(query, keep_blank_values=True).get("d", [])
            self._refuse_other_folders(task, files)
        else:
            return False
        return True

    def _refuse_foreign(self, task: ToolTask, kind: str, number: str) -> None:
        own = task.id if kind == "tasks" else task.project_id
        allowed = {ANY_PROJECT} if kind == "tasks" else {ANY_PROJECT, str(int(number))}
        if int(number) != own and not self._upload_projects & allowed:
            raise ImageNotAllowed(
                f"task {task.id} of project {task.project_id or 'unknown'} shows a file of "
                f"{kind.removesuffix('s')} {int(number)}; upload the file to the task's own "
                "project, or allow files of other projects with RALIS_UPLOAD_PROJECTS"
            )

    def _refuse_other_folders(self, task: ToolTask, files: Sequence[str]) -> None:
        """Local files: their paths say nothing of projects, so the operator has to."""
        if not self._local_folders:
            return
        own = {ANY_PROJECT, str(task.project_id)}
        folders = [folder for project, folder in self._local_folders if project in own]
        if len(files) != 1 or not any(_is_below(files[0], folder) for folder in folders):
            raise ImageNotAllowed(
                f"task {task.id} of project {task.project_id or 'unknown'} shows a local file that "
                f"lies in none of the project's folders ({', '.join(folders) or 'it has none'}); "
                f"if it should, add {task.project_id or ANY_PROJECT}:FOLDER to RALIS_LOCAL_FOLDERS"
            )


def _is_below(file: str, folder: str) -> bool:
    """Whether a local file lies in a folder or below it, however the server separates folders."""
    parts = [part for part in re.split(r"[/\\]", file) if part not in ("", ".")]
    wanted = [] if folder == ANY_FOLDER else folder.split("/")
    return ".." not in parts and len(parts) > len(wanted) and parts[: len(wanted)] == wanted


def _parts(task: ToolTask) -> SplitResult:
    """The parts of an image's address; of an http(s) address there is a host."""
    try:
        parts = urlsplit(task.image)
        is_web = parts.scheme in ("http", "https")
        if parts.port != 0 and (parts.hostname or not is_web):
            return parts
    except ValueError:  # of brackets, the port, or letters that no host has
        pass
    shown = without_secrets(task.image)[:100]
    raise ValueError(
        f"task {task.id}: its image has no valid address: {shown!r}; expected "
        "https://host/path, or what Label Studio writes for uploads, local files and cloud storage"
    )


def path_of(reference: str) -> httpx.URL:
    """A path or an address as a URL, the dots in its path resolved."""
    return httpx.URL("http://label-studio").join(reference)


def file_path(url: httpx.URL) -> str | None:
    """The path from where Label Studio itself begins, of a URL of one of its files."""
    found = _BELOW.fullmatch(url.path)
    if found is None or "/../" in url.path or not url.raw_path.startswith(found[1].encode()):
        return None
    return found[2]


def shelf_of(path: str) -> str:
    """What fails together with a file of Label Studio at a path: its bucket, or its kind."""
    uris = parse_qs(urlsplit(path).query).get("fileuri", [])
    with suppress(ValueError, IndexError):
        uri = urlsplit(base64.urlsafe_b64decode(uris[0]).decode())
        return f"{uri.scheme}://{uri.netloc}"
    return next((name for start, name in _KINDS.items() if start in path), "files")


def without_secrets(place: str) -> str:
    """An address for messages: no query (signatures) and no credentials."""
    return without_credentials(place.partition("?")[0])


def _path_below(address: str) -> str:
    """The path of a server's address, without a slash at the end."""
    return urlsplit(address).path.rstrip("/")
