"""Chromium as annotators use it: log in, open the label stream, paint with the brush, submit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Response, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

WIDTH, HEIGHT = 1600, 950
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--no-sandbox",  # it shows our own server alone, and may run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 60_000
STROKES = 5

# Brush masks lie on canvases of their own, which Label Studio gives this opacity.
MASKS = 'canvas[style*="opacity: 0.6"]'
NUM_REGIONS = "Htx.annotationStore.selected.regionStore.regions.length"
NUM_PAINTED_MASKS = """
    selector => [...document.querySelectorAll(selector)].filter(canvas => {
        const {width, height} = canvas;
        const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
        for (let alpha = 3; alpha < data.length; alpha += 4) if (data[alpha]) return true;
        return false;
    }).length
"""


def chromium_program() -> str | None:
    """Path of an installed Chromium, the system's or the one that Playwright installs."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        with sync_playwright() as playwright:
            bundled = playwright.chromium.executable_path
        found = bundled if Path(bundled).is_file() else None
    return found


@contextmanager
def chromium_page(program: str) -> Iterator[Page]:
    """A page of 1600 x 950 pixels in a headless Chromium without a history."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(TIMEOUT_MS)
            yield page
        finally:
            browser.close()


class Annotator:
    """A person before Label Studio's label stream.

    Args:
        page: the browser's page.
        url: Label Studio's address.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url

    def log_in(self, username: str, password: str) -> None:
        """Through the login form."""
        self.page.goto(f"{self._url}/user/login/")
        self.page.fill("#email", username)
        self.page.fill("#password", password)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(lambda url: "/user/login" not in url, wait_until="commit")

    def open_stream(self, project_id: int) -> dict[str, Any]:
        """Open the label stream; returns the task that it shows, as the API gives it."""
        with self.page.expect_response(_brings_a_task) as answer:
            self.page.goto(f"{self._url}/projects/{project_id}/data?labeling=1")
        return self._shown(answer.value.json())

    def read_instructions(self) -> str:
        """What Label Studio tells annotators when the stream opens; closed when it is read."""
        heading = self.page.get_by_text("Labeling Instructions")
        expect(heading).to_be_visible()
        text = self.page.get_by_text("How to label a suggested region").locator("xpath=..")
        told = text.inner_text()
        self.page.keyboard.press("Escape")
        expect(heading).to_be_hidden()
        return told

    def paint(
        self, name: str, hotkey: str, start: tuple[float, float], end: tuple[float, float]
    ) -> None:
        """Drag a label's brush over the first picture between two points, (row, col) in 0..1.

        On a busy machine the canvas may not listen yet: like a person, let go what is chosen,
        take the label again and repeat. Label Studio's own list of regions tells whether a stroke
        was taken: the canvases show more or fewer masks while it redraws.
        """
        before = self.num_regions()
        for _ in range(STROKES):
            self._pick(name, hotkey)
            self._stroke(start, end)
            with suppress(PlaywrightTimeout):
                self.page.wait_for_function(
                    f"count => ({NUM_REGIONS}) > count", arg=before, timeout=10_000
                )
                self.wait_for_masks(before + 1)
                return
        raise AssertionError(
            f"Label Studio took none of {STROKES} strokes of {name}: it knows "
            f"{self.num_regions()} regions and draws {self.num_masks()} masks"
        )

    def _pick(self, name: str, hotkey: str) -> None:
        """Choose a label by its key, as people do; a mask chosen before is let go first."""
        self.page.keyboard.press("Escape")
        self.page.wait_for_function("Htx.annotationStore.selected.regionStore.selection.size === 0")
        self.page.keyboard.press(hotkey)
        expect(self.page.locator(".lsf-label_selected")).to_contain_text(name)

    def _stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        box = self.page.locator(".ralis-crop img").first.bounding_box()
        assert box is not None
        points = [
            (box["x"] + col * box["width"], box["y"] + row * box["height"])
            for row, col in (start, end)
        ]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        self.page.mouse.move(*points[1], steps=12)
        self.page.mouse.up()

    def num_regions(self) -> int:
        """How many regions Label Studio knows in the shown annotation."""
        return int(self.page.evaluate(NUM_REGIONS))

    def num_masks(self) -> int:
        """How many brush masks are drawn at the moment."""
        return int(self.page.evaluate(NUM_PAINTED_MASKS, MASKS))

    def wait_for_masks(self, count: int, timeout_s: float = 60) -> None:
        """Return once at least `count` brush masks are drawn."""
        condition = f"([selector, count]) => ({NUM_PAINTED_MASKS})(selector) >= count"
        self.page.wait_for_function(
            condition, arg=[MASKS, count], polling=250, timeout=1000 * timeout_s
        )

    def submit(self) -> dict[str, Any] | None:
        """Press Submit; returns the next task, None if there is none."""
        with self.page.expect_response(_brings_a_task) as answer:
            self.page.get_by_test_id("bottombar-submit-button").click()
        if not answer.value.ok:
            return None
        return self._shown(answer.value.json())

    def _shown(self, task: dict[str, Any]) -> dict[str, Any]:
        """Wait until the task's picture and its suggested masks stand on the screen."""
        self.page.wait_for_function(
            """() => {
                const pictures = [...document.querySelectorAll(".lsf-image img")];
                return pictures.length > 0
                    && pictures.every(picture => picture.complete && picture.naturalWidth > 0);
            }"""
        )
        results = [it for prediction in task["predictions"][:1] for it in prediction["result"]]
        self.wait_for_masks(sum(it["type"] == "brushlabels" for it in results))
        return task


def _brings_a_task(response: Response) -> bool:
    return "id=next_task" in response.url and response.request.method == "POST"
