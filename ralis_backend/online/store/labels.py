"""The labelled regions that were read from annotations, and their masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    not_,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from ralis_backend.core.images import mask_from_png, mask_to_png
from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.labels import CLOSING_SHARE, NewLabel, RegionLabel, newest
from ralis_backend.online.left_out import bounded
from ralis_backend.online.store.answers import replace_answers
from ralis_backend.online.store.blobs import BlobStore
from ralis_backend.online.store.database import Database
from ralis_backend.online.store.sides import side_of_content
from ralis_backend.online.store.tables import (
    Annotation,
    CropTask,
    Image,
    Label,
    Project,
    Suggestion,
    Version,
    removed_of,
)

_REGION = (Label.row, Label.col, Label.height, Label.width)
_LABEL = (
    Label.id,
    Label.annotation_row_id,
    Label.image_id,
    *_REGION,
    Label.is_skipped,
    Label.is_disputed,
    Label.share_beside,
    Label.first_id,
    Label.mask_key,
    Label.pixels,
)
_SOURCE = (
    Annotation.annotator,
    Annotation.is_starred,
    Annotation.created_at,
    Annotation.updated_at,
    Annotation.lead_time_s,
    Annotation.suggested_version,
    Annotation.begun_from,
    Annotation.crop_task_id,
    CropTask.version.label("crop_version"),
    CropTask.round.label("crop_round"),
    CropTask.strategy.label("crop_strategy"),
    CropTask.wish_id.label("crop_wish"),
    Suggestion.regions.label("suggested"),
    Version.strategy.label("version_strategy"),
)
_Query = TypeVar("_Query", bound=Select)


class Labels:
    """Labelled regions by project; their masks lie in files."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def put(
        self,
        annotation: Annotation,
        labels: Sequence[NewLabel],
        answers: Mapping[str, Any],
        left_out: Sequence[str] = (),
        meaning: int | None = None,
    ) -> None:
        """Replace what was read from an annotation; masks are written before the rows.

        Labels that are as they were keep their ids and the time at which they were painted:
        nothing new was. So do those keep that time which come out otherwise though nobody painted
        in their region: the annotation is as it was, or what was drawn in there is. Labels that
        take the place of others remember the oldest of their region, and those that are only read
        otherwise the oldest of their annotation, so that they do not count as new. An annotation
        that was stored anew or moved meanwhile stays as one that has to be read, and so does one
        that was read with what its project does not mean any more.

        Args:
            annotation: as it was read.
            labels: of its regions.
            answers: by kind.
            left_out: what of it does not count.
            meaning: the project's `meaning` that it was read with; None: whatever it is.
        """
        rows = [self._label_row(annotation, label) for label in labels]
        with self._database.write() as session:
            if meaning is not None and meaning != _meaning(session, annotation.project_id):
                return
            stored = session.get_one(Annotation, annotation.id)
            if _what_was_read(stored) != _what_was_read(annotation):
                return
            stored.error, stored.left_out = None, bounded(left_out) or None
            _replace_labels(session, stored, rows)
            stored.is_repainted = False
            replace_answers(session, stored, answers)
            if stored.crop_task_id is not None:
                session.get_one(CropTask, stored.crop_task_id).state = "done"
            _assign_split(session, stored, rows)

    def put_unread(
        self, annotation: Annotation, region: Region, answers: Mapping[str, Any], error: str
    ) -> None:
        """The region that an annotation was asked for is done, though it cannot be read.

        It is tried again; until it can be read, nobody is asked for the region, and the queue
        goes on. Labels that were read from it before are kept.
        """
        with self._database.write() as session:
            stored = session.get_one(Annotation, annotation.id)
            if _what_was_read(stored) != _what_was_read(annotation):
                return
            stored.error = error
            replace_answers(session, stored, answers)
            query = select(Label.id).where(Label.annotation_row_id == annotation.id)
            if session.scalars(query.limit(1)).first() is None:
                session.add(self._label_row(annotation, NewLabel(region, None)))
            if stored.crop_task_id is not None:
                session.get_one(CropTask, stored.crop_task_id).state = "done"

    def of(self, project_id: int) -> list[RegionLabel]:
        """The labelled (and skipped) regions of images that still exist, as `newest` orders them.

        Where several annotations label the same region, the starred one counts, else the newest
        painted one that is not disputed and of which a class is left. What was made from
        predictions in bulk counts for nothing.
        """
        return newest(self.every(project_id), self._removed_classes(Project.id == project_id))

    def of_image(self, image_id: int) -> list[RegionLabel]:
        """As `of`, of one image."""
        of_image = select(Image.project_id).where(Image.id == image_id).scalar_subquery()
        removed = self._removed_classes(Project.id == of_image)
        return newest(self._select(Label.image_id == image_id), removed)

    def mined(self, project_id: int, wish_id: int) -> list[RegionLabel]:
        """As `of`, those that were mined for a wish."""
        suggested = cast(Suggestion.regions, Text).like(f'%"wish": {wish_id}%')
        may_be = or_(CropTask.wish_id == wish_id, suggested)
        found = self._select(and_(Label.project_id == project_id, may_be))
        found = newest(found, self._removed_classes(Project.id == project_id))
        return [label for label in found if label.wish_id == wish_id]

    def every(self, project_id: int) -> list[RegionLabel]:
        """As `of`, with the labels that newer ones of the same region supersede."""
        return self._select(Label.project_id == project_id)

    def class_pixels(self, project_id: int, index: int) -> int:
        """Labelled pixels of a class in the labels that `of` gives; counted by the database."""
        is_doubtful = self._doubtful_last(project_id)
        is_as_asked = or_(Label.share_beside.is_(None), and_(Annotation.is_starred, _is_closing()))
        is_said = or_(Annotation.is_starred, and_(~Label.is_skipped, is_doubtful == 0))
        best_first = (
            case((~is_as_asked, 1), (is_said, 2), else_=0).desc(),
            Annotation.is_starred.desc(),
            Label.is_skipped,
            is_doubtful,
            Label.painted_at.desc(),
            Label.id.desc(),
        )

        def num_above(which: ColumnElement[bool]) -> ColumnElement[int]:
            found = func.sum(case((which, 1), else_=0)).over(
                partition_by=(Label.image_id, *_REGION), order_by=best_first, rows=(None, -1)
            )
            return func.coalesce(found, 0)

        num_hiding = case(
            (_is_closing(), num_above(_is_closing())), else_=num_above(Label.is_skipped.is_(True))
        )
        counting = _counting(select(_pixels_of(index).label("pixels"), num_hiding.label("hiding")))
        every = counting.where(Label.project_id == project_id).subquery()
        query = select(func.sum(every.c.pixels)).where(every.c.hiding == 0)
        with self._database.read() as session:
            return int(session.scalar(query) or 0)

    def shared_regions(self, project_id: int) -> list[int]:
        """How many regions several people painted, and the newest label of them: [0, 0] of none."""
        regions = _shared(project_id).subquery()
        query = select(func.count(), func.coalesce(func.max(regions.c.newest), 0))
        with self._database.read() as session:
            return list(session.execute(query.select_from(regions)).one())

    def shared(self, project_id: int, most: int) -> list[RegionLabel]:
        """The painted labels of the newest `most` regions that several people painted."""
        regions = _shared(project_id).order_by(func.max(Label.id).desc()).limit(most).subquery()
        same = [regions.c[column.key] == column for column in (Label.image_id, *_REGION)]
        is_in = select(regions.c.newest).where(*same).exists()
        return self._select(and_(Label.project_id == project_id, ~Label.is_skipped, is_in))

    def count(self, project_id: int, since_id: int = 0, most: int | None = None) -> int:
        """Number of regions with a painted label of a larger id, in images that still exist.

        A region counts once, however many people painted it. `most`: where more than that does not
        matter; so many are found, and no more.
        """
        query = _counting(select(Label.image_id, *_REGION).distinct())
        is_new = Label.id > since_id
        query = query.where(
            Label.project_id == project_id, is_new, ~Label.is_skipped, _is_closing()
        )
        found = query.limit(most).subquery()
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(found)) or 0

    def count_regions(self, project_id: int) -> int:
        """Number of painted regions, as often as they were painted."""
        regions = _painted_regions(project_id).subquery()
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(regions)) or 0

    def first_ids(self, project_id: int) -> list[int]:
        """Of each painted region the id of its oldest label that counts, or was one of these."""
        region, first = (Label.image_id, *_REGION), func.coalesce(Label.first_id, Label.id)
        query = _counting(select(func.min(first))).group_by(*region)
        query = query.where(Label.project_id == project_id, ~Label.is_skipped, _is_closing())
        with self._database.read() as session:
            return list(session.scalars(query))

    def held_out(self, project_id: int) -> list[tuple[Image, int]]:
        """The images that are held out, each with how many of its regions count as labelled."""
        regions = _painted_regions(project_id).subquery()
        counts = select(regions.c.image_id, func.count().label("count"))
        of_image = counts.group_by(regions.c.image_id).subquery()
        query = (
            select(Image, of_image.c.count)
            .join(of_image, of_image.c.image_id == Image.id)
            .where(Image.is_validation.is_(True))
        )
        with self._database.read() as session:
            return [(row[0], row[1]) for row in session.execute(query.order_by(Image.id))]

    def area(self, project_id: int) -> int:
        """Pixels of the painted regions, those that regions share as often as they do."""
        regions = _painted_regions(project_id).subquery()
        query = select(func.sum(regions.c.height * regions.c.width))
        with self._database.read() as session:
            return int(session.scalar(query) or 0)

    def newest_id(self, project_id: int) -> int:
        """The id of the newest label that counts, 0 without any."""
        with self._database.read() as session:
            newest_id = session.scalar(
                select(Label.id)
                .join(Annotation, Annotation.id == Label.annotation_row_id)
                .where(Label.project_id == project_id, ~Annotation.is_deleted)
                .order_by(Label.id.desc())
                .limit(1)
            )
            return newest_id or 0

    def newest_painted_id(self, project_id: int) -> int:
        """The id of the newest painted label that counts, 0 without any."""
        query = _counting(select(Label.id)).where(Label.project_id == project_id, ~Label.is_skipped)
        with self._database.read() as session:
            return session.scalar(query.order_by(Label.id.desc()).limit(1)) or 0

    def count_of_gone_images(self, project_id: int) -> int:
        """How many regions people painted in images that are gone: they count for nothing.

        Regions of the regions project that another image shows are not among them: see `heirs`.
        """
        query = (
            select(Label.image_id, *_REGION)
            .join(Annotation, Annotation.id == Label.annotation_row_id)
            .join(Image, Image.id == Label.image_id)
            .where(Label.project_id == project_id, ~Label.is_skipped, Image.is_deleted)
            .where(~Annotation.is_deleted, ~Annotation.is_machine, _is_closing())
        )
        with self._database.read() as session:
            return (
                session.scalar(select(func.count()).select_from(query.distinct().subquery())) or 0
            )

    def mark(self, project_id: int) -> list[int]:
        """What changes whenever a label or skip comes or goes: how many count, the sum of ids."""
        query = _counting(select(func.count(Label.id), func.coalesce(func.sum(Label.id), 0)))
        with self._database.read() as session:
            found = session.execute(query.where(Label.project_id == project_id)).one()
            return [int(value) for value in found]

    def starred_ids(self, project_id: int) -> list[int]:
        """The labels that a reviewer has starred: a star moves without a label being made."""
        return self._ids(project_id, Annotation.is_starred)

    def disputed_ids(self, project_id: int) -> list[int]:
        """The labels of ticked regions: a tick comes and goes without a label being made, too."""
        return self._ids(project_id, Label.is_disputed)

    def mask(self, label: RegionLabel) -> np.ndarray:
        """The (height, width) uint8 mask of a labelled region, VOID where nothing was painted.

        Raises:
            ValueError: if its file is damaged, or holds the mask of another region.
            OSError: if it cannot be read; `FileNotFoundError` if there is none.
        """
        size = (label.region.height, label.region.width)
        if label.mask_key is None:
            return np.full(size, VOID, np.uint8)
        content = self._blobs.get(label.mask_key)
        if _mask_key(content) != label.mask_key:
            raise ValueError(
                f"the mask file {label.mask_key} is damaged: its content is not what was written"
            )
        mask = mask_from_png(content)
        if mask.shape != size:
            raise ValueError(
                f"the mask file {label.mask_key} has {mask.shape[0]} x {mask.shape[1]} pixels, "
                f"its region {size[0]} x {size[1]} (height x width)"
            )
        return mask

    def drop_damaged_mask(self, label: RegionLabel) -> None:
        """Delete a mask file that is not what was written, so that it is written again."""
        if label.mask_key is None:
            return
        try:
            is_whole = _mask_key(self._blobs.get(label.mask_key)) == label.mask_key
        except OSError:  # missing already, or unreadable now: what is in it may be good
            return
        if not is_whole:
            self._blobs.path(label.mask_key).unlink(missing_ok=True)

    def mask_keys(self) -> set[str]:
        """Where the masks of all projects' labels lie."""
        query = select(Label.mask_key).where(Label.mask_key.is_not(None)).distinct()
        with self._database.read() as session:
            return set(session.scalars(query))

    def image_mask(self, image_size: tuple[int, int], labels: Sequence[RegionLabel]) -> np.ndarray:
        """One image's labels as one (H, W) uint8 mask.

        Regions may overlap: a pixel labelled once stays labelled, and the later of the labels
        wins; see `newest` for their order.
        """
        mask = np.full(image_size, VOID, np.uint8)
        for label in labels:
            patch = self.mask(label)
            target = mask[label.region.slices]
            np.copyto(target, patch, where=patch != VOID)
        return mask

    def _select(self, condition: ColumnElement[bool]) -> list[RegionLabel]:
        query = (
            _counting(select(*_LABEL, *_SOURCE))
            .outerjoin(CropTask, CropTask.id == Annotation.crop_task_id)
            .outerjoin(
                Version,
                and_(
                    Version.project_id == Annotation.project_id,
                    Version.number == Annotation.suggested_version,
                ),
            )
            .outerjoin(
                Suggestion,
                and_(
                    Annotation.crop_task_id.is_(None),
                    Suggestion.image_id == Label.image_id,
                    Suggestion.version == Annotation.suggested_version,
                ),
            )
            .where(condition)
            .order_by(Annotation.is_starred, Label.painted_at, Label.id)
        )
        with self._database.read() as session:
            return [_region_label(row) for row in session.execute(query)]

    def _ids(self, project_id: int, which: InstrumentedAttribute[bool]) -> list[int]:
        query = _counting(select(Label.id)).where(Label.project_id == project_id, which)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Label.id)))

    def _removed_classes(self, which: ColumnElement[bool]) -> tuple[int, ...]:
        with self._database.read() as session:
            classes = session.scalar(select(Project.classes).where(which)) or []
        return removed_of(classes)

    def _doubtful_last(self, project_id: int) -> ColumnElement[int]:
        """Orders painted labels as `newest` does: disputed and emptied ones behind the others."""
        with self._database.read() as session:
            classes = session.scalar(select(Project.classes).where(Project.id == project_id)) or []
        removed = set(removed_of(classes))
        is_doubtful: list[tuple[ColumnElement[bool], int]] = [(and_(Label.is_disputed), 1)]
        if removed:
            active = set(range(len(classes))) - removed
            left = [_pixels_of(index) > 0 for index in sorted(active)]
            is_doubtful.append((not_(or_(false(), *left)), 1))
        return case(*is_doubtful, else_=0)

    def _label_row(self, annotation: Annotation, label: NewLabel) -> Label:
        key, pixels = None, []
        if label.mask is not None:
            content = mask_to_png(label.mask)
            key = self._blobs.have(_mask_key(content), content)
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
            is_disputed=label.is_disputed and label.mask is not None,
            share_beside=label.share_beside,
            painted_at=annotation.painted_at or annotation.updated_at,
            drawn_digest=label.drawn_digest,
            mask_key=key,
            pixels=pixels,
        )


