from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralis_backend.core.regions import Region, grid
from ralis_backend.online.labels import RegionLabel, labels_by_image
from ralis_backend.online.random_slice import SLICE, SLICE_REASON, draw
from ralis_backend.online.store.tables import CropTask
from ralis_backend.online.worker.queue_plan import (
    Mining,
    Place,
    Plan,
    QueueRules,
    QueueState,
    open_places,
    place_of,
    plan_queue,
)
from tests.online.conftest import make_label

IMAGE_SIZE = (64, 96)
REGION_SIZE = (32, 32)
NUM_REGIONS = len(grid(IMAGE_SIZE, REGION_SIZE))
PLACE_GRID = grid(IMAGE_SIZE, REGION_SIZE)
PLACES = [Place(1, region) for region in PLACE_GRID]
SCORES = np.arange(NUM_REGIONS, 0, -1.0)  # the first is the best


def make_task(row_id: int, place: Place, **values: object) -> CropTask:
    region = place.region
    columns: dict[str, object] = {
        "round": 1,
        "rank": row_id,
        "strategy": "entropy",
        "reason": "uncertain",
        "usefulness": 0.0,
        "state": "open",
        "task_id": 100 + row_id,
    }
    return CropTask(
        id=row_id,
        image_id=place.image_id,
        row=region.row,
        col=region.col,
        height=region.height,
        width=region.width,
        **(columns | values),
    )


def make_state(tasks: Sequence[CropTask] = (), **values: object) -> QueueState:
    state = QueueState(
        places=PLACES,
        scores=SCORES,
        strategy="entropy",
        tasks=tasks,
        num_annotators=0,
        round=0,
        is_new_version=True,
        is_new_round=True,
    )
    return replace(state, **values)  # type: ignore[arg-type]


def make_plan(state: QueueState, per_round: int = 2, share: float = 0.0, seed: int = 0) -> Plan:
    return plan_queue(state, QueueRules(per_round, share, (seed, 1)), lambda place: "uncertain")


def test_an_empty_queue_gets_the_two_best_rounds():
    plan = make_plan(make_state())
    assert [task.place for task in plan.added] == PLACES[:4]
    assert [(task.round, task.rank) for task in plan.added] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert {(task.strategy, task.reason) for task in plan.added} == {("entropy", "uncertain")}
    assert plan.round == 1


def test_a_reason_is_asked_for_only_where_a_place_is_handed_out_for_its_score():
    asked: list[Place] = []

    def reason(place: Place) -> str:
        asked.append(place)
        return "uncertain"

    plan = plan_queue(make_state(), QueueRules(2, 0.5, (0, 1)), reason)
    assert asked == [task.place for task in plan.added if task.strategy != SLICE]
    assert len(asked) == 2
    assert [task.reason for task in plan.added if task.strategy == SLICE] == [SLICE_REASON] * 2


@pytest.mark.parametrize(("num_shown", "num_taken_out"), [(0, 0), (2, 1), (4, 2)])
def test_a_task_whose_image_cannot_be_shown_now_gives_way_only_to_one_that_can(
    num_shown: int, num_taken_out: int
):
    tasks = [
        make_task(number, Place(2, PLACE_GRID[number]), usefulness=1 - number / 10)
        for number in range(3)
    ]
    tasks[2].strategy = SLICE
    shown = {"places": PLACES[:num_shown], "scores": SCORES[:num_shown]}
    plan = make_plan(make_state(tasks, out_of_reach={0, 1, 2}, **shown))
    assert plan.taken_out == tasks[len(tasks) - num_taken_out :]
    assert len(plan.kept) + len(plan.added) == max(len(tasks), 2 * min(2, num_shown))


def test_a_task_that_cannot_be_shown_now_does_not_give_way_to_one_whose_image_is_gone():
    tasks = [
        make_task(number, Place(2, PLACE_GRID[number]), usefulness=1 - number / 10)
        for number in range(4)
    ]
    shown = {"places": PLACES[:2], "scores": SCORES[:2]}
    state = make_state(tasks, gone={0, 1}, out_of_reach={0, 1, 2, 3}, **shown)
    plan = make_plan(state)
    assert plan.kept == tasks[2:]
    assert len(plan.added) == 2


