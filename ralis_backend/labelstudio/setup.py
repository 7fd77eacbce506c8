"""A Label Studio project made ready: ML backend, webhooks, sampling, the regions project.

Everything is compared with what is there and changed only where it differs: safe to repeat.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ralis_backend.labelstudio.client import LabelStudioClient, without_credentials
from ralis_backend.labelstudio.errors import NotFound
from ralis_backend.labelstudio.payloads.instructions import HEADING, instructions
from ralis_backend.labelstudio.payloads.label_config import (
    REGION_LABEL,
    LabelConfig,
    asks_everything,
    parse_label_config,
    regions_config,
)
from ralis_backend.labelstudio.payloads.tasks import project_uid
from ralis_backend.online.tool import ClassLabel, ToolProject

logger = logging.getLogger(__name__)

BACKEND_TITLE = "RALIS"
MARKER = "ralis:pool="
"""Stands in a regions project's description, so that it is found again by its pool's uid."""

LEAST_USEFUL_FIRST = {
    "sampling": "Uncertainty sampling",
    "show_collab_predictions": True,
    "evaluate_predictions_automatically": False,
}
REGIONS_SETTINGS = {**LEAST_USEFUL_FIRST, "skip_queue": "IGNORE_SKIPPED"}
"""A region that one annotator skips is not handed to the next."""


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

    def through(self, client: LabelStudioClient) -> ProjectSetup:
        """The same, by another client."""
        setup = copy.copy(self)
        setup._client = client
        return setup

    def connect(
        self, project: ToolProject, mode: str, extra_params: Mapping[str, Any] | None = None
    ) -> None:
        """Prepare a project and make this backend its ML backend.

        Args:
            project: the pool project.
            mode: `crops` or `in-place`.
            extra_params: that the connection gets besides those it has.

        Raises:
            LabelStudioError: saying what to do, where Label Studio refuses the backend's address
                or credentials.
            ValueError: if there is no backend address.
        """
        if self._backend_url is None:
            raise ValueError(
                "the backend's own address is not known; set RALIS_BACKEND_URL to where Label "
                "Studio reaches it, for example http://localhost:9090"
            )
        self._connect_backend(project, self._backend_url, extra_params or {})
        self.prepare(project, mode, None)

    def prepare(
        self, project: ToolProject, mode: str, regions_project_id: int | None
    ) -> int | None:
        """Bring webhooks, sampling and, in crops mode, the regions project in order."""
        address = self.address(project.id)
        self._keep_webhook(project.id, project.uid, address)
        if mode != "crops":
            keep_settings(self._client, project.id, LEAST_USEFUL_FIRST)
            return None
        regions = self._regions_project(project, regions_project_id)
        self._keep_webhook(int(regions["id"]), project_uid(regions), address)
        return int(regions["id"])

    def address(self, project_id: int) -> str | None:
        """Where Label Studio reaches this backend: as set, or as connected to the pool project.

        None where that cannot be told; labels then come with the next full reading only.
        """
        if self._backend_url is not None:
            return self._backend_url
        backends = self._client.backends(project_id)
        ours = [it for it in backends if it["title"] == BACKEND_TITLE] or backends
        addresses = {str(it["url"]).rstrip("/") for it in ours}
        if len(addresses) == 1:
            return addresses.pop()
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

    def _connect_backend(
        self, project: ToolProject, url: str, extra_params: Mapping[str, Any]
    ) -> None:
        settings: dict[str, Any] = {"title": BACKEND_TITLE, "auth_method": "NONE"}
        if self._credentials:
            user, password = self._credentials
            settings.update(
                auth_method="BASIC_AUTH", basic_auth_user=user, basic_auth_pass=password
            )
        known = [it for it in self._client.backends(project.id) if same_url(it["url"], url)]
        if extra_params:
            stated = _parameters(known[0].get("extra_params")) if known else {}
            settings["extra_params"] = {**stated, **extra_params}
        if known:
            self._client.update_backend(known[0]["id"], project.id, url, **settings)
        else:
            self._client.create_backend(project.id, url, **settings)

    def _keep_webhook(self, project_id: int, uid: str, address: str | None) -> None:
        """Exactly one webhook to this backend, for all actions, with the project's own header."""
        if address is None:
            return
        headers = dict(self._webhook_headers(uid))
        url = f"{address}/webhook"
        hooks = [it for it in self._client.webhooks(project_id) if same_url(it["url"], url)]
        if not hooks:
            self._client.create_webhook(project_id, url, headers)
            return
        hook = hooks[0]
        is_right = (
            hook.get("is_active")
            and hook.get("send_payload")
            and hook.get("send_for_all_actions")
            and dict(hook.get("headers") or {}) == headers
        )
        if not is_right:
            self._client.update_webhook(hook["id"], url, headers)
        for extra in hooks[1:]:
            self._client.delete_webhook(extra["id"])

    def _regions_project(self, pool: ToolProject, regions_project_id: int | None) -> dict[str, Any]:
        marker = f"{MARKER}{pool.uid}"
        parsed = parse_label_config(pool.label_config, self._region_label)
        config = regions_config(parsed, pool.background)
        told = self._told(pool, parsed)
        found = self._find_regions_project(marker, regions_project_id)
        if found is None:
            return self._client.create_project(
                f"{pool.title[:40]} · regions",
                config,
                description=f"Suggested regions of project {pool.id}, kept by RALIS. {marker}",
                **REGIONS_SETTINGS,
                **told,
                show_instruction=True,
            )
        regions_id = int(found["id"])
        if not is_ours(found.get("expert_instruction")):
            del told["expert_instruction"]
        keep_settings(self._client, regions_id, {**REGIONS_SETTINGS, **told})
        shown = found["label_config"]
        if self._labels(shown) != self._labels(config) or not asks_everything(
            shown, parsed, pool.background
        ):
            # Label Studio accepts it when a label goes that annotations still use.
            self._client.update_project(regions_id, label_config=config)
        return found

    def _told(self, pool: ToolProject, config: LabelConfig) -> dict[str, Any]:
        """Settings by which annotators learn what to do.

        Without a background an empty submission says nothing: Label Studio then refuses it.
        """
        text = instructions(
            [label.name for label in config.labels],
            pool.background,
            is_brush=config.control_type == "brushlabels",
            of_owner=str(self._client.project(pool.id).get("expert_instruction") or ""),
        )
        return {
            "expert_instruction": text,
            "enable_empty_annotation": pool.background is not None,
        }

    def _find_regions_project(self, marker: str, project_id: int | None) -> dict[str, Any] | None:
        if project_id is not None:
            try:
                found = self._client.project(project_id)
            except NotFound:
                found = {}
            if marker in str(found.get("description")):
                return found
        for found in self._client.projects():
            if marker in str(found.get("description")):
                return found
        return None

    def _labels(self, xml: str) -> tuple[ClassLabel, ...]:
        return parse_label_config(xml, self._region_label).labels


def _parameters(value: Any) -> dict[str, Any]:
    """A connection's extra params: typed into Label Studio's form they are a text."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            return {}
    return dict(value) if isinstance(value, Mapping) else {}


def is_ours(instruction: Any) -> bool:
    """Whether a regions project's instructions are ours to keep up to date: the owner's are not."""
    return not instruction or str(instruction).startswith(HEADING)


def keep_settings(client: LabelStudioClient, project_id: int, wanted: Mapping[str, Any]) -> None:
    """Change those settings of a project that are not as `wanted`."""
    project = client.project(project_id)
    changes = {name: value for name, value in wanted.items() if project.get(name) != value}
    if changes:
        client.update_project(project_id, **changes)


def same_url(left: str, right: str) -> bool:
    """Whether two addresses are the same but for credentials and a trailing slash."""
    return without_credentials(left).rstrip("/") == without_credentials(right).rstrip("/")
