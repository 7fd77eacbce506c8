from __future__ import annotations

from dataclasses import replace

import pytest

from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import CropTask, Project
from ralis_backend.online.tool import ClassLabel
from ralis_backend.online.wanted import (
    Wanted,
    check_known,
    fitting_strategy,
    make_wish,
    remarks,
    rests_because,
    said_wish,
)
from tests.online.fake_tool import CLASSES, START, FakeTool

CONFIG = RankingConfig(region_size=(32, 32))


@pytest.fixture
def project(store: Store) -> Project:
    found = store.projects.register(
        "1.100", 1, "<View/>", (*CLASSES, ClassLabel("Ground", "#111111")), "pool", None, "Ground"
    )
    store.images.reconcile(found.id, FakeTool().pool_tasks)
    return found


def wish_of(store: Store, project: Project, **values: object):
    wanted = replace(Wanted("bright"), **values)  # type: ignore[arg-type]
    return make_wish(store, project, wanted, CONFIG)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_name": "Bicyclist"}, "no class 'Bicyclist'; its classes are: dark, bright"),
        ({"class_name": "Ground"}, "unpainted pixels are.*classes are: dark, bright"),
        ({"class_name": ""}, "no class ''"),
        ({"count": 0}, "0 regions cannot be found; expected 1 to 1,000,000"),
        ({"count": -3, "share": 2.0}, "-3 regions"),
        ({"share": 0.0}, "0.0 is no share"),
        ({"share": 1.5}, "1.5 is no share"),
        ({"share": 1e-310, "count": 5}, "expected a number from 0.001 to 1, for example 0.5"),
        ({"share": float("nan")}, "nan is no share"),
        ({"like": "bright"}, "looks like itself"),
        ({"like": "Ground"}, "unpainted pixels"),
        ({"like": "Bus", "examples": ["17"]}, "no class 'Bus'"),
        ({"strategy": "entropy"}, "'entropy' looks for no class; expected one of presence, "),
        ({"strategy": "presence:dark"}, "names a class as well; give 'presence'"),
        ({"strategy": "nonsense"}, "unknown strategy 'nonsense'"),
        ({"strategy": "x" * 65}, "at most 64 characters, this one 65"),
        ({"strategy": "../../etc", "count": 5}, "unknown strategy"),
        ({"examples": ["17"]}, "'17' is no example; expected task:ID"),
        ({"examples": ["task:1", "task:99"]}, "task 99 is not known here"),
        ({"examples": ["task:99999999999999999999"]}, "is no example"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_saying_what_can(store, project, values, message):
    with pytest.raises(ValueError, match=message):
        wish_of(store, project, **values)


def test_a_class_in_other_capitals_is_that_class(store: Store, project: Project):
    assert wish_of(store, project, class_name=" BRIGHT ", like="Dark").class_name == "bright"


def test_an_example_is_an_image_of_the_pool_or_a_region_that_was_asked_for(store, project):
    image = store.images.of(project.id)[2]
    store.queue.add(
        [
            CropTask(
                project_id=project.id, image_id=image.id, row=32, col=64, height=32, width=32,
                scale=1, round=1, rank=1, reason="", strategy="entropy", version=0,
                usefulness=0.0, task_id=1001, task_created_at=START,
            )
        ]
    )  # fmt: skip
    wish = wish_of(store, project, examples=["task:3", "task:1001"])
    assert wish.examples == [
        {"task": 3, "image": image.id, "region": None},
        {"task": 1001, "image": image.id, "region": [32, 64, 32, 32]},
    ]
    check_known(store, project, wish)


def test_a_class_that_nothing_is_known_of_is_refused_saying_what_would_do(store, project):
    with pytest.raises(ValueError, match=r"paint it in one region.*--example.*--like CLASS \(dark"):
        check_known(store, project, wish_of(store, project))
    with pytest.raises(ValueError, match="no region of 'dark' is labelled either"):
        check_known(store, project, wish_of(store, project, like="dark"))


def test_a_pool_with_fewer_regions_than_asked_for_is_told_and_one_without_any_refused(
    store: Store, project: Project
):
    wish = wish_of(store, project, count=500)
    assert list(remarks(store, project, wish, CONFIG)) == []  # nobody has measured the images
    for image in store.images.of(project.id):
        store.images.seen(image.id, (64, 96))
    (told,) = remarks(store, project, wish, CONFIG)
    assert told.startswith("the pool has 36 regions that are not labelled, fewer than the 500")


def test_a_wish_rests_while_its_class_is_no_label(store: Store, project: Project):
    wish = wish_of(store, project)
    assert rests_because(project, wish) is None
    renamed = store.projects.register(
        "1.100", 1, "<View></View>", (CLASSES[0], ClassLabel("shiny", "#FFFFFF")), "pool"
    )
    why = rests_because(renamed, wish)
    assert why is not None
    assert why.startswith("'bright' is no label of the project any more; the wish rests")
    back = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    assert rests_because(back, wish) is None


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, None),
        ({"strategy": "entropy"}, None),
        ({"strategy": "presence:bright"}, None),
        ({"mine_class": "bright"}, {"class": "bright", "share": 1.0, "strategy": None}),
        (
            {"mine_class": "bright", "strategy": "entropy", "mine_share": 1},
            {"class": "bright", "share": 1.0, "strategy": None},
        ),
        (
            {"mine_class": "bright", "strategy": "presence-max", "mine_share": 0.5},
            {"class": "bright", "share": 0.5, "strategy": "presence-max"},
        ),
    ],
)
def test_a_connection_asks_for_a_class_and_names_miner_or_ordinary_strategy(params, said):
    assert said_wish(params, CONFIG) == said


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "margin"),
        ({"strategy": "presence:bright"}, "presence:bright"),
        ({"strategy": "entropy", "mine_class": "bright"}, "entropy"),
        ({"strategy": "presence-max", "mine_class": "bright"}, "margin"),
    ],
)
def test_the_connection_s_strategy_or_else_the_setting_s_is_checked(params, name):
    config = replace(CONFIG, strategy="margin")
    assert fitting_strategy(params, ["dark", "bright"], config) == name
    with pytest.raises(ValueError, match="'Car' is not one of dark, bright"):
        fitting_strategy({**params, "strategy": "presence:Car"}, ["dark", "bright"], config)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mine_share": 0.5}, "'mine_share' needs a class"),
        ({"strategy": "presence"}, "strategy 'presence' needs a class to look for, 'mine_class'"),
        ({"mine_class": 7}, "'mine_class' must be the name of a class"),
        ({"mine_class": ["bright"], "mine_share": "half"}, "'mine_class' must be the name"),
        ({"mine_class": "bright", "mine_share": "half"}, "'mine_share' is of the type str"),
        ({"mine_class": "bright", "mine_share": True}, "of the type bool"),
        ({"mine_class": "bright", "mine_share": 0}, "0 is no share"),
        ({"mine_class": "bright", "mine_share": 10**400}, "10{38}… is no share"),
        ({"mine_class": "bright", "mine_share": 0.0009}, "from 0.001 to 1"),
    ],
)
def test_malformed_extra_params_are_refused_with_an_example(params, message):
    with pytest.raises(ValueError, match=message):
        said_wish(params, CONFIG)
