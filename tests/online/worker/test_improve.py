from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ralis_backend.core.learning import pseudo_labels
from ralis_backend.core.learning.continuing import ContinuedTraining
from ralis_backend.core.learning.course import ContinuingConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.regions import Region
from ralis_backend.core.segmenter import SEGMENTERS, load
from ralis_backend.online.further import CONVERGED, Further
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.paint_alone import left_off
from ralis_backend.online.report import notes
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import ClassLabel
from ralis_backend.online.worker import Worker, WorkerConfig, catching_up, improve, loop
from ralis_backend.online.worker import stretch as stretching
from ralis_backend.online.worker.promotion import can_be_judged, is_worth_publishing
from ralis_backend.online.worker.steps import is_improving_due
from ralis_backend.online.worker.train import Stopped
from tests.online.conftest import RANKING, TINY, label_round, make_label, settle
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.worker.test_failing_steps import out_of_reach
from tests.online.worker.test_steps import make_state
from tests.tiny_segmenter import TinySegmenter

pytestmark = pytest.mark.e2e  # half a minute of small trainings

QUICK = ContinuingConfig(50.0, decay=0.9, updates_per_look=10, look_share=0.5, patience=3)
"""The tiny segmenter learns what is dark and what is bright within a few dozen updates."""
CONFIG = WorkerConfig(ranking=RANKING, finetune=TINY, continuing=QUICK, improve_s=600, poll_s=0.0)


def labelled_tool() -> FakeTool:
    """Sixteen images, fifteen of them labelled: every fifth is held out, the last one waits."""
    made = FakeTool(num_images=16)
    for image in range(1, 16):
        mask = made.files[image][1].tolist()
        made.annotate(image, project_id=1, results=[{"mask": mask}])
    return made


def open_store(folder: Path) -> Store:
    return Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> tuple[Path, FakeTool]:
    """Data folder and tool of a project whose first version is in use, to be copied."""
    folder, tool = tmp_path_factory.mktemp("trained"), labelled_tool()
    shutil.copy(empty_database, folder)
    store = open_store(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SEGMENTERS, TinySegmenter.kind, TinySegmenter)
        rested(register(store, tool, CONFIG))
    store.close()
    return folder, tool


@pytest.fixture
def tool(trained: tuple[Path, FakeTool]) -> FakeTool:
    return copy.deepcopy(trained[1])


@pytest.fixture
def store(trained: tuple[Path, FakeTool], tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    opened = open_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def untrained(tmp_path: Path, empty_database: Path) -> Iterator[tuple[Store, FakeTool]]:
    """For tests that change the labels before the first training."""
    folder = tmp_path / "untrained"
    folder.mkdir()
    shutil.copy(empty_database, folder)
    opened = open_store(folder)
    yield opened, labelled_tool()
    opened.close()


def register(store: Store, tool: FakeTool, config: WorkerConfig) -> Worker:
    pool = tool.pool
    store.projects.register(pool.uid, pool.id, pool.label_config, pool.classes, "pool")
    return Worker(store, tool, config)


@pytest.fixture
def make_worker(store: Store, tool: FakeTool) -> Callable[..., Worker]:
    def make(**values: object) -> Worker:
        return register(store, tool, replace(CONFIG, **values))  # type: ignore[arg-type]

    return make


def rested(worker: Worker) -> Worker:
    """The worker when nothing but improving is due."""
    with not_idle(worker):
        settle(worker)
    return worker


@contextmanager
def not_idle(worker: Worker) -> Iterator[None]:
    steps = worker._steps
    worker._steps = tuple(step for step in steps if not step.is_idle)
    yield
    worker._steps = steps
    worker._settled.clear()


def idle(worker: Worker) -> None:
    """One stretch of what is done while nothing is due."""
    assert not worker.advance_all()


def project_of(store: Store) -> Project:
    return store.projects.all()[0]


def versions_of(store: Store) -> list[Version]:
    return store.versions.all(project_of(store).id)


def version(store: Store, number: int) -> Version:
    found = store.versions.find(project_of(store).id, number)
    assert found is not None
    return found


def further_of(store: Store, number: int = 1) -> Further:
    return Further.of(version(store, number).metrics)


def improve_image(number: int) -> Image:
    return Image(id=number)


def improve_label(number: int) -> RegionLabel:
    return make_label(1, Region(0, 0, 2, 2), id=number)


def improve_until(worker: Worker, is_done: Callable[[], bool], most: int = 40) -> None:
    for _ in range(most):
        if is_done():
            return
        worker.advance_all()
    raise AssertionError(f"not done after {most} rounds of the loop")


# When it is due


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("further", "is_due"),
    [
        (None, False),  # it has learned nothing, or cannot be judged
        (Further(), True),
        (Further(7, seconds_on_labels=599.0), True),
        (Further(7, seconds_on_labels=600.0), False),
        (Further(6, seconds_on_labels=600.0), True),  # there are newer labels
        (Further(7, ended=CONVERGED), False),
        (Further(6, ended=CONVERGED), True),
    ],
)
def test_a_version_is_trained_on_until_it_has_converged_or_had_its_time(further, is_due):
    assert is_improving_due(make_state(further=further), CONFIG) is is_due
    assert not is_improving_due(make_state(further=further), replace(CONFIG, improve_s=0.0))


