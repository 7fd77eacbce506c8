"""The web server that Label Studio calls, and the plug-in for label-studio-ml's own server."""

from __future__ import annotations

import logging
import time
import traceback
from functools import cache
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from ralis_backend.app.access import Access
from ralis_backend.app.monitoring import Metrics
from ralis_backend.app.routes import OPEN_ENDPOINTS, routes
from ralis_backend.core.text import printable, reason_of, shortened
from ralis_backend.labelstudio.plugin import RalisBackend
from ralis_backend.settings import Settings, load_settings
from ralis_backend.wiring import (
    create_address_book,
    create_handover,
    create_learner,
    create_webhook_secret,
)

if TYPE_CHECKING:
    from ralis_backend.online.learner import Learner

__all__ = ["EnvironmentBackend", "create_app", "plugin"]

logger = logging.getLogger(__name__)

EARLY_CHECK = "ralis_early_check"
"""In `app.extensions`: whether a request's body is worth receiving, told from its environ."""
MAX_MESSAGE = 2000
"""Characters of an error's message; some quote what was sent."""


def create_app(settings: Settings | None = None, learner: Learner | None = None) -> Flask:
    """The WSGI application.

    Args:
        settings: of the environment and `.env` if None.
        learner: made from the settings if None.

    Raises:
        SettingsError: if the settings cannot be used.
    """
    settings = settings or load_settings()
    learner = learner or create_learner(settings)
    metrics = Metrics(learner, settings.metrics_dir)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = int(settings.max_request_bytes)
    _measure(app, metrics)  # before access is checked, so that refusals are measured too
    _guard(app, Access(settings, create_webhook_secret(settings)))
    _answer_errors_as_json(app)
    handover = create_handover(settings, is_authenticated=settings.has_credentials)
    addresses = create_address_book(settings)
    app.register_blueprint(routes(learner, metrics, settings.region_label, handover, addresses))
    return app


def plugin(settings: Settings | None = None) -> type[RalisBackend]:
    """The plug-in for label-studio-ml's own server: `init_app(model_class=plugin())`.

    Without arguments it is a class that label-studio-ml 1.0.9 can find again in the process that
    it starts for each webhook; one made for explicit settings works in this process alone.
    """
    if settings is None:
        return EnvironmentBackend
    return RalisBackend.bind(
        create_learner(settings),
        settings.region_label,
        create_handover(settings, is_authenticated=False),
        create_address_book(settings),
    )


class EnvironmentBackend(RalisBackend):
    """The plug-in with the learner of the environment's settings, made on first use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings, type(self).learner = _environment()
        type(self).region_label = settings.region_label
        type(self).handover = create_handover(settings, is_authenticated=False)
        type(self).addresses = create_address_book(settings)
        super().__init__(*args, **kwargs)


@cache
def _environment() -> tuple[Settings, Learner]:
    settings = load_settings()
    return settings, create_learner(settings)


def _guard(app: Flask, access: Access) -> None:
    app.extensions[EARLY_CHECK] = access.may_send

    @app.before_request
    def check_access() -> None:
        if request.endpoint not in OPEN_ENDPOINTS:
            g.only_uid = access.check(request)


def _measure(app: Flask, metrics: Metrics) -> None:
    @app.before_request
    def start_clock() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def stop_clock(response: Response) -> Response:
        endpoint = (request.endpoint or "unknown").removeprefix("ralis.")
        seconds = time.perf_counter() - g.started
        metrics.observe(endpoint, response.status_code, seconds)
        level = logging.INFO if endpoint not in ("health", "metrics") else logging.DEBUG
        logger.log(
            level,
            "%s %s -> %d in %.0f ms",
            request.method,
            endpoint,
            response.status_code,
            seconds * 1000,
        )
        return response


def _answer_errors_as_json(app: Flask) -> None:
    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        response = jsonify(error=shortened(error.description or error.name, MAX_MESSAGE))
        response.status_code = error.code or 500
        for name, value in error.get_headers():
            if name.lower() not in ("content-type", "content-length"):
                response.headers[name] = value
        return response

    @app.errorhandler(ValueError)
    def refuse_value(error: ValueError) -> tuple[Response, int]:
        message = shortened(reason_of(error), MAX_MESSAGE)
        logger.warning("%s refused: %s", request.endpoint, printable(message))
        return jsonify(error=message), 400

    @app.errorhandler(Exception)
    def fail(error: Exception) -> tuple[Response, int]:
        # Messages and tracebacks can quote a payload: the place is enough to find the cause.
        place = traceback.extract_tb(error.__traceback__)[-1]
        logger.error(
            "%s failed: %s at %s:%s",
            request.endpoint,
            type(error).__name__,
            place.filename,
            place.lineno,
        )
        logger.debug("traceback", exc_info=error)
        return jsonify(error="internal error; the backend's log says where"), 500
