"""A Label Studio project made ready: ML backend, webhooks, sampling, the regions project.

Everything is compared with what is there and changed only where it differs: safe to repeat.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ralis_backend.hosts import host_form
from ralis_backend.labelstudio.client import LabelStudioClient, without_credentials
from ralis_backend.labelstudio.errors import LabelStudioError, NotFound
from ralis_backend.labelstudio.once import deleted, found_or_made
from ralis_backend.labelstudio.payloads.label_config import REGION_LABEL
from ralis_backend.labelstudio.payloads.tasks import project_uid
from ralis_backend.labelstudio.regions_project import (
    LEAST_USEFUL_FIRST,
    RegionsProjects,
    keep_settings,
)
from ralis_backend.labelstudio.view import keep_view
from ralis_backend.online.tool import ToolProject

logger = logging.getLogger(__name__)

BACKEND_TITLE = "RALIS"


class ProjectSetup:
    """Prepares projects of one Label Studio server for this backend.

    Args:
        client: its API.
        backend_url: where Label Studio reaches the backend; None: where it is connected.
        user, password: what Label Studio sends to the backend as basic auth.
        webhook_headers: a project's uid -> what its webhooks carry, since Label Studio leaves its
            basic auth out there, and shows it to everyone who may read the project.
        region_label: names the rectangles of suggested regions.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        *,
        backend_url: str | None = None,
        user: str | None = None,
        password: str | None = None,
        webhook_headers: Callable[[str], Mapping[str, str]] | None = None,
        region_label: str = REGION_LABEL,
    ) -> None:
        self._client = client
        self._backend_url = backend_url.rstrip("/") if backend_url else None
        self._credentials = (user, password) if user and password else None
        self._webhook_headers = webhook_headers or (lambda _uid: {})
        self._region_label = region_label
        self._regions = RegionsProjects(client, region_label)

    def through(self, client: LabelStudioClient) -> ProjectSetup:
        """The same, by another client."""
        setup = copy.copy(self)
        setup._client = client
        setup._regions = RegionsProjects(client, self._region_label)
        return setup

    def connect(
        self,
        project: ToolProject,
        mode: str,
        extra_params: Mapping[str, Any] | None = None,
        regions_project_id: int | None = None,
        regions_uid: str | None = None,
    ) -> int | None:
        """Make this backend a project's ML backend, and prepare the project.

        Args:
            project: the pool project.
            mode: `crops` or `in-place`.
            extra_params: that the connection gets besides those it has.
            regions_project_id: as it is known; None: it is looked for.
            regions_uid: likewise.

        Returns:
            The id of the regions project, None in in-place mode.

        Raises:
            LabelStudioError: saying what to do, where Label Studio refuses the backend's address
                or credentials.
            ValueError: if there is no backend address.
        """
        self.connect_backend(project, extra_params)
        regions_id = self.prepare(project, mode, regions_project_id, regions_uid)
        if regions_id is not None:
            self._keep_view(regions_id, is_wanted=True)
        return regions_id

    def prepare(
        self,
        project: ToolProject,
        mode: str,
        regions_project_id: int | None,
        regions_uid: str | None = None,
    ) -> int | None:
        """Bring webhooks, sampling and, in crops mode, the regions project in order."""
        address = self.address(project.id)
        if mode != "crops":
            self._keep_webhook(project.id, project.uid, address)
            keep_settings(self._client, project.id, LEAST_USEFUL_FIRST)
            return None
        regions = self._regions.keep(project, regions_project_id, regions_uid)
        regions_id = int(regions["id"])
        try:
            self._regions.keep_in_order(project, regions)
        finally:  # whichever of both Label Studio refuses, the other is done
            self._keep_webhook(project.id, project.uid, address)
            self._keep_webhook(regions_id, project_uid(regions), address)
            self._keep_view(regions_id)
        return regions_id

    def tidy_doubles(self, project: ToolProject, regions_project_id: int) -> list[str]:
        """Delete empty doubles of a regions project; what to say of those that are not empty."""
        return self._regions.tidy_doubles(project, regions_project_id)

    def address(self, project_id: int) -> str | None:
        """Where Label Studio reaches this backend: as set, or as connected to the pool project.

        None where that cannot be told; labels then come with the next full reading only.
        """
        if self._backend_url is not None:
            return self._backend_url
        backends = self._client.backends(project_id)
        ours = [it for it in backends if it.get("title") == BACKEND_TITLE] or backends
        addresses = {_form(str(it["url"])): without_credentials(str(it["url"])) for it in ours}
        if len(addresses) == 1:
            return addresses.popitem()[1].rstrip("/")
        logger.warning(
            "project %s has %d ML backends; set RALIS_BACKEND_URL to the address of this one",
            project_id,
            len(addresses),
        )
        return None

    def extra_params(self, project_id: int) -> dict[str, Any]:
        """What Label Studio tells this backend of a connected project besides the project."""
        backends = self._client.backends(project_id)
        url = self._backend_url
        ours = [it for it in backends if url is not None and same_url(it["url"], url)] or backends
        return _parameters(ours[0].get("extra_params")) if ours else {}

    def connect_backend(
        self, project: ToolProject, extra_params: Mapping[str, Any] | None = None
    ) -> None:
        """Make this backend the project's ML backend, once; `extra_params` join those it has.

        Raises:
            LabelStudioError: saying what to do, where Label Studio refuses the backend's address
                or credentials.
            ValueError: if there is no backend address.
        """
        url = self._backend_url
        if url is None:
            raise ValueError(
                "the backend's own address is not known; set RALIS_BACKEND_URL to where Label "
                "Studio reaches it, for example http://localhost:9090"
            )
        settings: dict[str, Any] = {"title": BACKEND_TITLE, "auth_method": "NONE"}
        if self._credentials:
            user, password = self._credentials
            settings.update(
                auth_method="BASIC_AUTH", basic_auth_user=user, basic_auth_pass=password
            )
        known = self._backends(project.id, url)
        if extra_params:
            stated = _parameters(known[0].get("extra_params")) if known else {}
            settings["extra_params"] = {**stated, **extra_params}
        backend, is_new = found_or_made(
            f"the ML backend of project {project.id}",
            lambda: next(iter(self._backends(project.id, url)), None),
            lambda: self._client.create_backend(project.id, url, **settings),
        )
        if not is_new:
            self._client.update_backend(backend["id"], project.id, url, **settings)
        for double in self._backends(project.id, url)[1:]:
            deleted(self._client.delete_backend, double["id"])
            logger.warning("project %s had this ML backend twice", project.id)
        self._name_others(project.id, url)

    def disconnect(
        self, project_id: int, regions_project_id: int | None, address: str
    ) -> tuple[int, int]:
        """Take the ML backend and the webhooks at `address` off a project; safe to repeat.

        Returns:
            How many ML backends and webhooks were removed.
        """
        backends = self._backends(project_id, address)
        for backend in backends:
            deleted(self._client.delete_backend, backend["id"])
        places = [it for it in (project_id, regions_project_id) if it is not None]
        return len(backends), sum(self._remove_webhooks(place, address) for place in places)

    def _keep_view(self, regions_id: int, *, is_wanted: bool = False) -> None:
        """Annotators do not need it: what refuses it stops nothing else."""
        try:
            keep_view(self._client, regions_id, is_wanted=is_wanted)
        except LabelStudioError as error:
            logger.warning("project %s: its tab in the data manager: %s", regions_id, error)

    def _remove_webhooks(self, project_id: int, address: str) -> int:
        try:
            hooks = self._hooks(project_id, f"{address}/webhook")
        except NotFound:  # the project is gone
            return 0
        for hook in hooks:
            deleted(self._client.delete_webhook, hook["id"])
        return len(hooks)

    def _backends(self, project_id: int, url: str) -> list[dict[str, Any]]:
        """The project's ML backends at this address, oldest first."""
        found = [it for it in self._client.backends(project_id) if same_url(it["url"], url)]
        return sorted(found, key=lambda it: int(it["id"]))

    def _name_others(self, project_id: int, url: str) -> None:
        """A connection of ours at another address is probably an old one: each task asks it."""
        for other in self._client.backends(project_id):
            if other.get("title") == BACKEND_TITLE and not same_url(other["url"], url):
                logger.warning(
                    "project %s also has the ML backend %s, titled %s; where nobody answers "
                    "there, each task waits for it: delete it under Settings > Model",
                    project_id,
                    without_credentials(str(other["url"])),
                    BACKEND_TITLE,
                )

    def _keep_webhook(self, project_id: int, uid: str, address: str | None) -> None:
        """Exactly one webhook to this backend, for all actions, with the project's own header."""
        if address is None:
            return
        headers = dict(self._webhook_headers(uid))
        url = f"{address}/webhook"
        hook, is_new = found_or_made(
            f"the webhook of project {project_id}",
            lambda: next(iter(self._hooks(project_id, url)), None),
            lambda: self._client.create_webhook(project_id, url, headers),
        )
        if is_new:
            return
        is_right = (
            hook.get("is_active")
            and hook.get("send_payload")
            and hook.get("send_for_all_actions")
            and dict(hook.get("headers") or {}) == headers
            and hook["url"] == without_credentials(hook["url"])  # members of the project read it
        )
        if not is_right:
            self._client.update_webhook(hook["id"], url, headers)
        for extra in self._hooks(project_id, url)[1:]:
            deleted(self._client.delete_webhook, extra["id"])

    def _hooks(self, project_id: int, url: str) -> list[dict[str, Any]]:
        """The project's webhooks to this address, oldest first."""
        found = [it for it in self._client.webhooks(project_id) if same_url(it["url"], url)]
        return sorted(found, key=lambda it: int(it["id"]))


def _parameters(value: Any) -> dict[str, Any]:
    """A connection's extra params: typed into Label Studio's form they are a text."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            return {}
    return dict(value) if isinstance(value, Mapping) else {}


def same_url(left: str, right: str) -> bool:
    """Whether two addresses are the same, however each is written and whatever its credentials."""
    return _form(left) == _form(right)


def _form(url: str) -> tuple[object, ...]:
    """Scheme, host, port, path without a slash at its end, and query, each in its one form."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        host = host_form(parts.hostname or "")
    except ValueError:  # no address
        return (url,)
    return parts.scheme, host, port, parts.path.rstrip("/"), parts.query
