"""What is known of each labelling project, kept in a database and a folder of files.

Every change is one short transaction, so that a kill at any moment leaves a whole state. Rows
that leave a method are detached: read them freely, change them through the store.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, and_, create_engine, event, func, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, sessionmaker

from ralis_backend.core.images import mask_from_png, mask_to_png
from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.store.blobs import BlobStore
from ralis_backend.online.store.tables import (
    Annotation,
    CropTask,
    Event,
    Image,
    Label,
    Project,
    Ranking,
    Suggestion,
    Version,
)
from ralis_backend.online.tool import ClassLabel, ToolAnnotation, ToolTask

_MIGRATIONS = Path(__file__).parent / "migrations"


def now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class RegionLabel:
    """A labelled region with where it came from.

    `pixels` counts labelled pixels per class; `round`, `strategy` and `version` are None for
    labels that were not suggested (whole-image annotations).
    """

    id: int
    image_id: int
    region: Region
    is_skipped: bool
    mask_key: str | None
    pixels: tuple[int, ...]
    annotator: str
    created_at: datetime
    updated_at: datetime
    lead_time_s: float | None
    round: int | None
    strategy: str | None
    version: int | None


@dataclass(frozen=True)
class NewLabel:
    """A region read from an annotation; `mask` is (height, width) uint8, None for a skip."""

    region: Region
    mask: np.ndarray | None


class ProjectStore:
    """Projects, images, annotations, labels, versions, rankings and crop tasks."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self.blobs = blobs
        self._engine = engine
        self._reading = sessionmaker(engine, expire_on_commit=False)
        writing = engine.execution_options(immediate=True)
        self._writing = sessionmaker(writing, expire_on_commit=False)

    @classmethod
    def open(cls, database_url: str, root: Path) -> ProjectStore:
        """Connect, and bring the tables up to date.

        Args:
            database_url: a SQLAlchemy address, for example `sqlite:///ralis.db`.
            root: the folder for masks and weights; made if missing.
        """
        root.mkdir(parents=True, exist_ok=True)
        engine = create_engine(database_url, pool_pre_ping=True)
        if engine.dialect.name == "sqlite":
            _configure_sqlite(engine)
        _migrate(engine)
        return cls(engine, BlobStore(root))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that changes nothing."""
        with self._reading() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed as a whole, or not at all."""
        with self._writing.begin() as session:
            yield session

    # Projects

    def projects(self) -> list[Project]:
        """All projects that still exist, oldest first."""
        with self.read() as session:
            found = session.scalars(select(Project).where(~Project.is_deleted).order_by(Project.id))
            return list(found)

    def find_project(self, uid: str) -> Project | None:
        """The project whose pool or regions project has this uid."""
        with self.read() as session:
            return session.scalars(
                select(Project).where(or_(Project.uid == uid, Project.regions_uid == uid))
            ).first()

    def project(self, uid: str) -> Project:
        """As `find_project`; `ValueError` if there is none."""
        found = self.find_project(uid)
        if found is None:
            known = ", ".join(project.uid for project in self.projects()) or "none"
            raise ValueError(
                f"project {uid} is not known here (known: {known}); connect the backend to it in "
                "Label Studio, or run `ralis connect --project ID`"
            )
        return found

    def project_by_tool_id(self, tool_id: int) -> Project:
        """The newest project with this id in the labelling tool; `ValueError` if there is none."""
        with self.read() as session:
            found = session.scalars(
                select(Project)
                .where(or_(Project.tool_id == tool_id, Project.regions_tool_id == tool_id))
                .order_by(Project.is_deleted, Project.id.desc())
            ).first()
        if found is None:
            raise ValueError(
                f"project {tool_id} is not known here; run `ralis connect --project {tool_id}`"
            )
        return found

    def register(
        self, uid: str, tool_id: int, label_config: str, classes: Sequence[ClassLabel], title: str
    ) -> Project:
        """Make the project known, or bring its labels up to date.

        New labels get new class indices. A label that is gone keeps its index, so that masks
        stay valid, and is not offered any more.
        """
        with self.write() as session:
            project = session.scalars(select(Project).where(Project.uid == uid)).first()
            if project is None:
                project = Project(uid=uid, tool_id=tool_id)
                session.add(project)
            project.title = title or project.title
            project.is_deleted = False
            if label_config and (project.label_config != label_config or not project.classes):
                project.label_config = label_config
                project.classes = _merge_classes(project.classes or [], classes)
                project.is_sync_requested = True
                project.is_prepared = False
            session.flush()
            return project

    def change_project(self, project_id: int, **values: Any) -> Project:
        """Set columns of a project and return it."""
        with self.write() as session:
            project = session.get_one(Project, project_id)
            for name, value in values.items():
                setattr(project, name, value)
            return project

    # Leases: two workers never advance the same project

    def acquire_lease(self, project_id: int, owner: str, seconds: float) -> bool:
        """Take or extend the lease; False if another worker holds it."""
        with self.write() as session:
            taken = session.execute(
                update(Project)
                .where(
                    Project.id == project_id,
                    or_(
                        Project.lease_owner.is_(None),
                        Project.lease_owner == owner,
                        Project.lease_until < now(),
                    ),
                )
                .values(lease_owner=owner, lease_until=now() + timedelta(seconds=seconds))
            )
            return bool(taken.rowcount == 1)  # type: ignore[attr-defined]

    def release_lease(self, project_id: int, owner: str) -> None:
        """Give the lease back, if it is still ours."""
        with self.write() as session:
            session.execute(
                update(Project)
                .where(Project.id == project_id, Project.lease_owner == owner)
                .values(lease_owner=None, lease_until=None)
            )

    # Events: webhooks, kept until the worker has read them

    def add_event(self, tool_uid: str, action: str, payload: Mapping[str, Any]) -> None:
        """Store a webhook as it came."""
        row = Event(tool_uid=tool_uid, action=action, payload=_pack(payload), received_at=now())
        with self.write() as session:
            session.add(row)

    def events(self, project: Project, limit: int = 100) -> list[Event]:
        """The oldest unread events of a project and its regions project."""
        with self.read() as session:
            return list(
                session.scalars(
                    select(Event)
                    .where(Event.tool_uid.in_(_uids(project)))
                    .order_by(Event.id)
                    .limit(limit)
                )
            )

    def drop_event(self, event_id: int) -> None:
        """Forget an event that has been read."""
        with self.write() as session:
            row = session.get(Event, event_id)
            if row is not None:
                session.delete(row)

    # Images

    def images(self, project_id: int, with_deleted: bool = False) -> list[Image]:
        """The images of a project, in the order of its tasks."""
        query = select(Image).where(Image.project_id == project_id)
        if not with_deleted:
            query = query.where(~Image.is_deleted)
        with self.read() as session:
            return list(session.scalars(query.order_by(Image.id)))

    def image(self, image_id: int) -> Image:
        """One image by its row id."""
        with self.read() as session:
            return session.get_one(Image, image_id)

    def find_image(
        self, project_id: int, task_id: int, task_created_at: datetime | None = None
    ) -> Image | None:
        """The image of a task; without a creation time the newest with that id."""
        query = select(Image).where(Image.project_id == project_id, Image.task_id == task_id)
        if task_created_at is not None:
            query = query.where(Image.task_created_at == task_created_at)
        with self.read() as session:
            return session.scalars(query.order_by(Image.is_deleted, Image.id.desc())).first()

    def reconcile_images(self, project_id: int, tasks: Sequence[ToolTask]) -> None:
        """Make the project's images equal to the tasks; images that are gone are marked so."""
        with self.write() as session:
            rows = session.scalars(select(Image).where(Image.project_id == project_id))
            known = {(row.task_id, row.task_created_at): row for row in rows}
            for task in tasks:
                row = known.pop((task.id, task.created_at), None)
                if row is None:
                    session.add(
                        Image(
                            project_id=project_id,
                            task_id=task.id,
                            task_created_at=task.created_at,
                            ref=task.image,
                            error=None if task.image else "the task has no image",
                        )
                    )
                elif row.ref != task.image or row.is_deleted:
                    row.ref, row.is_deleted, row.error = task.image, False, None
                    row.height = row.width = None
            for row in known.values():
                row.is_deleted = True

    def change_image(self, image_id: int, **values: Any) -> None:
        """Set columns of an image."""
        with self.write() as session:
            row = session.get_one(Image, image_id)
            for name, value in values.items():
                setattr(row, name, value)

    # Annotations and the labels read from them

    def put_annotation(
        self,
        project: Project,
        tool_uid: str,
        annotation: ToolAnnotation,
        image: Image | None,
        crop_task: CropTask | None,
    ) -> Annotation | None:
        """Store an annotation as the tool has it.

        Returns:
            The row if its labels must be read (again); None if nothing changed or a newer state
            of it is stored already.
        """
        payload = _pack(annotation_to_json(annotation))
        # Events and the API tell the rest of it (names, times) in different words.
        painted = _pack([annotation.is_skipped, list(annotation.results)])
        digest = hashlib.sha256(painted).hexdigest()
        with self.write() as session:
            row = session.scalars(
                select(Annotation).where(
                    Annotation.tool_uid == tool_uid,
                    Annotation.annotation_id == annotation.id,
                    Annotation.created_at == annotation.created_at,
                )
            ).first()
            if row is None:
                row = Annotation(
                    project_id=project.id,
                    tool_uid=tool_uid,
                    annotation_id=annotation.id,
                    created_at=annotation.created_at,
                    digest="",
                )
                session.add(row)
            elif row.updated_at > annotation.updated_at:
                return None
            is_same = row.digest == digest and row.image_id is not None and not row.is_deleted
            row.seen_at = now()
            row.task_id = annotation.task_id
            row.image_id = image.id if image else row.image_id
            row.crop_task_id = crop_task.id if crop_task else row.crop_task_id
            row.annotator = annotation.annotator
            row.updated_at = annotation.updated_at
            row.lead_time_s = annotation.lead_time_s
            row.suggested_version = version_number(annotation.suggested_version)
            if is_same and row.error is None:
                return None
            row.is_skipped = annotation.is_skipped
            row.is_deleted = False
            row.digest, row.payload = digest, payload
            session.flush()
            return row

    def put_labels(self, annotation: Annotation, labels: Sequence[NewLabel]) -> None:
        """Replace what was read from an annotation; masks are written before the rows."""
        rows = [self._label_row(annotation, label) for label in labels]
        with self.write() as session:
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

    def fail_annotation(self, annotation: Annotation, message: str) -> None:
        """Note that an annotation could not be read; it stays stored and is tried again."""
        with self.write() as session:
            session.get_one(Annotation, annotation.id).error = message

    def failed_annotations(self, project_id: int) -> list[Annotation]:
        """Annotations that could not be read so far."""
        with self.read() as session:
            return list(
                session.scalars(
                    select(Annotation).where(
                        Annotation.project_id == project_id,
                        Annotation.error.is_not(None),
                        ~Annotation.is_deleted,
                    )
                )
            )

    def withdraw_annotations(self, tool_uid: str, annotation_ids: Sequence[int]) -> None:
        """An annotator deleted these: their labels do not count any more; the rows are kept."""
        with self.write() as session:
            for annotation_id in annotation_ids:
                row = session.scalars(
                    select(Annotation)
                    .where(
                        Annotation.tool_uid == tool_uid, Annotation.annotation_id == annotation_id
                    )
                    .order_by(Annotation.id.desc())
                ).first()
                if row is not None:
                    _withdraw(session, row)

    def withdraw_unseen(self, tool_uid: str, since: datetime, task_ids: Sequence[int]) -> None:
        """After a full reading that began at `since`: what it did not see was deleted.

        Only where the task still exists: when a task or a whole project vanishes, its labels
        are kept.
        """
        existing = set(task_ids)
        with self.write() as session:
            for row in session.scalars(
                select(Annotation).where(
                    Annotation.tool_uid == tool_uid,
                    Annotation.seen_at < since,
                    ~Annotation.is_deleted,
                )
            ):
                if row.task_id in existing:
                    _withdraw(session, row)

    def labels(self, project_id: int, with_superseded: bool = False) -> list[RegionLabel]:
        """The labelled (and skipped) regions of images that still exist, oldest first.

        Where several annotations label the same region, the newest painted one counts;
        `with_superseded` gives all of them.
        """
        with self.read() as session:
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
        labels = [_region_label(*row) for row in rows]
        return labels if with_superseded else _newest(labels)

    def label_mask(self, label: RegionLabel) -> np.ndarray:
        """The (height, width) uint8 mask of a labelled region, VOID where nothing was painted."""
        if label.mask_key is None:
            return np.full((label.region.height, label.region.width), VOID, np.uint8)
        return mask_from_png(self.blobs.get(label.mask_key))

    def image_mask(self, image_size: tuple[int, int], labels: Sequence[RegionLabel]) -> np.ndarray:
        """One image's labels as one (H, W) uint8 mask.

        Regions may overlap: a pixel labelled once stays labelled, and the newest label wins.
        """
        mask = np.full(image_size, VOID, np.uint8)
        for label in labels:
            patch = self.label_mask(label)
            target = mask[label.region.slices]
            np.copyto(target, patch, where=patch != VOID)
        return mask

    # Crop tasks

    def crop_tasks(self, project_id: int, state: str | None = "open") -> list[CropTask]:
        """The crop tasks in a state (None: all), most useful first."""
        query = select(CropTask).where(CropTask.project_id == project_id)
        if state is not None:
            query = query.where(CropTask.state == state)
        with self.read() as session:
            return list(session.scalars(query.order_by(CropTask.round, CropTask.rank, CropTask.id)))

    def crop_task(self, row_id: int) -> CropTask:
        """One crop task by its row id."""
        with self.read() as session:
            return session.get_one(CropTask, row_id)

    def find_crop_task(
        self, project_id: int, task_id: int, created_at: datetime | None = None
    ) -> CropTask | None:
        """The crop task behind a task id; without a creation time the newest with that id."""
        query = select(CropTask).where(
            CropTask.project_id == project_id, CropTask.task_id == task_id
        )
        if created_at is not None:
            query = query.where(CropTask.task_created_at == created_at)
        with self.read() as session:
            return session.scalars(query.order_by(CropTask.id.desc())).first()

    def add_crop_tasks(self, rows: Sequence[CropTask]) -> None:
        """Plan crop tasks: stored before they are made, so that none is made twice."""
        with self.write() as session:
            session.add_all(rows)

    def change_crop_tasks(self, changes: Mapping[int, Mapping[str, Any]]) -> None:
        """Set columns of crop tasks, by row id."""
        with self.write() as session:
            for row_id, values in changes.items():
                row = session.get_one(CropTask, row_id)
                for name, value in values.items():
                    setattr(row, name, value)

    # Versions and rankings

    def versions(self, project_id: int) -> list[Version]:
        """All versions, oldest first."""
        with self.read() as session:
            return list(
                session.scalars(
                    select(Version).where(Version.project_id == project_id).order_by(Version.number)
                )
            )

    def version(self, project_id: int, number: int) -> Version | None:
        """One version by its number."""
        with self.read() as session:
            return session.scalars(
                select(Version).where(Version.project_id == project_id, Version.number == number)
            ).first()

    def serving_version(self, project: Project) -> Version | None:
        """The version that answers: the one in use, or the one before until that is ranked."""
        with self.read() as session:
            ranked = list(
                session.scalars(
                    select(Version)
                    .where(Version.project_id == project.id, Version.ranked_at.is_not(None))
                    .order_by(Version.number)
                )
            )
        in_use = [version for version in ranked if version.number == project.current_version]
        if in_use or ranked:
            return (in_use or ranked)[-1]
        return self.version(project.id, project.current_version)

    def add_version(self, version: Version, **project_values: Any) -> Version:
        """Store a version and set columns of its project, together."""
        with self.write() as session:
            session.add(version)
            project = session.get_one(Project, version.project_id)
            for name, value in project_values.items():
                setattr(project, name, value)
            session.flush()
            return version

    def change_version(self, version_id: int, **values: Any) -> None:
        """Set columns of a version; `metrics` is merged into what is there."""
        with self.write() as session:
            row = session.get_one(Version, version_id)
            metrics = values.pop("metrics", None)
            if metrics:
                row.metrics = {**row.metrics, **metrics}
            for name, value in values.items():
                setattr(row, name, value)

    def put_predicted_mask(self, version: Version, image_id: int, mask: np.ndarray) -> str:
        """Keep an image's predicted mask, (H, W) uint8, as long as the ranking; its key."""
        return self.blobs.put(f"rankings/{version.id}/{image_id}.png", mask_to_png(mask))

    def put_ranking(
        self,
        version: Version,
        image_id: int,
        scores: np.ndarray,
        reasons: Sequence[str],
        mask_key: str | None,
    ) -> None:
        """Store one image's scores, (R,) float32."""
        with self.write() as session:
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

    def rankings(self, version_id: int) -> dict[int, Ranking]:
        """The rankings of a version by image id."""
        with self.read() as session:
            rows = session.scalars(select(Ranking).where(Ranking.version_id == version_id))
            return {row.image_id: row for row in rows}

    def ranking(self, version_id: int, image_id: int) -> Ranking | None:
        """One image's ranking under a version."""
        with self.read() as session:
            return session.scalars(
                select(Ranking).where(
                    Ranking.version_id == version_id, Ranking.image_id == image_id
                )
            ).first()

    def drop_rankings(self, version_id: int) -> None:
        """Forget a version's ranking and predicted masks; they can be computed again."""
        with self.write() as session:
            for row in session.scalars(select(Ranking).where(Ranking.version_id == version_id)):
                session.delete(row)
            version = session.get_one(Version, version_id)
            version.ranked_at = None
        self.blobs.delete_folder(f"rankings/{version_id}")

    # Suggestions on whole images

    def suggestion(self, image_id: int, version: int) -> Suggestion | None:
        """The regions that were handed out for an image under a version."""
        with self.read() as session:
            return session.scalars(
                select(Suggestion).where(
                    Suggestion.image_id == image_id, Suggestion.version == version
                )
            ).first()

    def keep_suggestion(self, image_id: int, version: int, regions: list[Any]) -> list[Any]:
        """Remember what is handed out; if another request was first, its regions."""
        with self.write() as session:
            row = session.scalars(
                select(Suggestion).where(
                    Suggestion.image_id == image_id, Suggestion.version == version
                )
            ).first()
            if row is None:
                row = Suggestion(image_id=image_id, version=version, regions=regions)
                session.add(row)
            return list(row.regions)

    def count_labels(self, project_id: int, since_id: int = 0) -> int:
        """Number of painted labels with a larger id, of images that still exist."""
        with self.read() as session:
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

    def newest_label_id(self, project_id: int) -> int:
        """The id of the newest label that counts, 0 without any."""
        with self.read() as session:
            newest = session.scalar(
                select(func.max(Label.id))
                .join(Annotation, Annotation.id == Label.annotation_row_id)
                .where(Label.project_id == project_id, ~Annotation.is_deleted)
            )
            return newest or 0

    # Private

    def _label_row(self, annotation: Annotation, label: NewLabel) -> Label:
        key, pixels = None, []
        if label.mask is not None:
            content = mask_to_png(label.mask)
            digest = hashlib.sha256(content).hexdigest()
            key = f"labels/{digest[:2]}/{digest}.png"
            if not self.blobs.path(key).exists():
                self.blobs.put(key, content)
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


