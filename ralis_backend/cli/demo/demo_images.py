"""The images to label, from a dataset, a folder of pictures or our own scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from ralis_backend.cli.demo import scenes
from ralis_backend.cli.demo.evaluation import spread
from ralis_backend.cli.upload_names import file_names
from ralis_backend.core.palette import hexadecimal, rgb
from ralis_backend.labelstudio.payloads.label_config import REGION_COLOR
from ralis_backend.offline.datasets import (
    Dataset,
    DatasetClass,
    DatasetError,
    Sample,
    plain_folder,
    write_dataset,
)
from ralis_backend.online.file_names import uploaded_name

NUM_SCENES = {"d_v": 36, "d_r": 12, "test": 12}
# Label Studio shows brush masks at an opacity of 0.6, whatever the config says.
STYLE = '.ralis-image canvas[style*="opacity: 0.6"] { opacity: 0.4 !important }'


@dataclass(frozen=True)
class DemoImages:
    """What is to be labelled, and what versions are judged by (empty without masks)."""

    name: str
    dataset: Dataset
    samples: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def is_labelled(self) -> bool:
        """Whether the truth of every image is known, so that it can be labelled by a script."""
        return all(sample.mask_path is not None for sample in self.samples)

    @property
    def names(self) -> dict[str, Sample]:
        """The name under which each image is uploaded: safe, unique."""
        return file_names(self.samples)

    def fingerprint(self, mode: str) -> str:
        """Equal for runs that can go on with the same project."""
        keys = (sample.key for sample in self.samples)
        parts = [mode, str(self.dataset.root.resolve()), *self.dataset.class_names, *keys]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def from_dataset(root: Path, max_images: int | None) -> DemoImages:
    """Images of D_V, judged on D_R and the test split."""
    dataset = Dataset.open(root)
    if not dataset.splits["d_v"]:
        raise DatasetError(f"{root} has an empty d_v: there is nothing to label")
    return _demo_images(root.resolve().name, dataset, max_images)


def from_folder(folder: Path, class_names: Sequence[str], max_images: int | None) -> DemoImages:
    """A folder of pictures, with or without masks."""
    if (folder / "splits.json").is_file():
        return from_dataset(folder, max_images)
    return _demo_images(folder.resolve().name, plain_folder(folder, class_names), max_images)


def from_scenes(
    folder: Path, seed: int, max_images: int | None, on_scene: Callable[[int, int], None]
) -> DemoImages:
    """Scenes drawn by ourselves, kept in `folder` for the next run."""
    root = folder / f"scenes-{seed}"
    if not root.is_dir():
        classes = [DatasetClass(name, rgb(color)) for name, color in scenes.CLASSES]
        write_dataset(root, classes, _drawn(seed, on_scene))
    return _demo_images("Street scenes", Dataset.open(root), max_images)


def _drawn(
    seed: int, on_scene: Callable[[int, int], None]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    splits = [split for split, count in NUM_SCENES.items() for _ in range(count)]
    folders = {"d_v": "train", "d_r": "val", "test": "test"}
    for index, scene in enumerate(scenes.generate(len(splits), seed=seed)):
        on_scene(index + 1, len(splits))
        key = f"{folders[splits[index]]}/street_{index:03d}"
        yield splits[index], key, scene.image, scene.mask


def _demo_images(name: str, dataset: Dataset, max_images: int | None) -> DemoImages:
    return DemoImages(
        name=name,
        dataset=dataset,
        samples=tuple(spread(dataset.split("d_v"), max_images)),
        validation=dataset.split("d_r"),
        test=dataset.split("test"),
    )


def label_config(classes: Sequence[DatasetClass], mode: str, region_label: str) -> str:
    """The pool project's labelling interface: one brush per class, boxes in in-place mode.

    The labels stand above the image, which keeps its height below them on one screen. A background
    has no label: it is what annotators leave unpainted.
    """
    classes = [label for label in classes if not label.is_background]
    brushes = "\n".join(
        f"    <Label value={quoteattr(label.name)} background={quoteattr(hexadecimal(label.color))}"
        + (f' hotkey="{index + 1}"/>' if index < 9 else "/>")
        for index, label in enumerate(classes)
    )
    boxes, header = "", "Label every pixel that you are sure of."
    if mode == "in-place":
        header = "Label every pixel inside the magenta boxes. Everything outside is ignored."
        # Boxes come from the backend and are locked; a label to draw more would only mislead.
        boxes = (
            '  <View style="display: none">\n'
            '    <RectangleLabels name="region" toName="image" strokeWidth="3" fillOpacity="0" '
            'opacity="0" canRotate="false" choice="single">\n'
            f'      <Label value={quoteattr(region_label)} background="{REGION_COLOR}"/>\n'
            "    </RectangleLabels>\n  </View>\n"
        )
    return (
        f'<View className="ralis-image">\n  <Style>{STYLE}</Style>\n'
        f'  <Header value="{header}" size="5"/>\n'
        f'  <BrushLabels name="brush" toName="image" opacity="0.4">\n{brushes}\n'
        f"  </BrushLabels>\n{boxes}"
        '  <Image name="image" value="$image" zoom="true" zoomControl="true" '
        'rotateControl="false" smoothing="true" crosshair="false" maxWidth="100%" '
        'maxHeight="calc(100vh - 250px)"/>\n</View>'
    )


def samples_by_task(images: Mapping[int, str], names: Mapping[str, Sample]) -> dict[int, Sample]:
    """Task id -> sample, from task id -> image reference.

    Raises:
        ValueError: if a task's image is none of ours.
    """
    found = {}
    for task_id, reference in images.items():
        name = uploaded_name(reference)
        if name not in names:
            raise ValueError(
                f"task {task_id} shows {reference!r}, which is not in the dataset; use a project "
                "that holds images of this dataset alone"
            )
        found[task_id] = names[name]
    return found