def test_nothing_is_trained_on_where_too_little_is_held_out(untrained: tuple[Store, FakeTool]):
    """Ten images of six regions: twelve regions are held out, in two images."""
    store, tool = untrained
    for number in range(11, 16):
        del tool.all_annotations[1][number]
    worker = rested(register(store, tool, CONFIG))
    assert version(store, 1).metrics["validation_images"] == 2
    idle(worker)
    assert further_of(store) == Further()
    assert [can_be_judged(*it) for it in ((12, 2), (4, 3), (5, 3))] == [False, False, True]


# When it is worth publishing


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("values", "is_worth_it"),
    [
        ((0.010, 0.009, 30.0, 10.0), True),
        ((0.009, 0.001, 30.0, 10.0), False),  # less than a point
        ((0.020, 0.020, 30.0, 10.0), False),  # no more than noise
        ((0.020, 0.001, 29.9, 10.0), False),  # not three times as long as ranking and publishing
    ],
)
def test_a_better_version_is_worth_it_beyond_a_point_noise_and_disturbance(values, is_worth_it):
    assert is_worth_publishing(*values) is is_worth_it


def test_a_version_that_is_better_takes_the_place_of_the_one_in_use(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker())
    first = version(store, 1)
    round_before = project_of(store).round
    alone = left_off(["unlabelled"], first.num_labels, with_it=0.3, without=0.4)
    no_time = {"seconds": {"rank": 0.0, "publish": 0.0}}
    store.versions.change(first.id, metrics={**no_time, **alone})
    improve_until(worker, lambda: len(versions_of(store)) > 1)
    rested(worker)
    second = version(store, 2)
    assert alone.items() <= second.metrics.items()  # what did harm stays left off
    gain, error = second.metrics["continued"]["gain"]
    assert gain >= 0.01
    assert gain > error
    assert second.metrics["validation_miou"] - first.metrics["validation_miou"] == pytest.approx(
        gain, abs=2e-4
    )
    assert (second.parent, second.round_version, second.before_round) == (1, 1, None)
    assert second.num_labels == first.num_labels
    assert "validation_gain" not in second.metrics  # its round was the first
    project = project_of(store)
    assert (project.current_version, project.published_version, tool.version) == (2, 2, "v2")
    assert project.round == round_before
    assert project.trained_label_id == first.metrics["newest_label_id"]


def test_what_a_teacher_did_is_kept_with_the_version_that_was_trained_on(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker(learner="paint+unlabelled"))
    store.versions.change(version(store, 1).id, metrics={"seconds": {"rank": 0, "publish": 0}})
    improve_until(worker, lambda: len(versions_of(store)) > 1)
    metrics = version(store, 2).metrics
    assert metrics["learned_from"] == ["unlabelled"]
    assert metrics["unlabelled"] == {
        "believed": pytest.approx(0.5, abs=0.5),
        "has_collapsed": False,
        "is_all_labelled": False,
    }


def test_a_teacher_that_was_left_is_told_of_the_version_that_is_trained_on(
    store: Store, make_worker: Callable[..., Worker], monkeypatch
):
    worker = rested(make_worker(learner="paint+unlabelled"))
    store.versions.change(version(store, 1).id, metrics=NEVER_WORTH_IT)
    monkeypatch.setattr(pseudo_labels.PseudoLabels, "has_collapsed", True)
    monkeypatch.setattr(improve, "KEEP_EVERY_S", 0.0)
    idle(worker)
    assert further_of(store).facts["unlabelled"]["has_collapsed"]
    monkeypatch.undo()
    monkeypatch.setattr(improve, "KEEP_EVERY_S", 0.0)
    monkeypatch.setitem(SEGMENTERS, TinySegmenter.kind, TinySegmenter)
    idle(rested(make_worker(learner="paint+unlabelled")))  # after a kill
    assert further_of(store).updates == 20
    assert further_of(store).facts["unlabelled"]["has_collapsed"]
    told = [it for it in notes([("v1", version(store, 1).metrics)]) if "left off" in it]
    assert told == [
        "v1: what nobody labelled was left off while it was trained on, the model said nearly "
        "everywhere the same of it"
    ]


