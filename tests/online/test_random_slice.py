from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.random_slice import (
    SLICE,
    draw,
    measured,
    new_in_slice,
    num_draws,
    pooled,
    spread,
)
from ralis_backend.online.report import notes, slice_text
from ralis_backend.online.store import Store
from tests.online.conftest import MakeWorker, label_round, make_label, settle
from tests.online.fake_tool import FakeTool


def _queue(tool: FakeTool) -> list[str]:
    """Whether each region of the queue is random or not, in the order of the queue."""
    return [tool.region_tasks[task_id].data["strategy"] for task_id in tool.queue()]


def test_the_scores_of_a_slice_by_hand():
    right = np.array([[4, 0], [0, 0]])
    wrong = np.array([[0, 2], [2, 0]])
    scores = measured(np.stack([right, wrong]))
    assert scores["regions"] == 2
    assert scores["pixel_accuracy"] == [0.5, 0.0, 1.0]
    assert scores["miou"][0] == 0.25  # 4 of 8 pixels of the first class, 0 of 4 of the second
    assert (scores["right"], scores["pixels"]) == ([4, 0], [4, 4])
    assert pooled([scores, scores])["pixel_accuracy"][0] == 0.5
    assert pooled([]) is None


def test_a_slice_counts_the_classes_that_it_shows():
    scores = measured(np.array([[[3, 1], [0, 0]]]))
    assert scores["miou"][0] == 0.75


def test_the_report_tells_the_scores_with_interval_and_count():
    scores = measured(np.stack([np.array([[4, 0], [0, 4]])] * 3))
    assert slice_text({"random_slice": scores}) == "100.0 % [100.0, 100.0], 3 regions"
    assert slice_text({}) == ""
    (line,) = notes([("v1", {"random_slice": scores}), ("v2", {})])
    assert line.startswith("random slice: 100.0 % [100.0, 100.0] of the pixels right, on 3 regions")


@pytest.mark.parametrize(
    ("best", "drawn", "expected"),
    [("abcdef", "xy", "abxcdeyf"), ("", "xy", "xy"), ("ab", "", "ab"), ("abc", "x", "abxc")],
)
def test_draws_are_spread_at_equal_distances(best, drawn, expected):
    assert "".join(spread(best, drawn)) == expected


def test_a_share_of_the_queue_is_random_marked_and_spread(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker(random_share=0.25))
    assert _queue(tool) == ["k-center"] * 2 + [SLICE] + ["k-center"] * 3 + [SLICE, "k-center"]
    data = [tool.region_tasks[task_id].data for task_id in tool.queue()]
    assert "to measure the model" in data[2]["reason"]
    assert [each["rank"] for each in data] == [1, 2, 3, 4, 1, 2, 3, 4]
    prediction = tool.predictions[tool.queue()[2]]
    assert prediction.reason == data[2]["reason"]


@pytest.mark.e2e  # slow
def test_small_rounds_reach_the_share_over_time(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.125)
    settle(worker)
    for _ in range(3):
        label_round(store, tool)
        settle(worker)
    made = [row for row in store.queue.all(store.projects.all()[0].id) if row.state != "deleted"]
    assert sum(row.strategy == SLICE for row in made) == len(made) // 8


@pytest.mark.e2e  # slow
def test_a_new_version_keeps_the_slice_and_is_scored_on_it_before_it_trains(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.5)
    settle(worker)
    first = {task for task in tool.queue() if tool.region_tasks[task].data["strategy"] == SLICE}
    assert len(first) == 4
    done = set(label_round(store, tool))
    settle(worker)
    assert first - done <= set(tool.queue())
    project = store.projects.all()[0]
    labels = [label for label in store.labels.of(project.id) if label.strategy == SLICE]
    assert len(labels) == len(first & done) == 2
    version = store.versions.find(project.id, 1)
    assert version is not None
    assert "random_slice" not in version.metrics

    done = label_round(store, tool)
    new = [task for task in done if tool.region_tasks[task].data["strategy"] == SLICE]
    settle(worker)
    version = store.versions.find(project.id, 1)
    assert version is not None
    scores = version.metrics["random_slice"]
    assert scores["regions"] == len(new) == 2
    assert scores["pixels"] == [32 * 32] * 2
    value, low, high = scores["miou"]
    assert 0 <= low <= value <= high <= 1


