"""The plug-in: Label Studio's `predict` and `fit` hooks, parsed, handed to the learner, formatted.

A server makes a new object per request, so `RalisBackend` holds no state; the learner does. It runs
in our own `app` and in label-studio-ml's servers, 1.0.9 and 2.x.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ralis_backend.core.text import shortened, storable
from ralis_backend.labelstudio.payloads.events import MAX_EVENT, event_payload
from ralis_backend.labelstudio.payloads.label_config import (
    REGION_LABEL,
    LabelConfig,
    parse_label_config,
)
from ralis_backend.labelstudio.payloads.predictions import image_prediction, model_version
from ralis_backend.labelstudio.payloads.regions_config import REGIONS_SIGN, shows_regions
from ralis_backend.labelstudio.payloads.tasks import TaskError, parse_tasks, project_uid
from ralis_backend.online.tool import ImageSuggestion, ToolTask

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # invalid escape sequences in label-studio-tools
    from label_studio_ml.model import LabelStudioMLBase

if TYPE_CHECKING:
    from ralis_backend.labelstudio.address_book import AddressBook
    from ralis_backend.labelstudio.token_file import Handover
    from ralis_backend.online.learner import Learner

logger = logging.getLogger(__name__)

LEAST_USEFUL_SCORE = 1.0
"""Label Studio shows low scores first."""


_UNTRAINED = model_version("v0")


class RalisBackend(LabelStudioMLBase):  # type: ignore[misc]
    """One request's view of one project; `bind` gives the class that a server can use."""

    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATION_DELETED",
        "ANNOTATIONS_DELETED",
        "ANNOTATIONS_CREATED",
        "PROJECT_UPDATED",
        "START_TRAINING",
        "TASKS_CREATED",
        "TASKS_DELETED",
    )
    """Events that label-studio-ml's servers hand to `fit`."""

    learner: ClassVar[Learner | None] = None
    region_label: ClassVar[str] = REGION_LABEL
    handover: ClassVar[Handover | None] = None
    addresses: ClassVar[AddressBook | None] = None

    @classmethod
    def bind(
        cls,
        learner: Learner,
        region_label: str = REGION_LABEL,
        handover: Handover | None = None,
        addresses: AddressBook | None = None,
    ) -> type[RalisBackend]:
        """This class with a learner behind it, for `model_class` of a server.

        Args:
            learner: what answers.
            region_label: name of the label that suggested boxes carry.
            handover: takes the token that Label Studio hands over; None where one is configured.
            addresses: remembers what Label Studio gives as its own address; None: it is not.
        """
        bound = {
            "learner": learner,
            "region_label": region_label,
            "handover": handover,
            "addresses": addresses,
            "__module__": cls.__module__,
        }
        return type(cls.__name__, (cls,), bound)

    def __init__(
        self,
        project_id: str | None = None,
        label_config: str | None = None,
        train_output: Mapping[str, Any] | None = None,
        access_token: str | None = None,
        hostname: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the server.

        The base class's own `__init__` is left out: it parses the label config with a parser that
        expands entities (1.0.9) and writes to a cache of its own (2.x).

        Args:
            project_id: `<id>.<creation>` from our app, `<id>` from label-studio-ml 2.x, None from
                1.0.9, which does not say.
            label_config: XML of the project's labelling interface.
            train_output: what `fit` returned, from 1.0.9.
            access_token: legacy token of the project's creator, sent with `/setup`.
            hostname: address that Label Studio gives as its own, sent with `/setup`.
            kwargs: whatever else a server passes, not used.

        Raises:
            RuntimeError: if the class is not bound to a learner.
        """
        if self.learner is None:
            raise RuntimeError(
                "RalisBackend was hosted without a learner; pass ralis_backend.app.plugin() (or "
                "RalisBackend.bind(learner)) as the model class, or run `ralis serve`"
            )
        self._learner = self.learner
        self._project_id = str(project_id or "")
        self._config_xml = label_config or ""
        if self.handover is not None and access_token is not None:
            self.handover.offer(access_token, hostname)
        if self.addresses is not None and hostname is not None:
            self.addresses.offer(hostname)

    @property
    def model_version(self) -> str:
        """The version in use, `ralis-v3`; `ralis-v0` before the first training."""
        return model_version(self._learner.model_version(self._uid(()) or self._project_id))

    def get(self, key: str) -> Any:
        """What label-studio-ml 2.x's server reads: `model_version`, `label_config`."""
        return {"model_version": self.model_version, "label_config": self._config_xml}.get(key)

    def set_extra_params(self, extra_params: Any) -> None:
        """`extra_params` of the connection, as label-studio-ml 2.x's server hands them over."""
        self.connect(extra_params)

    def connect(self, extra_params: Any = None) -> str:
        """Make the project known to the learner, and return its model version.

        Raises:
            ValueError: if the label config or `extra_params` cannot be used, saying why.
        """
        uid = self._uid(())
        if uid is None:  # the server did not say when the project was made; a webhook will
            return _UNTRAINED
        if shows_regions(self._config_xml):
            raise ValueError(
                "this project holds the regions of another one; connect the backend to the project "
                "with the whole images, and take it off this one (or, if this one has them, remove "
                f"from its labelling interface {REGIONS_SIGN})"
            )
        classes = self._config().labels
        parameters = _extra_params(extra_params)
        return model_version(self._learner.register(uid, self._config_xml, classes, parameters))

    def predict(
        self,
        tasks: Sequence[Mapping[str, Any]],
        context: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """One prediction per task, in order: suggested regions and masks.

        A task that cannot be answered gets an empty prediction with the highest score, so that
        it comes last, and a line in the log; the others are served.
        """
        config = self._config()
        uid = self._uid(tasks)
        if uid is None:
            logger.warning("predict: the project is not known yet; run `ralis connect`")
            return [_empty(_UNTRAINED) for _ in tasks]
        class_names = self._class_names(uid, config)
        version = model_version(self._learner.model_version(uid))
        answers = [_empty(version) for _ in tasks]
        parsed = list(_with_images(tasks, config.image_key, uid))
        suggestions = self._learner.suggest(uid, [task for _, task in parsed])
        for (place, task), suggestion in zip(parsed, suggestions, strict=True):
            if isinstance(suggestion, ImageSuggestion):
                answers[place] = _prediction(uid, suggestion, class_names, config)
            else:
                answers[place] = _empty(version, suggestion.message)
                logger.warning("project %s, task %s: %s", uid, task.id, suggestion.message)
        return answers

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Store an event for the worker; nothing is trained here.

        2.x and our app call `fit(event, data)`, 1.0.9 `fit(tasks, event=..., data=...)`.
        """
        event, data = _event(args, kwargs)
        uid = project_uid(data.get("project"))
        self._make_known(uid, data)
        if event == "START_TRAINING":
            self._learner.request_training(uid)
        else:
            self._learner.learn(uid, storable(event[:MAX_EVENT]), event_payload(data))
        version = self._learner.model_version(uid)
        return {"model_version": model_version(version), "event": event}

    def _uid(self, tasks: Sequence[Mapping[str, Any]]) -> str | None:
        """The project's uid; where the server gives the bare id, the newest known one with it."""
        if "." in self._project_id:
            return self._project_id
        bare = self._project_id or next(
            (
                str(task["project"])
                for task in tasks
                if isinstance(task, Mapping) and "project" in task
            ),
            "",
        )
        known = [uid for uid in self._learner.status(None) if uid.split(".")[0] == bare]
        return max(known, key=_creation, default=None)

    def _config(self) -> LabelConfig:
        return parse_label_config(self._config_xml, self.region_label)

    def _class_names(self, uid: str, config: LabelConfig) -> tuple[str, ...]:
        try:
            return self._learner.class_names(uid)
        except ValueError:  # the database is newer than the connection
            self._learner.register(uid, self._config_xml, config.labels, {})
            return self._learner.class_names(uid)

    def _make_known(self, uid: str, data: Mapping[str, Any]) -> None:
        """In label-studio-ml's servers a webhook is the first to say the project's whole uid."""
        project = data.get("project")
        if "." in self._project_id or not isinstance(project, Mapping):
            return
        try:
            self._learner.class_names(uid)
        except ValueError:
            xml = str(project.get("label_config") or "")
            if shows_regions(xml):
                return
            classes = parse_label_config(xml, self.region_label).labels
            self._learner.register(uid, xml, classes, {})


def _with_images(tasks: Sequence[Any], image_key: str, uid: str) -> Iterable[tuple[int, ToolTask]]:
    """The tasks that can be answered, with their places in the request."""
    project_id = int(uid.partition(".")[0])
    for place, task in enumerate(parse_tasks(tasks, image_key, project_id)):
        if isinstance(task, TaskError):
            logger.warning("project %s, %s", uid, task)
        elif not task.image:
            logger.warning(
                "project %s, task %s has no image: expected an address in its data under %r, the "
                "key that the label config names",
                uid,
                task.id,
                image_key,
            )
        else:
            yield place, task


def _prediction(
    uid: str,
    suggestion: ImageSuggestion,
    class_names: Sequence[str],
    config: LabelConfig,
) -> dict[str, Any]:
    version = model_version(suggestion.version)
    try:
        prediction = image_prediction(suggestion, class_names, config, version)
    except ValueError as error:
        logger.warning("project %s, task %s: %s", uid, suggestion.task_id, error)
        return _empty(version)
    score = prediction.get("score")
    if not isinstance(score, int | float) or not math.isfinite(score):
        prediction["score"] = LEAST_USEFUL_SCORE  # a non-number fails the annotator's next task
    return prediction


def _empty(version: str, error: str = "") -> dict[str, Any]:
    """An answer without regions; Label Studio leaves `error` unread, people who ask do not."""
    answer = {"result": [], "score": LEAST_USEFUL_SCORE, "model_version": version}
    return {**answer, "error": shortened(error, 500)} if error else answer


def _event(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    event, data = kwargs.get("event"), kwargs.get("data")
    if args and isinstance(args[0], str):
        event = args[0]
        data = args[1] if len(args) > 1 else data
    if not isinstance(event, str) or not isinstance(data, Mapping):
        raise ValueError(
            "fit needs the event's name and its data: fit('ANNOTATION_CREATED', {...})"
        )
    return event, data


def _extra_params(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"extra_params is no JSON ({error}); example: {_EXAMPLE}") from None
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"extra_params must be a JSON object; example: {_EXAMPLE}")
    return value


_EXAMPLE = '{"strategy": "entropy"}'


def _creation(uid: str) -> float:
    try:
        return float(uid.partition(".")[2] or 0)
    except ValueError:
        return 0.0