def _pixels_of(index: int) -> ColumnElement[int]:
    """Labelled pixels of a class; a label counts no class beyond its last."""
    return func.coalesce(Label.pixels[index].as_integer(), 0)


def _what_was_read(annotation: Annotation) -> tuple[str, int | None, int | None]:
    return annotation.digest, annotation.image_id, annotation.crop_task_id


def _meaning(session: Session, project_id: int) -> int | None:
    """What labels are read with; nobody changes it before this transaction ends."""
    return session.scalar(select(Project.meaning).where(Project.id == project_id))


def _mask_key(content: bytes) -> str:
    """Where a mask file of this content lies: equal ones are kept once."""
    digest = hashlib.sha256(content).hexdigest()
    return f"labels/{digest[:2]}/{digest}.png"


def _replace_labels(session: Session, annotation: Annotation, rows: Sequence[Label]) -> None:
    """Write the labels of an annotation.

    What is only read in another way is as old as the oldest label of its annotation; else what is
    painted on as the oldest of its region, and what was a mere skip and is painted now is new.
    """
    of_annotation = Label.annotation_row_id == annotation.id
    is_reread = not annotation.is_repainted
    new = {_place(row): row for row in rows}
    known = session.scalars(select(Label).where(of_annotation)).all()
    if is_reread and known:
        oldest_id = min(row.first_id or row.id for row in known)
        for label in new.values():
            label.first_id = oldest_id
    for row in known:
        it = new.get(_place(row))
        if it is not None and it.mask_key == row.mask_key:
            row.is_disputed, row.drawn_digest = it.is_disputed, it.drawn_digest
            row.share_beside = it.share_beside
            del new[_place(row)]
            continue
        if it is not None:
            it.first_id = row.first_id or (row.id if is_reread or not row.is_skipped else None)
            if is_reread or row.drawn_digest == it.drawn_digest is not None:
                it.painted_at = row.painted_at
        session.delete(row)
    session.add_all(new.values())


