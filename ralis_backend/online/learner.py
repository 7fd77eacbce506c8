"""The two paths of a labelling project as the web process sees them: suggest and learn.

Suggesting is a look-up of what the worker ranked; learning is storing what came. The web process
never trains; only an image that the ranking has not seen yet is computed on the spot.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ralis_backend.core.text import reason_of
from ralis_backend.online.background import Kept, background_of, class_names, said_choice
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.hits import Sought, shown_wish, sought
from ralis_backend.online.labels import RegionLabel, covered, labelled_pixels
from ralis_backend.online.learned import learned_pixels
from ralis_backend.online.pictures import Pictures
from ralis_backend.online.ranking import rank_image
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project, Ranking, Version
from ralis_backend.online.suggesting import (
    RankingMisfit,
    best_regions,
    image_suggestion,
    keep_suggestion,
    read_mask,
    suggest_image,
    to_paint,
)
from ralis_backend.online.tool import MAX_ID, ClassLabel, ImageSuggestion, ToolTask
from ralis_backend.online.wanted import (
    fitting_strategy,
    make_wish,
    said_strategy,
    said_wish,
    wanted_of,
)

logger = logging.getLogger(__name__)

_MOST_UNRANKED = 0.5
"""Usefulness of an image's best region until it is ranked with the pool, where scores of one image
alone say nothing of its place among others: neither first nor last."""
IMAGE_S = 10.0
"""How long an image may take to arrive while somebody waits for an answer."""
TURN_S = 2.0
"""How long an answer waits for the one that is being computed."""
REQUEST_S = 60.0
"""How long a request's images are computed; Label Studio throws everything away after 100 s."""
MOST_TABLES = 8
"""Projects whose labelled regions' pixels are kept in memory, for images that no ranking holds."""
MEMORY_S = 1.0
"""How long an answer to `/setup` is served from memory before the database is asked again."""


@dataclass(frozen=True)
class SuggestionFailure:
    """A task that could not be answered, and why; the others of the request are."""

    task_id: int
    message: str


_Said = tuple[str, object, str | Kept | None, object, object]
"""Label config, strategy, background, class that is sought and its share, as `/setup` told them."""
_NOTHING_SAID: _Said = ("", "", Kept.CHOICE, None, None)


@dataclass(frozen=True)
class _Known:
    """What `/setup` said of a project, and the version that it is answered with.

    heard, since: when the one was last seen to hold, and the other looked up, monotonic seconds.
    """

    heard: float
    said: _Said
    since: float
    version: str


