from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from ralis_backend.core.acquisition import STRATEGIES, Needs, Scorer
from ralis_backend.core.images import mask_to_png
from ralis_backend.online.learner import Learner
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import ImageSuggestion, ToolTask
from ralis_backend.online.worker import Worker
from tests.online.conftest import RANKING, MakeWorker, label_round, settle
from tests.online.fake_tool import START, FakeTool, picture

pytestmark = pytest.mark.e2e  # a minute of small trainings


def labelled(
    store: Store, tool: FakeTool, make_worker: MakeWorker, mode: str = "crops"
) -> tuple[Worker, Project]:
    """A project with a first version, trained on whole images but the last."""
    worker = make_worker(mode, promotion_tolerance=1.0)
    for image in list(tool.files)[:-1]:
        mask = np.random.default_rng(image).integers(0, 2, (64, 96))  # no two masks are alike
        tool.annotate(image, project_id=1, results=[{"mask": mask.tolist()}])
    settle(worker)
    (project,) = store.projects.all()
    assert project.current_version == 1
    return worker, project


def train_again(store: Store, worker: Worker) -> Version:
    (project,) = store.projects.all()
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    (project,) = store.projects.all()
    assert project.last_error is None
    version = store.versions.all(project.id)[-1]
    assert version.number > 1
    return version


def mask_file(store: Store, project: Project, task_id: int) -> Path:
    """Of a label of that image, which is no one else's."""
    image = store.images.find(project.id, task_id)
    assert image is not None
    keys = [label.mask_key for label in store.labels.of(project.id)]
    mine = [label.mask_key for label in store.labels.of_image(image.id)]
    return store.blobs.path(next(key for key in mine if key and keys.count(key) == 1))


def images(store: Store, project: Project) -> dict[int, Image]:
    return {image.task_id: image for image in store.images.of(project.id)}


def pauses_end(store: Store, project: Project) -> None:
    for image in store.images.of(project.id):
        if image.retry_at is not None:
            store.images.change(image.id, retry_at=image.retry_at - timedelta(days=2))


@pytest.mark.sweep
@pytest.mark.parametrize("damage", ["missing", "truncated", "another", "empty", "held out"])
def test_a_bad_mask_is_left_out_named_and_made_again_from_what_was_painted(
    store: Store, tool: FakeTool, make_worker: MakeWorker, damage: str
):
    worker, project = labelled(store, tool, make_worker)
    task_id = 1
    if damage == "held out":
        task_id = next(it.task_id for it in store.images.of(project.id) if it.is_validation)
    path = mask_file(store, project, task_id)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        other = mask_to_png(np.full((32, 32), 1, np.uint8))
        path.write_bytes({"another": other, "empty": b""}.get(damage, content[:-20]))
    newest = store.labels.newest_id(project.id)
    config = worker._config
    several = replace(config, finetune=replace(config.finetune, steps=60))
    version = train_again(store, Worker(store, tool, several))  # long enough to draw every region
    assert sum(each.startswith("label") for each in version.metrics["left_out"]) == 1
    used = version.metrics["training_regions"] + version.metrics["validation_regions"]
    assert used == store.labels.count(project.id) - 1
    assert path.read_bytes() == content
    assert store.annotations.failed(project.id) == []
    assert store.labels.newest_id(project.id) == newest


@pytest.mark.sweep
@pytest.mark.parametrize("content", [b"", b"not an image", picture(1, (40, 60))[0], None])
def test_a_labelled_image_that_cannot_be_used_stops_neither_training_nor_ranking(
    store: Store, tool: FakeTool, make_worker: MakeWorker, content: bytes | None
):
    worker, project = labelled(store, tool, make_worker)
    files = dict(tool.files)
    for task_id in (1, 5):  # learned from, and held out
        if content is None:
            del tool.files[task_id]
        else:
            tool.files[task_id] = (content, files[task_id][1])
    version = train_again(store, worker)
    (project,) = store.projects.all()
    assert project.current_version == version.number
    assert version.ranked_at is not None
    rows = images(store, project)
    assert all(rows[task_id].error for task_id in (1, 5))
    assert {row.size for row in rows.values()} == {(64, 96)}  # that of the labels
    assert {row.task_id for row in rows.values() if not row.error} == {2, 3, 4, 6}
    if content is not None and content.startswith(b"\x89"):
        assert "40 x 60 pixels (height x width) now" in str(rows[1].error)

    asked = tool.calls.count("image")
    settle(worker)
    assert tool.calls.count("image") == asked  # not in every step
    tool.files = files
    pauses_end(store, project)
    settle(worker)
    assert all(row.error is None for row in images(store, project).values())
    judged = store.versions.all(project.id)[-1]  # nothing held out could be read when v2 came
    assert (judged.parent, judged.metrics["validation_regions"]) == (version.number, 6)
    settle(worker)
    assert store.versions.all(project.id)[-1].number == judged.number  # once
    assert "left_out" not in train_again(store, worker).metrics