def test_the_same_version_fills_up_with_the_round_after_the_next_and_takes_nothing_out():
    tasks = [make_task(number, PLACES[6 - number], round=4) for number in (1, 2)]
    plan = make_plan(make_state(tasks, is_new_version=False, round=3))
    assert plan.taken_out == []
    assert [(task.place, task.round) for task in plan.added] == [(PLACES[0], 5), (PLACES[1], 5)]
    assert plan.round == 4


@pytest.mark.parametrize(("num_done", "number"), [(2, 2), (4, 3)])
def test_a_round_that_begins_has_the_first_number_that_no_task_has(num_done: int, number: int):
    tasks = [
        make_task(index, PLACES[-1], round=1 + index // 2, rank=1 + index % 2, state="done")
        for index in range(num_done)
    ]
    plan = make_plan(make_state(tasks, places=PLACES[:4], scores=SCORES[:4], round=1))
    assert plan == make_plan(
        make_state(tasks, places=PLACES[:4], scores=SCORES[:4], round=1, is_new_version=False)
    )
    assert [task.round for task in plan.added] == [number, number, number + 1, number + 1]
    assert plan.round == number


def test_a_full_queue_of_the_same_version_stays_as_it_is():
    tasks = [make_task(index, PLACES[index]) for index in range(4)]
    plan = make_plan(make_state(tasks, is_new_version=False, round=3))
    assert (plan.taken_out, plan.added, plan.drawn, plan.round) == ([], [], [], 3)
    assert plan.kept == tasks


def test_a_new_version_takes_out_what_it_finds_useless_but_not_the_head_nor_what_is_begun():
    tasks = [
        make_task(1, PLACES[5], usefulness=1.0),
        make_task(2, PLACES[4], usefulness=0.5),
        make_task(3, PLACES[0], usefulness=0.2),
    ]
    plan = make_plan(make_state(tasks))
    assert plan.taken_out == tasks[1:2]
    assert plan.kept == [tasks[0], tasks[2]]
    assert [task.place for task in plan.added] == PLACES[1:3]
    assert make_plan(make_state(tasks, num_annotators=1)).taken_out == []
    plan = make_plan(make_state(tasks, begun={2}))
    assert plan.taken_out == []
    assert [task.place for task in plan.added] == PLACES[1:2]


def test_the_slice_stays_until_its_region_is_labelled_otherwise():
    tasks = [make_task(row_id, PLACES[5], strategy=SLICE, usefulness=0.0) for row_id in (1, 2)]
    tasks[0] = make_task(1, PLACES[4], usefulness=1.0)
    assert make_plan(make_state(tasks)).taken_out == []
    labelled = make_state(tasks, places=PLACES[:5], scores=SCORES[:5])
    assert make_plan(labelled).taken_out == tasks[1:]


def test_a_draw_that_waits_for_its_score_is_marked_and_takes_no_room():
    tasks = [make_task(index, place) for index, place in enumerate(PLACES[:3])]
    state = make_state(tasks, places=PLACES[:3], scores=SCORES[:3], is_new_version=False)
    plan = make_plan(replace(state, places=PLACES[:4], scores=SCORES[:4]), share=0.25, seed=1)
    drawn = [place_of(row) for row in plan.drawn]
    assert len(drawn) == 1
    assert drawn[0] in PLACES[:3]
    assert [(task.place, task.strategy) for task in plan.added] == [(PLACES[3], "entropy")]


def test_what_is_drawn_depends_on_the_seed_the_project_and_how_much_was_handed_out():
    plan = make_plan(make_state(), share=1.0, seed=5)
    assert [task.place for task in plan.added] == draw(PLACES, 4, [5, 1, 0])
    done = make_task(1, PLACES[0], state="done", strategy=SLICE)
    state = make_state([done], places=PLACES[1:], scores=SCORES[1:])
    plan = make_plan(state, share=1.0, seed=5)
    assert [task.place for task in plan.added] == draw(PLACES[1:], 4, [5, 1, 1])


def test_the_order_is_by_score_with_the_slice_among_them_and_strangers_last():
    tasks = [
        make_task(1, PLACES[5]),  # not among the best
        make_task(2, PLACES[3], strategy=SLICE),
        make_task(3, PLACES[1]),
        make_task(4, PLACES[0]),
    ]
    assert [row.id for row in make_plan(make_state(tasks)).in_order(tasks)] == [4, 3, 2, 1]


def test_places_are_open_until_every_pixel_of_them_is_labelled():
    label = make_label(1, Region(0, 0, 32, 40))  # reaches into the second region
    scores = {1: SCORES, 2: SCORES, 3: SCORES}
    sizes = {1: IMAGE_SIZE, 3: IMAGE_SIZE}
    places, values = open_places(sizes, scores, labels_by_image([label]), REGION_SIZE)
    regions = grid(IMAGE_SIZE, REGION_SIZE)
    assert places == [Place(1, it) for it in regions[1:]] + [Place(3, it) for it in regions]
    np.testing.assert_array_equal(values, [*SCORES[1:], *SCORES])


def test_a_ranking_of_regions_of_another_size_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        open_places({1: IMAGE_SIZE}, {1: SCORES[1:]}, {}, REGION_SIZE)


@dataclass
class Game:
    """A queue that is filled by plans and labelled from its head, in memory."""

    num_images: int
    rules: QueueRules
    tasks: list[CropTask] = field(default_factory=list)
    labels: list[RegionLabel] = field(default_factory=list)
    round: int = 0
    ids: count[int] = field(default_factory=lambda: count(1))

    def waiting(self) -> list[CropTask]:
        """In the order in which annotators meet them."""
        rows = [row for row in self.tasks if row.state == "open"]
        return sorted(rows, key=lambda row: -row.usefulness)

    def label(self, number: int, annotator: str) -> None:
        for row in self.waiting()[:number]:
            row.state = "done"
            self.labels.append(make_label(row.image_id, row.region, annotator=annotator))

    def state(self, seed: int, is_new_version: bool) -> QueueState:
        rng = np.random.default_rng(seed)
        images = range(1, self.num_images + 1)
        scores = {image: rng.normal(size=NUM_REGIONS) for image in images}
        places, values = open_places(
            dict.fromkeys(images, IMAGE_SIZE), scores, labels_by_image(self.labels), REGION_SIZE
        )
        return QueueState(
            places=places,
            scores=values,
            strategy="entropy",
            tasks=sorted(self.tasks, key=lambda row: (row.round, row.rank, row.id)),
            num_annotators=len({label.annotator for label in self.labels}),
            round=self.round,
            is_new_version=is_new_version,
            is_new_round=self.round == 0 or seed % 2 == 0,
        )

    def write(self, plan: Plan) -> None:
        """What is stored before the tool has the new tasks."""
        self.tasks = [row for row in self.tasks if row not in plan.taken_out]
        for row in plan.drawn:
            row.strategy, row.wish_id = SLICE, None
        for row in plan.claimed:
            row.strategy, row.wish_id = "presence:bike", 3
        self.tasks += [
            make_task(
                next(self.ids),
                it.place,
                round=it.round,
                rank=it.rank,
                strategy=it.strategy,
                wish_id=it.wish_id,
            )
            for it in plan.added
        ]

    def publish(self, plan: Plan) -> None:
        """What is stored when the tool has everything."""
        rows = plan.in_order(sorted(self.waiting(), key=lambda row: (row.round, row.rank, row.id)))
        for index, row in enumerate(rows):
            row.usefulness = 1 - index / len(rows)
        self.round = plan.round


@settings(deadline=None)  # the machine may be busy
@given(
    num_images=st.integers(1, 5),
    per_round=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
    steps=st.lists(
        st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 99), st.integers(0, 2)),
        min_size=1,
        max_size=6,
    ),
)
def test_whatever_is_labelled_the_queue_keeps_its_promises(num_images, per_round, share, steps):
    game = Game(num_images, QueueRules(per_round, share, (0, 1)))
    for turn, (number, is_new_version, seed, num_begun) in enumerate(steps):
        game.label(number, f"annotator {turn % 3}")
        state = game.state(seed, is_new_version or turn == 0)
        begun = {row.id for row in game.waiting()[-num_begun:]} if num_begun else set()
        head = game.waiting()[: state.num_annotators + 1]
        labelled = {Place(label.image_id, label.region) for label in game.labels}
        state = replace(state, begun=begun)
        plan = plan_queue(state, game.rules, lambda place: "uncertain")

        kept = {row.id for row in plan.kept}
        assert kept == {row.id for row in state.waiting} - {row.id for row in plan.taken_out}
        assert {row.id for row in head} | begun <= kept  # nobody's work is taken away
        added = [task.place for task in plan.added]
        handed_out = [place_of(row) for row in plan.kept] + added
        assert len(handed_out) == len(set(handed_out)) <= game.rules.size  # two rounds, none twice
        assert not labelled & set(added)
        assert len(handed_out) == min(game.rules.size, len(set(state.places) | set(handed_out)))

        game.write(plan)
        after_a_kill = replace(game.state(seed, state.is_new_version), begun=begun)
        repeated = plan_queue(after_a_kill, game.rules, lambda place: "uncertain")
        assert (repeated.taken_out, repeated.added, repeated.drawn) == ([], [], [])
        game.publish(plan)
        once_published = plan_queue(
            game.state(seed, is_new_version=False), game.rules, lambda place: "uncertain"
        )
        assert (once_published.added, once_published.drawn) == ([], [])
        assert once_published.round == plan.round


