"""What one publishing goes by: a version's rankings of the pool, and what is labelled by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ralis_backend.core.regions import grid
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.same_pictures import SamePictures
from ralis_backend.online.store.tables import Image, Project, Ranking, Version
from ralis_backend.online.tool import ToolProject
from ralis_backend.online.worker.queue_plan import Place, open_places


@dataclass(frozen=True)
class Publication:
    """A version of a project, with everything that decides what annotators meet next.

    pool: the project as the tool has it.
    images, rankings, labels: by image id; `rankings` are those of `version`.
    region_size: (height, width) in pixels.
    """

    pool: ToolProject
    project: Project
    version: Version
    images: Mapping[int, Image]
    rankings: Mapping[int, Ranking]
    labels: Mapping[int, Sequence[RegionLabel]]
    region_size: tuple[int, int]

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

    @cached_property
    def pictures(self) -> SamePictures:
        """The images that can be shown, by what they show."""
        contents = {image_id: self.images[image_id].content for image_id in self.image_sizes}
        return SamePictures(contents, self.labels)

    def places(self) -> tuple[list[Place], np.ndarray]:
        """The R regions of the pool that are not wholly labelled, and their scores, (R,).

        A picture that stands in several tasks has them in the first.
        """
        scores = {
            image_id: np.frombuffer(ranking.scores, "<f4")
            for image_id, ranking in self.rankings.items()
            if not self.pictures.is_double(image_id)
        }
        labels = {image_id: self.pictures.labels(image_id) for image_id in scores}
        return open_places(self.image_sizes, scores, labels, self.region_size)

    def reason(self, place: Place) -> str:
        """Why a place is worth labelling, for annotators."""
        regions = grid(self.image_sizes[place.image_id], self.region_size)
        return str(self.rankings[place.image_id].reasons[regions.index(place.region)])
