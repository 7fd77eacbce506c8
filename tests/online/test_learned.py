from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.advice import NEW_REGIONS, NEWEST_REGION
from ralis_backend.online.hits import shown_wish
from ralis_backend.online.labels import labelled_pixels
from ralis_backend.online.learned import LEARNED_PIXELS, learned_metrics, learned_pixels
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.wanted import Wanted, make_wish
from tests.online.conftest import RANKING, MakeWorker, make_label, settle
from tests.online.fake_tool import FakeTool

REGION = 32 * 32


def version(**metrics: Any) -> Version:
    return Version(number=1, weights_key="v1", metrics=metrics)


def test_a_version_knows_what_its_parent_learned_and_counts_no_label_twice():
    parent = version(learned_pixels={"road": 90, "sky": 40})
    learned = learned_metrics(parent, {"road": 120, "sky": 0, "car": 7}, {"sky"})
    assert learned == {LEARNED_PIXELS: {"road": 120, "sky": 40, "car": 7}}
    assert learned_metrics(None, {"road": 0}) == {LEARNED_PIXELS: {"road": 0}}


def test_a_class_that_no_label_shows_any_more_counts_as_not_learned():
    parent = version(learned_pixels={"road": 90, "sky": 1, "gone": 5})
    learned = learned_metrics(parent, {"road": 90, "sky": 0}, {"road"})
    assert learned == {LEARNED_PIXELS: {"road": 90, "sky": 0, "gone": 5}}


def test_a_class_that_is_held_out_alone_is_not_learned(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    """Of the first round bright is painted in the fifth image alone, which is held out."""
    ranking = replace(RANKING, regions_per_round=6)
    settle(make_worker(random_share=0.0, ranking=ranking))
    (project,) = store.projects.all()
    rows = {row.task_id: row for row in store.queue.open(project.id)}
    one_each = {rows[task_id].image_id: task_id for task_id in tool.queue()}
    for index, task_id in enumerate([*one_each.values()][:5]):
        tool.annotate(task_id, [{"mask": np.full((32, 32), index == 4, np.uint8).tolist()}])
    store.wishes.begin(make_wish(store, project, Wanted("bright"), RANKING))
    store.projects.request_training(project.id)
    settle(make_worker(random_share=0.0, ranking=ranking))
    project, labels = store.projects.by_id(project.id), store.labels.of(project.id)
    first = store.versions.find(project.id, 1)
    assert first is not None
    assert labelled_pixels(labels, 2).sum(axis=0).tolist() == [4 * REGION, REGION, 0]
    assert first.metrics[LEARNED_PIXELS] == {"dark": 4 * REGION, "bright": 0}
    newest = store.labels.newest_id(project.id)
    assert (first.metrics[NEWEST_REGION], first.metrics[NEW_REGIONS]) == (newest, 5)
    assert learned_pixels(store, project, first, labels).tolist() == [4 * REGION, 0]
    assert first.strategy == "rarity"  # the cold start goes on
    status = shown_wish(store, project)
    assert status is not None
    assert status.strategy == "similarity:bright"
    assert status.note is not None
    assert "v1 has not learned 'bright'" in status.note


@pytest.mark.parametrize(
    ("metrics", "dark"), [({"newest_label_id": 1}, 100), ({"newest_label_id": 3}, 140), ({}, 140)]
)
def test_versions_that_do_not_say_it_have_learned_the_labels_there_were(metrics, dark):
    images = [Image(id=1, is_validation=False), Image(id=2, is_validation=True)]
    store: Any = SimpleNamespace(images=SimpleNamespace(of=lambda _: images))
    classes = [{"name": name} for name in ("dark", "bright")]
    project = Project(id=1, classes=classes, trained_label_id=3)
    region = Region(0, 0, 32, 32)
    labels = [
        make_label(1, region, id=1, pixels=(100,)),
        make_label(2, region, id=2, pixels=(0, 900)),
        make_label(1, region, id=3, pixels=(40,)),
        make_label(1, region, id=4, pixels=(0, 7)),
    ]
    assert learned_pixels(store, project, version(**metrics), labels).tolist() == [dark, 0]
    assert learned_pixels(store, project, Version(metrics=metrics), labels).tolist() == [0, 0]
