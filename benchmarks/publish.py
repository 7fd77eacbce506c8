"""Seconds to publish crop tasks to a real Label Studio: pictures, files, tasks, predictions.

Starts Label Studio on a temporary folder, draws a small pool, and publishes the way the worker
does, a bounded number of crops per call. Only the publishing is timed.

    python benchmarks/publish.py --crops 1000 --out benchmarks/results/publish.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ralis_backend.cli.demo.label_studio import LabelStudioServer, free_port
from ralis_backend.cli.demo.scenes import CLASSES, generate
from ralis_backend.core.files import write_json
from ralis_backend.core.images import context_picture, crop_picture, crop_scale
from ralis_backend.core.regions import Region, grid
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.tool import Crop, CropPrediction, ToolTask

TOKEN = "0123456789abcdef0123456789abcdef01234567"
IMAGE_SIZE = (360, 480)
REGION_SIZE = (128, 128)
CROPS_PER_CALL = 100
TARGET_S = 15.0


def main() -> None:
    """Measure, print, and write the figures if a file is named."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="ralis-publish-") as folder,
        _label_studio(options, Path(folder) / "label-studio") as server,
    ):
        report = _measure(server, Path(folder), options)
    print(json.dumps(report, indent=2))
    if options.out is not None:
        write_json(options.out, report)
    sys.exit(0 if report["total"]["wall"] < TARGET_S else 1)


class _Clock:
    """Seconds by phase, and the processor time in them, added up over calls.

    On a machine that does other work as well, processor time is what to compare.
    """

    def __init__(self, server: LabelStudioServer) -> None:
        self._server = server
        self.seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before = self._now()
        yield
        for what, value in self._now().items():
            self.seconds[name][what] += value - before[what]

    def _now(self) -> dict[str, float]:
        return {
            "wall": time.perf_counter(),
            "backend_cpu": time.process_time(),
            "label_studio_cpu": _cpu_seconds(self._server.pid),
        }


def _measure(
    server: LabelStudioServer, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    client = LabelStudioClient(server.url, TOKEN)
    scenes = list(generate(options.images, IMAGE_SIZE, options.seed))
    names = [name for name, _ in CLASSES]
    tool = LabelStudioTool(client, ImageFetcher(client, folder / "images", 10**9))
    pool = tool.project(client.create_project("Publishing", _config(names))["id"])
    regions_id = tool.prepare(pool, "crops", None)
    assert regions_id is not None
    places = [
        (index, region)
        for index, scene in enumerate(scenes)
        for region in grid(scene.image.shape[:2], REGION_SIZE)
    ]
    places = (places * -(-options.crops // len(places)))[: options.crops]

    clock = _Clock(server)
    tasks: list[ToolTask] = []
    for start in range(0, len(places), CROPS_PER_CALL):
        with clock.phase("cut pictures"):
            crops = [
                _crop(scenes[index].image, index, region, start + offset)
                for offset, (index, region) in enumerate(places[start : start + CROPS_PER_CALL])
            ]
        with clock.phase("upload files and make tasks"):
            tasks += tool.create_crop_tasks(pool, regions_id, crops)
    predictions = [
        CropPrediction(
            task_id=task.id,
            region=region,
            scale=crop_scale(region),
            mask=np.ascontiguousarray(scenes[index].mask[region.slices]),
            usefulness=1 - rank / len(tasks),
            rank=rank + 1,
            reason="",
        )
        for rank, (task, (index, region)) in enumerate(zip(tasks, places, strict=True))
    ]
    with clock.phase("publish predictions"):
        tool.publish_crop_predictions(regions_id, "v1", names, predictions)
    with clock.phase("replace them by the next version's"):
        tool.publish_crop_predictions(regions_id, "v2", names, predictions)
    stored = client.model_versions(regions_id)
    if stored != {"v2": options.crops}:
        raise RuntimeError(f"stored predictions by version are {stored}, expected v2 alone")
    phases = {
        name: {what: round(value, 2) for what, value in parts.items()}
        for name, parts in clock.seconds.items()
    }
    next_version = phases.pop("replace them by the next version's")
    total = {what: round(sum(parts[what] for parts in phases.values()), 2) for what in next_version}
    return {
        "crops": options.crops,
        "region_size": "x".join(map(str, REGION_SIZE)),
        "image_size": "x".join(map(str, IMAGE_SIZE)),
        "num_classes": len(names),
        "label_studio": client.version(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "seconds": phases,
        "total": total,
        "target": TARGET_S,
        "replacing_all_predictions": next_version,
    }


def _crop(image: np.ndarray, source_task: int, region: Region, position: int) -> Crop:
    scale = crop_scale(region)
    return Crop(
        source_task=source_task,
        region=region,
        image=crop_picture(image, region, scale),
        context=context_picture(image, region),
        scale=scale,
        round=1,
        rank=position + 1,
        reason="uncertain: mean entropy 1.23 nats",
        strategy="entropy",
        version="v1",
    )


def _config(names: Sequence[str]) -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
    )


@contextmanager
def _label_studio(options: argparse.Namespace, data_dir: Path) -> Iterator[LabelStudioServer]:
    if options.label_studio_data is not None:
        shutil.copytree(options.label_studio_data, data_dir)
    server = LabelStudioServer(
        options.label_studio, data_dir, free_port(), "admin@example.com", "ralis-demo-1", TOKEN
    )
    with server:
        yield server


def _cpu_seconds(session: int | None) -> float:
    """Processor time of all processes of a session, where /proc tells."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--images", type=int, default=24, help="scenes to cut them from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures to this file as well")
    parser.add_argument(
        "--label-studio",
        type=Path,
        default=Path(sys.prefix).parent / ".venv-label-studio/bin/label-studio",
    )
    parser.add_argument(
        "--label-studio-data", type=Path, help="an initialised data folder; it is copied"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
