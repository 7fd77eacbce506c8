from __future__ import annotations

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.left_out import LeftOut, bounded, summary
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.tool import TaskAnnotations, ToolTask
from tests.online.store.conftest import START, annotation

PAINTED = NewLabel(Region(0, 0, 1, 1), np.ones((1, 1), np.uint8))
SKIPPED = NewLabel(Region(0, 0, 1, 1), None)


def test_what_does_not_count_is_given_newest_first_and_counted(
    store: Store, project: Project, image: Image
):
    def put(number, *labels, left_out=(), **values):
        source = annotation(number, **values)
        row = store.annotations.put(project, "1.100", source, image, None)
        assert row is not None
        store.labels.put(row, labels, {}, left_out)

    put(1, PAINTED)
    put(2, PAINTED, left_out=["stroke b1 has two labels"])
    put(3, SKIPPED, left_out=["stroke b2 has none"])
    failed = store.annotations.put(project, "1.100", annotation(4), image, None)
    assert failed is not None
    store.annotations.fail(failed, "the image is gone")
    store.annotations.put(project, "1.100", annotation(5), image, None)  # its turn has not come
    found = store.annotations.left_out(project.id)
    assert found == [
        LeftOut(4, 1, "1.100", is_read=False, what=("the image is gone",)),
        LeftOut(3, 1, "1.100", is_read=False, what=("stroke b2 has none",)),
        LeftOut(2, 1, "1.100", is_read=True, what=("stroke b1 has two labels",)),
    ]
    assert store.annotations.left_out(project.id, most=1) == found[:1]
    assert store.annotations.count_left_out(project.id) == (1, 2)
    assert summary(1, 2, found) == (
        "1 annotation was read in part and 2 annotations were not read (id 4, 3, 2); "
        "`ralis status` says why"
    )
    put(2, PAINTED, results=[{"id": "repaired"}])
    store.annotations.withdraw("1.100", [3, 4])
    assert store.annotations.left_out(project.id) == []
    assert summary(*store.annotations.count_left_out(project.id), []) is None


def test_an_empty_error_of_an_earlier_release_says_something(
    store: Store, project: Project, image: Image
):
    row = store.annotations.put(project, "1.100", annotation(1), image, None)
    assert row is not None
    store.annotations.fail(row, "")
    (found,) = store.annotations.left_out(project.id)
    assert found.what == ("it cannot be read, and the error said nothing; it is tried again",)


def test_annotations_that_are_malformed_altogether_are_given_with_their_task(
    store: Store, project: Project, image: Image
):
    task = ToolTask(1, START, "/data/1.png", state="a")
    found = TaskAnnotations(task, [], {9: "created_at is None"})
    store.annotations.put_task(project, "1.100", found, image, None)
    expected = LeftOut(9, 1, "1.100", is_read=False, what=("created_at is None",))
    assert store.annotations.left_out(project.id) == [expected]
    assert store.annotations.count_left_out(project.id) == (0, 1)
    repaired = TaskAnnotations(ToolTask(1, START, "/data/1.png", state="b"), [])
    store.annotations.put_task(project, "1.100", repaired, image, None)
    assert store.annotations.left_out(project.id) == []


def test_thousands_of_odd_strokes_are_kept_as_a_few_lines(
    store: Store, project: Project, image: Image
):
    texts = [f"stroke {number} " + "x" * 10_000 for number in range(5000)]
    kept = bounded(texts)
    assert len(kept) == 21
    assert max(map(len, kept)) <= 300
    assert kept[-1] == "and 4980 more"
    row = store.annotations.put(project, "1.100", annotation(), image, None)
    assert row is not None
    store.labels.put(row, [PAINTED], {}, texts)
    assert list(store.annotations.left_out(project.id)[0].what) == kept
