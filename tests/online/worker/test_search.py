from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import STRATEGIES, PoolState
from ralis_backend.core.acquisition.mining import Presence
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy import MisicalPolicy
from ralis_backend.core.policy.misical import MisicalSpec
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.online import trust
from ralis_backend.online.hits import MINING, shown_wish
from ralis_backend.online.report import notes
from ralis_backend.online.seeking import LINEAR
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Wish
from ralis_backend.online.store.wishes import REACHED, STOPPED
from ralis_backend.online.tool import ClassLabel, ToolTask
from ralis_backend.online.wanted import Wanted, make_wish, remarks
from ralis_backend.online.worker import new_version
from ralis_backend.online.worker.search import NOTHING_LEFT, least_typical, nearest
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import CLASSES, START, FakeTool, picture
from tests.online.worker.test_failing_steps import out_of_reach
from tests.tiny_segmenter import TinySegmenter

pytestmark = pytest.mark.e2e  # a dozen small trainings


def wish_for(store: Store, project: Project, **values: object) -> Wish:
    wanted = Wanted("bright", **values)  # type: ignore[arg-type]
    return store.wishes.begin(make_wish(store, project, wanted, RANKING))


@pytest.fixture
def trained(store: Store, tool: FakeTool, make_worker: MakeWorker):
    """A worker whose project has one version that has learned both classes."""
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    assert project.current_version == 1
    return worker


def mined(store: Store, project: Project) -> list:
    return [row for row in store.queue.open(project.id) if row.wish_id is not None]


