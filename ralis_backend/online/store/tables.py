"""The database: one class per table. Changes need a migration in `migrations/versions`.

Rows of the labelling tool are keyed by project uid, id and creation time, since the tool hands
out ids again after a deletion. Times are UTC. What is large and seldom read is loaded by queries
that ask for it alone; to read it off any other row is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    or_,
    select,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
from sqlalchemy.types import TypeDecorator

from ralis_backend.core.regions import Region
from ralis_backend.core.text import storable
from ralis_backend.online.further import CONTINUED


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored as UTC (SQLite keeps no zone)."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware -> naive UTC; a naive one is refused, since its zone is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; pass an aware datetime")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Naive UTC -> aware."""
        return None if value is None else value.replace(tzinfo=UTC)


class Message(TypeDecorator[str]):
    """What an error says, or a note about one: it may quote anything, and is `storable` here."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """A question mark for what no database takes."""
        return None if value is None else storable(value)


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


LONGEST_PAUSE = timedelta(days=1)
"""Between two tries to read an image."""
UNREAL_PAUSE = 2 * LONGEST_PAUSE
"""What rests for longer was put off by a clock that was ahead: it is due."""
_seldom = partial(mapped_column, deferred=True, deferred_raiseload=True)
_nullable_json = partial(mapped_column, JSON(none_as_null=True))


class Project(Base):
    """A pool project and, in crops mode, its regions project."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(64), unique=True)
    tool_id: Mapped[int] = mapped_column("host_id")
    title: Mapped[str] = mapped_column(Text, default="")
    label_config: Mapped[str] = _seldom(Text, default="")
    # [{name, color, is_active, background?}]; background: why unpainted pixels are this class
    classes: Mapped[list[Any]] = mapped_column(default=list)
    background: Mapped[str | None] = mapped_column(Text)  # as chosen; None: as usual, "": none
    meaning: Mapped[int] = mapped_column(default=0)  # counts what changes how labels are read
    read_as: Mapped[int] = mapped_column(default=0)  # `READING` of the code that read its labels
    strategy: Mapped[str | None] = mapped_column(String(64))  # None: the worker's setting
    pixel_rule: Mapped[dict[str, Any] | None]  # how its pictures are shown: `online/pictures`
    regions_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    regions_tool_id: Mapped[int | None] = mapped_column("regions_host_id")
    start_from: Mapped[str | None] = mapped_column(Text)  # model version of others' first masks
    is_prepared: Mapped[bool] = mapped_column(default=False)
    is_deleted: Mapped[bool] = mapped_column(default=False)
    # what is due
    is_sync_requested: Mapped[bool] = mapped_column(default=True)
    is_training_requested: Mapped[bool] = mapped_column(default=False)
    synced_at: Mapped[datetime | None]
    num_readings: Mapped[int] = mapped_column(default=0)  # of the tool, that were begun
    open_reading: Mapped[int | None]  # the number of the one that has not ended yet
    trained_label_id: Mapped[int] = mapped_column(default=0)  # newest label at the last training
    current_version: Mapped[int] = mapped_column(default=0)
    is_publishing_requested: Mapped[bool] = mapped_column(default=False)
    published_version: Mapped[int | None]  # that annotators meet; None: nothing yet
    published_label_id: Mapped[int] = mapped_column(default=0)
    # the newest painted label when the last round began
    round_label_id: Mapped[int] = mapped_column(default=0, server_default="0")
    # what decided which regions are open when they were published last: `worker/openness`
    filled_with: Mapped[list[Any] | None] = _nullable_json()
    round: Mapped[int] = mapped_column(default=0)
    said: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of what `/setup` said last
    said_wish: Mapped[dict[str, Any] | None] = _nullable_json()  # of the connection, the last
    published_wish: Mapped[int | None]  # whose regions annotators meet; None: nobody's
    # what people see
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    last_error: Mapped[str | None] = mapped_column(Message)
    num_failures: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]  # None: at once; else a pause after that failure
    num_losses: Mapped[int] = mapped_column(default=0)  # how often in a row the tool knew it not
    num_labelled_regions: Mapped[int | None]  # None: to be counted
    people: Mapped[dict[str, Any]] = mapped_column(default=dict)  # what annotators left, in figures
    # who works on it: one who does counts on, and nobody's clock is asked
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_generation: Mapped[int] = mapped_column(default=0)
    lease_heartbeat: Mapped[int] = mapped_column(default=0)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class index; a removed label keeps its index."""
        return tuple(entry["name"] for entry in self.classes)

    @property
    def removed_classes(self) -> tuple[int, ...]:
        """Indices of labels that the project has no more."""
        return removed_of(self.classes)

    @property
    def background_class(self) -> int | None:
        """Index of the class that unpainted pixels of a labelled region get; None: they are VOID.

        Nobody looks for it.
        """
        marks = (index for index, entry in enumerate(self.classes) if entry.get("background"))
        return next(marks, None)

    @property
    def kept_background(self) -> str | None:
        """The background's name where a single label had brought it: it may stay with others."""
        index = self.background_class
        is_kept = index is not None and self.classes[index]["background"] == "one label"
        return self.background_name if is_kept else None

    @property
    def background_name(self) -> str | None:
        """Name of that class."""
        index = self.background_class
        return None if index is None else self.class_names[index]


