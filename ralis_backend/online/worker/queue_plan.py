"""What is known of a queue of region tasks -> what should change in it; no store, no tool.

The queue holds two rounds at most. A new version replaces the tasks that it finds less useful,
except those that somebody may be working on. A share of the tasks, the random slice, is drawn from
all unlabelled regions alike and stays: what versions are measured on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.acquisition import select
from ralis_backend.core.regions import Region, grid, is_labelled
from ralis_backend.online.labels import RegionLabel, covered
from ralis_backend.online.random_slice import SLICE, SLICE_REASON, draw, num_draws, spread
from ralis_backend.online.store.tables import CropTask


@dataclass(frozen=True)
class Place:
    """A region of the pool: where it lies."""

    image_id: int
    region: Region


@dataclass(frozen=True)
class QueueRules:
    """How a queue is filled; `random_share` of what is handed out is drawn, by `seed`."""

    regions_per_round: int
    random_share: float
    seed: Sequence[int]

    @property
    def size(self) -> int:
        """Regions that wait at most: two rounds."""
        return 2 * self.regions_per_round


@dataclass(frozen=True)
class QueueState:
    """What a queue is planned from.

    places: the R regions of the pool that are not wholly labelled.
    scores: (R,) float, higher first.
    strategy: that gave the scores.
    tasks: what was handed out and is not deleted, by round and rank; planned ones included.
    num_annotators: who may have a task open.
    round: number of the round at the head of the queue.
    is_new_version: whether the scores come from another version than the queue.
    is_new_round: whether that one has learned from another round of labels; if not, what it
        replaces is replaced where it was, and the round goes on.
    begun: row ids of tasks that the tool would not delete, since somebody works on them.
    """

    places: Sequence[Place]
    scores: np.ndarray
    strategy: str
    tasks: Sequence[CropTask]
    num_annotators: int
    round: int
    is_new_version: bool
    is_new_round: bool
    begun: Set[int] = frozenset()

    @property
    def waiting(self) -> list[CropTask]:
        """The tasks that nobody has labelled yet."""
        return [row for row in self.tasks if row.state == "open"]


@dataclass(frozen=True)
class NewTask:
    """A region that joins the queue."""

    place: Place
    round: int
    rank: int
    reason: str
    strategy: str


@dataclass(frozen=True)
class Plan:
    """What should change in a queue; made again from its own outcome, it changes nothing.

    taken_out: tasks to delete, unless somebody has begun them.
    kept: tasks that go on waiting.
    drawn: those of them, chosen for their score, that the random slice has drawn now.
    added: in the order in which they are made.
    best: the places with the highest scores, best first.
    round: number of the round at the head of the queue.
    """

    taken_out: Sequence[CropTask]
    kept: Sequence[CropTask]
    drawn: Sequence[CropTask]
    added: Sequence[NewTask]
    best: Sequence[Place]
    round: int

    def in_order(self, tasks: Sequence[CropTask]) -> list[CropTask]:
        """Waiting tasks, by round and rank, in the order in which annotators should meet them."""
        rank = {place: position for position, place in enumerate(self.best)}
        others = [row for row in tasks if row.strategy != SLICE]
        others.sort(key=lambda row: rank.get(place_of(row), len(rank)))
        return spread(others, [row for row in tasks if row.strategy == SLICE])


def place_of(task: CropTask) -> Place:
    """Where a task's region lies."""
    return Place(task.image_id, task.region)


def open_places(
    image_sizes: Mapping[int, tuple[int, int]],
    scores: Mapping[int, np.ndarray],
    labels: Mapping[int, Sequence[RegionLabel]],
    region_size: tuple[int, int],
) -> tuple[list[Place], np.ndarray]:
    """The R regions of the pool that are not wholly labelled, and their scores, (R,) float.

    Args:
        image_sizes: (height, width) in pixels by image id, of the images that can be shown.
        scores: by image id, each in the order of the image's grid; others are left out.
        labels: by image id.
        region_size: (height, width) in pixels.
    """
    places: list[Place] = []
    values: list[float] = []
    for image_id, of_image in scores.items():
        if image_id not in image_sizes:
            continue
        size = image_sizes[image_id]
        is_covered = covered(size, labels.get(image_id, []))
        for region, score in zip(grid(size, region_size), of_image, strict=True):
            if not is_labelled(is_covered, region):
                places.append(Place(image_id, region))
                values.append(float(score))
    return places, np.array(values)