def version_number(name: str | None) -> int | None:
    """3 of `v3`; None for names that are not ours."""
    digits = (name or "").removeprefix("v")
    return int(digits) if digits.isdecimal() else None


def annotation_to_json(annotation: ToolAnnotation) -> dict[str, Any]:
    """An annotation as JSON values; the inverse of `annotation_from_json`."""
    return {
        "id": annotation.id,
        "task_id": annotation.task_id,
        "task_created_at": _isoformat(annotation.task_created_at),
        "annotator": annotation.annotator,
        "created_at": annotation.created_at.isoformat(),
        "updated_at": annotation.updated_at.isoformat(),
        "lead_time_s": annotation.lead_time_s,
        "is_skipped": annotation.is_skipped,
        "results": list(annotation.results),
        "suggested_version": annotation.suggested_version,
    }


def annotation_from_json(values: Mapping[str, Any]) -> ToolAnnotation:
    """The annotation that `annotation_to_json` wrote."""
    task_created_at = values["task_created_at"]
    return ToolAnnotation(
        **{
            **values,
            "task_created_at": task_created_at and datetime.fromisoformat(task_created_at),
            "created_at": datetime.fromisoformat(values["created_at"]),
            "updated_at": datetime.fromisoformat(values["updated_at"]),
        }
    )


