"""A task's image reference -> the file's bytes, cached on disk within a bound.

Images come from Label Studio (uploads, local files, cloud storage by way of it) and from hosts
that the operator allows. Addresses are resolved once, checked and pinned, so that a task cannot
make the backend read from the inside of its network.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes, urljoin, urlsplit

import httpx

from ralis_backend.labelstudio.address_book import place_of
from ralis_backend.labelstudio.addresses import may_connect
from ralis_backend.labelstudio.client import (
    MAX_DOWNLOAD_S,
    UNCOMPRESSED,
    LabelStudioClient,
    read_bounded,
    without_credentials,
)
from ralis_backend.labelstudio.deadline import DeadlineTransport, ending_within
from ralis_backend.labelstudio.disk_cache import DiskCache
from ralis_backend.labelstudio.errors import NotFound, Unauthorised, Unavailable
from ralis_backend.labelstudio.payloads.tasks import DATA_DIGEST, data_reference
from ralis_backend.online.tool import ToolTask

MAX_IMAGE_BYTES = 100_000_000
MAX_DATA_CHARACTERS = 20_000_000
"""Of an image that stands in its task itself: the task list and the database carry it along."""
MAX_REDIRECTS = 3
CLOUD_SCHEMES = ("s3", "gs", "azure-blob", "azure_spi", "databricks")
ANY_PROJECT = "*"

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


class ImageUnreachable(ValueError):
    """A host other than Label Studio does not deliver; its images are tried again later."""


class ImageFetcher:
    """Fetches and caches image files; safe to share between threads and processes.

    Args:
        client: of the Label Studio server.
        cache_dir: made if missing.
        cache_bytes: the least recently used files go beyond this; 0: nothing is cached.
        allowed_hosts: names of further hosts; `*.example.com` allows every host below.
        upload_projects: projects whose files tasks of other projects may show; `*` for all.
        public_url: where browsers reach Label Studio, if that is another address.
        learned: gives the addresses that Label Studio said are its own. What lies there is asked
            of the client's address: our token goes nowhere else, whoever said so.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        cache_dir: Path,
        cache_bytes: int,
        allowed_hosts: Sequence[str] = (),
        upload_projects: Sequence[str] = (),
        public_url: str | None = None,
        learned: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._client = client
        own = (client.url, public_url or client.url)
        self._own_places = {place for url in own if (place := place_of(url))}
        self._learned = learned
        self._path = _path_below(public_url) if public_url else _path_below(client.url)
        self._is_path_said = bool(public_url or self._path)
        self._cache = DiskCache(cache_dir, cache_bytes)
        self._allowed_hosts = tuple(host.lower() for host in allowed_hosts)
        self._upload_projects = frozenset(upload_projects)

    def fetch(self, task: ToolTask) -> bytes:
        """The bytes of a task's image file.

        Raises:
            ValueError: if the task has no image, the file is too large, or may not be fetched.
            ToolUnavailable: if the server does not answer; trying again later may help.
        """
        if not task.image:
            raise ValueError(
                f"task {task.id} has no image under the key that the label config names"
            )
        try:
            if task.image[:5].lower() == "data:":
                return _from_data(task.id, self._data_address(task))
            place = self._place(task)
            key = self._key(task)
            content = self._cache.get(key)
            if content is None:
                with ending_within(MAX_DOWNLOAD_S):
                    content = self._download(task, place)
                self._cache.put(key, content)
        except httpx.InvalidURL as error:
            raise ValueError(f"task {task.id}: its image has no valid address: {error}") from None
        return content

    def kind(self, task: ToolTask) -> str:
        """Where a task's image lies, in words; what is of one kind is reached in one way."""
        image = task.image
        parts = urlsplit(image)
        if not image:
            return "no image"
        if parts.scheme.lower() == "data":
            return "in the task itself"
        if parts.scheme in CLOUD_SCHEMES:
            return f"cloud storage ({parts.scheme}://)"
        if parts.scheme in ("http", "https") and not self.is_label_studios(image):
            return f"the host {parts.hostname}"
        if parts.scheme not in ("", "http", "https"):
            return f"{parts.scheme} addresses"
        path = _file_path(_path_of(image)) or ""
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
                below = _BELOW.fullmatch(_path_of(reference).path) if is_own else None
                found.update([below[1]] if below else [])
        return found.most_common(1)[0][0] if found else ""

    def is_label_studios(self, url: str) -> bool:
        """Whether what lies at an http(s) address is asked of Label Studio."""
        return self._is_own(url) or (not self._is_named(url) and self._is_learned(url))

    def _key(self, task: ToolTask) -> str:
        parts = [self._client.url, str(task.id), task.created_at.isoformat(), task.image]
        return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()

    def _place(self, task: ToolTask) -> str:
        """Where the image lies: a path of Label Studio, or an address elsewhere."""
        parts = urlsplit(task.image)
        if parts.scheme in CLOUD_SCHEMES:
            encoded = base64.urlsafe_b64encode(task.image.encode()).decode()
            return f"/tasks/{task.id}/resolve/?fileuri={encoded}"
        if not parts.scheme and task.image.startswith("/"):
            return self._own_path(task, task.image)
        if parts.scheme not in ("http", "https"):
            shown = _without_secrets(task.image)[:100]
            raise ImageNotAllowed(
                f"task {task.id}: {shown!r} is no address that the backend reads; use "
                "uploads, local files, cloud storage connected to Label Studio, or http(s)"
            )
        if not self.is_label_studios(task.image):
            return task.image
        if self._is_named(task.image) and not _file_path(_path_of(task.image)):
            return task.image  # of another server behind the same reverse proxy
        return self._own_path(task, task.image)

    def _data_address(self, task: ToolTask) -> str:
        """The whole `data:` address of a task that is known by its digest; asked for if need be."""
        if not task.image.startswith(DATA_DIGEST):
            return task.image
        data: Any = task.data or self._client.task(task.id).get("data")
        for value in data.values() if isinstance(data, Mapping) else ():
            if isinstance(value, str) and data_reference(value) == task.image:
                return value
        raise ValueError(f"task {task.id} does not hold the image any more that it was read with")

    def _download(self, task: ToolTask, place: str) -> bytes:
        if place.startswith("/"):
            return self._from_label_studio(task, place)
        try:
            return self._from_elsewhere(place, is_trusted=False)
        except Unavailable as error:  # a host of its own: the other tasks need not wait for it
            raise ImageUnreachable(str(error)) from None

    def _is_own(self, url: str) -> bool:
        """Whether an address is on the Label Studio server itself, as the operator says."""
        return place_of(url) in self._own_places

    def _is_learned(self, url: str) -> bool:
        place = place_of(url)
        return place is not None and place in {place_of(known) for known in self._learned()}

    def _is_named(self, url: str) -> bool:
        """Whether the operator named the host among those that images come from."""
        try:
            return self._is_allowed(httpx.URL(url).host.lower())
        except httpx.InvalidURL:
            return False

    def _own_path(self, task: ToolTask, reference: str) -> str:
        """The path below Label Studio's address, one that serves files.

        The request carries our token: a task must not send it to any other of its calls.
        """
        url = _path_of(reference)
        path = _file_path(url)
        query = url.query.decode()
        if path is None or not self._may_show(task, path, query):
            raise ImageNotAllowed(
                f"task {task.id}: {_without_secrets(reference)[:100]!r} is no file of Label "
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
        else:
            return path == "/data/local-files/"
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

    def _from_label_studio(self, task: ToolTask, path: str, redirects: int = 0) -> bytes:
        response = self._client.download(path, MAX_IMAGE_BYTES)
        if response.is_redirect:
            target = _target(response, self._client.url + path)
            is_own = self._is_own(target)
            if is_own and _file_path(_path_of(target)) and redirects < MAX_REDIRECTS:
                own = self._own_path(task, target)
                return self._from_label_studio(task, own, redirects + 1)
            if is_own and not self._is_named(target):
                raise Unauthorised(
                    f"Label Studio sends {_without_secrets(path)} to {urlsplit(target).path} "
                    "instead of delivering it; the token may not read this file"
                )
            return self._from_elsewhere(target, is_trusted=True)
        if response.status_code == 401:
            raise Unauthorised(
                f"the image {_without_secrets(path)} may not be read (401): "
                f"{self._client.auth.advice()}"
            )
        if response.status_code == 500:  # what it answers for an upload that it does not know
            raise NotFound(f"Label Studio fails (500) to deliver {path}; the file may be gone")
        _check(response, path)
        return response.content

    def _from_elsewhere(self, url: str, *, is_trusted: bool) -> bytes:
        """A file of another host, without our credentials.

        Args:
            url: its address.
            is_trusted: Label Studio itself sends us there (a signed address of cloud storage).
        """
        for _ in range(MAX_REDIRECTS + 1):
            way = self._pin(url, is_trusted=is_trusted)
            headers = {"Host": httpx.URL(url).netloc.decode(), **UNCOMPRESSED}
            try:
                with (
                    httpx.Client(timeout=60.0, transport=way.transport(self._client)) as http,
                    http.stream(
                        "GET", way.url, headers=headers, extensions={"sni_hostname": way.host}
                    ) as response,
                ):
                    if not response.is_redirect:
                        _check(response, url)
                        read_bounded(response, MAX_IMAGE_BYTES)
                        return response.content
                    url = _target(response, url)
            except httpx.HTTPError as error:
                raise Unavailable(
                    f"{urlsplit(url).hostname} did not deliver an image: {_reason(error)}"
                ) from None
        raise ValueError(f"{urlsplit(url).hostname} redirects more than {MAX_REDIRECTS} times")

    def _pin(self, url: str, *, is_trusted: bool) -> _Way:
        """The way to an address: its host's checked IP in place of the name, so that it stays so.

        By way of a proxy, which may be the only one that knows the name, hosts that the operator
        named go by name, all others by their checked address as well.
        """
        parsed = httpx.URL(url)
        host = parsed.host.lower()
        if parsed.scheme not in ("http", "https") or not host:
            raise ImageNotAllowed(
                f"an image redirects to {_without_secrets(url)[:100]!r}, no http(s) address"
            )
        is_named = self._is_allowed(host)
        if not is_named and not is_trusted:
            is_like_its_files = _file_path(_path_of(url)) is not None
            aside = "; if that is Label Studio itself, set LABEL_STUDIO_PUBLIC_URL"
            raise ImageNotAllowed(
                f"images from {host} are not allowed; if they should be, add the host to "
                f"RALIS_IMAGE_HOSTS{aside if is_like_its_files else ''}"
            )
        proxy = self._client.network.proxy_of(url)
        try:
            address = _resolve(host, parsed.port or (443 if parsed.scheme == "https" else 80))
        except Unavailable as error:
            if proxy is None:
                raise
            if not is_named:
                raise ImageNotAllowed(
                    f"{error}; what a name means is not left to the proxy unless the host stands "
                    "in RALIS_IMAGE_HOSTS"
                ) from None
            return _Way(parsed, host, proxy)
        if not may_connect(address, is_named=is_named):
            raise ImageNotAllowed(
                f"{host} is the address {address} inside a private network; if the backend should "
                "read there, add the host to RALIS_IMAGE_HOSTS"
            )
        if not may_connect(address, is_named=False):
            proxy = None  # on our side of the proxy
        return _Way(parsed if proxy and is_named else parsed.copy_with(host=address), host, proxy)

    def _is_allowed(self, host: str) -> bool:
        return any(
            host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))
            for allowed in self._allowed_hosts
        )


