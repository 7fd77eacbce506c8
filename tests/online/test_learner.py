from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ralis_backend.online import learner as learner_module
from ralis_backend.online.labels import labelled_pixels
from ralis_backend.online.learner import Learner, SuggestionFailure
from ralis_backend.online.ranking import rank_image
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Version
from ralis_backend.online.store.wishes import STOPPED
from ralis_backend.online.tool import ImageSuggestion, ToolTask
from ralis_backend.online.wanted import Wanted, make_wish
from ralis_backend.online.worker import Worker
from tests.cli.process import wait_for
from tests.online.conftest import RANKING, selects, settle
from tests.online.fake_tool import CLASSES, START, FakeTool, picture

MakeWorker = Callable[..., Worker]


@pytest.fixture
def learner(store: Store, tool: FakeTool) -> Learner:
    return Learner(store, RANKING, tool.image, suggestions_per_image=2)


def test_an_unknown_project_has_version_zero(learner: Learner):
    assert learner.model_version("7.1") == "v0"


def test_registering_makes_a_project_known_and_due(learner: Learner, store: Store):
    assert learner.register("1.100", "<View/>", CLASSES, {"strategy": "margin"}) == "v0"
    (project,) = store.projects.all()
    assert project.tool_id == 1
    assert project.strategy == "margin"
    assert project.is_sync_requested


MINE = {"strategy": "presence-max", "mine_class": "bright", "mine_share": 0.5}


def test_a_connection_asks_for_a_class_and_changes_it_while_it_runs(learner: Learner, store: Store):
    learner.register("1.100", "<View/>", CLASSES, MINE)
    (project,) = store.projects.all()
    wish = store.wishes.standing(project.id)
    assert wish is not None
    assert (wish.class_name, wish.strategy, wish.share) == ("bright", "presence-max", 0.5)
    assert wish.count is None
    assert project.strategy is None  # the ordinary one stays as usual
    learner.register("1.100", "<View/>", CLASSES, {"mine_class": "dark", "strategy": "entropy"})
    (project,) = store.projects.all()
    other = store.wishes.standing(project.id)
    assert other is not None
    assert (other.class_name, other.strategy, project.strategy) == ("dark", None, "entropy")
    learner.register("1.100", "<View/>", CLASSES, {})
    assert store.wishes.standing(project.id) is None


def test_a_wish_that_was_ended_here_is_not_begun_again_by_the_same_setup(
    learner: Learner, store: Store
):
    learner.register("1.100", "<View/>", CLASSES, MINE)
    (project,) = store.projects.all()
    (wish,) = store.wishes.all(project.id)
    store.wishes.end(wish.id, STOPPED)
    learner.register("1.100", "<View></View>", CLASSES, MINE)
    assert len(store.wishes.all(project.id)) == 1


def test_a_class_that_goes_later_costs_a_connection_nothing(learner: Learner, store: Store):
    learner.register("1.100", "<View/>", CLASSES, MINE)
    assert learner.register("1.100", "<View></View>", CLASSES[:1], MINE) == "v0"
    told = learner.status("1.100")["mining"]
    assert told["class"] == "bright"
    assert "the wish rests" in told["note"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mine_class": "Bus"}, "no class 'Bus'; its classes are: dark, bright"),
        ({"strategy": "presence", "mine_share": 2}, "needs a class to look for"),
        ({"strategy": 7, "mine_class": "Bus"}, "'strategy' must be a name"),
    ],
)
def test_a_connection_that_asks_for_what_cannot_be_is_refused(learner, params, message):
    with pytest.raises(ValueError, match=message):
        learner.register("1.100", "<View/>", CLASSES, params)


def test_a_malformed_uid_is_refused(learner: Learner):
    with pytest.raises(ValueError, match="not of the form"):
        learner.register("seven", "<View/>", CLASSES, {})


def test_registering_again_asks_nothing_of_the_database(
    learner: Learner, store: Store, monkeypatch: pytest.MonkeyPatch
):
    learner.register("1.100", "<View/>", CLASSES, {})
    monkeypatch.setattr(store.projects, "register", None)
    monkeypatch.setattr(store.projects, "find", None)
    assert learner.register("1.100", "<View/>", CLASSES, {}) == "v0"