def test_training_goes_on_as_if_nothing_had_been_published(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker())
    store.versions.change(version(store, 1).id, metrics={"seconds": {"rank": 0.0, "publish": 0.0}})
    idle(worker)
    stretch = stretch_of(worker)
    assert stretch is not None
    training = stretch.training
    improve_until(worker, lambda: len(versions_of(store)) > 1)
    assert stretch_of(worker) is stretch
    assert (training.updates, stretch.further.seconds) == (0, 0.0)  # the best was the last
    seconds = version(store, 2).metrics["seconds"]["train"]
    assert stretch.further.seconds_on_labels == pytest.approx(seconds, abs=0.006)
    score = version(store, 2).metrics["validation_miou"]
    assert stretch.further.best_score == pytest.approx(score, abs=1e-4)
    rested(worker)
    idle(worker)
    assert stretch_of(worker) is stretch
    assert training.updates == 10


def test_what_is_not_worth_it_yet_is_published_when_it_has_trained_for_long_enough(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker())
    first = version(store, 1)
    store.versions.change(first.id, metrics={"seconds": {"rank": 1e6, "publish": 0.0}})
    improve_until(worker, lambda: further_of(store).ended is not None)
    assert len(versions_of(store)) == 1
    assert further_of(store).ended == CONVERGED


def test_it_converges_and_then_rests_without_another_version(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker())
    improve_until(
        worker,
        lambda: (
            (newest := versions_of(store)[-1]).number > 0
            and Further.of(newest.metrics).ended == CONVERGED
        ),
        most=200,
    )
    rested(worker)
    found = [(it.number, it.metrics) for it in versions_of(store)]
    for _ in range(5):
        assert not worker.advance_all()
    assert [(it.number, it.metrics) for it in versions_of(store)] == found


# What stops it


def stretch_of(worker: Worker) -> stretching.Stretch | None:
    """What is in memory."""
    (step,) = (step for step in worker._steps if step.is_idle)
    return step.run.__self__._stretch  # type: ignore[attr-defined, no-any-return]


def updates_of(worker: Worker) -> int:
    stretch = stretch_of(worker)
    return 0 if stretch is None else stretch.training.updates


