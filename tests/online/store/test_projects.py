from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.learner import Learner
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ClassLabel
from tests.online.conftest import selects


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
    tables = ("labels", "annotations", "crop_tasks", "images", "rankings", "events")
    with store.database.engine.connect() as connection:
        for statement in read:
            question = (statement, tuple([1] * statement.count("?")))
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {question[0]}", question[1])
            scanned = [row[-1] for row in plan if row[-1].startswith("SCAN")]
            assert not [it for it in scanned if it.split()[1] in tables], statement


def test_a_project_that_another_process_made_known_at_the_same_moment_is_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    register, classes = store.projects._register, (ClassLabel("road", "#FF0000"),)
    raced: list[Project] = []

    def late(*values: object) -> Project:
        if not raced:
            raced.append(register("5.100", 5, "<View/>", classes, "roads"))
            raise IntegrityError("insert", {}, Exception("unique"))
        return register(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(store.projects, "_register", late)
    assert store.projects.register("5.100", 5, "<View/>", classes, "roads").id == raced[0].id
