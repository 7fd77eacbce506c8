"""What one publishing goes by: a version's rankings of the pool, and what is labelled by now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ralis_backend.online.hits import Sought
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.same_pictures import SamePictures
from ralis_backend.online.store.tables import CropTask, Image, Project, Ranking, Version
from ralis_backend.online.tool import ToolProject
from ralis_backend.online.worker.queue_plan import Mining, Place, open_places


@dataclass(frozen=True)
class Publication:
    """A version of a project, with everything that decides what annotators meet next.

    pool: the project as the tool has it.
    images, rankings, labels: by image id; `rankings` are those of `version`.
    region_size: (height, width) in pixels.
    newest_painted: the newest painted one's id, as far as it is surely among those labels.
    learned_label_id: of the newest label in the training that `version` comes of, without what it
        was trained on with since.
    sought: what of the rankings is for a class that is looked for; None: nothing is.
    """

    pool: ToolProject
    project: Project
    version: Version
    images: Mapping[int, Image]
    rankings: Mapping[int, Ranking]
    labels: Mapping[int, Sequence[RegionLabel]]
    region_size: tuple[int, int]
    newest_painted: int
    learned_label_id: int
    sought: Sought | None = None

    @property
    def is_new(self) -> bool:
        """Whether annotators meet what another ranking chose, or what is for another wish."""
        return self.project.is_publishing_requested or not self._is_as_published

    def is_new_round(self, regions_per_round: int, waiting: Iterable[CropTask]) -> bool:
        """Whether the round at the head of the queue is over, and the next one begins.

        A round is of regions that were painted. It is over when a training has learned from some
        of those painted since it began, when they are as many as a round has, or when none of its
        tasks waits any more. Whatever else is published goes on with it.

        Args:
            regions_per_round: as many as a round has.
            waiting: the tasks that nobody has labelled yet, before any is taken out.
        """
        since, newest = self.project.round_label_id, self.newest_painted
        oldest_ids = (
            label.oldest_id
            for of_image in self.labels.values()
            for label in of_image
            if label.is_closing and not label.is_skipped
        )
        painted = [it for it in oldest_ids if since < it <= newest]
        if not painted:
            return False
        has_learned = min(painted) <= self.learned_label_id
        is_waiting = any(row.round <= self.project.round for row in waiting)
        return has_learned or not is_waiting or len(painted) >= regions_per_round

    @property
    def _is_as_published(self) -> bool:
        published = (self.project.published_version, self.project.published_wish)
        return published == (self.version.number, self.wish_id)

    @property
    def wish_id(self) -> int | None:
        """The wish whose regions are among what annotators meet."""
        return None if self.sought is None else self.sought.wish_id

    @property
    def num_annotators(self) -> int:
        """People who have labelled something."""
        return len({label.annotator for of_image in self.labels.values() for label in of_image})

    @cached_property
    def image_sizes(self) -> dict[int, tuple[int, int]]:
        """(height, width) in pixels, by id, of the ranked images that can be shown."""
        return {
            image_id: image.size
            for image_id, image in self.images.items()
            if image_id in self.rankings and image.size is not None and image.error is None
        }

    @property
    def shows_nothing(self) -> bool:
        """Whether none of the ranked images that there are can be shown now."""
        return not self.image_sizes and any(it in self.rankings for it in self.images)

    @cached_property
    def pictures(self) -> SamePictures:
        """The images that can be shown, by what they show."""
        contents = {image_id: self.images[image_id].content for image_id in self.image_sizes}
        return SamePictures(contents, self.labels)

    def places(self, *, are_mined: bool = False) -> tuple[list[Place], np.ndarray]:
        """The R regions of the pool that are not wholly labelled, and their scores, (R,).

        A picture that stands in several tasks has them in the first. With `are_mined` the scores
        are those for the class that is looked for.
        """
        scores = {
            image_id: _mined_scores(ranking) if are_mined else np.frombuffer(ranking.scores, "<f4")
            for image_id, ranking in self.rankings.items()
            if not self.pictures.is_double(image_id)
        }
        labels = {image_id: self.pictures.labels(image_id) for image_id in scores}
        return open_places(self.image_sizes, scores, labels, self.region_size)

    def mining(self) -> Mining | None:
        """What a wish adds to the queue; None: nothing."""
        if self.sought is None:
            return None
        _, scores = self.places(are_mined=True)
        sought = self.sought
        return Mining(
            sought.wish_id,
            sought.strategy,
            scores,
            self.mined_reason,
            sought.share,
            sought.count,
        )

    def reason(self, place: Place) -> str:
        """Why a place is worth labelling, for annotators."""
        return str(self.rankings[place.image_id].reasons[self._index(place)])

    def mined_reason(self, place: Place) -> str:
        """The same of a place that is mined."""
        reasons = self.rankings[place.image_id].mined_reasons
        return "" if reasons is None else str(reasons[self._index(place)])

    def _index(self, place: Place) -> int:
        """Of a place in its image's grid, without making that: it may have thousands of regions."""
        region, (_, width) = place.region, self.image_sizes[place.image_id]
        num_cols = -(-width // region.width)
        # Rounded up: the last row and column may be shifted inside.
        return -(-region.row // region.height) * num_cols + -(-region.col // region.width)


def _mined_scores(ranking: Ranking) -> np.ndarray:
    """(R,) scores for the class that is sought; the lowest where an image was not looked at."""
    if ranking.mined_scores is None:
        return np.full(len(ranking.scores) // 4, np.finfo(np.float32).min)
    return np.frombuffer(ranking.mined_scores, "<f4")
