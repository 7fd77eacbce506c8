from __future__ import annotations

from dataclasses import replace

import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.hits import (
    Round,
    counted,
    num_in_share,
    shared,
    wish_lines,
    wish_status,
)
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version, Wish
from ralis_backend.online.store.wishes import REACHED
from ralis_backend.online.tool import ClassLabel
from tests.online.conftest import make_label, selects

CLASSES = [{"name": name, "is_active": True} for name in ("road", "bike")]
CLASS_LABELS = [ClassLabel(name, "#804080") for name in ("road", "bike")]


def make_wish(**values: object) -> Wish:
    columns = {"id": 3, "class_name": "bike", "share": 1.0, "begun_at": now(), "pixels_before": 4}
    return Wish(**(columns | values))


def mined_label(number: int, pixels: tuple[int, ...], round_: int = 1, wish: int | None = 3):
    region = Region(0, 10 * number, 10, 10)
    return make_label(1, region, id=number, pixels=pixels, round=round_, wish_id=wish)


@pytest.mark.parametrize(
    ("share", "order"),
    [
        (1.0, "ABCDvwxyz"),
        (0.5, "AvBwCxDyz"),
        (0.25, "AvwxByzCD"),
        (0.01, "AvwxyzBCD"),
    ],
)
def test_a_share_of_every_beginning_is_mined_until_one_of_both_is_used_up(share, order):
    assert "".join(shared("ABCD", "vwxyz", share)) == order
    assert sorted(shared("ABCD", "vwxyz", share)) == sorted("ABCDvwxyz")


def test_a_share_of_the_suggestions_is_mined_and_no_more_than_wanted():
    assert [num_in_share(0.5, total, None) for total in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert num_in_share(1.0, 48, 5) == 5


def test_hits_are_counted_by_round_of_what_was_mined_for_this_wish_alone():
    labels = [
        mined_label(1, (90, 10)),
        mined_label(2, (100,)),  # counts end at the last class that is there
        mined_label(3, (0, 100), round_=2),
        mined_label(4, (0, 100), wish=2),
        mined_label(5, (0, 100), wish=None),
        replace(mined_label(6, ()), is_skipped=True),
    ]
    version = Version(metrics={"mining": {"wish": 3, "strategy": "presence:bike", "note": None}})
    project = Project(tool_id=7, classes=CLASSES)
    status = wish_status(project, version, make_wish(count=200, share=0.5), labels)
    assert status.rounds == [Round(1, 2, 1), Round(2, 1, 1)]
    assert (status.pixels_before, status.pixels_now) == (4, 310)
    assert wish_lines(status) == [
        "bike, by presence:bike, in 50 % of each round: 3 of 200 mined regions labelled, 2 of "
        "them show it (67 %)",
        "hits by round: round 1: 1 of 2, round 2: 1 of 1",
        "labelled pixels of bike: 4 when it began, 310 now",
    ]
    assert status.to_json()["rounds"][0] == {"round": 1, "labelled": 2, "hits": 1}


def test_rounds_of_long_ago_are_added_up():
    labels = [mined_label(number, (0, number % 2), round_=number) for number in range(1, 9)]
    lines = wish_lines(wish_status(Project(tool_id=7, classes=CLASSES), None, make_wish(), labels))
    assert lines[1] == (
        "hits by round: rounds before: 2 of 3, round 4: 0 of 1, round 5: 1 of 1, round 6: 0 of 1, "
        "round 7: 1 of 1, round 8: 0 of 1"
    )


def test_a_wish_is_counted_without_reading_every_label(store: Store):
    project = store.projects.register("1.100", 1, "<View/>", CLASS_LABELS, "pool")
    with selects(store) as read:
        assert counted(store, project) == {}
        store.wishes.begin(make_wish(id=None, project_id=project.id))
        assert counted(store, project)["mining"]["pixels_now"] == 0
    of_labels = [it for it in read if "labels.mask_key" in it]
    assert all("suggestions.regions" in it.partition("WHERE")[2] for it in of_labels)
    assert len(of_labels) == 1


def test_a_wish_whose_class_is_gone_says_so_with_nobody_looking():
    gone = Project(tool_id=7, classes=[CLASSES[0], {"name": "bike", "is_active": False}])
    unknown = Project(tool_id=7, classes=CLASSES[:1])
    for project in (gone, unknown):
        lines = wish_lines(wish_status(project, None, make_wish(), []))
        assert lines[0].startswith("bike, by nobody yet: 0 mined regions labelled")
        assert lines[-1].startswith("'bike' is no label of the project any more; the wish rests")


def test_a_wish_that_has_ended_does_not_rest():
    gone = Project(tool_id=7, classes=[CLASSES[0], {"name": "bike", "is_active": False}])
    ended = make_wish(ended_at=now(), ended_by=REACHED)
    status = wish_status(gone, None, ended, [])
    assert status.note is None
    assert not any("rests" in line for line in wish_lines(status))