def test_a_ranked_image_is_answered_the_same_every_time(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    calls = len(tool.calls)
    first, again = (learner.suggest("1.100", [tool.pool_tasks[0]])[0] for _ in range(2))
    assert isinstance(first, ImageSuggestion)
    assert isinstance(again, ImageSuggestion)
    assert first.regions == again.regions
    assert len(first.regions) == 2
    assert first.version == "v0"
    assert first.mask is None
    assert len(tool.calls) == calls  # a look-up: nothing was fetched


def test_a_trained_version_answers_with_its_mask(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for task_id in tool.queue()[:4]:
        learner.learn("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    settle(worker)
    (answer,) = learner.suggest("1.100", [tool.pool_tasks[0]])
    assert isinstance(answer, ImageSuggestion)
    assert answer.version == "v1"
    assert answer.mask is not None
    assert answer.mask.shape == (64, 96)
    assert learner.status("1.100")["labelled_regions"] == 4
    assert [entry["version"] for entry in learner.versions("1.100")] == ["v0", "v1"]


def test_until_a_new_version_is_ranked_the_one_before_answers(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    project = store.projects.all()[0]
    trained = Version(
        project_id=project.id, number=1, is_accepted=True, num_labels=4, created_at=START
    )
    store.versions.add(trained, current_version=1)
    calls = len(tool.calls)
    (answer,) = learner.suggest("1.100", [tool.pool_tasks[0]])
    assert isinstance(answer, ImageSuggestion)
    assert answer.version == "v0"
    assert learner.model_version("1.100") == "v0"
    assert len(tool.calls) == calls


def test_an_image_that_came_since_is_computed_on_the_spot(
    learner: Learner, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    tool.files[99] = picture(99, (50, 70))
    (answer,) = learner.suggest("1.100", [ToolTask(99, START, "/data/99.png")])
    assert isinstance(answer, ImageSuggestion)
    assert answer.image_size == (50, 70)
    # k-center's scores depend on all candidates: those of one image do not put it before others
    assert [region.usefulness for region in answer.regions] == [0.5, pytest.approx(0.5 * 5 / 6)]


def test_an_image_that_came_since_has_its_place_though_picks_see_each_other(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    project = store.projects.all()[0]
    store.projects.change(project.id, strategy="coverage")
    worker = make_worker()
    for task_id in tool.queue()[:4]:
        learner.learn("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
    settle(worker)
    (project,) = store.projects.all()
    version = store.versions.find(project.id, 1)
    assert version is not None
    assert version.strategy == "coverage"
    worths = version.metrics["alone_quantiles"]
    assert worths == sorted(worths)
    for seed in (99, 98, 97):
        tool.files[seed] = picture(seed, (64, 96))
        (answer,) = learner.suggest("1.100", [ToolTask(seed, START, f"/data/{seed}.png")])
        assert isinstance(answer, ImageSuggestion)
        labelled = labelled_pixels(store.labels.of(project.id), len(project.classes))
        learned = np.array([1, 1])  # past the cold start
        content = tool.files[seed][0]
        ranked = rank_image(store, project, version, content, RANKING, labelled, learned)
        assert ranked.pool_scores == worths
        best = np.searchsorted(worths, ranked.scores.max(), side="right") / len(worths)
        assert answer.regions[0].usefulness == pytest.approx(best)


def test_all_labels_are_read_once_for_the_images_that_a_version_did_not_rank(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch
):
    settle(make_worker())
    worker, read, of = make_worker(), [], store.labels.of
    monkeypatch.setattr(store.labels, "of", lambda project_id: read.append(project_id) or of(1))

    def ask(seed: int) -> int:
        tool.files[seed] = picture(seed, (64, 96))
        (answer,) = learner.suggest("1.100", [ToolTask(seed, START, f"/data/{seed}.png")])
        assert isinstance(answer, ImageSuggestion)
        before = len(read)
        read.clear()
        return before

    assert ask(99) == 0
    for number in (1, 2):
        for task_id in tool.queue()[:4]:
            learner.learn("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
        settle(worker)
        assert store.projects.all()[0].current_version == number
        read.clear()
        assert [ask(seed) for seed in (98, 97, 96)] == [1, 0, 0]


def test_one_bad_task_fails_alone(learner: Learner, tool: FakeTool, make_worker: MakeWorker):
    settle(make_worker())
    bad = ToolTask(555, START, "/data/none.png")
    failed, good = learner.suggest("1.100", [bad, tool.pool_tasks[0]])
    assert isinstance(failed, SuggestionFailure)
    assert "555" in failed.message
    assert isinstance(good, ImageSuggestion)


def test_labelled_regions_are_not_suggested(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.annotate(1, [{"mask": np.zeros((64, 96), int).tolist()}], project_id=1)
    settle(make_worker())
    (answer,) = learner.suggest("1.100", [tool.pool_tasks[0]])
    assert isinstance(answer, ImageSuggestion)
    assert answer.regions == ()


def test_rolling_back_uses_the_earlier_version_again(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    for _ in range(2):
        for task_id in tool.queue()[:4]:
            learner.learn("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
        settle(worker)
    assert tool.version == "v2"
    learner.rollback("1.100", "v1")
    settle(worker)
    assert tool.version == "v1"
    with pytest.raises(ValueError, match="no version 'v9'; it has: v0, v1, v2"):
        learner.rollback("1.100", "v9")


def test_a_forgotten_project_keeps_its_labels(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    learner.learn("2.200", "ANNOTATION_CREATED", tool.annotate(tool.queue()[0]))
    settle(worker)
    project = store.projects.all()[0]
    learner.forget("1.100")
    assert store.projects.all() == []
    assert len(store.labels.of(project.id)) == 1
    learner.register("1.100", "<View/>", CLASSES, {})
    # The memory of an unchanged project must not hide that it was forgotten.
    assert len(store.projects.all()) == 1


def test_setup_revives_a_project_that_another_web_process_was_told_to_forget(
    learner: Learner, store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    clock = [100.0]
    monkeypatch.setattr(learner_module.time, "monotonic", lambda: clock[0])
    learner.register("1.100", "<View/>", CLASSES, {})
    Learner(store, RANKING, tool.image).forget("1.100")
    clock[0] += learner_module.MEMORY_S
    learner.register("1.100", "<View/>", CLASSES, {})
    (project,) = store.projects.all()
    assert project.is_sync_requested


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [
        ({}, {"mine_class": "bright"}, lambda project, wish: wish is None),
        ({"strategy": "entropy"}, {"strategy": "margin"}, lambda it, _: it.strategy == "entropy"),
        ({"background": "dark"}, {"background": "bright"}, lambda it, _: it.background == "dark"),
        ({}, "<View2/>", lambda it, _: it.classes[1]["is_active"]),
    ],
)
def test_what_is_said_last_holds_whichever_web_process_it_is_said_to(
    learner: Learner, store: Store, monkeypatch: pytest.MonkeyPatch, first, second, known
):
    clock = [100.0]
    monkeypatch.setattr(learner_module.time, "monotonic", lambda: clock[0])
    other = Learner(store, RANKING, None)
    learner.register("1.100", "<View/>", CLASSES, first)
    if isinstance(second, str):
        other.register("1.100", second, CLASSES[:1], first)
    else:
        other.register("1.100", "<View/>", CLASSES, second)
    clock[0] += 0.9
    learner.model_version("1.100")  # does not make what was said any newer
    clock[0] += 0.1
    for _ in range(2):
        learner.register("1.100", "<View/>", CLASSES, first)
        (project,) = store.projects.all()
        assert known(project, store.wishes.standing(project.id))
        clock[0] += learner_module.MEMORY_S


def test_a_connection_that_says_the_same_again_changes_nothing(
    learner: Learner, store: Store, monkeypatch: pytest.MonkeyPatch
):
    clock = [100.0]
    monkeypatch.setattr(learner_module.time, "monotonic", lambda: clock[0])
    learner.register("1.100", "<View/>", CLASSES, MINE)
    clock[0] += learner_module.MEMORY_S
    monkeypatch.setattr(store.projects, "register", None)
    monkeypatch.setattr(store.projects, "change", None)
    learner.register("1.100", "<View/>", CLASSES, MINE)


def make_gone(store: Store, **values: object) -> None:
    project = store.projects.register("1.100", 1, "<View/>", CLASSES, "pool")
    store.projects.change(
        project.id,
        regions_uid="2.200",
        **{"is_deleted": True, "num_losses": 7, "is_sync_requested": False, **values},
    )


@pytest.mark.parametrize("is_deleted", [True, False])
@pytest.mark.parametrize(
    "sign",
    [
        lambda learner: learner.register("1.100", "<View/>", CLASSES, {}),
        lambda learner: learner.register("2.200", "<View/>", CLASSES, {}),
        lambda learner: learner.learn("1.100", "TASKS_CREATED", {}),
        lambda learner: learner.learn("2.200", "ANNOTATION_CREATED", {}),
        lambda learner: learner.request_training("1.100"),
    ],
    ids=["setup", "setup of regions", "webhook", "webhook of regions", "Start Training"],
)
def test_a_sign_of_life_revives_a_project_that_was_gone(
    learner: Learner, store: Store, sign: Callable[[Learner], object], is_deleted: bool
):
    make_gone(store, is_deleted=is_deleted)
    sign(learner)
    (project,) = store.projects.all()
    assert (project.num_losses, project.is_sync_requested, project.retry_at) == (0, True, None)


def test_a_webhook_does_not_undo_that_a_project_was_to_be_forgotten(learner: Learner, store: Store):
    make_gone(store, is_deleted=False, num_losses=0)
    learner.forget("1.100")
    learner.learn("2.200", "ANNOTATION_CREATED", {})
    assert store.projects.all() == []
    learner.register("2.200", "<View/>", CLASSES, {})
    assert len(store.projects.all()) == 1


def test_start_training_tries_again_what_was_set_aside(learner: Learner, store: Store):
    learner.register("1.100", "<View/>", CLASSES, {})
    (project,) = store.projects.all()
    store.attempts.set_aside(project.id, "image", 7, "the image of task 7 was set aside")
    learner.request_training("1.100")
    assert store.attempts.notes(project.id) == []


def test_a_training_request_reads_everything_first(learner: Learner, store: Store):
    learner.register("1.100", "<View/>", CLASSES, {})
    learner.request_training("1.100")
    (project,) = store.projects.all()
    assert project.is_training_requested
    assert project.is_sync_requested


def label(tool: FakeTool, learner: Learner, count: int) -> None:
    for task_id in tool.queue()[:count]:
        learner.learn("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))


def test_the_status_is_counted_by_the_database(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label(tool, learner, 3)
    settle(worker)
    with selects(store) as read:
        status = learner.status()["1.100"]
    assert (status["labelled_regions"], status["open_regions"]) == (3, len(tool.queue()))
    rows = ("labels.mask_key", "annotations.annotator", "crop_tasks.reason", "label_config")
    assert [it for it in read if any(column in it for column in rows)] == []


def test_a_region_that_was_labelled_twice_and_a_skipped_one_are_one_labelled_region(
    learner: Learner, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    first, second = tool.queue()[:2]
    for task_id, is_skipped in ((first, False), (first, False), (first, True), (second, True)):
        learner.learn("2.200", "ANNOTATION_CREATED", tool.annotate(task_id, is_skipped=is_skipped))
    settle(worker)
    assert learner.status("1.100")["labelled_regions"] == 1


def test_suggesting_reads_the_labels_of_the_asked_image_alone(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    label(tool, learner, 3)
    settle(worker)
    with selects(store) as read:
        learner.suggest("1.100", tool.pool_tasks[:1])
    of_labels = [it for it in read if "FROM labels" in it]
    assert len(of_labels) == 1
    assert "labels.image_id = ?" in of_labels[0]


def test_suggesting_again_reads_neither_scores_nor_reasons(
    learner: Learner, store: Store, tool: FakeTool, make_worker: MakeWorker
):
    settle(make_worker())
    first = learner.suggest("1.100", tool.pool_tasks[:1])
    with selects(store) as read:
        again = learner.suggest("1.100", tool.pool_tasks[:1])
    assert first == again
    assert [it for it in read if "rankings.scores" in it or "rankings.reasons" in it] == []


@pytest.mark.parametrize(("count", "num_looks"), [(None, 0), (50, 1)])
def test_what_was_mined_is_counted_once_a_request_and_only_where_a_number_is_wanted(
    learner: Learner,
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    count,
    num_looks,
):
    worker = make_worker("in-place")
    settle(worker)
    (project,) = store.projects.all()
    wanted = Wanted("bright", count=count, examples=["task:3"])
    wish = store.wishes.begin(make_wish(store, project, wanted, RANKING))
    settle(worker)
    looks, mined = [], store.labels.mined
    monkeypatch.setattr(store.labels, "mined", lambda *it: looks.append(it) or mined(*it))
    learner.suggest("1.100", tool.pool_tasks)
    assert looks == []
    store.queue.take_back(project.id, 0, None)
    answers = learner.suggest("1.100", tool.pool_tasks)
    assert {region.wish_id for it in answers for region in it.regions} == {wish.id}
    assert looks == [(project.id, wish.id)] * num_looks


@pytest.mark.parametrize("strategy", ["x" * 300, "no-such-strategy", "a\0b", ["margin"], 7])
def test_a_strategy_that_is_none_is_refused_at_once(
    learner: Learner, store: Store, strategy: object
):
    with pytest.raises(ValueError, match="strategy"):
        learner.register("1.100", "<View/>", CLASSES, {"strategy": strategy})
    assert store.projects.all() == []


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("presence:Nope", "'Nope' is not one of dark, bright"),
        ("presence:", "'none' is not one of dark, bright"),
        ("presence:BRIGHT", "'BRIGHT' is not one of dark, bright"),
        ("coverage:bright", "'coverage' looks for no single class; leave out ':bright'"),
        ("random:", "'random' looks for no single class; leave out ':'"),
        ("ralis", "trained for the 11 classes"),
    ],
)
def test_a_strategy_that_does_not_fit_the_project_is_refused_at_once(
    learner: Learner, store: Store, strategy: str, message: str
):
    with pytest.raises(ValueError, match=message):
        learner.register("1.100", "<View/>", CLASSES, {"strategy": strategy})
    assert store.projects.all() == []
    learner.register("1.100", "<View/>", CLASSES, {"strategy": "presence:bright"})
    with pytest.raises(ValueError, match=message):
        learner.register("1.100", "<View/>", CLASSES, {"strategy": strategy})
    assert store.projects.get("1.100").strategy == "presence:bright"


def test_the_background_can_be_sought_though_it_is_no_label(learner: Learner, store: Store):
    params = {"strategy": "presence:rest", "background": "rest"}
    learner.register("1.100", "<View/>", CLASSES, params)
    assert store.projects.get("1.100").strategy == "presence:rest"


def test_a_strategy_that_fitted_once_stays_when_the_classes_change(learner: Learner, store: Store):
    learner.register("1.100", "<View/>", CLASSES, {"strategy": "presence:bright"})
    learner.register("1.100", "<View><!-- --></View>", CLASSES[:1], {"strategy": "presence:bright"})
    assert store.projects.get("1.100").strategy == "presence:bright"


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_strategy_that_is_taken_away_gives_way_to_the_setting(
    learner: Learner, store: Store, tool: FakeTool, is_restarted: bool
):
    learner.register("1.100", "<View/>", CLASSES, {"strategy": "margin"})
    assert store.projects.get("1.100").strategy == "margin"
    after = Learner(store, RANKING, tool.image) if is_restarted else learner
    after.register("1.100", "<View/>", CLASSES, {})
    assert store.projects.get("1.100").strategy is None


@pytest.mark.parametrize("uid", ["9" * 20 + ".1", str(2**63) + ".1", "٣.1", "1e3.1"])
def test_a_project_beyond_the_databases_integers_is_refused(learner: Learner, uid: str):
    with pytest.raises(ValueError, match="not of the form"):
        learner.register(uid, "<View/>", CLASSES, {})


class Gate:
    """Images that arrive when they are let in."""

    def __init__(self, image: Callable[[ToolTask], bytes]) -> None:
        self._image = image
        self.is_open = threading.Event()
        self.num_waiting = 0

    def __call__(self, task: ToolTask) -> bytes:
        self.num_waiting += 1
        self.is_open.wait(10)
        return self._image(task)


def test_a_late_image_is_said_to_be_late_and_goes_on_arriving_alone(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(learner_module, "IMAGE_S", 0.05)
    gate = Gate(tool.image)
    learner = Learner(store, RANKING, gate)
    learner.register("1.100", "<View/>", CLASSES, {})
    first, second = learner.suggest("1.100", tool.pool_tasks[:2])
    assert "did not arrive" in first.message
    assert "still on its way" in second.message
    assert gate.num_waiting == 1
    gate.is_open.set()
    wait_for(lambda: isinstance(learner.suggest("1.100", tool.pool_tasks[:1])[0], ImageSuggestion))


def test_only_one_image_is_computed_at_a_time_and_the_others_are_told(
    store: Store, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(learner_module, "TURN_S", 0.01)
    gate = Gate(tool.image)
    learner = Learner(store, RANKING, gate)
    learner.register("1.100", "<View/>", CLASSES, {})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(learner.suggest, "1.100", tool.pool_tasks[:1])
        wait_for(lambda: gate.num_waiting == 1)
        (other,) = learner.suggest("1.100", tool.pool_tasks[1:2])
        gate.is_open.set()
        assert isinstance(first.result()[0], ImageSuggestion)
    assert "computing another image" in other.message


def test_what_a_request_has_no_time_for_is_said(
    learner: Learner, tool: FakeTool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(learner_module, "REQUEST_S", -1.0)
    learner.register("1.100", "<View/>", CLASSES, {})
    (answer,) = learner.suggest("1.100", tool.pool_tasks[:1])
    assert "ask for the rest again" in answer.message


def test_the_connection_chooses_the_background_of_its_project(learner: Learner, store: Store):
    learner.register("1.100", "<View/>", CLASSES, {"background": "dark"})
    assert store.projects.get("1.100").background_name == "dark"
    learner.register("1.100", "<View/>", CLASSES, {"strategy": "margin"})
    assert store.projects.get("1.100").background_name == "dark", "nothing was said of it"
    learner.register("1.100", "<View/>", CLASSES, {"background": "sky"})
    assert store.projects.get("1.100").class_names == ("dark", "bright", "sky")
    learner.register("1.100", "<View/>", CLASSES, {"background": False})
    assert store.projects.get("1.100").background_name is None


@pytest.mark.parametrize("value", [7, "da\nrk", ["dark"], True])
def test_a_background_that_is_no_name_is_refused_and_changes_nothing(
    learner: Learner, store: Store, value: object
):
    with pytest.raises(ValueError, match="'background'"):
        learner.register("1.100", "<View/>", CLASSES, {"background": value})
    assert store.projects.all() == []


def test_one_label_cannot_be_connected_without_a_background(learner: Learner, store: Store):
    with pytest.raises(ValueError, match="single label 'dark'"):
        learner.register("1.100", "<View/>", CLASSES[:1], {"background": False})
    learner.register("1.100", "<View/>", CLASSES[:1], {})
    assert store.projects.get("1.100").background_name == "Background"


def test_the_web_process_follows_the_setting(store: Store, tool: FakeTool):
    learner = Learner(store, RANKING, tool.image, background_label="bright")
    learner.register("1.100", "<View/>", CLASSES, {})
    assert store.projects.get("1.100").background_name == "bright"
