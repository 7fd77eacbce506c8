"""What is known of a queue of region tasks -> what should change in it; no store, no tool.

The queue holds two rounds at most, and what is wanted of a class. A new version replaces the tasks
that it finds less useful, except those that somebody may be working on. A share of the tasks, the
random slice, is drawn from all unlabelled regions alike and stays: what versions are measured on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from ralis_backend.core.acquisition import select
from ralis_backend.core.regions import Region, grid, is_labelled
from ralis_backend.online.hits import num_in_share, shared
from ralis_backend.online.labels import RegionLabel, covered
from ralis_backend.online.random_slice import SLICE, SLICE_REASON, draw, num_draws, spread
from ralis_backend.online.store.tables import CropTask

MOST_WAITING = 5_000
"""Tasks of a queue; where more is wanted, they follow when these are done."""


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

    def size_with(self, mining: Mining | None) -> int:
        """The same; where more of a class is wanted, as many as that, up to `MOST_WAITING`.

        Then there is room beside for the others' share of two rounds, and for the random slice.
        """
        if mining is None or mining.count is None:
            return self.size
        chosen = mining.count + self._num_beside(mining)
        size = math.ceil(chosen / (1 - min(self.random_share, 0.5)) - 1e-9)
        return max(self.size, min(MOST_WAITING, size))

    def num_mined(self, mining: Mining, num_places: int) -> int:
        """Mined regions that wait at most; without an end, their share of what there is."""
        if mining.count is None:
            return num_in_share(mining.share, min(self.size, num_places), None)
        return min(mining.count, self.size_with(mining) - self._num_beside(mining))

    def _num_beside(self, mining: Mining) -> int:
        """The others' share of two rounds, rounded down."""
        return math.floor((1 - mining.share) * self.size + 1e-9)


@dataclass(frozen=True)
class Mining:
    """What a wish adds to a queue: its class's regions take a share of each round.

    wish_id: whose regions they are.
    strategy: that gave the scores.
    scores: (R,) float of the same places, higher first.
    reason: why a place is mined.
    share: of a round, in (0, 1].
    count: mined regions that are still wanted, waiting ones among them; None: no end.
    """

    wish_id: int
    strategy: str
    scores: np.ndarray
    reason: Callable[[Place], str]
    share: float = 1.0
    count: int | None = None


@dataclass(frozen=True)
class QueueState:
    """What a queue is planned from.

    places: the R regions of the pool that are not wholly labelled.
    scores: (R,) float, higher first.
    strategy: that gave the scores.
    tasks: what was handed out and is not deleted, by round and rank; planned ones included.
    num_annotators: who may have a task open.
    round: number of the round at the head of the queue.
    is_new_version: whether the scores come from another ranking than the queue, or are for another
        wish.
    is_new_round: whether that round is over; if not, what is replaced is replaced where it was, and
        the round goes on.
    gone: row ids of tasks whose image is gone from the pool.
    out_of_reach: row ids of tasks whose image cannot be shown now, or was not ranked: nothing says
        what they are worth.
    begun: row ids of tasks that the tool would not delete, since somebody works on them.
    mining: what is looked for besides; None: nothing.
    """

    places: Sequence[Place]
    scores: np.ndarray
    strategy: str
    tasks: Sequence[CropTask]
    num_annotators: int
    round: int
    is_new_version: bool
    is_new_round: bool
    gone: Set[int] = frozenset()
    out_of_reach: Set[int] = frozenset()
    begun: Set[int] = frozenset()
    mining: Mining | None = None

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
    wish_id: int | None = None


@dataclass(frozen=True)
class Plan:
    """What should change in a queue; made again from its own outcome, it changes nothing.

    taken_out: tasks to delete, unless somebody has begun them.
    kept: tasks that go on waiting.
    drawn: those of them, chosen for their score, that the random slice has drawn now.
    claimed: those of them, chosen for another reason, that are mined now.
    added: in the order in which they are made.
    best: the places that are asked for, best first; whether each is mined.
    round: number of the round at the head of the queue.
    """

    taken_out: Sequence[CropTask]
    kept: Sequence[CropTask]
    drawn: Sequence[CropTask]
    claimed: Sequence[CropTask]
    added: Sequence[NewTask]
    best: Mapping[Place, bool]
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
    size = rules.size_with(state.mining)
    best = _best(state, rules, _slice(state.waiting))
    outdated = _outdated(state, best, size) if state.is_new_version else []
    gone = [row for row in state.waiting if row.id in state.gone - state.begun]
    taken_out = list({row.id: row for row in (*gone, *outdated, *_doubles(state))}.values())
    removed = {row.id for row in taken_out}
    kept = [row for row in state.waiting if row.id not in removed]
    waiting = {place_of(row): row for row in kept}
    handed_out = [row for row in state.tasks if row.id not in removed]
    room = max(0, size - len(kept), min(_num_to_mine(state, best, kept) or 0, size))
    drawn = _drawn(state, rules, handed_out, room)
    fresh_draws = [place for place in drawn if place not in waiting]  # the others take no room
    others = [row for row in kept if place_of(row) not in set(drawn)]
    if drawn:  # it is not mined
        best = _best(state, rules, _slice(kept) | set(drawn))
    claimed = _claimed(state, best, others)
    to_mine = _num_to_mine(state, best, others)
    taken = waiting.keys() | set(fresh_draws)
    room = max(room - len(fresh_draws), min(to_mine or 0, size))
    chosen = _chosen(best, taken, room, to_mine)
    number = state.round + 1 if state.is_new_round else max(1, state.round)
    taken_slots = {(row.round, row.rank) for row in handed_out}
    added = _new_tasks(
        spread(
            [_entry(state, place, reason, is_mined=is_mined) for place, is_mined in chosen.items()],
            [(place, SLICE_REASON, SLICE, None) for place in fresh_draws],
        ),
        _slots(number, _half(size), taken_slots),
    )
    if added and not kept:
        number = added[0].round
    return Plan(
        taken_out=taken_out,
        kept=kept,
        drawn=[waiting[place] for place in drawn if place in waiting],
        claimed=claimed,
        added=added,
        best=best,
        round=number if added or (state.is_new_version and kept) else state.round,
    )


