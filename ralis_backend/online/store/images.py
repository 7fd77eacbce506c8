"""The images of a project: the tasks of its pool."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session

from ralis_backend.core.text import reason_of
from ralis_backend.online.store.attempts import is_training_given_up
from ralis_backend.online.store.database import BATCH, Database, assign, now, parts
from ralis_backend.online.store.heirs import hand_on
from ralis_backend.online.store.labels import is_painted_in
from ralis_backend.online.store.left_out import UNREAD, read_again
from ralis_backend.online.store.sides import unite
from ralis_backend.online.store.tables import (
    LONGEST_PAUSE,
    UNREAL_PAUSE,
    Annotation,
    Image,
    Project,
    Ranking,
)
from ralis_backend.online.tool import ImageUnreachable, ToolTask

_KNOWN = (
    Image.id,
    Image.task_id,
    Image.task_created_at,
    Image.ref,
    Image.is_deleted,
    Image.error,
)
_NO_IMAGE = "the task has no image"
_FIRST_PAUSE = timedelta(minutes=1)
_OUTAGE_PAUSE = timedelta(minutes=5)
"""The least, of an image that its host did not deliver more than once."""
_SPREAD = 97
"""Files that are gone are often neighbours: the next one that is tried is another folder's."""
_OUTAGES_PER_PAUSE = 24
"""What has been away for a day is asked for every hour, and what is gone for good once a day."""


