from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from ralis_backend.core.regions import Region
from ralis_backend.online.background import NO_BACKGROUND
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.learner import Learner
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import ClassLabel, ToolTask
from tests.online.conftest import selects
from tests.online.store.conftest import LABELS, START, annotation, label


def test_removed_labels_keep_their_index_and_new_ones_come_after(store: Store, project: Project):
    changed = (ClassLabel("car", "#00FF00"), ClassLabel("bus", "#FF0000"))
    again = store.projects.register("1.100", 1, "<View>2</View>", changed, "")
    assert again.class_names == ("road", "car", "bus")
    assert [entry["is_active"] for entry in again.classes] == [False, True, True]
    assert again.classes[1]["color"] == "#00FF00"
    assert again.title == "streets"
    assert again.removed_classes == (0,)


def test_an_unknown_project_is_named_with_what_to_do(store: Store, project: Project):
    with pytest.raises(
        ValueError, match=r"project 9 is not known here \(known: 1 \(.*ralis connect"
    ):
        store.projects.get("9.9")


def test_nothing_that_is_asked_often_reads_a_whole_table(store: Store, project: Project):
    learner = Learner(store, RankingConfig(), None)
    store.projects.change(project.id, num_labelled_regions=0)
    with selects(store) as read:
        learner.status()
        store.annotations.withdraw("1.100", [7])
        store.images.find(project.id, 1)
        store.labels.of_image(1)
        store.labels.newest_id(project.id)
        store.labels.count(project.id, 7, most=24)
        store.queue.open(project.id)
        store.versions.serving(project)
        store.projects.looks()
        store.annotations.count_left_out(project.id)
        store.annotations.left_out(project.id)
    tables = ("labels", "annotations", "crop_tasks", "images", "rankings", "events")
    with store.database.engine.connect() as connection:
        for statement in read:
            question = (statement, tuple([1] * statement.count("?")))
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {question[0]}", question[1])
            plan_rows = list(plan)
            scanned = [row[-1] for row in plan_rows if row[-1].startswith("SCAN")]
            assert not [it for it in scanned if it.split()[1] in tables], statement
            if "left_out IS NOT NULL" in statement or "error IS NOT NULL" in statement:
                assert any("left_out" in row[-1] or "unread" in row[-1] for row in plan_rows), (
                    "whole payloads are read to find what stands behind them"
                )


CRACK = (ClassLabel("Crack", "#E6194B"),)


def test_one_label_brings_a_background_that_is_no_label(store: Store):
    project = store.projects.register("7.100", 7, "<View/>", CRACK, "roads")
    assert project.class_names == ("Crack", "Background")
    assert (project.background_class, project.background_name) == (1, "Background")
    assert project.removed_classes == ()
    again = store.projects.register("7.100", 7, "<View/>", CRACK, "roads")
    assert again.classes == project.classes


def test_a_background_that_came_by_itself_leaves_with_a_second_label_before_anything_is_labelled(
    store: Store,
):
    store.projects.register("7.100", 7, "<View/>", CRACK, "roads")
    both = (*CRACK, ClassLabel("Pothole", "#FFE119"))
    project = store.projects.register("7.100", 7, "<View>2</View>", both, "")
    assert project.background_class is None
    assert project.class_names == ("Crack", "Background", "Pothole")
    assert project.removed_classes == (1,)


def test_it_stays_once_something_was_labelled_with_it(store: Store):
    project = store.projects.register("7.100", 7, "<View/>", CRACK, "roads")
    store.images.reconcile(project.id, [ToolTask(1, START, "/data/1.png")])
    (image,) = store.images.of(project.id)
    label(
        store, project, image, annotation(), NewLabel(Region(0, 0, 2, 2), np.ones((2, 2), np.uint8))
    )
    both = (*CRACK, ClassLabel("Pothole", "#FFE119"))
    project = store.projects.register("7.100", 7, "<View>2</View>", both, "")
    assert project.background_name == "Background"
    assert store.annotations.failed(project.id) == [], "it means the same as before"
    project = store.projects.register("7.100", 7, "<View>2</View>", both, "", None, NO_BACKGROUND)
    assert project.background_class is None


