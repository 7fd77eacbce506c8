"""What is going on with a project, for people: from the store alone, the tool is not asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ralis_backend.online.advice import score_name, score_of
from ralis_backend.online.agreement import people_notes
from ralis_backend.online.further import NOT_IN_USE, Further, further_text, not_in_use_text
from ralis_backend.online.hits import shown_wish, wish_lines
from ralis_backend.online.owner import is_dead
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project

ALIVE_S = 60.0
"""A worker that was not seen for longer does not live."""
MOST_NAMED = 5
"""Of what is left out, so many are named; the others are counted."""


@dataclass(frozen=True)
class ProjectStatus:
    """A project as it stands.

    regions_id: the tool's id of the regions project; None in in-place mode.
    is_connected: whether it is worked on at all.
    doing: what the worker does now: `state` and how far it is.
    num_waiting, num_planned: regions that wait for annotators, and those not yet in the tool.
    num_new: painted regions that no training has seen.
    version, published: in use, and the one that annotators meet; None before the first.
    mean_iou: what the version in use is judged by, on held-out labelled regions, in [0, 1]; None if
        not measured.
    score_name: what that is: without the background, where anything else is held out.
    retry_at: when a step that failed is tried again.
    unread: annotations that count for nothing so far, and why, as sentences.
    partly_read: annotations of which something was left out, likewise.
    set_aside: what is left out from now on, and why, as sentences.
    bad_images: images that cannot be read, and why, as sentences.
    advice: whether to label on, in a sentence; None before there is anything to say.
    people: how far annotators agree, and what they left that counts for less than it seems.
    further: how far the training of the version in use was continued, in a sentence.
    sought: how the search for one class stands, as lines; empty: there is none.
    """

    id: int
    title: str
    regions_id: int | None
    is_connected: bool
    doing: Mapping[str, Any]
    num_images: int
    num_labelled: int
    num_new: int
    num_waiting: int
    num_planned: int
    round: int
    version: str
    published: str | None
    mean_iou: float | None
    last_error: str | None
    retry_at: datetime | None
    start_from: str | None
    unread: Sequence[str]
    partly_read: Sequence[str]
    set_aside: Sequence[str]
    bad_images: Sequence[str]
    score_name: str = "mIoU"
    advice: str | None = None
    people: Sequence[str] = ()
    further: str | None = None
    not_in_use: str | None = None
    sought: Sequence[str] = ()


def project_status(store: Store, project: Project) -> ProjectStatus:
    """How a project stands."""
    version = store.versions.find(project.id, project.current_version)
    waiting = store.queue.open(project.id)
    num_planned = sum(row.task_id is None for row in waiting)
    metrics = version.metrics if version else {}
    published = project.published_version
    unread, partly = left_out_annotations(store, project)
    wish = shown_wish(store, project)
    return ProjectStatus(
        id=project.tool_id,
        title=project.title,
        regions_id=project.regions_tool_id,
        is_connected=not project.is_deleted,
        doing={"state": "idle", **project.progress},
        num_images=store.images.count(project.id),
        num_labelled=store.labels.count_regions(project.id),
        num_new=store.labels.count(project.id, project.trained_label_id),
        num_waiting=len(waiting) - num_planned,
        num_planned=num_planned,
        round=project.round,
        version=f"v{project.current_version}",
        published=None if published is None else f"v{published}",
        mean_iou=score_of(metrics),
        score_name=score_name(metrics),
        last_error=project.last_error,
        retry_at=project.retry_at,
        start_from=project.start_from,
        unread=unread,
        partly_read=partly,
        set_aside=store.attempts.notes(project.id),
        bad_images=[
            f"task {image.task_id}: {image.error}" for image in store.images.bad(project.id)
        ],
        advice=project.people.get("advice"),
        people=[*people_notes(project.people), *_on_gone_images(store, project)],
        further=further_text(f"v{project.current_version}", Further.of(metrics)),
        not_in_use=_not_in_use(store, project),
        sought=() if wish is None else wish_lines(wish),
    )


def _on_gone_images(store: Store, project: Project) -> list[str]:
    """That people's work counts for nothing since its pictures are gone; empty if there is none."""
    count = store.labels.count_of_gone_images(project.id)
    if not count:
        return []
    regions = f"{count} painted region{' lies' if count == 1 else 's lie'}"
    gone = "images that are gone from the project"
    return [
        f"{regions} in {gone}: they count when those are back, and what was painted in the regions "
        "project when the same pictures are"
    ]


def _not_in_use(store: Store, project: Project) -> str | None:
    """Why the newest version is not in use though it was accepted; None if that is not so."""
    newest = store.versions.find(project.id, store.versions.next_number(project.id) - 1)
    why = None if newest is None else newest.metrics.get(NOT_IN_USE)
    return None if newest is None or why is None else not_in_use_text(newest.name, why)