def test_a_project_whose_images_all_were_unreadable_begins_once_they_can_be_read(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    files = dict(tool.files)
    tool.files = {index: (b"bad", mask) for index, (_, mask) in files.items()}
    worker = make_worker()
    settle(worker)
    assert tool.queue() == []
    tool.files = files
    (project,) = store.projects.all()
    pauses_end(store, project)
    settle(worker)
    assert len(tool.queue()) == 8
    label_round(store, tool)
    settle(worker)
    assert store.projects.all()[0].current_version == 1


def test_labels_of_images_that_all_are_unreadable_are_learned_once_they_can_be_read(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker, project = labelled(store, tool, make_worker)
    files = dict(tool.files)
    tool.files = {index: (b"bad", mask) for index, (_, mask) in files.items()}
    store.projects.change(project.id, is_training_requested=True)
    settle(worker)
    (project,) = store.projects.all()
    assert (project.current_version, project.last_error) == (1, None)
    tool.files = files
    pauses_end(store, project)
    settle(worker)
    assert store.projects.all()[0].current_version == 2


@pytest.mark.sweep
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "foreign"])
def test_bad_weights_are_replaced_by_the_nearest_usable_ones_and_trained_anew(
    store: Store, tool: FakeTool, make_worker: MakeWorker, damage: str
):
    worker, project = labelled(store, tool, make_worker)
    second = train_again(store, worker)
    assert second.weights_key is not None
    path = store.blobs.path(second.weights_key)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "foreign": b"PK" * 99}.get(damage, path.read_bytes()[:-9]))
    third = train_again(store, worker)
    assert (third.number, third.parent) == (3, 1)
    assert "weights_error" in store.versions.all(project.id)[-2].metrics
    (project,) = store.projects.all()
    assert (project.current_version, project.published_version) == (3, 3)


