from __future__ import annotations

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Suggestion
from tests.online.conftest import MakeWorker, settle
from tests.online.fake_tool import FakeTool, picture


def suggested(store: Store) -> Suggestion:
    """What the first task was answered with."""
    (project,) = store.projects.all()
    found = store.queue.handed_out(store.images.of(project.id)[0].id, 0)
    assert found is not None
    return found


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
    assert {label.region for label in labels} == {Region(32, 32, 8, 28), Region(0, 32, 32, 28)}
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
