"""A person before the screen: Chromium logs in, paints a region and sees what was learned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.cli.demo.scenes import CLASSES, generate
from ralis_backend.cli.demo.workplace import Backend
from ralis_backend.core.images import encode_png
from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.payloads.hotkeys import TOOL_HOTKEYS
from ralis_backend.online.store import Store
from tests.e2e.browser import HEIGHT, Annotator, chromium_page, chromium_program
from tests.e2e.conftest import PASSWORD, TOKEN, USERNAME
from tests.plug_in import with_tiny_segmenter
from tests.real_parts import missing

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

REGIONS_PER_ROUND = 2
SIDE = 96
NAMES = [name for name, _ in CLASSES]
SKY, ROAD = NAMES.index("sky"), NAMES.index("road")


@pytest.fixture
def annotator(label_studio: LabelStudioServer) -> Iterator[Annotator]:
    program = chromium_program()
    if program is None:
        missing(
            "no Chromium; install it with `apt-get install chromium`, or with "
            "`.venv/bin/playwright install --with-deps chromium`"
        )
    with chromium_page(str(program)) as page:
        yield Annotator(page, label_studio.url)


@pytest.fixture
def pool_id(client: LabelStudioClient) -> int:
    """Two small street scenes of ours in a project with their twelve classes."""
    labels = "".join(f'<Label value="{name}" background="{color}"/>' for name, color in CLASSES)
    project = client.create_project(
        "Painted by hand",
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>',
    )
    scenes = generate(2, size=(2 * SIDE, 2 * SIDE), seed=3)
    files = [(f"street{index}.png", encode_png(it.image)) for index, it in enumerate(scenes)]
    client.upload_files(int(project["id"]), files)
    return int(project["id"])


@pytest.fixture
def segmenter(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Environment for the usual network, or for a tiny one where a test asks for that."""
    return with_tiny_segmenter(tmp_path / "site") if hasattr(request, "param") else {}


@pytest.fixture
def backend(
    label_studio: LabelStudioServer, segmenter: dict[str, str], tmp_path: Path
) -> Iterator[Backend]:
    port = free_port()
    environment = {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": TOKEN,
        "RALIS_BACKEND_URL": f"http://127.0.0.1:{port}",
        "RALIS_DATA_DIR": str(tmp_path / "ralis"),
        "RALIS_AUTH_USER": "label-studio",
        "RALIS_AUTH_PASSWORD": "secret",
        "RALIS_REGION_SIZE": f"{SIDE}x{SIDE}",
        "RALIS_REGIONS_PER_ROUND": str(REGIONS_PER_ROUND),
        "OMP_NUM_THREADS": "1",
        "RALIS_IMPROVE_MINUTES": "0",
        **segmenter,
    }
    with Backend(port, environment, tmp_path / "backend.log") as running:
        running.wait_ready()
        yield running


@pytest.fixture
def store(backend: Backend, tmp_path: Path) -> Iterator[Store]:
    folder = tmp_path / "ralis"
    opened = Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")
    yield opened
    opened.close()