def test_without_any_usable_weights_learning_begins_anew(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker, project = labelled(store, tool, make_worker)
    version = store.versions.find(project.id, 1)
    assert version is not None
    store.blobs.path(str(version.weights_key)).write_bytes(b"damaged")
    store.versions.change(version.id, ranked_at=None)  # it is the ranking that finds out
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    (project,) = store.projects.all()
    assert project.current_version == 2
    assert store.versions.all(project.id)[-1].parent in (None, 0)
    assert project.last_error is None


@pytest.mark.sweep
@pytest.mark.parametrize("mode", ["crops", "in-place"])
@pytest.mark.parametrize("content", [None, b"cut", mask_to_png(np.zeros((9, 9), np.uint8))])
def test_a_lost_predicted_mask_is_predicted_again(
    store: Store, tool: FakeTool, make_worker: MakeWorker, mode: str, content: bytes | None
):
    worker, project = labelled(store, tool, make_worker, mode)
    version = store.versions.find(project.id, 1)
    assert version is not None
    image = images(store, project)[6]
    ranking = store.rankings.find(version.id, image.id)
    assert ranking is not None
    path = store.blobs.path(str(ranking.mask_key))
    before = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert predicted(store, tool).mask is None  # the web process does without
    store.projects.change(project.id, published_version=None)
    settle(worker)
    again = store.rankings.find(version.id, image.id)
    assert again is not None
    assert store.blobs.get(str(again.mask_key)) == before
    if mode == "crops":
        assert all(it.mask is not None for it in tool.predictions.values())
    else:
        assert all(it.mask is not None for it in tool.image_predictions)


def predicted(store: Store, tool: FakeTool, task_id: int = 6) -> ImageSuggestion:
    learner = Learner(store, RANKING, tool.image)
    (answer,) = learner.suggest(tool.pool.uid, [ToolTask(task_id, START, "/data/6.png")])
    assert isinstance(answer, ImageSuggestion)
    return answer


def test_suggestions_are_made_although_the_weights_are_damaged(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    _, project = labelled(store, tool, make_worker)
    version = store.versions.find(project.id, 1)
    assert version is not None
    store.blobs.path(str(version.weights_key)).write_bytes(b"damaged")
    store.rankings.forget(version.id, [images(store, project)[6].id])
    answer = predicted(store, tool)
    assert answer.regions
    assert answer.mask is None  # nothing that could be used has learned


@pytest.mark.parametrize("mode", ["crops", "in-place"])
def test_a_ranking_of_other_regions_is_made_again(
    store: Store, tool: FakeTool, make_worker: MakeWorker, mode: str
):
    worker, project = labelled(store, tool, make_worker, mode)
    version = store.versions.find(project.id, 1)
    assert version is not None
    image = images(store, project)[6]
    store.rankings.put(version, image.id, np.ones(17, np.float32), [""] * 17, None)
    assert len(predicted(store, tool).regions) == 3
    store.projects.change(project.id, published_version=None)
    settle(worker)
    assert set(store.rankings.num_regions(version.id).values()) == {6}
    assert store.projects.all()[0].published_version == 1


def test_a_spool_that_cannot_be_made_stops_no_ranking(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    (store.blobs.root / "spool").write_text("in the way")
    settle(worker)
    assert len(tool.queue()) == 8


@pytest.mark.parametrize("mode", ["crops", "in-place"])
def test_images_of_any_size_and_of_one_colour_go_through_the_loop(
    store: Store, tool: FakeTool, make_worker: MakeWorker, mode: str
):
    sizes = {1: (1, 1), 2: (1, 200), 3: (31, 7), 4: (33, 65), 5: (64, 96)}
    for task_id, size in sizes.items():
        mask = np.zeros(size, np.uint8)
        tool.files[task_id] = (_png(np.full((*size, 3), 40, np.uint8)), mask)
    worker = make_worker(mode)
    for task_id in sizes:
        results = [{"mask": tool.files[task_id][1].tolist()}]
        tool.annotate(task_id, project_id=1, results=results)
    settle(worker)
    (project,) = store.projects.all()
    assert project.last_error is None
    assert project.published_version == 1
    assert {it.task_id: it.size for it in store.images.of(project.id) if it.error is None} == {
        **sizes, 6: (64, 96)
    }  # fmt: skip


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class _Broken(Scorer):
    """Fails where it is told to."""

    name = "broken"

    def __init__(self, where: str, *features: str) -> None:
        self.where, self.needs = where, Needs.of(*features)

    def scores(self, state, actions):
        if self.where == "scores":
            raise KeyError("broken")
        bad = {"one": [0], "all": slice(None)}.get(self.where, [])
        scores = np.arange(len(actions), dtype=np.float32)
        scores[bad] = np.nan
        return scores

    def reasons(self, state, actions, class_names):
        if self.where == "reasons":
            raise IndexError("broken")
        return super().reasons(state, actions, class_names)


@pytest.mark.sweep
@pytest.mark.parametrize("where", ["scores", "reasons", "one", "all"])
@pytest.mark.parametrize("features", [(), ("bald", "class_bald", "class_counts")])
def test_a_strategy_that_breaks_is_replaced_and_the_versions_say_why(
    store: Store,
    tool: FakeTool,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    features: tuple[str, ...],
):
    monkeypatch.setitem(STRATEGIES, "broken", _Broken(where, *features))
    worker, project = labelled(store, tool, make_worker)
    store.projects.change(project.id, strategy="broken")
    version = train_again(store, worker)
    assert (version.strategy == "broken") == (where in ("reasons", "one"))
    if where in ("scores", "all"):
        assert "broken" in version.metrics["strategy_note"]
        assert version.strategy == ("coverage" if features else "random")
    assert store.projects.all()[0].published_version == version.number


def test_weights_that_give_no_numbers_for_an_image_leave_that_image_out(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    from tests.tiny_segmenter import TinySegmenter

    look = TinySegmenter.look

    def broken(self, pixels, maps):
        seen = look(self, pixels, maps)
        return {name: it * (np.nan if pixels.shape[3] == 200 else 1) for name, it in seen.items()}

    monkeypatch.setattr(TinySegmenter, "look", broken)
    tool.files[2] = picture(2, (64, 200))
    worker = make_worker()
    settle(worker)
    (project,) = store.projects.all()
    assert "is not finite" in str(images(store, project)[2].error)
    assert len(tool.queue()) == 8


def test_labels_are_trained_on_once_fresh_addresses_can_be_read(
    store: Store, tool: FakeTool, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
):
    tool.pool_tasks = tool.pool_tasks[:1]
    worker = make_worker(random_share=0.0)
    settle(worker)
    read, has_run_out = tool.image, True

    def image(task: ToolTask) -> bytes:
        if has_run_out and not task.image.endswith("fresh"):
            raise ValueError("403: the address has run out")
        return read(task)

    monkeypatch.setattr(tool, "image", image)
    worker = Worker(store, tool, worker._config)
    label_round(store, tool)
    settle(worker)
    (project,) = store.projects.all()
    assert project.current_version == 0
    tool.pool_tasks = [replace(it, image=f"{it.image}?fresh") for it in tool.pool_tasks]
    store.projects.change(project.id, is_sync_requested=True)
    settle(worker)
    project = store.projects.by_id(project.id)
    assert (project.current_version, store.images.bad(project.id)) == (1, [])
