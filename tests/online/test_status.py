from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from ralis_backend.online.further import CONVERGED, Further, further_text
from ralis_backend.online.owner import own_name
from ralis_backend.online.status import project_status, seconds_since_worker, status_lines
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import LiveWorker, Version
from ralis_backend.online.worker import Worker
from ralis_backend.online.worker.pulse import Pulse
from tests.online.conftest import label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool

MakeWorker = Callable[..., Worker]


def told(store: Store) -> str:
    (project,) = store.projects.all()
    return "\n".join(status_lines(project_status(store, project), 4))


def test_a_project_that_is_only_connected_has_nothing_yet(store: Store):
    store.projects.register("1.100", 1, "<View/>", CLASSES, "Streets")
    lines = told(store)
    assert lines.startswith("project 1 (Streets)\n")
    assert "0 regions; 0 of the 4 new ones" in lines
    assert "v0 (not measured yet); annotators see nothing yet" in lines
    assert "now        waits for the worker, which looks at each image once" in lines


def test_a_version_is_told_by_the_score_that_it_is_judged_by(store: Store):
    row = store.projects.register("1.100", 1, "<View/>", CLASSES, "Cracks")
    metrics = {
        "validation_miou": 0.9, "validation_foreground_miou": 0.82, "background": "dark",
    }  # fmt: skip
    version = Version(project_id=row.id, number=1, is_accepted=True, num_labels=9, metrics=metrics)
    version.created_at = now()
    store.versions.add(version, current_version=1)
    assert "v1 (mIoU without dark 0.820)" in told(store)


def test_a_training_tells_how_far_it_is_and_when_it_ends_by_the_clock(store: Store):
    row = store.projects.register("1.100", 1, "<View/>", CLASSES, "Streets")
    progress = {
        "state": "training",
        "training_version": "v1",
        "percent": 29.4,
        "expected_end": "2026-11-26T15:33:46+01:00",
    }
    store.projects.change(row.id, progress=progress)
    assert "now        training v1, 29 %, until about 14:33:46 UTC\n" in told(store)


def test_queue_labels_round_and_version_are_told(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    (project,) = store.projects.all()
    status = project_status(store, project)
    assert (status.id, status.regions_id, status.num_waiting, status.num_labelled) == (1, 2, 8, 0)
    label_round(store, tool)
    settle(worker)
    status = project_status(store, store.projects.by_id(project.id))
    assert (status.num_labelled, status.num_new, status.version) == (4, 0, "v1")
    assert status.published == "v1"
    assert status.doing == {"state": "idle"}
    assert "annotators label in project 2" in told(store)


def test_what_could_not_be_read_or_was_set_aside_is_named(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    tool.annotate(tool.queue()[0], [{"unknown": 1}], annotation_id=77)
    (project,) = store.projects.all()
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    store.attempts.set_aside(project.id, "image", 5, "the image of task 5 was set aside")
    store.images.fail(store.images.of(project.id)[2].id, ValueError("it is no picture"))
    lines = told(store)
    assert "not read   annotation 77 of task" in lines
    assert "in project 2: annotation 77: unknown label" in lines
    assert "set aside  the image of task 5 was set aside" in lines
    assert "no image   task 3: it is no picture" in lines


def test_advice_and_what_people_left_are_told(store: Store):
    row = store.projects.register("1.100", 1, "<View/>", CLASSES, "Streets")
    store.projects.change(row.id, people={"advice": "Label on.", "double_images": 2})
    lines = told(store)
    assert "  advice     Label on.\n" in lines
    assert "  people     showing a picture that another task shows as well" in lines


def test_of_many_some_are_named_and_the_others_counted(store: Store):
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "Streets")
    for number in range(8):
        store.attempts.set_aside(project.id, "image", number, f"image {number} was set aside")
    assert told(store).count("set aside  image") == 5
    assert "set aside  and 3 more" in told(store)


def test_a_failure_is_told_with_its_next_try(store: Store):
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "Streets")
    store.projects.change(project.id, last_error="Label Studio is down", retry_at=now())
    assert "problem    Label Studio is down (next try" in told(store)


def test_a_worker_lives_while_it_beats_and_no_longer(store: Store):
    assert seconds_since_worker(store) is None
    name = own_name()
    store.workers.beat(name)
    age = seconds_since_worker(store)
    assert age is not None
    assert age < 30
    with store.database.write() as session:
        session.get_one(LiveWorker, name).seen_at = now() - timedelta(minutes=5)
    assert seconds_since_worker(store) is None


def test_a_worker_that_was_killed_does_not_live(store: Store):
    machine, _, _, tail = own_name().split("/")
    store.workers.beat(f"{machine}/999999999/1/{tail}")
    assert seconds_since_worker(store) is None
    with Pulse(store, own_name()):
        pass
    assert store.workers.seen() == {}


def test_how_far_the_version_in_use_was_trained_on_is_told():
    assert further_text("v3", Further()) is None
    told = further_text("v3", Further(7, updates=850, seconds=330.0))
    assert told == "v3 was trained on for 850 updates, 5.5 min: nothing better that is worth " + (
        "another queue yet"
    )
    told = further_text("v3", Further(7, updates=850, seconds=330.0, ended=CONVERGED))
    assert told == "v3 was trained on for 850 updates, 5.5 min: it has converged"
    told = further_text("v3", Further(7, ended="somebody went back to this version"))
    assert told == ("v3 is not trained on with these labels: somebody went back to this version")


def test_what_a_version_in_the_making_learns_is_told(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    version = store.versions.find(project.id, 1)
    assert version is not None
    store.versions.change(version.id, metrics=Further(7, updates=60, seconds=60.0).as_metrics())
    doing = {"state": "improving", "improved_version": "v1", "updates": 60, "loss": 0.4}
    store.projects.change(project.id, progress=doing)
    assert "  now        improving v1, 60 updates\n" in told(store)
    assert "  training   v1 was trained on for 60 updates, 1.0 min: nothing better" in told(store)