def wait_for(what: str, is_true: Callable[[], bool], log: Path, timeout_s: float = 150.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_true():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come in {timeout_s} s:\n{log.read_text()[-3000:]}")


def check_screen(annotator: Annotator) -> None:
    """Crop, note, every label and the buttons stand on the screen without scrolling."""
    page = annotator.page
    labels = page.locator(".lsf-label")
    expect(labels).to_have_count(len(NAMES))
    submit = page.get_by_test_id("bottombar-submit-button").bounding_box()
    assert submit is not None
    crop, context = (picture.bounding_box() for picture in page.locator(".lsf-image img").all())
    assert crop is not None
    assert context is not None
    assert min(crop["width"], crop["height"]) > 0.75 * HEIGHT
    assert context["x"] > crop["x"] + crop["width"]
    feedback = page.get_by_text("Not worth labelling").bounding_box()
    note = page.get_by_text("Round 1 · region").bounding_box()
    for box in (*(label.bounding_box() for label in labels.all()), crop, context, feedback, note):
        assert box is not None
        assert box["y"] + box["height"] <= submit["y"]


def check_painted(mask: np.ndarray) -> None:
    """Two strokes across the middle, sky above road, and nothing else."""
    quarter, middle = SIDE // 4, slice(SIDE // 4 + 4, 3 * SIDE // 4 - 4)
    assert mask.shape == (SIDE, SIDE)
    assert (mask[quarter, middle] == SKY).all()
    assert (mask[3 * quarter, middle] == ROAD).all()
    assert (mask[SIDE // 2] == VOID).all()
    assert set(np.unique(mask)) == {SKY, ROAD, VOID}
    for index in (SKY, ROAD):
        rows, cols = np.nonzero(mask == index)
        assert rows.max() - rows.min() < SIDE // 4  # as thick as the brush
        assert SIDE / 2 <= cols.max() - cols.min() < 3 * SIDE / 4


def as_pressed(key: str) -> str:
    """A key as Playwright calls it; Label Studio's plus is pressed without Shift."""
    names = {"ctrl": "Control", "shift": "Shift", "plus": "Equal", "minus": "Minus"}
    return "+".join(names.get(part, part) for part in key.split("+"))


def test_painted_regions_are_learned_and_the_next_suggestion_shows_it(
    annotator: Annotator,
    pool_id: int,
    backend: Backend,
    store: Store,
    label_studio: LabelStudioServer,
):
    backend.run("connect", "--project", str(pool_id))
    log = backend.log_path
    wait_for("the first queue", lambda: store.projects.all()[0].published_version == 0, log)
    project = store.projects.all()[0]
    assert project.regions_tool_id is not None

    annotator.log_in(USERNAME, PASSWORD)
    task = annotator.open_stream(project.regions_tool_id)
    assert "What you leave unpainted counts as not labelled" in annotator.read_instructions()
    check_screen(annotator)
    painted = []
    for count in range(1, REGIONS_PER_ROUND + 1):
        shown = task["data"]
        painted.append((shown["source_task"], shown["row"], shown["col"]))
        for index, row in ((SKY, 0.25), (ROAD, 0.75)):
            annotator.paint(NAMES[index], str(index + 1), (row, 0.25), (row, 0.75))
        for key in TOOL_HOTKEYS:  # none of them answers a question, or it would come back below
            annotator.page.keyboard.press(as_pressed(key))
        task = annotator.submit()
        wait_for("the label", lambda: len(store.labels.of(project.id)) == count, log)  # noqa: B023

    images = {image.id: image for image in store.images.of(project.id)}
    labels = store.labels.of(project.id)
    places = [(images[it.image_id].task_id, it.region.row, it.region.col) for it in labels]
    assert sorted(places) == sorted(painted)
    for label in labels:
        check_painted(store.labels.mask(label))
    assert store.answers.of(project.id) == []

    wait_for("version 1", lambda: store.projects.all()[0].published_version == 1, log)
    task = annotator.open_stream(project.regions_tool_id)
    suggestion = max(task["predictions"], key=lambda it: it["id"])
    assert suggestion["model_version"] == "ralis-v1"
    assert 1 <= len(suggestion["result"]) == annotator.num_masks()


@pytest.fixture
def one_label_id(client: LabelStudioClient) -> int:
    """The same scenes in a project with the one label "car"."""
    project = client.create_project(
        "One label",
        '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        '<Label value="car" background="#E6194B"/></BrushLabels></View>',
    )
    scenes = generate(2, size=(2 * SIDE, 2 * SIDE), seed=3)
    files = [(f"street{index}.png", encode_png(it.image)) for index, it in enumerate(scenes)]
    client.upload_files(int(project["id"]), files)
    return int(project["id"])


@pytest.mark.parametrize("segmenter", ["tiny"], indirect=True)
def test_one_label_is_told_from_background_and_a_region_without_it_is_submitted_empty(
    annotator: Annotator,
    one_label_id: int,
    backend: Backend,
    store: Store,
    client: LabelStudioClient,
):
    with pytest.raises(RuntimeError, match="the single label 'car'"):
        backend.run("connect", "--project", str(one_label_id), "--no-background")
    said = backend.run("connect", "--project", str(one_label_id))
    assert "'Background', a class without a label to paint (on by itself" in said
    log = backend.log_path
    wait_for("the first queue", lambda: store.projects.all()[0].published_version == 0, log)
    project = store.projects.all()[0]
    assert project.regions_tool_id is not None

    annotator.log_in(USERNAME, PASSWORD)
    annotator.open_stream(project.regions_tool_id)
    told = annotator.read_instructions()
    assert "What you leave unpainted counts as Background: never fill it in." in told
    annotator.paint("car", "1", (0.5, 0.25), (0.5, 0.75))
    annotator.submit()
    assert annotator.num_regions() == 0
    annotator.submit()
    wait_for("two labels", lambda: len(store.labels.of(project.id)) == 2, log)
    seen = [np.unique(store.labels.mask(it)).tolist() for it in store.labels.of(project.id)]
    assert seen == [[0, 1], [1]]  # painted and all the rest; nothing but background

    wait_for("version 1", lambda: store.projects.all()[0].published_version == 1, log)
    for task in client.tasks(project.regions_tool_id):
        whole = client.task(task["id"])
        drawn = [it for each in whole["predictions"] for it in each["result"]]
        assert all(it["value"]["brushlabels"] == ["car"] for it in drawn)
    assert store.projects.all()[0].last_error is None