@dataclass(frozen=True)
class _Way:
    """How an address elsewhere is reached: what is sent, whose certificate, by which proxy."""

    url: httpx.URL
    host: str
    proxy: str | None

    def transport(self, client: LabelStudioClient) -> DeadlineTransport:
        return DeadlineTransport(client.network.ssl_context, self.proxy, self.host)


def _path_below(address: str) -> str:
    """The path of a server's address, without a slash at the end."""
    return urlsplit(address).path.rstrip("/")


def _path_of(reference: str) -> httpx.URL:
    """A path or an address as a URL, the dots in its path resolved."""
    return httpx.URL("http://label-studio").join(reference)


def _file_path(url: httpx.URL) -> str | None:
    """The path from where Label Studio itself begins, of a URL of one of its files."""
    found = _BELOW.fullmatch(url.path)
    if found is None or "/../" in url.path or not url.raw_path.startswith(found[1].encode()):
        return None
    return found[2]


def _from_data(task_id: int, image: str) -> bytes:
    """The bytes of an image that stands in its task as `data:image/png;base64,...`."""
    if len(image) > MAX_DATA_CHARACTERS:
        raise ValueError(
            f"task {task_id}: its data: address has {len(image)} characters, at most "
            f"{MAX_DATA_CHARACTERS} are read; upload the image as a file"
        )
    head, comma, body = image.partition(",")
    kind, *parameters = head[5:].lower().split(";")
    if not comma or (kind and not kind.strip().startswith("image/")):
        raise ImageNotAllowed(
            f"task {task_id}: its data: address is of no image; expected "
            "data:image/png;base64, and the file in base64"
        )
    content = unquote_to_bytes(body)
    if "base64" not in (parameter.strip() for parameter in parameters):
        return content
    try:
        content = bytes(content.translate(_URL_SAFE, b" \t\r\n"))
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"task {task_id}: its data: address is no base64: {error}") from None


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _reason(error: httpx.HTTPError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is of no authority that is trusted here; set SSL_CERT_FILE"
    return type(error).__name__


def _check(response: httpx.Response, place: str) -> None:
    status = response.status_code
    where = _without_secrets(place)
    if status == 404:
        raise NotFound(f"the image {where} does not exist")
    if status in (401, 403):
        raise Unauthorised(
            f"the image {where} may not be read ({status}); the token needs access to the project, "
            "a local-files storage must be connected to it, or the signed address has expired"
        )
    if status >= 500 or status == 429:
        raise Unavailable(f"the server answered {status} for the image {where}")
    if status != 200:
        raise ValueError(f"the server answered {status} for the image {where}")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise ValueError(f"{where} is a web page, no image; the token may not read it")


def _without_secrets(place: str) -> str:
    """An address for messages: no query (signatures) and no credentials."""
    return without_credentials(place.partition("?")[0])


def _target(response: httpx.Response, url: str) -> str:
    """Where a redirect leads."""
    location = str(response.headers.get("location", "")).strip()
    where = f"the image {_without_secrets(url)} is redirected"
    if not location:
        raise ValueError(f"{where} ({response.status_code}) without saying where to")
    try:
        return urljoin(url, location)
    except ValueError:
        shown = _without_secrets(location)[:100]
        raise ValueError(f"{where} to {shown!r}, which is no address") from None


def _resolve(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"the host {host} of an image cannot be found: {error}") from None
    except UnicodeError:
        raise ValueError(f"the host {host[:100]!r} of an image is no name of a host") from None
    return str(found[0][4][0])