@pytest.fixture
def when_updated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets something happen during one update of continued training, counted from 1."""
    advance = ContinuedTraining.advance

    def when(number: int, act: Callable[[], object]) -> None:
        def told(self, updates, should_stop, on_update=lambda loss: None):
            def noted(loss: float) -> None:
                on_update(loss)
                if self.updates == number:
                    act()

            return advance(self, updates, should_stop, noted)

        monkeypatch.setattr(ContinuedTraining, "advance", told)

    return when


def test_a_webhook_interrupts_within_an_update_and_its_label_joins(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], when_updated
):
    worker = rested(make_worker())
    when_updated(4, lambda: label_round(store, tool, 1))
    idle(worker)
    assert updates_of(worker) == 4
    before = store.labels.newest_id(project_of(store).id)
    rested(worker)
    assert len(versions_of(store)) == 1  # one new label is no round
    newest = store.labels.newest_id(project_of(store).id)
    assert newest > before
    idle(worker)
    stretch = stretch_of(worker)
    assert stretch is not None
    assert stretch.training.updates == 10
    assert stretch.lesson is not None
    assert stretch.lesson.plan.num_labels == 91
    assert stretch.further.newest_label_id == newest


def star(tool: FakeTool, stars: Mapping[int, bool]) -> None:
    known = tool.all_annotations[1]
    for number, is_starred in stars.items():
        known[number] = replace(known[number], is_starred=is_starred, updated_at=tool.tick())


def test_a_star_that_moves_to_another_annotation_changes_what_is_learned(
    untrained: tuple[Store, FakeTool],
):
    store, tool = untrained
    tool.annotate(1, [{"mask": [[0] * 96] * 64}], project_id=1, annotation_id=99, is_starred=True)
    worker = rested(register(store, tool, CONFIG))
    idle(worker)

    def learned() -> set[int]:
        stretch = stretch_of(worker)
        assert stretch is not None
        assert stretch.lesson is not None
        (part,) = (it for it in stretch.lesson.plan.training if it.image.task_id == 1)
        return {label.annotation_row_id for label in part.labels}

    before = learned()
    star(tool, {99: False, 1: True})
    store.projects.change(project_of(store).id, is_sync_requested=True)
    rested(worker)
    idle(worker)
    assert not learned() & before


def test_a_class_that_is_removed_is_neither_learned_nor_judged_by_any_more(
    untrained: tuple[Store, FakeTool],
):
    """Image 1 is learned from, and image 5 held out: on both somebody painted glass over all."""
    store, tool = untrained
    with_glass = (*CLASSES, ClassLabel("glass", "#00FF00"))
    tool.pool = replace(tool.pool, classes=with_glass, label_config="<View>glass</View>")
    for image in (1, 5):
        glass = [{"mask": [[2] * 96] * 64}]
        tool.annotate(image, glass, project_id=1, annotation_id=90 + image, annotator="bob")
    worker = rested(register(store, tool, CONFIG))
    idle(worker)

    def num_glass() -> tuple[int, int]:
        stretch = stretch_of(worker)
        assert stretch is not None
        assert stretch.lesson is not None
        parts = stretch.lesson.plan.training
        return (
            stretch.lesson.read.class_pixels(parts)["glass"],
            int(stretch.lesson.before[:, 2].sum()),
        )

    assert num_glass() == (64 * 96, 64 * 96)
    tool.pool = replace(tool.pool, classes=CLASSES, label_config="<View/>")
    store.projects.change(project_of(store).id, is_sync_requested=True)
    rested(worker)
    idle(worker)
    assert num_glass() == (0, 0)


def interrupted_look(
    store: Store, tool: FakeTool, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """A label comes at the fourth image that is looked at; the looks so far, and those to come."""
    looks: list[int] = []
    real = stretching.evaluate

    def evaluate(segmenter, images):
        looks.append(1)
        if len(looks) == 4:
            label_round(store, tool, 1)
        return real(segmenter, images)

    monkeypatch.setattr(stretching, "evaluate", evaluate)
    idle(worker)
    return looks


def test_a_look_that_is_interrupted_goes_on_with_the_next_image(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], monkeypatch
):
    """What is seen of the version in use are the first three looks; then it is the candidate."""
    worker = rested(make_worker())
    looks = interrupted_look(store, tool, worker, monkeypatch)
    stretch = stretch_of(worker)
    assert stretch is not None
    assert (len(looks), stretch.training.updates, stretch.is_at_look) == (4, 10, True)
    rested(worker)
    idle(worker)
    assert (len(looks), stretch.training.updates, stretch.is_at_look) == (6, 10, False)
    assert stretch.further.num_looks <= 1


def test_a_round_of_labels_is_trained_before_anything_is_trained_on(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], when_updated
):
    worker = rested(make_worker())
    when_updated(3, lambda: label_round(store, tool, 4))
    idle(worker)
    assert updates_of(worker) == 3
    rested(worker)
    assert stretch_of(worker) is None  # its memory is free for the training
    second = version(store, 2)
    assert "continued" not in second.metrics
    assert (second.number, second.num_labels) == (2, 94)
    assert further_of(store, 1).updates == 3  # had the training been refused, it would go on there


def test_a_request_interrupts_within_an_update(
    store: Store, make_worker: Callable[..., Worker], when_updated
):
    worker = rested(make_worker())
    when_updated(2, lambda: store.projects.request_training(project_of(store).id))
    idle(worker)
    assert updates_of(worker) == 2
    rested(worker)
    assert version(store, 2).metrics["steps"] == TINY.steps


def test_a_stop_interrupts_within_an_update(
    store: Store, make_worker: Callable[..., Worker], when_updated
):
    worker = rested(make_worker())
    worker._stop = threading.Event()
    when_updated(5, worker._stop.set)
    idle(worker)
    assert updates_of(worker) == 5


def test_an_export_that_misses_something_gets_it_read(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], when_updated
):
    """A webhook was lost, and the worker holds the lease: it reads when it is asked to."""
    worker = rested(make_worker())
    tool.annotate(tool.queue()[0])
    said: list[str] = []

    def export() -> None:
        said.append(catching_up.catch_up(store, tool, CONFIG, project_of(store), wait_s=0))

    when_updated(4, export)
    idle(worker)
    assert updates_of(worker) == 4
    rested(worker)
    assert len(store.labels.of(project_of(store).id)) == 91
    assert said[0].startswith("1 annotation in Label Studio is not read yet")


def test_another_project_is_served_first(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], when_updated
):
    worker = rested(make_worker())
    served: list[str] = []

    def connect() -> None:
        other = store.projects.register("9.900", 9, "<View/>", CLASSES, "another")
        store.projects.change(other.id, is_sync_requested=False)

    when_updated(6, connect)
    sync = next(step for step in worker._steps if step.name == "sync")

    def serve(project: Project, report: object, should_stop: object) -> None:
        served.append(project.uid)
        raise Stopped("the rest of it is tested elsewhere")

    worker._steps = (replace(sync, run=serve), *worker._steps[1:])
    idle(worker)
    assert (updates_of(worker), served) == (6, [])
    idle(worker)
    assert (updates_of(worker), served) == (6, ["9.900"])


def test_a_project_that_is_deleted_meanwhile_is_left_alone(
    store: Store, make_worker: Callable[..., Worker], when_updated
):
    worker = rested(make_worker())
    project = project_of(store)
    when_updated(2, lambda: store.projects.change(project.id, is_deleted=True))
    idle(worker)
    assert updates_of(worker) == 2
    idle(worker)
    assert updates_of(worker) == 2


def test_nothing_is_written_between_two_looks_but_the_progress(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker())
    idle(worker)
    assert updates_of(worker) == 10
    assert further_of(store) == Further()
    assert not (store.blobs.root / "further").exists()


# What is kept


@pytest.fixture
def keeping_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(improve, "KEEP_EVERY_S", 0.0)


NEVER_WORTH_IT = {"seconds": {"rank": 1e9, "publish": 0.0}}


@pytest.fixture
def kept(store: Store, make_worker: Callable[..., Worker], keeping_always: None) -> Worker:
    """A worker that has trained on for one stretch, and kept it."""
    worker = rested(make_worker())
    store.versions.change(version(store, 1).id, metrics=NEVER_WORTH_IT)
    idle(worker)
    return worker


def test_a_worker_that_is_started_again_goes_on_from_what_was_kept(
    store: Store, kept: Worker, make_worker: Callable[..., Worker]
):
    known = further_of(store)
    assert (known.updates, known.newest_label_id) == (10, 90)
    assert known.checkpoint is not None
    learned = load(store.blobs.path(known.checkpoint))
    again = rested(make_worker())
    idle(again)
    found = further_of(store)
    assert found.updates == 20
    assert found.seconds > known.seconds
    assert found.seconds_on_labels > known.seconds_on_labels
    files = [it for it in (store.blobs.root / "further").rglob("*") if it.is_file()]
    assert {it.relative_to(store.blobs.root).as_posix() for it in files} == found.files
    assert learned.num_classes == 2


def test_what_another_worker_has_kept_since_is_gone_on_from(
    store: Store, kept: Worker, make_worker: Callable[..., Worker]
):
    other = rested(make_worker())
    idle(other)
    idle(kept)
    assert further_of(store).updates == 30
    assert updates_of(kept) == 30


def scored(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """What is held out scores so, look by look; the version in use first."""
    given = iter(scores)
    monkeypatch.setattr(improve, "held_out_score", lambda matrices, background: next(given))


def test_what_was_found_best_counts_on_after_a_kill_and_is_what_it_ends_with(
    store: Store, make_worker: Callable[..., Worker], keeping_always: None, monkeypatch
):
    """Best after 10 updates; then three looks without a gain, with a new worker before each."""
    scored(monkeypatch, 0.2, 0.5, 0.4, 0.4, 0.4)
    store.versions.change(version(store, 1).id, metrics=NEVER_WORTH_IT)
    idle(rested(make_worker()))
    known = further_of(store)
    assert known.best_checkpoint == known.checkpoint is not None
    best = load(store.blobs.path(known.checkpoint)).state()
    for number in (1, 2):
        idle(rested(make_worker()))
        found = further_of(store)
        course = found.course
        assert (course.best_score, course.best_updates, course.num_looks) == (0.5, 10, number)
        assert found.best_checkpoint == known.checkpoint != found.checkpoint
        assert len(list((store.blobs.root / "further").rglob("*.*"))) == 2
    idle(rested(make_worker()))
    ended = further_of(store)
    assert (ended.ended, ended.updates) == (CONVERGED, 10)
    left = load(store.blobs.path(str(ended.checkpoint))).state()
    assert all((left[name] == best[name]).all() for name in best)


def test_what_was_found_best_before_a_kill_is_published_when_it_is_worth_it(
    store: Store, make_worker: Callable[..., Worker], keeping_always: None, monkeypatch
):
    scored(monkeypatch, 0.2, 0.5, 0.4, 0.5)
    store.versions.change(version(store, 1).id, metrics=NEVER_WORTH_IT)
    idle(rested(make_worker()))
    worker = rested(make_worker())
    monkeypatch.setattr(improve, "is_worth_publishing", lambda *values: True)
    idle(worker)
    metrics = version(store, 2).metrics
    assert metrics["steps"] == 10
    assert not metrics["further"]["num_held_out"]


def test_where_less_of_what_is_held_out_can_be_read_after_a_kill_scores_begin_anew(
    store: Store, kept: Worker, tool: FakeTool, make_worker: Callable[..., Worker], monkeypatch
):
    (held_out, *_) = [it for it in store.images.of(project_of(store).id) if it.is_validation]
    assert further_of(store).num_held_out == 3
    monkeypatch.setattr(improve, "can_be_judged", lambda *numbers: True)
    monkeypatch.setattr(tool, "image", out_of_reach(tool, {held_out.task_id}))
    idle(rested(make_worker()))
    found = further_of(store)
    assert (found.updates, found.num_held_out) == (20, 2)
    assert found.best_updates in (10, 20)


@pytest.mark.sweep
@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_without_what_was_kept_it_begins_with_the_version_in_use(
    store: Store, kept: Worker, make_worker: Callable[..., Worker], content: bytes | None
):
    checkpoint = further_of(store).checkpoint
    assert checkpoint is not None
    path = store.blobs.path(checkpoint)
    path.unlink() if content is None else path.write_bytes(content)
    idle(rested(make_worker()))
    assert further_of(store).updates == 10


def test_a_label_that_is_added_extends_what_was_kept(store: Store, tool: FakeTool, kept: Worker):
    tool.pool = replace(
        tool.pool, label_config="<View2/>", classes=(*CLASSES, ClassLabel("new", "#FF0000"))
    )
    store.projects.change(project_of(store).id, is_sync_requested=True)
    rested(kept)
    idle(kept)
    found = further_of(store)
    assert found.updates == 20
    assert found.checkpoint is not None
    assert load(store.blobs.path(found.checkpoint)).num_classes == 3


def test_tidying_up_leaves_what_was_kept_and_nothing_of_versions_before(
    store: Store, kept: Worker, make_worker: Callable[..., Worker]
):
    stray = store.blobs.put("further/1/0-dead.safetensors", b"x")
    rested(make_worker())  # a new worker tidies up at once
    checkpoint = further_of(store).checkpoint
    assert checkpoint is not None
    assert store.blobs.path(checkpoint).exists()
    assert not store.blobs.path(stray).exists()


def test_weights_that_are_damaged_put_the_version_before_in_use_and_train_anew(
    store: Store, kept: Worker, make_worker: Callable[..., Worker]
):
    store.blobs.path(str(version(store, 1).weights_key)).write_bytes(b"damaged")
    worker = rested(make_worker())
    idle(worker)
    assert project_of(store).current_version == 0
    rested(worker)
    assert "continued" not in versions_of(store)[-1].metrics


def test_time_that_is_used_up_is_noted_at_once(store: Store, make_worker: Callable[..., Worker]):
    worker = rested(make_worker(improve_s=1e-6))
    store.versions.change(version(store, 1).id, metrics=NEVER_WORTH_IT)
    idle(worker)
    found = further_of(store)
    assert (found.updates, found.ended) == (10, None)
    idle(worker)
    assert further_of(store) == found


@pytest.fixture
def two_projects(untrained: tuple[Store, FakeTool]) -> tuple[Store, Worker]:
    """Of both nothing is due but improving, and nothing that comes of it is worth publishing."""
    store, _ = untrained
    tools = [labelled_tool() for _ in range(2)]
    for number, tool in enumerate(tools):
        tool.pool = replace(tool.pool, uid=f"1.{300 + number}")
        pool = tool.pool
        store.projects.register(pool.uid, pool.id, pool.label_config, CLASSES, f"p{number}")
        worker = Worker(store, tool, CONFIG)
        with not_idle(worker):
            while worker._advance_alone(store.projects.looks()[number]):
                pass
        first = store.versions.find(store.projects.all()[number].id, 1)
        assert first is not None
        store.versions.change(first.id, metrics=NEVER_WORTH_IT)
    worker._steps = tuple(step for step in worker._steps if step.is_idle)
    return store, worker


def furthers_of(store: Store) -> list[Further]:
    versions = [store.versions.find(it.id, 1) for it in store.projects.all()]
    return [Further.of(it.metrics) for it in versions if it is not None]


def test_of_two_projects_each_goes_on_from_what_it_had_learned(
    two_projects: tuple[Store, Worker], monkeypatch
):
    store, worker = two_projects
    monkeypatch.setattr(loop, "TURN_S", 0.0)
    for _ in range(6):
        idle(worker)
    first, second = furthers_of(store)
    assert (first.updates, second.updates) == (30, 20)  # the last stretch is in memory yet
    assert updates_of(worker) == 30
    assert min(it.seconds_on_labels for it in (first, second)) > 0
    for each in (first, second):
        assert each.checkpoint is not None
        assert store.blobs.path(each.checkpoint).exists()


def test_a_project_keeps_its_turn_for_a_while(two_projects: tuple[Store, Worker]):
    store, worker = two_projects
    for _ in range(3):
        idle(worker)
    stretch = stretch_of(worker)
    assert stretch is not None
    assert (stretch.project_id, stretch.training.updates) == (store.projects.all()[0].id, 30)


def test_what_cannot_be_written_costs_its_weights_and_not_its_time(
    two_projects: tuple[Store, Worker], monkeypatch, tmp_path
):
    store, worker = two_projects
    monkeypatch.setattr(loop, "TURN_S", 0.0)
    (store.blobs.root / "further").write_bytes(b"no folder can be made here")
    for _ in range(4):
        idle(worker)
    for each in furthers_of(store)[:1]:
        assert (each.updates, each.checkpoint) == (0, None)
        assert each.seconds_on_labels > 0


def test_what_a_command_has_ended_is_not_kept_over_it(two_projects: tuple[Store, Worker]):
    store, worker = two_projects
    idle(worker)
    newest = store.labels.newest_id(store.projects.all()[0].id)
    ended = Further(newest, ended="a command has trained it to the end")
    first = store.versions.find(store.projects.all()[0].id, 1)
    assert first is not None
    store.versions.change(first.id, metrics=ended.as_metrics())
    idle(worker)
    assert stretch_of(worker) is not None
    assert furthers_of(store)[0] == ended


def test_a_look_that_a_label_interrupts_makes_nothing_worse_the_best(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], monkeypatch
):
    """The course begins anew with the label, at the update of the look that is still to be done."""
    worker = rested(make_worker())
    interrupted_look(store, tool, worker, monkeypatch)
    rested(worker)
    scores = iter([0.9, 0.3])  # of the version in use, and of the candidate
    monkeypatch.setattr(improve, "held_out_score", lambda matrices, background: next(scores))
    idle(worker)
    stretch = stretch_of(worker)
    assert stretch is not None
    assert (stretch.best, stretch.further.best_score, stretch.further.num_looks) == (None, 0.9, 1)


# What goes wrong


def test_a_failure_does_not_cost_its_time_nor_another_project_what_it_learned(
    two_projects: tuple[Store, Worker], monkeypatch
):
    store, worker = two_projects
    monkeypatch.setattr(loop, "TURN_S", 0.0)
    idle(worker)
    second = store.projects.all()[1]
    real = improve.usable_segmenter

    def usable(store, project, *rest):
        if project.id == second.id:
            raise RuntimeError("no memory")
        return real(store, project, *rest)

    monkeypatch.setattr(improve, "usable_segmenter", usable)
    for _ in range(2):
        idle(worker)
    assert updates_of(worker) == 20

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(ContinuedTraining, "advance", fail)
    idle(worker)
    assert furthers_of(store)[0].seconds_on_labels > 0


def test_a_loss_that_is_no_number_ends_it_for_these_labels(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker(continuing=replace(QUICK, learning_rate=1e12)))
    improve_until(worker, lambda: further_of(store).ended is not None)
    assert "the loss became" in str(further_of(store).ended)
    project = project_of(store)
    assert (project.last_error, project.num_failures, project.current_version) == (None, 0, 1)


def test_a_failure_disturbs_nobody_and_is_not_tried_again_at_once(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker], monkeypatch
):
    worker = rested(make_worker())
    tries = []

    def fail(*_: object) -> None:
        tries.append(1)
        raise RuntimeError("no memory")

    monkeypatch.setattr(ContinuedTraining, "advance", fail)
    for _ in range(3):
        idle(worker)
    assert len(tries) == 1
    assert project_of(store).last_error is None
    label_round(store, tool, 4)
    rested(worker)
    assert project_of(store).current_version == 2


def test_what_ends_the_worker_again_and_again_is_left(
    store: Store, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker())
    project = project_of(store)
    newest = store.labels.newest_id(project.id)
    for _ in range(2):  # as two workers did that died in it
        store.attempts.begin(project.id, improve.IMPROVING, newest)
    idle(worker)
    assert further_of(store).ended == "it ended the worker 2 times"
    assert updates_of(worker) == 0


def test_who_went_back_to_a_version_keeps_it(store: Store, make_worker: Callable[..., Worker]):
    worker = rested(make_worker())
    store.projects.request_training(project_of(store).id)
    rested(worker)
    assert project_of(store).current_version == 2
    store.versions.use(project_of(store).id, 1)
    rested(worker)
    for _ in range(3):
        idle(worker)
    assert further_of(store).ended == "somebody went back to this version"
    assert len(versions_of(store)) == 2


def test_two_workers_never_train_on_the_same_project_at_once(
    store: Store, make_worker: Callable[..., Worker], when_updated
):
    worker, other = rested(make_worker()), make_worker()
    when_updated(3, other.advance_all)
    idle(worker)
    assert updates_of(worker) == 10
    assert updates_of(other) == 0


def test_confusion_matrices_are_made_once_for_labels_that_stay(monkeypatch):
    looks: list[int] = []
    monkeypatch.setattr(
        stretching,
        "evaluate",
        lambda segmenter, images: looks.append(1) or np.eye(2, dtype=np.int64),
    )

    class Two:
        num_classes = 2

    def part(number: int, *labels: int) -> object:
        return stretching.ImageLabels(
            improve_image(number), (4, 4), [improve_label(label) for label in labels]
        )

    def image(*class_pixels: tuple[int, int]) -> LabelledImage:
        nothing = np.zeros((4, 4, 3), np.uint8)
        return LabelledImage(lambda: nothing, nothing[..., 0], (), class_pixels)

    looked = stretching.Looked()
    stops = iter([False, True, False, False, False])

    def should_stop() -> bool:
        return next(stops)

    parts, images = [part(1, 7), part(2, 8)], [image((3, 1)), image((2, 2))]
    with pytest.raises(stretching.Interrupted):
        looked.at(Two(), parts, images, should_stop)
    assert looked.at(Two(), parts, images, should_stop).shape == (2, 2, 2)
    assert len(looks) == 2
    looked.at(Two(), [part(1, 7), part(2, 8, 9)], images, should_stop)
    assert len(looks) == 3
    looked.at(Two(), [part(1, 7), part(2, 8, 9)], [image((3, 0)), images[1]], should_stop)
    assert len(looks) == 4  # the second class is removed


def test_what_ended_goes_on_when_an_older_label_is_deleted(
    store: Store, tool: FakeTool, make_worker: Callable[..., Worker]
):
    worker = rested(make_worker())
    improve_until(worker, lambda: Further.of(versions_of(store)[-1].metrics).ended is not None)
    known = tool.all_annotations[1]
    known.pop(min(known))
    store.projects.change(project_of(store).id, is_sync_requested=True)
    rested(worker)
    assert stretch_of(worker) is None
    idle(worker)
    stretch = stretch_of(worker)
    assert stretch is not None
    assert stretch.further.ended is None


def test_what_cannot_be_read_now_is_no_end(
    store: Store,
    tool: FakeTool,
    make_worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
):
    worker = rested(make_worker())

    def image(task: object) -> bytes:
        raise ValueError("403: the address has run out")

    monkeypatch.setattr(tool, "image", image)
    worker = rested(make_worker())
    for _ in range(2):
        idle(worker)
    assert store.images.bad(project_of(store).id)
    assert further_of(store).ended is None


def test_a_look_that_sees_less_than_the_one_before_it_says_nothing(
    store: Store,
    tool: FakeTool,
    make_worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
):
    away: set[int] = set()
    monkeypatch.setattr(tool, "image", out_of_reach(tool, away))
    worker = rested(make_worker())
    never = {"seconds": {"rank": 1e6, "publish": 0.0}}
    store.versions.change(version(store, 1).id, metrics=never)

    def looked() -> bool:
        stretch = stretch_of(worker)
        return stretch is not None and stretch.further.num_looks > 0

    improve_until(worker, looked)
    store.versions.change(version(store, 1).id, metrics={"seconds": {"rank": 0, "publish": 0}})
    held_out = [image.task_id for image in store.images.of(1) if image.is_validation]
    away.update(held_out[:-1])
    improve_until(worker, lambda: stretch_of(worker) is None)
    assert [it.number for it in versions_of(store)] == [1]
    assert further_of(store).ended is None
    assert store.images.bad(1)
