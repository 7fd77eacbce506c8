"""How much memory the worker takes: by step and number of images, and for one large image.

Rows go straight into SQLite, every image is one of a few generated ones of 2 megapixels, and each
step runs in a process of its own. Ranking is measured without the network, which sees one image at
a time: made-up features of the right shapes take its place, and a single look is measured apart.

Both figures are in MB: the largest resident set, and the largest part of it that no file backs
(what lies in a mapped file can be dropped where memory is short).

    OMP_NUM_THREADS=1 python benchmarks/memory.py --out benchmarks/results/memory.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image as Picture

SIZE = (1024, 2048)
NUM_CLASSES = 19
REGION_SIZE = (128, 128)
LABELS_PER_IMAGE = 3
NUM_VALIDATION = 20
START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = (
    "plan", "train", "rank k-center", "rank bald-rarity", "rank coverage", "rank clasp-pe",
    "rank any", "publish crops", "publish in-place",
)  # fmt: skip
LOOKS = ((1024, 2048), (4000, 4000), (10_000, 10_000))


def main() -> None:
    """Measure, print and write; with `--step`, do that one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    parser.add_argument("--images", default="1000,10000")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--looks", default="bald-rarity,any")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        print(json.dumps(_measured(lambda: run_step(options.step, options.folder))))
        return
    content: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/memory.py",
        "image": list(SIZE),
        "classes": NUM_CLASSES,
        "regions_per_image": 128,
        "labelled_regions_per_image": LABELS_PER_IMAGE,
        "python": sys.version.split()[0],
    }
    content["steps"] = [
        {"images": count, "step": step, **figures}
        for count in map(int, options.images.split(","))
        for step, figures in _steps(count, options.steps.split(","))
    ]
    content["looks"] = [
        {"size": list(size), "features": name, **_in_process(f"look {name} {size[0]} {size[1]}")}
        for size in LOOKS
        for name in options.looks.split(",")
        if name
    ]
    print(json.dumps(content, indent=1))
    if options.out is not None:
        from ralis_backend.core.files import write_json

        write_json(options.out, content)


