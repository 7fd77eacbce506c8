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

import numpy as np

from ralis_backend.core.images import context_picture, crop_picture, crop_scale
from ralis_backend.core.regions import Region, grid
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.host import LabelStudioHost
from ralis_backend.labelstudio.images import ImageFetcher
from ralis_backend.labelstudio.server import LabelStudioServer, free_port
from ralis_backend.offline.scenes import CLASSES, generate
from ralis_backend.online.host import Crop, CropPrediction, HostTask

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
        _label_studio(options, Path(folder) / "label-studio") as client,
    ):
        report = _measure(client, Path(folder), options)
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if options.out is not None:
        partial = options.out.with_name(f".{options.out.name}.writing")
        partial.write_text(text)
        partial.replace(options.out)
    sys.exit(0 if report["total"] < TARGET_S else 1)


class _Clock:
    """Seconds by phase, added up over calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started


def _measure(
    client: LabelStudioClient, folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    scenes = list(generate(options.images, IMAGE_SIZE, options.seed))
    names = [name for name, _ in CLASSES]
    host = LabelStudioHost(client, ImageFetcher(client, folder / "images", 10**9))
    pool = host.project(client.create_project("Publishing", _config(names))["id"])
    regions_id = host.prepare(pool, "crops", None)
    assert regions_id is not None
    places = [
        (index, region)
        for index, scene in enumerate(scenes)
        for region in grid(scene.image.shape[:2], REGION_SIZE)
    ]
    places = (places * -(-options.crops // len(places)))[: options.crops]

    clock = _Clock()
    tasks: list[HostTask] = []
    for start in range(0, len(places), CROPS_PER_CALL):
        with clock.phase("cut pictures"):
            crops = [
                _crop(scenes[index].image, index, region, start + offset)
                for offset, (index, region) in enumerate(places[start : start + CROPS_PER_CALL])
            ]
        with clock.phase("upload files and make tasks"):
            tasks += host.create_crop_tasks(pool, regions_id, crops)
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
        host.publish_crop_predictions(regions_id, "v1", names, predictions)
    with clock.phase("replace them by the next version's"):
        host.publish_crop_predictions(regions_id, "v2", names, predictions)
    stored = client.model_versions(regions_id)
    if stored != {"v2": options.crops}:
        raise RuntimeError(f"stored predictions by version are {stored}, expected v2 alone")
    seconds = {name: round(value, 2) for name, value in clock.seconds.items()}
    next_version = seconds.pop("replace them by the next version's")
    return {
        "crops": options.crops,
        "region_size": "x".join(map(str, REGION_SIZE)),
        "image_size": "x".join(map(str, IMAGE_SIZE)),
        "num_classes": len(names),
        "label_studio": client.version(),
        "cpus": os.cpu_count(),
        "seconds": seconds,
        "total": round(sum(seconds.values()), 2),
        "target": TARGET_S,
        "seconds_of_replacing_all_predictions": next_version,
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
def _label_studio(options: argparse.Namespace, data_dir: Path) -> Iterator[LabelStudioClient]:
    if options.label_studio_data is not None:
        shutil.copytree(options.label_studio_data, data_dir)
    server = LabelStudioServer(
        options.label_studio, data_dir, free_port(), "admin@example.com", "ralis-demo-1", TOKEN
    )
    with server:
        client = LabelStudioClient(server.url, TOKEN)
        yield client
        client.close()


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