def _place(row: Label) -> tuple[int, Region]:
    return row.image_id, row.region


def _assign_split(session: Session, annotation: Annotation, rows: Sequence[Label]) -> None:
    """Every fifth image that gets a label is kept out of training; decided once.

    The same picture in another task is on the same side.
    """
    if annotation.image_id is None or annotation.is_machine or all(it.is_skipped for it in rows):
        return
    image = session.get_one(Image, annotation.image_id)
    if image.is_validation is None:
        image.is_validation = side_of_content(session, image)
    if image.is_validation is None:
        assigned = session.scalar(
            select(func.count())
            .select_from(Image)
            .where(Image.project_id == annotation.project_id, Image.is_validation.is_not(None))
        )
        image.is_validation = (assigned or 0) % 5 == 4


def _counting(query: _Query) -> _Query:
    """The labels that count: people's, of annotations and images that still exist."""
    return (
        query.join(Annotation, Annotation.id == Label.annotation_row_id)
        .join(Image, Image.id == Label.image_id)
        .where(~Annotation.is_deleted, ~Annotation.is_machine, ~Image.is_deleted)
    )


def is_painted_in(session: Session, image_id: int, after: int, up_to: int) -> bool:
    """Whether an image has painted labels that count with ids in (after, up_to]."""
    painted = _counting(select(Label.id)).where(
        Label.image_id == image_id, Label.id > after, Label.id <= up_to, _is_painted()
    )
    return session.scalar(painted.limit(1)) is not None