class Learner:
    """One per process, shared by its threads.

    Args:
        store: what is known of the projects.
        config: how regions are cut and ranked.
        image: gives the bytes of a task's image file; None where there is no way to fetch them.
        suggestions_per_image: regions suggested on a whole image.
        background_label: of projects that choose none, see `online/background`.
    """

    def __init__(
        self,
        store: Store,
        config: RankingConfig,
        image: Callable[[ToolTask], bytes] | None,
        suggestions_per_image: int = 3,
        background_label: str | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._image = image
        self._suggestions_per_image = suggestions_per_image
        self._background_label = background_label
        self._known: dict[str, _Known] = {}
        self._known_lock = threading.Lock()
        self._computing = threading.Lock()  # one at a time: two would only slow each other down
        self._arrival: Future[bytes] | None = None
        self._labelled: dict[
            tuple[int, int, int, tuple[int, ...]], tuple[np.ndarray, np.ndarray]
        ] = {}

    def register(
        self,
        uid: str,
        label_config: str,
        classes: Sequence[ClassLabel],
        extra_params: Mapping[str, Any],
    ) -> str:
        """Remember a project and answer with its model version.

        Args:
            uid: `<id>.<unix seconds of creation>`.
            label_config: as Label Studio has it.
            classes: the labels in it.
            extra_params: of the connection; `strategy` overrides the setting for this project,
                `background` says what its unpainted pixels are, `mine_class` which class is
                looked for, see `online/wanted`.

        Raises:
            ValueError: if the uid is malformed, there is no such strategy or class, or the
                background leaves nothing to learn.
        """
        strategy = extra_params.get("strategy") or ""
        choice = said_choice(extra_params, [label.name for label in classes])
        mining = extra_params.get("mine_class"), extra_params.get("mine_share")
        said = (label_config, strategy, choice, *mining)
        with self._known_lock:
            known = self._known.get(uid)
        if known is not None and known.said == said:
            if time.monotonic() - known.heard < MEMORY_S:
                return known.version
            if self._was_said_last(uid, said):
                return self._remember(uid, said)
        project = self._store.projects.find(uid)
        if project is None or project.regions_uid != uid:
            self._check_strategy(extra_params, project, classes, choice)
            wish = said_wish(extra_params, self._config)
            project = self._store.projects.register(
                uid, tool_id(uid), label_config, classes, "", self._background_label, choice
            )
            usual = "" if wish and wish["strategy"] else strategy
            self._store.projects.change(project.id, strategy=usual or None, said=None)
            self._follow(project, wish)
            self._store.projects.change(project.id, said=_digest(said))
        elif project.is_deleted or project.num_losses:
            self._store.projects.revive(project.id)
        return self._remember(uid, said)

    def model_version(self, uid: str) -> str:
        """The version in use, `v3`; `v0` before the first training or for an unknown project."""
        with self._known_lock:
            known = self._known.get(uid)
        if known is not None and time.monotonic() - known.since < MEMORY_S:
            return known.version
        heard, said = (known.heard, known.said) if known else (-math.inf, _NOTHING_SAID)
        return self._remember(uid, said, heard)

    def class_names(self, uid: str) -> tuple[str, ...]:
        """Names by class index."""
        return self._store.projects.get(uid).class_names

    def suggest(
        self, uid: str, tasks: Sequence[ToolTask]
    ) -> list[ImageSuggestion | SuggestionFailure]:
        """The regions of each image most worth labelling, best first, one answer per task.

        A task of the regions project is refused: its prediction is stored in Label Studio.
        """
        project = self._store.projects.get(uid)
        if project.regions_uid == uid:
            message = "a region's prediction is stored with its task; connect the pool project"
            return [SuggestionFailure(task.id, message) for task in tasks]
        version = self._store.versions.serving(project)
        until = time.monotonic() + REQUEST_S
        for_wish = functools.cache(partial(sought, self._store, project, version))
        answers: list[ImageSuggestion | SuggestionFailure] = []
        for task in tasks:
            try:
                answers.append(self._suggest_one(project, version, task, until, for_wish))
            except Exception as error:
                # One bad task must not cost the others their answer.
                logger.warning("project %s, task %s: no suggestion: %s", uid, task.id, error)
                answers.append(SuggestionFailure(task.id, reason_of(error)))
        return answers

    def learn(self, uid: str, event: str, payload: Mapping[str, Any]) -> None:
        """Store a webhook as it came; the worker reads it.

        Args:
            uid: of the pool or the regions project.
            event: Label Studio's name of the action.
            payload: the request's JSON, without the project's settings.
        """
        self._store.events.add(uid, event, payload)
        project = self._store.projects.find(uid)
        if project is not None and project.num_losses:  # it is there after all
            self._store.projects.revive(project.id)

    def request_training(self, uid: str) -> None:
        """Train as soon as the worker is free; what webhooks missed is read first.

        What was set aside because it ended the worker is tried again, and a project that was
        forgotten or gone is worked on again.
        """
        self._store.projects.request_training(self._store.projects.get(uid).id)

    def forget(self, uid: str) -> None:
        """Stop working on a project until it is connected again, or a training is asked for.

        Its labels and versions are kept.
        """
        project = self._store.projects.find(uid)
        if project is not None and project.uid == uid:
            self._store.projects.change(project.id, is_deleted=True, num_losses=0)
        with self._known_lock:
            self._known.pop(uid, None)

    def status(self, uid: str | None = None) -> dict[str, Any]:
        """What the worker is doing: of one project, or of all by uid."""
        if uid is None:
            return {project.uid: self._status(project) for project in self._store.projects.all()}
        return self._status(self._store.projects.get(uid))

    def versions(self, uid: str) -> list[dict[str, Any]]:
        """All versions with their metrics, oldest first."""
        project = self._store.projects.get(uid)
        return [
            {
                "version": version.name,
                "is_current": version.number == project.current_version,
                "is_accepted": version.is_accepted,
                "is_dropped": version.is_dropped,
                "labelled_regions": version.num_labels,
                "created_at": version.created_at.isoformat(),
                "strategy": version.strategy,
                "metrics": version.metrics,
            }
            for version in self._store.versions.all(project.id)
        ]

    def rollback(self, uid: str, version: str) -> None:
        """Use an earlier version again; the worker ranks and publishes it.

        Raises:
            ValueError: if there is no such version, naming those there are.
        """
        project = self._store.projects.get(uid)
        versions = {row.name: row for row in self._store.versions.all(project.id)}
        if version not in versions:
            known = ", ".join(versions) or "none"
            raise ValueError(
                f"project {project.tool_id} has no version {version!r}; it has: {known}"
            )
        self._store.versions.use(project.id, versions[version].number)

    def _follow(self, project: Project, said: dict[str, Any] | None) -> None:
        """Look for what a connection asks for now; what it asked for before is as it is.

        So a wish that was ended here is not begun again by each `/setup`, and a class that is gone
        since then does not cost the connection.
        """
        if said == project.said_wish:
            return
        wish = said and make_wish(self._store, project, wanted_of(said), self._config)
        if wish:
            wish.is_of_connection = True
        self._store.wishes.follow(project.id, said, wish or None)

    def _was_said_last(self, uid: str, said: _Said) -> bool:
        """Of a project that is worked on: whichever process `/setup` came to."""
        project = self._store.projects.find(uid)
        if project is None or project.is_deleted or project.num_losses:
            return False
        return project.regions_uid == uid or project.said == _digest(said)

    def _remember(self, uid: str, said: _Said, heard: float | None = None) -> str:
        project = self._store.projects.find(uid)
        serving = self._store.versions.serving(project) if project else None
        version = serving.name if serving else "v0"
        with self._known_lock:
            moment = time.monotonic()
            self._known[uid] = _Known(moment if heard is None else heard, said, moment, version)
        return version

    def _status(self, project: Project) -> dict[str, Any]:
        wish = shown_wish(self._store, project)
        return {
            "project": project.uid,
            "regions_project": project.regions_tool_id,
            "version": f"v{project.current_version}",
            "published_version": None
            if project.published_version is None
            else f"v{project.published_version}",
            "round": project.round,
            "labelled_regions": self._labelled_regions(project),
            "open_regions": self._store.queue.count_open(project.id),
            "bulk_annotations": project.people.get("bulk_annotations", 0),
            "double_images": project.people.get("double_images", 0),
            "agreement": project.people.get("agreement") or None,
            "advice": project.people.get("advice"),
            "is_training_requested": project.is_training_requested,
            "mining": None if wish is None else wish.to_json(),
            "state": project.progress.get("state", "idle"),
            **{name: value for name, value in project.progress.items() if name != "state"},
            "last_error": project.last_error,
        }

    def _labelled_regions(self, project: Project) -> int:
        """As the worker counted them; before it has, as they are."""
        count = project.num_labelled_regions
        return self._store.labels.count_regions(project.id) if count is None else count

    def _suggest_one(
        self,
        project: Project,
        version: Version | None,
        task: ToolTask,
        until: float,
        for_wish: Callable[[], Sought | None],
    ) -> ImageSuggestion:
        image = self._store.images.find(project.id, task.id, task.created_at)
        labels = self._store.labels.of_image(image.id) if image else []
        if version is None or image is None:
            return self._compute(project, version, image, labels, task, until)
        ranking = self._store.rankings.find(version.id, image.id)
        if ranking is None:
            return self._compute(project, version, image, labels, task, until)
        try:
            return suggest_image(
                self._store,
                version,
                image,
                ranking,
                labels,
                self._config.region_size,
                self._suggestions_per_image,
                self._stored_mask(project, image, ranking),
                for_wish,
            )
        except RankingMisfit:
            return self._compute(project, version, image, labels, task, until)

    def _stored_mask(self, project: Project, image: Image, ranking: Ranking) -> np.ndarray | None:
        """None as well where it is lost: the regions alone are worth an answer."""
        try:
            mask = read_mask(self._store, image, ranking)
        except (OSError, ValueError) as error:
            logger.warning(
                "project %s, task %s: no mask: %s", project.tool_id, image.task_id, error
            )
            return None
        return None if mask is None else to_paint(mask, project)

    def _compute(
        self,
        project: Project,
        version: Version | None,
        image: Image | None,
        labels: Sequence[RegionLabel],
        task: ToolTask,
        until: float,
    ) -> ImageSuggestion:
        """An answer for an image that the ranking does not hold, computed now."""
        if self._image is None:
            raise ValueError(
                "the image has not been ranked yet and cannot be fetched: set LABEL_STUDIO_URL and "
                "LABEL_STUDIO_API_KEY"
            )
        with self._turn(until):
            content = self._arrived(self._image, task)
            labelled, learned = self._labelled_pixels(project, version)
            decode = Pictures(self._store, project, self._image, may_measure=False).decode
            ranked = rank_image(
                self._store, project, version, content, self._config, labelled, learned, decode
            )
        has_ranked = version is not None and "score_quantiles" in version.metrics
        regions = best_regions(
            ranked.image_size,
            self._config.region_size,
            ranked.scores,
            ranked.reasons,
            covered(ranked.image_size, labels),
            self._suggestions_per_image,
            ranked.pool_scores,
            most=_MOST_UNRANKED if has_ranked and ranked.pool_scores is None else 1.0,
        )
        number = version.number if version else 0
        if image is not None:
            regions = keep_suggestion(self._store, image.id, number, regions)
        mask = None if ranked.mask is None else to_paint(ranked.mask, project)
        return image_suggestion(task.id, ranked.image_size, regions, mask, f"v{number}")

    def _labelled_pixels(
        self, project: Project, version: Version | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `labelled_pixels`, and `learned_pixels`; as for the version's ranking.

        All labels are read once for each version; before a segmenter has learned nobody looks at
        them.
        """
        num_classes, removed = len(project.classes), project.removed_classes
        if version is None or version.weights_key is None:
            return labelled_pixels((), num_classes), np.zeros(num_classes, np.int64)
        key = (project.id, version.id, num_classes, removed)
        if key not in self._labelled:
            while len(self._labelled) >= MOST_TABLES:
                del self._labelled[next(iter(self._labelled))]
            labels = self._store.labels.of(project.id)
            learned = learned_pixels(self._store, project, version, labels)
            self._labelled[key] = labelled_pixels(labels, num_classes, removed), learned
        return self._labelled[key]

    def _check_strategy(
        self,
        extra_params: Mapping[str, Any],
        project: Project | None,
        classes: Sequence[ClassLabel],
        choice: str | Kept | None,
    ) -> None:
        """Refuse a strategy that does not fit; one that a project has already stays with a note."""
        name = said_strategy(extra_params, self._config)
        if name is None or (project is not None and project.strategy == name):
            return
        labels = [label.name for label in classes]
        before, kept = (project.background, project.kept_background) if project else (None, None)
        chosen = before if isinstance(choice, Kept) else choice
        background = background_of(labels, chosen, self._background_label, kept)
        fitting_strategy(extra_params, class_names(labels, background), self._config)

    @contextmanager
    def _turn(self, until: float) -> Iterator[None]:
        """The right to compute, of one thread at a time; whoever waits too long goes without."""
        if time.monotonic() > until:
            raise ValueError(
                f"the images before took {REQUEST_S:.0f} s to compute; ask for the rest again"
            )
        if not self._computing.acquire(timeout=TURN_S):
            raise ValueError(
                "the backend is computing another image that is not ranked yet; open the task "
                "again in a moment"
            )
        try:
            yield
        finally:
            self._computing.release()

    def _arrived(self, image: Callable[[ToolTask], bytes], task: ToolTask) -> bytes:
        """An image that does not make us wait long; one that is late goes on arriving, alone."""
        if self._arrival is not None and not self._arrival.done():
            raise ValueError("another image is still on its way here; open the task again later")
        self._arrival = arrival = Future[bytes]()
        threading.Thread(target=_fulfil, args=(arrival, image, task), daemon=True).start()
        try:
            return arrival.result(timeout=IMAGE_S)
        except TimeoutError:
            if arrival.done():
                raise
            raise ValueError(
                f"the image did not arrive within {IMAGE_S:.0f} s; open the task again later"
            ) from None


def _digest(said: _Said) -> str:
    """64 characters that stand for what was said."""
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _fulfil(arrival: Future[bytes], image: Callable[[ToolTask], bytes], task: ToolTask) -> None:
    try:
        arrival.set_result(image(task))
    except Exception as error:
        arrival.set_exception(error)


def tool_id(uid: str) -> int:
    """The project id in a uid, `<id>.<unix seconds of creation>`.

    Raises:
        ValueError: if it does not start with a number.
    """
    text = uid.split(".")[0]
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_ID):
        raise ValueError(f"project uid {uid[:40]!r} is not of the form <id>.<creation time>")
    return int(text)