@pytest.mark.parametrize("is_new_version", [True, False])
def test_a_place_that_the_tool_has_two_tasks_of_is_asked_once(is_new_version: bool):
    tasks = [make_task(3, PLACES[0]), make_task(1, PLACES[0]), make_task(2, PLACES[1])]
    state = make_state(tasks, is_new_version=is_new_version)
    plan = make_plan(state)
    assert [row.id for row in plan.taken_out] == [3]
    assert sorted(row.id for row in plan.kept) == [1, 2]
    assert len(plan.added) == 2
    again = make_plan(replace(state, begun={3}))
    assert [row.id for row in again.taken_out] == [1], "what somebody works on stays"
    both = make_plan(replace(state, begun={1, 3}))
    assert both.taken_out == []


def test_a_double_that_nobody_needs_is_taken_out_once():
    tasks = [make_task(number, PLACES[-1]) for number in (1, 2, 3)]
    plan = make_plan(make_state(tasks))
    taken = [row.id for row in plan.taken_out]
    assert len(taken) == len(set(taken))


def test_a_version_of_the_same_labels_replaces_tasks_where_they_were_and_the_round_goes_on():
    """Of rounds 3 and 4, two regions each, one task of each is worse than what is not waiting."""
    tasks = [
        make_task(1, PLACES[0], round=3, rank=1),
        make_task(2, PLACES[5], round=3, rank=2),
        make_task(3, PLACES[1], round=4, rank=1),
        make_task(4, PLACES[4], round=4, rank=2),
    ]
    tasks[0].usefulness = 1.0  # what an annotator may have open
    plan = make_plan(make_state(tasks, round=3, is_new_round=False))
    assert [row.id for row in plan.taken_out] == [2, 4]
    assert [(task.place, task.round, task.rank) for task in plan.added] == [
        (PLACES[2], 3, 2),
        (PLACES[3], 4, 2),
    ]
    assert plan.round == 3