class Images:
    """Images by project and task."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, project_id: int) -> list[Image]:
        """The images of a project that still exist, in the order of its tasks."""
        query = select(Image).where(Image.project_id == project_id, ~Image.is_deleted)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Image.id)))

    def ever(self, project_id: int) -> list[Any]:
        """Id, task id, address and `is_deleted` of all images, oldest first, those gone as well."""
        query = select(*_KNOWN).where(Image.project_id == project_id)
        with self._database.read() as session:
            return list(session.execute(query.order_by(Image.id)))

    def get(self, image_id: int) -> Image:
        """One image by its row id."""
        with self._database.read() as session:
            return session.get_one(Image, image_id)

    def find(
        self, project_id: int, task_id: int, task_created_at: datetime | None = None
    ) -> Image | None:
        """The image of a task; without a creation time the newest with that id."""
        query = select(Image).where(Image.project_id == project_id, Image.task_id == task_id)
        if task_created_at is not None:
            query = query.where(Image.task_created_at == task_created_at)
        with self._database.read() as session:
            return session.scalars(query.order_by(Image.is_deleted, Image.id.desc())).first()

    def reconcile(self, project_id: int, tasks: Sequence[ToolTask]) -> None:
        """Make the project's images equal to the tasks; images that are gone are marked so."""
        self.note(project_id, tasks)
        self.mark_missing(project_id, {task.id for task in tasks})

    def note(self, project_id: int, tasks: Sequence[ToolTask]) -> None:
        """Make these tasks known as images; nothing is written where they are.

        An address may change without the image (signed ones do with each list): the size that is
        known stays until the file has been read again, and one that could not be read is due to be
        tried again at once; if it fails again, its pauses go on to grow. A task id belongs to one
        task at a time; of a task without a time nobody knows which it is, and what is known of its
        id stays.
        """
        tasks = [task for task in tasks if task.created_at is not None]
        listed = {(task.id, task.created_at): task for task in tasks}
        query = select(*_KNOWN).where(Image.project_id == project_id)
        rows: list[Any] = []
        with self._database.read() as session:
            for part in parts((task.id for task in tasks), BATCH):
                rows += session.execute(query.where(Image.task_id.in_(part)))
        known = {(row.task_id, row.task_created_at): row for row in rows}
        new = [_image(project_id, task) for key, task in listed.items() if key not in known]
        changes = {row.id: _change(row, listed.get(key)) for key, row in known.items()}
        changes = {row_id: values for row_id, values in changes.items() if values}
        if new or changes:
            with self._database.write() as session:
                session.add_all(new)
                for row_id, values in changes.items():
                    assign(session.get_one(Image, row_id), values)
                if any("is_deleted" in values for values in changes.values()):
                    session.flush()
                    _hand_on(session, project_id)

    def mark_missing(self, project_id: int, task_ids: Set[int]) -> None:
        """Mark the images of all other tasks as gone. They come back with their tasks.

        What is labelled in regions of theirs goes on in other tasks of the same pictures.
        """
        query = select(Image.id, Image.task_id).where(
            Image.project_id == project_id, ~Image.is_deleted
        )
        with self._database.read() as session:
            gone = [row.id for row in session.execute(query) if row.task_id not in task_ids]
        for part in parts(gone, BATCH):
            with self._database.write() as session:
                session.execute(update(Image).where(Image.id.in_(part)).values(is_deleted=True))
                _hand_on(session, project_id)
        if not gone:  # what an earlier release has left where it was
            with self._database.write() as session:
                _hand_on(session, project_id)

    def count(self, project_id: int) -> int:
        """How many images a project has."""
        query = select(func.count()).select_from(Image)
        with self._database.read() as session:
            found = query.where(Image.project_id == project_id, ~Image.is_deleted)
            return session.scalar(found) or 0

    def mark(self, project_id: int) -> list[int]:
        """What changes whenever an image becomes readable, or is no more: how many, sum of ids."""
        query = select(func.count(Image.id), func.coalesce(func.sum(Image.id), 0)).where(
            Image.project_id == project_id,
            ~Image.is_deleted,
            Image.error.is_(None),
            Image.height.is_not(None),
        )
        with self._database.read() as session:
            return [int(value) for value in session.execute(query).one()]

    def has_unranked(self, project_id: int, version_id: int) -> bool:
        """Whether there are images that may be readable and that a version has not ranked."""
        with self._database.read() as session:
            return session.scalar(_unranked(project_id, version_id).limit(1)) is not None

    def num_missed(self, project_id: int, version_id: int) -> int:
        """How many images can be read again that a version could not rank.

        Those that came since it has ranked have not failed: they wait for the next version.
        """
        missed = _unranked(project_id, version_id).where(Image.num_failures > 0).subquery()
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(missed)) or 0

    def of_tasks(self, project_id: int, task_ids: Collection[int]) -> dict[int, Image]:
        """The images that still exist of these tasks, by task id."""
        query = select(Image).where(Image.project_id == project_id, ~Image.is_deleted)
        found: dict[int, Image] = {}
        with self._database.read() as session:
            for part in parts(task_ids, BATCH):
                rows = session.scalars(query.where(Image.task_id.in_(part)))
                found.update((row.task_id, row) for row in rows)
        return found

    def sizes(self, image_ids: Collection[int]) -> dict[int, tuple[int, int] | None]:
        """(height, width) in pixels by row id; None until the image was read once."""
        query = select(Image)
        with self._database.read() as session:
            return {
                row.id: row.size
                for part in parts(image_ids, BATCH)
                for row in session.scalars(query.where(Image.id.in_(part)))
            }

    def known_tasks(self, project_id: int, task_ids: Collection[int]) -> set[int]:
        """Those of the tasks whose images still exist."""
        return set(self.of_tasks(project_id, task_ids))

    def fail(self, image_id: int, error: Exception) -> None:
        """Note that an image cannot be used; it is tried again later.

        Each time much later, unless it is only out of reach: that is its host's fault, and the
        pause grows with the outage. Where the host is down, so that the image was not asked for,
        what else is due of it is put off likewise: one image finds out whether it is back. Any
        other failure is an answer, as in `seen`.
        """
        with self._database.write() as session:
            row = session.get_one(Image, image_id)
            if isinstance(error, ImageUnreachable):
                pause = _note_unreachable(row, error)
            else:
                _note_answer(session, row)
                row.num_failures += 1
                pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 4 ** min(row.num_failures - 1, 6))
            row.error = reason_of(error)
            row.retry_at = now() + pause
            if isinstance(error, ImageUnreachable) and not error.was_asked:
                soon = now() + pause / 2  # so that they come to be due together, in one write
                is_due = Image.is_due(soon, now() + UNREAL_PAUSE)
                _put_others(session, row, is_due, row.retry_at)

    def to_try_again(self, project_id: int, moment: datetime, count: int) -> list[Image]:
        """At most `count` images whose pause after a failure is over at that moment.

        Those first that have failed least: what fails for good keeps no other from being asked for.
        """
        is_due = Image.is_due(moment, moment + UNREAL_PAUSE)
        query = (
            select(Image)
            .where(Image.project_id == project_id, ~Image.is_deleted, is_due)
            .order_by(Image.num_failures, Image.retry_at, Image.id % _SPREAD, Image.id)
        )
        with self._database.read() as session:
            return list(session.scalars(query.limit(count)))

    def bad(self, project_id: int) -> list[Image]:
        """The images that could not be read when they were tried last."""
        query = select(Image).where(
            Image.project_id == project_id, ~Image.is_deleted, Image.error.is_not(None)
        )
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Image.id)))

    def seen(self, image_id: int, size: tuple[int, int], content: str | None = None) -> None:
        """Note that an image of (height, width) pixels was read.

        Failures stay counted until a segmenter has described it too: one that it breaks on would
        else be tried every minute. Other images of a host that did not deliver it are due at once.

        Where another task shows the same pixels, both are on one side of training and validation
        from now on: in training if either was, since a version may have learned from it. Where it
        is of another size than before, what was left out of its annotations is read again. Where
        that other task is gone, what is labelled in its regions is this image's from now on. Where
        a training could not learn from its labels meanwhile, another one is due.

        Args:
            image_id: the image's row.
            size: (height, width) in pixels.
            content: what tells its pixels from others', `core.images.content_of`.
        """
        with self._database.write() as session:
            row = session.get_one(Image, image_id)
            if row.size not in (None, size):
                _read_again(session, row)
            row.height, row.width = size
            was_bad = row.error is not None
            _note_answer(session, row)
            row.error, row.retry_at = None, None
            if content is not None and content != row.content:
                row.content = content
                session.flush()
                unite(session, row)
                _hand_on(session, row.project_id, content)
            if was_bad and _was_left_out(session, row):
                session.get_one(Project, row.project_id).is_training_requested = True

    def note_trained(self, image_ids: Collection[int], label_id: int) -> None:
        """Note that a training has read these images when that label was the newest."""
        for part in parts(image_ids, BATCH):
            with self._database.write() as session:
                reading = update(Image).where(Image.id.in_(part))
                session.execute(reading.values(trained_label_id=label_id))

    def doubles(self, project_id: int) -> dict[int, int]:
        """Images whose pixels an earlier image shows as well: row id -> the earlier one's."""
        query = (
            select(Image.id, Image.content)
            .where(Image.project_id == project_id, ~Image.is_deleted, Image.content.is_not(None))
            .order_by(Image.id)
        )
        first: dict[str, int] = {}
        found: dict[int, int] = {}
        with self._database.read() as session:
            for row in session.execute(query):
                earlier = first.setdefault(row.content, row.id)
                if earlier != row.id:
                    found[row.id] = earlier
        return found

    def count_doubles(self, project_id: int) -> int:
        """How many images `doubles` would give."""
        query = select(func.count(Image.content) - func.count(Image.content.distinct()))
        with self._database.read() as session:
            found = query.where(Image.project_id == project_id, ~Image.is_deleted)
            return session.scalar(found) or 0

    def pixels(self, project_id: int) -> int:
        """Pixels of all images; those that were never read count as the mean of the others."""
        area = Image.height * Image.width
        query = select(func.count(), func.count(area), func.sum(area))
        with self._database.read() as session:
            found = query.where(Image.project_id == project_id, ~Image.is_deleted)
            total, known, pixels = session.execute(found).one()
        return round(int(pixels or 0) * total / known) if known else 0

    def change(self, image_id: int, **values: Any) -> None:
        """Set columns of an image."""
        with self._database.write() as session:
            assign(session.get_one(Image, image_id), values)


