from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from sqlalchemy import select

from ralis_backend.core.regions import VOID, Region
from ralis_backend.online.labels import covered
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Suggestion
from ralis_backend.online.tool import ImageUnreachable, ToolTask
from ralis_backend.online.worker import WorkerConfig, label_reader
from ralis_backend.online.worker.sync import Sync
from tests.online.conftest import RANKING, MakeWorker, settle
from tests.online.fake_tool import FakeTool, picture


def suggested(store: Store) -> Suggestion:
    """What the first task was answered with."""
    (project,) = store.projects.all()
    image_id = store.images.of(project.id)[0].id
    with store.database.read() as session:
        return session.scalars(select(Suggestion).where(Suggestion.image_id == image_id)).one()


def submit(store: Store, tool: FakeTool, size: tuple[int, int]) -> None:
    """Submit the first image as a whole, all of it painted, begun from what was suggested."""
    results = [{"mask": np.ones(size, np.uint8).tolist()}]
    store.events.add("1.100", "ANNOTATION_CREATED", tool.annotate(1, results, project_id=1))


def test_suggestions_of_a_larger_image_are_labelled_as_far_as_the_image_reaches(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place")
    settle(worker)
    entries = [{"row": 32, "col": 32, "height": 32, "width": 32}]
    entries += [{**entries[0], "col": 64}, {**entries[0], "row": 0}]
    with store.database.write() as session:
        session.merge(suggested(store)).regions = entries
    tool.files[1] = picture(1, (40, 60))
    store.images.seen(suggested(store).image_id, (40, 60))
    submit(store, tool, (40, 60))
    worker.advance_all()
    labels = store.labels.of(store.projects.all()[0].id)
    asked = {Region(32, 32, 8, 28), Region(0, 32, 32, 28)}
    assert asked < {label.region for label in labels}
    assert sum(sum(label.pixels) for label in labels) == 40 * 60
    for label in labels:
        assert store.labels.mask(label).shape == (label.region.height, label.region.width)


def test_where_no_suggestion_lies_in_the_image_any_more_that_is_said(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker("in-place")
    settle(worker)
    outside = {"row": 64, "col": 0, "height": 32, "width": 32}
    with store.database.write() as session:
        session.merge(suggested(store)).regions = [outside]
    submit(store, tool, (64, 96))
    worker.advance_all()
    (project,) = store.projects.all()
    assert store.labels.of(project.id) == []
    (odd,) = store.annotations.left_out(project.id)
    assert "none of the regions that were suggested" in odd.what[0]


def test_an_image_that_many_annotations_are_of_is_asked_for_once_while_it_is_out_of_reach(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    project = store.projects.register("1.100", 1, "<View/>", tool.pool.classes, "pool")
    for annotator in ("ann", "bob", "cid"):
        tool.annotate(1, [{"mask": np.ones((64, 96)).tolist()}], project_id=1, annotator=annotator)
    asked = []

    def image(task: ToolTask) -> bytes:
        asked.append(task.id)
        raise ImageUnreachable("503")

    config = WorkerConfig(mode="in-place", improve_s=0.0, ranking=RANKING)
    sync = Sync(store, tool, config)
    with monkeypatch.context() as outage:
        outage.setattr(tool, "image", image)
        for _ in range(2):
            sync.full(store.projects.by_id(project.id))
    assert asked == [1]
    (bad,) = store.images.bad(project.id)
    assert bad.error == "503"
    store.images.change(bad.id, retry_at=now())
    sync.full(store.projects.by_id(project.id))
    assert len(list(store.annotations.unread(project.id))) == 0
    assert {label.image_id for label in store.labels.of(project.id)} == {bad.id}


SIZE = (64, 96)
LEFT, RIGHT, LOWER = Region(0, 0, 32, 32), Region(0, 32, 32, 32), Region(32, 0, 32, 32)
GRID = {(row, col) for row in (0, 32) for col in (0, 32, 64)}


class Painting:
    """A project of whole images, unpainted pixels dark, that is read after each submission."""

    def __init__(self, store: Store, tool: FakeTool) -> None:
        self.store, self.tool = store, tool
        pool = tool.pool
        register = store.projects.register
        register(pool.uid, pool.id, pool.label_config, pool.classes, "pool", None, "dark")
        config = WorkerConfig(mode="in-place", improve_s=0.0, ranking=RANKING)
        self._sync = Sync(store, tool, config)
        self.read()

    def read(self) -> None:
        self._sync.full(self.project)

    def read_again(self) -> None:
        self.store.annotations.reread([1])
        self.read()

    @property
    def project(self):
        return self.store.projects.get("1.100")

    def hand_out(self, *regions: Region, version: int = 3, task: int = 1) -> None:
        image_id = self.store.images.of(self.project.id)[task - 1].id
        self.store.queue.hand_out(image_id, version, [asdict(region) for region in regions])

    def submit(
        self,
        *painted: Region,
        number: int = 1,
        version: str | None = None,
        task: int = 1,
        **values: object,
    ) -> None:
        """An annotation with the left half of these regions painted bright."""
        mask = np.full(SIZE, VOID, np.uint8)
        for region in painted:
            mask[region.row : region.row + 32, region.col : region.col + 16] = 1
        self.tool.version = version
        results = [{"mask": mask.tolist()}] if painted else []
        self.tool.annotate(task, results, project_id=1, annotation_id=number)
        self.change(number, **values)

    def change(self, number: int, **values: object) -> None:
        known = self.tool.all_annotations[1]
        known[number] = replace(known[number], **values)
        self.read()

    def labels(self, task: int | None = None) -> dict[tuple[int, int], Sequence[int]]:
        """Dark and bright pixels of each labelled region, of all images or of one."""
        found = self.store.labels.every(self.project.id)
        if task is not None:
            image_id = self.store.images.of(self.project.id)[task - 1].id
            found = [it for it in found if it.image_id == image_id]
        return {(it.region.row, it.region.col): tuple(it.pixels) for it in found}

    def left_out(self) -> list[str]:
        return [text for it in self.store.annotations.left_out(self.project.id) for text in it.what]


@pytest.fixture
def painting(store: Store, tool: FakeTool) -> Painting:
    return Painting(store, tool)


HALF, DARK = (512, 512), (1024,)


def test_a_duplicate_is_about_the_regions_that_its_original_is_about(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.submit(LEFT, version="v3")
    painting.hand_out(LOWER, version=4)
    painting.submit(LEFT, number=2, copied_from=1)
    painting.submit(LEFT, number=3, copied_from=2)
    painting.tool.all_annotations[1].pop(1)
    painting.tool.all_annotations[1].pop(2)
    painting.read()
    assert painting.labels() == {(0, 0): HALF, (0, 32): DARK}


def test_an_original_that_is_read_with_its_duplicate_is_known_to_it(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.submit(LEFT, version="v3", number=7)
    known = painting.tool.all_annotations[1]
    original = known.pop(7)
    known[8] = replace(original, id=8, suggested_version=None, copied_from=6)
    known[6] = replace(original, id=6)
    painting.read()
    assert len(painting.store.labels.every(painting.project.id)) == 4
    assert painting.labels() == {(0, 0): HALF, (0, 32): DARK}


def test_what_was_taken_back_while_it_was_open_is_what_was_painted_in(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.store.queue.take_back(painting.project.id, 3, 5)
    painting.submit(LEFT)  # its prediction is dropped
    assert painting.labels() == {(0, 0): HALF}
    painting.submit(LEFT, version="v3", number=2)
    assert painting.labels() == {(0, 0): HALF}


def test_nothing_of_regions_that_took_the_places_of_others_is_background_unseen(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.store.queue.take_back(painting.project.id, 3, 5)
    painting.hand_out(LOWER, RIGHT)
    painting.submit(LEFT, RIGHT, version="v3")
    assert painting.labels() == {(0, 0): HALF, (0, 32): HALF}


def test_where_nobody_knows_what_an_annotation_began_from_what_is_painted_of_regions_counts(
    painting,
):
    painting.hand_out(LEFT, RIGHT)
    painting.hand_out(LOWER, version=4)
    painting.submit(LOWER, LEFT, Region(32, 64, 32, 32))
    assert painting.labels() == {(0, 0): HALF, (32, 0): HALF, (32, 64): (0, 512)}
    painting.submit()
    assert painting.labels() == {}
    assert painting.left_out() == [label_reader.UNKNOWN_WHICH]
    painting.submit(LEFT, version="v3")
    assert painting.labels() == {(0, 0): HALF, (0, 32): DARK}


def test_a_skip_of_which_nobody_knows_what_it_began_from_speaks_of_what_was_handed_out(painting):
    painting.hand_out(LEFT)
    painting.tool.annotate(1, [], project_id=1, annotation_id=1, is_skipped=True)
    painting.read()
    (skipped,) = painting.store.labels.every(painting.project.id)
    assert (skipped.region, skipped.is_skipped) == (LEFT, True)


def test_an_annotation_of_a_whole_image_stays_one_when_regions_of_it_are_handed_out_later(
    painting,
):
    whole = {**dict.fromkeys(GRID, DARK), (0, 0): HALF}
    painting.submit(LEFT)
    assert painting.labels() == whole
    painting.hand_out(RIGHT)
    painting.submit(LEFT, LOWER)
    assert painting.labels() == {**whole, (32, 0): HALF}
    painting.submit(LEFT, LOWER, number=2, copied_from=1)
    assert painting.labels() == {**whole, (32, 0): HALF}


def test_what_began_from_a_prediction_of_others_is_of_the_whole_image(painting):
    whole = {**dict.fromkeys(GRID, DARK), (0, 0): HALF}
    painting.hand_out(RIGHT)
    painting.submit(LEFT, is_of_others=True)
    assert painting.labels() == whole
    painting.submit(LEFT)  # their prediction is deleted
    painting.read_again()
    assert painting.labels() == whole
    painting.submit(is_of_others=True)
    assert painting.labels() == dict.fromkeys(GRID, DARK)


def test_where_boxes_show_the_regions_an_annotation_without_any_is_of_the_whole_image(painting):
    painting.hand_out(RIGHT)
    pool = painting.tool.pool
    painting.tool.pool = replace(pool, shows_boxes=True)
    painting.submit(LEFT)
    assert set(painting.labels()) == GRID
    painting.tool.pool = pool
    painting.read_again()
    assert set(painting.labels()) == GRID, "whatever is shown by now"


def test_boxes_that_come_later_make_no_whole_image_of_what_began_without_them(painting):
    painting.hand_out(RIGHT)
    painting.submit(LEFT)
    painting.tool.pool = replace(painting.tool.pool, shows_boxes=True)
    painting.read_again()
    assert painting.labels() == {(0, 0): (0, 512)}


def test_what_is_handed_out_later_changes_nothing_of_what_an_annotation_says(painting):
    painting.hand_out(LEFT)
    painting.submit(LEFT, LOWER)
    said = {(0, 0): HALF, (32, 0): (0, 512)}
    assert painting.labels() == said
    painting.hand_out(LOWER, RIGHT, version=4)
    painting.read_again()
    assert painting.labels() == said
    painting.submit(LEFT, LOWER, Region(32, 64, 32, 32))
    assert painting.labels() == {**said, (32, 64): (0, 512)}
    painting.submit(is_skipped=True)
    assert painting.labels() == {(0, 0): ()}


def test_where_no_box_says_where_to_paint_whatever_a_person_paints_counts(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.submit(LEFT, LOWER, version="v3")
    assert painting.labels() == {(0, 0): HALF, (0, 32): DARK, (32, 0): (0, 512)}
    assert painting.left_out() == []
    labels = painting.store.labels.every(painting.project.id)
    assert {it.region: it.version for it in labels} == {LEFT: 3, RIGHT: 3, LOWER: None}
    assert {it.region: it.share_beside for it in labels} == {LEFT: None, RIGHT: None, LOWER: 0.5}


def test_regions_that_a_later_reading_finds_besides_are_no_labelling(painting, monkeypatch):
    painting.hand_out(LEFT)
    with monkeypatch.context() as before:
        before.setattr(label_reader, "_made_elsewhere", lambda *_: [])
        painting.submit(LEFT, LOWER, version="v3")
    (known,) = painting.store.labels.every(painting.project.id)
    painting.read_again()
    found = {it.region: it.oldest_id for it in painting.store.labels.every(painting.project.id)}
    assert found == {LEFT: known.id, LOWER: known.id}


def test_where_boxes_say_where_to_paint_nothing_else_counts(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.submit(LEFT, LOWER, version="v3")
    results = painting.tool.all_annotations[1][1].results
    boxed = [*results, {"box": [0, 0, 32, 32]}, {"box": [0, 32, 32, 32]}]
    painting.tool.annotate(1, boxed, project_id=1, annotation_id=1)
    painting.read()
    assert painting.labels() == {(0, 0): HALF, (0, 32): DARK}


def test_regions_of_another_size_than_were_handed_out_label_no_pixel_twice(painting):
    painting.hand_out(Region(0, 0, 48, 48))
    painting.submit(LEFT, LOWER)
    assert painting.labels() == {(0, 0): (48 * 48 - 48 * 16, 48 * 16), (32, 0): (0, 16 * 16)}


def test_an_annotation_that_is_moved_to_another_task_stays_about_what_it_was_about(painting):
    painting.hand_out(LEFT, task=2)
    painting.hand_out(LOWER, task=1)
    painting.submit(LEFT, version="v3", task=2)
    painting.change(1, task_id=1)
    assert painting.labels(1) == {(0, 0): HALF}
    painting.hand_out(RIGHT, task=1, version=4)
    painting.submit(LEFT, number=2, task=3)
    painting.change(2, task_id=1)
    assert painting.labels(1) == {**dict.fromkeys(GRID, DARK), (0, 0): HALF}


def test_what_others_painted_since_is_not_hidden_by_a_move_to_a_task_of_the_same_picture(painting):
    tasks, files = painting.tool.pool_tasks, painting.tool.files
    tasks[0], files[1] = replace(tasks[0], image=tasks[1].image), files[2]
    painting.read()
    painting.hand_out(LEFT, RIGHT, task=2)
    painting.submit(LEFT, version="v3", task=2, annotator="ann")
    painting.submit(version="v3", number=2, task=2, annotator="bob")
    painting.submit(LEFT, RIGHT, version="v3", task=2, annotator="ann")
    ids = {it.id for it in painting.store.labels.every(painting.project.id)}
    for number in (1, 2):
        painting.change(number, task_id=1)
    moved = painting.store.labels.of(painting.project.id)
    assert painting.labels(2) == {}
    assert {it.id for it in painting.store.labels.every(painting.project.id)} == ids
    assert {it.region: it.annotator for it in moved} == {LEFT: "bob", RIGHT: "ann"}


def test_a_duplicate_is_about_what_its_original_is_about_once_it_is_known_to_be_one(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.submit(LEFT, version="v3")
    painting.submit(LEFT, number=2)
    painting.tool.all_annotations[1].pop(1)
    painting.read()
    assert painting.labels() == {(0, 0): HALF}
    painting.change(2, copied_from=1, updated_at=painting.tool.tick())
    assert painting.labels() == {(0, 0): HALF, (0, 32): DARK}


def test_whatever_else_changes_who_does_not_paint_in_a_region_hides_nobody_there(painting):
    painting.hand_out(LEFT, RIGHT)
    painting.submit(LEFT, version="v3", annotator="ann")
    painting.submit(version="v3", number=2, annotator="bob")
    pool = painting.tool.pool
    register = painting.store.projects.register
    register(pool.uid, pool.id, pool.label_config, pool.classes, "pool", None, "bright")
    painting.submit(LEFT, RIGHT, version="v3", annotator="ann")
    counted = painting.store.labels.of(painting.project.id)
    assert {it.region: it.annotator for it in counted} == {LEFT: "bob", RIGHT: "ann"}
    painting.submit(LEFT, LOWER, version="v3", annotator="ann")
    counted = painting.store.labels.of(painting.project.id)
    assert {it.region: it.annotator for it in counted} == {
        LEFT: "bob",
        RIGHT: "ann",
        LOWER: "ann",
    }


def test_a_star_corrects_what_was_painted_beside_the_regions(painting):
    painting.hand_out(LEFT)
    painting.submit(LEFT, LOWER, version="v3", annotator="ann")
    narrower = np.full(SIZE, VOID, np.uint8)
    narrower[32:64, :8] = 1
    painting.tool.annotate(1, [{"mask": narrower.tolist()}], project_id=1, annotation_id=2)
    painting.change(2, copied_from=1, annotator="bob", is_starred=True)
    counted = painting.store.labels.of(painting.project.id)
    assert {it.region: sum(it.pixels[1:]) for it in counted} == {LEFT: 0, LOWER: 256}


def test_a_stroke_that_runs_over_makes_no_labelled_regions_and_closes_none(painting):
    store, project = painting.store, painting.project
    painting.hand_out(LEFT)
    spilled = np.full(SIZE, VOID, np.uint8)
    spilled[:34, :34] = 1
    painting.tool.version = "v3"
    painting.tool.annotate(1, [{"mask": spilled.tolist()}], project_id=1, annotation_id=1)
    painting.read()
    labels = store.labels.of(project.id)
    shares = {it.region: it.share_beside for it in labels}
    slivers = dict.fromkeys((RIGHT, LOWER), 1 / 16) | {Region(32, 32, 32, 32): 1 / 256}
    assert shares == {LEFT: None, **slivers}
    assert sum(sum(it.pixels) for it in labels) == 34 * 34
    assert covered(SIZE, labels).sum() == 32 * 32
    assert (store.labels.count(project.id), store.labels.count_regions(project.id)) == (1, 1)
    assert len(store.labels.first_ids(project.id)) == 1
    before = {it.region: it.oldest_id for it in labels}
    spilled[:35, :35] = 1
    painting.tool.annotate(1, [{"mask": spilled.tolist()}], project_id=1, annotation_id=1)
    painting.read()
    assert {it.region: it.oldest_id for it in store.labels.of(project.id)} == before


def test_what_most_of_was_painted_beside_the_regions_counts_as_labelled(painting):
    store, project = painting.store, painting.project
    painting.hand_out(LEFT)
    whole = np.ones(SIZE, np.uint8)
    whole[32:44, :32] = VOID
    painting.tool.version = "v3"
    painting.tool.annotate(1, [{"mask": whole.tolist()}], project_id=1, annotation_id=1)
    painting.read()
    assert store.labels.count_regions(project.id) == 6
    assert covered(SIZE, store.labels.of(project.id)).all()