def _painted_regions(project_id: int) -> Select:
    """The regions that count as labelled, each once."""
    regions = _counting(select(Label.image_id, *_REGION)).distinct()
    return regions.where(Label.project_id == project_id, _is_painted(), _is_closing())


def _shared(project_id: int) -> Select:
    """The regions that several people painted, each with the id of its newest label."""
    region = (Label.image_id, *_REGION)
    return (
        _counting(select(*region, func.max(Label.id).label("newest")))
        .where(Label.project_id == project_id, ~Label.is_skipped, _is_closing())
        .group_by(*region)
        .having(func.count(Annotation.annotator.distinct()) > 1)
    )


def _is_closing() -> ColumnElement[bool]:
    """See `RegionLabel.is_closing`."""
    return or_(Label.share_beside.is_(None), Label.share_beside > CLOSING_SHARE)


def _is_painted() -> ColumnElement[bool]:
    """Of a label with its annotation: it is painted, and no reviewer starred a skip instead."""
    skip, source = aliased(Label), aliased(Annotation)
    same_region = [getattr(skip, column.key) == column for column in (Label.image_id, *_REGION)]
    starred_skip = (
        select(skip.id)
        .join(source, source.id == skip.annotation_row_id)
        .where(*same_region, skip.is_skipped, source.is_starred, ~source.is_deleted)
    )
    return and_(~Label.is_skipped, or_(Annotation.is_starred, ~starred_skip.exists()))