def removed_of(classes: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Indices of those of a project's classes that it has no more."""
    return tuple(index for index, entry in enumerate(classes) if not entry["is_active"])


class Image(Base):
    """A task of the pool project: one image."""

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("project_id", "task_id", "task_created_at"),
        Index("ix_images_project_id_retry_at", "project_id", "retry_at"),
        Index("ix_images_project_id_content", "project_id", "content"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    task_id: Mapped[int] = mapped_column(index=True)
    task_created_at: Mapped[datetime]
    ref: Mapped[str] = mapped_column(Text)
    height: Mapped[int | None]
    width: Mapped[int | None]
    is_validation: Mapped[bool | None]  # None: nothing labelled in it yet
    content: Mapped[str | None] = mapped_column(String(64))  # of its pixels; None: not read yet
    is_deleted: Mapped[bool] = mapped_column(default=False)
    error: Mapped[str | None] = mapped_column(Message)
    tool_project_id: Mapped[int] = column_property(
        select(Project.tool_id).where(Project.id == project_id).scalar_subquery()
    )
    num_failures: Mapped[int] = mapped_column(default=0)  # to read it, in a row
    retry_at: Mapped[datetime | None]
    unreachable_since: Mapped[datetime | None]  # its host does not deliver it; None: it does
    unreachable_host: Mapped[str | None] = mapped_column(Message)  # that one, if it is known
    # the newest label when a training read it last
    trained_label_id: Mapped[int] = mapped_column(default=0, server_default="0")

    @property
    def is_readable(self) -> bool:
        """Whether it was read, and can still be, as far as is known."""
        return self.size is not None and self.error is None and not self.is_deleted

    def may_be_tried(self, moment: datetime) -> bool:
        """Whether it can be read as far as is known, or the pause after it could not is over."""
        if self.retry_at is None or self.retry_at <= moment:
            return True
        return self.retry_at > moment + UNREAL_PAUSE

    @classmethod
    def is_due(cls, moment: Any, unreal: Any) -> ColumnElement[bool]:
        """Of an image that could not be read, for queries: whether the pause after that is over.

        Args:
            moment: now, or what stands for it.
            unreal: `UNREAL_PAUSE` after that.
        """
        return or_(cls.retry_at <= moment, cls.retry_at > unreal)

    def is_out_of_reach(self, moment: datetime) -> bool:
        """Whether its host does not deliver it, for less than a day: an outage ends."""
        since = self.unreachable_since
        return since is not None and abs(moment - since) < LONGEST_PAUSE

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels; None until the image was read once."""
        return None if self.height is None or self.width is None else (self.height, self.width)


class Source(Base):
    """How far one of the tool's projects, the pool or the regions, has been read."""

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    tool_uid: Mapped[str] = mapped_column("host_uid", String(64), unique=True)
    changed_at: Mapped[datetime | None]  # of the newest change that was seen, by the tool's clock
    # what the tool counted beyond what is stored, when everything had been read
    extra_tasks: Mapped[int] = mapped_column(default=0)
    extra_annotations: Mapped[int] = mapped_column(default=0)
    num_doubts: Mapped[int] = mapped_column(default=0)  # lists in a row that lacked tasks


class TaskState(Base):
    """What the tool said of an annotated task when its annotations were stored."""

    __tablename__ = "task_states"
    __table_args__ = (
        UniqueConstraint("host_uid", "task_id"),
        Index(
            "ix_task_states_unreadable",
            "project_id",
            sqlite_where=text("unreadable IS NOT NULL"),
            postgresql_where=text("unreadable IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    tool_uid: Mapped[str] = mapped_column("host_uid", String(64))
    task_id: Mapped[int]
    state: Mapped[str] = mapped_column(String(64))
    unreadable: Mapped[list[Any] | None] = _nullable_json()  # [annotation id, why], malformed


class Event(Base):
    """A webhook as it came, until the worker has read it."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    tool_uid: Mapped[str] = mapped_column("host_uid", String(64), index=True)
    action: Mapped[str] = mapped_column(String(64))
    payload: Mapped[bytes] = mapped_column(LargeBinary)  # gzip of JSON
    received_at: Mapped[datetime]


class CropTask(Base):
    """A region as a task of the regions project. Rows are kept when the task is gone."""

    __tablename__ = "crop_tasks"
    __table_args__ = (
        Index("ix_crop_tasks_task", "project_id", "task_id"),
        Index("ix_crop_tasks_state", "project_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    row: Mapped[int]
    col: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    scale: Mapped[int]
    round: Mapped[int]
    rank: Mapped[int]
    reason: Mapped[str] = mapped_column(Text)
    strategy: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    usefulness: Mapped[float]
    task_id: Mapped[int | None]  # None: planned, not yet in the tool
    task_created_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(16), default="open")  # open, done, deleted
    wish_id: Mapped[int | None]  # that it was mined for

    @property
    def region(self) -> Region:
        """The region in its image."""
        return Region(self.row, self.col, self.height, self.width)


class Annotation(Base):
    """One annotation as the tool has it, with its raw results: masks can be derived again."""

    __tablename__ = "annotations"
    __table_args__ = (
        UniqueConstraint("host_uid", "annotation_id", "created_at"),
        Index("ix_annotations_task", "host_uid", "task_id", "is_deleted"),
        Index(
            "ix_annotations_unread",
            "project_id",
            sqlite_where=text("error IS NOT NULL"),
            postgresql_where=text("error IS NOT NULL"),
        ),
        Index(
            "ix_annotations_left_out",
            "project_id",
            sqlite_where=text("left_out IS NOT NULL"),
            postgresql_where=text("left_out IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    tool_uid: Mapped[str] = mapped_column(
        "host_uid", String(64)
    )  # of the pool or the regions project
    annotation_id: Mapped[int]
    task_id: Mapped[int]
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"), index=True)
    crop_task_id: Mapped[int | None] = mapped_column(ForeignKey("crop_tasks.id"), index=True)
    annotator: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    lead_time_s: Mapped[float | None]
    is_skipped: Mapped[bool] = mapped_column(default=False)
    is_deleted: Mapped[bool] = mapped_column(default=False)
    is_starred: Mapped[bool] = mapped_column(default=False)  # a reviewer's ground truth
    is_machine: Mapped[bool] = mapped_column(default=False)  # made from a prediction in bulk
    painted_at: Mapped[datetime | None]  # updated_at when its results last changed, not its star
    is_repainted: Mapped[bool] = mapped_column(default=False)  # and labels not read since
    suggested_version: Mapped[int | None]  # of the prediction it started from
    # [[row, col, height, width]], the regions that were handed out with what it began from, in
    # pixels of its image; empty: it is of the whole image. None: its image is not known yet
    begun_from: Mapped[list[Any] | None] = _nullable_json()
    # Nobody knows which of these: it names no version, or others took their places meanwhile.
    # Never NULL; to say so, SQLite would write all payloads anew
    is_start_lost: Mapped[bool] = mapped_column(default=False, nullable=True)
    digest: Mapped[str] = mapped_column(String(64))
    payload: Mapped[bytes] = _seldom(LargeBinary)  # gzip of JSON
    error: Mapped[str | None] = mapped_column(Message)  # what is set has to be read still
    left_out: Mapped[list[Any] | None] = _nullable_json()  # what of it does not count, as texts


class Label(Base):
    """A labelled region: one row per region of an annotation, replaced when that changes."""

    __tablename__ = "labels"
    __table_args__ = ({"sqlite_autoincrement": True},)  # "newer than the last training" is an id

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    annotation_row_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), index=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    row: Mapped[int]
    col: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    is_skipped: Mapped[bool] = mapped_column(default=False)  # shown, and not worth or not possible
    # called not worth labelling, and painted all the same
    is_disputed: Mapped[bool] = mapped_column(default=False)
    # share of it that was painted, which nobody had been asked for; None: it had been asked for
    share_beside: Mapped[float | None]
    # the id of the oldest label that its annotation had of the region, or of any region where this
    # one is only read otherwise; None: it is the oldest
    first_id: Mapped[int | None] = mapped_column(default=None)
    painted_at: Mapped[datetime | None]  # its annotation's, when this region was last painted
    # of what is drawn in it; None: unknown
    drawn_digest: Mapped[str | None] = mapped_column(String(64))
    mask_key: Mapped[str | None] = mapped_column(String(128))
    pixels: Mapped[list[Any]] = mapped_column(default=list)  # labelled pixels per class

    @property
    def region(self) -> Region:
        """The region in its image."""
        return Region(self.row, self.col, self.height, self.width)


class StoredAnswer(Base):
    """What an annotation says besides paint: one row per kind, replaced when that changes."""

    __tablename__ = "answers"
    __table_args__ = (UniqueConstraint("annotation_row_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    annotation_row_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"))
    kind: Mapped[str] = mapped_column(String(64))
    value: Mapped[Any] = mapped_column(JSON)


class Version(Base):
    """A trained segmenter; number 0 is the one that has learned nothing yet."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("project_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    number: Mapped[int]
    parent: Mapped[int | None]
    is_accepted: Mapped[bool]  # by the promotion gate
    num_labels: Mapped[int]
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    weights_key: Mapped[str | None] = mapped_column(String(128))
    is_dropped: Mapped[bool] = mapped_column(default=False)  # the weights are no longer kept
    created_at: Mapped[datetime]
    strategy: Mapped[str | None] = mapped_column(String(64))  # of its ranking
    ranked_at: Mapped[datetime | None]

    @property
    def name(self) -> str:
        """`v3`: what Label Studio shows as the model version."""
        return f"v{self.number}"

    @property
    def round_version(self) -> int:
        """The version that its round of labels made: itself, or the one it goes on from."""
        return int(self.metrics.get(CONTINUED, {}).get("round_version", self.number))

    @property
    def before_round(self) -> int | None:
        """The version that was in use before its round of labels; None at the first."""
        number: int | None = self.metrics.get(CONTINUED, {}).get("before_round", self.parent)
        return number


class Ranking(Base):
    """The scores of one image's regions under one version."""

    __tablename__ = "rankings"
    __table_args__ = (UniqueConstraint("version_id", "image_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), index=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    scores: Mapped[bytes] = _seldom(LargeBinary)  # float32, in the order of the grid
    reasons: Mapped[list[Any]] = _seldom(default=list)
    mask_key: Mapped[str | None] = mapped_column(String(128))
    # the same for the class that is sought; None: none is
    mined_scores: Mapped[bytes | None] = _seldom(LargeBinary)
    mined_reasons: Mapped[list[Any] | None] = _nullable_json(deferred=True, deferred_raiseload=True)


class Suggestion(Base):
    """The regions that a whole-image task was answered with, once per version."""

    __tablename__ = "suggestions"
    __table_args__ = (UniqueConstraint("image_id", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    version: Mapped[int]
    # [{row, col, height, width, rank, usefulness, reason, strategy?, wish?, is_taken_back?}]: those
    # that were mined have a strategy and a wish; those that were taken back may be shown still
    regions: Mapped[list[Any]]


class Wish(Base):
    """Regions of one class that are wanted; of a project one at a time, older ones are kept."""

    __tablename__ = "wishes"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    class_name: Mapped[str] = mapped_column(Text)
    strategy: Mapped[str | None] = mapped_column(String(64))  # that looks; None: the default miner
    count: Mapped[int | None]  # of mined regions, labelled; None: until it is ended
    share: Mapped[float] = mapped_column(default=1.0)  # of each round, in (0, 1]
    # [{task, image, region: [row, col, height, width] or None for all of it}] that show the class
    examples: Mapped[list[Any]] = mapped_column(default=list)
    like: Mapped[str | None] = mapped_column("like_class", Text)  # a class that it looks like
    is_of_connection: Mapped[bool] = mapped_column(default=False)
    begun_at: Mapped[datetime]
    since_label_id: Mapped[int] = mapped_column(default=0)  # the newest label when it began
    pixels_before: Mapped[int] = mapped_column(BigInteger, default=0)  # of the class, likewise
    ended_at: Mapped[datetime | None]
    ended_by: Mapped[str | None] = mapped_column(String(64))


class Attempt(Base):
    """Something that was begun and has not ended: it is running, or it ended its worker."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("project_id", "kind", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(64))
    count: Mapped[int]
    note: Mapped[str | None] = mapped_column(Message)  # why it is set aside; None: it is not


class LiveWorker(Base):
    """A worker's process, and when it last showed that it lives, by its own clock: for people."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    seen_at: Mapped[datetime]