def left_out_annotations(store: Store, project: Project) -> tuple[list[str], list[str]]:
    """The annotations of which nothing counts, and those of which a part does not, and why."""
    places = {project.uid: project.tool_id, project.regions_uid: project.regions_tool_id}
    unread: list[str] = []
    partly: list[str] = []
    for found in store.annotations.left_out(project.id):
        where = places.get(found.tool_uid, "that is gone")
        text = (
            f"annotation {found.annotation_id} of task {found.task_id} in project {where}: "
            f"{'; '.join(found.what)}"
        )
        (partly if found.is_read else unread).append(text)
    return unread, partly


def seconds_since_worker(store: Store) -> float | None:
    """How long ago a worker that lives was seen; None if there is none."""
    moment = now()
    ages = [
        max(0.0, (moment - seen_at).total_seconds())
        for name, seen_at in store.workers.seen().items()
        if seen_at >= moment - timedelta(seconds=ALIVE_S) and not is_dead(name)
    ]
    return min(ages, default=None)


def status_lines(status: ProjectStatus, regions_per_round: int) -> list[str]:
    """A project's status as lines for a terminal; names and messages from outside are in it."""
    place = (
        "" if status.regions_id is None else f", annotators label in project {status.regions_id}"
    )
    lines = [f"project {status.id} ({status.title}){place}"]
    if not status.is_connected:
        lines.append(f"  not connected: `ralis connect --project {status.id}` goes on with it")
    lines += [
        f"  now        {_doing(status)}",
        f"  queue      {queue_text(status)}",
        f"  labelled   {_labelled(status, regions_per_round)}",
        f"  model      {_model(status)}",
    ]
    if status.not_in_use:
        lines.append(f"  not used   {status.not_in_use}")
    lines += [
        f"  {'' if index else 'seeks':<10} {line}" for index, line in enumerate(status.sought)
    ]
    if status.further:
        lines.append(f"  training   {status.further}")
    if status.advice:
        lines.append(f"  advice     {status.advice}")
    if status.start_from and status.version == "v0":
        lines.append(f"  starts     from the predictions of {status.start_from}")
    if status.last_error and status.last_error != "; ".join(status.set_aside):
        when = f" (next try {status.retry_at:%H:%M:%S} UTC)" if status.retry_at else ""
        lines.append(f"  problem    {status.last_error}{when}")
    for name, items in (
        ("not read", status.unread),
        ("in part", status.partly_read),
        ("set aside", status.set_aside),
        ("no image", status.bad_images),
        ("people", status.people),
    ):
        lines += _named(name, items)
    return lines


def _doing(status: ProjectStatus) -> str:
    doing = dict(status.doing)
    state = str(doing.pop("state"))
    if state == "idle":
        if status.published is None:
            return "waits for the worker, which looks at each image once and then makes the tasks"
        return "nothing: all is done until something is labelled"
    known = {
        "training_version": "{}",
        "ranked_version": "{}",
        "improved_version": "{}",
        "updates": "{} updates",
        "percent": "{:.0f} %",
        "expected_end": "until about {:%H:%M:%S} UTC",
    }
    if "expected_end" in doing:
        doing["expected_end"] = datetime.fromisoformat(doing["expected_end"]).astimezone(UTC)
    parts = [form.format(doing[name]) for name, form in known.items() if name in doing]
    return f"{state} {', '.join(parts)}".strip()


def queue_text(status: ProjectStatus) -> str:
    """What waits for annotators, in a sentence."""
    if status.regions_id is None:
        return f"suggestions on {status.num_images} images"
    planned = f", {status.num_planned} more are being made" if status.num_planned else ""
    regions = f"{status.num_waiting} region{'' if status.num_waiting == 1 else 's'}"
    place = f"of {status.num_images} images wait for annotators, round {status.round}"
    return f"{regions} {place}{planned}"


def _labelled(status: ProjectStatus, regions_per_round: int) -> str:
    return (
        f"{status.num_labelled} regions; {status.num_new} of the {regions_per_round} new ones that "
        "start a training"
    )


def _model(status: ProjectStatus) -> str:
    score = "not measured yet"
    if status.mean_iou is not None:
        score = f"{status.score_name} {status.mean_iou:.3f}"
    shown = "nothing yet" if status.published is None else status.published
    return f"{status.version} ({score}); annotators see {shown}"


def _named(name: str, items: Sequence[str]) -> list[str]:
    lines = [f"  {name:<10} {item}" for item in items[:MOST_NAMED]]
    if len(items) > MOST_NAMED:
        lines.append(f"  {name:<10} and {len(items) - MOST_NAMED} more")
    return lines