def _region_label(row: Any) -> RegionLabel:
    region = Region(row.row, row.col, row.height, row.width)
    version, strategy = row.suggested_version, row.version_strategy
    if row.begun_from and not any(_lies_in(region, Region(*it)) for it in row.begun_from):
        version = strategy = None  # painted beside the regions that were suggested
    number = None if version is None else version + 1  # on whole images a version is a round
    suggested = _suggested(region, row.suggested or ())
    strategy, wish_id = suggested.get("strategy", strategy), suggested.get("wish")
    if row.crop_task_id is not None:
        version, number, strategy = row.crop_version, row.crop_round, row.crop_strategy
        wish_id = row.crop_wish
    return RegionLabel(
        id=row.id,
        oldest_id=row.first_id or row.id,
        annotation_row_id=row.annotation_row_id,
        image_id=row.image_id,
        region=region,
        is_skipped=row.is_skipped,
        is_disputed=row.is_disputed,
        share_beside=row.share_beside,
        mask_key=row.mask_key,
        pixels=tuple(row.pixels),
        annotator=row.annotator,
        created_at=row.created_at,
        updated_at=row.updated_at,
        lead_time_s=row.lead_time_s,
        round=number,
        strategy=strategy,
        version=version,
        is_starred=row.is_starred,
        wish_id=wish_id,
    )


def _lies_in(region: Region, other: Region) -> bool:
    """Whether no pixel of a region is outside of another one."""
    top, left = region.row - other.row, region.col - other.col
    below, right = top + region.height - other.height, left + region.width - other.width
    return min(top, left) >= 0 >= max(below, right)


def _suggested(region: Region, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What was said of a region when it was suggested on a whole image; empty if it was not."""
    place = asdict(region)
    return next((it for it in entries if place.items() <= it.items()), {})
