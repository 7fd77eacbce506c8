"""A task's image reference -> the file's bytes, cached on disk within a bound.

Images come from Label Studio (uploads, local files, cloud storage by way of it) and from hosts
that the operator allows. Addresses are resolved once, checked and pinned, so that a task cannot
make the backend read from the inside of its network.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from ralis_backend.labelstudio.addresses import may_connect
from ralis_backend.labelstudio.client import (
    HASTY_S,
    MAX_DOWNLOAD_S,
    UNCOMPRESSED,
    LabelStudioClient,
    read_bounded,
)
from ralis_backend.labelstudio.data_images import data_image
from ralis_backend.labelstudio.deadline import DeadlineTransport, ending_within
from ralis_backend.labelstudio.disk_cache import DiskCache
from ralis_backend.labelstudio.errors import NotFound, Unauthorised, Unavailable
from ralis_backend.labelstudio.image_addresses import (
    ImageAddresses,
    ImageNotAllowed,
    file_path,
    path_of,
    shelf_of,
    without_secrets,
)
from ralis_backend.labelstudio.outages import HostUnavailable, Outages
from ralis_backend.labelstudio.payloads.tasks import DATA_DIGEST, data_reference
from ralis_backend.online.tool import ImageUnreachable, ToolTask

__all__ = ["ImageFetcher", "ImageNotAllowed"]

MAX_IMAGE_BYTES = 100_000_000
MAX_REDIRECTS = 3
MAX_ADDRESSES = 3
"""Of one host that are tried where nothing answers."""
CONNECT_S = 20.0
"""For connecting to a host, shared among its addresses: some hosts drop what they do not want."""
_UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)
READ_S = 60.0
"""For the next byte of a host."""
HASTY_CONNECT_S = 2.0
"""For connecting to a host that failed lately; for its next byte: `HASTY_S`."""
STORAGE_FAILS_S = 1.0
"""Label Studio says 424 of a file that is missing, and of a bucket that is down: that takes longer,
for it tries again and waits."""
_OWN = "Label Studio's "
"""Before what is asked of Label Studio, among the names of hosts."""


class ImageFetcher:
    """Fetches and caches image files; safe to share between threads and processes.

    Args:
        client: of the Label Studio server.
        cache_dir: made if missing.
        cache_bytes: the least recently used files go beyond this; 0: nothing is cached.
        allowed_hosts: names of further hosts, in ASCII; `*.example.com` allows every host below.
        upload_projects: projects whose files tasks of other projects may show; `*` for all.
        public_url: where browsers reach Label Studio, if that is another address.
        learned: gives the addresses that Label Studio said are its own. What lies there is asked
            of the client's address: our token goes nowhere else, whoever said so.
        local_folders: projects and folders of local files that their tasks may show; `*` for all.
            Empty: whatever Label Studio delivers.
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
        local_folders: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._client = client
        self._cache = DiskCache(cache_dir, cache_bytes)
        self._outages = Outages()
        self.addresses = ImageAddresses(
            client.url, allowed_hosts, upload_projects, public_url, learned, local_folders
        )

    def fetch(self, task: ToolTask) -> bytes:
        """The bytes of a task's image file.

        Raises:
            ValueError: if the task has no image, the file is too large, or may not be fetched.
            ImageUnreachable: if it alone is not delivered, by whichever host.
            ToolUnavailable: if Label Studio does not answer; trying again later may help.
        """
        try:
            return self._fetched(task)
        except Unavailable as error:
            self._must_answer()
            raise _unreachable(error) from None

    def _must_answer(self) -> None:
        """Where Label Studio is down itself, that says nothing of its files once it is back."""
        try:
            self._client.must_answer()
        except Unavailable:
            self._outages.excuse(_OWN)
            raise

    def _fetched(self, task: ToolTask) -> bytes:
        if not task.image:
            raise ValueError(
                f"task {task.id} has no image under the key that the label config names"
            )
        try:
            if task.image[:5].lower() == "data:":
                return data_image(task.id, self._data_address(task))
            place = self.addresses.place(task)
            key = self._key(task)
            content = self._cache.get(key)
            if content is None:
                with ending_within(MAX_DOWNLOAD_S):
                    content = self._download(task, place)
                self._cache.put(key, content)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ValueError(f"task {task.id}: its image has no valid address ({error})") from None
        return content

    def _key(self, task: ToolTask) -> str:
        made = task.created_at.isoformat() if task.created_at else ""
        parts = [self._client.url, str(task.id), made, task.image]
        return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()

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
        return self._from_elsewhere(place, is_trusted=False)

    def _from_label_studio(self, task: ToolTask, path: str, redirects: int = 0) -> bytes:
        host = _OWN + shelf_of(path)
        with self._outages.asking(host) as is_hasty:
            begun = time.monotonic()
            response = self._client.download(path, MAX_IMAGE_BYTES, is_hasty=is_hasty)
            if response.status_code > 500:
                _check(response, path)
            if response.status_code == 424:
                where = without_secrets(path)
                why = f"Label Studio could not get {where} from its storage (424)"
                if time.monotonic() - begun >= STORAGE_FAILS_S:
                    raise Unavailable(why)
                raise ImageUnreachable(why, host)
        if response.status_code == 500:  # what it answers for an upload that it does not know
            self._must_answer()
            raise NotFound(f"Label Studio fails (500) to deliver {path}; the file may be gone")
        if response.is_redirect:
            target = _target(response, self._client.url + path)
            is_own = self.addresses.is_own(target)
            if is_own and file_path(path_of(target)) and redirects < MAX_REDIRECTS:
                own = self.addresses.own_path(task, target)
                return self._from_label_studio(task, own, redirects + 1)
            if is_own and not self.addresses.is_named(target):
                raise Unauthorised(
                    f"Label Studio sends {without_secrets(path)} to {urlsplit(target).path} "
                    "instead of delivering it; the token may not read this file"
                )
            return self._from_elsewhere(target, is_trusted=True)
        if response.status_code == 401:
            raise Unauthorised(
                f"the image {without_secrets(path)} may not be read (401): "
                f"{self._client.auth.advice()}"
            )
        _check(response, path)
        return response.content

    def _from_elsewhere(self, url: str, *, is_trusted: bool) -> bytes:
        """A file of another host, without our credentials.

        Args:
            url: its address.
            is_trusted: Label Studio itself sends us there (a signed address of cloud storage).

        Raises:
            ImageUnreachable: if that host does not deliver it.
        """
        for _ in range(MAX_REDIRECTS + 1):
            try:
                with self._outages.asking(httpx.URL(url).netloc.decode()) as is_hasty:
                    ways = self._ways(url, is_trusted=is_trusted)
                    response = self._answer(url, ways, is_hasty=is_hasty)
            except Unavailable as error:  # the images of other hosts need not wait for it
                raise _unreachable(error) from None
            if not response.is_redirect:
                return response.content
            url = _target(response, url)
        raise ValueError(f"{urlsplit(url).hostname} redirects more than {MAX_REDIRECTS} times")

    def _answer(self, url: str, ways: Sequence[_Way], *, is_hasty: bool) -> httpx.Response:
        """What is said at the first way on which there is a connection, read as a whole."""
        headers = {"Host": httpx.URL(url).netloc.decode(), **UNCOMPRESSED}
        connect_s, read_s = (HASTY_CONNECT_S, HASTY_S) if is_hasty else (CONNECT_S, READ_S)
        timeout = httpx.Timeout(read_s, connect=connect_s / len(ways))
        reasons = []
        for way in ways:
            try:
                with (
                    httpx.Client(timeout=timeout, transport=way.transport(self._client)) as http,
                    http.stream(
                        "GET", way.url, headers=headers, extensions={"sni_hostname": way.host}
                    ) as response,
                ):
                    if not response.is_redirect:
                        _check(response, url)
                        read_bounded(response, MAX_IMAGE_BYTES)
                    return response
            except httpx.HTTPError as error:
                at = f" at {way.url.host}" if len(ways) > 1 else ""
                reasons.append(f"{_reason(error)}{at}")
                if not isinstance(error, _UNCONNECTED if way.proxy is None else httpx.ProxyError):
                    break  # what does not connect is the proxy itself, which is the same for all
        raise Unavailable(
            f"{urlsplit(url).hostname} did not deliver an image: {', '.join(reasons)}"
        )

    def _ways(self, url: str, *, is_trusted: bool) -> list[_Way]:
        """The ways to an address: its host's checked IPs in place of the name, so that it stays so.

        By way of a proxy, which may be the only one that knows the name, hosts that the operator
        named go by name, all others by their checked address as well.
        """
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()  # not `.host`: of faß.de that is fass.de's
        if parsed.scheme not in ("http", "https") or not host:
            raise ImageNotAllowed(
                f"an image redirects to {without_secrets(url)[:100]!r}, no http(s) address"
            )
        is_named = self.addresses.is_named(url)
        if not is_named and not is_trusted:
            is_like_its_files = file_path(path_of(url)) is not None
            aside = "; if that is Label Studio itself, set LABEL_STUDIO_PUBLIC_URL"
            raise ImageNotAllowed(
                f"images from {host} are not allowed; if they should be, add the host to "
                f"RALIS_IMAGE_HOSTS{aside if is_like_its_files else ''}"
            )
        proxy = self._client.network.proxy_of(url)
        try:
            addresses = _resolve(host, parsed.port or (443 if parsed.scheme == "https" else 80))
        except Unavailable as error:
            if proxy is None:
                raise
            if not is_named:
                raise ImageNotAllowed(
                    f"{error}; what a name means is not left to the proxy unless the host stands "
                    "in RALIS_IMAGE_HOSTS"
                ) from None
            return [_Way(parsed, host, proxy)]
        allowed = [it for it in addresses if may_connect(it, is_named=is_named)]
        if not allowed:
            raise ImageNotAllowed(
                f"{host} is the address {addresses[0]} inside a private network; if the backend "
                "should read there, add the host to RALIS_IMAGE_HOSTS"
            )
        if proxy is not None and not may_connect(allowed[0], is_named=False):
            proxy = None  # on our side of the proxy
        if proxy is not None and is_named:
            return [_Way(parsed, host, proxy)]
        if proxy is not None:  # where it can go is not seen from here: IPv4 it can nearly always
            allowed.sort(key=lambda it: ":" in it)
        return [
            _Way(parsed.copy_with(host=it), host, proxy)
            for it in allowed
            if proxy is None or may_connect(it, is_named=False)
        ][:MAX_ADDRESSES]