def plan_queue(state: QueueState, rules: QueueRules, reason: Callable[[Place], str]) -> Plan:
    """What brings a queue in line with the scores; `reason` says why a place is in it."""
    best = _best(state, rules.size)
    outdated = _outdated(state, best) if state.is_new_version else []
    taken_out = list({row.id: row for row in (*outdated, *_doubles(state))}.values())
    removed = {row.id for row in taken_out}
    kept = [row for row in state.waiting if row.id not in removed]
    waiting = {place_of(row): row for row in kept}
    room = max(0, rules.size - len(kept))
    handed_out = [row for row in state.tasks if row.id not in removed]
    drawn = _drawn(state, rules, handed_out, room)
    fresh_draws = [place for place in drawn if place not in waiting]  # the others take no room
    taken = waiting.keys() | set(fresh_draws)
    chosen = [place for place in best if place not in taken][: room - len(fresh_draws)]
    goes_on = state.is_new_version and not state.is_new_round
    number = state.round if goes_on else state.round + 1
    taken_slots = {(row.round, row.rank) for row in handed_out} if goes_on else set()
    added = _new_tasks(
        spread(
            [(place, reason(place), state.strategy) for place in chosen],
            [(place, SLICE_REASON, SLICE) for place in fresh_draws],
        ),
        _slots(number if state.is_new_version else number + 1, rules, taken_slots),
    )
    return Plan(
        taken_out=taken_out,
        kept=kept,
        drawn=[waiting[place] for place in drawn if place in waiting],
        added=added,
        best=best,
        round=number if added or state.is_new_version else state.round,
    )


def _best(state: QueueState, count: int) -> list[Place]:
    """The `count` best places, spread over their images."""
    image_ids = np.array([place.image_id for place in state.places])
    return [state.places[index] for index in select(state.scores, image_ids, count)]


def _outdated(state: QueueState, best: Sequence[Place]) -> list[CropTask]:
    """Waiting tasks that the scores do not keep.

    The head of the queue stays: those are the tasks that annotators have open. So does the random
    slice: if a version could drop what it finds useless, it would not be random any more.
    """
    by_use = sorted(state.waiting, key=lambda row: -row.usefulness)
    in_hand = {row.id for row in by_use[: state.num_annotators + 1]} | state.begun
    keep = set(best) | (_slice(state.waiting) & set(state.places))
    return [row for row in state.waiting if place_of(row) not in keep and row.id not in in_hand]


def _doubles(state: QueueState) -> list[CropTask]:
    """Waiting tasks of a place that another one asks for: the tool made some twice."""
    in_order = sorted(state.waiting, key=lambda row: (row.id not in state.begun, row.id))
    asked: set[Place] = set()
    doubles = []
    for row in in_order:
        if place_of(row) in asked and row.id not in state.begun:
            doubles.append(row)
        asked.add(place_of(row))
    return doubles


def _drawn(
    state: QueueState, rules: QueueRules, handed_out: Sequence[CropTask], room: int
) -> list[Place]:
    """Places that join the random slice, from all unlabelled ones outside it alike."""
    in_slice = _slice(handed_out)
    outside = [place for place in state.places if place not in in_slice]
    count = num_draws(rules.random_share, len(handed_out), len(in_slice), room)
    return draw(outside, count, [*rules.seed, len(handed_out)])


def _slice(tasks: Sequence[CropTask]) -> set[Place]:
    return {place_of(row) for row in tasks if row.strategy == SLICE}


def _slots(
    first_round: int, rules: QueueRules, taken: Set[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Rounds and ranks in them, one after another, without those that tasks have."""
    for number in itertools.count(first_round):
        for rank in range(1, rules.regions_per_round + 1):
            if (number, rank) not in taken:
                yield number, rank


def _new_tasks(
    entries: Sequence[tuple[Place, str, str]], slots: Iterable[tuple[int, int]]
) -> list[NewTask]:
    return [
        NewTask(place, number, rank, reason, strategy)
        for (place, reason, strategy), (number, rank) in zip(entries, slots, strict=False)
    ]
