"""One rule for all pictures of a project: in crops, ranking, training and export alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from ralis_backend.core.images import crop_picture
from ralis_backend.core.intensity import PixelRule
from ralis_backend.online.export import export_project
from ralis_backend.online.export.labelled_images import as_plain_image
from ralis_backend.online.pictures import (
    Pictures,
    PictureSettings,
    describe_rule,
    keep_settings,
    pixel_rule,
)
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ImageUnreachable, ToolTask, ToolUnavailable
from tests.online.conftest import label_round, settle
from tests.online.fake_tool import CLASSES

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def deep(most: int, size: tuple[int, int] = (40, 50), low: int = 0) -> bytes:
    """A grey picture of 16 bits whose values go from `low` to `most`."""
    values = np.linspace(low, most, size[0] * size[1]).astype(np.uint16).reshape(size)
    return cv2.imencode(".png", values)[1].tobytes()


@pytest.fixture
def project(store: Store) -> Project:
    return store.projects.register("1.100", 1, "<View/>", CLASSES, "deep")


@pytest.fixture
def pictures(store: Store, project: Project) -> Callable[..., Pictures]:
    def make(**files: bytes | Exception) -> Pictures:
        """Pictures of a project with these files, under their names as addresses."""

        def fetch(task: ToolTask) -> bytes:
            content = files[task.image]
            if isinstance(content, Exception):
                raise content
            return content

        tasks = [ToolTask(number, CREATED, name) for number, name in enumerate(files, start=1)]
        store.images.reconcile(project.id, tasks)
        return Pictures(store, store.projects.by_id(project.id), fetch)

    return make


def test_the_range_is_that_of_a_sample_and_later_pictures_do_not_change_it(
    store, project, pictures
):
    first = pictures(dark=deep(900), bright=deep(4000))
    assert first.decode(deep(900)).max() == 900 >> 4  # not stretched by itself
    assert pixel_rule(store.projects.by_id(project.id)).ranges == {"integers": (0, 4095)}
    later = pictures(dark=deep(900), bright=deep(4000), brighter=deep(60_000))
    assert later.decode(deep(60_000)).max() == 255
    assert later.decode(deep(4000)).max() == 4000 >> 4
    assert "0 is black, 4095 white (measured on 3 of" in describe_rule(later.project)


def test_pictures_of_8_bits_decide_nothing_and_stay_as_they_are(store, project, pictures):
    grey = np.arange(240, dtype=np.uint8).reshape(15, 16)
    content = cv2.imencode(".png", grey)[1].tobytes()
    made = pictures(a=content, b=content)
    np.testing.assert_array_equal(made.decode(content)[..., 0], grey)
    assert store.projects.by_id(project.id).pixel_rule is None
    assert made.decode(deep(4000)).max() == 4000 >> 4  # the first deep one does
    np.testing.assert_array_equal(made.decode(content)[..., 0], grey)


def test_what_cannot_be_read_does_not_keep_the_range_from_being_measured(pictures):
    made = pictures(gone=ValueError("404"), damaged=b"no image", fine=deep(4000))
    assert made.decode(deep(900)).max() == 900 >> 4


def test_a_tool_that_does_not_answer_leaves_the_range_open(store, project, pictures):
    made = pictures(down=ToolUnavailable("down"))
    with pytest.raises(ToolUnavailable):
        made.decode(deep(900))
    assert store.projects.by_id(project.id).pixel_rule is None


def test_a_range_is_not_settled_while_most_pictures_are_not_delivered(store, project, pictures):
    lost = dict.fromkeys(("a", "b", "c"), ImageUnreachable("503"))
    made = pictures(fine=deep(4000), **lost)
    assert made.decode(deep(900)).max() == 900 >> 4
    assert store.projects.by_id(project.id).pixel_rule is None
    made = pictures(fine=deep(4000), a=lost["a"], b=deep(60_000), c=deep(900))
    assert made.decode(deep(900)).max() == 900 >> 8
    assert pixel_rule(store.projects.by_id(project.id)).ranges == {"integers": (0, 65535)}


def test_pictures_of_a_host_that_is_gone_for_hours_keep_no_range_open(store, project, pictures):
    lost = dict.fromkeys(("a", "b", "c"), ImageUnreachable("no such host"))
    made = pictures(fine=deep(4000), **lost)
    gone = [image for image in store.images.of(project.id) if image.ref in lost]
    for _ in range(5):
        for image in gone:
            store.images.fail(image.id, "no such host")
    assert made.decode(deep(900)).max() == 900 >> 4
    assert store.projects.by_id(project.id).pixel_rule is None
    for image in gone:
        store.images.fail(image.id, "no such host")
    made.decode(deep(900))
    settled = store.projects.by_id(project.id)
    assert "measured on 2 of the pictures" in describe_rule(settled)
    store.images.seen(gone[0].id, (40, 50))
    made = pictures(fine=deep(4000), **lost | {"a": deep(60_000)})
    assert made.decode(deep(60_000)).max() == 255
    assert store.projects.by_id(project.id).pixel_rule == settled.pixel_rule


def test_empty_pictures_say_nothing_of_the_others(store, project, pictures):
    blank = cv2.imencode(".png", np.zeros((5, 6), np.uint16))[1].tobytes()
    made = pictures(a=blank, b=blank)
    assert made.decode(blank).max() == 0
    assert store.projects.by_id(project.id).pixel_rule is None
    assert made.decode(deep(4000)).max() == 4000 >> 4


def test_two_who_measure_at_once_agree_on_the_first(store, project):
    rule = store.projects.settle_range(project.id, "integers", (0, 4095), "one").pixel_rule
    assert store.projects.settle_range(project.id, "integers", (0, 9), "two").pixel_rule == rule
    both = store.projects.settle_range(project.id, "floats", (0, 1), "three")
    assert pixel_rule(both).ranges == {"integers": (0, 4095), "floats": (0, 1)}


def test_where_somebody_waits_nothing_is_measured_but_what_is_known_counts(
    store, project, pictures
):
    made = replace(pictures(a=deep(4000), b=deep(4000)), may_measure=False)
    waiting = replace(made, fetch=lambda task: pytest.fail("another picture was fetched"))
    assert waiting.decode(deep(900)).max() == 900 >> 2  # by its own 10 bits
    assert store.projects.by_id(project.id).pixel_rule is None
    store.projects.settle_range(project.id, "integers", (0, 4095), "measured")
    assert waiting.decode(deep(900)).max() == 900 >> 4


def test_only_some_pictures_of_a_large_pool_are_looked_at(store, project):
    tasks = [ToolTask(number, CREATED, f"{number}.png") for number in range(1, 2000)]
    tasks += [ToolTask(number, CREATED, f"{number}.jpg") for number in range(2000, 3000)]
    store.images.reconcile(project.id, tasks)
    seen: list[str] = []

    def fetch(task: ToolTask) -> bytes:
        seen.append(task.image)
        return deep(4000, (4, 5))

    Pictures(store, project, fetch).decode(deep(4000))
    assert len(seen) == 15
    assert all(name.endswith(".png") for name in seen)
    assert int(seen[-1].removesuffix(".png")) > 1500  # spread over the pool


def test_the_operators_range_and_bands_win_and_can_be_taken_back(store, project, pictures):
    made = pictures(a=deep(4000))
    made.decode(deep(4000))
    wanted = PictureSettings((3, 2, 1), (100, 1123))
    changed = keep_settings(store, store.projects.by_id(project.id), wanted)
    assert pixel_rule(changed) == PixelRule(
        (3, 2, 1), {"integers": (100, 1123), "floats": (100, 1123)}
    )
    assert "RALIS_INTENSITY_RANGE" in describe_rule(changed)
    assert "bands 3,2,1" in describe_rule(changed)
    assert keep_settings(store, changed, wanted) is changed
    values = Pictures(store, changed, made.fetch).decode(deep(1123, low=100))
    assert (values.min(), values.max()) == (0, 255)
    back = keep_settings(store, changed, PictureSettings())
    assert pixel_rule(back) == PixelRule()
    assert Pictures(store, back, made.fetch).decode(deep(4000)).max() == 4000 >> 4


def test_a_trained_project_learns_anew_when_its_pictures_look_otherwise(store, project, caplog):
    store.projects.change(project.id, current_version=3)
    project = store.projects.by_id(project.id)
    assert not keep_settings(store, project, PictureSettings()).is_training_requested
    keep_settings(store, project, PictureSettings(intensity_range=(0, 9)))
    assert store.projects.by_id(project.id).is_training_requested
    assert "shown otherwise from now on" in caplog.text


def test_what_is_exported_is_what_was_shown(pictures):
    made = pictures(a=deep(4000))
    content, suffix, size = as_plain_image(deep(900), made.decode)
    assert (suffix, size) == (".png", (40, 50))
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown, made.decode(deep(900)))
    colours = np.full((4, 5, 3), 2000, np.uint16)
    content, suffix, _ = as_plain_image(cv2.imencode(".png", colours)[1].tobytes(), made.decode)
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (shown.dtype, int(shown.max())) == (np.uint8, 2000 >> 4)


@pytest.mark.parametrize("mode", ["crops", "in-place"])
def test_the_loop_shows_trains_and_exports_deep_pictures_by_one_rule(
    store, tool, make_worker, tmp_path, monkeypatch, mode
):
    for number, (content, mask) in tool.files.items():
        eight = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        values = eight.astype(np.uint16) * 16
        if number % 2:
            values = values // 4  # some are darker: they stay so
        tool.files[number] = (cv2.imencode(".png", values)[1].tobytes(), mask)
    crops = []
    make_tasks = tool.create_crop_tasks
    monkeypatch.setattr(
        tool, "create_crop_tasks", lambda *given: crops.extend(given[2]) or make_tasks(*given)
    )
    worker = make_worker(mode)
    settle(worker)
    project = store.projects.get(tool.pool.uid)
    assert pixel_rule(project).ranges == {"integers": (0, 4095)}
    assert all(image.error is None for image in store.images.of(project.id))
    for crop in crops:
        values = cv2.imdecode(
            np.frombuffer(tool.files[crop.source_task][0], np.uint8), cv2.IMREAD_UNCHANGED
        )
        part = (values[..., ::-1] >> 4).astype(np.uint8)
        np.testing.assert_array_equal(crop.image, crop_picture(part, crop.region, crop.scale))
    if mode == "crops":
        assert crops
        label_round(store, tool)
        settle(worker)
        assert store.projects.get(tool.pool.uid).current_version > 0
        assert all(image.error is None for image in store.images.of(project.id))
        export_project(store, tool.image, tool.pool.uid, tmp_path / "out")
        exported = sorted((tmp_path / "out" / "images").rglob("*.png"))
        assert exported
        for path in exported:
            values = cv2.imdecode(np.frombuffer(tool.files[int(path.stem)][0], np.uint8), -1)
            np.testing.assert_array_equal(cv2.imread(str(path)), values >> 4)