def test_what_was_labelled_otherwise_leaves_the_slice_with_the_next_version(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=1.0)
    settle(worker)
    last = tool.region_tasks[tool.queue()[-1]].data["source_task"]
    mask = tool.files[last][1].tolist()
    tool.annotate(last, [{"mask": mask}], project_id=1)
    store.projects.change(store.projects.all()[0].id, is_sync_requested=True)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    assert last not in {tool.region_tasks[it].data["source_task"] for it in tool.queue()[3:]}


@pytest.mark.e2e  # slow
def test_a_draw_that_waits_already_is_not_handed_out_twice(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker(random_share=0.0))
    assert SLICE not in _queue(tool)
    worker = make_worker(random_share=1.0)
    for _ in range(3):
        label_round(store, tool)
        settle(worker)
    rows = [row for row in store.queue.all(store.projects.all()[0].id) if row.state != "deleted"]
    places = [(row.image_id, row.region) for row in rows]
    assert len(places) == len(set(places))
    assert {row.strategy for row in rows if row.state == "open"} == {SLICE}


def test_every_region_is_as_likely_to_be_drawn_as_any_other():
    counts: Counter[int] = Counter()
    for seed in range(400):
        counts.update(draw(range(10), 2, [seed, 1, 0]))
    assert sum(counts.values()) == 800
    assert min(counts.values()) > 50  # 80 expected, standard deviation 8
    assert max(counts.values()) < 110


def test_the_same_seed_draws_the_same_and_a_small_pool_is_drawn_whole():
    assert draw(range(100), 5, [1, 2, 3]) == draw(range(100), 5, [1, 2, 3])
    assert sorted(draw("abc", 7, [0])) == ["a", "b", "c"]
    assert draw("abc", 0, [0]) == []


@pytest.mark.parametrize(
    ("share", "num_handed_out", "num_in_slice", "room", "expected"),
    [
        (0.1, 0, 0, 48, 4),
        (0.1, 48, 4, 24, 3),  # a tenth of 72, and 4 are there
        (0.1, 100, 30, 24, 0),  # a share that was lowered
        (0.5, 100, 0, 8, 4),  # one that was raised is not caught up at once
        (0.7, 0, 0, 10, 7),  # 0.7 * 10 is a little less than 7
        (1.0, 5, 5, 0, 0),
        (0.0, 5, 0, 8, 0),
    ],
)
def test_the_slice_keeps_its_share(share, num_handed_out, num_in_slice, room, expected):
    assert num_draws(share, num_handed_out, num_in_slice, room) == expected


def test_a_version_is_measured_on_draws_that_it_has_not_learned_from():
    region = Region(0, 0, 32, 32)
    labels = [
        make_label(1, region, id=1, strategy=SLICE),
        make_label(2, region, id=5, strategy=SLICE),
        make_label(3, region, id=6, strategy="entropy"),
        make_label(4, region, id=7, strategy=SLICE),
    ]
    assert [label.id for label in new_in_slice(labels, 5)] == [7]
    assert [label.id for label in new_in_slice(labels, 0)] == [1, 5, 7]
    assert new_in_slice(labels, None) == []
    read_again = make_label(1, region, id=8, oldest_id=1, strategy=SLICE)
    assert [label.id for label in new_in_slice([*labels[1:], read_again], 5)] == [7]


def test_a_slice_tells_how_well_all_but_the_background_is_found():
    right = np.array([[6, 4], [6, 984]])
    nothing = np.array([[0, 0], [0, 1000]])
    assert measured(np.stack([right, nothing]), 0, 1)["foreground_miou"] == 0.375
    assert measured(np.stack([nothing]), 0, 1)["foreground_miou"] is None
    assert "foreground_miou" not in measured(np.stack([right]))