def test_a_new_round_leaves_out_the_places_in_rounds_that_other_tasks_have():
    """Of round 2 one region is in hand, one is done; the version after it has learned more."""
    tasks = [
        make_task(1, PLACES[5], round=2, rank=2, usefulness=1.0),
        make_task(2, PLACES[4], round=2, rank=1, state="done"),
        make_task(3, PLACES[3], round=3, rank=1, state="done"),
    ]
    plan = make_plan(make_state(tasks, places=PLACES[:3], scores=SCORES[:3], round=1))
    assert [row.id for row in plan.kept] == [1]
    assert [(task.round, task.rank) for task in plan.added] == [(3, 2), (4, 1), (4, 2)]


@pytest.mark.parametrize("is_new_version", [False, True])
def test_tasks_whose_image_is_gone_make_room_unless_somebody_has_begun_them(is_new_version: bool):
    tasks = [make_task(number, Place(2, PLACE_GRID[number])) for number in range(1, 5)]
    state = make_state(
        tasks, gone={1, 2, 3, 4}, round=1, is_new_version=is_new_version, is_new_round=False
    )
    plan = make_plan(state)
    assert [row.id for row in plan.taken_out] == [1, 2, 3, 4]
    assert [task.place for task in plan.added] == PLACES[:4]
    again = make_plan(replace(state, begun={2}))
    assert [row.id for row in again.kept] == [2]
    assert len(again.added) == 3


