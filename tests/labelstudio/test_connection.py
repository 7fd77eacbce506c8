"""Whatever is made in Label Studio is made once, whoever else makes it meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from ralis_backend.labelstudio import client as client_module
from ralis_backend.labelstudio.connection import Connector, Wishes
from ralis_backend.labelstudio.errors import Unavailable
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from tests.labelstudio.fake_label_studio import FakeLabelStudio

BACKEND = "http://backend.test:9090"
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels></View>'
)
CROPS = Wishes("crops")
NUM_CALLS = 24
"""As many as connecting takes, and one more."""
MOMENTS = [
    pytest.param(number, marks=[] if number % 7 == 1 else [pytest.mark.e2e])
    for number in range(1, NUM_CALLS)
]
"""Every seventh quickly; of the others two with the slow tests, all with `make long`."""
NUM_CHANGES = 6
"""Likewise, of those that make something."""


class Site:
    """A Label Studio, and a data folder that commands and workers share."""

    def __init__(self, folder):
        self.folder = folder
        self.label_studio = FakeLabelStudio()
        self.label_studio.add_project(CONFIG, title="Streets", task_number=0)
        self.label_studio.add_project(CONFIG, title="Other")
        self.stores = {}

    def store(self, name="ralis"):
        if name not in self.stores:
            self.stores[name] = Store.open(f"sqlite:///{self.folder / name}.db", self.folder / name)
        return self.stores[name]

    def tool(self, client):
        setup = ProjectSetup(client, backend_url=BACKEND)
        return LabelStudioTool(client, ImageFetcher(client, self.folder / "images", 0), setup)

    def connector(self, store=None, wait_s=0.0):
        client = self.label_studio.client
        setup = ProjectSetup(client, backend_url=BACKEND)
        return Connector(store or self.store(), client, self.tool(client), setup, wait_s=wait_s)

    def connect(self, name="ralis"):
        connector = self.connector(self.store(name))
        return connector.connect(connector.pool(1), CROPS)

    def work(self):
        """What a worker does first: it reads the projects, and prepares them."""
        worker = Worker(self.store(), self.tool(self.label_studio.client), WorkerConfig())
        worker._steps = tuple(step for step in worker._steps if step.name == "sync")
        worker.advance_all()

    def settle(self):
        """Both once more, when nobody disturbs them."""
        self.label_studio.before = self.label_studio.after = lambda call: None
        self.connect()
        self.work()

    def made(self):
        """What there is in Label Studio that we made."""
        regions = [it for it in self.label_studio.projects.values() if "regions" in it["title"]]
        return {
            "projects": len(regions),
            "backends": len(self.label_studio.backends),
            "webhooks": sorted(hook["project"] for hook in self.label_studio.webhooks),
            "views": len(self.label_studio.views),
        }


ONCE = {"projects": 1, "backends": 1, "webhooks": [1, 3], "views": 1}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", ())


@pytest.fixture
def site(tmp_path, empty_database):
    for name in ("ralis", "other", "elsewhere"):
        shutil.copyfile(empty_database, tmp_path / f"{name}.db")
    made = Site(tmp_path)
    yield made
    for store in made.stores.values():
        store.close()


def at_call(number: int, act: Callable[[], None], kind: str = "") -> Callable[[str], None]:
    """Calls `act` once, with the n-th call (of a kind) to Label Studio; its own do not count."""
    seen = [0]
    is_acting = [False]

    def told(call: str) -> None:
        if is_acting[0] or not call.startswith(kind):
            return
        seen[0] += 1
        if seen[0] == number:
            is_acting[0] = True
            try:
                act()
            finally:
                is_acting[0] = False

    return told


def test_connecting_takes_fewer_calls_than_are_tried_below(site):
    calls = []
    site.label_studio.before = calls.append
    connected = site.connect()
    assert (connected.regions_id, connected.is_complete) == (3, True)
    assert len(calls) < NUM_CALLS
    assert len([it for it in calls if it.startswith("POST")]) < NUM_CHANGES
    assert site.made() == ONCE
    row = site.store().projects.by_tool_id(1)
    assert (row.regions_tool_id, row.regions_uid, row.lease_owner) == (3, "3.1763700000", None)


@pytest.mark.sweep
@pytest.mark.parametrize("number", MOMENTS)
@pytest.mark.parametrize("other", ["connect", "work"])
def test_another_command_or_worker_at_any_moment_of_connecting_makes_nothing_twice(
    site, number, other
):
    site.label_studio.before = at_call(number, getattr(site, other))
    site.connect()
    site.settle()
    assert site.made() == ONCE


@pytest.mark.sweep
@pytest.mark.parametrize("number", MOMENTS)
def test_connecting_at_any_moment_of_a_workers_reading_makes_nothing_twice(site, number):
    site.store().projects.register("1.1763700000", 1, CONFIG, [], "Streets")
    site.label_studio.before = at_call(number, site.connect)
    site.work()
    site.settle()
    assert site.made() == ONCE


@pytest.mark.parametrize("number", range(1, NUM_CHANGES))
@pytest.mark.parametrize(
    ("error", "moment"),
    [
        (Unavailable("no answer"), "before"),
        (Unavailable("no answer"), "after"),
        (KeyboardInterrupt("killed"), "after"),
    ],
)
def test_an_answer_that_is_lost_or_a_kill_at_any_change_makes_nothing_twice(
    site, number, moment, error
):
    def fail():
        raise error

    setattr(site.label_studio, moment, at_call(number, fail, "POST"))
    try:
        site.connect()
    except (Unavailable, KeyboardInterrupt):
        site.settle()
    site.settle()
    assert site.made() == ONCE


def test_a_kill_between_making_and_storing_makes_nothing_twice(site, monkeypatch):
    store = site.store()
    connector = site.connector(store)
    pool = connector.pool(1)
    change = type(store.projects).change

    def killed(projects, project_id, **values):
        if "regions_uid" in values:
            raise KeyboardInterrupt("killed")
        return change(projects, project_id, **values)

    monkeypatch.setattr(type(store.projects), "change", killed)
    with pytest.raises(KeyboardInterrupt):
        connector.connect(pool, CROPS)
    monkeypatch.undo()
    site.settle()
    assert site.made() == ONCE


def test_beside_a_worker_at_a_long_step_the_rest_is_left_to_it(site):
    store = site.store()
    row = store.projects.register("1.1763700000", 1, CONFIG, [], "Streets")
    store.projects.change(row.id, is_prepared=True, progress={"state": "training"})
    assert store.leases.take(row.id, "another machine/1/2/3", store.leases.state(row.id))
    told = []
    connector = site.connector(store)
    connector._tell = told.append
    connected = connector.connect(connector.pool(1), CROPS)
    assert not connected.is_complete
    assert not store.projects.by_id(row.id).is_prepared, "the worker brings it in order"
    assert site.made() == {"projects": 0, "backends": 1, "webhooks": [], "views": 0}


def test_two_data_folders_that_both_made_one_end_with_one(site):
    made = site.label_studio.projects

    def another(call):
        if call == "POST /api/projects" and len(made) < 4:
            site.label_studio.before = lambda call: None
            site.connect("other")

    site.label_studio.before = another
    site.connect()
    assert site.made() == {**ONCE, "webhooks": [1, 4]}, "the other, which was empty, was deleted"
    site.connect("other")
    assert site.made() == {**ONCE, "webhooks": [1, 4]}
    assert site.store("other").projects.by_tool_id(1).regions_tool_id == 3, "the worker's to change"


# Which projects


def test_a_regions_project_is_refused_and_its_pool_is_named(site):
    site.connect()
    connector = site.connector()
    with pytest.raises(
        ValueError, match=r"project 3 .* holds the regions of project 1 \(Streets\)"
    ):
        connector.pool(3)
    elsewhere = site.connector(site.store("elsewhere"))
    with pytest.raises(ValueError, match="run `ralis connect --project 1`"):
        elsewhere.pool(3)
    site.label_studio.projects[3]["description"] = "ours now"
    with pytest.raises(ValueError, match=r'another project.* remove .* the class "ralis-crop"'):
        elsewhere.pool(3)


def test_a_project_that_is_not_there_names_those_that_are(site):
    site.connect()
    with pytest.raises(ValueError, match=r"no project 9 .* it has: 1 \(Streets\), 2 \(Other\)$"):
        site.connector().pool(9)


def test_a_worker_leaves_a_regions_project_alone_that_somebody_connected(site):
    site.connect()
    site.work()
    store = site.store()
    store.projects.register("3.1763700000", 3, CONFIG, [], "Streets · regions")
    before = len(site.label_studio.projects)
    site.label_studio.projects[3]["description"] = "ralis:pool=1.1763700000"
    site.work()
    assert len(site.label_studio.projects) == before, "no regions of regions"
    row = next(it for it in store.projects.every() if it.uid == "3.1763700000")
    assert row.is_deleted
    assert "holds the regions of project 1" in row.last_error


# Whose predictions


def test_a_model_version_to_start_from_must_be_there_and_be_anothers(site):
    connector = site.connector()
    pool = connector.pool(1)
    with pytest.raises(ValueError, match="it has: none"):
        connector.check_version(pool, "sam")
    site.label_studio.predictions = [
        {"id": 1, "task": 1, "model_version": version} for version in ("sam", "sam", "ralis-v1")
    ]
    connector.check_version(pool, "sam")
    for version in ("ralis-v1", "v1"):
        with pytest.raises(ValueError, match=r"it has: sam \(2\)$"):
            connector.check_version(pool, version)


def test_what_a_project_starts_from_is_stored_and_can_be_taken_back(site):
    store = site.store()
    connector = site.connector(store)
    pool = connector.pool(1)
    connector.connect(pool, Wishes("crops", "sam"))
    row = store.projects.by_tool_id(1)
    store.projects.change(row.id, is_publishing_requested=False)
    assert connector.connect(pool, CROPS).project.start_from == "sam"
    assert not store.projects.by_id(row.id).is_publishing_requested, "nothing to publish anew"
    assert connector.connect(pool, Wishes("crops", "")).project.start_from is None
    assert store.projects.by_id(row.id).is_publishing_requested


# Taken off


def test_disconnecting_leaves_labels_and_regions_and_the_worker_keeps_away(site):
    site.connect()
    site.work()
    store = site.store()
    row = store.projects.by_tool_id(1)
    told = site.connector(store).disconnect(row, deletes_regions=False)
    assert told == [
        f"1 connection(s) of the ML backend {BACKEND} and 2 webhook(s) were removed",
        "project 3, its regions, stays in Label Studio",
    ]
    site.work()
    assert site.made() == {"projects": 1, "backends": 0, "webhooks": [], "views": 1}
    assert store.projects.all() == []
    site.settle()
    assert site.made() == ONCE, "connected again, the regions project is taken up again"


def test_a_project_that_is_set_up_while_it_is_taken_off_stays_off(site):
    """Label Studio asks for /setup whenever it lists the ML backends of a project."""
    site.connect()
    store = site.store()
    row = store.projects.by_tool_id(1)

    def set_up():
        assert store.projects.register(row.uid, 1, CONFIG, [], "Streets").is_deleted is False

    site.label_studio.before = at_call(1, set_up, "GET /api/ml")
    site.connector(store).disconnect(row, deletes_regions=False)
    assert store.projects.all() == []
    site.work()
    assert site.made() == {"projects": 1, "backends": 0, "webhooks": [], "views": 1}


def test_disconnecting_takes_the_project_from_a_worker_that_trains(site, monkeypatch):
    monkeypatch.setattr("ralis_backend.labelstudio.connection.TAKE_OVER_AFTER_S", 0.0)
    site.connect()
    store = site.store()
    row = store.projects.by_tool_id(1)
    assert store.leases.take(row.id, "another machine/1/2/3", store.leases.state(row.id))
    site.connector(store).disconnect(row, deletes_regions=False)
    assert site.made()["webhooks"] == []
    assert store.leases.state(row.id).owner is None


def test_a_regions_project_is_deleted_only_when_asked_and_wholly_read(site):
    site.connect()
    store = site.store()
    row = store.projects.by_tool_id(1)
    regions = site.label_studio.projects[3]
    regions["total_annotations_number"] = 1
    with pytest.raises(ValueError, match="project 3 holds 1 tasks whose annotations were not read"):
        site.connector(store).disconnect(row, deletes_regions=True)
    assert site.made() == ONCE, "nothing was changed"
    assert not store.projects.by_id(row.id).is_deleted
    regions["total_annotations_number"] = 0
    site.label_studio.tasks[3] = [
        {"id": 8, "created_at": "2025-11-21T04:40:00Z", "data": {}, "total_annotations": 0}
    ]
    with pytest.raises(ValueError, match="unfinished drafts"):
        site.connector(store).disconnect(row, deletes_regions=True)
    site.label_studio.tasks[3] = []
    told = site.connector(store).disconnect(row, deletes_regions=True)
    assert "project 3, its regions, was deleted" in told
    assert 3 not in site.label_studio.projects
    again = store.projects.by_id(row.id)
    assert (again.regions_tool_id, again.regions_uid) == (None, None)


def test_a_regions_project_without_our_mark_is_not_deleted(site):
    site.connect()
    store = site.store()
    site.label_studio.projects[3]["description"] = "mine"
    with pytest.raises(ValueError, match="does not say that it holds the regions"):
        site.connector(store).disconnect(store.projects.by_tool_id(1), deletes_regions=True)
    assert 3 in site.label_studio.projects


def test_a_project_that_is_taken_over_while_it_is_connected_is_told_in_a_sentence(site):
    store = site.store()

    def take_over():
        row = store.projects.by_tool_id(1)
        assert store.leases.take(row.id, "another machine/1/2/3", store.leases.state(row.id))

    def told(call):
        if call == "POST /api/ml":
            take_over()

    site.label_studio.before = told
    with pytest.raises(ValueError, match="run this again"):
        site.connector(store).connect(site.connector(store).pool(1), CROPS)
    assert site.made()["projects"] == 0, "nothing is made without the lease"
