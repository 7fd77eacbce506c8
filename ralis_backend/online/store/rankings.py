"""The scores of a version over the images, and the masks it predicts in them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import undefer

from ralis_backend.core.images import mask_to_png
from ralis_backend.online.store.blobs import BlobStore
from ralis_backend.online.store.database import Database
from ralis_backend.online.store.tables import Ranking, Version

_SCORES = (
    undefer(Ranking.scores),
    undefer(Ranking.reasons),
    undefer(Ranking.mined_scores),
    undefer(Ranking.mined_reasons),
)


class Rankings:
    """One row per version and image; predicted masks lie in files."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def put_mask(self, version: Version, image_id: int, mask: np.ndarray) -> str:
        """Keep an image's predicted mask, (H, W) uint8, as long as the ranking; its key.

        No name is given twice: what drops one ranking never removes a file of the next.
        """
        name = f"{image_id}-{secrets.token_hex(4)}"
        return self._blobs.put(f"rankings/{version.id}/{name}.png", mask_to_png(mask))

    def put_mask_again(self, version: Version, image_id: int, mask: np.ndarray) -> None:
        """As `put_mask`, in place of the mask that the ranking has."""
        key = self.put_mask(version, image_id, mask)
        of_image = (Ranking.version_id == version.id, Ranking.image_id == image_id)
        with self._database.write() as session:
            session.execute(update(Ranking).where(*of_image).values(mask_key=key))

    def put(
        self,
        version: Version,
        image_id: int,
        scores: np.ndarray,
        reasons: Sequence[str],
        mask_key: str | None,
        mined: tuple[np.ndarray, Sequence[str]] | None = None,
    ) -> None:
        """Store one image's scores, (R,) float32; `mined`: the same for the class sought."""
        with self._database.write() as session:
            row = session.scalars(
                select(Ranking).where(
                    Ranking.version_id == version.id, Ranking.image_id == image_id
                )
            ).first()
            if row is None:
                row = Ranking(version_id=version.id, image_id=image_id)
                session.add(row)
            row.scores = scores.astype("<f4").tobytes()
            row.reasons = list(reasons)
            row.mask_key = mask_key
            row.mined_scores = None if mined is None else mined[0].astype("<f4").tobytes()
            row.mined_reasons = None if mined is None else list(mined[1])

    def of(self, version_id: int) -> dict[int, Ranking]:
        """The rankings of a version by image id, without scores and reasons."""
        return self._by_image(select(Ranking).where(Ranking.version_id == version_id))

    def scored(self, version_id: int) -> dict[int, Ranking]:
        """The rankings of a version by image id, whole."""
        query = select(Ranking).where(Ranking.version_id == version_id)
        return self._by_image(query.options(*_SCORES))

    def num_regions(self, version_id: int) -> dict[int, int]:
        """How many regions a version has scored in each image, by its id."""
        query = select(Ranking.image_id, func.length(Ranking.scores))
        with self._database.read() as session:
            found = session.execute(query.where(Ranking.version_id == version_id))
            return {image_id: num_bytes // 4 for image_id, num_bytes in found}

    def version_ids(self, project_id: int) -> set[int]:
        """The versions of a project of which rankings are kept, those asked to rank again too."""
        query = select(Version.id).where(
            Version.project_id == project_id,
            select(Ranking.id).where(Ranking.version_id == Version.id).exists(),
        )
        with self._database.read() as session:
            return set(session.scalars(query))

    def forget(self, version_id: int, image_ids: Sequence[int]) -> None:
        """Drop a version's ranking of these images: the version is to rank again."""
        with self._database.write() as session:
            for image_id in image_ids:
                session.execute(
                    delete(Ranking).where(
                        Ranking.version_id == version_id, Ranking.image_id == image_id
                    )
                )
            session.get_one(Version, version_id).ranked_at = None

    def find(self, version_id: int, image_id: int) -> Ranking | None:
        """One image's ranking under a version, without scores and reasons."""
        with self._database.read() as session:
            return session.scalars(
                select(Ranking).where(
                    Ranking.version_id == version_id, Ranking.image_id == image_id
                )
            ).first()

    def with_scores(self, ranking: Ranking) -> Ranking:
        """The same ranking, whole."""
        query = select(Ranking).where(Ranking.id == ranking.id).options(*_SCORES)
        with self._database.read() as session:
            return session.scalars(query).one()

    def drop(self, version_id: int) -> None:
        """Forget a version's ranking and predicted masks; they can be computed again."""
        keys = self.mask_keys(version_id)
        with self._database.write() as session:
            session.execute(delete(Ranking).where(Ranking.version_id == version_id))
            session.get_one(Version, version_id).ranked_at = None
        for key in keys:
            self._blobs.delete(key)

    def mask_keys(self, version_id: int) -> set[str]:
        """Where the predicted masks of a version lie."""
        query = select(Ranking.mask_key).where(
            Ranking.version_id == version_id, Ranking.mask_key.is_not(None)
        )
        with self._database.read() as session:
            return {str(key) for key in session.scalars(query)}

    def _by_image(self, query: Select) -> dict[int, Ranking]:
        with self._database.read() as session:
            return {row.image_id: row for row in session.scalars(query)}