@dataclass(frozen=True)
class _Way:
    """How an address elsewhere is reached: what is sent, whose certificate, by which proxy."""

    url: httpx.URL
    host: str
    proxy: str | None

    def transport(self, client: LabelStudioClient) -> DeadlineTransport:
        return DeadlineTransport(client.network.ssl_context, self.proxy, self.host)


def _unreachable(error: Unavailable) -> ImageUnreachable:
    if isinstance(error, HostUnavailable):
        return ImageUnreachable(
            str(error), error.host, was_asked=error.was_asked, failing_s=error.failing_s
        )
    return ImageUnreachable(str(error))


def _reason(error: httpx.HTTPError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is of no authority that is trusted here; set SSL_CERT_FILE"
    return type(error).__name__


def _check(response: httpx.Response, place: str) -> None:
    status = response.status_code
    where = without_secrets(place)
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


def _target(response: httpx.Response, url: str) -> str:
    """Where a redirect leads."""
    location = str(response.headers.get("location", "")).strip()
    where = f"the image {without_secrets(url)} is redirected"
    if not location:
        raise ValueError(f"{where} ({response.status_code}) without saying where to")
    try:
        return urljoin(url, location)
    except ValueError:
        shown = without_secrets(location)[:100]
        raise ValueError(f"{where} to {shown!r}, which is no address") from None


def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a host in the order in which they are tried: IPv4 and IPv6 in turns.

    Where one of both is not routed, as in containers, all addresses of it are dead.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"the host {host} of an image cannot be found: {error}") from None
    except UnicodeError:
        raise ValueError(f"the host {host[:100]!r} of an image is no name of a host") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    first = [it for it in addresses if (":" in it) == (":" in addresses[0])]
    second = [it for it in addresses if it not in first]
    return [it for pair in zip_longest(first, second) for it in pair if it is not None]