def test_another_background_asks_for_all_painted_labels_again_and_nothing_else(
    store: Store, project: Project, image: Image
):
    region = Region(0, 0, 2, 2)
    mask = np.ones((2, 2), np.uint8)
    label(store, project, image, annotation(1), NewLabel(region, mask))
    label(store, project, image, annotation(2, is_skipped=True), NewLabel(region, None))
    label(store, project, image, annotation(3), NewLabel(region, mask))
    store.annotations.withdraw("1.100", [3])
    before = store.labels.every(project.id)
    again = store.projects.register("1.100", 1, "<View/>", LABELS, "", "road")
    assert again.background_name == "road"
    assert [row.annotation_id for row in store.annotations.failed(project.id)] == [1]
    assert store.labels.every(project.id) == before, "they count until they are read"
    assert again.is_sync_requested
    assert not again.is_prepared, "annotators are told"


def test_the_setting_is_for_projects_that_choose_nothing(store: Store):
    register = store.projects.register
    chosen = register("1.100", 1, "<View/>", LABELS, "", "car", "road")
    assert chosen.background_name == "road"
    assert register("1.100", 1, "<View/>", LABELS, "", "car").background_name == "road"
    assert register("1.100", 1, "<View/>", LABELS, "", "car", None).background_name == "car"
    assert register("1.100", 1, "<View/>", LABELS, "", None).background_name is None
    none = register("1.100", 1, "<View/>", LABELS, "", "car", NO_BACKGROUND)
    assert none.background_name is None


def test_a_background_that_finds_no_place_in_a_mask_is_refused(store: Store):
    many = [ClassLabel(f"label {number}", "#000000") for number in range(255)]
    with pytest.raises(ValueError, match="256 classes, at most 255"):
        store.projects.register("7.100", 7, "<View/>", many, "", "Background")


def test_a_project_that_another_process_made_known_at_the_same_moment_is_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    register, classes = store.projects._register, (ClassLabel("road", "#FF0000"),)
    raced: list[Project] = []

    def late(*values: object) -> Project:
        if not raced:
            raced.append(register(*values))
            raise IntegrityError("insert", {}, Exception("unique"))
        return register(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(store.projects, "_register", late)
    assert store.projects.register("5.100", 5, "<View/>", classes, "roads").id == raced[0].id


def test_labels_are_brought_up_to_date_without_working_on_a_forgotten_project_again(
    store: Store, project: Project
):
    store.projects.change(project.id, is_deleted=True, title="mine")
    tree = ClassLabel("tree", "#00FF00")
    renewed = store.projects.renew(project.id, "<View>2</View>", (*LABELS, tree))
    assert renewed.class_names == ("road", "car", "tree")
    assert (renewed.is_deleted, renewed.title) == (True, "mine")
    assert store.projects.renew(project.id, "", ()).class_names == renewed.class_names
    assert store.projects.by_id(project.id).classes == renewed.classes


def test_another_label_config_asks_again_for_what_was_left_out_and_nothing_else(
    store: Store, project: Project, image: Image
):
    painted = NewLabel(Region(0, 0, 2, 2), np.ones((2, 2), np.uint8))
    label(store, project, image, annotation(1), painted)
    row = store.annotations.put(project, "1.100", annotation(2), image, None)
    assert row is not None
    store.labels.put(row, [painted], {}, ["a label that is none"])
    before = store.labels.every(project.id)
    store.projects.register("1.100", 1, "<View/>", LABELS, "same")
    assert store.annotations.failed(project.id) == []
    store.projects.register("1.100", 1, "<View>2</View>", LABELS, "")
    assert [it.annotation_id for it in store.annotations.waiting(project.id)] == [2]
    assert store.annotations.left_out(project.id) == [], "its turn has not come"
    assert store.labels.every(project.id) == before, "they count until they are read"
