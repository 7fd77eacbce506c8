from __future__ import annotations

from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Wish
from ralis_backend.online.store.wishes import LEFT_OUT, REPLACED, STOPPED
from tests.online.fake_tool import CLASSES


def make_wish(project_id: int, name: str = "bright", **values: object) -> Wish:
    columns = {"share": 1.0, "examples": [], "begun_at": now(), "pixels_before": 2**40}
    return Wish(project_id=project_id, class_name=name, **(columns | values))


def make_project(store: Store, number: int = 1) -> int:
    return store.projects.register(f"{number}.100", number, "<View/>", CLASSES, "pool").id


def test_one_wish_stands_at_a_time_and_older_ones_are_kept(store: Store):
    project, other = make_project(store), make_project(store, 2)
    elsewhere = store.wishes.begin(make_wish(other))
    first = store.wishes.begin(make_wish(project, examples=[{"task": 7}]))
    second = store.wishes.begin(make_wish(project, "dark", count=3, share=0.5))
    assert [it.ended_by for it in store.wishes.all(project)] == [REPLACED, None]
    standing = store.wishes.standing(project)
    assert standing is not None
    assert (standing.id, standing.count, standing.share) == (second.id, 3, 0.5)
    assert standing.pixels_before == 2**40
    assert store.wishes.all(project)[0].examples == [{"task": 7}]
    store.wishes.end(second.id, STOPPED)
    store.wishes.end(first.id, STOPPED)  # has ended already: why stays as it was
    assert store.wishes.standing(project) is None
    assert [it.ended_by for it in store.wishes.all(project)] == [REPLACED, STOPPED]
    assert store.wishes.standing(other).id == elsewhere.id  # type: ignore[union-attr]


def test_what_a_connection_says_is_followed_once(store: Store):
    project = make_project(store)
    said = {"class": "bright", "share": 1.0, "strategy": None}
    store.wishes.follow(project, said, make_wish(project, is_of_connection=True))
    store.wishes.follow(project, said, make_wish(project, is_of_connection=True))
    (wish,) = store.wishes.all(project)
    store.wishes.follow(project, None, None)
    assert store.wishes.all(project)[0].ended_by == LEFT_OUT
    assert store.projects.by_id(project).said_wish is None
    store.wishes.follow(project, said, make_wish(project, is_of_connection=True))
    assert store.wishes.standing(project).id != wish.id  # type: ignore[union-attr]


def test_a_connection_that_says_nothing_any_more_ends_its_own_wish_alone(store: Store):
    project = make_project(store)
    said = {"class": "bright", "share": 1.0, "strategy": None}
    store.wishes.follow(project, said, make_wish(project, is_of_connection=True))
    asked = store.wishes.begin(make_wish(project, "dark"))
    store.wishes.follow(project, None, None)
    assert store.wishes.standing(project).id == asked.id  # type: ignore[union-attr]


def test_a_wish_that_comes_or_goes_is_seen_in_the_look_at_all_projects(store: Store):
    project = make_project(store)
    (before,) = store.projects.looks()
    wish = store.wishes.begin(make_wish(project))
    (during,) = store.projects.looks()
    store.wishes.end(wish.id, STOPPED)
    (after,) = store.projects.looks()
    assert before == after != during
