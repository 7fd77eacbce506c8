"""The README's pictures, from a browser before the demo's own scenes.

    python -m tests.e2e.screenshots [--docs docs/images]

Runs `ralis demo` in both modes until version 1 suggests masks, and takes a picture of each screen.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.core.files import write_bytes
from tests.e2e.browser import Annotator, chromium_page, chromium_program

MAX_BYTES = 400_000
PICTURES = {"crops": "crop-task.png", "in-place": "in-place.png"}
REGIONS_PER_ROUND = 24


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description="Take the README's pictures.")
    parser.add_argument("--docs", type=Path, default=Path("docs/images"), help="where to put them")
    folder = parser.parse_args().docs
    program = chromium_program()
    if program is None:
        sys.exit("no Chromium; install it with `.venv/bin/playwright install --with-deps chromium`")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ralis-screenshots-") as work:
        for mode, name in PICTURES.items():
            with labelled_demo(Path(work), mode) as (url, project_id, login):
                write(folder / name, picture(program, url, project_id, login))
                sys.stdout.write(f"{folder / name}\n")


@contextmanager
def labelled_demo(work: Path, mode: str) -> Iterator[tuple[str, int, tuple[str, str]]]:
    """A demo in which a script has labelled one round; yields address, project and login."""
    command = [
        *(sys.executable, "-m", "ralis_backend.cli", "demo", "--oracle", "--rounds", "1"),
        *("--mode", mode, "--regions-per-round", str(REGIONS_PER_ROUND), "--eval-images", "2"),
        *("--max-images", "16", "--folder", str(work), "--out", str(work / f"out-{mode}")),
        *("--port", str(free_port()), "--backend-port", str(free_port()), "--keep"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if "Labelled dataset" in line:
                break
        else:
            sys.exit(f"the demo ended:\n{printed}")
        found = re.search(r"(http://127\.0\.0\.1:\d+)/projects/(\d+)/data\?labeling=1", printed)
        assert found is not None, printed
        login = json.loads((work / "demo.json").read_text())
        yield found[1], int(found[2]), (login["username"], login["password"])
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def picture(program: str, url: str, project_id: int, login: tuple[str, str]) -> bytes:
    """What the annotator sees first, as PNG."""
    with chromium_page(program) as page:
        annotator = Annotator(page, url)
        annotator.log_in(*login)
        annotator.open_stream(project_id)
        page.wait_for_load_state("networkidle")
        page.keyboard.press("Escape")  # the instructions
        page.wait_for_timeout(1000)
        return page.screenshot()


def write(path: Path, content: bytes) -> None:
    """Write a PNG of at most 256 colours, which is enough for a screen."""
    with Image.open(io.BytesIO(content)) as image:
        reduced = image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG", optimize=True)
    if buffer.tell() > MAX_BYTES:
        sys.exit(f"{path} would take {buffer.tell()} bytes, at most {MAX_BYTES} are wanted")
    write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    main()