def unpack(payload: bytes) -> Any:
    """The JSON value of a stored payload."""
    return json.loads(gzip.decompress(payload))


def _pack(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=1, mtime=0)


def _isoformat(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _uids(project: Project) -> list[str]:
    return [uid for uid in (project.uid, project.regions_uid) if uid]


def _merge_classes(known: Sequence[Any], classes: Sequence[ClassLabel]) -> list[Any]:
    colors = {label.name: label.color for label in classes}
    merged = [
        {
            "name": entry["name"],
            "color": colors.get(entry["name"], entry["color"]),
            "is_active": entry["name"] in colors,
        }
        for entry in known
    ]
    names = {entry["name"] for entry in known}
    merged += [
        {"name": label.name, "color": label.color, "is_active": True}
        for label in classes
        if label.name not in names
    ]
    if len(merged) > VOID:
        raise ValueError(f"the project has had {len(merged)} labels, at most {VOID} are possible")
    return merged


def _withdraw(session: Session, annotation: Annotation) -> None:
    annotation.is_deleted = True
    if annotation.crop_task_id is None:
        return
    others = session.scalar(
        select(func.count())
        .select_from(Annotation)
        .where(
            Annotation.crop_task_id == annotation.crop_task_id,
            Annotation.id != annotation.id,
            ~Annotation.is_deleted,
        )
    )
    crop_task = session.get_one(CropTask, annotation.crop_task_id)
    if not others and crop_task.state == "done":
        crop_task.state = "open"


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


def _newest(labels: Sequence[RegionLabel]) -> list[RegionLabel]:
    """The newest label of each region; a painted one is never hidden by a later skip."""
    chosen: dict[tuple[int, Region], RegionLabel] = {}
    for label in labels:
        key = (label.image_id, label.region)
        if label.is_skipped and key in chosen and not chosen[key].is_skipped:
            continue
        chosen.pop(key, None)
        chosen[key] = label
    return list(chosen.values())


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `_begin` says
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that will write says so at once: upgrading a read lock later can fail.
        is_write = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.execution_options(immediate=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
