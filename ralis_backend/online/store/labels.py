"""The labelled regions that were read from annotations, and their masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from ralis_backend.core.images import mask_from_png, mask_to_png
from ralis_backend.core.regions import VOID
from ralis_backend.online.labels import NewLabel, RegionLabel, newest
from ralis_backend.online.store.blobs import BlobStore
from ralis_backend.online.store.database import Database
from ralis_backend.online.store.tables import Annotation, CropTask, Image, Label, Version


class Labels:
    """Labelled regions by project; their masks lie in files."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def put(self, annotation: Annotation, labels: Sequence[NewLabel]) -> None:
        """Replace what was read from an annotation; masks are written before the rows."""
        rows = [self._label_row(annotation, label) for label in labels]
        with self._database.write() as session:
            stored = session.get_one(Annotation, annotation.id)
            stored.error = None
            for old in session.scalars(
                select(Label).where(Label.annotation_row_id == annotation.id)
            ):
                session.delete(old)
            session.flush()
            session.add_all(rows)
            if stored.crop_task_id is not None:
                crop_task = session.get_one(CropTask, stored.crop_task_id)
                crop_task.state = "done"
            self._assign_split(session, annotation.project_id, stored.image_id, rows)

    def of(self, project_id: int) -> list[RegionLabel]:
        """The labelled (and skipped) regions of images that still exist, oldest first.

        Where several annotations label the same region, the newest painted one counts.
        """
        return newest(self.every(project_id))

    def every(self, project_id: int) -> list[RegionLabel]:
        """As `of`, with the labels that newer ones of the same region supersede."""
        with self._database.read() as session:
            rows = session.execute(
                select(Label, Annotation, CropTask, Version.strategy)
                .join(Annotation, Annotation.id == Label.annotation_row_id)
                .join(Image, Image.id == Label.image_id)
                .outerjoin(CropTask, CropTask.id == Annotation.crop_task_id)
                .outerjoin(
                    Version,
                    and_(
                        Version.project_id == Annotation.project_id,
                        Version.number == Annotation.suggested_version,
                    ),
                )
                .where(Label.project_id == project_id, ~Annotation.is_deleted, ~Image.is_deleted)
                .order_by(Annotation.updated_at, Label.id)
            ).all()
        return [_region_label(*row) for row in rows]

    def count(self, project_id: int, since_id: int = 0) -> int:
        """Number of painted labels with a larger id, of images that still exist."""
        with self._database.read() as session:
            return (
                session.scalar(
                    select(func.count(Label.id))
                    .join(Annotation, Annotation.id == Label.annotation_row_id)
                    .join(Image, Image.id == Label.image_id)
                    .where(
                        Label.project_id == project_id,
                        Label.id > since_id,
                        ~Label.is_skipped,
                        ~Annotation.is_deleted,
                        ~Image.is_deleted,
                    )
                )
                or 0
            )

    def newest_id(self, project_id: int) -> int:
        """The id of the newest label that counts, 0 without any."""
        with self._database.read() as session:
            newest_id = session.scalar(
                select(func.max(Label.id))
                .join(Annotation, Annotation.id == Label.annotation_row_id)
                .where(Label.project_id == project_id, ~Annotation.is_deleted)
            )
            return newest_id or 0

    def mask(self, label: RegionLabel) -> np.ndarray:
        """The (height, width) uint8 mask of a labelled region, VOID where nothing was painted."""
        if label.mask_key is None:
            return np.full((label.region.height, label.region.width), VOID, np.uint8)
        return mask_from_png(self._blobs.get(label.mask_key))

    def image_mask(self, image_size: tuple[int, int], labels: Sequence[RegionLabel]) -> np.ndarray:
        """One image's labels as one (H, W) uint8 mask.

        Regions may overlap: a pixel labelled once stays labelled, and the newest label wins.
        """
        mask = np.full(image_size, VOID, np.uint8)
        for label in labels:
            patch = self.mask(label)
            target = mask[label.region.slices]
            np.copyto(target, patch, where=patch != VOID)
        return mask

    def _label_row(self, annotation: Annotation, label: NewLabel) -> Label:
        key, pixels = None, []
        if label.mask is not None:
            content = mask_to_png(label.mask)
            digest = hashlib.sha256(content).hexdigest()
            key = f"labels/{digest[:2]}/{digest}.png"
            if not self._blobs.path(key).exists():
                self._blobs.put(key, content)
            pixels = np.bincount(label.mask[label.mask != VOID], minlength=1).tolist()
        region = label.region
        return Label(
            project_id=annotation.project_id,
            annotation_row_id=annotation.id,
            image_id=annotation.image_id,
            row=region.row,
            col=region.col,
            height=region.height,
            width=region.width,
            is_skipped=label.mask is None,
            mask_key=key,
            pixels=pixels,
        )

    @staticmethod
    def _assign_split(
        session: Session, project_id: int, image_id: int | None, rows: Sequence[Label]
    ) -> None:
        """Every fifth image that gets a label is kept out of training; decided once."""
        if image_id is None or all(row.is_skipped for row in rows):
            return
        image = session.get_one(Image, image_id)
        if image.is_validation is None:
            assigned = session.scalar(
                select(func.count())
                .select_from(Image)
                .where(Image.project_id == project_id, Image.is_validation.is_not(None))
            )
            image.is_validation = (assigned or 0) % 5 == 4


def _region_label(
    label: Label, annotation: Annotation, crop_task: CropTask | None, strategy: str | None
) -> RegionLabel:
    version = annotation.suggested_version
    number = None if version is None else version + 1  # on whole images a version is a round
    if crop_task is not None:
        version, number, strategy = crop_task.version, crop_task.round, crop_task.strategy
    return RegionLabel(
        id=label.id,
        image_id=label.image_id,
        region=label.region,
        is_skipped=label.is_skipped,
        mask_key=label.mask_key,
        pixels=tuple(label.pixels),
        annotator=annotation.annotator,
        created_at=annotation.created_at,
        updated_at=annotation.updated_at,
        lead_time_s=annotation.lead_time_s,
        round=number,
        strategy=strategy,
        version=version,
    )
