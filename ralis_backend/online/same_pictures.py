"""Tasks that show the same picture: what is labelled in one is labelled in all, and asked once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ralis_backend.online.labels import RegionLabel, labels_by_image


class SamePictures:
    """The images of a project by what they show.

    Args:
        contents: what tells an image's pixels from others', by image id, earlier images first; an
            image without is like no other.
        labels: of the project.
    """

    def __init__(
        self, contents: Mapping[int, str | None], labels: Mapping[int, Sequence[RegionLabel]]
    ) -> None:
        self._labels = labels
        self._alike: dict[str, list[int]] = defaultdict(list)
        self._contents = contents
        for image_id, content in contents.items():
            if content is not None:
                self._alike[content].append(image_id)

    @classmethod
    def of(cls, contents: Mapping[int, str | None], labels: Sequence[RegionLabel]) -> SamePictures:
        """From labels in a list."""
        return cls(contents, labels_by_image(labels))

    def is_double(self, image_id: int) -> bool:
        """Whether an earlier image shows the same picture: its regions are asked there."""
        return self._all(image_id)[0] != image_id

    def labels(self, image_id: int) -> list[RegionLabel]:
        """The labels of the picture, in whichever task they were made."""
        return [label for each in self._all(image_id) for label in self._labels.get(each, ())]

    def _all(self, image_id: int) -> list[int]:
        content = self._contents.get(image_id)
        return [image_id] if content is None else self._alike[content]