_Entry = tuple[Place, str, str, int | None]
"""Where, why, by which strategy, for which wish."""


def _entry(
    state: QueueState, place: Place, reason: Callable[[Place], str], *, is_mined: bool
) -> _Entry:
    if state.mining is None or not is_mined:
        return place, reason(place), state.strategy, None
    mining = state.mining
    return place, mining.reason(place), mining.strategy, mining.wish_id


def _half(size: int) -> int:
    """Regions of a round in a queue of that size."""
    return -(-size // 2)


def _best(state: QueueState, rules: QueueRules, held: Set[Place]) -> dict[Place, bool]:
    """The places that are asked for, best first, and whether each is mined.

    The others are spread over their images; what is mined is not, since a rare class may lie in a
    few images alone. Places that the random slice holds are asked for anyway: others are mined.
    """
    image_ids = np.array([place.image_id for place in state.places])
    mining, count = state.mining, rules.size_with(state.mining)
    if mining is None:
        return {state.places[index]: False for index in select(state.scores, image_ids, count)}
    count = min(count, len(image_ids))
    free = np.flatnonzero([place not in held for place in state.places])
    found = select(
        mining.scores[free],
        image_ids[free],
        rules.num_mined(mining, len(image_ids)),
        max_per_image=max(1, len(image_ids)),
    )
    mined = free[found]
    is_mined = np.zeros(len(image_ids), bool)
    is_mined[mined] = True
    others = [index for index in select(state.scores, image_ids, count) if not is_mined[index]]
    order = shared(mined.tolist(), others[: max(0, count - len(mined))], mining.share)
    return {state.places[index]: bool(is_mined[index]) for index in order}


def _chosen(
    best: Mapping[Place, bool], taken: Set[Place], room: int, to_mine: int | None
) -> dict[Place, bool]:
    """Those of the best places that join the queue, in their order.

    Of mined ones as many as are wanted, before others have room, and no more.
    """
    free = {place: is_mined for place, is_mined in best.items() if place not in taken}
    left = {True: sum(free.values()), False: room}
    if to_mine is not None:
        left[True] = min(left[True], max(0, to_mine), room)
        left[False] = room - left[True]
    chosen: dict[Place, bool] = {}
    for place, is_mined in free.items():
        if len(chosen) < room and left[is_mined]:
            chosen[place] = is_mined
            left[is_mined] -= 1
    return chosen


def _claimed(
    state: QueueState, best: Mapping[Place, bool], kept: Sequence[CropTask]
) -> list[CropTask]:
    """Tasks that may be open in a browser, and would be mined now: they stay, and are."""
    if state.mining is None:
        return []
    others = (row for row in kept if row.wish_id != state.mining.wish_id and row.strategy != SLICE)
    return [row for row in others if best.get(place_of(row), False)]


def _num_to_mine(
    state: QueueState, best: Mapping[Place, bool], kept: Sequence[CropTask]
) -> int | None:
    """Mined regions that are wanted besides those that wait; None: as many as there is room for."""
    if state.mining is None or state.mining.count is None:
        return None
    waiting = sum(row.wish_id == state.mining.wish_id for row in kept)
    return state.mining.count - waiting - len(_claimed(state, best, kept))


def _outdated(state: QueueState, best: Mapping[Place, bool], size: int) -> list[CropTask]:
    """Waiting tasks that the scores do not keep, or not for the same reason.

    The head of the queue stays: those are the tasks that annotators have open. So does the random
    slice: if a version could drop what it finds useless, it would not be random any more. What is
    out of reach has its picture, can be painted, and gives way only to what there is instead.
    """
    by_use = sorted(state.waiting, key=lambda row: -row.usefulness)
    in_hand = {row.id for row in by_use[: state.num_annotators + 1]} | state.begun
    out_of_reach = [row.id for row in by_use if row.id in state.out_of_reach - state.gone]
    staying = in_hand.union(out_of_reach[: size - len(best)])
    wish_id = None if state.mining is None else state.mining.wish_id
    keep = {(place, wish_id if is_mined else None) for place, is_mined in best.items()}
    in_slice = _slice(state.waiting) & set(state.places)
    return [
        row
        for row in state.waiting
        if (place_of(row), row.wish_id) not in keep
        and not (row.strategy == SLICE and place_of(row) in in_slice)
        and row.id not in staying
    ]


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
    first_round: int, per_round: int, taken: Set[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Rounds and ranks in them, one after another, without those that tasks have."""
    for number in itertools.count(first_round):
        for rank in range(1, per_round + 1):
            if (number, rank) not in taken:
                yield number, rank


def _new_tasks(entries: Sequence[_Entry], slots: Iterable[tuple[int, int]]) -> list[NewTask]:
    return [
        NewTask(place, number, rank, reason, strategy, wish_id)
        for (place, reason, strategy, wish_id), (number, rank) in zip(entries, slots, strict=False)
    ]