def _steps(count: int, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step on a project of so many images, always from the same state."""
    with tempfile.TemporaryDirectory(prefix="ralis-memory-") as scratch:
        made = Path(scratch) / "made"
        _in_process(f"prepare {count}", made)
        for name in names:
            work = Path(scratch) / "work"
            shutil.copytree(made, work)
            yield name, _in_process(name, work)
            shutil.rmtree(work)


def _in_process(step: str, folder: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step]
    if folder is not None:
        command += ["--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(step, figures, file=sys.stderr, flush=True)
    return figures


def _measured(step: Callable[[], None]) -> dict[str, Any]:
    started, is_over = time.monotonic(), threading.Event()
    peak = [0]

    def watch() -> None:
        while not is_over.wait(0.02):
            peak[0] = max(peak[0], _anonymous_kb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        step()
    finally:
        is_over.set()
        watcher.join()
    return {
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_without_files_mb": round(peak[0] / 1024),
        "seconds": round(time.monotonic() - started, 1),
    }


def _anonymous_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])


def run_step(step: str, folder: Path | None) -> None:
    """One step, by its name and what follows it."""
    name, *arguments = step.split()
    if name == "look":
        look(arguments[0], (int(arguments[1]), int(arguments[2])))
        return
    if folder is None:
        raise ValueError(f"step {step} needs a folder")
    if name == "prepare":
        prepare(folder, int(arguments[0]))
    elif name == "plan":
        plan(folder)
    elif name == "train":
        train(folder)
    elif name == "rank":
        rank(folder, arguments[0])
    else:
        publish(folder, arguments[0])


def look(name: str, size: tuple[int, int]) -> None:
    """One image as the worker describes it for a strategy."""
    import torch

    from ralis_backend.core.features import describe_parts
    from ralis_backend.core.regions import grid
    from ralis_backend.core.segmenter import SegmenterSpec, build

    torch.set_num_threads(1)
    segmenter = build(SegmenterSpec(NUM_CLASSES, encoder_weights=None))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    needs = _strategy(name).needs
    parts = segmenter.parts(image, needs.maps)
    describe_parts(parts, size, grid(size, REGION_SIZE), needs.features)


def prepare(folder: Path, count: int) -> None:
    """A project with labels, a version and its ranking; a few mask files serve all of them."""
    from ralis_backend.core.regions import grid
    from ralis_backend.core.segmenter import SegmenterSpec, build
    from ralis_backend.online.labels import NewLabel
    from ralis_backend.online.store.tables import Annotation, Image, Label, Ranking, Version

    store = _store(folder)
    classes = [_class(index) for index in range(NUM_CLASSES)]
    project = store.projects.register("1.100", 1, "<View/>", classes, "pool")
    rng = np.random.default_rng(0)
    regions = grid(SIZE, REGION_SIZE)
    key = "versions/1/1.safetensors"
    store.blobs.path(key).parent.mkdir(parents=True)
    build(SegmenterSpec(NUM_CLASSES, encoder_weights=None)).save(store.blobs.path(key))
    store.versions.add(
        Version(
            project_id=project.id, number=1, parent=5, is_accepted=True, num_labels=1,
            weights_key=key, created_at=START, ranked_at=START, strategy="bald-rarity", metrics={},
        ),
        current_version=1,
    )  # fmt: skip
    masks = [
        store.rankings.put_mask(
            store.versions.all(project.id)[0],
            number,
            np.kron(rng.integers(0, NUM_CLASSES, (32, 64)), np.ones((32, 32))).astype(np.uint8),
        )
        for number in range(1, 9)
    ]
    templates = []
    for _ in range(20):
        patch = rng.integers(0, NUM_CLASSES, REGION_SIZE).astype(np.uint8)
        fields = _annotation(project.id, 1)
        templates.append(
            store.labels._label_row(Annotation(**fields, id=1), NewLabel(regions[0], patch))
        )
    for start in range(0, count, 500):
        with store.database.write() as session:
            for number in range(start + 1, min(start + 500, count) + 1):
                session.add(
                    Image(
                        id=number, project_id=project.id, task_id=number, task_created_at=START,
                        ref=f"/{number}.jpg", height=SIZE[0], width=SIZE[1],
                        is_validation=number <= NUM_VALIDATION,
                    )
                )  # fmt: skip
            session.flush()
            for number in range(start + 1, min(start + 500, count) + 1):
                session.add(Annotation(**_annotation(project.id, number), id=number))
            session.flush()
            for number in range(start + 1, min(start + 500, count) + 1):
                for region in rng.choice(len(regions), LABELS_PER_IMAGE, replace=False):
                    of = templates[int(rng.integers(len(templates)))]
                    place = regions[region]
                    session.add(
                        Label(
                            project_id=project.id, annotation_row_id=number, image_id=number,
                            row=place.row, col=place.col, height=place.height, width=place.width,
                            is_skipped=False, mask_key=of.mask_key, pixels=of.pixels,
                        )
                    )  # fmt: skip
                scores = rng.random(len(regions)).astype("<f4")
                session.add(
                    Ranking(
                        version_id=1, image_id=number, scores=scores.tobytes(),
                        reasons=["uncertain", *[""] * (len(regions) - 1)],
                        mask_key=masks[number % 8],
                    )
                )  # fmt: skip
    store.close()


def plan(folder: Path) -> None:
    """What the next training uses."""
    from ralis_backend.online.worker.training_plan import plan_training

    store = _store(folder)
    (project,) = store.projects.all()
    plan_training(store.images.of(project.id), store.labels.of(project.id), None, datetime.now(UTC))


def train(folder: Path) -> None:
    """100 steps of the default training, and the evaluation on what is held out."""
    from ralis_backend.core.learning.config import FinetuneConfig
    from ralis_backend.online.worker.train import Trainer

    store = _store(folder)
    (project,) = store.projects.all()
    config = replace(_config(), finetune=FinetuneConfig(steps=100))
    version = Trainer(store, _tool(), config).train(project, lambda _: None, lambda: False)
    if version is None or "left_out" in version.metrics:
        raise ValueError("the training left something out")


def rank(folder: Path, name: str) -> None:
    """Describe (made up), score, explain and store the whole pool."""
    from ralis_backend.core.segmenter import MAPS
    from ralis_backend.online.pictures import Pictures
    from ralis_backend.online.ranking import DescribedImage
    from ralis_backend.online.store import rankings
    from ralis_backend.online.worker import rank as module

    store = _store(folder)
    (project,) = store.projects.all()
    project = store.projects.change(project.id, strategy=name)
    (version,) = store.versions.all(project.id)
    mask = np.zeros(SIZE, np.uint8)
    table = np.random.default_rng(0)

    def described(segmenter: Any, image: Any, config: Any, needs: Any) -> DescribedImage:
        return DescribedImage(SIZE, _made_up(table, needs.features), mask, "")

    with (
        mock.patch.object(Pictures, "pixels", return_value=mask),
        mock.patch.object(module, "describe_image", described),
        mock.patch.object(rankings, "mask_to_png", return_value=b"no mask"),
    ):
        module.Ranker(store, _tool(), _config()).rank(
            project, version, lambda _: None, lambda: False
        )
    ranked = store.versions.all(project.id)[0]
    if ranked.strategy != name or not set(_strategy(name).needs.maps).issubset(MAPS):
        raise ValueError(f"{ranked.strategy} ranked: {ranked.metrics}")


def publish(folder: Path, mode: str) -> None:
    """What annotators meet next."""
    from ralis_backend.online.worker.publish import Publisher
    from ralis_backend.online.worker.sync import Sync

    store, tool = _store(folder), _tool()
    (project,) = store.projects.all()
    if mode == "crops":
        project = store.projects.change(project.id, regions_tool_id=2, regions_uid="2.200")
    (version,) = store.versions.all(project.id)
    config = replace(_config(), mode=mode)
    Publisher(store, tool, config, Sync(store, tool, config)).publish(project, version)
    if not tool.num_published:
        raise ValueError("nothing was published")


def _made_up(rng: np.random.Generator, names: Iterable[str]) -> Any:
    from ralis_backend.core.features import RegionFeatures

    widths = {"entropy_grid": 192, "embeddings": 96}
    values = {}
    for name in names:
        width = widths.get(name, NUM_CLASSES if name.startswith("class") else None)
        shape = (128,) if width is None else (128, width)
        values[name] = rng.random(shape, np.float32)
    return RegionFeatures(128, values)


def _strategy(name: str) -> Any:
    from ralis_backend.core.policy.registry import find_strategy

    policies = Path(__file__).resolve().parent.parent / "policies"
    return find_strategy(name, policies, [f"class {i}" for i in range(NUM_CLASSES)], REGION_SIZE)


def _config() -> Any:
    from ralis_backend.core.segmenter import SegmenterSpec
    from ralis_backend.online.choosing import RankingConfig
    from ralis_backend.online.worker import WorkerConfig

    policies = Path(__file__).resolve().parent.parent / "policies"
    ranking = RankingConfig(
        policies_dir=policies, spec=SegmenterSpec(NUM_CLASSES, encoder_weights=None)
    )
    return WorkerConfig(ranking=ranking, trust_rounds=0)


def _store(folder: Path) -> Any:
    from ralis_backend.online.store import Store

    folder.mkdir(parents=True, exist_ok=True)
    return Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")


def _annotation(project_id: int, number: int) -> dict[str, Any]:
    return {
        "project_id": project_id, "tool_uid": "1.100", "annotation_id": number, "task_id": number,
        "image_id": number, "annotator": "ann", "created_at": START,
        "updated_at": START + timedelta(seconds=number), "digest": "", "payload": b"",
    }  # fmt: skip


def _class(index: int) -> Any:
    from ralis_backend.online.tool import ClassLabel

    return ClassLabel(f"class {index}", f"#{index:06d}")


def _tool() -> Any:
    """What of a labelling tool is asked for here."""
    return _Pictures()


class _Pictures:
    """Gives four pictures in turn, and forgets what is published."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.files = [_picture(rng) for _ in range(4)]
        self.num_published = 0

    def image(self, task: Any) -> bytes:
        return self.files[task.id % 4]

    def project(self, project_id: int) -> Any:
        from ralis_backend.online.tool import ToolProject

        classes = tuple(_class(index) for index in range(NUM_CLASSES))
        return ToolProject("1.100", 1, "pool", "<View/>", classes)

    def begun_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        return []

    def delete_unopened_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        return list(task_ids)

    def create_crop_tasks(self, pool: Any, regions_id: int, crops: Sequence[Any]) -> list[Any]:
        from ralis_backend.online.tool import ToolTask

        return [ToolTask(10**6 + index, START, "/crop.jpg") for index, _ in enumerate(crops)]

    def publish_crop_predictions(
        self, regions_id: int, version: str, names: Sequence[str], predictions: Sequence[Any]
    ) -> None:
        self.num_published = len(predictions)

    def publish_image_predictions(
        self, pool: Any, version: str, names: Sequence[str], suggestions: Iterable[Any]
    ) -> None:
        for _ in suggestions:
            self.num_published += 1


def _picture(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 256, (SIZE[0] // 32, SIZE[1] // 32, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(coarse).resize(SIZE[::-1], Picture.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
