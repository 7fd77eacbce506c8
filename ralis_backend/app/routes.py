"""Every endpoint that Label Studio calls: JSON in, the plug-in's hooks, JSON out."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import Forbidden, RequestEntityTooLarge

from ralis_backend.app.json_body import NARROW, WIDE, read_event, read_json
from ralis_backend.app.monitoring import CONTENT_TYPE, Metrics
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.tasks import project_uid
from ralis_backend.labelstudio.plugin import RalisBackend

if TYPE_CHECKING:
    from ralis_backend.labelstudio.address_book import AddressBook
    from ralis_backend.labelstudio.token_file import Handover
    from ralis_backend.online.learner import Learner

logger = logging.getLogger(__name__)

Answer = dict[str, Any] | tuple[dict[str, Any], int]
_ACTION = re.compile(r"[A-Za-z0-9_]{1,64}")
UNREAD = "UNREAD"
"""The event that stands for a webhook of too much: it tells nothing, so everything is read."""
OPEN_ENDPOINTS = ("ralis.health",)
"""What is answered without authentication."""


def routes(
    learner: Learner,
    metrics: Metrics,
    region_label: str,
    handover: Handover | None = None,
    addresses: AddressBook | None = None,
) -> Blueprint:
    """All endpoints, served by `RalisBackend` bound to `learner`."""
    blueprint = Blueprint("ralis", __name__)
    backend = RalisBackend.bind(learner, region_label, handover, addresses)

    @blueprint.get("/")
    @blueprint.get("/health")
    def health() -> Answer:
        return {"status": "UP", "model_class": "RalisBackend"}

    @blueprint.post("/setup")
    def setup() -> Answer:
        body = read_json(request)
        plugin = backend(
            project_id=_uid(body),
            label_config=_text(body, "schema"),
            access_token=body.get("access_token"),
            hostname=body.get("hostname"),
        )
        return {"model_version": plugin.connect(body.get("extra_params"))}

    @blueprint.post("/predict")
    def predict() -> Answer:
        body = read_json(request)
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise ValueError("the body has no list of tasks under 'tasks'")
        params = body.get("params")
        context = params.get("context") if isinstance(params, dict) else None
        plugin = backend(project_id=_uid(body), label_config=_text(body, "label_config"))
        results = plugin.predict(tasks, context=context)
        return {"results": results, "model_version": plugin.model_version}

    @blueprint.post("/webhook")
    def webhook() -> Answer:
        try:
            body = read_event(request, WIDE if g.only_uid is None else NARROW)
        except RequestEntityTooLarge as error:
            if g.only_uid is None:  # nothing else says which project it is of
                raise
            logger.warning("%s: a webhook says too much: %s", g.only_uid, error.description)
            body = {"project": g.only_uid, "action": UNREAD}
        uid = _uid(body)
        if g.only_uid not in (None, uid):
            raise Forbidden(f"this is the webhook secret of project {g.only_uid}, not of {uid}")
        return backend(project_id=uid).fit(_action(body), body), 201

    @blueprint.post("/train")
    def train() -> Answer:
        body = read_json(request)
        return backend(project_id=_uid(body)).fit("START_TRAINING", body), 201

    @blueprint.route("/versions", methods=["GET", "POST"])
    def versions() -> Answer:
        uid = _optional_uid()
        uids = list(learner.status(None)) if uid is None else [uid]  # Label Studio names none
        details = {uid: learner.versions(uid) for uid in uids}
        names = [version["version"] for rows in details.values() for version in rows]
        return {"versions": list(dict.fromkeys(names)), "projects": details}

    @blueprint.post("/validate")
    def validate() -> Answer:
        config = parse_label_config(_text(read_json(request), "config"), region_label)
        return {"valid": True, "labels": [label.name for label in config.labels]}

    @blueprint.route("/job_status", methods=["GET", "POST"])
    def job_status() -> Answer:
        uid = _optional_uid()
        if uid is not None:
            status = learner.status(uid)
            return {"job_status": _job_state(status), **status}
        projects = learner.status(None)
        states = {_job_state(status) for status in projects.values()}
        busiest = next((state for state in ("started", "queued") if state in states), "finished")
        return {"job_status": busiest, "projects": projects}

    @blueprint.post("/delete")
    def delete() -> Answer:
        uid = _uid(read_json(request))
        learner.forget(uid)
        return {"deleted": uid}

    @blueprint.get("/metrics", endpoint="metrics")
    def show_metrics() -> Response:
        return Response(metrics.render(), content_type=CONTENT_TYPE)

    return blueprint


def _uid(body: dict[str, Any]) -> str:
    return project_uid(body.get("project"))


def _optional_uid() -> str | None:
    body = read_json(request)
    project = request.args.get("project") or body.get("project")
    return None if project is None else project_uid(project)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the body has no text under {name!r}")
    return value


def _action(body: dict[str, Any]) -> str:
    action = _text(body, "action")
    if not _ACTION.fullmatch(action):
        raise ValueError("the body's 'action' is no name of an event such as ANNOTATION_CREATED")
    return action


def _job_state(status: dict[str, Any]) -> str:
    if status.get("state", "idle") != "idle":
        return "started"
    return "queued" if status.get("is_training_requested") else "finished"