def mining(**values: object) -> Mining:
    """A search whose best place is the last one."""
    found = Mining(3, "presence:bike", -SCORES, lambda place: "looks for bike")
    return replace(found, **values)  # type: ignore[arg-type]


def test_a_class_that_is_sought_has_the_whole_queue_best_first():
    plan = make_plan(make_state(mining=mining()))
    assert [task.place for task in plan.added] == PLACES[:-5:-1]
    assert {(task.strategy, task.reason, task.wish_id) for task in plan.added} == {
        ("presence:bike", "looks for bike", 3)
    }


def test_the_others_have_the_rest_of_a_share():
    plan = make_plan(make_state(mining=mining(share=0.5)))
    assert [(task.place, task.wish_id) for task in plan.added] == [
        (PLACES[-1], 3),
        (PLACES[0], None),
        (PLACES[-2], 3),
        (PLACES[1], None),
    ]


def test_a_queue_grows_to_what_is_wanted_in_two_rounds_and_the_slice_beside_it():
    plan = make_plan(make_state(mining=mining(count=5)), per_round=1, share=0.1)
    assert sum(task.wish_id == 3 for task in plan.added) == 5
    assert {task.round for task in plan.added} == {1, 2}
    many = make_plan(make_state(mining=mining(count=500)), share=0.1)  # more than there are
    assert len(many.added) == NUM_REGIONS


@pytest.mark.parametrize(
    ("share", "random_share", "num_others", "num_drawn"),
    [(0.1, 0.0, 18, 0), (0.1, 0.1, 19, 24), (0.5, 0.0, 10, 0), (1.0, 0.0, 0, 0)],
)
def test_beside_what_is_wanted_wait_two_rounds_of_the_others_share_and_no_more(
    share, random_share, num_others, num_drawn
):
    places = [Place(image, region) for image in range(500) for region in PLACE_GRID]
    scores = np.arange(len(places), 0, -1.0)
    wanted = mining(scores=-scores, count=200, share=share)
    state = make_state(places=places, scores=scores, mining=wanted)
    plan = make_plan(state, per_round=10, share=random_share)
    found = [(task.wish_id, task.strategy == SLICE) for task in plan.added]
    assert found.count((3, False)) == 200
    assert found.count((None, False)) == num_others
    assert found.count((None, True)) == num_drawn
    head = [task.wish_id == 3 for task in plan.added if task.strategy != SLICE][:10]
    assert sum(head) == round(10 * share)


def test_a_share_near_nothing_is_a_queue_like_any_other():
    plan = make_plan(make_state(mining=mining(count=2, share=1e-310)))
    assert [task.wish_id for task in plan.added] == [None] * 4 + [3] * 2  # all are wanted


def test_no_more_is_mined_than_is_wanted_besides_what_waits():
    tasks = [make_task(1, PLACES[-1], strategy="presence:bike", wish_id=3, usefulness=1.0)]
    plan = make_plan(make_state(tasks, mining=mining(count=2)))
    assert plan.taken_out == []
    assert [task.wish_id for task in plan.added] == [3, None, None]


def test_what_others_hold_takes_no_room_from_what_is_wanted():
    tasks = [make_task(1, PLACES[2], usefulness=1.0), make_task(2, PLACES[3], usefulness=0.5)]
    plan = make_plan(make_state(tasks, num_annotators=1, mining=mining(count=2, share=0.5)))
    assert [row.id for row in plan.kept] == [1, 2]  # somebody may have them open
    assert [(task.place, task.wish_id) for task in plan.added] == [
        (PLACES[-1], 3),
        (PLACES[-2], 3),
    ]


def test_what_the_slice_draws_is_not_counted_as_mined():
    for seed in range(8):
        plan = make_plan(make_state(mining=mining(count=3)), share=0.4, seed=seed)
        assert sum(task.strategy == SLICE for task in plan.added) == 2
        assert sum(task.wish_id == 3 for task in plan.added) == 3