def test_a_wish_fills_the_queue_from_one_ranking_without_a_training(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    wish = wish_for(store, project, count=20)
    num_images = tool.calls.count("image")
    settle(trained)
    (project,) = store.projects.all()
    rows = mined(store, project)
    assert len(rows) == 20
    assert {row.strategy for row in rows} == {"presence:bright"}
    assert all(row.reason.startswith("looks for bright: ") for row in rows)
    assert (project.current_version, project.published_wish) == (1, wish.id)
    data = [tool.region_tasks[row.task_id].data for row in rows if row.task_id is not None]
    told = [it for it in data if it["strategy"] == "presence:bright"]
    assert len(told) >= 18  # two may be open in a browser: they say what they said
    assert all(it["reason"].startswith("looks for bright: ") for it in told)
    assert all(tool.predictions[task].reason.startswith("looks for ") for task in tool.queue())
    assert tool.calls.count("image") - num_images <= 2 * len(tool.files)  # ranked, then cut


def test_a_stopped_wish_gives_the_queue_back_to_the_ordinary_strategy(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    wish = wish_for(store, project)
    settle(trained)
    assert len(mined(store, project)) == 8
    store.wishes.end(wish.id, STOPPED)
    settle(trained)
    (project,) = store.projects.all()
    assert project.published_wish is None
    rows = store.queue.open(project.id)
    assert len(rows) == 8
    assert sum(row.strategy == "presence:bright" for row in rows) <= 2  # what may be open
    tasks = {row.task_id for row in rows}
    assert len(tasks) == 8, "each its own"
    assert tasks <= tool.region_tasks.keys()


def test_half_a_share_leaves_the_others_half_of_the_queue(store: Store, tool: FakeTool, trained):
    (project,) = store.projects.all()
    wish_for(store, project, share=0.5)
    settle(trained)
    assert 3 <= len(mined(store, project)) <= 4
    assert len(store.queue.open(project.id)) == 8


def test_a_wish_ends_by_itself_and_says_what_was_found(store: Store, tool: FakeTool, trained):
    (project,) = store.projects.all()
    wish_for(store, project, count=3)
    settle(trained)
    for _ in range(4):
        label_round(store, tool, 2)
        settle(trained)
    (wish,) = store.wishes.all(project.id)
    assert wish.ended_by == REACHED
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.num_labelled >= 3
    assert status.pixels_now > status.pixels_before


def test_before_any_version_only_what_looks_like_an_example_can_be_mined(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    (project,) = store.projects.all()
    wish_for(store, project, examples=["task:3"])
    settle(worker)
    rows = mined(store, project)
    assert len(rows) >= 7  # the head may be open in a browser
    assert {(row.strategy, row.reason) for row in rows} == {
        ("similarity:bright", "looks for bright: similar to what shows it")
    }
    image = store.images.of(project.id)[2]
    assert sum(row.image_id == image.id for row in rows) >= 1  # the example is most like itself
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.note == "v0 has not learned 'bright': what looks like it is sought"


def test_a_class_without_labels_is_sought_by_the_one_that_it_is_said_to_look_like(
    store: Store, tool: FakeTool, trained
):
    classes = (*CLASSES, ClassLabel("new", "#FF0000"))
    tool.pool = replace(tool.pool, label_config="<View2/>", classes=classes)
    (project,) = store.projects.all()
    store.projects.change(project.id, is_sync_requested=True)
    settle(trained)
    (project,) = store.projects.all()
    wanted = Wanted("new", like="bright", count=6)
    store.wishes.begin(make_wish(store, project, wanted, RANKING))
    settle(trained)
    rows = mined(store, project)
    assert len(rows) == 6
    assert {row.strategy for row in rows} == {"presence:bright"}
    assert all("in search of new, said to look like it" in row.reason for row in rows)
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.note == "v1 has not learned 'new': what it takes for 'bright' is sought"


def test_a_wish_that_nothing_is_known_for_leaves_the_queue_as_it_is_and_says_why(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    (project,) = store.projects.all()
    before = [row.id for row in store.queue.open(project.id)]
    wish_for(store, project)
    settle(worker)
    assert [row.id for row in store.queue.open(project.id)] == before
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.strategy is None
    assert status.note is not None
    assert status.note.startswith("no version has learned 'bright' and no region or example shows")


def test_a_class_that_is_gone_rests_the_wish_until_it_is_back(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    wish = wish_for(store, project)
    settle(trained)
    tool.pool = replace(tool.pool, label_config="<View></View>", classes=CLASSES[:1])
    store.projects.change(project.id, is_sync_requested=True)
    settle(trained)
    project = store.projects.by_id(project.id)
    assert project.published_wish is None
    assert len(mined(store, project)) <= 2
    assert "the wish rests" in tool.descriptions[1]
    tool.pool = replace(tool.pool, label_config="<View/>", classes=CLASSES)
    store.projects.change(project.id, is_sync_requested=True)
    settle(trained)
    assert store.projects.by_id(project.id).published_wish == wish.id
    assert len(mined(store, project)) == 8


def test_on_whole_images_the_regions_of_a_class_come_first_and_are_counted(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place", suggestions_per_image=2)
    settle(worker)
    for task in tool.pool_tasks[:4]:
        annotate_suggestion(store, tool, task.id)
    settle(worker)
    (project,) = store.projects.all()
    assert project.current_version == 1
    before = {it.task_id: it.regions for it in tool.image_predictions}
    wish = wish_for(store, project, count=1)
    settle(worker)
    suggested = {it.task_id: it.regions for it in tool.image_predictions}
    assert tool.version == "v1"
    for task in tool.pool_tasks[4:]:
        assert {it.wish_id for it in suggested[task.id]} == {None, wish.id}  # one is wanted
        assert suggested[task.id][0].reason.startswith("looks for bright: ")
    assert before != suggested
    annotate_suggestion(store, tool, tool.pool_tasks[5].id)
    settle(worker)
    (ended,) = store.wishes.all(project.id)
    assert ended.ended_by == REACHED
    (label,) = store.labels.mined(project.id, wish.id)
    assert label.strategy == "presence:bright"


def test_going_back_to_a_version_hands_out_what_is_sought_now_and_no_more(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place", suggestions_per_image=2, promotion_tolerance=1.0)
    settle(worker)
    (project,) = store.projects.all()
    for task in tool.pool_tasks[:4]:
        annotate_suggestion(store, tool, task.id)
    settle(worker)
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    assert store.projects.by_id(project.id).published_version == 2
    asked_for = tool.pool_tasks[4:]

    def suggested() -> set[tuple[int | None, bool]]:
        """Wishes of what the last tasks suggest, and whether a reason says that a class is sought.

        Nobody has begun on those.
        """
        regions = {it.task_id: it.regions for it in tool.image_predictions}
        every = (region for task in asked_for for region in regions[task.id])
        return {(it.wish_id, it.reason.startswith("looks for bright")) for it in every}

    wish = wish_for(store, project)
    store.versions.use(project.id, 1)
    settle(worker)
    assert tool.version == "v1"
    assert suggested() == {(wish.id, True)}
    store.versions.use(project.id, 2)
    settle(worker)
    assert suggested() == {(wish.id, True)}
    store.wishes.end(wish.id, STOPPED)
    store.versions.use(project.id, 1)
    settle(worker)
    assert tool.version == "v1"
    assert suggested() == {(None, False)}


@pytest.mark.parametrize("change", ["small boxes", "other regions"])
def test_a_class_that_is_painted_in_parts_of_regions_alone_is_sought_by_what_they_look_like(
    store: Store, tool: FakeTool, make_worker: MakeWorker, change: str
):
    worker = make_worker("in-place", suggestions_per_image=2)
    settle(worker)
    (project,) = store.projects.all()
    truth = tool.files[1][1]
    rows, cols = np.nonzero(truth == 1)
    row, col = min(int(rows[0]), 40), min(int(cols[0]), 72)
    mask = np.full(truth.shape, VOID)
    mask[row : row + 24, col : col + 24] = truth[row : row + 24, col : col + 24]
    boxes = [{"mask": mask.tolist()}, {"box": [row, col, 24, 24]}]
    event = tool.annotate(1, boxes, project_id=1)
    store.events.add("1.100", "ANNOTATION_CREATED", event)
    settle(worker)
    (label,) = store.labels.of(project.id)
    assert (label.region.height, label.region.width) == (24, 24)
    if change == "other regions":
        worker = make_worker("in-place", ranking=replace(RANKING, region_size=(48, 48)))
    wish = wish_for(store, project)
    assert wish.pixels_before > 0
    settle(worker)
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.strategy == "similarity:bright"
    assert store.projects.by_id(project.id).published_wish == wish.id


def annotate_suggestion(store: Store, tool: FakeTool, task_id: int) -> None:
    """Paint what was suggested on a whole image."""
    (suggestion,) = (it for it in tool.image_predictions if it.task_id == task_id)
    boxes = [
        {"box": [it.region.row, it.region.col, it.region.height, it.region.width]}
        for it in suggestion.regions
    ]
    mask = {"mask": tool.files[task_id][1].tolist()}
    event = tool.annotate(task_id, [mask, *boxes], project_id=1)
    store.events.add("1.100", "ANNOTATION_CREATED", event)


class Learned(Presence):
    """Passes for a trained miner, and looks where presence looks least."""

    name = "learned"
    is_trained = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        return -super().scores(state, actions)


@pytest.fixture
def learned() -> Iterator[str]:
    STRATEGIES.register(Learned.name, Learned())
    yield Learned.name
    del STRATEGIES[Learned.name]


@pytest.mark.parametrize(
    ("lead", "verdict", "looks"),
    [(0.0, "trusted", "learned:bright"), (-0.2, "not trusted", "presence:bright")],
)
def test_a_trained_miner_looks_where_it_was_not_found_worse(
    store: Store, trained, learned, monkeypatch, lead, verdict, looks
):
    def replay(regions: object, strategies: dict[str, object], *_: object, **__: object):
        found = np.array([0.5, 0.6, 0.7])
        return {name: found + (lead if "learned" in name else 0.0) for name in strategies}

    monkeypatch.setattr(trust, "replay_mining", replay)
    monkeypatch.setattr(trust, "check_target", lambda *_: None)
    (project,) = store.projects.all()
    wish_for(store, project, strategy=learned)
    settle(trained)
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.strategy == looks
    version = store.versions.find(project.id, 1)
    assert version is not None
    told = version.metrics[MINING]["trust"]
    assert (told["verdict"], told["best"]) == (verdict, "presence:bright")
    assert f"learned:bright, {verdict}" in "\n".join(notes([("v1", version.metrics)]))


def test_a_policy_in_a_file_looks_by_its_name_where_it_is_trusted(
    store: Store, tool: FakeTool, make_worker: MakeWorker, tmp_path, monkeypatch
):
    for name, architecture in (("misical", "mlp"), (LINEAR, "linear")):
        spec = MisicalSpec(architecture=architecture, hidden=8)
        MisicalPolicy.untrained(spec, 0, name).save(tmp_path / f"{name}.safetensors")
    played: list[list[str]] = []
    look = TinySegmenter.look

    def look_deeper(
        self: TinySegmenter, pixels: torch.Tensor, maps: Collection[str]
    ) -> dict[str, torch.Tensor]:
        seen = look(self, pixels, {*maps, "bald"})
        return {**seen, "deep_bald": seen["bald"]}

    monkeypatch.setattr(TinySegmenter, "offers", TinySegmenter.offers | {"deep_bald"})
    monkeypatch.setattr(TinySegmenter, "look", look_deeper)

    def replay(regions: object, strategies: dict[str, object], *_: object, **__: object):
        played.append(list(strategies))
        return {name: np.array([0.5, 0.6]) for name in strategies}

    monkeypatch.setattr(trust, "replay_mining", replay)
    monkeypatch.setattr(trust, "check_target", lambda *_: None)
    config = replace(RANKING, policies_dir=tmp_path)
    worker = make_worker(ranking=config)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    store.wishes.begin(make_wish(store, project, Wanted("bright", strategy="misical"), config))
    settle(worker)
    assert played == [["misical:bright", "presence:bright", f"{LINEAR}:bright"]]
    rows = mined(store, project)
    assert {row.strategy for row in rows} == {"misical:bright"}
    assert all(row.reason.startswith("looks for bright: ") for row in rows)


def test_a_trained_miner_that_cannot_be_tested_yet_leaves_it_to_presence(
    store: Store, trained, learned
):
    (project,) = store.projects.all()
    wish_for(store, project, strategy=learned)
    settle(trained)
    rows = mined(store, project)
    assert {row.strategy for row in rows} == {"presence:bright"}
    assert rows[-1].reason.endswith("(in place of learned:bright: too few labels)")


def test_a_miner_that_breaks_is_replaced_and_the_status_says_so(store: Store, trained, monkeypatch):
    def broken(*_: object) -> np.ndarray:
        raise IndexError("no such column")

    monkeypatch.setattr(type(STRATEGIES["presence-max"]), "scores", broken)
    (project,) = store.projects.all()
    wish_for(store, project, strategy="presence-max")
    settle(trained)
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.strategy == "presence:bright"
    assert status.note == "presence-max:bright failed: no such column"


def test_a_miner_that_gives_no_reasons_is_named_instead(store: Store, trained, monkeypatch):
    def broken(*_: object) -> list[str]:
        raise IndexError("no such column")

    monkeypatch.setattr(type(STRATEGIES["presence-max"]), "reasons", broken)
    (project,) = store.projects.all()
    wish_for(store, project, strategy="presence-max")
    settle(trained)
    assert {row.reason for row in mined(store, project)} == {"chosen by presence-max:bright"}


def test_a_search_through_pictures_that_are_all_broken_comes_to_rest(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    tool.files = {}
    wish_for(store, project)
    settle(trained)
    assert mined(store, project) == []
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.strategy is None


def test_a_class_that_one_image_alone_shows_is_told_and_a_pool_without_open_regions_refused(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    (project,) = store.projects.all()
    task = next(it for it in tool.queue() if (tool.truth(it) == 1).any())
    store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task))
    settle(worker)
    project = store.projects.by_id(project.id)
    wish = wish_for(store, project)
    (told,) = remarks(store, project, wish, RANKING)
    assert told.startswith("'bright' is labelled in one image alone")
    for each in tool.pool_tasks:
        mask = {"mask": tool.files[each.id][1].tolist()}
        store.events.add(
            "1.100", "ANNOTATION_CREATED", tool.annotate(each.id, [mask], project_id=1)
        )
    settle(worker)
    with pytest.raises(ValueError, match="every region of project 1 is labelled"):
        list(remarks(store, project, wish, RANKING))
    assert len(store.queue.open(project.id)) <= 2  # what may be open; the wish asks for no more


def test_a_search_whose_pool_is_used_up_says_so_and_goes_on_with_new_images(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    wish = wish_for(store, project, count=1000)
    for each in tool.pool_tasks:
        mask = {"mask": tool.files[each.id][1].tolist()}
        tool.annotate(each.id, [mask], project_id=1)
    store.projects.request_training(project.id)
    settle(trained)
    project = store.projects.by_id(project.id)
    status = shown_wish(store, project)
    assert status is not None
    assert status.strategy is None
    assert status.note == NOTHING_LEFT
    assert wish.ended_at is None
    tool.files[99] = picture(99)
    tool.pool_tasks.append(ToolTask(99, START, "/data/99.png"))
    store.projects.change(project.id, is_sync_requested=True)
    settle(trained)
    found = store.images.of_tasks(project.id, [99])[99].id
    assert {row.image_id for row in mined(store, project)} == {found}


def test_a_search_goes_on_when_a_label_of_a_used_up_pool_is_deleted(
    store: Store, tool: FakeTool, trained
):
    (project,) = store.projects.all()
    wish_for(store, project, count=1000)
    for each in tool.pool_tasks:
        mask = {"mask": tool.files[each.id][1].tolist()}
        tool.annotate(each.id, [mask], project_id=1)
    store.projects.request_training(project.id)
    settle(trained)
    gone = tool.all_annotations[1].pop(max(tool.all_annotations[1]))
    store.projects.change(project.id, is_sync_requested=True)
    settle(trained)
    status = shown_wish(store, store.projects.by_id(project.id))
    assert status is not None
    assert status.strategy is not None
    found = store.images.of_tasks(project.id, [gone.task_id])[gone.task_id].id
    assert {row.image_id for row in mined(store, project)} == {found}


def test_the_least_typical_quarter_of_an_image_stands_for_it():
    embeddings = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0], [1, 0]], np.float32)
    assert least_typical(embeddings, np.array([1.0, 0.0])).tolist() == [1, 2]
    assert least_typical(embeddings[:1], np.array([1.0, 0.0])).tolist() == [0]


def test_an_example_of_another_grid_is_the_region_that_lies_nearest():
    regions = grid((64, 96), (32, 32))
    assert nearest(regions, Region(30, 60, 20, 20)) == regions.index(Region(32, 64, 32, 32))


def test_versions_that_are_refused_leave_the_others_their_share(
    store: Store, tool: FakeTool, trained, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(new_version, "is_promoted", lambda *_: False)
    (project,) = store.projects.all()
    wish_for(store, project, count=14, share=0.5)
    settle(trained)
    mined_by_round = []
    for _ in range(3):
        labelled = set(label_round(store, tool))
        settle(trained)
        done = [row for row in store.queue.all(project.id) if row.task_id in labelled]
        mined_by_round.append(sum(row.wish_id is not None for row in done))
    assert mined_by_round == [2, 2, 2]
    assert store.projects.by_id(project.id).current_version == 1


def test_tasks_of_a_withdrawn_wish_stay_and_say_their_new_reason_while_images_are_out_of_reach(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(random_share=0.0)
    settle(worker)
    label_round(store, tool)
    settle(worker)
    wish = wish_for(store, store.projects.all()[0])
    settle(worker)
    before = tool.queue()
    monkeypatch.setattr(tool, "image", out_of_reach(tool, set(tool.files)))
    store.wishes.end(wish.id, "withdrawn")
    for _ in range(4):
        worker.advance_all()
    project = store.projects.all()[0]
    assert set(tool.queue()) == set(before)
    kept = [row for row in store.queue.open(project.id) if row.wish_id is None]
    assert kept
    assert all(row.task_id in before and row.strategy == "entropy" for row in kept)