def _note_unreachable(row: Image, error: ImageUnreachable) -> timedelta:
    """Note that its host does not deliver an image, and whether it was asked; gives the pause.

    What was not asked for does not rest longer than its host's failing now is worth: that may have
    answered since the image failed, and a few of its files that are gone make it look down again.
    """
    moment = now()
    row.unreachable_since = min(row.unreachable_since or moment, moment)  # a clock was set back
    row.unreachable_host = error.host
    row.num_failures = max(1, row.num_failures + error.was_asked)
    has_failed_again = error.was_asked and row.num_failures > 1
    least = _OUTAGE_PAUSE if has_failed_again else _FIRST_PAUSE  # the others' turn comes before
    away = moment - row.unreachable_since
    if not error.was_asked and error.failing_s < away.total_seconds():
        away = timedelta(seconds=error.failing_s)
    return min(LONGEST_PAUSE, max(least, away / _OUTAGES_PER_PAUSE))


def _note_answer(session: Session, row: Image) -> None:
    """Where an image was out of reach, it is no more: of the tries meanwhile one stays counted."""
    if row.unreachable_since is not None:
        # What failed again and again, when others came, is gone for good: it keeps its pause.
        are_back = (Image.retry_at > now()) & (Image.num_failures <= 1)
        _put_others(session, row, are_back, now())
        row.unreachable_since, row.unreachable_host = None, None
        row.num_failures = min(1, row.num_failures)