def test_a_task_for_another_reason_is_replaced_but_for_one_that_may_be_open():
    tasks = [
        make_task(1, PLACES[-1], usefulness=1.0),  # the head: somebody may have it open
        make_task(2, PLACES[-2], usefulness=0.5),
        make_task(3, PLACES[-3], strategy=SLICE, reason=SLICE_REASON),
        make_task(4, PLACES[0], strategy="presence:cat", wish_id=2),
    ]
    plan = make_plan(make_state(tasks, mining=mining(count=3)))
    assert [row.id for row in plan.taken_out] == [2, 4]
    assert [row.id for row in plan.claimed] == [1]
    assert [(task.place, task.wish_id) for task in plan.added] == [
        (PLACES[-2], 3),
        (PLACES[-4], 3),  # the slice asks for the one before, of everybody
    ]


def test_what_is_mined_may_lie_in_one_image_alone():
    places = [Place(image, region) for image in (1, 2) for region in grid(IMAGE_SIZE, REGION_SIZE)]
    scores = np.arange(len(places), 0, -1.0)
    state = make_state(places=places, scores=np.zeros(len(places)), mining=mining(scores=scores))
    plan = make_plan(state, per_round=3)
    assert {task.place.image_id for task in plan.added} == {1}


@settings(deadline=None)
@given(
    num_images=st.integers(1, 5),
    per_round=st.integers(1, 4),
    random_share=st.sampled_from([0.0, 0.1, 0.25, 0.5]),
    share=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    wanted=st.integers(1, 12),
    steps=st.lists(
        st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 99), st.integers(0, 2)),
        min_size=1,
        max_size=6,
    ),
)
def test_as_many_as_are_wanted_wait_whatever_else_the_queue_holds(
    num_images, per_round, random_share, share, wanted, steps
):
    game = Game(num_images, QueueRules(per_round, random_share, (0, 1)))
    for turn, (number, is_new_version, seed, num_begun) in enumerate(steps):
        game.label(number, f"annotator {turn % 3}")
        state = game.state(seed, is_new_version or turn in (0, 1))
        if turn:  # the first queue is made before anybody looks for anything
            done = sum(row.wish_id == 3 and row.state == "done" for row in game.tasks)
            scores = np.random.default_rng([seed, 1]).normal(size=len(state.places))
            search = mining(scores=scores, share=share, count=max(0, wanted - done))
            state = replace(state, mining=search)
        begun = {row.id for row in game.waiting()[-num_begun:]} if num_begun else set()
        state = replace(state, begun=begun)
        plan = plan_queue(state, game.rules, lambda place: "uncertain")
        game.write(plan)

        if state.mining is not None:
            others = {place_of(row) for row in plan.kept if row.wish_id != 3}
            others |= {task.place for task in plan.added if task.strategy == SLICE}
            free = set(state.places) - others
            num_mined = sum(row.wish_id == 3 for row in game.waiting())
            assert num_mined >= min(state.mining.count, len(free))
            usual = [it for it in plan.added if it.wish_id is None and it.strategy != SLICE]
            assert len(usual) <= game.rules.size
            places = [place_of(row) for row in game.waiting()]
            assert len(places) == len(set(places))
        repeated = plan_queue(state_after(state, game), game.rules, lambda place: "uncertain")
        assert (repeated.taken_out, repeated.added, repeated.drawn) == ([], [], [])
        assert repeated.claimed == []
        game.publish(plan)


def state_after(state: QueueState, game: Game) -> QueueState:
    """The same scores and wish once a plan was stored."""
    tasks = sorted(game.tasks, key=lambda row: (row.round, row.rank, row.id))
    return replace(state, tasks=tasks)


def test_when_nobody_looks_any_more_the_mined_tasks_go():
    tasks = [make_task(row, PLACES[-row], wish_id=3, usefulness=1 / row) for row in (1, 2, 3)]
    plan = make_plan(make_state(tasks))
    assert [row.id for row in plan.taken_out] == [2, 3]
    assert all(task.wish_id is None for task in plan.added)