def _put_others(
    session: Session, row: Image, which: ColumnElement[bool], retry_at: datetime
) -> None:
    """Those of the project's other images that the same host did not deliver are due then."""
    if row.unreachable_host is not None:
        others = update(Image).where(
            Image.project_id == row.project_id,
            Image.id != row.id,
            Image.unreachable_host == row.unreachable_host,
            which,
        )
        session.execute(others.values(retry_at=retry_at))


def _unranked(project_id: int, version_id: int) -> Select:
    ranked = select(Ranking.image_id).where(Ranking.version_id == version_id)
    return select(Image.id).where(
        Image.project_id == project_id,
        Image.id.not_in(ranked),
        ~Image.is_deleted,
        Image.error.is_(None),
    )


def _hand_on(session: Session, project_id: int, content: str | None = None) -> None:
    """As `hand_on`; a training is due where one had to do without these labels."""
    for heir in hand_on(session, project_id, content):
        if _was_left_out(session, heir):
            session.get_one(Project, project_id).is_training_requested = True


def _was_left_out(session: Session, image: Image) -> bool:
    """Whether a training could not learn from labels of this image, and none has since.

    What is held out teaches nothing. Not where training on the labels there are was given up: no
    image changes that.
    """
    if image.is_validation:
        return False
    project = session.get_one(Project, image.project_id)
    labels = (image.trained_label_id, project.trained_label_id)
    if not is_painted_in(session, image.id, *labels):
        return False
    return not is_training_given_up(session, project)


def _read_again(session: Session, image: Image) -> None:
    """What does not fit the size that was known may fit the one that it has."""
    odd = (Annotation.image_id == image.id, Annotation.left_out.is_not(None))
    if read_again(session, UNREAD, *odd):
        project = update(Project).where(Project.id == image.project_id)
        session.execute(project.values(is_sync_requested=True))


def _image(project_id: int, task: ToolTask) -> Image:
    return Image(
        project_id=project_id,
        task_id=task.id,
        task_created_at=task.created_at,
        ref=task.image,
        is_deleted=False,
        error=None if task.image else _NO_IMAGE,
    )


def _change(row: Any, task: ToolTask | None) -> dict[str, Any]:
    """What makes a row say what its task says; None where another task has the id now."""
    if task is None:
        return {} if row.is_deleted else {"is_deleted": True}
    if row.ref == task.image and not row.is_deleted:
        return {}
    changed = {"ref": task.image, "is_deleted": False}
    if row.ref != task.image:
        changed["unreachable_host"] = None  # it may be another
    if not task.image:
        return {**changed, "error": _NO_IMAGE, "retry_at": None, "unreachable_since": None}
    # Not cleared: what follows from an image that can be read again is due when it was read.
    return {**changed, "retry_at": None if row.error is None else now()}
